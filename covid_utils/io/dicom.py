"""DICOM: CT slices in the lung window and upright, and what their headers say of where they belong."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LUNG_WINDOW = (-1350, 150)  # Hounsfield units shown black and white: centre -600, width 1500
AIR = -200  # Hounsfield units: some of every chest slice lies below
MOST_PIXELS = 178_956_970  # of a slice: Pillow's limit for pictures, for scans too
PLANES = ("sagittal", "coronal", "axial")  # slices across x, y and z
NO_HOUNSFIELD = "no Hounsfield units: each slice is shown in its own window"
NO_PICTURE = "objects without a picture"  # reports, directories and the like
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # begins the UIDs of screenshots, such as reports of the dose
GROUPS = (  # where enhanced objects keep what others have at the top of their headers
    "PixelValueTransformationSequence", "FrameVOILUTSequence", "PlanePositionSequence", "PlaneOrientationSequence",
)  # fmt: skip
TAGS = (
    "SOPClassUID", "Modality", "ImageType", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PatientID",
    "StudyInstanceUID", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber",
    "AcquisitionNumber", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


class ScanSlice(NamedTuple):
    """A slice of a scan: values, float32 (H, W); which of them are black and white; what was guessed, or empty."""

    values: np.ndarray
    low: float
    high: float
    note: str


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What a header says of one slice.

    Attributes:
        path: the file, or `file/0003` for the third slice of a file with many.
        study: the same for all files of one examination; never to be shown, as it holds the PatientID.
        problem: why it is no CT slice; empty if it is one.
        series: SeriesInstanceUID, or empty.
        size: height and width in pixels.
        position: of the first pixel in mm, (3,), x to the patient's left, y to the back, z to the head; or None.
        axes: along a row and down a column, (2, 3) unit vectors; or None.
        number, acquisition: InstanceNumber or None, AcquisitionNumber or 0.
    """

    path: Path
    study: tuple
    problem: str = ""
    series: str = ""
    size: tuple[int, int] = (0, 0)
    position: np.ndarray | None = None
    axes: np.ndarray | None = None
    number: float | None = None
    acquisition: float = 0

    @property
    def plane(self) -> str | None:
        """Axial, coronal or sagittal, whichever is nearest; None if the header does not say."""
        return None if self.axes is None else _plane(self.axes)


def file_of(path: Path) -> Path:
    """The file in which a slice lies: `p1.nii.gz/0007` names slice 7 of p1.nii.gz, other paths a file themselves."""
    return path.parent if path.name.isdigit() and path.parent.is_file() else path


def read_dicom(path: Path, window: tuple[float, float] | None = None) -> ScanSlice:
    """A DICOM slice; of a file with many slices `path` names one, as in `Header.path`.

    A CT slice in Hounsfield units (with a negative intercept, or some values below -200) is shown in the lung window,
    -1350 to 150. Others are shown in the window that the file gives, or from the lowest to the highest value; inverted
    if it is MONOCHROME1. Axial slices are turned so that the patient's right is at the left and the front at the top.

    Args:
        window: the values that are black and white, instead.

    Raises:
        ImportError: pydicom is not installed, or what it needs to decompress this file.
        ValueError: no picture, a colour picture, several slices, too many pixels, or an inverted CT slice.
    """
    file = file_of(path)
    frame = int(path.name) - 1 if file != path else 0
    dataset = _open(file, file.stat().st_mtime_ns)
    if path == file and int(dataset.get("NumberOfFrames") or 1) > 1:
        raise ValueError(f"it holds {dataset.NumberOfFrames} slices, save each as a file of its own")
    with warnings.catch_warnings(action="ignore"):  # of values that break the standard, and do no harm here
        stored = _pixels(dataset, frame).reshape(dataset.Rows, dataset.Columns)
    values, padded = stored.astype(np.float32), np.zeros(stored.shape, bool)
    if dataset.get("PixelPaddingValue") is not None:  # stands where nothing was measured; it may lack its sign
        padded = stored == np.array(dataset.PixelPaddingValue).astype(stored.dtype)
    slope, intercept = (_number(dataset, name, frame) for name in ("RescaleSlope", "RescaleIntercept"))
    rescaled = None not in (slope, intercept) and (dataset.get("Modality") or "CT") == "CT"
    if None not in (slope, intercept):
        values = values * slope + intercept
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    if rescaled and inverted:
        raise ValueError("it is a CT slice with inverted greys, MONOCHROME1, whose Hounsfield units can't be trusted")
    known = values if padded.all() else values[~padded]
    hounsfield = rescaled and (intercept < 0 or float(known.min()) < AIR)
    centre, width = (_number(dataset, name, frame) for name in ("WindowCenter", "WindowWidth"))
    low, high = float(known.min()), float(known.max())
    if window:
        low, high = window
    elif hounsfield:
        low, high = LUNG_WINDOW
    elif not rescaled and centre is not None and width:  # a window in Hounsfield units does not fit what is none
        low, high = centre - width / 2, centre + width / 2
    values[padded] = high if inverted else low
    if inverted:
        values, low, high = -values, -high, -low
    axes = _value(dataset, "ImageOrientationPatient", frame)
    if axes is not None:
        values = upright(values, np.array(axes, float).reshape(2, 3))
    return ScanSlice(values, low, high, "" if hounsfield or window else NO_HOUNSFIELD)


