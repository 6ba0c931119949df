"""How much memory there is, and what to say when there is none left."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

MEMORY = 0.25  # part of the free memory that one tensor may fill
CGROUP = Path("/sys/fs/cgroup")  # Linux keeps a container's limit there (version 2)


@contextlib.contextmanager
def explain_out_of_memory(lower: str) -> Iterator[None]:
    """Say what to `lower` if no memory is left (raises MemoryError); also a decorator.

    PyTorch has a class for this error on CUDA only; elsewhere its RuntimeError says it in words.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = re.search(r".*(allocate memory|not enough memory|out of memory|create a memory).*", str(error))
        if not (said or isinstance(error, MemoryError)):
            raise
        reason = f" ({said[0]})" if said else ""
        raise MemoryError(f"Out of memory: lower {lower} or close programs, and run this again{reason}.") from error


def free_memory() -> int:
    """Bytes of memory that may still be used: what is free, and what the limit of a container leaves."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no limit: no such file, or the word "max"
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat["inactive_file"]))  # a cache of files makes room
    return max(free, 0)


def too_large(count: int) -> bool:
    """Whether so many bytes would fill more than a quarter of the free memory: they stay in a file then."""
    return count > MEMORY * free_memory()
