"""Execute notebooks with other parameters, through papermill."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Iterable
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
from tqdm import tqdm

from covid_utils.core.files import PROJECT, display_path, resolve, temporary_beside
from covid_utils.core.settings import Settings

NOTEBOOKS = PROJECT / "notebooks"
KERNEL = "python3"  # the kernel of the Python that runs this


class NotebookError(RuntimeError):
    """A notebook stopped; the message says which, where, why, and which file shows it."""


def find_notebooks(names: Iterable[str] = ()) -> list[Path]:
    """The course's notebooks in order, or those whose names begin with one of `names` ("01", "02_scratch").

    Raises ValueError if there is none, or none of a name.
    """
    found = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not found:
        raise ValueError(f"No notebooks in {NOTEBOOKS}: run this from a checkout, installed with `pip install -e .`.")
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            known = ", ".join(path.stem for path in found)
            raise ValueError(f"No notebook begins with {name!r} in {NOTEBOOKS} (there: {known}).")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def declared(notebook: Path) -> set[str]:
    """The names in the notebook's cell tagged `parameters`. Raises ValueError if it has no such cell, or is none.

    (papermill's own inspection leaves out lines with a `=` in their comment.)
    """
    try:
        for cell in nbformat.read(notebook, 4).cells:
            if "parameters" in cell.metadata.get("tags", []):
                return {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
    except SyntaxError as error:
        raise ValueError(f"{notebook}: its cell of parameters is no plain Python ({error}).") from None
    except (nbformat.ValidationError, NotJSONError, AttributeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"{notebook} can't be read as a notebook ({reason}): save it anew in JupyterLab.") from None
    raise ValueError(f"{notebook} has no cell tagged 'parameters': it can't be given any.")


class _Client(PapermillNotebookClient):
    """papermill's client with a progress bar of the terminal; the notebook's own progress line stands behind it."""

    bar: tqdm

    def process_message(self, msg, cell, cell_index):
        data = msg["content"].get("data", {})
        if msg["msg_type"].endswith("display_data") and set(data) == {"text/plain"}:
            self.bar.set_postfix_str(data["text/plain"].partition("\n")[0])
        return super().process_message(msg, cell, cell_index)

    async def _async_poll_for_reply(self, *arguments, **options):
        """Wait for a cell's reply, and look again each second.

        The wake-up for a reply can get lost after a cell with an Output widget (seen once in some hundred notebooks);
        nbclient alone then waits for ever.
        """
        get_msg = self.kc.shell_channel.get_msg

        async def look_again(timeout=None):  # our cells have no time limit
            while True:
                with contextlib.suppress(Empty):
                    return await get_msg(timeout=1.0)

        with patch.object(self.kc.shell_channel, "get_msg", look_again):
            return await super()._async_poll_for_reply(*arguments, **options)


class _Engine(NBClientEngine):
    """papermill's engine with that client."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, bar, **_):
        quiet = ["--log-level=CRITICAL"]  # a warning of the kernel's on its transport is left out
        client = _Client(nb_man, kernel_name=kernel_name, startup_timeout=60, extra_arguments=quiet)
        client.bar, client.on_cell_executed = bar, lambda cell_index, **_: bar.update(cell_index + 1 - bar.n)
        client.execute()


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
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    try:
        with temporary_beside(output) as temporary:
            try:
                _execute(notebook, temporary, {name: value for name, value in parameters.items() if name in known})
            except NotebookError as error:
                if not temporary.exists():  # its kernel never started
                    raise
                os.replace(temporary, failed)
                raise NotebookError(f"{error}\nThe notebook up to there is {display_path(failed)}.") from None
            os.replace(temporary, output)
    except OSError as error:
        raise OSError(
            f"Cannot write {display_path(output)}: {error.strerror or error}. Free some space or choose another "
            "run_dir; an earlier notebook there is unchanged."
        ) from error
    failed.unlink(missing_ok=True)
    return output


def _execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook into a file and print its cells and seconds. Raises NotebookError if it stops."""
    started = time.monotonic()
    count = len(nbformat.read(notebook, 4).cells) + bool(parameters)  # papermill adds a cell of parameters
    papermill_engines.register("covid_course", _Engine)
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of parameters that `declared` reads
    shown_on = sys.stdout if sys.stdout.isatty() else io.StringIO()  # a disabled bar would not count
    with tqdm(total=count, desc=notebook.stem, unit=" cells", file=shown_on, leave=False) as bar:
        options = {"kernel_name": KERNEL, "cwd": notebook.parent, "engine_name": "covid_course", "bar": bar}
        for attempt in (1, 2):  # two kernels that start at once may choose the same port
            try:
                with patch.object(
                    logging.getLogger("papermill"), "disabled", True
                ):  # it warns of what `declared` reads
                    papermill.execute_notebook(notebook, output, parameters, progress_bar=False, **options)
                break
            except PapermillExecutionError as error:
                where = f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}".strip()
                raise NotebookError(f"{notebook.name} stopped at {where}") from None
            except RuntimeError as error:
                if bar.n or attempt == 2:
                    raise NotebookError(
                        f"{notebook.name} stopped at cell {bar.n + 1} of {count}: its kernel died ({error}), out of "
                        "memory perhaps: lower image_size or batch_size, or close other programs and notebooks"
                    ) from None
    print(f"{notebook.stem:<14} {count:>3} cells {time.monotonic() - started:>6.0f} s  done", flush=True)


def run(notebooks: list[Path], parameters: dict[str, Any]) -> Path:
    """Execute notebooks in order with the same parameters, into their `run_dir`. Returns that folder."""
    folder = resolve(Settings(**parameters).run_dir)
    for notebook in notebooks:
        execute(notebook, folder / notebook.name, parameters)
    return folder
