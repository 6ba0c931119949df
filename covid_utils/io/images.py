"""From image files of many kinds to one tensor, read once and cached."""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..core.files import replace_file, shown
from ..core.memory import too_large
from ..core.progress import progress as progress_bar
from .dicom import file_of, read_dicom
from .discovery import NIFTI, ending, is_dicom, why_unread
from .nifti import in_volume, read_slice_of

LARGEST = 45_000_000  # pixels of a picture: a slice has less than one million, a camera's photograph of one up to 40
CACHE_VERSION = 4  # raise it when decoding changes, so that no older cache is used


def decode(
    folder: Path, paths: list[str], image_size: int, cache_dir: Path, progress: bool = True, windows: list | None = None
):
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
        ValueError: a slice is empty, damaged, not a single picture, or has only two greys, as masks do.
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
    digest, notes = hashlib.sha256(), []

    def read(name: str, window: tuple | None) -> bytes:
        return read_slice(folder / name, image_size, window, notes).tobytes()

    def write(path: Path) -> None:
        """One slice after the other, so that a set may be larger than the memory; their SHA-256 comes last."""
        shape = (len(paths), image_size, image_size)
        with path.open("wb") as file, ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 2))) as pool:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            slices = pool.map(read, paths, windows)
            for image in progress_bar(slices, f"reading {folder.name}", len(paths)) if progress else slices:
                digest.update(image)
                file.write(image)
            _refuse_masks(notes, folder)
            file.write(digest.digest())

    replace_file(cache, write)
    scaled = sum(note == "scaled" for _, note in notes)
    if scaled:
        print(
            f"{scaled} of {len(paths)} slices have more than 256 greys, and each was scaled from its own lowest to its "
            "own highest value, so that Hounsfield units are lost: columns low and high in CSV files give a window."
        )
    for told in sorted({note for _, note in notes if note.endswith(".")}):
        volumes = sorted({path.name for path, note in notes if note == told})
        print(f"Scan {volumes[0]!r}{f' and {len(volumes) - 1} more' if volumes[1:] else ''}: {told}")
    return _in_memory(np.load(cache, mmap_mode="c")), digest


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
        raise OSError(f"Slice {shown(file)} cannot be opened ({error.strerror}): check or delete the file.") from None
    return os.fsencode(path), stat.st_size, stat.st_mtime_ns, hashlib.sha256(b"".join(parts)).digest()


def _refuse_masks(notes: list, folder: Path) -> None:
    """Raise ValueError if slices have two greys only: no network should learn from masks."""
    masks = sorted(str(path.relative_to(folder)) for path, note in notes if note == "two greys")
    if masks:
        more = f" and {len(masks) - 1} others have" if len(masks) > 1 else " has"
        raise ValueError(
            f"Slice {masks[0]!r}{more} only two greys, as masks do: move them out of {shown(folder)}, or name "
            "their folder masks."
        )


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


