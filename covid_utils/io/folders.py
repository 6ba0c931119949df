"""From a folder of slices to a table with labels, patients and perhaps splits."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd

from ..core.files import display_path
from .discovery import NIFTI, SUFFIXES, ending, sentence, slices_below
from .nifti import file_of
from .patients import canonical, describe_source, disambiguate_ids, from_headers, says_no_patient, with_blocks
from .scans import usable_slices

CLASSES = ("non-COVID", "COVID")  # the names of the labels 0 and 1
LABELS = {  # of the class names in folders and files, in any case, with a space, "-", "_" or nothing between words
    "covid": 1, "covid19": 1, "covidpositive": 1, "covid19positive": 1, "positive": 1, "sarscov2": 1, "ctcovid": 1,
    "noncovid": 0, "noncovid19": 0, "nocovid": 0, "nocovid19": 0, "covidnegative": 0, "covid19negative": 0,
    "negative": 0, "normal": 0, "ctnoncovid": 0, "1": 1, "0": 0,
}  # fmt: skip
LAYOUT = (
    "name the class folders COVID, COVID-19, COVID-positive, positive, SARS-CoV-2 or CT_COVID for the one class, and "
    "non-COVID, non-COVID-19, no-COVID, COVID-negative, negative, normal or CT_NonCOVID for the other, in any case; or "
    "give train.csv, val.csv and test.csv, or one CSV file, with the columns filename and label"
)
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
PATIENT = re.compile(r"(patient|subject|person)s?[ _-]?(ids?|names?|numbers?|no)?")  # columns meant as `patient`


def folder_table(folder: Path) -> tuple[pd.DataFrame, str]:
    """The slices of a folder with class folders, or with `train.csv`, `val.csv` and `test.csv`.

    Class folders hold the slices, or a folder for each patient; they lie in the folder, or in its folders `train`,
    `val` and `test`. The CSV files have the columns `filename` (from `folder`), `label` (0, 1 or a class name) and
    perhaps `patient`, and `low` and `high`: the values of a 16-bit picture or scan that become black and white. One
    CSV file of another name may hold all slices; its column `split` is used if there is one.

    Returns:
        table with `path` (from `folder`), `label` (1 = COVID), `patient`, and where they are given `split`, `low` and
        `high`, in natural order; and sentences on where the patients come from, and on what was left out.

    Raises:
        FileNotFoundError: no such folder, or a file is missing.
        ValueError: a class that is unknown or missing, a missing column, or splits that overlap.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: check the path.")
    tables = _tables(folder)
    if tables:
        source, said, left_out = "the CSV files", "", Counter()
        table = pd.concat([_read_csv(path, split) for path, split in tables], ignore_index=True)
        _refuse_twice(table.assign(slice=[os.path.realpath(folder / path) for path in table.path]), "slice")
    else:
        source = "the sub-folders of the class folders"
        table, left_out = _read_class_folders(folder)
        table["patient"], said = disambiguate_ids(table)
    if table.split.isna().all():
        table = table.drop(columns="split")
    else:
        _check_splits(table, folder)
        said += " The split comes with the data."
    table["patient"], headers, unused = from_headers(table, folder)
    table = with_blocks(table.drop(columns="place"))
    return table, describe_source(table, headers or source) + unused + said + sentence(left_out)


def _read_class_folders(folder: Path) -> tuple[pd.DataFrame, Counter]:
    """A row for each slice in class folders, with the `place` (class folder and split) of each; what was left out."""
    files, left_out = slices_below(folder)
    inside = {}  # the slices of each class folder
    for file in files:
        if place := _class_folder(folder, file):
            inside.setdefault(place, []).append(file)
        else:
            left_out["slices beside the class folders"] += 1
    missing = [name for label, name in enumerate(CLASSES) if label not in {class_of(place.name) for place in inside}]
    if missing:
        raise ValueError(
            f"Folder {display_path(folder)} has no slices of class {' and '.join(missing)}: {LAYOUT}. Slices end in "
            f"{', '.join(SUFFIXES)}.{sentence(left_out)}"
        )
    rows = []
    for place in sorted(inside):
        slices, passed = usable_slices(inside[place])
        left_out += passed
        for path in slices:
            name = path.relative_to(folder)
            split = next((SPLIT_NAMES[part.lower()] for part in name.parts if part.lower() in SPLIT_NAMES), None)
            patient = _patient(place, file_of(path))
            where = f"{place.name} {split}" if split else place.name
            rows.append((name.as_posix(), class_of(place.name), split, patient, where))
    table = pd.DataFrame(rows, columns=["path", "label", "split", "patient", "place"])
    return table.assign(patient=canonical(table.patient)), left_out


