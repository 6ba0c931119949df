"""Execute notebooks with other parameters, through papermill, and clean them for git."""

from __future__ import annotations

import ast
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from .files import PROJECT, replace_file, resolve, shown
from .settings import FIELDS, Settings, check_names

NOTEBOOKS = PROJECT / "notebooks"
KERNEL = "python3"  # the kernel of the Python that runs this


class NotebookError(RuntimeError):
    """A notebook stopped; the message says which, where, why, and what file shows it."""


# --------------------------------------------------------------------------------------------- parameters


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


def read_profile(path: str | Path) -> dict[str, Any]:
    """The parameters of a YAML file, `name: value` in every line, checked as those of the command line are.

    All values are read as text first, so that 1e-4 is a number and 017 is 17.
    Raises ValueError, naming the file, if it can't be read.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read the profile {path}: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"The profile {path} must hold a line `name: value` for every parameter.")
    try:
        return typed(content)
    except ValueError as error:
        raise ValueError(f"Profile {path}: {error}") from None


def typed(texts: dict[str, str]) -> dict[str, Any]:
    """Parameters given as text, as the types that `Settings` wants.

    Raises ValueError, naming the parameter, if a name is unknown or a value wrong.
    """
    check_names(texts)
    values: dict[str, Any] = dict(texts)
    for name, text in texts.items():
        kind = FIELDS[name].type
        try:
            if kind in ("int", "float"):
                values[name] = {"int": int, "float": float}[kind](text)
            elif kind == "bool" and str(text).lower() in ("true", "false"):
                values[name] = text.lower() == "true"
        except (ValueError, TypeError):
            pass  # Settings says what is wrong with it
    Settings(**values)
    return values


def declared(notebook: Path) -> set[str]:
    """The names in the notebook's cell tagged `parameters`. Raises ValueError if it has no such cell.

    (papermill's own look at them leaves out lines with a `=` in their comment.)
    """
    for cell in nbformat.read(notebook, 4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            return {part.id for part in ast.walk(ast.parse(cell.source)) if isinstance(part, ast.Name)}
    raise ValueError(f"{notebook} has no cell tagged 'parameters': it can't be given any.")


# ---------------------------------------------------------------------------------------------- execution


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


papermill_engines.register("course", _Engine)


def execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> Path:
    """Execute a notebook in its own folder and write it to `output`, when it has come to its end.

    Args:
        notebook: file to execute.
        output: file to write; its folder is made.
        parameters: checked values; those that the notebook does not declare are left out.

    Raises NotebookError if a cell fails or the kernel dies; `*.failed.ipynb` is the notebook up to there.
    """
    notebook, output = Path(notebook), Path(output)
    known = declared(notebook)
    parameters = {name: value for name, value in parameters.items() if name in known}
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    partial = output.with_name(f".{output.stem}.{os.getpid()}.ipynb")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    cells = nbformat.read(notebook, 4).cells
    try:
        with Line(notebook.stem, len(cells) + bool(parameters)) as line:
            for attempt in ("first", "second"):
                try:
                    papermill.execute_notebook(
                        notebook,
                        partial,
                        parameters,
                        kernel_name=KERNEL,
                        cwd=notebook.parent,
                        progress_bar=False,
                        engine_name="course",
                        line=line,
                    )
                    break
                except (RuntimeError, DeadKernelError):
                    # Two kernels that start at once may pick the same port: try a start again.
                    if line.done or attempt == "second":
                        raise
        os.replace(partial, output)
        failed.unlink(missing_ok=True)
    except PapermillExecutionError as error:
        where = f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}".strip()
        raise _failure(notebook, partial, failed, where) from None
    except (RuntimeError, DeadKernelError) as error:
        where = f"cell {line.done + 1} of {line.cells}: its kernel died, out of memory perhaps ({error})"
        raise _failure(notebook, partial, failed, where) from None
    finally:
        partial.unlink(missing_ok=True)
    return output


def _failure(notebook: Path, partial: Path, failed: Path, where: str) -> NotebookError:
    """The error to raise, after giving the partly executed notebook its name."""
    seen = ""
    if partial.exists():
        os.replace(partial, failed)
        seen = f"\nThe notebook up to there is {shown(failed)}."
    return NotebookError(f"{notebook.name} stopped at {where}{seen}")


def run(notebooks: list[Path], parameters: dict[str, Any]) -> Path:
    """Execute notebooks in order with the same parameters, into their `run_dir`. Returns that folder."""
    folder = resolve(Settings(**parameters).run_dir)
    for notebook in notebooks:
        execute(notebook, folder / notebook.name, parameters)
    return folder


# ------------------------------------------------------------------------------------------ clean notebooks


def clean_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it belongs in git: cells and outputs, nothing of the machine or the moment.

    Drops what papermill added, timings, widgets (views and state) and Python's patch version, merges prints,
    numbers the cells anew, and validates. Cleaning twice changes nothing.
    """
    cells = []
    for cell in notebook.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("papermill")]
        if "injected-parameters" in tags:
            continue
        kept = {key: cell.metadata[key] for key in ("jupyter", "slideshow", "editable") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept | ({"tags": tags} if tags else {}))
        if cell.cell_type == "code":
            cell.outputs = _clean_outputs(cell.outputs)
            cell.execution_count = sum(done.cell_type == "code" for done in cells) + 1 if cell.source else None
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
        cells.append(cell)
    notebook.cells = cells
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": KERNEL},
            "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
        }
    )
    nbformat.validate(notebook)
    return notebook


def _clean_outputs(outputs: list) -> list:
    """Outputs without widgets, with the prints of one stream in one piece."""
    clean: list = []
    for output in outputs:
        data = output.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data or data == {"text/plain": ""}:
            continue  # a widget can't be shown without a kernel; an empty text is what a progress line leaves
        output.pop("transient", None)
        if output.output_type == "stream" and clean and clean[-1].get("name") == output.name:
            clean[-1].text += output.text
        else:
            clean.append(output)
    return clean


def refresh() -> list[Path]:
    """Execute the committed notebooks anew, with their own parameters, and clean them: all, or none changes.

    They run in an empty home of their own, so that nothing old is shown as new.
    """
    notebooks, clean = find_notebooks(), {}
    with tempfile.TemporaryDirectory() as empty:
        os.environ["COVID_UTILS_HOME"] = empty
        try:
            folder = run(notebooks, {})
            executed_notebooks = [nbformat.read(folder / notebook.name, 4) for notebook in notebooks]
        finally:
            del os.environ["COVID_UTILS_HOME"]
    for notebook, executed in zip(notebooks, map(clean_notebook, executed_notebooks), strict=True):
        form = [sys.executable, "-m", "ruff", "format", "--quiet", f"--stdin-filename={notebook}", "-"]
        text = subprocess.run(form, input=nbformat.writes(executed), capture_output=True, encoding="utf-8", check=True)
        clean[notebook] = text.stdout if text.stdout.endswith("\n") else text.stdout + "\n"
    for notebook, text in clean.items():
        replace_file(notebook, lambda temporary, text=text: temporary.write_bytes(text.encode()))
    return notebooks
