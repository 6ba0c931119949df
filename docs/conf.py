"""What Sphinx makes the site of (`make site`): README, docs/, the data cards, and the notebooks as committed."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

PROJECT = Path(__file__).resolve().parent.parent

project = "Transfer learning for chest CT"
html_title = project
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
# Pages stay where they lie, so that a link that works on GitHub works on the site.
include_patterns = ["*.md", "docs/*.md", "data/README.md", "data/weights/README.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "runs", "**/.ipynb_checkpoints"]
root_doc = "README"
NOTEBOOKS = [path.relative_to(PROJECT).as_posix() for path in sorted(PROJECT.glob("notebooks/[0-9]*.ipynb"))]
TREE = {  # the side bar
    "The core, in this order": NOTEBOOKS[:5],
    "Deeper, in any order": NOTEBOOKS[5:],
    "Look up": [
        "Glossary <docs/glossary>",
        "docs/use-the-model",
        "docs/reference",
        "docs/api",
        "data/README",
        "data/weights/README",
    ],
    "Measured": ["docs/results", "docs/heat-maps"],
    "In depth": [
        "docs/teaching",
        "docs/reporting",
        "docs/extend",
        "docs/design",
        "docs/maintainers",
        "docs/anywhere",
        "notebooks/train.ipynb",
        "CONTRIBUTING",
        "CHANGELOG",
    ],
}

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # nothing comes from another host
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
default_role = "literal"  # docstrings write code between single backticks
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
highlight_language = "none"  # blocks of commands; those of Python say so

html_theme = "furo"
html_static_path = ["site.css", "site.js"]
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_show_sphinx = html_show_copyright = html_copy_source = False


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Give a page what its file does not hold: the start page the side bar, a notebook folded cells and alt texts."""
    if page == root_doc:
        for caption, pages in TREE.items():
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
    elif page == "docs/api":
        source[0] += rooms()
    elif page.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["metadata"].get("jupyter", {}).get("source_hidden"):
                cell["metadata"].setdefault("tags", []).append("hide-input")  # folded here as in JupyterLab
            for output in cell.get("outputs", []):  # myst-nb takes their words from the cell
                for kind in output.get("metadata", {}).values():
                    if "alt" in kind:
                        cell["metadata"]["mystnb"] = {"image": {"alt": kind["alt"]}}
        source[0] = json.dumps(notebook)


def rooms() -> str:
    """Markdown: the packages and their folders with their modules, each with the first sentence it says of itself."""
    lines, packages = [], ("covid_utils", "covid_course", "ct_phantom")
    for room in sorted(path for package in packages for path in (PROJECT / package).rglob("__init__.py")):
        name = ".".join(room.relative_to(PROJECT).parts[:-1])
        if name != "covid_utils":  # its own modules are what is taught, and listed above
            lines += [f"\n### `{name}`\n", f"{said(room)}\n"]
            lines += [f"- `{path.stem}`: {said(path)}" for path in sorted(room.parent.glob("[!_]*.py"))]
    return "\n".join(lines) + "\n"


def said(path: Path) -> str:
    """The first paragraph of a module's docstring."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n")[0].replace("\n", " ")


def formula(writer, node: nodes.Element) -> None:
    """A formula as MathML, which browsers show without a script."""
    writer.body.append(convert(node.astext(), display="block" if isinstance(node, nodes.math_block) else "inline"))
    raise nodes.SkipNode


def start_page(app: Sphinx, error: Exception | None) -> None:
    """A browser that is given the folder opens the README."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", inline_renderers=(formula, None), block_renderers=(formula, None))
    app.connect("source-read", complete)
    app.connect("build-finished", start_page)
