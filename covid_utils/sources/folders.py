"""From a folder of slices to a table with labels, patients and perhaps splits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from ..runs.files import shown
from .images import SUFFIXES

CLASSES = ("non-COVID", "COVID")  # the names of the labels 0 and 1
NAMES = {  # of the classes in folders and files, compared without case, spaces and punctuation
    1: ("covid", "covid19", "covidpositive", "positive", "sarscov2", "ctcovid", "1"),
    0: ("noncovid", "nocovid", "noncovid19", "covidnegative", "negative", "normal", "ctnoncovid", "0"),
}
SPELLINGS = (
    "COVID, COVID-19, COVID-positive, positive, SARS-CoV-2 or CT_COVID for the one class, and non-COVID, "
    "non-COVID-19, no-COVID, COVID-negative, negative, normal or CT_NonCOVID for the other, in any case"
)
SPLITS = ("train", "val", "test")
BLOCK = 20  # consecutive file numbers that stand in for a patient where nobody says who is who


def folder_table(folder: Path) -> tuple[pd.DataFrame, str]:
    """The slices of a folder with class folders, or with `train.csv`, `val.csv` and `test.csv`.

    Class folders hold the slices, or a folder for each patient. The CSV files have the columns `filename`
    (from `folder`), `label` (0, 1 or a class name) and perhaps `patient`.

    Returns:
        table with `path` (from `folder`), `label` (1 = COVID), `patient`, and `split` where CSV files give
        it, in natural order; and one sentence on where the patients come from.

    Raises:
        FileNotFoundError: no such folder, or a file or class folder is missing.
        ValueError: an unknown class, a missing column, or splits that overlap.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {shown(folder)}: check the path.")
    if any((folder / f"{split}.csv").exists() for split in SPLITS):
        return _csv_table(folder)
    return _class_table(folder)


def holder(folder: Path) -> Path:
    """Of a folder and all in it, the first whose sub-folders name both classes; the folder itself if none does."""
    for place in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        if {class_of(inside.name) for inside in place.iterdir() if inside.is_dir()} >= {0, 1}:
            return place
    return folder


