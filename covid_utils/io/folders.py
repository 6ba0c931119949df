"""From a folder of slices to a table with labels, patients and perhaps splits."""

from __future__ import annotations

import io
import os
import re
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd

from ..core.files import display_path
from .discovery import NIFTI, SUFFIXES, ending, is_service, is_slice, sentence, slices_below
from .nifti import file_of
from .patients import canonical, describe_source, disambiguate_ids, from_headers, says_no_patient, with_blocks
from .scans import usable_slices

CLASSES = ("non-COVID", "COVID")  # the names of the labels 0 and 1
NAMES = {  # of the classes in folders and files, in any case; words with a space, "-", "_" or nothing between them
    1: ("covid", "covid 19", "covid positive", "covid 19 positive", "positive", "sars cov 2", "ct covid", "1"),
    0: (
        "non covid", "no covid", "non covid 19", "no covid 19", "covid negative", "covid 19 negative", "negative",
        "normal", "ct non covid", "0",
    ),
}  # fmt: skip
SPELLINGS = (
    "COVID, COVID-19, COVID-positive, positive, SARS-CoV-2 or CT_COVID for the one class, and non-COVID, "
    "non-COVID-19, no-COVID, COVID-negative, negative, normal or CT_NonCOVID for the other, in any case"
)
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip

PATIENT = re.compile(r"(patient|subject|person)s?[ _-]?(ids?|names?|numbers?|no)?")  # columns meant as `patient`


def folder_table(folder: Path) -> tuple[pd.DataFrame, str]:
    """The slices of a folder with class folders, or with `train.csv`, `val.csv` and `test.csv`.

    Class folders hold the slices, or a folder for each patient; they stand in the folder, or in its folders `train`,
    `val` and `test`. The CSV files have the columns `filename` (from `folder`), `label` (0, 1 or a class name) and
    perhaps `patient`, and `low` and `high`: the values of a 16-bit picture or scan that become black and white.

    Returns:
        table with `path` (from `folder`), `label` (1 = COVID), `patient`, and where they are given `split`, `low` and
        `high`, in natural order; and sentences on where the patients come from, and on what was left out.

    Raises:
        FileNotFoundError: no such folder, or a file or class folder is missing.
        ValueError: an unknown class, a missing column, or splits that overlap.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {display_path(folder)}{_looked(folder)}: check the path.")
    if any((folder / f"{split}.csv").exists() for split in SPLITS):
        return _csv_table(folder)
    return _class_table(folder)


def holder(folder: Path) -> Path:
    """Of a folder and all in it, the first whose sub-folders name both classes; the folder itself if none does."""
    inside = sorted(path for path in folder.rglob("*") if path.is_dir())
    for place in [folder, *(path for path in inside if not any(map(is_service, path.relative_to(folder).parts)))]:
        if {class_of(each.name) for each in _folders(place)} >= {0, 1}:
            return place
    return folder


def _class_table(folder: Path) -> tuple[pd.DataFrame, str]:
    rows, left_out, said = [], Counter(), ""
    loose = sum(path.is_file() and is_slice(path) for path in folder.iterdir())
    for class_folder, label, split in _class_folders(folder):
        files, passed = slices_below(class_folder, folder)
        left_out += passed
        if not files:
            raise ValueError(
                f"Class folder {display_path(class_folder)} holds no slices: put files ending in "
                f"{', '.join(SUFFIXES)} there." + sentence(left_out)
            )
        slices, passed = usable_slices(files)
        left_out += passed
        for part in slices:
            within, patient = _inside(class_folder, label, file_of(part).relative_to(class_folder).parts)
            place = " ".join(filter(None, (class_folder.name, split or within)))
            path = part.relative_to(folder).as_posix()
            rows.append((path, label, split or within, patient, place, os.path.realpath(part)))
    table = pd.DataFrame(rows, columns=["path", "label", "split", "patient", "place", "real"])
    again = table.real.duplicated()  # of links from two places to one file or folder
    left_out += Counter(
        {"slices beside the class folders": loose, "links to slices that are read elsewhere": again.sum()}
    )
    table = table[~again].drop(columns="real").reset_index(drop=True)
    if set(table.split.dropna()) == set(SPLITS) and table.split.notna().all():
        _check_splits(table, "{split} folder")
    else:
        if table.split.notna().any():
            said = " Folders called train, val or test are passed over, as not all slices lie in one of each."
        table = table.drop(columns="split")
    table["patient"] = canonical(table.patient)
    table["patient"], numbers = disambiguate_ids(table)
    if "split" in table:
        _check_overlap(table, "patient", table.patient)
        numbers += " The split is that of the folders."
    return _finished(table, folder, "the sub-folders of the class folders", said + numbers, left_out)


def _class_folders(folder: Path) -> list[tuple[Path, int, str | None]]:
    """The class folders of a folder, with their label and the split folder in which they lie, if in one.

    Raises FileNotFoundError or ValueError if a class or a split is missing, or a folder with slices names no class.
    """
    inside = _folders(folder)
    splits = [(split, path) for path in inside if (split := SPLIT_NAMES.get(path.name.lower()))]
    if splits and not any(class_of(path.name) is not None for path in inside):
        there = [split for split, _ in splits]
        missing = [split for split in SPLITS if split not in there]
        if missing:
            raise FileNotFoundError(
                f"Folder {display_path(folder)} holds the split {'folders' if len(splits) > 1 else 'folder'} "
                f"{' and '.join(there)}, but none for {' and '.join(missing)}: move the slices of some patients "
                f"there, or put all class folders straight into {display_path(folder)}, which then are split for you."
            )
        for path in inside:
            if path.name.lower() not in SPLIT_NAMES and slices_below(path, folder)[0]:
                raise ValueError(
                    f"Folder {display_path(folder)} holds split folders and {path.name!r}, which is none: move its "
                    "slices."
                )
        return [found for split, path in splits for found in _named(path, split)]
    return _named(folder, None)


def _named(folder: Path, split: str | None) -> list[tuple[Path, int, str | None]]:
    """The class folders that stand in a folder, both classes or an error."""
    found = [(path, class_of(path.name)) for path in _folders(folder)]
    complete = {label for _, label in found} >= {0, 1}
    for path, label in found:
        deeper = path if complete or label is not None else holder(path)
        if not complete and {class_of(inside.name) for inside in _folders(deeper)} >= {0, 1}:
            down = "one level" if deeper == path else "some levels"
            raise FileNotFoundError(
                f"In {display_path(folder)} the class folders stand {down} down, in "
                f"{deeper.relative_to(folder).as_posix()!r}: give {display_path(deeper)}."
            )
        if label is None and slices_below(path, folder)[0]:
            raise ValueError(
                f"Folder {display_path(folder)} holds a folder {path.name!r} that names neither class: call it "
                f"{SPELLINGS}."
            )
    if complete:
        return [(path, label, split) for path, label in found if label is not None]
    missing = " and ".join(CLASSES[label] for label in (1, 0) if label not in {each for _, each in found})
    there = ", ".join(repr(p.name) for p in sorted(folder.iterdir())[:8]) or "nothing"
    raise FileNotFoundError(
        f"Folder {display_path(folder)} has no class folder for {missing} (it holds {there}): name the class "
        f"folders {SPELLINGS}; or give train.csv, val.csv and test.csv."
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_service(path.name))


def _inside(class_folder: Path, label: int, parts: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The split and the patient that a slice's sub-folders or volume name, None where they do not.

    Args:
        parts: the slice's path from the class folder.

    Raises ValueError for a folder that names the other class.
    """
    split, patient = None, None
    folders, file = parts[:-1], parts[-1]
    for name in folders:
        named = None if name.isdigit() else class_of(name)
        if named is not None and named != label:
            raise ValueError(
                f"In {display_path(class_folder)} lies a folder {name!r}, which names the other class: move it out, or "
                "rename it if it is a patient."
            )
        split = split or SPLIT_NAMES.get(name.lower())
        if named is None and patient is None and not says_no_patient(name):
            patient = name
    kind = ending(Path(file))
    if patient is None and kind in NIFTI:
        patient = file[: -len(kind)]
    return split, patient


