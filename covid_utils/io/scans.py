"""Scans: which DICOM files and NIfTI volumes are the slices of one patient, and in which order they lie in the body."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import numpy as np

from ..core.files import display_path
from ..core.progress import progress
from .dicom import NO_PICTURE, Header, file_of, read_headers
from .discovery import NIFTI, ending, is_dicom, natural, sentence, slices_below
from .images import read_file, resized
from .nifti import OTHER_PLANE, open_volume, slices_of

SAME_DIRECTION = 0.02  # of a unit vector: slices of one series point the same way but for rounding


@dataclasses.dataclass(frozen=True)
class Scan:
    """What is to be read for one patient.

    Attributes:
        name: of its folder or file; never anything out of a header.
        path: its file, or the folder that holds its DICOM files.
        headers: of all its DICOM files, not in order; none for a NIfTI volume.
    """

    name: str
    path: Path
    headers: list[Header] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Stack:
    """The slices of one patient from the feet to the head.

    Attributes:
        images: uint8 (N, image_size, image_size), as `images.read_slice` makes them.
        files: of each slice.
        numbers: of each slice in the stack, from 1; one that cannot be read is missing.
        positions: of each slice along the body in mm, float64 (N,), or None if nothing says.
        note: what was guessed, left out or looks odd; may be empty.
        unread: a sentence on slices that could not be read, or empty.
    """

    images: np.ndarray
    files: list[Path]
    numbers: list[int]
    positions: np.ndarray | None
    note: str
    unread: str


def find_scans(paths: list[Path]) -> tuple[list[Scan], list[Path], Counter]:
    """What is to be read in files and folders.

    Of DICOM files in folders those of one examination (StudyInstanceUID, PatientID) are one scan, however deep they
    lie; of files given one by one only if at least two share a series. A NIfTI volume, or a DICOM file with many
    slices, is a scan.

    Returns:
        the scans; the other slice files; how many files of folders were passed over, for which reason.

    Raises:
        FileNotFoundError: something is not there, or a folder holds no slices.
        ImportError: DICOM files, and pydicom is not installed.
    """
    left_out, scans, loose, homes = Counter(), [], [], {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path} (looked in {Path.cwd()}): check the path.")
        inside, passed = slices_below(path) if path.is_dir() else ([], Counter())
        left_out += passed
        if path.is_dir() and not inside:
            raise FileNotFoundError(f"Folder {path} holds no slices.{sentence(left_out)}")
        homes |= dict.fromkeys(inside, path) if inside else {path: None}
    studies: dict[tuple, list[Header]] = {}  # by the folder that was given, and examination
    for file, home in progress(homes.items(), "looking into files", len(homes)):
        headers = read_headers(file) if is_dicom(file) else []
        if ending(file) in NIFTI:
            scans.append(Scan(_name(file, home, len(paths) > 1), file))
        elif headers:
            studies.setdefault((home, headers[0].study), []).extend(headers)
        else:
            loose.append(file)
    for (home, _), headers in studies.items():
        files = list(dict.fromkeys(file_of(each.path) for each in headers))
        series = Counter(each.series for each in headers if not each.problem)
        if home is None and max(series.values(), default=0) < 2:
            loose += files
        elif {each.problem for each in headers} == {NO_PICTURE}:
            left_out[NO_PICTURE] += len(headers)
        else:
            files = list(dict.fromkeys(file_of(each.path) for each in headers if not each.problem)) or files
            place = files[0] if len(files) == 1 else Path(os.path.commonpath([file.parent for file in files]))
            scans.append(Scan(_name(place, home, len(paths) > 1), place, headers))
    if not scans and not loose:
        raise FileNotFoundError(f"{' and '.join(map(str, paths))} hold no slices.{sentence(left_out)}")
    scans = sorted(scans, key=lambda scan: natural(scan.path.as_posix()))
    places = {name: {scan.path for scan in scans if scan.name == name} for name in {scan.name for scan in scans}}
    names = [scan.name if len(places[scan.name]) == 1 else scan.path.as_posix() for scan in scans]
    named = zip(scans, unique_names(names), strict=True)
    return [dataclasses.replace(scan, name=name) for scan, name in named], loose, left_out


def usable_slices(files: list[Path]) -> tuple[list[Path], Counter]:
    """Of a class folder's files the slices that `read_stack` would take too, each volume as its slices.

    Scouts, screenshots, other modalities, objects without a picture and all but the largest axial series of an
    examination are left out. What says nothing of itself is kept.

    Returns: the slices, in the order of the files; how many files or slices were left out, for which reason.
    """
    left_out, studies, kept = Counter(), {}, {}
    for file in files:
        headers = read_headers(file) if is_dicom(file) else []
        kept[file] = slices_of(file) if ending(file) in NIFTI else [each.path for each in headers] or [file]
        for header in headers:
            studies.setdefault(header.study, []).append(header)
    unused = set()
    for headers in studies.values():
        slices = [each for each in headers if not each.problem]
        chosen = largest_series(slices)[0] if slices else []
        left_out.update(each.problem or "slices of other series" for each in headers if each not in chosen)
        unused |= {each.path for each in headers if each not in chosen}
    return [path for file in files for path in kept[file] if path not in unused], left_out


def largest_series(headers: list[Header]) -> tuple[list[Header], str]:
    """Of an examination's CT slices the axial series with most slices, else the largest one; and a word on others."""
    series = [[each for each in headers if each.series == name] for name in dict.fromkeys(h.series for h in headers)]
    best = max(series, key=lambda each: (each[0].plane in (None, "axial"), len(each)))
    if len(series) == 1:
        return best, ""
    others = [len(each) for each in series if each is not best]
    axial = "axial one " if max(others) > len(best) else ""
    return best, f"the largest {axial}of {len(series)} series ({len(best)} slices; the others: {str(others)[1:-1]})"


