"""NIfTI: a volume as axial slices, turned as DICOM slices are."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..core.files import display_path
from ..core.memory import too_large
from .dicom import AIR, LUNG_WINDOW, PLANES, ScanSlice, check_size
from .discovery import NIFTI, ending, why_unread

FEW = 32  # distinct whole numbers in a volume: so few are labels, no scan
OTHER_PLANE = "scanned in {} slices: the network has learned axial ones"
LOCK = threading.Lock()  # several threads ask for slices of one volume, which one of them reads


@dataclasses.dataclass(frozen=True)
class Volume:
    """A scan from the feet to the head.

    Attributes:
        stored: (Z, Y, X), as in the file; rows from the front to the back, columns from the patient's right to left.
        slope, intercept: of the rescale; its result is black at `low` and below, white at `high` and above.
        positions: of the slices along the body in mm, float64 (Z,).
        note: what was guessed or looks odd; may be empty.
    """

    stored: np.ndarray
    slope: float
    intercept: float
    low: float
    high: float
    positions: np.ndarray
    note: str


def open_volume(path: Path) -> Volume:
    """A NIfTI volume, turned to axial slices as DICOM shows them.

    Values some of which are below -200 are taken for Hounsfield units and shown in the lung window. Others are taken
    for grey values, 0…255 or 0…1, or go from their lowest to their highest value; a note says so. The last two volumes
    stay in memory, as one is decompressed as a whole and read slice by slice.

    Raises:
        ImportError: nibabel is not installed.
        ValueError, naming the file: damaged, too large, 4-D, colours, labels instead of intensities.
    """
    with LOCK, _named(path):
        return _read(path, path.stat().st_mtime_ns)


def read_slice_of(path: Path, window: tuple[float, float] | None = None) -> ScanSlice:
    """A slice of a volume: `p1.nii.gz/0007` is slice 7 of p1.nii.gz, counted from the feet. Raises as `open_volume`."""
    volume = open_volume(path.parent)
    stored = volume.stored[int(path.name) - 1].astype(np.float32)
    values = stored * np.float32(volume.slope) + np.float32(volume.intercept)
    return ScanSlice(values, *(window or (volume.low, volume.high)), volume.note)


def in_volume(path: Path) -> bool:
    """Whether a path names a slice of a volume, as `read_slice_of` reads it."""
    return ending(path.parent) in NIFTI and path.parent.is_file()


def slices_of(path: Path) -> list[Path]:
    """A volume's slices as `read_slice_of` reads them; another file as it is. Raises as `open_volume`."""
    if ending(path) not in NIFTI:
        return [path]
    with _named(path):
        import nibabel

        image, shape = _head(path)
        axis = [code in "SI" for code in nibabel.aff2axcodes(image.affine)].index(True)
        return [path / f"{number:04d}" for number in range(1, shape[axis] + 1)]


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a volume is read, as one sentence that names it."""
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty, 0 bytes")
        yield
    except ImportError:
        raise ImportError(
            f"Volume {display_path(path)} is NIfTI, which needs a package that is not installed: run "
            "'python -m pip install nibabel'."
        ) from None
    except Exception as error:  # readers raise whatever they like
        raise ValueError(
            f"Volume {display_path(path)} cannot be read ({why_unread(error, path)}): replace or delete the file."
        ) from error


def _head(path: Path) -> tuple:
    """The file, opened but not read, and its shape in three dimensions."""
    import nibabel

    image = nibabel.load(path, mmap=False)  # a mapped file could not be deleted on Windows
    shape, volumes = image.shape, math.prod(image.shape[3:])
    if len(shape) < 2 or volumes != 1:
        raise ValueError(f"it has {len(shape)} dimensions and {volumes} volumes, save one with three dimensions")
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError("it holds colours or complex numbers, and no scan")
    shape = (*shape, 1)[:3]
    check_size(*sorted(shape)[1:])
    if too_large(math.prod(shape) * image.get_data_dtype().itemsize):
        raise ValueError(f"it says that it has {' × '.join(map(str, shape))} values, too many for this memory")
    return image, shape


@lru_cache(maxsize=2)  # threads that read slices in order ask for at most two volumes at a time
def _read(path: Path, _time: int) -> Volume:
    import nibabel

    image, shape = _head(path)
    stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(shape)  # scaled they would fill four times the memory
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(stored, image.affine, dtype=stored.dtype))
    stored = np.asanyarray(turned.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    low, high, notes = _window(stored, slope, intercept)
    if not (image.header.get("qform_code", 0) or image.header.get("sform_code", 0)):
        notes.append("no orientation in its header: it may be mirrored or upside down")
    spacing = np.linalg.norm(turned.affine[:3, :3], axis=0)
    if spacing.max() > 1.5 * spacing[2]:
        notes.append(OTHER_PLANE.format(PLANES[int(spacing.argmax())]))
    positions = turned.affine[2, 3] + turned.affine[2, 2] * np.arange(len(stored))
    return Volume(stored, slope, intercept, low, high, positions, "; ".join(notes))


def _window(stored: np.ndarray, slope: float, intercept: float) -> tuple[float, float, list[str]]:
    """Which values are black and white, and what there is to say of it; judged by some millions of them."""
    step = max(1, round((stored.size / 2e6) ** (1 / 3)))
    some = stored[::step, ::step, ::step]
    some = some[np.isfinite(some)]
    if not some.size:
        raise ValueError("it holds no numbers")
    distinct = np.unique(some)
    if len(distinct) <= FEW and (distinct == np.rint(distinct)).all():
        raise ValueError(f"it holds no more than {len(distinct)} different whole numbers, as a mask does")
    ends = sorted((float(distinct[0]) * slope + intercept, float(distinct[-1]) * slope + intercept))
    if ends[0] < AIR:
        return *LUNG_WINDOW, []
    low, high = next(((0, top) for top in (1, 255) if ends[0] >= 0 and ends[1] <= top), ends)
    told = f"its values run from {ends[0]:.4g} to {ends[1]:.4g}, which are no Hounsfield units: taken as greys"
    return float(low), float(high), [told + f" from {low:.4g}, black, to {high:.4g}, white"]
