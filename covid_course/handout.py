"""Learner's and teacher's copies of the notebooks, from the one source: by the tags of their cells."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from covid_utils.core.files import PROJECT, replace_file

from .clean import clean_notebook
from .notebooks import find_notebooks

EXERCISE, SOLUTION = "exercise", "solution"  # a starter cell that ends with `check(…)`; the folded text after it
CODE = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)


def learners_copy(notebook: NotebookNode) -> NotebookNode:
    """Without solutions and without outputs, so that "predict first" has nothing below it."""
    notebook = _emptied(notebook)
    notebook.cells = [cell for cell in notebook.cells if not _tagged(cell, SOLUTION)]
    return notebook


def teachers_copy(notebook: NotebookNode) -> NotebookNode:
    """With the solutions in the place of the starters, so that every check passes when it is run.

    Raises ValueError if a starter has no check or no solution with code after it.
    """
    notebook, starter = _emptied(notebook), None
    for cell in [*notebook.cells, None]:
        if starter is not None and (cell is None or _tagged(cell, EXERCISE)):
            raise ValueError(f"No solution follows the exercise {starter.source.splitlines()[-1]}.")
        if cell is not None and _tagged(cell, EXERCISE):
            starter = cell
        elif cell is not None and _tagged(cell, SOLUTION) and starter is not None:
            starter.source = solved(starter.source, cell.source)
            starter = None
    return notebook


def solved(starter: str, solution: str) -> str:
    """The source of a starter cell with the code of its solution, and the starter's own check."""
    code, checks = CODE.search(solution), re.findall(r"^check\(.*\)$", starter, re.MULTILINE)
    if not code or len(checks) != 1:
        raise ValueError(f"An exercise needs one line with check(…), and a solution with python code: {starter!r}.")
    return f"{code[1]}\n\n\n{checks[0]}"


def write_handouts(folder: Path = PROJECT / "build" / "handout") -> Path:
    """Write both copies of every notebook into `folder`/learner and `folder`/teacher. Returns the folder."""
    for path in find_notebooks():
        notebook = nbformat.read(path, 4)
        for name, made in (("learner", learners_copy(notebook)), ("teacher", teachers_copy(notebook))):
            for cell in made.cells:  # the handouts lie two folders deeper than the notebooks
                cell.source = (
                    cell.source.replace("](../", "](../../../") if cell.cell_type == "markdown" else cell.source
                )
            text = nbformat.writes(clean_notebook(made)) + "\n"
            replace_file(folder / name / path.name, lambda file, text=text: file.write_text(text, encoding="utf-8"))
    return folder


def _emptied(notebook: NotebookNode) -> NotebookNode:
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _tagged(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])
