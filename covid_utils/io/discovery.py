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
# endings of pictures and scans that are not read
UNREAD = set(".gif .heic .avif .jp2 .pgm .gz .mha .mhd .nrrd .hdr .npy .npz .mat .h5 .zip .tar .rar .7z".split())
LINK = "links to what is read elsewhere"
SERVICE = re.compile(r"[._@$~].*|#recycle|#snapshot|lost\+found|system volume information", re.I)
MASK = re.compile(r"(.*[ _.-])?(masks?|segs?|segmentations?|annotations?|ground[ _-]?truths?|gt)([ _.-].*)?", re.I)
MASK_FOLDER = re.compile(r"labels?(tr|ts)?|infections?|lesions?", re.I)  # as in images/ and labels/


def slices_below(folder: Path) -> tuple[list[Path], Counter]:
    """The slice files below a folder, in natural order, and how many files were left out for which reason.

    A link is left out if it leads to something in the folder, or to a folder above one that is read; other links are
    followed, to each place once. Raises FileNotFoundError for a link that leads nowhere, ValueError for a name that is
    not UTF-8, and could neither be shown nor written down.
    """
    home, found, left_out, places = folder.resolve(), [], Counter(), [folder]
    seen = {home, *home.parents}  # what was read, and the folders above it; links are resolved
    while places:
        for path in sorted(places.pop().iterdir()):
            real = Path(os.path.realpath(path))
            linked = real in seen or (path.is_symlink() and real.is_relative_to(home))
            is_folder = path.is_dir()
            if not (is_folder or is_slice(path) or ending(path) in UNREAD):
                continue
            why = _folder_left_out(path) if is_folder else _file_left_out(path, path.relative_to(folder).parts[:-1])
            if why := why or (linked and LINK):
                left_out[why] += 1
            elif is_folder:
                seen.update([real, *real.parents])
                places.append(path)
            else:
                seen.add(real)
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
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text.lower())]


def _folder_left_out(path: Path) -> str:
    """Why a folder is left out; empty if it is to be read."""
    if SERVICE.fullmatch(path.name):
        return "hidden and service folders"
    return "folders of earlier predictions" if (path / "answers.csv").is_file() else ""


def _file_left_out(path: Path, folders: tuple[str, ...]) -> str:
    """Why a file in these folders is left out; empty if it is to be read. Raises as `slices_below`."""
    if path.name.startswith("."):
        return "hidden files"
    if MASK.fullmatch(path.stem) or any(MASK.fullmatch(name) or MASK_FOLDER.fullmatch(name) for name in folders):
        return "masks"
    if ending(path) in UNREAD:
        return f"{ending(path)} files, which are not read"
    if not path.is_file():
        raise FileNotFoundError(f"Slice {display_path(path)} is a link that leads nowhere, or a pipe: delete it.")
    shown = os.fsencode(path).decode("utf-8", "replace")
    if shown != str(path):
        raise ValueError(f"The name of slice {shown!r} is not UTF-8 (� stands for the wrong letters): rename it.")
    return ""
