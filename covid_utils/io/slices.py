"""What the readers of all formats share: a slice with its window, and errors that name the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.files import display_path
from .discovery import NIFTI, ending, why_unread

LUNG_WINDOW = (-1350, 150)  # Hounsfield units shown black and white: centre -600, width 1500
AIR = -200  # Hounsfield units: some of every chest slice lies below
OWN_RANGE = (
    "no Hounsfield units: shown in its own window or range (columns low and high in CSV files set another window)"
)
OTHER_PLANE = "scanned in {} slices: the network was trained on axial ones"
PLANES = ("sagittal", "coronal", "axial")  # slices across x, y and z
Window = tuple[float, float]  # the values that become black and white


class Slice(NamedTuple):
    """A slice as grey levels.

    Attributes:
        image: uint8 (H, W), 0 black to 255 white.
        low, high: the values that became black and white.
        note: what was guessed or looks odd; may be empty.
    """

    image: np.ndarray
    low: float
    high: float
    note: str = ""


def windowed(values: np.ndarray, window: Window, note: str = "", inverted: bool = False) -> Slice:
    """Values, float (H, W), in a window; with `inverted` its low end is white. What is no number becomes black."""
    low, high = window
    if inverted:
        values, low, high = -values, -high, -low
    return Slice(window_to_uint8(values, low, high), low, high, note)


def own_range(values: np.ndarray) -> Window:
    """The lowest and the highest value. Raises ValueError if there are none but NaN and infinity."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it holds no numbers")
    return float(finite.min()), float(finite.max())


def window_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` to `high` as uint8 0 to 255; what lies outside is cut off, and NaN becomes 0."""
    part = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return np.rint(np.nan_to_num(part) * 255).astype(np.uint8)


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
            f"Slice {display_path(path)} is {kind}, which needs a package that is not installed ({error}): run "
            f"'python -m pip install {packages}'."
        ) from None
    except Exception as error:  # decoders raise whatever they like
        raise ValueError(
            f"Slice {display_path(path)} cannot be read ({why_unread(error, path)}): replace or delete the file."
        ) from error