def _class_folder(folder: Path, file: Path) -> Path | None:
    """The class folder in which a slice lies, in a split folder or not; None if in neither.

    Raises ValueError if it lies in a folder that names neither.
    """
    parts = file.relative_to(folder).parts[:-1]
    depth = 2 if parts and parts[0].lower() in SPLIT_NAMES else 1
    if len(parts) < depth:
        return None
    if class_of(parts[depth - 1]) is not None:
        return folder.joinpath(*parts[:depth])
    deeper = [n for n, name in enumerate(parts) if class_of(name) is not None and not name.isdigit()]
    holder = display_path(folder.joinpath(*parts[: deeper[0]])) if deeper else ""
    raise ValueError(
        f"Folder {display_path(folder)} holds slices in {'/'.join(parts)!r}, and {parts[depth - 1]!r} names neither "
        f"class: {f'give {holder}, in which the class folders lie' if deeper else LAYOUT}."
    )


def _patient(class_folder: Path, file: Path) -> str | None:
    """The patient that a slice's sub-folders or volume name; ValueError for a folder that names the other class."""
    patient = file.name[: -len(ending(file))] if ending(file) in NIFTI else None
    for name in reversed(file.relative_to(class_folder).parts[:-1]):
        label = None if name.isdigit() else class_of(name)
        if label not in (None, class_of(class_folder.name)):
            raise ValueError(
                f"In {display_path(class_folder)} lies a folder {name!r}, which names the other class: move it out, or "
                "rename it if it is a patient."
            )
        if label is None and not says_no_patient(name):
            patient = name
    return patient


def _tables(folder: Path) -> list[tuple[Path, str | None]]:
    """The CSV files of a folder, each with its split: train.csv, val.csv and test.csv, or one for all; or none."""
    splits = [(folder / f"{split}.csv", split) for split in SPLITS]
    if any(path.exists() for path, _ in splits):
        return splits
    if any(class_of(path.name) is not None for path in folder.iterdir() if path.is_dir()):
        return []  # the labels are those of the class folders
    found = []
    for path in sorted(folder.glob("*.csv")):
        with contextlib.suppress(ValueError):  # other tables may be in any form
            names = pd.read_csv(path, nrows=0, encoding="utf-8-sig", skipinitialspace=True).columns
            if {"filename", "label"} <= {name.strip().lower() for name in names}:
                found.append((path, None))
    return found


def _read_csv(path: Path, split: str | None) -> pd.DataFrame:
    """A row for each slice of one CSV file, with its `place` (file and row)."""
    if not path.exists():
        raise FileNotFoundError(f"{display_path(path)} is missing: give train.csv, val.csv and test.csv, or one table.")
    try:  # the header is a row like the others, so that a row that is longer is an error
        rows = pd.read_csv(
            path, header=None, dtype=str, encoding="utf-8-sig", skip_blank_lines=False, skipinitialspace=True
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{display_path(path)} is not a readable CSV file ({' '.join(str(error).split())}): save it anew, in "
            "UTF-8, with quotes around a name that has a comma in it."
        ) from None
    folder, names = path.parent, [str(name).strip().lower() for name in rows.loc[0]]
    twice = [column for column in ("filename", "label", "patient", "low", "high") if names.count(column) > 1]
    missing = [column for column in ("filename", "label") if column not in names]
    if twice or missing:
        raise ValueError(
            f"{display_path(path)} has {'several columns' if twice else 'no column'} {(twice + missing)[0]!r} (it has "
            f"{', '.join(map(repr, names))}): its first line must be filename,label or filename,label,patient."
        )
    if "patient" not in names and (near := [name for name in names if PATIENT.fullmatch(name)]):
        raise ValueError(f"{display_path(path)} has a column {near[0]!r}: call it patient, or leave it out.")
    table = rows[1:].set_axis(names, axis=1)
    table["place"] = [f"{path.name} row {row + 1}" for row in table.index]
    table = table[table[["filename", "label"]].notna().any(axis=1)]
    columns = {
        "path": [_file_of(folder, *row) for row in zip(table.filename, table.place, strict=True)],
        "label": [_label_of(*row) for row in zip(table.label, table.place, strict=True)],
        "patient": canonical(table.patient) if "patient" in table else None,
        "split": _split_of(table) if split is None and "split" in table else split,
        "place": table.place,
    }
    return pd.DataFrame(columns | _window(table), table.index)


