"""DICOM: a slice as a grey picture, and who it is of."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

LUNG_WINDOW = (-600, 1500)  # centre and width in Hounsfield units


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
        ValueError: no picture, a colour picture, several pictures, or an inverted CT slice.
    """
    import pydicom

    with warnings.catch_warnings(action="ignore"):  # of values that break the standard, and do no harm here
        dataset = pydicom.dcmread(path, force=True)  # some files lack the preamble
        if "PixelData" not in dataset:
            raise ValueError("it holds no picture")
        if dataset.get("SamplesPerPixel", 1) != 1:
            raise ValueError("it is a colour picture, as of a screenshot, and no scan")
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames > 1:
            raise ValueError(f"it holds {frames} slices, save each as a file of its own")
        values = _pixels(dataset).astype(np.float32).reshape(dataset.Rows, dataset.Columns)
    known = values[values != dataset.get("PixelPaddingValue")]  # what stands where nothing was measured
    slope, intercept = (_number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept"))
    rescaled = slope is not None and intercept is not None
    values, known = ((each * slope + intercept) if rescaled else each for each in (values, known))
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    hounsfield = rescaled and (dataset.get("Modality") or "CT") == "CT"
    if hounsfield and inverted:
        raise ValueError("it is a CT slice with inverted greys, MONOCHROME1, whose Hounsfield units can't be trusted")
    centre, width = LUNG_WINDOW if hounsfield else (_number(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if centre is not None and width:
        low, high = centre - width / 2, centre + width / 2
    low, high = window or (low, high)
    return (values, low, high) if not inverted else (-values, -high, -low)


def _pixels(dataset) -> np.ndarray:
    """The stored values. Raises ImportError if nothing installed can unpack them."""
    try:
        return dataset.pixel_array
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


def _number(dataset, name: str) -> float | None:
    """A number at the top of the header or in its functional groups, as enhanced objects keep it; None if absent."""
    groups = [dataset]
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(sequence) or [])[:1]:
            for inner in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                groups += list(group.get(inner) or [])[:1]
    for group in groups:
        value = group.get(name)
        if value not in (None, ""):
            return float(value if np.isscalar(value) or not hasattr(value, "__len__") else value[0])
    return None
