"""The site as it is built: whole, with links that lead somewhere, and with nothing from another host."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from covid_course.notebooks import find_notebooks
from covid_utils.core.files import PROJECT

LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("img", "srcset")}


class Page(HTMLParser):
    """What a page loads and links to, its anchors, and its pictures' words."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.loads, self.links, self.ids, self.pictures = set(), set(), set(), []
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.loads |= {value for name, value in attributes if (tag, name) in LOADED}
        self.links |= {given["href"]} if tag == "a" and given.get("href") else set()
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self.pictures += [given.get("alt")] if tag == "img" else []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, made as `make site` makes it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", "-d", folder / "trees", ".", folder / "site"]
    ended = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_links_and_anchors_lead_somewhere(site, pages):
    checked = 0
    for path, page in pages.items():
        for link in page.links | page.loads:
            address = urlsplit(link)
            if address.scheme in ("http", "https", "data", "mailto"):
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.is_file() and target.is_relative_to(site), f"{path.name} links to {link}, which is not there"
            if address.fragment and target.suffix == ".html":
                ids = pages[target].ids
                assert unquote(address.fragment) in ids, f"{path.name} links to {link}: there is no such place"
            checked += 1
    assert checked > 1000


def test_nothing_comes_from_another_host(site, pages):
    for path, page in pages.items():
        assert not [each for each in page.loads if re.match(r"(https?:)?//", each)], path.name
        assert not re.search(r"<script[^>]*>[^<]*(mathjax|require\.js|cdn)", page.text, re.IGNORECASE), path.name
        assert "$-" not in page.text, "a formula that no script will set"
    for path in site.rglob("*.css"):
        styles = path.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", styles), path.name


def test_the_course_is_on_it(site, pages):
    start = pages[site / "index.html"]
    assert "<h1>Transfer learning for chest CT, hands on" in start.text and len(start.pictures) == 1
    for name in "results heat-maps maintainers reference design reporting teaching glossary api".split():
        assert f"docs/{name}.html" in start.links, f"{name} is not in the side bar"
    for path in find_notebooks():
        page = pages[site / "notebooks" / f"{path.stem}.html"]
        said = []
        for cell in nbformat.read(path, 4).cells:
            said += re.findall(r"!\[([^]]+)\]\(", cell.source) if cell.cell_type == "markdown" else []
            kinds = [kind for output in cell.get("outputs", []) for kind in output.get("metadata", {}).values()]
            said += [kind["alt"] for kind in kinds if "alt" in kind]
        assert page.pictures == said and said, f"{path.name}: figures, each with its alternative text, in order"
    assert "ground" in (site / "searchindex.js").read_text(encoding="utf-8")
