"""DICOM: CT slices in the lung window and upright, and what their headers say of where they belong."""

from __future__ import annotations

import contextlib
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .slices import AIR, LUNG_WINDOW, OWN_RANGE, Header, Slice, Window, check_size, own_range, windowed

NO_PICTURE = "objects without a picture"  # reports, directories and the like
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # begins the UIDs of screenshots, such as reports of the dose


def read_dicom(path: Path, window: Window | None = None) -> Slice:
    """A DICOM slice, in `window` or in that of its kind; axial ones turned as `to_radiological` says.

    A CT slice in Hounsfield units (with a negative intercept, or some values below -200) is shown in the lung window,
    -1350 to 150. Others, also of eight bits without a slope, are shown in the window that the file gives, or from the
    lowest to the highest value; inverted if it is MONOCHROME1.

    Raises ImportError if pydicom is not installed, or what it needs to decompress this file; ValueError for no picture,
    a colour picture, several slices, too many pixels, or an inverted CT slice.
    """
    import pydicom

    with warnings.catch_warnings(action="ignore"):  # of values that break the standard, and do no harm here
        dataset = pydicom.dcmread(path, force=True)  # some files lack the preamble
        if "PixelData" not in dataset or not dataset.get("Rows"):
            raise ValueError("it holds no picture")
        if _coloured(dataset):
            raise ValueError("it is a colour picture, as of a screenshot, and no scan")
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise ValueError(f"it holds {dataset.NumberOfFrames} slices, convert it to NIfTI with dcm2niix")
        check_size(dataset.Rows, dataset.Columns)
        try:
            stored = dataset.pixel_array.reshape(dataset.Rows, dataset.Columns)
        except RuntimeError:
            syntax = dataset.file_meta.TransferSyntaxUID
            if find_spec("pylibjpeg") or not syntax.is_compressed or syntax == pydicom.uid.RLELossless:
                raise
            raise ImportError(f"its pixels are packed as {syntax.name}") from None
    values = stored.astype(np.float32)
    if (padding := dataset.get("PixelPaddingValue")) is not None:  # where nothing was measured; it may lack its sign
        limits = np.array([padding, dataset.get("PixelPaddingRangeLimit", padding)]).astype(stored.dtype)
        values[(stored >= limits.min()) & (stored <= limits.max())] = np.nan
    slope, intercept, centre, width = (
        _number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
    )
    rescaled = slope is not None or intercept is not None  # converters often leave one of them out
    slope, intercept = slope or 1, intercept or 0
    values = values * slope + intercept
    ct = (dataset.get("Modality") or "CT") == "CT"
    hounsfield = ct and (intercept < 0 or (values < AIR).any()) and (dataset.BitsAllocated > 8 or slope != 1)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    if ct and inverted and (rescaled or hounsfield):
        raise ValueError("it is a CT slice with inverted greys, MONOCHROME1, whose Hounsfield units can't be trusted")
    problem = _problem(dataset)
    notes = [f"of a kind that is left out of folders: {problem}"] if problem else []
    if window is None and hounsfield:
        window = LUNG_WINDOW
    elif window is None:
        has_own = not (ct and rescaled) and centre is not None and width  # in Hounsfield units it fits nothing else
        window = (centre - width / 2, centre + width / 2) if has_own else own_range(values)
        notes.append(OWN_RANGE)
    return windowed(to_radiological(values, _axes(dataset)), window, "; ".join(notes), inverted)


def to_radiological(image: np.ndarray, axes: np.ndarray | None) -> np.ndarray:
    """An axial slice, (H, W), with the patient's right at the left and the front at the top; other planes as they are.

    `axes` are those of `Header`.
    """
    if axes is None or np.abs(np.cross(*axes)).argmax() != 2:
        return image
    across, down = axes
    if abs(across[0]) < abs(across[1]):
        image, across, down = image.T, down, across
    return image[:: 1 if down[1] > 0 else -1, :: 1 if across[0] > 0 else -1]


def read_header(path: Path) -> Header | None:
    """The header of a slice, or of no slice; None if it does not say where it belongs. ImportError without pydicom."""
    if find_spec("pydicom") is None:
        raise ImportError("DICOM files need a package that is not installed: run 'python -m pip install pydicom'.")
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):  # reading the pixels will say so
        head = _head(path)
        uid, patient = (str(head.get(name) or "") for name in ("StudyInstanceUID", "PatientID"))
        study = (patient, uid) if uid else (str(path.parent),)
        if problem := _problem(head):
            return Header(path, study, problem) if head.get("Rows") or _kind(head) else None
        if int(head.get("NumberOfFrames") or 1) > 1:
            return None
        axes, position = _axes(head), _value(head, "ImagePositionPatient")
        place, series = None, str(head.get("SeriesInstanceUID") or "")
        if axes is not None and position is not None:
            normal = np.cross(*axes)
            normal *= np.sign(normal[np.abs(normal).argmax()])  # to the left, the back or the head
            place = round(float(np.array(position, float) @ normal), 2)
        order = tuple(_number(head, name) or 0 for name in ("AcquisitionNumber", "InstanceNumber"))
        if series or place is not None:
            return Header(path, study, "", series, (int(head.Rows), int(head.Columns)), axes, place, order)
    return None


def patient_id(path: Path) -> str | None:
    """The PatientID in a file's header; None if there is none, or it is damaged (reading the pixels says so)."""
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
        return str(_head(path).get("PatientID") or "").strip() or None
    return None


def _head(path: Path):
    """The header of a file, as pydicom's Dataset."""
    import pydicom

    return pydicom.dcmread(path, force=True, stop_before_pixels=True)


def _kind(head) -> str:
    """The UID of an object's kind, its SOP class; may be empty."""
    return str(head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID") or "")


def _problem(head) -> str:
    """Why an object is no CT slice; empty if it is one, or many."""
    if not head.get("Rows"):
        return NO_PICTURE
    captured = _kind(head).startswith(SECONDARY_CAPTURE) and "ImageOrientationPatient" not in head
    if captured or _coloured(head):
        return "screenshots"
    if (head.get("Modality") or "CT") != "CT":
        return "pictures that are no CT"
    return "scouts" if "LOCALIZER" in (head.get("ImageType") or []) else ""


def _coloured(dataset) -> bool:
    """Whether it is a colour picture; of one with a palette the pixels are numbers of colours."""
    return dataset.get("SamplesPerPixel", 1) != 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"


def _value(dataset, name: str) -> Any:
    """A tag at the top of the header or in the functional groups of an enhanced object; None if absent or empty."""
    groups = [each for kind in ("Shared", "PerFrame") for each in dataset.get(f"{kind}FunctionalGroupsSequence") or []]
    inner = [each for group in groups for element in group if element.VR == "SQ" for each in element.value]
    return next((value for each in [dataset, *inner] if (value := each.get(name)) not in (None, "")), None)


def _number(dataset, name: str) -> float | None:
    """A number, or the first of several, as `_value` finds it."""
    value = _value(dataset, name)
    return None if value is None else float(np.atleast_1d(np.array(value, float))[0])


def _axes(dataset) -> np.ndarray | None:
    """The axes of `Header`; None for what are no directions, such as zeros."""
    value = _value(dataset, "ImageOrientationPatient")
    numbers = [0] * 6 if value is None or len(value) != 6 else [each or 0 for each in value]
    axes = np.array(numbers, float).reshape(2, 3)
    return axes if np.linalg.norm(np.cross(*axes)) > 0.9 else None
