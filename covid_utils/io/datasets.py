"""The data sets that have a name. To add one, add a row (and how to fetch it), and a paragraph to data/README.md."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ct_phantom.disease import FINDINGS
from ct_phantom.patients import generator_code, phantom

from ..core.files import did_you_mean, display_path, replace_file, resolve
from ..core.memory import explain_out_of_memory
from ..core.progress import progress as progress_bar
from ..core.settings import Settings
from .discovery import sentence
from .downloads import covid_ct, figure, from_kaggle
from .folders import folder_table
from .images import decode
from .nifti import in_volume


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set."""

    title: str
    licence: str  # under which its slices may be used
    patients: str = ""  # one sentence on what stands for a patient; empty if its folder says that
    hospital: str | None = None  # of the phantom, if its slices are drawn
    fetch: Callable[[Path, bool], Path] | None = None  # from its folder, and whether to show progress, to the slices'
    patient_of: Callable[[str], str] | None = None  # from a slice's path, where neither folders nor CSV files tell
    elsewhere: str | None = None  # the data set of another hospital that an external test takes


SYNTHETIC = "Each synthetic patient is a group of its own."
DATASETS = {
    "phantom": DataSet("synthetic patients (the default)", "MIT", SYNTHETIC, hospital="A", elsewhere="phantom-b"),
    "phantom-b": DataSet("another simulated hospital, for an external test", "MIT", SYNTHETIC, hospital="B"),
    "sars-cov-2-ct": DataSet(
        "the SARS-CoV-2 CT-Scan set, 2481 slices (Soares, Angelov et al. 2020)", "CC BY-NC-SA 4.0",
        fetch=partial(from_kaggle, "plameneduardo/sarscov2-ctscan-dataset"), elsewhere="covid-ct",
    ),
    "covid-ct": DataSet(
        "UCSD COVID-CT with its published split (Zhao et al. 2020)", "see its repository",
        "No patient is named: panels of one figure stand in for one. The split is the published one.",
        fetch=covid_ct, patient_of=figure,
    ),
}  # fmt: skip


def fingerprint(table: pd.DataFrame, images: Tensor) -> str:
    """SHA-256 of slices, uint8 (N, H, W), and their table, in hexadecimal."""
    digest = hashlib.sha256(images.numpy())
    digest.update(table.to_csv(index=False).encode())
    return digest.hexdigest()


def open_dataset(settings: Settings, progress: bool) -> tuple[str, pd.DataFrame, str, Callable[[], tuple]]:
    """A data set up to its pixels, which take their time: a wrong table or split can be told before.

    Returns its name; a table with `path`, `label`, `patient`, and `split` where it is given; one sentence on the
    patients; and a function that reads, in the table's order, the slices, uint8 (N, H, W), their masks of lesions and
    lungs, bool (N, H, W) or None, and the window that all of them share, or None. Raises as `data.load_data`.
    """
    name, home = settings.dataset, resolve(settings.data_dir)
    entry = DATASETS.get(name, DataSet("a folder of one's own", ""))
    if entry.hospital:
        return _drawn(entry, settings, home / "phantom", progress)
    folder = entry.fetch(home / name, progress) if entry.fetch else resolve(name)
    if not folder.is_dir() and not set(name) & set("/\\.~"):
        raise ValueError(f"Unknown dataset {name!r}, and {folder} is no folder: {did_you_mean(name, DATASETS)}")
    table, patients = folder_table(folder)
    patients = entry.patients or patients
    if entry.patient_of:
        table["patient"] = table.path.map(entry.patient_of)
    paths, windows = table.path.tolist(), [None] * len(table)
    if "low" in table:
        limits = zip(table.pop("low"), table.pop("high"), strict=True)
        windows = [None if pd.isna(low) else (low, high) for low, high in limits]
    common = windows[0] if len(set(windows)) == 1 else None
    if len(set(windows)) > 1:
        patients += " Windows (low, high) differ between slices: predictions cannot know which to take, and use none."

    read = cache(partial(decode, folder, paths, settings.image_size, home / "cache", progress, windows))
    read = explain_out_of_memory("image_size")(read)
    if any(in_volume(folder / path) for path in paths):  # their blank slices are no rows of the table
        kept = read()[1]
        table = table[kept].reset_index(drop=True)
        patients += sentence(+Counter({"blank slices": int((~kept).sum())}))
    known = "" if entry.fetch or folder.name not in DATASETS else "./"  # a folder of one's own is no data set of ours
    name = known + folder.name.replace("<", "‹")  # notebooks show it in Markdown, which would take it for HTML
    return name, table, patients, lambda: (read()[0], None, None, common)


@explain_out_of_memory("patients or image_size")
def _drawn(entry: DataSet, settings: Settings, cache_dir: Path, progress: bool):
    """The phantom as a data set: path "phantom/p0003_s2" is slice 2 of patient 3."""
    s = settings
    drawn = cached_phantom(s.patients, 4, s.image_size, s.seed, entry.hospital, cache_dir, progress)
    table = pd.DataFrame({"label": drawn["label"].astype(int), "patient": drawn["patient"]})
    number = table.groupby("patient").cumcount().astype(str)
    table["patient"] = table.patient.map("p{:04d}".format)
    table.insert(0, "path", f"{s.dataset}/" + table.patient + "_s" + number)
    found = pd.DataFrame(drawn["findings"], columns=FINDINGS)
    table["findings"] = found.apply(lambda row: ",".join(row.index[row]) or "normal", axis=1)
    pixels = tuple(torch.from_numpy(drawn[part]) for part in ("images", "lesions", "lungs"))
    return s.dataset, table, entry.patients, lambda: (*pixels, None)


def cached_phantom(
    patients: int, n_slices: int, image_size: int, seed: int, hospital: str, cache_dir: Path, progress: bool = False
) -> dict[str, np.ndarray]:
    """`ct_phantom.patients.phantom`, drawn on first use and cached as one .npz file in `cache_dir`.

    The file's name holds a hash of the arguments and of the generator's source code: a changed generator draws anew.
    Raises OSError if `cache_dir` cannot be written to.
    """
    code = repr((patients, n_slices, image_size, seed, hospital)).encode()
    code = hashlib.sha256(generator_code() + code).hexdigest()[:12]
    path = cache_dir / f"phantom-{hospital}-{patients}x{n_slices}-{image_size}px-seed{seed}-{code}.npz"
    if path.exists():
        try:
            with np.load(path) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            print(f"{display_path(path)} is damaged ({error or type(error).__name__}): drawing it again.")
    bar = partial(progress_bar, desc="drawing patients") if progress else iter
    arrays = phantom(patients, n_slices, image_size, seed, hospital, bar)
    replace_file(path, lambda temporary: np.savez_compressed(temporary, **arrays))
    return arrays