def _csv_table(folder: Path) -> tuple[pd.DataFrame, str]:
    table = pd.concat([_read_csv(folder, split) for split in SPLITS], ignore_index=True)
    _check_overlap(table, "slice", table.path.map(lambda path: os.path.realpath(folder / path)))
    _check_overlap(table, "patient", table.patient)
    _check_splits(table, "{split} split ({split}.csv)")
    return _finished(table, folder, "the CSV files", " The split is the one in the CSV files.", Counter())


def _finished(table: pd.DataFrame, folder: Path, source: str, said: str, left_out: Counter) -> tuple[pd.DataFrame, str]:
    """The table with all patients and without `place`; and what there is to say of it."""
    table["patient"], headers = from_headers(table, folder)
    table = with_blocks(table.drop(columns="place"))
    return table, describe_source(table, headers or source) + said + sentence(left_out)


def _check_overlap(table: pd.DataFrame, what: str, key: pd.Series) -> None:
    """Raise ValueError if a slice (its real file as key) stands in two rows, or a patient in two splits."""
    rows = table.assign(key=key).dropna(subset="key")
    first = rows.drop_duplicates("key").set_index("key")
    wrong = (rows.split != rows.key.map(first.split)) if what == "patient" else rows.duplicated("key")
    if wrong.any():
        row = rows[wrong].iloc[0]
        name = row.path if what == "slice" else row.key
        raise ValueError(
            f"{what.capitalize()} {name!r} stands in {first.place[row.key]} and again in {row.place}: keep "
            f"each {what} in one split{' and one row' if what == 'slice' else ''} only."
        )


def _check_splits(table: pd.DataFrame, name: str) -> None:
    """Raise ValueError if a given split lacks a class; `name` is what it is called."""
    for split in SPLITS:
        labels = table.label[table.split == split]
        if labels.nunique() < 2:
            there = f"only {CLASSES[labels.iloc[0]]} slices" if len(labels) else "no slices"
            raise ValueError(
                f"The {name.format(split=split)} holds {there}: put slices of both classes in it, "
                "or no score can be computed."
            )


