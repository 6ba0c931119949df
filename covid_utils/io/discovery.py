"""Which files of a folder are slices; what is left out is counted."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from ..core.files import display_path

DICOM = (".dcm", ".dicom", ".dic", ".ima")
NIFTI = (".nii", ".nii.gz")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", *DICOM, *NIFTI)
UNREAD = (  # endings of pictures and scans that are not read
    ".gif", ".svg", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pnm", ".psd", ".gz", ".mha", ".mhd",
    ".nrrd", ".hdr", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".zip", ".tar", ".rar", ".7z",
)  # fmt: skip
SERVICE = re.compile(r"[._@$~].*|#recycle|#snapshot|lost\+found|system volume information", re.IGNORECASE)
MASK = re.compile(
    r"(.*[ _.-])?(masks?|segs?|segmentations?|annotations?|ground[ _-]?truths?|gt)([ _.-].*)?", re.IGNORECASE
)
MASK_FOLDER = re.compile(r"labels?(tr|ts)?|infections?|lesions?", re.IGNORECASE)  # as in images/ and labels/


def slices_below(folder: Path, home: Path) -> tuple[list[Path], Counter]:
    """The slice files below a class folder, in natural order, and how many were left out for which reason.

    A link that leads to something inside the data set, or to a folder that holds it, is left out: what it leads to is
    read where it lies. Links to other places are followed.

    Args:
        folder: the class folder.
        home: the data set's folder, in which the class folder lies.

    Raises:
        FileNotFoundError: a link that leads nowhere.
        ValueError: a name that is not UTF-8, and could neither be shown nor written down.
        OSError: a folder that cannot be opened.
    """
    own, everything, found, left_out, seen = folder.resolve(), home.resolve(), [], Counter(), set()
    places = [(folder, "")]
    while places:
        place, reason = places.pop()
        for path in _entries(place):
            real = Path(os.path.realpath(path))
            linked = path.is_symlink() and (real.is_relative_to(everything) or real.is_relative_to(own))
            if path.is_dir():
                if linked or own.is_relative_to(real) or real in seen:
                    left_out["links to folders that are read elsewhere"] += 1
                else:
                    seen.add(real)
                    places.append((path, reason or _why_folder(path.name)))
            elif why := _why_file(path, reason, linked):
                left_out[why] += 1
            elif is_slice(path) and not path.name.startswith("."):
                found.append(path)
    return sorted(found, key=lambda file: natural(file.as_posix())), left_out


def is_slice(path: Path) -> bool:
    """Whether a file is a picture, DICOM or NIfTI by its ending; without one, whether it begins as DICOM does."""
    if ending(path):
        return ending(path) in SUFFIXES
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def ending(path: Path) -> str:
    """The ending of a file's name in lower case, `.nii.gz` in one piece; none is one of digits, as of a DICOM UID.

    >>> ending(Path("p1.NII.GZ")), ending(Path("CT.1.2.840.113619.2")), ending(Path("a.png"))
    ('.nii.gz', '', '.png')
    """
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else "" if path.suffix[1:].isdigit() else path.suffix.lower()


def is_dicom(path: Path) -> bool:
    """Whether a slice file is read as DICOM: by its ending, or because it has none."""
    return ending(path) in (*DICOM, "")


def why_unread(error: BaseException, path: Path) -> str:
    """Why a file could not be read, in one line that does not repeat where it lies.

    >>> why_unread(ValueError("scans/a.dcm is  damaged"), Path("scans/a.dcm")), why_unread(ValueError(), Path("a"))
    ('a.dcm is damaged', 'ValueError')
    """
    return " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__


def is_service(name: str) -> bool:
    """Whether a folder belongs to a system or a program: hidden, `@eaDir`, `__MACOSX` and the like."""
    return bool(SERVICE.fullmatch(name))


def sentence(left_out: Counter) -> str:
    """What was left out, and why; empty if nothing was.

    >>> sentence(Counter({"masks": 24}))
    ' Left out: masks (24).'
    """
    parts = [f"{reason} ({count})" for reason, count in sorted(left_out.items())]
    return f" Left out: {', '.join(parts)}." if parts else ""


def natural(text: str) -> list:
    """Sort key under which `Covid (2)` comes before `Covid (10)`.

    >>> sorted(["Covid (10)", "Covid (2)"], key=natural)
    ['Covid (2)', 'Covid (10)']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text.lower())]


def _entries(place: Path) -> list[Path]:
    try:
        return list(place.iterdir())
    except OSError as error:
        raise OSError(
            f"Folder {display_path(place)} cannot be opened ({error.strerror}): check who may read it."
        ) from None


def _why_folder(name: str) -> str:
    """Why the slices of a folder are left out; empty if they are not."""
    if is_service(name):
        return "files in hidden or service folders"
    return "masks" if MASK.fullmatch(name) or MASK_FOLDER.fullmatch(name) else ""


def _why_file(path: Path, reason: str, linked: bool) -> str:
    """Why a file is left out; empty if it is read, or is no slice at all. `reason` is that of its folder."""
    suffix = ending(path)
    if suffix in UNREAD:
        return reason or f"{suffix} files, which are not read"
    if path.name.startswith("."):
        return "hidden files" if suffix in SUFFIXES else ""
    if not is_slice(path):
        return ""
    if reason or MASK.fullmatch(path.stem):
        return reason or "masks"
    if not path.exists():
        raise FileNotFoundError(f"Slice {display_path(path)} is a link that leads nowhere: correct or delete it.")
    name = path.as_posix().encode("utf-8", "replace").decode()
    if name != path.as_posix():
        raise ValueError(f"The name of slice {name!r} is not UTF-8 (? stands for the wrong letters): rename it.")
    if not path.is_file():
        return "devices and pipes"
    return "links to slices that are read elsewhere" if linked else ""
