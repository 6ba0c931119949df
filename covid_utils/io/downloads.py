"""Public data sets, fetched on request; files and folders appear whole or not at all."""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pandas as pd

from ..core.files import display_path, replace_file, temporary_beside

COVID_CT = "https://raw.githubusercontent.com/UCSD-AI4H/COVID-CT/master"
TIMEOUT = 30  # seconds without a byte
OFFLINE = "dataset='phantom' needs no network"


def from_kaggle(handle: str, folder: Path, _progress: bool = True) -> Path:
    """The folder of a Kaggle data set ("owner/name"), fetched with `kagglehub` if it is not there yet.

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
            f"Could not fetch {handle} ({reason}): download it by hand from https://www.kaggle.com/datasets/{handle}, "
            f"so that {display_path(folder)} holds the folders COVID and non-COVID; {OFFLINE}."
        ) from error
    with temporary_beside(folder) as temporary:
        shutil.copytree(next(found.rglob("COVID"), found / "COVID").parent, temporary, dirs_exist_ok=True)
        if not folder.is_dir():  # else another process was faster
            temporary.replace(folder)
    return folder


def covid_ct(folder: Path, progress: bool = True) -> Path:
    """The folder of the COVID-CT dataset with its published split, fetched if it is not there yet.

    Zhao et al. 2020, https://arxiv.org/abs/2003.13865. Files that are already there are used, of a checkout of its
    repository, say. The published lists of file names become train.csv, val.csv and test.csv.

    Raises ConnectionError if it cannot be fetched, ValueError if what was fetched is damaged.
    """
    tables = {split: [] for split in ("train", "val", "test") if not (folder / f"{split}.csv").exists()}
    for name in ("COVID", "NonCOVID"):
        pictures = folder / f"Images-processed/CT_{name}"
        if not pictures.is_dir():
            archive = pictures.with_suffix(".zip")
            fetch(f"{COVID_CT}/Images-processed/{archive.name}", archive, progress)
            unpack(archive, pictures)
        where = {path.name: path.relative_to(folder).as_posix() for path in sorted(pictures.rglob("*"))}
        for split, rows in tables.items():
            listed = f"Data-split/{name}/{split}CT_{name}.txt"
            fetch(f"{COVID_CT}/{listed}", folder / listed, progress)
            lines = filter(None, map(str.strip, (folder / listed).read_text(encoding="utf-8").splitlines()))
            rows += [(where.get(line, line), name) for line in lines]
    for split, rows in tables.items():
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


def fetch(url: str, path: Path, progress: bool = True) -> None:
    """Download `url` to `path` unless it is there; the file appears whole or not at all.

    Raises ConnectionError if there is no network or no space, the server refuses, or the transfer is interrupted.
    """
    if path.exists():
        return
    import pooch  # takes a second to import, and only downloads need it

    try:
        with temporary_beside(path) as temporary:
            pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)(url, temporary, None)
            temporary.replace(path)
    except OSError as error:  # errors of requests are such, too
        raise ConnectionError(
            f"Could not download {display_path(path)} from {url} ({error}): run it again, or get it by hand; {OFFLINE}."
        ) from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a new folder, which appears whole or not at all.

    No member lands outside it: `zipfile` drops `..` and absolute paths, and writes links as files. Raises ValueError if
    the archive is damaged, which is deleted then.
    """
    try:
        with zipfile.ZipFile(archive) as content, temporary_beside(folder) as temporary:
            content.extractall(temporary)
            if not folder.is_dir():  # else another process was faster
                temporary.replace(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        raise ValueError(f"{display_path(archive)} is damaged ({error}) and was deleted: run it again.") from error
