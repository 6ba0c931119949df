"""Execute notebooks with other parameters, through papermill."""

from __future__ import annotations

import ast
import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable
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
RECORD = PROJECT / "benchmarks" / "results" / "minutes.json"  # recorded runs of the default recipe
KERNEL = "python3"  # the kernel of the Python that runs this
PATIENCE = 60  # seconds in which a kernel has to answer
PARAMETERS = {"more-parameters", "parameters"}  # papermill adds its cell after the second, so that it overrides both


class NotebookError(Exception):
    """A notebook stopped; the message says which, where, why, and which file shows it."""


def loopback() -> None:
    """Raises OSError, in one sentence, if programs on this machine cannot connect to each other."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise OSError(
            f"Notebooks reach their kernels at 127.0.0.1, which does not answer ({error.strerror or error}): switch "
            "the loopback interface on (Linux: 'sudo ip link set lo up'), or allow it in the firewall."
        ) from None


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
    def execute_managed_notebook(cls, nb_man, kernel_name, on_cell=None, **_):
        quiet = ["--log-level=CRITICAL"]  # a warning of the kernel's on its transport is left out
        client = _Client(nb_man, kernel_name=kernel_name, startup_timeout=PATIENCE, extra_arguments=quiet)
        if on_cell:
            client.on_cell_execute = lambda cell, cell_index: on_cell(cell_index + 1, len(nb_man.nb.cells))
        try:
            client.execute()
        except DeadKernelError as error:
            raise NotebookError(
                f"cell In [{client.code_cells_executed}]: its kernel died ({error}), out of memory perhaps: lower "
                "image_size or batch_size, or close other programs and notebooks"
            ) from None


def execute(
    notebook: Path, output: Path, parameters: dict[str, Any], on_cell: Callable[[int, int], None] | None = None
) -> Path:
    """Execute a notebook in its own folder; `output` is written whole, at its end; until then it is `*.failed.ipynb`.

    Args:
        notebook: file to execute.
        output: file to write; its folder is made.
        parameters: checked values; those that the notebook does not declare are left out.
        on_cell: called before each code cell with its number among all cells, and their count.

    Returns:
        `output`.

    Raises NotebookError if a cell fails or the kernel dies; `*.failed.ipynb` is the notebook up to there. OSError, in
    one sentence, if the folder cannot be written to or the disk is full.
    """
    known, failed = declared(notebook), output.with_name(f"{output.stem}.failed.ipynb")
    given = {name: value for name, value in parameters.items() if name in known}
    options = {"kernel_name": KERNEL, "language": "python", "cwd": notebook.parent}
    options |= {"engine_name": "covid_course", "progress_bar": False, "on_cell": on_cell}
    papermill_engines.register("covid_course", _Engine)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it warns of what `declared` reads
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            papermill.execute_notebook(notebook, failed, given, **options)
        except RuntimeError as error:
            if "died" not in str(error):  # it did not answer in time
                raise
            papermill.execute_notebook(notebook, failed, given, **options)  # another program took its port, perhaps
        os.replace(failed, output)
    except (PapermillExecutionError, NotebookError, RuntimeError) as error:
        where = error
        if isinstance(error, PapermillExecutionError):
            where = f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}".strip()
        elif isinstance(error, RuntimeError):
            where = f"the start of its kernel ({error}): close other programs and notebooks, and try again."
        told = f"{notebook.name} stopped at {where}\nThe notebook up to there is {display_path(failed)}."
        raise NotebookError(told) from None
    except OSError as error:
        raise OSError(
            f"Cannot write {display_path(output)}: {error.strerror or error}. Free some space or choose another "
            "run_dir; an earlier notebook there is unchanged."
        ) from error
    return output


class _Progress:
    """Says which notebook starts, at most every 15 seconds which cell runs, and the minutes left for the series."""

    def __init__(self, names: list[str], minutes: dict[str, float]):
        self.name, self.began, self.told = names[0], time.monotonic(), -math.inf
        self.minutes = [minutes.get(name, math.nan) for name in names]
        self.say("starts")

    def say(self, what: str) -> None:
        left = sum(self.minutes) - min((time.monotonic() - self.began) / 60, self.minutes[0])
        known = "" if math.isnan(left) else f", about {math.ceil(left)} min left"
        print(f"{self.name}: {what}{known}", flush=True)

    def cell(self, number: int, cells: int) -> None:
        if time.monotonic() > self.told + 15:
            self.told = time.monotonic()
            self.say(f"cell {number} of {cells}")


def _minutes(folder: Path) -> dict[str, float]:
    """What each notebook takes, by name: as notebook 0 forecast it in this run, before that as recorded elsewhere."""
    recorded = {name: seconds / 60 for run in read_json(RECORD) for name, seconds in run["seconds"].items()}
    metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
    return {"00_start": 0.3} | recorded | metrics.get("machine", {}).get("minutes", {})


def run(notebooks: list[Path], parameters: dict[str, Any]) -> Path:
    """Execute notebooks in order with the same parameters, into their `run_dir`. Returns that folder.

    Prints which one runs, at which cell it is, the time left, and at the end what each took.
    """
    loopback()
    folder, took = resolve(Settings(**parameters).run_dir), {}
    usual = set(parameters) <= {"data_dir", "run_dir", "seed", "device"}  # the others change what notebooks take
    for done, notebook in enumerate(notebooks):
        shown = _Progress([path.stem for path in notebooks[done:]], _minutes(folder) if usual else {})
        execute(notebook, folder / notebook.name, parameters, on_cell=shown.cell)
        took[notebook.stem] = time.monotonic() - shown.began
    print(f"\nIn all {sum(took.values()):.0f} s: {', '.join(f'{name} {took[name]:.0f} s' for name in took)}")
    return folder
