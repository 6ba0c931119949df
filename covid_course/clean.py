"""The committed notebooks: executed anew, and cleaned for git."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import nbformat
import PIL.Image
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor

from covid_utils.core.files import replace_file

from .notebooks import KERNEL, find_notebooks, run


def clean_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it belongs in git: cells and outputs, nothing of the machine or the moment.

    Drops what papermill added, timings, widgets (views and state) and Python's patch version, merges prints,
    packs pictures, numbers the cells anew, and validates. Cleaning twice changes nothing.
    """
    TagRemovePreprocessor(remove_cell_tags={"injected-parameters"}).preprocess(notebook, {})
    for cell in notebook.cells:  # nbconvert's ClearMetadataPreprocessor clears code cells only
        kept = {key: cell.metadata[key] for key in ("jupyter", "slideshow", "editable") if key in cell.metadata}
        tags = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("papermill")]
        cell.metadata = kept | ({"tags": tags} if tags else {})  # what an author sets by hand
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number if cell.source else None
        cell.outputs = [output for output in cell.outputs if not _invisible(output)]
        for output in cell.outputs:
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                output.data[kind] = _packed(output.data[kind])
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": KERNEL},
        "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
    }
    nbformat.validate(notebook)
    return notebook


def _invisible(output: dict) -> bool:
    """Whether a reader has no use for it: a widget, which needs a kernel, what a progress line leaves, or `waiting`."""
    data, waiting = output.get("data", {}), output.get("metadata", {}).get("waiting")
    return waiting or "application/vnd.jupyter.widget-view+json" in data or data == {"text/plain": ""}


def _packed(text: str) -> str:
    """A picture in base64: a JPEG at most 1000 pixels wide, a PNG without transparency, in at most 256 colours."""
    picture, packed = PIL.Image.open(io.BytesIO(base64.b64decode(text))), io.BytesIO()
    if picture.mode == "P" or (picture.format == "JPEG" and picture.width <= 1000):
        return text
    if picture.format == "JPEG":
        picture.thumbnail((1000, 2000), PIL.Image.Resampling.LANCZOS)
        picture.save(packed, "JPEG", quality=50)
    else:
        picture.convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def refresh() -> list[Path]:
    """Execute the committed notebooks anew, with their own parameters, and clean them: all, or none changes.

    They run in an empty home of their own, so that nothing old is shown as new. NotebookError if one fails.
    """
    notebooks = find_notebooks()
    with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, COVID_UTILS_HOME=empty):
        folder = run(notebooks, {})
        texts = [_formatted(clean_notebook(nbformat.read(folder / path.name, 4)), path) for path in notebooks]
    for path, text in zip(notebooks, texts, strict=True):
        replace_file(path, lambda temporary, text=text: temporary.write_bytes(text.encode()))
    return notebooks


def _formatted(notebook: nbformat.NotebookNode, path: Path) -> str:
    """The text of a notebook's file, its code in ruff's format."""
    call = [sys.executable, "-m", "ruff", "format", "--quiet", f"--stdin-filename={path}", "-"]
    text = subprocess.run(call, input=nbformat.writes(notebook), capture_output=True, encoding="utf-8", check=True)
    return text.stdout.rstrip("\n") + "\n"
