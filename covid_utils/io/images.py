"""The one reader of slices: from image files and scans of many kinds to 8-bit grey levels, read once and cached."""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..core.files import display_path, replace_file
from ..core.memory import too_large
from ..core.progress import progress as progress_bar
from .dicom import read_dicom
from .discovery import NIFTI, ending, is_dicom
from .nifti import file_of, in_volume, read_volume_slice, volume_headers
from .slices import Slice, Window, check_size, default_window, reading, windowed

CACHE_VERSION = 7  # raise it when decoding changes, so that no older cache is used
BITS, PHOTOMETRIC = 258, 262  # TIFF's tags BitsPerSample and PhotometricInterpretation, 0 where 0 is white


def decode(
    folder: Path, paths: list[str], image_size: int, cache_dir: Path, progress: bool = True, windows: list | None = None
) -> tuple[Tensor, np.ndarray]:
    """All slices as one tensor, read once and kept in `cache_dir`; blank slices of volumes are left out.

    The cache is found by the folder's place, the files' names, sizes, times and first bytes, and the other arguments; a
    damaged one is made anew. The aspect ratio is not kept, as in the article. `windows` are as for `read_file`.

    Returns uint8 (N, image_size, image_size), 0 black to 255 white, mapped from the file if it would fill more than a
    quarter of the free memory; and which of `paths` these are, bool. Raises as `read_file`, and OSError if `cache_dir`
    cannot be written to, or the disk is full.
    """
    windows = windows or [None] * len(paths)
    files = [_traits(file) for file in dict.fromkeys(file_of(folder / path) for path in paths)]
    about = (CACHE_VERSION, image_size, str(folder.resolve()), paths, windows, files)
    cache = cache_dir / f"{folder.name}-{image_size}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.bin"
    if cache.exists():
        with contextlib.suppress(OSError, ValueError):
            return _read_cache(cache, len(paths), image_size)
        print(f"The cache {display_path(cache)} is damaged: reading the slices again.")
    digest, notes, kept = hashlib.sha256(), {}, np.zeros(len(paths), bool)

    def write(path: Path) -> None:
        """One slice after the other, so that a set may be larger than the memory; `kept` and the SHA-256 come last."""
        with path.open("wb") as file, ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 2))) as pool:
            slices = pool.map(lambda name, window: read_file(folder / name, image_size, window), paths, windows)
            slices = progress_bar(slices, f"reading {folder.name}", len(paths)) if progress else slices
            for row, found in enumerate(slices):
                kept[row] = not found.blank
                if kept[row]:
                    digest.update(found.image)
                    file.write(found.image)
                    notes.setdefault(found.note, []).append(paths[row])
            digest.update(kept)
            file.write(kept.tobytes() + digest.digest())

    replace_file(cache, write)
    notes.pop("", None)
    for note, names in notes.items():
        print(f"{len(names)} of {len(paths)} slices, the first of them {names[0]!r}: {note}.")
    return _read_cache(cache, len(paths), image_size)


def _traits(file: Path) -> tuple:
    """By what a file is known again: size, time, and its first bytes (those of a picture's or scan's header)."""
    with reading(file), file.open("rb") as stream:
        return file.stat().st_size, file.stat().st_mtime_ns, hashlib.sha256(stream.read(2**16)).hexdigest()


def _read_cache(cache: Path, count: int, image_size: int) -> tuple[Tensor, np.ndarray]:
    """What `decode` returns for so many paths, from the cached file. Raises ValueError if the file is damaged."""
    content = np.memmap(cache, mode="c")  # what is written to it never reaches the file
    images, kept, digest = np.split(content, [len(content) - count - 32, len(content) - 32])
    if hashlib.sha256(content[:-32]).digest() != digest.tobytes():
        raise ValueError("its SHA-256 is not the one it was written with")
    images = images.reshape(-1, image_size, image_size)
    return torch.from_numpy(images if too_large(images.nbytes) else images.copy()), kept.astype(bool)


def read_slice(path: Path, image_size: int, window: Window | None = None) -> np.ndarray:
    """One slice as uint8 (image_size, image_size), 0 black to 255 white; see `read_file`, whose errors it raises."""
    return read_file(path, image_size, window).image


def read_file(path: Path, image_size: int, window: Window | None = None) -> Slice:
    """One slice as a network gets it, uint8 (image_size, image_size); training and prediction both read it here.

    Colours become grey, transparent places black; a photo is turned as its camera says. Pictures of more than 256 grey
    levels are scaled from their own lowest and highest value, or shown in the lung window, -1350 to 150 Hounsfield
    units, if some values are below -200; so is DICOM, or in its own window (`dicom.read_dicom`); of a NIfTI volume
    `path` names a slice, as in `nifti.in_volume`. Resized by Lanczos' filter.

    `window`: the values that become black and white, of scans and of pictures with more than 256 grey levels.

    Raises ValueError, naming the file, if it is empty, damaged, not a single picture, of one grey level throughout
    (which only a slice of a volume may be) or of two, as masks are; ImportError if a package that reads it is missing.
    """
    volume = in_volume(path)
    if not volume and ending(path) in NIFTI:
        volume_headers(path)  # a damaged one says so
        raise ValueError(f"{display_path(path)} is a volume of many slices: put it into a class folder.")
    with reading(file_of(path)):
        read = read_volume_slice if volume else read_dicom if is_dicom(path) else _read_picture
        found = read(path, window)
        image = Image.fromarray(found.image).resize((image_size, image_size), Image.Resampling.LANCZOS)
        levels, found = len(np.unique(found.image)), found._replace(image=np.array(image))
        if not volume and found.blank:
            raise ValueError("it is blank, one grey level throughout")
        if not volume and levels == 2:
            raise ValueError("it has only two grey levels, as masks do, which belong into a folder called masks")
        return found


def _read_picture(path: Path, window: Window | None) -> Slice:
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's JPEG with a preview
            raise ValueError(f"it holds {image.n_frames} pictures, save each slice as a file of its own")
        check_size(image.height, image.width)
        tags = image.tag_v2 if image.format == "TIFF" else {}
        inverted, deep = tags.get(PHOTOMETRIC) == 0, ";16" in str(image.tile) or 16 in tags.get(BITS, ())
        if deep and image.mode in ("RGB", "RGBA", "LA"):  # of 16 bits a colour Pillow keeps 8; weighed as it does
            colours = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED).astype(np.float32)
            alpha = colours[..., 3:] / 65535 if colours.shape[2] == 4 else 1
            values = colours[..., :3] * alpha @ np.array([0.114, 0.587, 0.299], np.float32)  # blue, green, red
        elif image.mode.startswith(("I", "F")):
            values = np.asarray(ImageOps.exif_transpose(image), np.float32)
        else:
            image = ImageOps.exif_transpose(image)
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            return Slice(np.array(image.convert("L")))
    own, note = default_window(values)
    return windowed(values, window or own, "" if window else note, inverted)
