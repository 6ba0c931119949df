"""DICOM series: which files are slices of one scan, and in which order they lie in the body."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from .dicom import frame_of, groups, number, open_dicom
from .discovery import natural
from .images import resized, window_to_uint8
from .nifti import PLANES, other_plane

TAGS = (
    "SOPClassUID", "Modality", "ImageType", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PatientID",
    "StudyInstanceUID", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber",
    "AcquisitionNumber", "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
SCREENSHOT = "1.2.840.10008.5.1.4.1.1.7"  # begins the UIDs of secondary captures, such as reports of the dose
TURNED = 0.02  # of a unit vector: slices of one stack point the same way but for rounding


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """What a header says of one slice.

    Attributes:
        path, frame: the file, and which picture in it, from 0.
        scan, series: keys that are the same for slices of one examination and of one series; never to be shown.
        size: height and width in pixels.
        place: of the first pixel in mm, (3,), x to the patient's left, y to the back, z to the head; or None.
        axes: along a row and down a column, (2, 3) unit vectors; or None.
        order: InstanceNumber, or None.
        acquisition: AcquisitionNumber, or 0.
        rescaled: whether its values become Hounsfield units.
    """

    path: Path
    frame: int
    scan: tuple
    series: str
    size: tuple[int, int]
    place: np.ndarray | None
    axes: np.ndarray | None
    order: float | None
    acquisition: float
    rescaled: bool


def look(path: Path) -> tuple[tuple | None, str, list[Slice]]:
    """What a DICOM file is, by its header alone.

    Returns:
        the key of the examination it belongs to, None if nothing says that it belongs to one; why it is left out,
        empty if it is not; and its slices.
    """
    try:
        import pydicom

        with warnings.catch_warnings(action="ignore"):
            head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(TAGS))
            return _look(head, path)
    except ImportError:
        return (str(path.parent),), "DICOM files, which need 'python -m pip install pydicom'", []
    except Exception:  # a damaged header: the pixels' turn to complain
        return None, "", []


def _look(head, path: Path) -> tuple[tuple | None, str, list[Slice]]:
    study = str(head.get("StudyInstanceUID") or "")
    key = (str(head.get("PatientID") or ""), study) if study else (str(path.parent),)
    kind = str(head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID") or "")
    if not head.get("Rows"):
        return (key, "objects without a picture", []) if kind else (None, "", [])
    if (kind.startswith(SCREENSHOT) and "ImageOrientationPatient" not in head) or head.get("SamplesPerPixel", 1) != 1:
        return key, "screenshots", []
    if (head.get("Modality") or "CT") != "CT":
        return key, "pictures that are no CT", []
    if "LOCALIZER" in (head.get("ImageType") or []):
        return key, "scouts", []
    frames = int(head.get("NumberOfFrames") or 1)
    known = len(head.get("PerFrameFunctionalGroupsSequence") or [])
    if frames > 1 and known != frames:
        return None, "", []  # nothing says where they lie, and reading it says so
    slices = [_slice(head, path, frame, key) for frame in range(frames)]
    if not slices[0].series and slices[0].place is None:
        return None, "", []
    return key, "", slices


def _slice(head, path: Path, frame: int, key: tuple) -> Slice:
    place, axes = (
        next((each.get(tag) for each in [*groups(head, sequence, frame), head] if each.get(tag)), None)
        for sequence, tag in (
            ("PlanePositionSequence", "ImagePositionPatient"),
            ("PlaneOrientationSequence", "ImageOrientationPatient"),
        )
    )
    order, acquisition = (head.get(name) for name in ("InstanceNumber", "AcquisitionNumber"))
    return Slice(
        path, frame, key, str(head.get("SeriesInstanceUID") or ""), (int(head.Rows), int(head.Columns)),
        np.array(place, float) if place is not None and axes is not None else None,
        np.array(axes, float).reshape(2, 3) if axes is not None else None,
        None if order is None else float(order) + frame, float(acquisition or 0),
        all(number(head, name, frame) is not None for name in ("RescaleSlope", "RescaleIntercept")),
    )  # fmt: skip


def one_series(slices: list[Slice]) -> tuple[list[Slice], np.ndarray | None, list[str]]:
    """Of all CT slices of an examination the series to look at, in order from the feet to the head.

    An axial series comes before others, and then the one with most slices.

    Returns:
        its slices; their places along the body in mm, float64 (N,), None where headers lack them; and what is to be
        said of them, a few words each.

    Raises ValueError for slices of several sizes or directions.
    """
    found = [[each for each in slices if each.series == name] for name in dict.fromkeys(s.series for s in slices)]
    best = max(found, key=lambda each: (plane(each[0]) in (None, "axial"), len(each)))
    notes = []
    if len(found) > 1:
        others = ", ".join(str(len(each)) for each in found if each is not best)
        notes.append(f"the largest of {len(found)} series ({len(best)} slices; the others: {others})")
        if any(len(each) > len(best) for each in found):
            notes[-1] = notes[-1].replace("largest", "largest axial one", 1)
    _check_alike(best)
    best, places, told = _in_order(best)
    if plane(best[0]) not in (None, "axial"):
        notes.append(other_plane(plane(best[0])))
    if not all(each.rescaled for each in best):
        notes.append("no Hounsfield units: each slice is shown in its own window")
    if len(best) == 1:
        told = [*told, "one slice only, no stack"]
    return best, places, notes + told


def plane(one: Slice) -> str | None:
    """Axial, coronal or sagittal, whichever is nearest; None if the header does not say."""
    return None if one.axes is None else PLANES[int(np.abs(np.cross(*one.axes)).argmax())]


def _check_alike(slices: list[Slice]) -> None:
    """Raise ValueError if slices of one series have several sizes or directions."""
    sizes = Counter(each.size for each in slices)
    if len(sizes) > 1:
        several = ", ".join(f"{count} of {high} × {wide}" for (high, wide), count in sizes.most_common(3))
        raise ValueError(f"its slices have {len(sizes)} sizes ({several} pixels): put each size into its own folder")
    ways = [each.axes for each in slices if each.axes is not None]
    if ways and max(np.abs(each - ways[0]).max() for each in ways) > TURNED:
        raise ValueError("its slices lie in several directions: put each direction into its own folder")


def _in_order(slices: list[Slice]) -> tuple[list[Slice], np.ndarray | None, list[str]]:
    """Slices by their position along the axis on which they are stacked; by number or name where they have none."""
    by_name = sorted(slices, key=lambda each: (natural(each.path.as_posix()), each.frame))
    if any(each.place is None for each in slices):
        if any(each.order is None for each in slices):
            return by_name, None, ["no positions and no numbers in the headers: in the order of the file names"]
        ordered = sorted(by_name, key=lambda each: each.order)
        told = ["no positions in the headers: in the order of InstanceNumber"]
        return ordered, None, told + _gaps(np.array([each.order for each in ordered]), "")
    normal = np.cross(*slices[0].axes)
    normal *= np.sign(normal[np.abs(normal).argmax()])  # to the left, the back or the head
    placed = [(round(float(each.place @ normal), 2), each.acquisition, each.order or 0) for each in by_name]
    order = sorted(range(len(slices)), key=placed.__getitem__)
    first = [next(same) for _, same in groupby(order, key=lambda i: placed[i][0])]
    twice = len(order) - len(first)
    told = [f"{twice} slices lie where another one does: the first of each place is taken"] if twice else []
    places = np.array([placed[i][0] for i in first])
    return [by_name[i] for i in first], places, told + _gaps(places, " mm")


def _gaps(places: np.ndarray, unit: str) -> list[str]:
    """A word on steps between slices that are half as large again as the usual one."""
    steps = np.diff(places)
    usual = np.median(steps) if len(steps) else 0
    wide = np.flatnonzero(steps > 1.5 * usual) if usual > 0 else []
    if not len(wide):
        return []
    missing = int(sum(max(1, round(steps[i] / usual) - 1) for i in wide))
    more = f" and in {len(wide) - 1} more places" if len(wide) > 1 else ""
    where = f"{places[wide[0]]:g} and {places[wide[0] + 1]:g}{unit}"
    return [f"a gap: about {missing} slice{'s are' if missing > 1 else ' is'} missing between {where}{more}"]


def greys(slices: list[Slice], image_size: int) -> Iterator[np.ndarray | Exception]:
    """Each slice as uint8 (image_size, image_size), axial ones as `upright` turns them; or why it cannot be read."""
    for path, same in groupby(slices, key=lambda each: each.path):
        file = None
        for each in same:
            try:
                file = file or open_dicom(path)
                grey = window_to_uint8(*frame_of(file, each.frame))
                yield resized(upright(grey, each.axes) if plane(each) == "axial" else grey, image_size)
            except Exception as error:  # decoders raise whatever they like
                yield error


def upright(image: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """An axial slice as it is usually shown: the patient's right at the left, the front at the top."""
    across, down = axes
    if abs(across[0]) < abs(across[1]):
        image, across, down = image.T, down, across
    return np.ascontiguousarray(image[:: 1 if down[1] > 0 else -1, :: 1 if across[0] > 0 else -1])
