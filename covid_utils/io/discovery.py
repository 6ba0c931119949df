"""Which files of a folder are slices: each file once, each folder once, and what is left out is counted."""

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


def slices_below(folder: Path, home: Path, seen: set, left_out: Counter) -> list[Path]:
    """The slice files below a class folder, in natural order.

    Every real file and folder counts once, whatever links lead to it, and no link leads out of the class folder into
    the rest of the data set or to what holds it.

    Args:
        folder: the class folder.
        home: the data set's folder, in which the class folder lies.
        seen: the real files and folders that have been visited; what is met is added.
        left_out: how many slices were passed over for which reason; what is met is added.

    Raises:
        FileNotFoundError: a link that leads nowhere.
        ValueError: a name that is not UTF-8, and could neither be shown nor written down.
        OSError: a folder that cannot be opened.
    """
    own, everything, found = folder.resolve(), home.resolve(), []
    places = [(folder, "")]
    while places:
        place, reason = places.pop()  # those that are left out lie at the bottom, and come last
        real = place.resolve()
        elsewhere = real.is_relative_to(everything) and not real.is_relative_to(own)
        if real in seen or elsewhere or (real != own and own.is_relative_to(real)):
            left_out["links to folders that are read elsewhere"] += 1
            continue
        seen.add(real)
        for entry in _entries(place):
            path = Path(entry.path)
            if _is_folder(entry):
                why = reason or _why_folder(entry.name)
                places.insert(0 if why else len(places), (path, why))
            elif why := _why_file(path, seen, reason):
                left_out[why] += 1
            elif why is not None:
                found.append(path)
    return sorted(found, key=lambda file: natural(file.as_posix()))


def is_slice(path: Path) -> bool:
    """Whether a file is a picture, DICOM or NIfTI by its ending; without one, whether it begins as DICOM does."""
    if ending(path):
        return ending(path) in SUFFIXES
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def ending(path: Path) -> str:
    """The ending of a file's name in small letters, `.nii.gz` in one piece; none is one of digits, as of a DICOM UID.

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


def _entries(place: Path) -> list[os.DirEntry]:
    try:
        return sorted(os.scandir(place), key=lambda entry: natural(entry.name), reverse=True)
    except OSError as error:
        raise OSError(
            f"Folder {display_path(place)} cannot be opened ({error.strerror}): check who may read it."
        ) from None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _why_folder(name: str) -> str:
    """Why the slices of a folder are left out; empty if they are not."""
    if is_service(name):
        return "files in hidden or service folders"
    return "masks" if MASK.fullmatch(name) or MASK_FOLDER.fullmatch(name) else ""


def _why_file(path: Path, seen: set, reason: str) -> str | None:
    """Why a file is left out; empty if it is read, None if it is no slice at all."""
    suffix = ending(path)
    if suffix in UNREAD:
        return reason or f"{suffix} files, which are not read"
    if not is_slice(path) or path.name.startswith("."):
        return "hidden files" if suffix in SUFFIXES else None
    if reason or MASK.fullmatch(path.stem):
        return reason or "masks"
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        name = path.as_posix().encode("utf-8", "replace").decode()
        raise ValueError(
            f"The name of slice {name!r} is not UTF-8 (? stands for the wrong letters): rename it."
        ) from None
    if not path.exists():
        raise FileNotFoundError(f"Slice {display_path(path)} is a link that leads nowhere: mend or delete it.")
    if not path.is_file():
        return "devices and pipes"
    stat = path.stat()
    if (stat.st_dev, stat.st_ino) in seen:
        return "links to slices that are read elsewhere"
    seen.add((stat.st_dev, stat.st_ino))
    return ""