def read_slice(
    path: Path, image_size: int, window: tuple[float, float] | None = None, notes: list | None = None
) -> np.ndarray:
    """One slice as uint8 (image_size, image_size), 0 black to 255 white.

    Colours become grey, transparent places black; a photo is turned as its camera says. Pictures of more than 256 greys
    are scaled from their own lowest and highest value; DICOM is shown in the lung window, -1350 to 150 Hounsfield
    units, or in its own if it has none (`dicom.read_dicom`); of a NIfTI volume `path` names a slice, as in
    `nifti.in_volume`.

    Args:
        window: the values that become black and white, of DICOM and of pictures with more than 256 greys.
        notes: gets (path, "scaled") for a picture that was scaled from its own values, (path, "two greys") for one
            that looks like a mask, and the path and a sentence for what is odd about a volume.

    Raises ValueError, naming the file, if it is empty, damaged or not a single picture.
    """
    notes = [] if notes is None else notes
    if in_volume(path):
        scan = read_slice_of(path, window)
        notes += [(path.parent, f"{scan.note}.")] if scan.note else []
        return resized(stretch(scan.values, scan.low, scan.high), image_size)
    if ending(path) in NIFTI:
        raise ValueError(f"{shown(path)} is a volume of many slices: put it into a class folder, or ask `predict`.")
    if file_of(path).stat().st_size == 0:
        raise ValueError(f"Slice {shown(path)} is empty (0 bytes): replace or delete the file.")
    try:
        if is_dicom(path):
            scan = read_dicom(path, window)
            notes += [(file_of(path), f"{scan.note}.")] if scan.note else []
            image = Image.fromarray(stretch(scan.values, scan.low, scan.high))
        else:
            image = _read_picture(path, window, notes)
        greys = image.getcolors(2)
        if greys and len(greys) == 2:
            notes.append((path, "two greys"))
        return resized(image, image_size)
    except ImportError as error:
        raise ImportError(
            f"Slice {shown(path)} is DICOM, which needs a package that is not installed ({error}): "
            "run 'python -m pip install pydicom \"pylibjpeg[all]\"'."
        ) from None
    except Exception as error:  # decoders raise whatever they like
        raise ValueError(
            f"Slice {shown(path)} cannot be read ({why_unread(error, path)}): replace or delete the file."
        ) from error


def resized(image: Image.Image | np.ndarray, image_size: int) -> np.ndarray:
    """A grey picture, 8 bits, as uint8 (image_size, image_size)."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return np.array(image.resize((image_size, image_size), Image.Resampling.LANCZOS))


def _read_picture(path: Path, window: tuple | None, notes: list) -> Image.Image:
    """A picture file in 8-bit grey."""
    if (values := _deep_colours(path)) is not None:
        return _scaled(values, path, window, notes)
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's JPEG with a preview
            raise ValueError(f"it holds {image.n_frames} pictures, save each slice as a file of its own")
        _refuse_bombs(image)
        inverted = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0  # 0 is white
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image, dtype=np.float32)
            return _scaled(-values if inverted else values, path, _turned(window) if inverted else window, notes)
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return image.convert("L")


PHOTOMETRIC = 262  # TIFF's tag PhotometricInterpretation


def _refuse_bombs(image: Image.Image) -> None:
    """ValueError for so many pixels that a few such pictures fill the memory; Pillow's own limit is four times that."""
    if image.width * image.height > LARGEST:
        raise ValueError(
            f"it says that it has {image.width} × {image.height} pixels, more than {LARGEST // 10**6} million"
        )


def _turned(window: tuple | None) -> tuple | None:
    return window and (-window[1], -window[0])


def _scaled(values: np.ndarray, path: Path, window: tuple | None, notes: list) -> Image.Image:
    if window is None:
        notes.append((path, "scaled"))
    return Image.fromarray(stretch(values, *(window or (None, None))))


def _deep_colours(path: Path) -> np.ndarray | None:
    """The greys, float32 (H, W), of a PNG or TIFF with 16 bits a colour, of which Pillow reads 8; None for others."""
    with path.open("rb") as file:
        head = file.read(26)
    if head.startswith(b"\x89PNG"):
        if head[24] != 16 or head[25] not in (2, 4, 6):  # bits; colours, or greys with transparency
            return None
    elif path.suffix.lower() not in (".tif", ".tiff"):
        return None
    with contextlib.suppress(UnidentifiedImageError), Image.open(path) as image:
        _refuse_bombs(image)  # before OpenCV fills the memory
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.dtype != np.uint16:
        return None
    alpha = image[..., 3:].astype(np.float32) / 65535 if image.shape[2] == 4 else 1
    colours = image[..., :3].astype(np.float32) * alpha
    return colours @ np.array([0.114, 0.587, 0.299], np.float32)  # blue, green, red, as Pillow weighs them


def stretch(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values from `low` to `high` (by default the lowest and highest finite one) as uint8 0 to 255."""
    values = np.nan_to_num(values, nan=np.nanmin(values) if np.isfinite(values).any() else 0)
    low = values.min() if low is None else low
    high = values.max() if high is None else high
    return np.rint(np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
