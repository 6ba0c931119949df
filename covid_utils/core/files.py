"""Where files lie, and how they are written: whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import glob
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted anyway
    fcntl = None

PROJECT = Path(__file__).resolve().parents[2]
NEW = "new-"  # in the names of temporary files: no file of a user's own is called so


def home() -> Path:
    """Where relative paths start: the project's folder, or COVID_UTILS_HOME (tests keep to themselves with it)."""
    return Path(os.environ.get("COVID_UTILS_HOME", PROJECT)).resolve()


def resolve(path: str | Path) -> Path:
    """Absolute path; a relative one starts at the project's folder, wherever the notebook runs."""
    return home() / Path(path).expanduser()


def shown(path: str | Path) -> str:
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
    """Write a file whole or not at all.

    `write(temporary)` fills a temporary file beside `path`, which then takes its name in one step, so that
    a reader, a full disk or a kill never leaves half a file there; what a kill leaves is cleared the next time.

    Raises OSError, in one sentence, if the folder cannot be written to or the disk is full; whatever stood
    at `path` is still there then.
    """
    path = Path(path)
    try:
        with beside(path) as temporary:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
    except Exception as error:
        # torch and safetensors report a full disk as errors of their own
        full = any(words in str(error) for words in ("No space left", "unexpected pos", "PytorchStreamWriter"))
        if isinstance(error, OSError) or full:
            reason = getattr(error, "strerror", None) or ("No space left on device" if full else str(error))
            raise OSError(
                f"Cannot write {path}: {reason}. Free some space or choose another folder with run_dir or "
                "data_dir; what was there before is unchanged."
            ) from error
        raise


@contextlib.contextmanager
def beside(path: Path, folder: bool = False) -> Iterator[Path]:
    """A temporary file (or folder) beside `path`, to be filled and renamed to it; if it was not, it is deleted.

    It is locked while its process lives, so that another process knows what a killed one has left, and clears it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path)
    temporary, lock = _claimed(path, folder)
    try:
        yield temporary
    finally:
        delete(temporary)
        _close(lock)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """A file that is filled bit by bit, and made if it is not there, for this process alone: waits for another's end.

    Where there are no locks, or the file cannot be made, it does not wait.
    """
    lock = _waited(path)
    try:
        yield
    finally:
        _close(lock)


def _waited(path: Path) -> int | None:
    while fcntl is not None:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:  # who writes it says why it cannot be written
            return None
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            return lock
        os.close(lock)  # while this process waited, the other gave the file another name
    return None


def clear_leftovers(path: Path) -> None:
    """Delete the temporary files and folders beside `path` that no living process holds: a kill left them."""
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        with contextlib.suppress(OSError):  # locked by a living process, or in a folder that cannot be written to
            lock = _locked(leftover)
            delete(leftover)
            _close(lock)


def _prefix(path: Path) -> str:
    """How the names of the temporary files beside `path` begin; a long name is cut, as systems have a limit."""
    return f".{path.name[:40]}.{NEW}"


def _claimed(path: Path, folder: bool) -> tuple[Path, int | None]:
    """A new temporary file or folder beside `path`, and its lock; None where the file system has no locks."""
    where = {"prefix": _prefix(path), "suffix": path.suffix, "dir": path.parent}
    while True:
        if folder:
            temporary = Path(tempfile.mkdtemp(**where))
        else:
            handle, name = tempfile.mkstemp(**where)
            os.close(handle)
            temporary = Path(name)
        try:
            lock = _locked(temporary)
        except (BlockingIOError, FileNotFoundError):
            continue  # before it was locked, another process took it for a leftover
        except OSError:
            return temporary, None
        if temporary.exists():
            return temporary, lock
        _close(lock)


def _locked(path: Path) -> int | None:
    """A lock, which the system takes away when the process ends, however it ends. OSError if another has it."""
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _close(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def delete(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all; a number that is none (nan) as null, since JSON knows no nan."""
    text = json.dumps(_without_nan(json.loads(json.dumps(content, default=_plain))), indent=2, allow_nan=False) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises ValueError, naming the file, if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it and run the notebook again.") from None


def _without_nan(value: Any) -> Any:
    """The same, with None for every nan and infinity."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """NumPy and torch scalars and arrays, and paths, as JSON knows them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
