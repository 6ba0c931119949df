"""A deck of slides for each notebook: `python docs/slides.py` writes build/slides/, a file each, for any browser."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import sphinx_revealjs
from deck import Deck, Slide
from latex2mathml.converter import convert
from nbconvert import SlidesExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from covid_course.notebooks import find_notebooks
from covid_utils.core.files import PROJECT, replace_file

REVEAL = Path(sphinx_revealjs.__file__).parent / "_static" / "revealjs"  # the package is here for its copy of reveal.js
FILES = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js")


def write_slides(folder: Path = PROJECT / "build" / "slides") -> list[Path]:
    """Write a deck for each notebook, all of it in one file. Returns the files."""
    exporter = SlidesExporter(
        template_file="slides.html.j2",
        extra_template_paths=[str(Path(__file__).parent)],
        exclude_input=True,
        exclude_output_prompt=True,
        embed_images=True,
    )
    reveal = {Path(name).name: (REVEAL / name).read_text(encoding="utf-8") for name in FILES}
    decks = []
    for path in find_notebooks():
        slides = Deck(nbformat.read(path, 4).cells).slides
        resources = {"metadata": {"name": slides[0].title, "path": str(PROJECT)}, "files": reveal}
        text, _ = exporter.from_notebook_node(as_notebook(slides), resources)
        decks.append(folder / f"{path.stem}.html")
        replace_file(decks[-1], lambda file, text=text: file.write_text(text, encoding="utf-8"))
    return decks


def as_notebook(slides: list[Slide]) -> nbformat.NotebookNode:
    """Slides as a notebook with the `slide_type`s that nbconvert knows; a chapter's slides stand below each other."""
    cells = []
    for slide in slides:
        title = f"{'#' * min(slide.level, 2)} {slide.title}"
        code = [f"```python\n{slide.code}\n```"] if slide.code else []
        cells.append(text_cell("slide" if slide.level < 3 else "subslide", title, *slide.text, *code))
        cells += [new_code_cell(outputs=slide.outputs)] if slide.outputs else []
        cells += [text_cell("-", *slide.after)] if slide.after else []
        cells += [text_cell("notes", *slide.notes)] if slide.notes else []
    return new_notebook(cells=cells)


def text_cell(kind: str, *texts: str) -> nbformat.NotebookNode:
    """A Markdown cell; formulas become MathML, links to notebooks lead to decks, links to other files are words."""
    text = re.sub(r"\]\((\d\w+)\.ipynb\)", r"](\1.html)", "\n\n".join(texts))
    text = re.sub(r"(!\[[^\]]*\]\()\.\./", r"\1", text)  # nbconvert puts pictures below the project's folder inside
    text = re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|\d\w+\.html)[^)]+\)", r"\1", text)
    text = re.sub(r"\$([^$\n]+)\$", lambda formula: convert(formula[1]), text)
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


if __name__ == "__main__":
    for each in write_slides():
        print(each)
    print("In a browser: S opens the speaker notes, O the overview, F fills the screen, ? lists all keys.")
