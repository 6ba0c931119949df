"""How much memory there is, and what to say when there is none left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

MEMORY = 0.25  # part of the free memory that one tensor may fill


class OutOfMemory(MemoryError):
    """No memory is left; the message says what to lower."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that no memory is left: Python's and NumPy's, or PyTorch's, on the CPU or a GPU.

    PyTorch has a class of its own for CUDA only; elsewhere its RuntimeError says it in words.
    """
    words = ("can't allocate memory", "not enough memory", "out of memory", "could not create a memory")
    return isinstance(error, MemoryError) or any(each in str(error) for each in words)


@contextlib.contextmanager
def enough_memory(lower: str) -> Iterator[None]:
    """Say what to `lower` if no memory is left (raises OutOfMemory); also a decorator."""
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no memory is left"
        raise OutOfMemory(
            f"Out of memory: lower {lower}, or close other programs and notebooks, and run this again ({reason})."
        ) from error


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that may still be used: what is free, and what the limits of a container leave (cgroup v2)."""
    free = psutil.virtual_memory().available
    for folder, limit in _limits(root):
        with contextlib.suppress(OSError, ValueError):
            used = int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free = min(free, limit - used + int(stat["inactive_file"]))  # a cache of files makes room
    return max(free, 0)


def total_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this machine has, or the container around this process may use."""
    return min([psutil.virtual_memory().total, *(limit for _, limit in _limits(root))])


def _limits(root: Path) -> Iterator[tuple[Path, int]]:
    """The containers around this process that have a limit (folders of cgroup v2), and that limit in bytes."""
    base, own = root / "sys/fs/cgroup", ""
    with contextlib.suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        own = next((line[3:] for line in lines if line.startswith("0::")), "").strip("/")
    for folder in [base / own, *(base / own).parents]:
        with contextlib.suppress(OSError, ValueError):  # no limit there: no such file, or the word "max"
            yield folder, int((folder / "memory.max").read_text())
        if folder == base:
            return


def too_large(count: int) -> bool:
    """Whether so many bytes would fill more than a quarter of the free memory: they stay in a file then."""
    return count > MEMORY * free_memory()
