"""What changes in place: a progress bar that leaves nothing behind, and one output of a cell drawn again and again."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class InPlace:
    """One output of a notebook cell, drawn again where it stands; a saved notebook keeps its last state.

    Live in JupyterLab without flicker, unlike `clear_output`, which also wipes what else the cell shows.
    """

    handle = None

    def draw(self, content: Any, metadata: dict | None = None, raw: bool = False) -> None:
        """Show `content` where the last one stood; the arguments are those of `IPython.display.display`."""
        from IPython.display import display

        if self.handle is None:
            self.handle = display(content, metadata=metadata, raw=raw, display_id=True)
        else:
            self.handle.update(content, metadata=metadata, raw=raw)


@functools.lru_cache(maxsize=1)  # remembers the last cell's: all loops of a cell share one line
def _line_of(cell: int) -> InPlace:
    return InPlace()


class _NotebookLine(tqdm):
    """tqdm's bar as one output of the cell that runs; tqdm.notebook's widget would stay in a saved notebook."""

    monitor_interval = 0  # no thread: outputs belong to the thread that runs the cell

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        from IPython import get_ipython

        text = str(self) if msg is None else msg
        _line_of(get_ipython().execution_count).draw({"text/plain": text}, raw=True)


def progress(iterable: Iterable, desc: str = "", total: int | None = None, delay: float = 0.5) -> tqdm:
    """Iterate over `iterable` and show how far it is, after a `delay` in seconds: short work needs no bar.

    In a notebook this is one line of text, drawn in place and empty at the end; in a terminal a tqdm bar on
    stderr; nothing where nobody looks on (output to a file or a pipe).
    """
    options = {"leave": False, "delay": delay, "mininterval": 0.2, "miniters": 1}
    ipython = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if type(ipython).__name__ == "ZMQInteractiveShell":  # a Jupyter kernel
        return _NotebookLine(iterable, desc, total, file=io.StringIO(), ncols=80, **options)
    return tqdm(iterable, desc, total, file=sys.stderr, disable=None, **options)