def _class_table(folder: Path) -> tuple[pd.DataFrame, str]:
    rows, named, found = [], 0, set()
    for class_folder in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"):
        label = class_of(class_folder.name)
        files = _slices(class_folder)
        if label is None and files:
            raise ValueError(
                f"Folder {shown(folder)} holds a folder {class_folder.name!r} that names neither class: call "
                f"it {SPELLINGS}."
            )
        if label is None:
            continue
        found.add(label)
        if not files:
            raise ValueError(
                f"Class folder {shown(class_folder)} holds no slices: put files ending in {', '.join(SUFFIXES)} there."
            )
        for file in files:
            inside = file.relative_to(class_folder).parts[:-1]
            named += bool(inside)
            rows.append((file.relative_to(folder).as_posix(), label, inside[0] if inside else None))
    if len(found) < 2:
        missing = " and ".join(CLASSES[label] for label in (1, 0) if label not in found)
        there = ", ".join(repr(p.name) for p in sorted(folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(
            f"Folder {shown(folder)} has no class folder for {missing} (it holds {there}): name the class "
            f"folders {SPELLINGS}; or give train.csv, val.csv and test.csv."
        )
    table = pd.DataFrame(rows, columns=["path", "label", "patient"])
    return _with_blocks(table), _sentence(named, len(rows), "the sub-folders of the class folders")


def _csv_table(folder: Path) -> tuple[pd.DataFrame, str]:
    table = pd.concat([_read_csv(folder, split) for split in SPLITS], ignore_index=True)
    file = table.path.map(lambda path: os.path.realpath(folder / path))
    for what, key in (("slice", file), ("patient", table.patient)):
        rows = table.assign(key=key).dropna(subset="key")
        first = rows.drop_duplicates("key").set_index("key")
        earlier = rows.key.map(first.place)
        wrong = (rows.split != rows.key.map(first.split)) if what == "patient" else rows.duplicated("key")
        if wrong.any():
            row = rows[wrong].iloc[0]
            name = row.path if what == "slice" else row.key
            raise ValueError(
                f"{what.capitalize()} {name!r} stands in {earlier[row.name]} and again in {row.place}: keep "
                f"each {what} in one split{' and one row' * (what == 'slice')} only."
            )
    _check_splits(table)
    named = int(table.patient.notna().sum())
    table = _with_blocks(table.drop(columns="place"))
    return table, _sentence(named, len(table), "the CSV files") + " The split is the one in the CSV files."


def _check_splits(table: pd.DataFrame) -> None:
    """Raise ValueError if a given split lacks a class."""
    for split in SPLITS:
        labels = table.label[table.split == split]
        if labels.nunique() < 2:
            there = f"only {CLASSES[labels.iloc[0]]} slices" if len(labels) else "no slices"
            raise ValueError(
                f"The {split} split ({split}.csv) holds {there}: put slices of both classes in it, "
                "or no score can be computed."
            )


def _read_csv(folder: Path, split: str) -> pd.DataFrame:
    """One CSV file as a table, with the `place` (file and row) of each slice for error messages."""
    path = folder / f"{split}.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"{shown(path)} is missing: a folder with CSV files needs train.csv, val.csv and test.csv."
        )
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", skip_blank_lines=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown(path)} is not a readable CSV file ({str(error).strip()}): save it anew.") from None
    table.columns = [str(column).strip().lower() for column in table.columns]
    for column in ("filename", "label"):
        if column not in table:
            raise ValueError(
                f"{shown(path)} has no column {column!r} (it has {', '.join(map(repr, table.columns))}): its "
                "first line must be filename,label or filename,label,patient, with commas."
            )
    table["place"] = [f"{path.name} row {row}" for row in range(2, len(table) + 2)]
    table = table[table[["filename", "label"]].notna().any(axis=1)]
    labels = table.label.map(class_of, na_action="ignore")
    for row in table[labels.isna()].itertuples():
        raise ValueError(
            f"{row.place} in {shown(folder)} has the unknown label {row.label!r}: write 1 or COVID, 0 or non-COVID."
        )
    for row in table.itertuples():
        if not (isinstance(row.filename, str) and (folder / row.filename.strip()).is_file()):
            raise FileNotFoundError(
                f"{row.place} names {row.filename!r}, which is not there: file names start from {shown(folder)}."
            )
    patient = table.patient.str.strip() if "patient" in table else pd.Series(None, table.index, dtype=object)
    columns = {"path": table.filename.str.strip(), "label": labels.astype(int), "patient": patient}
    return pd.DataFrame(columns | {"split": split, "place": table.place})


def class_of(name: str) -> int | None:
    """0 or 1 for a class name in any accepted spelling; None for any other.

    >>> class_of("COVID-19"), class_of("Non_COVID"), class_of("pneumonia")
    (1, 0, None)
    """
    plain = re.sub(r"[^a-z0-9]", "", str(name).lower())
    return next((label for label, names in NAMES.items() if plain in names), None)


def natural(text: str) -> list:
    """Sort key under which `Covid (2)` comes before `Covid (10)`.

    >>> sorted(["Covid (10)", "Covid (2)"], key=natural)
    ['Covid (2)', 'Covid (10)']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text.lower())]


def _slices(folder: Path) -> list[Path]:
    """All slice files below a folder, hidden ones left out, in natural order."""
    files = (Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names)
    files = [file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    return sorted(files, key=lambda file: natural(file.as_posix()))


def _with_blocks(table: pd.DataFrame) -> pd.DataFrame:
    """Slices without a patient put into blocks of consecutive file numbers, class by class."""
    table = table.sort_values("path", key=lambda paths: paths.map(natural), ignore_index=True)
    for label, name in ((0, "non-covid"), (1, "covid")):
        nameless = table.index[table.patient.isna() & (table.label == label)]
        table.loc[nameless, "patient"] = [f"{name} block {i // BLOCK + 1:03d}" for i in range(len(nameless))]
    return table.astype({"patient": str})


def _sentence(named: int, total: int, source: str) -> str:
    """Where the patients come from."""
    blocks = f"groups of {BLOCK} consecutive file numbers of a class stand in for patients, which is a guess"
    if named == 0:
        return f"No patient is named: {blocks}."
    rest = "" if named == total else f"; for the other {total - named} slices {blocks}"
    return f"Patients are named by {source}{rest}."
