"""Public data sets, fetched on request; downloads that resume, are checked and unpack safely."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import filelock
import pandas as pd

from ..core.files import display_path, replace_file, temporary_beside
from ..core.progress import progress as progress_bar
from .folders import holder

COVID_CT = "https://raw.githubusercontent.com/UCSD-AI4H/COVID-CT/master"
TRIES = 3
TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18  # bytes
OFFLINE = "dataset='phantom' needs no network"


def from_kaggle(handle: str, folder: Path, progress: bool = True) -> Path:
    """The folder of a Kaggle data set with class folders, fetched with `kagglehub` if it is not there yet.

    Args:
        handle: "owner/name", as in the data set's address.
        folder: where its class folders are to lie.
        progress: kagglehub shows its own.

    Raises ConnectionError, saying how to get it by hand, if it cannot be fetched.
    """
    if folder.is_dir():
        return folder
    try:
        import kagglehub

        found = Path(kagglehub.dataset_download(handle))
    except Exception as error:  # no network, no account, no package: kagglehub raises errors of many kinds
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConnectionError(
            f"Could not fetch {handle} from Kaggle ({reason}): download it by hand from "
            f"https://www.kaggle.com/datasets/{handle} and unpack it so that {display_path(folder)} "
            "holds the folders COVID "
            f"and non-COVID; {OFFLINE}."
        ) from error
    inside = holder(found)
    _appear(folder, lambda temporary: shutil.copytree(inside, temporary, dirs_exist_ok=True))
    return folder


def covid_ct(folder: Path, progress: bool = True) -> Path:
    """The folder of the COVID-CT dataset with its published split, fetched if it is not there yet.

    Zhao et al. 2020, https://arxiv.org/abs/2003.13865. Whatever is already there is used: a checkout of its
    repository, say. The published lists of file names become train.csv, val.csv and test.csv.

    Raises ConnectionError if it cannot be fetched, ValueError if what was fetched is damaged.
    """
    if all((folder / f"{split}.csv").exists() for split in ("train", "val", "test")):
        return folder
    for name in ("COVID", "NonCOVID"):
        pictures = folder / f"Images-processed/CT_{name}"
        if not pictures.is_dir():
            archive = pictures.with_suffix(".zip")
            fetch(f"{COVID_CT}/Images-processed/{archive.name}", archive, progress=progress)
            unpack(archive, pictures)
    for split in ("train", "val", "test"):
        rows = []
        for name in ("COVID", "NonCOVID"):
            listed = folder / f"Data-split/{name}/{split}CT_{name}.txt"
            fetch(f"{COVID_CT}/Data-split/{name}/{listed.name}", listed, progress=progress)
            pictures = folder / f"Images-processed/CT_{name}"
            where = {path.name: path.relative_to(folder).as_posix() for path in sorted(pictures.rglob("*"))}
            for line in filter(None, map(str.strip, listed.read_text(encoding="utf-8").splitlines())):
                if line not in where:
                    raise FileNotFoundError(
                        f"{display_path(listed)} names {line!r}, which is not in {display_path(pictures)}: delete "
                        f"{display_path(folder)} and run again."
                    )
                rows.append((where[line], name))
        table = pd.DataFrame(rows, columns=["filename", "label"])
        replace_file(folder / f"{split}.csv", lambda path, table=table: table.to_csv(path, index=False))
    return folder


def figure(path: str) -> str:
    """The figure that a COVID-CT picture was cut from: its panels are called `name%0.png`, `name%1.png`, …

    >>> figure("CT_COVID/2020.01.24.919183-p27-132%1.png")
    'CT_COVID/2020.01.24.919183-p27-132'
    """
    path = PurePosixPath(path)
    return path.parent.name + "/" + re.sub(r"%[0-9]+$", "", path.stem)


# --------------------------------------------------------------------------------------------------- fetching


def fetch(url: str, path: Path, sha256: str | None = None, progress: bool = True) -> None:
    """Download `url` to `path` unless it is there; go on where an interrupted download stopped.

    Bytes are collected in `path.part`. Without a `sha256` given, the first complete download's is written to
    `path.sha256`, and a later download of the same file must agree with it.

    Raises:
        ConnectionError: no network, or the server refuses; what has arrived is kept.
        ValueError: the wrong checksum; what has arrived is deleted.
        OSError: the disk is full or read-only.
    """
    if path.exists():
        return
    part = Path(f"{path}.part")
    with contextlib.suppress(OSError):  # `_download` says why it cannot be made
        part.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        try:
            if not path.exists():  # another process may have fetched it meanwhile
                _fetch(url, path, part, sha256, progress)
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _fetch(url: str, path: Path, part: Path, sha256: str | None, progress: bool) -> None:
    """As `fetch`, once `part` is this process's own."""
    note = Path(f"{path}.sha256")
    for attempt in range(1, TRIES + 1):
        try:
            _download(url, part, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EROFS, errno.EACCES):
                raise OSError(
                    f"Cannot write {display_path(part)}: {error.strerror}. Free some space or choose another "
                    "data_dir; what has arrived is kept."
                ) from error
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == TRIES or refused:
                raise ConnectionError(
                    f"Could not download {url} ({error}): run it again to go on where it stopped, or put the "
                    f"file at {display_path(path)} by hand; {OFFLINE}."
                ) from error
    found = _sha256(part)
    known = sha256 or (note.read_text(encoding="utf-8").split()[0] if note.exists() else found)
    if found != known:
        part.unlink()
        accept = "" if sha256 else f"; if it was changed on purpose, delete {display_path(note)} first"
        raise ValueError(
            f"{url} has the SHA-256 {found} instead of {known}, so it is damaged or was changed, and was not "
            f"kept: run it again{accept}."
        )
    replace_file(note, lambda temporary: temporary.write_text(f"{found}  {path.name}\n", encoding="utf-8"))
    part.replace(path)


