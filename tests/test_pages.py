"""README, results and model card say what was recorded; their links lead somewhere."""

import importlib.util
import re

import pytest

from covid_utils.runs.files import PROJECT

PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += [*PROJECT.glob("docs/*.md"), *PROJECT.glob("data/*.md"), *PROJECT.glob("data/weights/*.md")]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", PROJECT / "benchmarks" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_recorded_results(tables):
    content = tables.tables()
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text, content) == text, f"run benchmarks/tables.py: {page.name} is not up to date"
    assert (PROJECT / "docs" / "heat-maps.jpg").read_bytes() == tables.heat_maps()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
