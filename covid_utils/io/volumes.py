"""Stacks: the DICOM series and NIfTI volumes among files and folders, each as the slices of one patient."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np

from ..core.files import display_path
from ..core.progress import progress
from .discovery import NIFTI, ending, is_dicom, natural, sentence, slices_below, why_unread
from .images import resized, window_to_uint8
from .nifti import open_volume
from .series import Slice, greys, look, one_series

HARMLESS = {"objects without a picture"}  # reports, directories and the like: nobody misses an answer for them


@dataclasses.dataclass(frozen=True)
class Scan:
    """What is to be read for one patient.

    Attributes:
        name: of its folder or file; never anything out of a header.
        path: its file, or the folder that holds its DICOM files.
        slices: of all its DICOM series, not in order.
        left_out: how many DICOM files are no CT slices, for which reason.
    """

    name: str
    path: Path
    slices: list[Slice] = dataclasses.field(default_factory=list)
    left_out: Counter = dataclasses.field(default_factory=Counter)


@dataclasses.dataclass(frozen=True)
class Stack:
    """The slices of one patient from the feet to the head.

    Attributes:
        images: uint8 (N, image_size, image_size), as `images.read_slice` makes them.
        files: of each slice.
        numbers: of each slice in the stack, from 1; one that cannot be read is missing.
        places: of each slice along the body in mm, float64 (N,), or None if nothing says.
        note: what was guessed, left out or looks odd; may be empty.
        unread: a sentence on slices that could not be read, or empty.
    """

    images: np.ndarray
    files: list[Path]
    numbers: list[int]
    places: np.ndarray | None
    note: str
    unread: str


def find_scans(paths: list[Path]) -> tuple[list[Scan], list[Path], Counter]:
    """What is to be read in files and folders.

    Of DICOM files in folders those of one examination (StudyInstanceUID, PatientID) are one scan, however deep they
    lie; of files given one by one only if at least two share a series. A NIfTI volume, or a DICOM file with many
    slices, is a scan.

    Returns:
        the scans; the other slice files; how many files of folders were passed over, for which reason.

    Raises FileNotFoundError if something is not there, or a folder holds no slices.
    """
    left_out, scans, loose, seen = Counter(), [], [], set()
    found: dict[tuple, tuple[list[Path], list[Slice], Counter]] = {}  # by what was given, and examination
    for home, file in progress(_files(paths, left_out), "looking into files"):
        if file in seen:
            continue
        seen.add(file)
        key, why, slices = look(file) if is_dicom(file) else (None, "", [])
        if ending(file) in NIFTI:
            scans.append(Scan(_name(file, home, paths), file))
        elif key is None:
            loose.append(file)
        else:
            files, all_slices, reasons = found.setdefault((home, key), ([], [], Counter()))
            files.append(file)
            all_slices += slices
            reasons.update([why] if why else [])
    for (home, _), (files, slices, reasons) in found.items():
        if home is None and max(Counter(each.series for each in slices).values(), default=0) < 2:
            loose += files
        elif slices or set(reasons) - HARMLESS:
            place = _place([each.path for each in slices] or files, home)
            scans.append(Scan(_name(place, home, paths), place, slices, reasons))
        else:
            left_out += reasons
    if not scans and not loose:
        raise FileNotFoundError(f"{' and '.join(map(str, paths))} hold no slices.{sentence(left_out)}")
    scans = sorted(scans, key=lambda scan: natural(scan.path.as_posix()))
    return _told_apart(scans), loose, left_out


def _files(paths: list[Path], left_out: Counter) -> list[tuple[Path | None, Path]]:
    """Each slice file, and the given folder in which it was found, None if it was given itself."""
    files: list[tuple[Path | None, Path]] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path} (looked in {Path.cwd()}): check the path.")
        inside = []
        if path.is_dir():
            inside, passed = slices_below(path, path)
            left_out += passed
        if path.is_dir() and not inside:
            raise FileNotFoundError(f"Folder {path} holds no slices.{sentence(left_out)}")
        files += [(path, file) for file in inside] if path.is_dir() else [(None, path)]
    return files


def _place(files: list[Path], home: Path | None) -> Path:
    """Where a scan lies: its only file, or the folder that holds all its files (the first one's, if given itself)."""
    if len(set(files)) == 1:
        return files[0]
    return files[0].parent if home is None else Path(os.path.commonpath([file.parent for file in files]))


def _name(path: Path, home: Path | None, given: list[Path]) -> str:
    """What to call a patient: its folder or file, as seen from the folder that was given, or was one of several."""
    name = path.resolve().name
    if home not in (None, path):
        name = (
            path.relative_to(home).as_posix() if len(given) == 1 else f"{home.name}/{path.relative_to(home).as_posix()}"
        )
    return name[: -len(ending(path))] if path.is_file() and ending(path) else name


def _told_apart(scans: list[Scan]) -> list[Scan]:
    """The same scans, none with the name of another: the whole path instead, and a number if that is not enough."""
    places = {name: {each.path for each in scans if each.name == name} for name in {each.name for each in scans}}
    longer = [each.name if len(places[each.name]) == 1 else each.path.as_posix() for each in scans]
    total, used, named = Counter(longer), Counter(), []
    for scan, name in zip(scans, longer, strict=True):
        used[name] += 1
        named.append(dataclasses.replace(scan, name=f"{name} ({used[name]})" if total[name] > 1 else name))
    return named


def read_stack(scan: Scan, image_size: int, bar: str = "") -> Stack:
    """The slices of a scan, read and made as large as a network wants them.

    Args:
        bar: what a progress bar says; none is shown if it is empty.

    Raises:
        ImportError: pydicom or nibabel is not installed, or what pydicom needs to unpack the pixels.
        ValueError: damaged or too large; no CT slices; slices of several sizes or directions.
    """
    if ending(scan.path) in NIFTI and not scan.slices:
        volume = open_volume(scan.path)
        files, places, notes = [scan.path] * len(volume.stored), volume.places, list(volume.notes)
        if len(files) == 1:
            notes.append("one slice only, no stack")
        pictures = (
            resized(window_to_uint8(volume.values(i), volume.low, volume.high), image_size) for i in range(len(files))
        )
    else:
        try:
            if not scan.slices:
                raise ValueError(f"no CT slices; {_left_out(scan)}")
            slices, places, notes = one_series(scan.slices)
        except ValueError as error:
            raise ValueError(
                f"Patient {scan.name!r} in {display_path(scan.path)} cannot be answered ({error})."
            ) from None
        files, pictures = [each.path for each in slices], greys(slices, image_size)
    pictures = list(progress(pictures, bar, len(files)) if bar else pictures)
    good = [i for i, each in enumerate(pictures) if isinstance(each, np.ndarray)]
    unread = _unread(
        scan, [(file, each) for file, each in zip(files, pictures, strict=True) if isinstance(each, Exception)]
    )
    if not good:
        raise ValueError(unread)
    if unread:
        notes.append(f"{len(files) - len(good)} of {len(files)} slices cannot be read")
    if scan.left_out:
        notes.append(_left_out(scan))
    return Stack(
        np.stack([pictures[i] for i in good]), [files[i] for i in good], [i + 1 for i in good],
        None if places is None else places[good], "; ".join(notes), unread,
    )  # fmt: skip


def _left_out(scan: Scan) -> str:
    return sentence(scan.left_out).strip(" .").replace("L", "l", 1)


def _unread(scan: Scan, failed: list[tuple[Path, Exception]]) -> str:
    """One sentence on the slices of a patient that could not be read; empty if all could."""
    if not failed:
        return ""
    file, error = failed[0]
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    advice = "replace or delete what is damaged"
    if isinstance(error, ImportError):
        advice = "run 'python -m pip install pydicom \"pylibjpeg[all]\"'"
    return f"{display_path(file)}{more} of patient {scan.name!r} cannot be read ({why_unread(error, file)}): {advice}."
