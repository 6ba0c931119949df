"""What changes in place: a progress bar that leaves nothing behind, and one output of a cell drawn again and again."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

PATIENCE = 0.5  # seconds before a bar is shown at all: short work needs none
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


class _NotebookLine(tqdm):
    """tqdm's bar as one output of the cell that runs; tqdm.notebook's widget would stay in a saved notebook."""

    monitor_interval = 0  # no thread: outputs belong to the thread that runs the cell

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        from IPython import get_ipython

        text = str(self) if msg is None else msg
        _line_of(get_ipython().execution_count).draw({"text/plain": text}, raw=True)


@functools.lru_cache(maxsize=1)  # remembers the last cell's: all loops of a cell share one line
def _line_of(cell: int) -> InPlace:
    return InPlace()


def progress(iterable: Iterable, desc: str = "", total: int | None = None, at_once: bool = False) -> tqdm:
    """Iterate over `iterable` and show how far it is.

    In a notebook this is one line of text, drawn in place and empty at the end; in a terminal a tqdm bar on
    stderr; nothing where nobody looks on (output to a file or a pipe).

    Args:
        iterable: the work.
        desc: what is being done, a few words.
        total: number of items; by default `len(iterable)` where it has a length.
        at_once: show it before the first item is there, which may take minutes.
    """
    options = {"leave": False, "delay": 0 if at_once else PATIENCE, "mininterval": PAUSE, "miniters": 1}
    if _in_notebook():
        return _NotebookLine(iterable, desc, total, file=io.StringIO(), ncols=80, **options)
    return tqdm(iterable, desc, total, file=sys.stderr, disable=None, **options)


def time_left(seconds: float) -> str:
    """How long it still takes, for people.

    >>> time_left(30), time_left(3725)
    ('0:30 left', '1:02:05 left')
    """
    return f"{tqdm.format_interval(round(seconds)).removeprefix('0')} left"


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"