def _split_of(table: pd.DataFrame) -> pd.Series:
    """The column `split` in our names of the splits. Raises ValueError for another name."""
    found = table.split.str.strip().str.lower().map(SPLIT_NAMES)
    for row in table[found.isna()].itertuples():
        raise ValueError(
            f"{row.place} has split {row.split!r}: give train, val or test in each row, or no such column."
        )
    return found


def _file_of(folder: Path, name: object, place: str) -> str:
    """The path of a slice from the folder, as the file system spells it. Raises FileNotFoundError if it isn't there."""
    plain = str(name).strip()
    for form in (plain, *(unicodedata.normalize(kind, plain.replace("\\", "/")) for kind in ("NFC", "NFD"))):
        if (folder / form).is_file():
            return form
    raise FileNotFoundError(f"{place} names {name!r}, which is not there: file names start from {folder}.")


def _label_of(name: object, place: str) -> int:
    if (label := class_of(name)) is None:
        raise ValueError(f"{place} has the unknown label {name!r}: write 1 or COVID, 0 or non-COVID.")
    return label


def _window(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns `low` and `high` as numbers, if they are there."""
    if not {"low", "high"} <= set(table):
        return {}
    limits = {name: pd.to_numeric(table[name], errors="coerce") for name in ("low", "high")}
    wrong = ~(limits["low"] < limits["high"]) & table[["low", "high"]].notna().any(axis=1)
    for row in table[wrong].itertuples():
        raise ValueError(f"{row.place} has low={row.low!r} and high={row.high!r}: give two numbers, the lower first.")
    return limits


def _check_splits(table: pd.DataFrame, folder: Path) -> None:
    """Raise ValueError if a slice has no split, a split lacks a class, or a patient is in two splits."""
    lost = table.path[table.split.isna()]
    if len(lost):
        raise ValueError(
            f"{len(lost)} slices in {display_path(folder)} lie in no split folder, {lost.iloc[0]!r} for one: move them "
            "into train, val or test, or give these folders other names."
        )
    for split in SPLITS:
        labels = table.label[table.split == split]
        if labels.nunique() < 2:
            there = f"only {CLASSES[labels.iloc[0]]} slices" if len(labels) else "no slices"
            raise ValueError(
                f"The {split} split of {display_path(folder)} holds {there}: put slices of both classes in it, or no "
                "score can be computed."
            )
    _refuse_twice(table.dropna(subset="patient").drop_duplicates(["patient", "split"]), "patient")


def _refuse_twice(table: pd.DataFrame, what: str) -> None:
    """Raise ValueError if two rows have the same value in the column `what`."""
    for row in table[table[what].duplicated()].to_dict("records"):
        first = table.place[table[what] == row[what]].iloc[0]
        raise ValueError(
            f"{what.capitalize()} {row[what]!r} stands in {first} and again in {row['place']}: keep each {what} in one "
            "split only, and each slice in one row."
        )


def class_of(name: object) -> int | None:
    """0 or 1 for a class name in any accepted spelling; None for any other, one with other signs in it included.

    >>> class_of("COVID-19"), class_of("Non_COVID"), class_of("pneumonia"), class_of("-1")
    (1, 0, None, None)
    """
    return LABELS.get(re.sub(r"(?<=\w)[ _-](?=\w)", "", str(name).strip().lower()))