def read_stack(scan: Scan, image_size: int, bar: str = "") -> Stack:
    """The slices of a scan, each as `images.read_slice` reads it.

    Args:
        bar: what a progress bar says; none is shown if it is empty.

    Raises:
        ImportError: nibabel is not installed, or what pydicom needs to decompress the pixels.
        ValueError: damaged or too large; no CT slices; slices of several sizes or directions.
    """
    left_out = Counter(each.problem for each in scan.headers if each.problem)
    reasons = [sentence(left_out).strip(" .").replace("Left", "left")] if left_out else []
    if scan.headers:
        try:
            slices = [each for each in scan.headers if not each.problem]
            if not slices:
                raise ValueError(f"no CT slices; {reasons[0]}")
            slices, told = largest_series(slices)
            slices, positions, notes = in_order(slices)
        except ValueError as error:
            raise ValueError(
                f"Patient {scan.name!r} in {display_path(scan.path)} cannot be answered ({error})."
            ) from None
        paths, notes = [each.path for each in slices], [told, *notes]
        if slices[0].plane not in (None, "axial"):
            notes.append(OTHER_PLANE.format(slices[0].plane))
    else:
        paths, positions, notes = slices_of(scan.path), open_volume(scan.path).positions, []
    if len(paths) == 1:
        notes.append("one slice only, no stack")
    images, numbers, errors, seen = [], [], [], []
    for number, path in enumerate(progress(paths, bar, len(paths)) if bar else paths, start=1):
        try:
            decoded = read_file(path)
            images.append(resized(decoded.image, image_size))
            numbers.append(number)
            seen += decoded.notes
        except ImportError:
            raise
        except ValueError as error:
            errors.append(str(error))
    unread = f"Patient {scan.name!r}: {len(errors)} of {len(paths)} slices cannot be read. " if errors else ""
    unread += errors[0] if errors else ""
    if not images:
        raise ValueError(unread)
    if errors:
        notes.append(f"{len(errors)} of {len(paths)} slices cannot be read")
    notes += dict.fromkeys(seen)
    return Stack(
        np.stack(images), [file_of(paths[number - 1]) for number in numbers], numbers,
        None if positions is None else positions[np.array(numbers) - 1],
        "; ".join(note for note in [*notes, *reasons] if note), unread,
    )  # fmt: skip


def in_order(headers: list[Header]) -> tuple[list[Header], np.ndarray | None, list[str]]:
    """Slices of one series from the feet to the head, by position; by InstanceNumber or name where they have none.

    Returns: the slices; their positions along the axis of the stack in mm, float64 (N,), or None; what was guessed.

    Raises ValueError for slices of several sizes or directions.
    """
    sizes = Counter(each.size for each in headers)
    if len(sizes) > 1:
        several = ", ".join(f"{count} of {high} × {wide}" for (high, wide), count in sizes.most_common(3))
        raise ValueError(f"its slices have {len(sizes)} sizes ({several} pixels): put each size into its own folder")
    axes = [each.axes for each in headers if each.axes is not None]
    if axes and max(np.abs(each - axes[0]).max() for each in axes) > SAME_DIRECTION:
        raise ValueError("its slices lie in several directions: put each direction into its own folder")
    by_name = sorted(headers, key=lambda each: natural(each.path.as_posix()))
    if any(each.position is None for each in headers):
        if any(each.number is None for each in headers):
            return by_name, None, ["no positions and no numbers in the headers: in the order of the file names"]
        ordered = sorted(by_name, key=lambda each: each.number)
        return ordered, None, ["no positions in the headers: in the order of InstanceNumber"]
    normal = np.cross(*axes[0])
    normal *= np.sign(normal[np.abs(normal).argmax()])  # to the left, the back or the head
    found, twice = {}, 0
    for header in sorted(by_name, key=lambda each: (each.acquisition, each.number or 0)):
        place = round(float(header.position @ normal), 2)
        twice += place in found
        found.setdefault(place, header)
    places = np.array(sorted(found))
    notes = [f"{twice} slices lie where another one does: the first of each place is taken"] if twice else []
    steps = np.diff(places)
    wide = np.flatnonzero(steps > 1.5 * np.median(steps)) if len(steps) else []
    if len(wide):
        missing = int(sum(max(1, round(steps[i] / np.median(steps)) - 1) for i in wide))
        more = f" and in {len(wide) - 1} more places" if len(wide) > 1 else ""
        where = f"{places[wide[0]]:g} and {places[wide[0] + 1]:g} mm"
        notes.append(f"a gap: about {missing} slice{'s are' if missing > 1 else ' is'} missing between {where}{more}")
    return [found[place] for place in places], places, notes


def unique_names(names: Iterable[str]) -> list[str]:
    """The same names, a number behind each that occurred before, so that none equals another.

    >>> unique_names(["1", "1-2", "1"])
    ['1', '1-2', '1-3']
    """
    names, unique, taken = list(names), [], set()
    given = set(names)
    for name in names:
        if name in taken:
            name = next(each for n in count(2) if (each := f"{name}-{n}") not in taken | given)
        taken.add(name)
        unique.append(name)
    return unique


def _name(path: Path, home: Path | None, several: bool) -> str:
    """What to call a patient: its folder or file, as seen from the folder that was given, or was one of several."""
    if home in (None, path):
        name = path.resolve().name
    else:
        name = (Path(home.name) if several else Path()).joinpath(path.relative_to(home)).as_posix()
    return name.removesuffix(path.name[-len(ending(path)) :]) if path.is_file() and ending(path) else name
