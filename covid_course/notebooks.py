"""Execute notebooks with other parameters, through papermill."""

from __future__ import annotations

import ast
import contextlib
import logging
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any
from unittest.mock import patch

import nbformat
import papermill
from nbformat.reader import NotJSONError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from covid_utils.core.files import PROJECT, display_path, resolve, temporary_beside
from covid_utils.core.settings import Settings

NOTEBOOKS = PROJECT / "notebooks"
KERNEL = "python3"  # the kernel of the Python that runs this
ENGINE = "covid_utils"  # what our engine is called while papermill knows it


class NotebookError(RuntimeError):
    """A notebook stopped; the message says which, where, why, and what file shows it."""


def find_notebooks(names: Iterable[str] = ()) -> list[Path]:
    """The course's notebooks in order, or those whose names begin with one of `names` ("01", "02_scratch").

    Raises ValueError if there is none, or none of a name.
    """
    there = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in there):
            known = ", ".join(path.stem for path in there) or "none"
            raise ValueError(f"No notebook begins with {name!r} in {NOTEBOOKS} (there: {known}).")
    if not there:
        raise ValueError(f"No notebooks in {NOTEBOOKS}: run this from a checkout, installed with `pip install -e .`.")
    return [path for path in there if not names or path.name.startswith(tuple(names))]


def declared(notebook: Path) -> set[str]:
    """The names in the notebook's cell tagged `parameters`. Raises ValueError if it has no such cell, or is none.

    (papermill's own look at them leaves out lines with a `=` in their comment.)
    """
    try:
        for cell in nbformat.read(notebook, 4).cells:
            if "parameters" in cell.metadata.get("tags", []):
                return {part.id for part in ast.walk(ast.parse(cell.source)) if isinstance(part, ast.Name)}
    except SyntaxError as error:
        raise ValueError(f"{notebook}: its cell of parameters is no plain Python ({error}).") from None
    except (nbformat.ValidationError, NotJSONError, AttributeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"{notebook} can't be read as a notebook ({reason}): open and save it in JupyterLab."
        ) from None
    raise ValueError(f"{notebook} has no cell tagged 'parameters': it can't be given any.")


class Line:
    """One line of the terminal per notebook: cells done, seconds, and the notebook's own progress line."""

    def __init__(self, name: str, cells: int):
        self.name, self.cells, self.done, self.status = name, cells, 0, ""
        self.start, self.over, self.live = time.monotonic(), threading.Event(), sys.stdout.isatty()
        self.ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Line:
        if self.live:
            self.ticker.start()
        return self

    def __exit__(self, kind, *rest) -> None:
        self.over.set()
        if not kind:
            self.done = self.cells  # those of text at the end are never executed
        if self.live:
            self.ticker.join()
        self._show("stopped" if kind else "done", end="\n")

    def _tick(self) -> None:
        while not self.over.wait(0.5):
            self._show(self.status)

    def _show(self, status: str, end: str = "") -> None:
        seconds = time.monotonic() - self.start
        text = f"{self.name:<14} {self.done:>3}/{self.cells} cells {seconds:>6.0f} s  {status}"
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]:<{width}}" if self.live else text, end=end, flush=True)

    def cell_done(self, cell_index: int, **_) -> None:
        self.done, self.status = cell_index + 1, ""


class _Client(PapermillNotebookClient):
    """papermill's client, which also passes on what `progress` displays: one line of nothing but text."""

    line: Line

    def process_message(self, msg, cell, cell_index):
        data = msg["content"].get("data", {})
        if msg["msg_type"].endswith("display_data") and set(data) == {"text/plain"}:
            self.line.status = data["text/plain"].partition("\n")[0]
        return super().process_message(msg, cell, cell_index)

    async def _async_poll_for_reply(self, *arguments, **options):
        channel = self.kc.shell_channel
        with patch.object(channel, "get_msg", partial(_asked_each_second, channel.get_msg)):
            return await super()._async_poll_for_reply(*arguments, **options)


