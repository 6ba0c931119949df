"""What the readers of all formats share: a slice in its window, what a header says of it, errors that name the file."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.files import display_path
from .discovery import NIFTI, ending

LUNG_WINDOW = (-1350, 150)  # Hounsfield units shown black and white: centre -600, width 1500
AIR = -200  # Hounsfield units: some of every chest slice lies below
OWN_RANGE = "no Hounsfield units: shown in its own window or range (columns low and high in CSV files set another)"
OTHER_PLANE = "scanned in {} slices: the network was trained on axial ones"
MOST_PIXELS = 45_000_000  # a slice has less than one million, a camera's photograph of one up to 40
PLANES = ("sagittal", "coronal", "axial")  # slices across x, y and z
Window = tuple[float, float]  # the values that become black and white


class Slice(NamedTuple):
    """A slice as grey levels."""

    image: np.ndarray  # uint8 (H, W), 0 black to 255 white
    note: str = ""  # what was guessed or looks odd

    @property
    def blank(self) -> bool:
        """Whether it is one grey level throughout, as the padding of a volume is."""
        return bool(self.image.min() == self.image.max())


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What a file says of a slice."""

    path: Path  # the file, or `p1.nii.gz/0007` for slice 7 of a volume
    study: tuple  # the same for all files of one examination; never to be shown, as it holds the PatientID
    problem: str = ""  # why it is no CT slice; empty if it is one
    series: str = ""  # SeriesInstanceUID
    size: tuple[int, int] = (0, 0)  # height and width in pixels
    axes: np.ndarray | None = None  # along a row and down a column, (2, 3) unit vectors: x to the left, y back, z up
    place: float | None = None  # along the axis of the stack, in mm; None, as `axes`, if the header does not say
    order: tuple[float, float] = (0, 0)  # AcquisitionNumber and InstanceNumber, 0 if missing

    @property
    def plane(self) -> str:
        """Axial, coronal or sagittal, whichever is nearest; axial if the header does not say."""
        return "axial" if self.axes is None else PLANES[int(np.abs(np.cross(*self.axes)).argmax())]


def windowed(values: np.ndarray, window: Window, note: str = "", inverted: bool = False) -> Slice:
    """Values, float (H, W), in a window; with `inverted` its low end is white. NaN becomes black."""
    low, high = window
    if inverted:
        values, low, high = -values, -high, -low
    part = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return Slice(np.rint(np.nan_to_num(part) * 255).astype(np.uint8), note)


def check_size(height: int, width: int) -> None:
    """Raise ValueError for a file that says that it has far more pixels than a slice, before they fill the memory."""
    if height * width > MOST_PIXELS:
        raise ValueError(f"it says that it has {height} × {width} pixels, too many for a slice")


def own_range(values: np.ndarray) -> Window:
    """The lowest and the highest value. Raises ValueError if there are none but NaN and infinity."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it holds no numbers")
    return float(finite.min()), float(finite.max())


def default_window(values: np.ndarray) -> tuple[Window, str]:
    """The lung window if some values are below -200, as Hounsfield units are; else `own_range`, and a note on it."""
    low, high = own_range(values)
    return (LUNG_WINDOW, "") if low < AIR else ((low, high), OWN_RANGE)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is read, as one sentence that names it: ImportError or ValueError."""
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty, 0 bytes")
        yield
    except ImportError as error:
        kind, packages = ("NIfTI", "nibabel") if ending(path) in NIFTI else ("DICOM", 'pydicom "pylibjpeg[all]"')
        raise ImportError(
            f"{display_path(path)} is {kind}, which needs a package ({error}): run 'python -m pip install {packages}'."
        ) from None
    except Exception as error:  # decoders raise whatever they like
        reason = " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__
        raise ValueError(f"Slice {display_path(path)} cannot be read ({reason}): replace or delete it.") from error
