"""The one reader of slices: from image files and scans of many kinds to 8-bit grey levels, read once and cached."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..core.files import display_path, replace_file
from ..core.memory import too_large
from ..core.progress import progress as progress_bar
from .dicom import ScanSlice, file_of, read_dicom
from .discovery import NIFTI, ending, is_dicom, why_unread
from .nifti import in_volume, read_slice_of

LARGEST = 45_000_000  # pixels of a picture: a slice has less than one million, a camera's photograph of one up to 40
CACHE_VERSION = 4  # raise it when decoding changes, so that no older cache is used
PHOTOMETRIC = 262  # TIFF's tag PhotometricInterpretation, 0 where 0 is white
Window = tuple[float, float]  # the values that become black and white


class Decoded(NamedTuple):
    """A slice, and how its values became grey levels.

    Attributes:
        image: uint8 (H, W), 0 black to 255 white.
        low, high: the values that became black and white.
        own_range: whether these are the slice's own lowest and highest value, as nothing else was known.
        notes: what was guessed or looks odd, a few words each.
    """

    image: np.ndarray
    low: float
    high: float
    own_range: bool = False
    notes: tuple[str, ...] = ()


def decode(
    folder: Path, paths: list[str], image_size: int, cache_dir: Path, progress: bool = True, windows: list | None = None
) -> tuple[Tensor, Any]:
    """All slices as one tensor, read once and kept in `cache_dir`, and the SHA-256 of their pixels.

    The cache is found by the folder's place, the files' names, sizes, times and some of their bytes, and `image_size`;
    a damaged one is made anew.

    Args:
        folder: where `paths` start.
        paths: slice files, in the order wanted.
        image_size: height and width in pixels; the aspect ratio is not kept, as in the article.
        windows: for each slice the values that become black and white, or None; by default None for all.

    Returns:
        uint8 (N, image_size, image_size), 0 black to 255 white, mapped from the file if it would fill more than a
        quarter of the free memory; and a hashlib object that has seen these pixels.

    Raises:
        ValueError: a slice is empty, damaged, blank, not a single picture, or has only two grey levels, as masks do.
        OSError: `cache_dir` cannot be written to, or the disk is full.
        ImportError: a DICOM slice, and pydicom is not installed.
    """
    windows = windows or [None] * len(paths)
    traits = [_traits(folder, path) for path in paths]
    key = hashlib.sha256(repr((CACHE_VERSION, image_size, str(folder.resolve()), traits, windows)).encode()).hexdigest()
    cache = cache_dir / f"{folder.name}-{image_size}-{key[:16]}.npy"
    found = _read_cache(cache) if cache.exists() else None
    if found is not None:
        return found
    digest, masks, notes = hashlib.sha256(), [], Counter()

    def read(name: str, window: Window | None) -> tuple[bytes, bool, Decoded]:
        decoded = read_file(folder / name, window)
        return resized(decoded.image, image_size).tobytes(), _is_mask(folder / name, decoded.image), decoded

    def write(path: Path) -> None:
        """One slice after the other, so that a set may be larger than the memory; their SHA-256 comes last."""
        shape = (len(paths), image_size, image_size)
        with path.open("wb") as file, ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 2))) as pool:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            slices = pool.map(read, paths, windows)
            slices = progress_bar(slices, f"reading {folder.name}", len(paths)) if progress else slices
            for name, (pixels, mask, decoded) in zip(paths, slices, strict=True):
                digest.update(pixels)
                file.write(pixels)
                masks.extend([name] * mask)
                notes.update([(file_of(folder / name).name, note) for note in decoded.notes])
                notes["own range"] += decoded.own_range
            if masks:
                more = f" and {len(masks) - 1} others have" if len(masks) > 1 else " has"
                raise ValueError(
                    f"Slice {min(masks)!r}{more} only two greys, as masks do: move them out of "
                    f"{display_path(folder)}, or "
                    "name their folder masks."
                )
            file.write(digest.digest())

    replace_file(cache, write)
    _tell(notes, len(paths))
    return _in_memory(np.load(cache, mmap_mode="c")), digest


def _tell(notes: Counter, count: int) -> None:
    """Print how intensities were scaled, where that was a guess, and what is odd about volumes."""
    scaled = notes.pop("own range", 0)
    if scaled:
        print(
            f"{scaled} of {count} slices have more than 256 greys, and each was scaled from its own lowest to its "
            "own highest value, so that Hounsfield units are lost: columns low and high in CSV files give a window."
        )
    for told in sorted({note for _, note in notes}):
        volumes = sorted(name for name, note in notes if note == told)
        print(f"Scan {volumes[0]!r}{f' and {len(volumes) - 1} more' if volumes[1:] else ''}: {told}.")


def _is_mask(path: Path, image: np.ndarray) -> bool:
    """Whether a slice has two grey levels only, as a mask does; a slice of a volume may."""
    return not in_volume(path) and len(np.unique(image)) == 2


def _traits(folder: Path, path: str) -> tuple:
    """By what a slice file is known again: name, size, time, and bytes at its begin, middle and end."""
    file = file_of(folder / path)
    try:
        stat, parts = file.stat(), []
        with file.open("rb") as stream:
            for place in (0, stat.st_size // 2, stat.st_size - 4096):
                stream.seek(max(place, 0))
                parts.append(stream.read(4096))
    except OSError as error:
        raise OSError(
            f"Slice {display_path(file)} cannot be opened ({error.strerror}): check or delete the file."
        ) from None
    return os.fsencode(path), stat.st_size, stat.st_mtime_ns, hashlib.sha256(b"".join(parts)).digest()


def _read_cache(cache: Path) -> tuple[Tensor, Any] | None:
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
        print(f"The cache {display_path(cache)} is damaged: reading the slices again.")
        return None
    return _in_memory(images), digest


def _in_memory(images: np.ndarray) -> Tensor:
    """Mapped slices as a tensor in memory, or still mapped if they are too many."""
    return torch.from_numpy(images if too_large(images.nbytes) else images.copy())


def read_slice(path: Path, image_size: int, window: Window | None = None) -> np.ndarray:
    """One slice as uint8 (image_size, image_size), 0 black to 255 white; see `read_file`, whose errors it raises."""
    return resized(read_file(path, window).image, image_size)


def read_file(path: Path, window: Window | None = None) -> Decoded:
    """One slice in its own size; training and prediction both read it here.

    Colours become grey, transparent places black; a photo is turned as its camera says. Pictures of more than 256 grey
    levels are scaled from their own lowest and highest value; DICOM is shown in the lung window, -1350 to 150
    Hounsfield units, or in its own if it has none (`dicom.read_dicom`); of a NIfTI volume `path` names a slice, as in
    `nifti.in_volume`.

    Args:
        window: the values that become black and white, of scans and of pictures with more than 256 grey levels.

    Raises:
        ValueError, naming the file: empty, damaged, not a single picture, or one grey level throughout.
        ImportError: DICOM or NIfTI, and the package that reads it is not installed.
    """
    if in_volume(path):
        return _scanned(read_slice_of(path, window))
    if ending(path) in NIFTI:
        raise ValueError(
            f"{display_path(path)} is a volume of many slices: put it into a class folder, or ask `predict`."
        )
    if file_of(path).stat().st_size == 0:
        raise ValueError(f"Slice {display_path(path)} is empty (0 bytes): replace or delete the file.")
    try:
        if is_dicom(path):
            decoded = _scanned(read_dicom(path, window))
        else:
            decoded = _read_picture(path, window)
        if decoded.image.min() == decoded.image.max():
            raise ValueError("it is blank, one grey level throughout")
        return decoded
    except ImportError as error:
        raise ImportError(
            f"Slice {display_path(path)} is DICOM, which needs a package that is not installed ({error}): "
            "run 'python -m pip install pydicom \"pylibjpeg[all]\"'."
        ) from None
    except Exception as error:  # decoders raise whatever they like
        raise ValueError(
            f"Slice {display_path(path)} cannot be read ({why_unread(error, path)}): replace or delete the file."
        ) from error


def resized(image: np.ndarray, image_size: int) -> np.ndarray:
    """A grey picture, uint8 (H, W), as uint8 (image_size, image_size), by Lanczos' filter."""
    return np.array(Image.fromarray(image).resize((image_size, image_size), Image.Resampling.LANCZOS))


