"""Who is a patient: what folders, CSV files and DICOM headers say; where nobody says, a guess that is called one."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from .dicom import patient_id
from .discovery import is_dicom, natural
from .nifti import in_volume

BLOCK = 20  # consecutive file numbers that stand in for a patient where nobody says who is who
ANONYMISED = 0.9  # share of the slices with one PatientID above which it names nobody
GUESS = re.compile(r"((train|val|test) )?(non-)?covid block \d+")
COUNTER = re.compile(r"((ct|scan|patient|pat|case|series|study|volume|vol|subject|sub|exam|p|s)[ _-]*)*\d+")
NO_PATIENT = re.compile(  # names of sub-folders that say what lies in them, not whose it is
    r"(images?|imgs?|pictures?|pngs?|jpe?gs?|tiffs?|tifs?|bmps?|dicoms?|dcms?|slices?|cts?|ct ?scans?|ct ?slices?|"
    r"scans?|patients|cases|subjects|studies|"
    r"data|dataset|raw|originals?|frames?|all|new folder|train(ing)?|val(id(ation)?)?|test(ing)?)"
)


def canonical(names: pd.Series) -> pd.Series:
    """Names of patients in one spelling: composed letters, no spaces around them, and of a number `1`, not `01`, `1.0`.

    Spreadsheets drop zeros in front and add them behind; two people in one group leak nothing, one in two does.
    """
    plain = names.astype("str").str.strip().str.normalize("NFC").str.replace(r"^0*(\d+)(\.0+)?$", r"\1", regex=True)
    return plain.astype(object).where(names.notna() & (plain != ""), None)


def disambiguate_ids(table: pd.DataFrame) -> tuple[pd.Series, str]:
    """Sub-folders as patients: counters that begin anew in each class or split folder mean other people there.

    Taken for that where at least half of the counters (`7`, `scan_7`, `patient 07`) of a folder stand in another one.

    In the table `patient` is the sub-folder's name or None, `place` the class folder (with its split). Returns the
    patients, and a sentence if counters had to be told apart.
    """
    counter = table.patient.str.lower().str.fullmatch(COUNTER.pattern).fillna(False).astype(bool)
    places = table[counter].groupby("patient").place.nunique()
    sizes = table[counter].groupby("place").patient.nunique()
    if not len(sizes) or (places > 1).sum() < max(1, sizes.min() / 2):
        return table.patient, ""
    told = (table.place + "/" + table.patient.fillna("")).where(counter, table.patient)
    return told, " The same number in several folders is taken for several people."


def from_headers(table: pd.DataFrame, folder: Path) -> tuple[pd.Series, str, str]:
    """Patients by the PatientID of DICOM files, as numbers of ours, since an id must not be shown.

    Slices belong to one patient if they share an id or a sub-folder. An id that nine of ten files have is no id but
    what an anonymiser wrote. Returns the patients; where they come from if headers name them; and a sentence if headers
    are not believed.
    """
    files = [folder / path for path in table.path]
    found = [patient_id(file) if is_dicom(file) and not in_volume(file) else None for file in files]
    ids = pd.Series(found, table.index, dtype=object)
    if not ids.notna().any():
        return table.patient, "", ""
    if (share := ids.value_counts().max() / len(ids)) > ANONYMISED:
        said = f" {share:.0%} of the slices share one PatientID, as anonymisers write: the DICOM headers are not used."
        return table.patient, "", said
    person, before = pd.Series(range(len(table)), table.index), None
    while not person.equals(before):  # whoever shares a name gets the smallest number among them
        before = person
        for names in (ids, table.patient):
            person = person.groupby(names).transform("min").fillna(person).astype(int)
    known = ids.notna() | table.patient.notna()
    number = pd.Series(pd.factorize(person[known])[0] + 1, table.index[known])
    patients = number.map("patient {:04d}".format).reindex(table.index).astype(object)
    return patients, "the DICOM headers, whose ids are replaced by numbers of ours", ""


def with_blocks(table: pd.DataFrame) -> pd.DataFrame:
    """In natural order; slices without a patient in blocks of consecutive file numbers, by class and given split."""
    table = table.sort_values("path", key=lambda paths: paths.map(natural), ignore_index=True)
    parts = table.split + " " if "split" in table else pd.Series("", table.index)
    parts += table.label.map({0: "non-covid", 1: "covid"})
    nameless = table.patient.isna()
    number = table[nameless].groupby(parts[nameless]).cumcount() // BLOCK + 1
    table.loc[nameless, "patient"] = parts[nameless] + number.map(" block {:03d}".format)
    return table.astype({"patient": str})


def guessed(patients: pd.Series) -> pd.Series:
    """Which slices' patients are blocks of file numbers, bool (N,): nobody said who is who."""
    return patients.str.fullmatch(GUESS.pattern)


def describe_source(table: pd.DataFrame, source: str) -> str:
    """Where the patients come from, and what looks wrong about them."""
    guess = guessed(table.patient)
    blocks = f"groups of {BLOCK} consecutive file numbers of a class stand in for patients, which is a guess"
    if guess.all():
        return f"No patient is named: {blocks}."
    rest = f"; for the other {guess.sum()} slices {blocks}" if guess.any() else ""
    text = f"Patients are named by {source}{rest}."
    groups = table.groupby("patient").label
    both = int((groups.nunique() > 1).sum())
    if both:
        text += f" {both} of {groups.ngroups} patients have slices of both classes."
    share = table.groupby(["label", "patient"]).size() / table.groupby("label").size()
    if share.max() > 0.5:
        (_, name), most = share.idxmax(), share.max()
        text += f" {name!r} holds {most:.0%} of a class: check that this is one patient."
    return text
