"""Learner's and teacher's copies of the notebooks, from the one source: by the tags of their cells."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor
from nbformat import NotebookNode

from covid_utils.core.files import PROJECT, replace_file

from .clean import clean_notebook
from .notebooks import find_notebooks

EXERCISE, SOLUTION = "exercise", "solution"  # a starter cell that ends with `check(…)`; the folded text after it
CODE = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)


def learners_copy(notebook: NotebookNode) -> NotebookNode:
    """Without solutions and without outputs, so that "predict first" has nothing below it."""
    notebook, _ = ClearOutputPreprocessor().preprocess(copy.deepcopy(notebook), {})
    notebook.cells = [cell for cell in notebook.cells if SOLUTION not in cell.metadata.get("tags", [])]
    return notebook


def teachers_copy(notebook: NotebookNode) -> NotebookNode:
    """With the solutions in the place of the starters, so that every check passes when it is run.

    Raises ValueError, which shows the starter, if it has no check or no solution with code after it.
    """
    notebook, _ = ClearOutputPreprocessor().preprocess(copy.deepcopy(notebook), {})
    cells = [cell for cell in notebook.cells if {EXERCISE, SOLUTION} & set(cell.metadata.get("tags", []))]
    for starter, after in itertools.pairwise([*cells, {"source": ""}]):
        if EXERCISE in starter.metadata.tags:
            starter.source = solved(starter.source, after["source"])
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
            for cell in made.cells:
                if cell.cell_type == "markdown":  # the handouts lie two folders deeper than the notebooks
                    cell.source = cell.source.replace("](../", "](../../../")
            text = nbformat.writes(clean_notebook(made)) + "\n"
            replace_file(folder / name / path.name, lambda file, text=text: file.write_text(text, encoding="utf-8"))
    return folder
