"""Scans: which DICOM files and NIfTI volumes are the slices of one patient, and in which order they lie in the body."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.files import display_path
from ..core.progress import progress
from .dicom import NO_PICTURE, read_header
from .discovery import NIFTI, ending, is_dicom, natural, sentence, slices_below
from .images import read_file
from .nifti import file_of, in_volume, volume_headers
from .slices import OTHER_PLANE, Header, Window

SAME_DIRECTION = 0.02  # of a unit vector: slices of one series point the same way but for rounding


class Scan(NamedTuple):
    """What is to be read for one patient."""

    name: str  # of its folder or file; never anything out of a header
    headers: list[Header]  # of all its files' slices, not in order


class Stack(NamedTuple):
    """The slices of one patient from the feet to the head, those that can be read."""

    images: np.ndarray  # uint8 (N, image_size, image_size), as `images.read_file` makes them
    slices: list[dict]  # of each its `file`, `slice`, the number in the stack from 1, and `position`, in mm or None
    note: str  # what was guessed, left out or looks odd; may be empty
    unread: str  # a sentence on slices that could not be read, or empty


def find_scans(paths: list[Path]) -> tuple[list[Scan], list[Path], Counter]:
    """What is to be read in files and folders.

    Of DICOM files in folders those of one examination (StudyInstanceUID, PatientID) are one scan, however deep they
    lie; of files given one by one only if at least two share a series. A NIfTI volume is a scan.

    Returns the scans; the other slice files; and how many files of folders were passed over, for which reason. Raises
    FileNotFoundError if something is not there, or no slices are; ImportError for DICOM if pydicom is not installed.
    """
    left_out, homes, found, loose = Counter(), {}, [], []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path} (looked in {Path.cwd()}): check the path.")
        inside, passed = slices_below(path) if path.is_dir() else ([path], Counter())
        homes |= dict.fromkeys(inside, path)
        left_out += passed
    studies: dict[tuple, list[Header]] = {}  # by the folder that was given, or None, and the examination
    for file, home in progress(homes.items(), "looking into files", len(homes)):
        if headers := headers_of(file):
            alone = home == file and ending(file) not in NIFTI
            studies.setdefault((None if alone else home, headers[0].study), []).extend(headers)
        else:
            loose.append(file)
    for (home, _), headers in studies.items():
        slices = [each for each in headers if not each.problem]
        if home is None and max(Counter(each.series for each in slices).values(), default=0) < 2:
            loose += [each.path for each in headers]
        elif {each.problem for each in headers} == {NO_PICTURE}:
            left_out[NO_PICTURE] += len(headers)
        else:  # in a folder, or the volume itself
            found.append((Path(os.path.commonpath([each.path.parent for each in slices or headers])), headers))
    if not found and not loose:
        raise FileNotFoundError(f"There are no slices in {' and '.join(map(str, paths))}.{sentence(left_out)}")
    found.sort(key=lambda each: natural(each[0].as_posix()))
    root = os.path.commonpath([os.path.abspath(path if path.is_dir() else path.parent) for path in paths])
    names = unique_names(_name(place, root) for place, _ in found)
    return [Scan(name, headers) for name, (_, headers) in zip(names, found, strict=True)], loose, left_out


def headers_of(file: Path) -> list[Header]:
    """The header of each slice of a DICOM or NIfTI file; none if it cannot be read. ImportError without its package."""
    if ending(file) not in NIFTI:
        header = read_header(file) if is_dicom(file) else None
        return [header] if header else []
    with contextlib.suppress(ValueError):  # reading its slices will say so
        return volume_headers(file)
    return []


def _name(place: Path, root: str) -> str:
    """What to call a patient: its folder or volume, as seen from the folder that holds all that was given."""
    inside = Path(os.path.relpath(place, root))
    name = inside.as_posix() if inside.name else Path(root).name
    return name[: -len(ending(place))] if place.is_file() else name


def usable_slices(files: list[Path]) -> tuple[list[Path], Counter]:
    """Of a class folder's files the slices that `read_stack` would take too, each volume as its slices.

    Scouts, screenshots, other modalities, objects without a picture, all but the largest axial series of an
    examination, and its slices where another one lies are left out. What says nothing of itself is kept. Returns the
    slices, in the order of the files; and how many files or slices were left out, for which reason.
    """
    left_out, studies, paths, unused = Counter(), {}, [], set()
    for file in files:
        headers = headers_of(file)
        paths += [each.path for each in headers] or [file]
        for header in headers:
            studies.setdefault(header.study, []).append(header)
    for headers in studies.values():
        chosen, _ = series_in_order(headers)
        for each in set(headers) - set(chosen):
            same = chosen and each.series == chosen[0].series
            if same and not (each.problem or each.series):  # these may be several people's
                continue
            left_out[each.problem or ("slices where another one lies" if same else "slices of other series")] += 1
            unused.add(each.path)
    return [path for path in paths if path not in unused], left_out


def series_in_order(headers: list[Header]) -> tuple[list[Header], list[str]]:
    """Of an examination's CT slices the axial series with most slices, else the largest one, from the feet to the head.

    By position; by InstanceNumber or name where there are none. Returns a slice for each place, and what was guessed.
    """
    series: dict[str, list[Header]] = {}
    for header in headers:
        if not header.problem:
            series.setdefault(header.series, []).append(header)
    if not series:
        return [], []
    best, *others = sorted(series.values(), key=lambda each: (each[0].plane != "axial", -len(each)))
    sizes = ", ".join(str(len(each)) for each in others)
    notes = [f"one of {len(series)} series ({len(best)} slices; the others: {sizes})"] if others else []
    best.sort(key=lambda each: (each.order, natural(each.path.as_posix())))
    if any(each.place is None for each in best):
        return best, [*notes, "no positions in the headers: in the order of InstanceNumber, or of the file names"]
    placed = {(each.place, each.size, each.plane): each for each in reversed(best)}  # the first of each place
    if best[0].plane != "axial":
        notes.append(OTHER_PLANE.format(best[0].plane))
    if len(placed) < len(best):
        notes.append(f"{len(best) - len(placed)} slices lie where another one does, which is taken")
    steps = np.diff(sorted({each.place for each in best}))
    missing = int((np.round(steps / np.median(steps)) - 1).clip(0).sum()) if len(steps) else 0
    if missing:
        notes.append(f"gaps: about {missing} slices are missing")
    return [placed[place] for place in sorted(placed)], notes


def read_stack(scan: Scan, image_size: int, window: Window | None = None) -> Stack:
    """The slices of a scan, each as `images.read_file` reads it, in the window if it is given.

    Raises ImportError if what pydicom needs to decompress the pixels is not installed; ValueError if it is damaged or
    too large, or has no CT slices, or slices of several sizes or directions.
    """
    series, notes = series_in_order(scan.headers)
    left_out = sentence(Counter(each.problem for each in scan.headers if each.problem))
    left_out = left_out.strip(" .").replace("Left", "left")
    axes = [each.axes for each in series if each.axes is not None]
    wrong = "" if series else "; ".join(filter(None, ["it has no CT slices", left_out]))
    if len({each.size for each in series}) > 1 or (axes and np.ptp(axes, axis=0).max() > SAME_DIRECTION):
        wrong = "its slices have several sizes or directions: put those of each kind into a folder of its own"
    if wrong:
        place = display_path(scan.headers[0].path.parent)
        raise ValueError(f"Patient {scan.name!r} in {place} cannot be predicted ({wrong}).")
    images, slices, errors, seen = [], [], [], []
    for number, header in enumerate(series, start=1):
        try:
            found = read_file(header.path, image_size, window)
        except ValueError as error:
            if in_volume(header.path):  # which is damaged as a whole
                raise
            errors.append(str(error))
            continue
        if not found.blank:  # of a volume; of other files it is an error
            images.append(found.image)
            slices.append({"file": str(file_of(header.path)), "slice": number, "position": header.place})
            seen.append(found.note)
    blank = len(series) - len(images) - len(errors)
    unread = f"{len(errors)} of {len(series)} slices cannot be read" if errors else ""
    told = f"Patient {scan.name!r}: {unread}. {errors[0]}" if errors else ""
    if not images:
        raise ValueError(told or f"Patient {scan.name!r}: all slices are blank.")
    empty = f"{blank} blank slices are left out" if blank else ""
    note = "; ".join(filter(None, [*notes, unread, empty, *dict.fromkeys(seen), left_out]))
    return Stack(np.stack(images), slices, note, told)


def unique_names(names: Iterable[str]) -> list[str]:
    """The same names, a number behind each that occurred before, so that none equals another.

    >>> unique_names(["1", "1-2", "1"])
    ['1', '1-2', '1-3']
    """
    unique = {}  # a dictionary keeps the order
    for name in names:
        numbered = (f"{name}-{n}" for n in count(2))
        unique[next(each for each in chain([name], numbered) if each not in unique)] = None
    return list(unique)
