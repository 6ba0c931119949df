"""DICOM: CT slices in the lung window and upright, and what their headers say of where they belong."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .slices import AIR, LUNG_WINDOW, OWN_RANGE, PLANES, Slice, Window, own_range, windowed

MOST_PIXELS = 178_956_970  # of a slice: Pillow's limit for pictures, for scans too
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


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What a header says of one slice.

    Attributes:
        path: the file, or `file/0003` for the third slice of a file with many.
        study: the same for all files of one examination; never to be shown, as it holds the PatientID.
        problem: why it is no CT slice; empty if it is one.
        series: SeriesInstanceUID, or empty.
        size: height and width in pixels.
        axes: along a row and down a column, (2, 3) unit vectors, x to the patient's left, y to the back, z to the head.
        place: where it lies along the axis of the stack, in mm; None, as `axes`, if the header does not say.
        order: AcquisitionNumber and InstanceNumber, 0 if missing.
    """

    path: Path
    study: tuple
    problem: str = ""
    series: str = ""
    size: tuple[int, int] = (0, 0)
    axes: np.ndarray | None = None
    place: float | None = None
    order: tuple[float, float] = (0, 0)

    @property
    def plane(self) -> str:
        """Axial, coronal or sagittal, whichever is nearest; axial if the header does not say."""
        return "axial" if self.axes is None else _plane(self.axes)


def file_of(path: Path) -> Path:
    """The file in which a slice lies: `p1.nii.gz/0007` names slice 7 of p1.nii.gz, other paths a file themselves."""
    return path.parent if path.name.isdigit() and path.parent.is_file() else path


def read_dicom(path: Path, window: Window | None = None) -> Slice:
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
    values = stored.astype(np.float32)
    if dataset.get("PixelPaddingValue") is not None:  # stands where nothing was measured; it may lack its sign
        values[stored == np.array(dataset.PixelPaddingValue).astype(stored.dtype)] = np.nan
    slope, intercept, centre, width = (
        _number(dataset, name, frame) for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
    )
    rescaled, inverted = None not in (slope, intercept), dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    if rescaled:
        values = values * slope + intercept
    rescaled_ct = rescaled and (dataset.get("Modality") or "CT") == "CT"
    if rescaled_ct and inverted:
        raise ValueError("it is a CT slice with inverted greys, MONOCHROME1, whose Hounsfield units can't be trusted")
    note = ""
    if window is None and rescaled_ct and (intercept < 0 or (values < AIR).any()):
        window = LUNG_WINDOW
    elif window is None:
        has_own = not rescaled_ct and centre is not None and width  # one in Hounsfield units fits nothing else
        window = (centre - width / 2, centre + width / 2) if has_own else own_range(values)
        note = OWN_RANGE
    axes = _value(dataset, "ImageOrientationPatient", frame)
    if axes is not None:
        values = upright(values, np.array(axes, float).reshape(2, 3))
    return windowed(values, window, note, inverted)


def upright(image: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """An axial slice, (H, W), with the patient's right at the left and the front at the top; other planes as they are.

    `axes` are those of `Header`.
    """
    if _plane(axes) != "axial":
        return image
    across, down = axes
    if abs(across[0]) < abs(across[1]):
        image, across, down = image.T, down, across
    return image[:: 1 if down[1] > 0 else -1, :: 1 if across[0] > 0 else -1]


def read_headers(path: Path) -> list[Header]:
    """The header of each slice in a file, or of what is no slice; none if it says nothing of where it belongs.

    Raises ImportError if pydicom is not installed.
    """
    if find_spec("pydicom") is None:
        raise ImportError("DICOM files need a package that is not installed: run 'python -m pip install pydicom'.")
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):  # reading the pixels will say so
        return _headers(_head(path), path)
    return []


def patient_ids(paths: Iterable[Path]) -> dict[Path, str]:
    """The PatientID of each file that has one; none of a damaged header (reading the pixels says so)."""
    found = {}
    for path in paths:
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
            found[path] = str(_head(path).get("PatientID") or "").strip()
    return {path: name for path, name in found.items() if name}


def _head(path: Path):
    """The TAGS of a file, as pydicom's Dataset."""
    import pydicom

    return pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(TAGS))


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
    return found if found[0].series or found[0].place is not None else []


def _header(head, path: Path, frame: int, study: tuple) -> Header:
    position, axes = (_value(head, f"Image{name}Patient", frame) for name in ("Position", "Orientation"))
    acquisition, number = (_number(head, name) or 0 for name in ("AcquisitionNumber", "InstanceNumber"))
    place = None
    if axes is not None:
        axes = np.array(axes, float).reshape(2, 3)
        normal = np.cross(*axes)
        normal *= np.sign(normal[np.abs(normal).argmax()])  # to the left, the back or the head
        place = None if position is None else round(float(np.array(position, float) @ normal), 2)
    series, size = str(head.get("SeriesInstanceUID") or ""), (int(head.Rows), int(head.Columns))
    return Header(path, study, "", series, size, axes, place, (acquisition, number + frame))


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
    if dataset.Rows * dataset.Columns > MOST_PIXELS:  # told before memory fills
        raise ValueError(f"it says that it has {dataset.Rows} × {dataset.Columns} pixels, too many for a slice")
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