async def _asked_each_second(get_msg: Callable, timeout: float | None = None) -> dict:
    """A message of the kernel's, as from `get_msg`, but asked for again each second; Empty after `timeout` seconds.

    The news that one has come can get lost (seen once in some hundred notebooks, after a cell with a widget), and
    who waits for the news alone waits for ever.
    """
    end = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        try:
            return await get_msg(timeout=max(0.0, min(1.0, end - time.monotonic())))
        except Empty:
            if time.monotonic() >= end:
                raise


class _Engine(NBClientEngine):
    """papermill's engine with that client; a warning of the kernel's on its transport is left out."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, line, **_):
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=60,
            extra_arguments=["--log-level=CRITICAL"],
            on_cell_executed=line.cell_done,
        )
        client.line = line
        client.execute()


@contextlib.contextmanager
def _own_engine() -> Iterator[None]:
    """Papermill with that engine and without log lines; afterwards it is as it was."""
    log = logging.getLogger("papermill")
    level = log.level
    # papermill can register an engine but not forget it
    with patch.dict(papermill_engines._engines, {ENGINE: _Engine}):
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> Path:
    """Execute a notebook in its own folder and write it to `output`, when it has come to its end.

    Args:
        notebook: file to execute.
        output: file to write; its folder is made.
        parameters: checked values; those that the notebook does not declare are left out.

    Returns:
        `output`.

    Raises NotebookError if a cell fails or the kernel dies; `*.failed.ipynb` is the notebook up to there. OSError, in
    one sentence, if the folder cannot be written to or the disk is full.
    """
    notebook, output = Path(notebook), Path(output)
    known = declared(notebook)
    parameters = {name: value for name, value in parameters.items() if name in known}
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    try:
        with temporary_beside(output) as partial:
            _into(partial, notebook, parameters, failed)
            os.replace(partial, output)
    except OSError as error:
        raise OSError(
            f"Cannot write {display_path(output)}: {error.strerror or error}. Free some space or "
            "choose another run_dir; "
            "an earlier notebook there is unchanged."
        ) from error
    failed.unlink(missing_ok=True)
    return output


def _into(partial: Path, notebook: Path, parameters: dict[str, Any], failed: Path) -> None:
    """Execute a notebook into a file, which becomes `failed` if it stops. Raises as `execute`."""
    cells = nbformat.read(notebook, 4).cells
    try:
        with _own_engine(), Line(notebook.stem, len(cells) + bool(parameters)) as line:
            _with_papermill(notebook, partial, parameters, line)
    except PapermillExecutionError as error:
        where = f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}".strip()
        raise _failure(notebook, partial, failed, where) from None
    except RuntimeError as error:
        where = (
            f"cell {line.done + 1} of {line.cells}: its kernel died ({error}), out of memory perhaps: lower image_size "
        )
        where += "or batch_size, or close other programs and notebooks"
        raise _failure(notebook, partial, failed, where) from None


def _with_papermill(notebook: Path, output: Path, parameters: dict[str, Any], line: Line) -> None:
    """Execute with papermill; a kernel that dies before the first cell is started once more."""
    options = {"kernel_name": KERNEL, "cwd": notebook.parent, "engine_name": ENGINE, "progress_bar": False}
    try:
        papermill.execute_notebook(notebook, output, parameters, **options, line=line)
    except RuntimeError:
        if line.done:
            raise
        # two kernels that start at once may pick the same port
        papermill.execute_notebook(notebook, output, parameters, **options, line=line)


def _failure(notebook: Path, partial: Path, failed: Path, where: str) -> NotebookError:
    """The error to raise, after giving the partly executed notebook its name."""
    seen = ""
    if partial.exists() and partial.stat().st_size:
        os.replace(partial, failed)
        seen = f"\nThe notebook up to there is {display_path(failed)}."
    return NotebookError(f"{notebook.name} stopped at {where}{seen}")


def run(notebooks: list[Path], parameters: dict[str, Any]) -> Path:
    """Execute notebooks in order with the same parameters, into their `run_dir`. Returns that folder."""
    folder = resolve(Settings(**parameters).run_dir)
    for notebook in notebooks:
        execute(notebook, folder / notebook.name, parameters)
    return folder