def _read_csv(folder: Path, split: str) -> pd.DataFrame:
    """One CSV file as a table, with the `place` (file and row) of each slice for error messages."""
    path = folder / f"{split}.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"{display_path(path)} is missing: a folder with CSV files needs train.csv, val.csv and test.csv."
        )
    try:
        # commas at a row's end are harmless, but pandas would shift all columns
        text = re.sub(r"[, \t]+(?=\r?$)", "", path.read_text(encoding="utf-8-sig"), flags=re.MULTILINE)
        how = {"dtype": str, "skip_blank_lines": False, "skipinitialspace": True, "index_col": False}
        _check_columns(pd.read_csv(io.StringIO(text), nrows=0, **how), path)
        with warnings.catch_warnings(action="error"):  # of a row that is too long, and would lose its end
            table = pd.read_csv(io.StringIO(text), **how)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise ValueError(
            f"{display_path(path)} is not a readable CSV file ({' '.join(str(error).split())}): save it anew, in "
            "UTF-8, with "
            "quotes around a name that has a comma in it."
        ) from None
    table.columns = _names(table)
    table["place"] = [f"{path.name} row {row}" for row in range(2, len(table) + 2)]
    table = table[table[["filename", "label"]].notna().any(axis=1)]
    labels = table.label.map(class_of, na_action="ignore")
    for row in table[labels.isna()].itertuples():
        raise ValueError(
            f"{row.place} in {display_path(folder)} has the unknown label {row.label!r}: write 1 or COVID, 0 or "
            "non-COVID."
        )
    found = {row.Index: _file_of(folder, row.filename, row.place) for row in table.itertuples()}
    patient = canonical(table.patient) if "patient" in table else pd.Series(None, table.index, dtype=object)
    columns = {"path": pd.Series(found, dtype=object), "label": labels.astype(int), "patient": patient}
    return pd.DataFrame(columns | {"split": split, "place": table.place} | _window(table, folder))


def _names(table: pd.DataFrame) -> list[str]:
    # pandas numbers equal names: label, label.1
    return [re.sub(r"\.\d+$", "", str(column)).strip().lower() for column in table.columns]


def _check_columns(table: pd.DataFrame, path: Path) -> None:
    """Raise ValueError if a column is missing or occurs twice."""
    names = _names(table)
    for column in ("filename", "label", "patient", "low", "high"):
        if names.count(column) > 1:
            raise ValueError(
                f"{display_path(path)} has several columns called {column!r} (in any case): keep one of them."
            )
    if "patient" not in names and (near := [name for name in names if PATIENT.fullmatch(name)]):
        raise ValueError(f"{display_path(path)} has a column {near[0]!r}: call it patient, or leave it out.")
    for column in ("filename", "label"):
        if column not in names:
            raise ValueError(
                f"{display_path(path)} has no column {column!r} (it has {', '.join(map(repr, names))}): its "
                "first line must be filename,label or filename,label,patient, with commas."
            )


def _file_of(folder: Path, name: object, place: str) -> str:
    """The path of a slice from the folder, as the file system spells it. Raises FileNotFoundError if it isn't there."""
    if isinstance(name, str):
        for form in (name.strip(), *(unicodedata.normalize(kind, name.strip()) for kind in ("NFC", "NFD"))):
            if (folder / form).is_file():
                return form
    hint = ""
    if isinstance(name, str) and "\\" in name:
        hint = " (it has backslashes: write / instead)"
    elif isinstance(name, str) and (folder / name.strip()).is_symlink():
        hint = " (it is a link that leads nowhere)"
    raise FileNotFoundError(
        f"{place} names {name!r}, which is not there{hint}: file names start from "
        f"{display_path(folder)}{_looked(folder)}."
    )


def _looked(folder: Path) -> str:
    """Where a path was looked for, unless it is written out anyway."""
    return "" if display_path(folder) == str(folder) else f" (looked in {folder})"


def _window(table: pd.DataFrame, folder: Path) -> dict[str, pd.Series]:
    """The columns `low` and `high` as numbers, if they are there."""
    if not {"low", "high"} <= set(table):
        return {}
    limits = {name: pd.to_numeric(table[name], errors="coerce") for name in ("low", "high")}
    wrong = ~(limits["low"] < limits["high"]) & table[["low", "high"]].notna().any(axis=1)
    for row in table[wrong].itertuples():
        raise ValueError(
            f"{row.place} in {display_path(folder)} has low={row.low!r} and high={row.high!r}: give two numbers, the "
            "lower "
            "first."
        )
    return limits


def class_of(name: str) -> int | None:
    """0 or 1 for a class name in any accepted spelling; None for any other, one with other signs in it included.

    >>> class_of("COVID-19"), class_of("Non_COVID"), class_of("pneumonia"), class_of("-1")
    (1, 0, None, None)
    """
    plain = str(name).strip().lower()
    return next((label for label, pattern in PATTERNS.items() if pattern.fullmatch(plain)), None)


PATTERNS = {
    label: re.compile("|".join(name.replace(" ", "[ _-]?") for name in names)) for label, names in NAMES.items()
}