def upright(image: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """An axial slice with the patient's right at the left and the front at the top; other planes as they are.

    Args:
        image: (H, W).
        axes: along a row and down a column, (2, 3) unit vectors.
    """
    if _plane(axes) != "axial":
        return image
    across, down = axes
    if abs(across[0]) < abs(across[1]):
        image, across, down = image.T, down, across
    return np.ascontiguousarray(image[:: 1 if down[1] > 0 else -1, :: 1 if across[0] > 0 else -1])


def check_size(height: int, width: int) -> None:
    """Raise ValueError for a slice that says it is larger than any picture that is read, before memory fills."""
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"it says that a slice has {height} × {width} pixels, more than {MOST_PIXELS // 10**6} million"
        )


def read_headers(path: Path) -> list[Header]:
    """The header of each slice in a file, or of what is no slice; none if it says nothing of where it belongs.

    Raises ImportError if pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise ImportError(
            "DICOM files need a package that is not installed: run 'python -m pip install pydicom'."
        ) from None

    try:
        with warnings.catch_warnings(action="ignore"):
            head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(TAGS))
            return _headers(head, path)
    except Exception:  # a damaged header: reading the pixels will say so
        return []


def patient_ids(paths: Iterable[Path]) -> dict[Path, str]:
    """The PatientID of each file that has one; nothing if pydicom is not installed (reading the pixels says so)."""
    found = {}
    with contextlib.suppress(ImportError):
        import pydicom

        for path in paths:
            with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):  # the pixels will say so
                head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["PatientID"])
                found[path] = str(head.get("PatientID") or "").strip()
    return {path: name for path, name in found.items() if name}


def _headers(head, path: Path) -> list[Header]:
    uid, patient = (str(head.get(name) or "") for name in ("StudyInstanceUID", "PatientID"))
    study = (patient, uid) if uid else (str(path.parent),)
    kind = str(head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID") or "")
    if not head.get("Rows"):
        return [Header(path, study, NO_PICTURE)] if kind else []
    captured = kind.startswith(SECONDARY_CAPTURE) and "ImageOrientationPatient" not in head
    if captured or head.get("SamplesPerPixel", 1) != 1:
        return [Header(path, study, "screenshots")]
    if (head.get("Modality") or "CT") != "CT":
        return [Header(path, study, "pictures that are no CT")]
    if "LOCALIZER" in (head.get("ImageType") or []):
        return [Header(path, study, "scouts")]
    frames, placed = int(head.get("NumberOfFrames") or 1), len(head.get("PerFrameFunctionalGroupsSequence") or [])
    if frames > 1 and placed != frames:  # nothing says where they lie, and reading it says so
        return []
    found = [_header(head, path / f"{n + 1:04d}" if frames > 1 else path, n, study) for n in range(frames)]
    return found if found[0].series or found[0].position is not None else []


def _header(head, path: Path, frame: int, study: tuple) -> Header:
    place, axes = (_value(head, f"Image{name}Patient", frame) for name in ("Position", "Orientation"))
    number, acquisition = (_number(head, name) for name in ("InstanceNumber", "AcquisitionNumber"))
    return Header(
        path, study, "", str(head.get("SeriesInstanceUID") or ""), (int(head.Rows), int(head.Columns)),
        None if place is None or axes is None else np.array(place, float),
        None if axes is None else np.array(axes, float).reshape(2, 3),
        None if number is None else number + frame, acquisition or 0,
    )  # fmt: skip


def _plane(axes: np.ndarray) -> str:
    return PLANES[int(np.abs(np.cross(*axes)).argmax())]


@lru_cache(maxsize=2)  # slices of one file with many are read one after the other
def _open(path: Path, _time: int):
    """A DICOM file with grey pictures, as pydicom's Dataset. Raises as `read_dicom`."""
    import pydicom

    with warnings.catch_warnings(action="ignore"):
        dataset = pydicom.dcmread(path, force=True)  # some files lack the preamble
    if "PixelData" not in dataset or not dataset.get("Rows"):
        raise ValueError("it holds no picture")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise ValueError("it is a colour picture, as of a screenshot, and no scan")
    check_size(dataset.Rows, dataset.Columns)
    return dataset


def _pixels(dataset, frame: int) -> np.ndarray:
    """The stored values of one slice. Raises ImportError if nothing installed can decompress them."""
    from pydicom.pixels import pixel_array
    from pydicom.uid import RLELossless

    try:
        return pixel_array(dataset, index=frame)
    except RuntimeError:
        syntax = dataset.file_meta.TransferSyntaxUID
        if find_spec("pylibjpeg") or not syntax.is_compressed or syntax == RLELossless:
            raise
        raise ImportError(f"its pixels are packed as {syntax.name}, for which pylibjpeg is missing") from None


def _value(dataset, name: str, frame: int = 0) -> Any:
    """A tag at the top of the header or in the functional groups of an enhanced object; None if absent or empty."""
    shared, own = (
        (dataset.get(f"{kind}FunctionalGroupsSequence") or [])[first : first + 1]
        for kind, first in (("Shared", 0), ("PerFrame", frame))
    )
    groups = [each for group in [*shared, *own] for sequence in GROUPS for each in (group.get(sequence) or [])[:1]]
    return next((value for each in [dataset, *groups] if (value := each.get(name)) not in (None, "")), None)


def _number(dataset, name: str, frame: int = 0) -> float | None:
    """A number, or the first of several, as `_value` finds it."""
    value = _value(dataset, name, frame)
    return None if value is None else float(np.atleast_1d(np.array(value, float))[0])
