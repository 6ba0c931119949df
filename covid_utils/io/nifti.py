"""NIfTI: a volume as axial slices, turned as DICOM slices are."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..core.memory import too_large
from .discovery import NIFTI, ending
from .slices import OTHER_PLANE, PLANES, Header, Slice, Window, default_window, reading, windowed

FEW = 32  # distinct values in a volume: so few are labels, no scan
LOCK = threading.Lock()  # several threads ask for slices of one volume, which one of them reads


def in_volume(path: Path) -> bool:
    """Whether a path names a slice of a volume: `p1.nii.gz/0007` is slice 7 of p1.nii.gz, counted from the feet."""
    return ending(path.parent) in NIFTI and path.parent.is_file()


def file_of(path: Path) -> Path:
    """The file in which a slice lies: of a slice of a volume the volume's, else the path itself."""
    return path.parent if in_volume(path) else path


def read_volume_slice(path: Path, window: Window | None = None) -> Slice:
    """A slice of a volume, as `in_volume` says, in `window` or its own. The last two volumes stay in memory.

    Values some of which are below -200 are taken for Hounsfield units and shown in the lung window. Others are taken
    for grey values, 0…255 or 0…1, or go from their lowest to their highest value; a note says so.

    Raises ImportError if nibabel is not installed; ValueError for a file that is damaged, too large, 4-D, in colours,
    or of labels instead of intensities.
    """
    with LOCK:
        values, own, note = _read(path.parent, path.parent.stat().st_mtime_ns)
    return windowed(values[int(path.name) - 1], window or own, note)


def volume_headers(path: Path) -> list[Header]:
    """The header of each slice of a volume, from the feet to the head. Raises so, naming the file."""
    with reading(path):
        import nibabel

        image = _load(path)
        turn = nibabel.io_orientation(image.affine)
        affine = image.affine @ nibabel.orientations.inv_ornt_aff(turn, image.shape[:3])
        count = image.shape[:3][int(turn[:, 0].tolist().index(2))]
        places = affine[2, 3] + affine[2, 2] * np.arange(count)
        return [Header(path / f"{n:04d}", (str(path),), place=float(place)) for n, place in enumerate(places, start=1)]


def _load(path: Path):
    """The file as nibabel's image, its values not read yet."""
    import nibabel

    with path.open("rb") as file:
        if (file.read(2) == b"\x1f\x8b") != (ending(path) == ".nii.gz"):
            raise ValueError("its name must end in .nii.gz if it is compressed, in .nii if not: rename it")
    image = nibabel.load(path, mmap=False)  # a mapped file could not be deleted on Windows
    if len(image.shape) < 3 or math.prod(image.shape[3:]) != 1:
        raise ValueError(f"its shape is {image.shape}, save one volume with three dimensions")
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError("it holds colours or complex numbers, and no scan")
    if not abs(np.linalg.det(image.affine)) > 0:
        raise ValueError("its affine matrix is singular, so that nothing says which way is up")
    if too_large(4 * math.prod(image.shape)):
        raise ValueError(f"its shape is {image.shape}, too many values for this memory")
    return image


@lru_cache(maxsize=2)  # threads that read slices in order ask for at most two volumes at a time
def _read(path: Path, _time: int) -> tuple[np.ndarray, Window, str]:
    """Values, float32 (Z, Y, X), from the feet, the front and the patient's right; their window; and a note."""
    import nibabel

    image = _load(path)
    values = np.asarray(image.dataobj, np.float32).reshape(image.shape[:3])
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, image.affine))
    values = np.asarray(turned.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    step = max(1, round((values.size / 2e6) ** (1 / 3)))
    some = values[::step, ::step, ::step]  # judged by some millions of values
    (low, high), note = default_window(some)
    if len(np.unique(some)) <= FEW:
        raise ValueError(f"it holds no more than {FEW} different values, as a mask does")
    window = next(((0.0, top) for top in (1.0, 255.0) if note and low >= 0 and high <= top), (low, high))
    notes = [note] if note else []
    if not (image.header.get("qform_code", 0) or image.header.get("sform_code", 0)):
        notes.append("no orientation in its header: it may be mirrored or upside down")
    spacing = np.linalg.norm(turned.affine[:3, :3], axis=0)
    if spacing.max() > 1.5 * spacing[2]:
        notes.append(OTHER_PLANE.format(PLANES[int(spacing.argmax())]))
    return values, window, "; ".join(notes)
