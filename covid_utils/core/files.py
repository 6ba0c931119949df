"""Where files lie, and how they are written: whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock

PROJECT = Path(__file__).resolve().parents[2]
DAY = 24 * 3600  # seconds after which a temporary file is one that a killed process left


def home() -> Path:
    """Where relative paths start: the project's folder, or COVID_UTILS_HOME (tests keep to themselves with it)."""
    return Path(os.environ.get("COVID_UTILS_HOME", PROJECT)).resolve()


def resolve(path: str | Path) -> Path:
    """Absolute path; a relative one starts at the project's folder, wherever the notebook runs."""
    return home() / os.path.expanduser(path)


def display_path(path: str | Path) -> str:
    """A path as a reader should see it: relative to the project's folder where it lies inside it."""
    path = resolve(path)
    return path.relative_to(home()).as_posix() if path.is_relative_to(home()) else str(path)


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest right one, or all of them.

    >>> did_you_mean("pateint", ["patient", "random"])
    "did you mean 'patient'?"
    """
    choices = list(choices)
    close = difflib.get_close_matches(str(name).lower(), choices, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(map(repr, choices))}."


def replace_file(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all: `write(temporary)` fills a file next to `path`, which then takes its name.

    Raises OSError, in one sentence, if the folder cannot be written to or the disk is full: `path` is unchanged then.
    """
    path = Path(path)
    try:
        with temporary_beside(path) as temporary:
            try:
                write(temporary)
            except Exception:  # where a library raises an error of its own for a full disk, this raises the system's
                with temporary.open("ab") as file:
                    file.write(bytes(2**20))
                raise
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def lock_folder(folder: Path) -> filelock.AcquireReturnProxy:
    """Keep other processes out of a folder, which is made if need be: with lock_folder(folder): …

    Raises OSError, in one sentence, if another process is in it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(folder / ".lock").acquire(blocking=False)
    except filelock.Timeout:
        raise OSError(f"Another process is at work in {display_path(folder)}: wait, or choose another one.") from None
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(path: Path, error: OSError) -> OSError:
    """What to raise where a file or folder cannot be written."""
    reason = error.strerror or error
    return OSError(f"Cannot write {path}: {reason}. Free some space or choose another folder with run_dir or data_dir.")


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """The path of a new hidden file or folder next to `path`, to be written and renamed to it; else it is deleted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.name[:40]}.new-"  # a long name is cut, as systems have a limit
    for leftover in path.parent.glob(f"{glob.escape(name)}*"):  # of processes that were killed
        with contextlib.suppress(OSError):  # another process was faster, or the folder cannot be written to
            if time.time() - leftover.stat().st_mtime > DAY:
                delete(leftover)
    temporary = path.with_name(f"{name}{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
    finally:
        delete(temporary)


def delete(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all; NaN and infinity as null, since JSON knows neither."""
    plain = json.dumps(content, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    text = json.dumps(json.loads(plain, parse_constant=lambda _: None), indent=2) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises ValueError, naming the file, if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it and run the notebook again.") from None
