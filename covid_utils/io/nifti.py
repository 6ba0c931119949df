"""NIfTI: a volume as axial slices, turned as DICOM shows them."""

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
from .dicom import LUNG_WINDOW, check_size
from .discovery import NIFTI, ending, why_unread

FEW = 32  # distinct whole numbers in a volume: so few are labels, no scan
AIR = -200  # Hounsfield units: below it lies some of every chest, and nothing of a scale that is none
PLANES = ("sagittal", "coronal", "axial")  # slices across x, y and z


@dataclasses.dataclass(frozen=True)
class Volume:
    """A scan from the feet to the head.

    Attributes:
        stored: (Z, Y, X), as in the file; rows from the front to the back, columns from the patient's right to left.
        slope, intercept: of the rescale; its result is black at `low` and below, white at `high` and above.
        places: of the slices along the body in mm, float64 (Z,).
        notes: what was guessed or looks odd, a few words each.
    """

    stored: np.ndarray
    slope: float
    intercept: float
    low: float
    high: float
    places: np.ndarray
    notes: list[str]

    def values(self, number: int) -> np.ndarray:
        """A slice's values, float32 (H, W)."""
        return self.stored[number].astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


def in_volume(path: Path) -> bool:
    """Whether a path names a slice of a volume: `p1.nii.gz/0007` is its slice 7, counted from the feet."""
    return ending(path.parent) in NIFTI and path.parent.is_file()


def slices_of(path: Path) -> list[Path]:
    """A volume's slices as paths, see `in_volume`; another file as it is. Raises as `open_volume`."""
    if ending(path) not in NIFTI:
        return [path]
    with _one_sentence(path):
        shape, turn = _head(path)[1:]
        depth = shape[list(turn[:, 0]).index(2)]
    return [path / f"{number:04d}" for number in range(1, depth + 1)]


def read_slice_of(path: Path) -> tuple[np.ndarray, tuple[float, float], list[str]]:
    """Of a slice named as `in_volume` says its values, float32 (H, W), the black and the white one, and the notes."""
    volume = open_volume(path.parent)
    return volume.values(int(path.name) - 1), (volume.low, volume.high), volume.notes


def open_volume(path: Path) -> Volume:
    """A NIfTI volume, turned to axial slices as DICOM shows them.

    Values that run below -200 are taken for Hounsfield units, and shown in the lung window. Others are taken for greys,
    0…255 or 0…1, or go from their lowest to their highest value; a note says so. The last volumes stay in memory, since
    one is packed as a whole and asked for slice by slice.

    Raises:
        ImportError: nibabel is not installed.
        ValueError, naming the file: damaged, too large, 4-D, colours, labels instead of greys.
    """
    with LOCK, _one_sentence(path):
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)


LOCK = threading.Lock()  # several threads ask for slices of one volume, which one of them reads


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
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
    """The file, opened but not read; its shape in three dimensions; and how to turn it to DICOM's axes."""
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

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
    return image, shape, ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS"))


@lru_cache(maxsize=2)  # threads that read slices in order ask for at most two volumes at a time
def _read(path: Path, _size: int, _time: int) -> Volume:
    from nibabel.orientations import apply_orientation, inv_ornt_aff

    image, shape, turn = _head(path)
    stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(shape)
    stored = apply_orientation(stored, turn).transpose(2, 1, 0)
    affine = image.affine @ inv_ornt_aff(turn, shape)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    low, high, notes = _window(stored, slope, intercept)
    if not (image.header.get("qform_code", 0) or image.header.get("sform_code", 0)):
        notes.append("no orientation in its header: it may be mirrored or upside down")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.max() > 1.5 * spacing[2]:
        notes.append(other_plane(PLANES[int(spacing.argmax())]))
    return Volume(stored, slope, intercept, low, high, affine[2, 3] + affine[2, 2] * np.arange(len(stored)), notes)


def other_plane(name: str) -> str:
    """What to say of a scan in other slices than the network knows."""
    return f"scanned in {name} slices: the network has learned axial ones"


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
        centre, width = LUNG_WINDOW
        return centre - width / 2, centre + width / 2, []
    low, high = next(((0, top) for top in (1, 255) if ends[0] >= 0 and ends[1] <= top), ends)
    told = f"its values run from {ends[0]:.4g} to {ends[1]:.4g}, which are no Hounsfield units: taken as greys"
    return float(low), float(high), [told + f" from {low:.4g}, black, to {high:.4g}, white"]