def _download(url: str, part: Path, progress: bool) -> None:
    """Add to `part` what it lacks of `url`; from the beginning if the server cannot go on in the middle."""
    part.parent.mkdir(parents=True, exist_ok=True)
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing lies beyond what is there, so it is whole, or of another file
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{there}"):
            return
        os.truncate(part, 0)  # not deleted: this process holds it
        raise ConnectionError(f"the {there} bytes there were not the beginning of it") from None
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        size = None if length is None else int(length) + there * resumed
        blocks = iter(lambda: response.read(BLOCK), b"")
        if progress:
            blocks = progress_bar(blocks, f"downloading {part.stem}", size and -(-size // BLOCK))
        with part.open("ab" if resumed else "wb") as file:
            for block in blocks:
                file.write(block)
    if size is not None and part.stat().st_size != size:
        raise ConnectionError(f"the connection ended after {part.stat().st_size} of {size} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -------------------------------------------------------------------------------------------------- unpacking


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a new folder, which appears whole or not at all.

    Raises ValueError, leaving nothing unpacked, if the archive holds a link or a member that would land
    outside the folder, or is damaged (it is deleted then, so that the next run fetches it anew).
    """
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                name = PurePosixPath(member.filename.replace("\\", "/"))
                link = stat.S_ISLNK(member.external_attr >> 16)
                if name.is_absolute() or ".." in name.parts or re.match("[A-Za-z]:", str(name)) or link:
                    why = "is a link" if link else "would land outside its folder"
                    raise ValueError(
                        f"{display_path(archive)} holds {member.filename!r}, which {why}: do not trust the archive; "
                        "nothing of it was unpacked."
                    )
            _appear(folder, content.extractall)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        Path(f"{archive}.sha256").unlink(missing_ok=True)
        raise ValueError(
            f"{display_path(archive)} is damaged ({error}) and was deleted: run it again to download it anew."
        ) from error


def _appear(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a temporary folder beside `folder`, then give it its name in one step."""
    try:
        with temporary_beside(folder, folder=True) as temporary:
            fill(temporary)
            temporary.replace(folder)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return
        reason = error.strerror or str(error)
        raise OSError(
            f"Cannot write {display_path(folder)}: {reason}. Free some space or choose another data_dir."
        ) from error
