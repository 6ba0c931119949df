"""Execute notebooks with other parameters, through papermill."""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from queue import Empty
from typing import Any
from unittest.mock import patch

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from covid_utils.core.files import PROJECT, display_path, read_json, resolve
from covid_utils.core.settings import Settings

NOTEBOOKS = PROJECT / "notebooks"
KERNEL = "python3"  # the kernel of the Python that runs this
PARAMETERS = {"more-parameters", "parameters"}  # papermill adds its cell after the second, so that it overrides both


class NotebookError(Exception):
    """A notebook stopped; the message says which, where, why, and which file shows it."""


def find_notebooks() -> list[Path]:
    """The course's notebooks, in order."""
    if found := sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        return found
    raise ValueError(f"There is no notebook in {NOTEBOOKS}: install a checkout with `pip install -e .`.")


def declared(notebook: Path) -> set[str]:
    """The names in the notebook's cells tagged `more-parameters` (folded) and `parameters`.

    Raises ValueError if it has no cell tagged `parameters`, or is none. (papermill's own inspection leaves out lines
    with a `=` in their comment.)
    """
    names, tagged = set(), set()
    try:
        for cell in nbformat.read(notebook, 4).cells:
            if PARAMETERS & set(cell.metadata.get("tags", [])):
                tagged |= set(cell.metadata.tags)
                names |= {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
    except OSError as error:
        raise ValueError(f"Cannot read {notebook}: {error.strerror}.") from None
    except Exception as error:  # nbformat's are of many kinds
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"{notebook} can't be read as a notebook with plain Python in its cells of parameters ({reason}): save it "
            "anew in JupyterLab."
        ) from None
    if "parameters" not in tagged:
        raise ValueError(f"{notebook} has no cell tagged 'parameters': it can't be given any.")
    return names


class _Client(PapermillNotebookClient):
    """papermill's client, which looks again for a cell's reply each second.

    The wake-up for a reply can get lost after a cell with an Output widget (seen once in some hundred notebooks);
    nbclient alone then waits for ever.
    """

    async def _async_poll_for_reply(self, *arguments, **options):
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
    def execute_managed_notebook(cls, nb_man, kernel_name, **_):
        quiet = ["--log-level=CRITICAL"]  # a warning of the kernel's on its transport is left out
        client = _Client(nb_man, kernel_name=kernel_name, startup_timeout=60, extra_arguments=quiet)
        try:
            client.execute()
        except DeadKernelError as error:
            raise NotebookError(
                f"cell In [{client.code_cells_executed}]: its kernel died ({error}), out of memory perhaps: lower "
                "image_size or batch_size, or close other programs and notebooks"
            ) from None


def execute(notebook: Path, output: Path, parameters: dict[str, Any], progress_bar: bool = False) -> Path:
    """Execute a notebook in its own folder; `output` is written whole, at its end; until then it is `*.failed.ipynb`.

    Args:
        notebook: file to execute.
        output: file to write; its folder is made.
        parameters: checked values; those that the notebook does not declare are left out.
        progress_bar: show papermill's bar over the cells, on stderr.

    Returns:
        `output`.

    Raises NotebookError if a cell fails or the kernel dies; `*.failed.ipynb` is the notebook up to there. OSError, in
    one sentence, if the folder cannot be written to or the disk is full.
    """
    known, failed = declared(notebook), output.with_name(f"{output.stem}.failed.ipynb")
    given = {name: value for name, value in parameters.items() if name in known}
    options = {"kernel_name": KERNEL, "language": "python", "cwd": notebook.parent}
    options |= {"engine_name": "covid_course", "progress_bar": progress_bar}
    papermill_engines.register("covid_course", _Engine)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it warns of what `declared` reads
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            papermill.execute_notebook(notebook, failed, given, **options)
        except RuntimeError:  # the kernel did not start: another one took its port, perhaps
            papermill.execute_notebook(notebook, failed, given, **options)
        os.replace(failed, output)
    except (PapermillExecutionError, NotebookError, RuntimeError) as error:
        where = error
        if isinstance(error, PapermillExecutionError):
            where = f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}".strip()
        told = f"{notebook.name} stopped at {where}\nThe notebook up to there is {display_path(failed)}."
        raise NotebookError(told) from None
    except OSError as error:
        raise OSError(
            f"Cannot write {display_path(output)}: {error.strerror or error}. Free some space or choose another "
            "run_dir; an earlier notebook there is unchanged."
        ) from error
    return output


def _left(names: list[str], metrics: Path) -> str:
    """The minutes that notebooks still take, as notebook 0 forecast them in this run; "" without it or its record."""
    minutes = read_json(metrics).get("machine", {}).get("minutes", {}) if metrics.exists() else {}
    return f", about {sum(map(minutes.get, names)):.0f} min left" if set(names) <= set(minutes) else ""


def run(notebooks: list[Path], parameters: dict[str, Any]) -> Path:
    """Execute notebooks in order with the same parameters, into their `run_dir`. Returns that folder.

    Prints which one runs and what is left, in a terminal with papermill's bar over its cells, and what each took.
    """
    folder, took = resolve(Settings(**parameters).run_dir), {}
    usual = set(parameters) <= {"data_dir", "run_dir", "seed", "device"}  # the others change what notebooks take
    for done, notebook in enumerate(notebooks):
        left = _left([path.stem for path in notebooks[done:]], folder / "metrics.json") if usual else ""
        print(f"{notebook.stem} started{left}", flush=True)
        started = time.monotonic()
        execute(notebook, folder / notebook.name, parameters, progress_bar=sys.stderr.isatty())
        took[notebook.stem] = time.monotonic() - started
        print(f"{notebook.stem} took {took[notebook.stem]:.0f} s", flush=True)
    print(f"\nIn all {sum(took.values()):.0f} s: {', '.join(f'{name} {took[name]:.0f} s' for name in took)}")
    return folder