def _read_picture(path: Path, window: Window | None) -> Decoded:
    """A picture file in 8-bit grey."""
    if (values := _deep_colours(path)) is not None:
        return _windowed(values, window)
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's JPEG with a preview
            raise ValueError(f"it holds {image.n_frames} pictures, save each slice as a file of its own")
        _refuse_bombs(image)
        inverted = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            decoded = _windowed(np.asarray(image, dtype=np.float32), window)
            return decoded._replace(image=255 - decoded.image) if inverted else decoded
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return Decoded(np.array(image.convert("L")), 0, 255)


def _scanned(scan: ScanSlice) -> Decoded:
    """A scan's slice in its window."""
    image = window_to_uint8(scan.values, scan.low, scan.high)
    return Decoded(image, scan.low, scan.high, notes=(scan.note,) if scan.note else ())


def _refuse_bombs(image: Image.Image) -> None:
    """ValueError for so many pixels that a few such pictures fill the memory; Pillow's own limit is four times that."""
    if image.width * image.height > LARGEST:
        raise ValueError(
            f"it says that it has {image.width} × {image.height} pixels, more than {LARGEST // 10**6} million"
        )


def _deep_colours(path: Path) -> np.ndarray | None:
    """The grey levels, float32 (H, W), of a PNG or TIFF with 16 bits a colour, of which Pillow reads 8; else None."""
    with path.open("rb") as file:
        head = file.read(26)
    deep_png = head.startswith(b"\x89PNG") and head[24] == 16 and head[25] in (2, 4, 6)  # bits; colours or alpha
    if not deep_png and ending(path) not in (".tif", ".tiff"):
        return None
    with contextlib.suppress(UnidentifiedImageError), Image.open(path) as image:
        _refuse_bombs(image)  # before OpenCV fills the memory
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.dtype != np.uint16:
        return None
    alpha = image[..., 3:].astype(np.float32) / 65535 if image.shape[2] == 4 else 1
    colours = image[..., :3].astype(np.float32) * alpha
    return colours @ np.array([0.114, 0.587, 0.299], np.float32)  # blue, green, red, as Pillow weighs them


def _windowed(values: np.ndarray, window: Window | None) -> Decoded:
    """A picture's values in the window that was given, or in their own range."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it holds no numbers")
    low, high = window or (float(finite.min()), float(finite.max()))
    return Decoded(window_to_uint8(values, low, high), low, high, own_range=window is None)


def window_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` to `high` as uint8 0 to 255; what lies outside is cut off, and NaN becomes 0."""
    part = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return np.rint(np.nan_to_num(part) * 255).astype(np.uint8)
