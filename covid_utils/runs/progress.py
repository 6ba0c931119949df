"""A progress bar for terminals and notebooks that leaves nothing behind when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

PATIENCE = 0.5  # seconds before a bar shows at all: short work needs none
PAUSE = 0.2  # seconds between two drawings

_line: dict[str, Any] = {"cell": None, "handle": None}  # one line of text per notebook cell, used again


def progress(iterable: Iterable, desc: str = "", total: int | None = None) -> Iterator:
    """Yield the items of `iterable` and show how far it is.

    In a notebook this is one line of text, drawn in place and empty at the end; in a terminal a tqdm bar on
    stderr; nothing where nobody looks on (output to a file or a pipe).

    Args:
        iterable: the work.
        desc: what is being done, a few words.
        total: number of items; by default `len(iterable)` where it has a length.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if not _in_notebook():
        yield from tqdm(iterable, desc, total, leave=False, disable=None, delay=PATIENCE, file=sys.stderr)
        return
    start = drawn = time.monotonic()
    shown = False
    try:
        for done, item in enumerate(iterable):
            now = time.monotonic()
            if now - start > PATIENCE and now - drawn > PAUSE:
                shown, drawn = True, now
                _draw(_text(desc, done, total, now - start))
            yield item
    finally:
        if shown:
            _draw("")


def _text(desc: str, done: int, total: int | None, seconds: float) -> str:
    """One line: what, a bar, how many, time left."""
    if not total:
        return f"{desc}: {done}"
    bar = "█" * round(20 * done / total)
    text = f"{desc}: {bar:░<20} {done}/{total}"
    return text + (f", {seconds * (total - done) / done:.0f} s left" if done else "")


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def _draw(text: str) -> None:
    """Write `text` on the cell's progress line."""
    from IPython import get_ipython
    from IPython.display import display

    cell, data = get_ipython().execution_count, {"text/plain": text}
    if _line["cell"] == cell:
        _line["handle"].update(data, raw=True)
    elif text:
        _line.update(cell=cell, handle=display(data, raw=True, display_id=True))
