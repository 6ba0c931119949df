"""README, results and teaching guide say what was recorded; their links lead somewhere."""

import importlib
import re

import nbformat
import PIL.Image
import tables
from scipy.stats import binomtest
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from covid_course.notebooks import find_notebooks
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from ct_phantom.patients import draw_patient

TEACHING = (PROJECT / "docs" / "teaching.md").read_text(encoding="utf-8")
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/*.md"), *PROJECT.glob("data/**/*.md")]


def test_tables_are_those_of_the_recorded_results():
    content, all_of_them = tables.tables(), ""
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text, content) == text, f"run benchmarks/tables.py: {page.name} is not up to date"
        all_of_them += text
    assert all(f"<!-- {name} -->" in all_of_them for name in content)
    for name, number in (("difficulty", "98.8"), ("difficulty", "48.6"), ("real-random", "92.0")):
        assert number in TEACHING and number in content[name]


def test_the_walk_in_the_design_notes_runs(tmp_path):
    """From files to a heat map, line by line as the page has it; each name comes from where its comment says."""
    lines = re.search(r"```python\n(.*?)```", (PROJECT / "docs" / "design.md").read_text(), re.DOTALL)[1].splitlines()
    assert len(lines) == 10
    folder, names = tmp_path / "mine", {"cache": tmp_path / "cache"}
    for number in range(24):
        drawn = draw_patient(number, image_size=64, n_slices=1)
        place = folder / ("COVID" if drawn.label else "non-COVID") / f"p{number}"
        place.mkdir(parents=True)
        PIL.Image.fromarray(drawn.images[0]).save(place / "0.png")
    names |= {"folder": folder, "Settings": Settings, "binary_cross_entropy_with_logits": bce}
    for line in lines:
        code, _, comment = line.partition("  # ")
        module = importlib.import_module("covid_utils." + comment.split(":")[0])
        names |= {name: each for name, each in vars(module).items() if name not in names}
        exec(code, names)
    assert names["heat"].shape == (1, 64, 64) and 0 <= names["heat"].min() <= names["heat"].max() <= 1


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
    words = re.findall(r"^### (.+)", (PROJECT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", word.lower()).replace(" ", "-") for word in words}
    for path in find_notebooks():
        linked = set(re.findall(r"docs/glossary\.md#([\w-]+)", path.read_text(encoding="utf-8")))
        assert linked <= anchors, f"{path.name} links to words that the glossary lacks: {linked - anchors}"


def test_the_teaching_guide_names_places_that_exist_and_its_minutes_add_up():
    """ "2 *The test set, once*" is a heading of notebook 2."""
    places = re.findall(r"\b([0-9]) \*([^*]+)\*", TEACHING)
    assert len(places) > 50
    for number, heading in places:
        path = find_notebooks()[int(number)]
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
        headings = re.findall(r"^#+ (.+)$", "\n".join(cells), re.MULTILINE)
        assert heading in headings, f"notebook {number} has no heading {heading!r}"
    plans = re.split(r"^### ", TEACHING.partition("## Four plans")[2].partition("## What students")[0], flags=re.M)[1:]
    assert plans[0].startswith("A talk with a demonstration, 45 minutes") and plans[1].startswith("Ninety minutes")
    for plan, wanted in zip(plans, (45, 90, 210), strict=False):
        assert sum(map(int, re.findall(r"^\| (\d+) \|", plan, re.MULTILINE))) == wanted, plan
    assert all(
        text in TEACHING for text in (f"p = {binomtest(0, 7).pvalue:.3f}", f"p = {binomtest(19, 45).pvalue:.2f}")
    )
