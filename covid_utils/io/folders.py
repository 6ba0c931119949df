"""From a folder of slices to a table with labels, patients and perhaps splits."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd

from ..core.files import display_path
from .discovery import NIFTI, SUFFIXES, ending, sentence, slices_below
from .nifti import file_of
from .patients import NO_PATIENT, canonical, describe_source, disambiguate_ids, from_headers, with_blocks
from .scans import usable_slices

CLASSES = ("non-COVID", "COVID")  # the names of the labels 0 and 1
LABELS = {  # of the class names in folders and files, in any case, with a space, "-", "_" or nothing between words
    "covid": 1, "covid19": 1, "covidpositive": 1, "covid19positive": 1, "positive": 1, "sarscov2": 1, "ctcovid": 1,
    "noncovid": 0, "noncovid19": 0, "nocovid": 0, "nocovid19": 0, "covidnegative": 0, "covid19negative": 0,
    "negative": 0, "normal": 0, "ctnoncovid": 0, "1": 1, "0": 0,
}  # fmt: skip
LAYOUT = (
    "call the class folders COVID and non-COVID (data/README.md has other names) and move other folders out; or give "
    "one CSV file, or train.csv, val.csv and test.csv, with the columns filename and label"
)
LISTS = (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".json")  # files in which labels may stand
SPLITS = ("train", "val", "test")
SPELLINGS = ("train", "training", "val", "valid", "validation", "test", "testing")
SPLIT_NAMES = {name: split for split in SPLITS for name in SPELLINGS if name.startswith(split)}
MEANT_AS_PATIENT = re.compile(r"(patient|subject|person|participant|case|p\B)s?[ _-]?(id|name|no|number)?s?|mrn")
RARE = 0.2  # share of the slices below which a class is named: accuracy says little then


def folder_table(folder: Path) -> tuple[pd.DataFrame, str]:
    """The slices of a folder with class folders, or with CSV files, laid out as data/README.md says.

    Returns a table with `path` (from `folder`), `label` (1 = COVID), `patient`, and where they are given `split`, `low`
    and `high`, in natural order; and sentences on where the patients come from, and on what was left out. Raises
    FileNotFoundError if the folder, a CSV file or a link's target is missing; ValueError for anything else that is
    wrong.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: check the path.")
    if tables := _tables(folder):
        source, said = "the CSV files", ""
        table = pd.concat([_read_csv(*each) for each in tables], ignore_index=True)
        _refuse_twice(table.assign(slice=[os.path.realpath(folder / path) for path in table.path]), "slice")
        unread = table.columns.difference(["path", "label", "patient", "split", "low", "high", "place"])
        left_out = +Counter({f"column {name!r}": int(table[name].notna().sum()) for name in unread})
        table = table.drop(columns=unread).assign(patient=canonical(table.get("patient", pd.Series(None, table.index))))
    else:
        source = "the sub-folders of the class folders"
        table, left_out = _read_class_folders(folder)
        table["patient"], said = disambiguate_ids(table.assign(patient=canonical(table.patient)))
    if table.empty:
        raise ValueError(f"Folder {display_path(folder)} holds no slices.{sentence(left_out)}")
    if table.split.isna().all():
        table = table.drop(columns="split")
    else:
        _check_splits(table, folder)
        said += " The split comes with the data."
    shares = table.label.value_counts(normalize=True)
    if shares.min() < RARE:
        said += f" Only {shares.min():.0%} of the slices are {CLASSES[shares.idxmin()]}: accuracy says little."
    table["patient"], headers, unused = from_headers(table, folder)
    table = with_blocks(table.drop(columns="place"))
    return table, describe_source(table, headers or source) + unused + said + sentence(left_out)


def _read_class_folders(folder: Path) -> tuple[pd.DataFrame, Counter]:
    """A row for each slice in class folders, with its `place` (class folder and split); what was left out."""
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
            f"Folder {display_path(folder)} has no slices of class {' and '.join(missing)}: {_advice(folder)}. Slices "
            f"end in {', '.join(SUFFIXES)}.{sentence(left_out)}"
        )
    rows = []
    for place in sorted(inside):
        slices, passed = usable_slices(inside[place])
        left_out += passed
        for path in slices:
            name = path.relative_to(folder)
            split = next((SPLIT_NAMES[part.lower()] for part in name.parts if part.lower() in SPLIT_NAMES), None)
            where = f"{place.name} {split}" if split else place.name
            rows.append((name.as_posix(), class_of(place.name), split, _patient(place, file_of(path)), where))
    return pd.DataFrame(rows, columns=["path", "label", "split", "patient", "place"]), left_out


def _advice(folder: Path) -> str:
    """What to do with a folder in which no classes are found; a list of labels in it is named."""
    lists = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in LISTS)
    columns = "with the columns filename and label, and patient and split if they are known"
    return f"if {' or '.join(lists[:3])} holds the labels, make it one CSV file {columns}" if lists else LAYOUT


