"""DICOM: a slice as a grey picture, and who it is of."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

LUNG_WINDOW = (-600, 1500)  # centre and width in Hounsfield units
MOST_PIXELS = 178_956_970  # of a slice: Pillow's limit for pictures, for scans too


def read_dicom(path: Path, window: tuple[float, float] | None = None) -> tuple[np.ndarray, float, float]:
    """A DICOM slice: its values, and which of them are black and white.

    A CT slice in Hounsfield units is shown in the lung window, -1350 to 150. What is not (another modality, no rescale)
    is shown in the window that the file gives, or from its lowest to its highest value; inverted if it is MONOCHROME1.

    Args:
        window: the values that are black and white, instead.

    Returns:
        values, float32 (H, W); the lower and the upper limit.

    Raises:
        ImportError: pydicom is not installed, or what it needs to unpack this file.
        ValueError: no picture, a colour picture, several pictures, too many pixels, or an inverted CT slice.
    """
    dataset = open_dicom(path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(f"it holds {frames} slices, save each as a file of its own")
    return frame_of(dataset, 0, window)


def open_dicom(path: Path):
    """A DICOM file with grey pictures, as pydicom's Dataset. Raises as `read_dicom`."""
    import pydicom

    with warnings.catch_warnings(action="ignore"):  # of values that break the standard, and do no harm here
        dataset = pydicom.dcmread(path, force=True)  # some files lack the preamble
    if "PixelData" not in dataset or not dataset.get("Rows"):
        raise ValueError("it holds no picture")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise ValueError("it is a colour picture, as of a screenshot, and no scan")
    check_size(dataset.Rows, dataset.Columns)
    return dataset


def check_size(height: int, width: int) -> None:
    """Raise ValueError for a slice that says it is larger than any picture that is read, before memory fills."""
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"it says that a slice has {height} × {width} pixels, more than {MOST_PIXELS // 10**6} million"
        )


def frame_of(dataset, frame: int, window: tuple[float, float] | None = None) -> tuple[np.ndarray, float, float]:
    """One slice of an open file, from 0, as `read_dicom` gives it."""
    with warnings.catch_warnings(action="ignore"):
        stored = _pixels(dataset, frame).reshape(dataset.Rows, dataset.Columns)
    values = stored.astype(np.float32)
    slope, intercept = (number(dataset, name, frame) for name in ("RescaleSlope", "RescaleIntercept"))
    rescaled = slope is not None and intercept is not None
    if rescaled:
        values = values * slope + intercept
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    hounsfield = rescaled and (dataset.get("Modality") or "CT") == "CT"
    if hounsfield and inverted:
        raise ValueError("it is a CT slice with inverted greys, MONOCHROME1, whose Hounsfield units can't be trusted")
    shown = (number(dataset, name, frame) for name in ("WindowCenter", "WindowWidth"))
    centre, width = LUNG_WINDOW if hounsfield else shown
    if window:
        low, high = window
    elif centre is not None and width:
        low, high = centre - width / 2, centre + width / 2
    else:
        padding = dataset.get("PixelPaddingValue")  # what stands where nothing was measured
        known = values if padding is None else values[stored != padding]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return (values, low, high) if not inverted else (-values, -high, -low)


def _pixels(dataset, frame: int) -> np.ndarray:
    """The stored values of one slice. Raises ImportError if nothing installed can unpack them."""
    from pydicom.pixels import pixel_array

    try:
        return pixel_array(dataset, index=frame)
    except RuntimeError as error:
        if "missing" in str(error) or "plugin" in str(error):
            name = dataset.file_meta.TransferSyntaxUID.name
            raise ImportError(f"its pixels are packed as {name}, for which pylibjpeg is missing") from None
        raise


def patient_ids(paths: Iterable[Path]) -> dict[Path, str]:
    """The PatientID of each file that has one; nothing if pydicom is not installed (reading the pixels says so)."""
    found = {}
    with contextlib.suppress(ImportError):
        import pydicom

        for path in paths:
            with (
                contextlib.suppress(Exception),
                warnings.catch_warnings(action="ignore"),
            ):  # the pixels' turn to complain
                head = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["PatientID"])
                if str(head.get("PatientID") or "").strip():
                    found[path] = str(head.PatientID).strip()
    return found


def groups(dataset, sequence: str, frame: int) -> Iterator:
    """The functional groups of one kind that hold for a slice of an enhanced object: those of all, then its own."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        first = 0 if name.startswith("Shared") else frame
        for group in (dataset.get(name) or [])[first : first + 1]:
            yield from (group.get(sequence) or [])[:1]


def number(dataset, name: str, frame: int = 0) -> float | None:
    """A number at the top of the header or in its functional groups, as enhanced objects keep it; None if absent."""
    places = [dataset]
    for sequence in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
        places += groups(dataset, sequence, frame)
    for place in places:
        value = place.get(name)
        if value not in (None, ""):
            return float(value if np.isscalar(value) or not hasattr(value, "__len__") else value[0])
    return None
