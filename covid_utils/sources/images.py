"""From image files of many kinds to one tensor, read once and cached."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..runs.device import too_large
from ..runs.files import replace_file, shown
from ..runs.progress import progress as progress_bar

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".dcm")
LUNG_WINDOW = (-600, 1500)  # centre and width in Hounsfield units, for DICOM
CACHE_VERSION = 2  # raise it when decoding changes, so that no older cache is used


def decode(folder: Path, paths: list[str], image_size: int, cache_dir: Path, progress: bool = True):
    """All slices as one tensor, read once and kept in `cache_dir`, and the SHA-256 of their pixels.

    The cache is found by the files' names, sizes and times and by `image_size`; a damaged one is made anew.

    Args:
        folder: where `paths` start.
        paths: slice files, in the order wanted.
        image_size: height and width in pixels; the aspect ratio is not kept, as in the article.

    Returns:
        uint8 (N, image_size, image_size), 0 black to 255 white, mapped from the file if it would fill more than a
        quarter of the free memory; and a hashlib object that has seen these pixels.

    Raises:
        ValueError: a slice is empty, damaged or not a single picture.
        OSError: `cache_dir` cannot be written to, or the disk is full.
        ImportError: a DICOM slice, and pydicom is not installed.
    """
    stats = [(path, (stat := (folder / path).stat()).st_size, stat.st_mtime_ns) for path in paths]
    key = hashlib.sha256(repr((CACHE_VERSION, image_size, stats)).encode()).hexdigest()
    cache = cache_dir / f"{folder.name}-{image_size}-{key[:16]}.npy"
    found = _read_cache(cache) if cache.exists() else None
    if found is not None:
        return found
    digest = hashlib.sha256()

    def write(path: Path) -> None:
        """One slice after the other, so that a set may be larger than the memory; their SHA-256 comes last."""
        shape = (len(paths), image_size, image_size)
        with path.open("wb") as file, ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 2))) as pool:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            slices = pool.map(lambda name: read_slice(folder / name, image_size).tobytes(), paths)
            for image in progress_bar(slices, f"reading {folder.name}", len(paths)) if progress else slices:
                digest.update(image)
                file.write(image)
            file.write(digest.digest())

    replace_file(cache, write)
    return _in_memory(np.load(cache, mmap_mode="c")), digest


def _read_cache(cache: Path):
    """What `decode` returns, from the cached file; None if the file is damaged."""
    try:
        images = np.load(cache, mmap_mode="c")  # what is written to it never reaches the file
        digest = hashlib.sha256(images)
        with cache.open("rb") as file:
            file.seek(-32, os.SEEK_END)
            whole = digest.digest() == file.read()
    except (OSError, ValueError, EOFError):
        whole = False
    if not whole:
        print(f"The cache {shown(cache)} is damaged: reading the slices again.")
        return None
    return _in_memory(images), digest


def _in_memory(images: np.ndarray) -> Tensor:
    """Mapped slices as a tensor in memory, or still mapped if they are too many."""
    return torch.from_numpy(images if too_large(images.nbytes) else images.copy())


def read_slice(path: Path, image_size: int) -> np.ndarray:
    """One slice as uint8 (image_size, image_size), 0 black to 255 white.

    Colours become grey, transparent places black; 16-bit and float pictures are scaled from their own lowest
    and highest value; DICOM is shown in the lung window, -1350 to 150 Hounsfield units.

    Raises ValueError, naming the file, if it is empty, damaged or not a single picture.
    """
    if path.stat().st_size == 0:
        raise ValueError(f"Slice {shown(path)} is empty (0 bytes): replace or delete the file.")
    try:
        image = _read_dicom(path) if path.suffix.lower() == ".dcm" else _read_picture(path)
        return np.array(image.resize((image_size, image_size), Image.Resampling.LANCZOS))
    except ImportError as error:
        raise ImportError(
            f"Slice {shown(path)} is DICOM, which needs a package that is not installed ({error}): "
            "run 'python -m pip install pydicom'."
        ) from None
    except Exception as error:  # decoders raise whatever they like
        reason = " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__
        raise ValueError(f"Slice {shown(path)} cannot be read ({reason}): replace or delete the file.") from error


def _read_picture(path: Path) -> Image.Image:
    """A picture file in 8-bit grey."""
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"it holds {image.n_frames} pictures, save each slice as a file of its own")
        if image.mode.startswith(("I", "F")):
            return Image.fromarray(_stretch(np.asarray(image, dtype=np.float32)))
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return image.convert("L")


def _stretch(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values from `low` to `high` (by default the lowest and highest finite one) as uint8 0 to 255."""
    values = np.nan_to_num(values, nan=np.nanmin(values) if np.isfinite(values).any() else 0)
    low = values.min() if low is None else low
    high = values.max() if high is None else high
    return np.rint(np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


def _read_dicom(path: Path) -> Image.Image:
    """A DICOM slice in the lung window, in 8-bit grey."""
    import pydicom
    from pydicom.pixels import apply_rescale

    dataset = pydicom.dcmread(path)
    values = apply_rescale(dataset.pixel_array, dataset).astype(np.float32)
    if values.ndim != 2:
        raise ValueError(f"it holds an array of shape {values.shape}, save each slice as a file of its own")
    centre, width = LUNG_WINDOW
    return Image.fromarray(_stretch(values, centre - width / 2, centre + width / 2))