def _class_folder(folder: Path, file: Path) -> Path | None:
    """The class folder, in a split folder or not, in which a slice lies; None if in neither, ValueError in others."""
    parts = file.relative_to(folder).parts[:-1]
    depth = 2 if parts and parts[0].lower() in SPLIT_NAMES else 1
    if len(parts) < depth:
        return None
    if class_of(parts[depth - 1]) is not None:
        return folder.joinpath(*parts[:depth])
    deeper = next((n for n, name in enumerate(parts) if class_of(name) is not None and not name.isdigit()), 0)
    holder = display_path(folder.joinpath(*parts[:deeper]))
    raise ValueError(
        f"Folder {display_path(folder)} holds slices in {'/'.join(parts)!r}, and {parts[depth - 1]!r} names neither "
        f"class: {f'give {holder}, in which the class folders lie' if deeper else _advice(folder)}."
    )


def _patient(class_folder: Path, file: Path) -> str | None:
    """The patient that a slice's sub-folders or volume name; ValueError for a folder that names the other class."""
    patient = file.name[: -len(ending(file))] if ending(file) in NIFTI else None
    for name in reversed(file.relative_to(class_folder).parts[:-1]):
        label = None if name.isdigit() else class_of(name)
        if label not in (None, class_of(class_folder.name)):
            raise ValueError(f"In {display_path(class_folder)} lies {name!r}, of the other class: move it out.")
        if label is None and not NO_PATIENT.fullmatch(re.sub(r"[ _-]+", " ", name.strip().lower())):
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
        with path.open(encoding="utf-8-sig", errors="replace") as file:  # other tables may be in any form
            names = re.split(r"[\s\",]+", file.readline().lower())
        if {"filename", "label"} <= set(names):
            found.append((path, None))
    return found


def _read_csv(path: Path, split: str | None) -> pd.DataFrame:
    """A row for each slice of one CSV file, with its `place` (file and row), and with columns of other names."""
    if not path.exists():
        raise FileNotFoundError(f"{display_path(path)} is missing: give train.csv, val.csv and test.csv, or one table.")
    try:  # the header is a row like the others, so that a row that is longer is an error
        rows = pd.read_csv(
            path, header=None, dtype=str, encoding="utf-8-sig", skip_blank_lines=False, skipinitialspace=True
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        wanted = "save it anew, in UTF-8, with quotes around a name that has a comma in it"
        raise ValueError(f"{display_path(path)} is not a readable CSV file ({reason}): {wanted}.") from None
    names = [str(name).strip().lower() for name in rows.loc[0]]  # an empty one is nan
    window = ("low", "high") if {"low", "high"} & set(names) else ()
    for column in ("filename", "label", *window, *filter("nan".__ne__, names)):
        if (count := names.count(column)) != 1:
            number = "several columns" if count else "no column"
            wanted = f"(it has {', '.join(names)}): let it begin with filename,label"
            raise ValueError(f"{display_path(path)} has {number} {column!r} {wanted}.")
    if "patient" not in names and (near := [name for name in names if MEANT_AS_PATIENT.fullmatch(name)]):
        raise ValueError(f"{display_path(path)} has a column {near[0]!r}: call it patient, or leave it out.")
    table = rows[1:].set_axis(names, axis=1).drop(columns="nan", errors="ignore")
    table["place"] = [f"{path.name} row {row + 1}" for row in table.index]
    table = table[table[["filename", "label"]].notna().any(axis=1)].copy()
    paths = pd.Series([_file_of(path.parent, str(name).strip()) for name in table.filename], table.index, dtype=object)
    labels = table.label.map(class_of)
    _refuse(table, "filename", paths.isna(), f"which is not there: file names start from {path.parent}")
    _refuse(table, "label", labels.isna(), "which is unknown: write 1 or COVID, 0 or non-COVID")
    if split is None and "split" in table:
        split = table.split.str.strip().str.lower().map(SPLIT_NAMES)
        _refuse(table, "split", split.isna(), "which is unknown: give train, val or test in each row, or none")
    if window:
        limits = table[["low", "high"]].apply(pd.to_numeric, errors="coerce")
        given = table.low.notna() | table.high.notna()
        _refuse(table, "high", given & ~(limits.low < limits.high), "where low and high must be numbers, low first")
        table = table.assign(low=limits.low, high=limits.high)
    return table.drop(columns="filename").assign(path=paths, label=labels.astype(int), split=split)


def _refuse(table: pd.DataFrame, column: str, wrong: pd.Series, why: str) -> None:
    """Raise ValueError for the first row that is wrong."""
    for row in table[wrong].to_dict("records"):
        raise ValueError(f"{row['place']} has {column} {row[column]!r}, {why}.")


def _file_of(folder: Path, name: str) -> str | None:
    """The path of a slice from the folder, as the file system spells it; None if it isn't there."""
    forms = (name, *(unicodedata.normalize(kind, name.replace("\\", "/")) for kind in ("NFC", "NFD")))
    return next((form for form in forms if (folder / form).is_file()), None)


def _check_splits(table: pd.DataFrame, folder: Path) -> None:
    """Raise ValueError if a slice has no split, a split lacks a class, or a patient is in two splits."""
    _refuse(table, "path", table.split.isna(), "which lies in no split folder, but others do: move it or rename these")
    for split in SPLITS:
        labels = table.label[table.split == split].unique()
        if len(labels) < 2:
            kind = f"only {CLASSES[labels[0]]}" if len(labels) else "no"
            raise ValueError(f"The {split} split of {display_path(folder)} holds {kind} slices: put both classes in.")
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
