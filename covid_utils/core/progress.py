"""What changes in place: a progress bar that leaves nothing behind, and one output of a cell drawn again and again."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

PATIENCE = 0.5  # seconds before a bar shows at all: short work needs none
PAUSE = 0.2  # seconds between two drawings


class InPlace:
    """One output of a notebook cell, drawn again where it stands; a saved notebook keeps its last state.

    Live in JupyterLab without flicker, unlike `clear_output`, which also wipes what else the cell shows.
    """

    def __init__(self):
        self.handle = None

    def draw(self, content: Any, metadata: dict | None = None, raw: bool = False) -> None:
        """Show `content` where the last one stood; the first one where the cell's outputs have come to.

        Args:
            content: anything that `IPython.display.display` shows; with `raw`, {mime type: data}.
            metadata: {mime type: {name: value}}, for example `{"image/png": {"alt": "what it shows"}}`.
        """
        from IPython.display import display

        if self.handle is None:
            self.handle = display(content, metadata=metadata, raw=raw, display_id=True)
        else:
            self.handle.update(content, metadata=metadata, raw=raw)


def progress(iterable: Iterable, desc: str = "", total: int | None = None, at_once: bool = False) -> Iterator:
    """Yield the items of `iterable` and show how far it is.

    In a notebook this is one line of text, drawn in place and empty at the end; in a terminal a tqdm bar on
    stderr; nothing where nobody looks on (output to a file or a pipe).

    Args:
        iterable: the work.
        desc: what is being done, a few words.
        total: number of items; by default `len(iterable)` where it has a length.
        at_once: show it before the first item is there, which may take minutes.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if not _in_notebook():
        patience = 0 if at_once else PATIENCE
        yield from tqdm(iterable, desc, total, leave=False, disable=None, delay=patience, file=sys.stderr)
        return
    start = drawn = time.monotonic()
    line = None
    try:
        if at_once:
            line = _line()
            line.draw({"text/plain": _text(desc, 0, total, 0)}, raw=True)
        for done, item in enumerate(iterable, start=1):
            yield item
            now = time.monotonic()
            if now - start > PATIENCE and now - drawn > PAUSE:
                line, drawn = line or _line(), now
                line.draw({"text/plain": _text(desc, done, total, now - start)}, raw=True)
    finally:
        if line:
            line.draw({"text/plain": ""}, raw=True)


def time_left(seconds: float) -> str:
    """How long it still takes, for people.

    >>> time_left(30), time_left(3725)
    ('0:30 left', '1:02:05 left')
    """
    return f"{tqdm.format_interval(round(seconds)).removeprefix('0')} left"


def _text(desc: str, done: int, total: int | None, seconds: float) -> str:
    """One line: what, a bar, how many, time left."""
    if not total:
        return f"{desc}: {done}"
    bar = "█" * round(20 * done / total)
    text = f"{desc}: {bar:░<20} {done}/{total}"
    return text + (f", {time_left(seconds * (total - done) / done)}" if done else "")


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def _line() -> InPlace:
    """The progress line of the cell that runs: all loops of a cell share one."""
    from IPython import get_ipython

    return _line_of(get_ipython().execution_count)


@functools.lru_cache(maxsize=1)  # remembers the last cell's
def _line_of(cell: int) -> InPlace:
    return InPlace()
