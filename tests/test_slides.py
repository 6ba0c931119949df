"""The decks: what a slide shows, what becomes speaker notes, and that nothing is lost or fetched."""

import re

import nbformat
import pytest
import slides
from deck import LINES, TABLE, WORDS, Deck, blocks, kind_of, sentences, words
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from covid_course.notebooks import find_notebooks

NOTEBOOKS = find_notebooks()
PROSE = "One. " + "Two is a sentence of some length, and says nothing. " * 8
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def figure(alt: str = "A figure."):
    return new_output("display_data", {"image/png": "iVBORw0KGgo="}, metadata={"image/png": {"alt": alt}})


def markdown(text: str):
    return new_output("execute_result", {"text/markdown": text})


def deck(*cells):
    """The slides of cells: Markdown as text, code as (source, output …)."""
    code = [cell if isinstance(cell, str) else new_code_cell(cell[0], outputs=list(cell[1:])) for cell in cells]
    return Deck([new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in code]).slides


def test_a_question_never_stands_with_its_answer():
    for answer in (figure(), markdown("It is **7**."), new_output("stream", text="7")):
        asked, answered = deck("## Chapter\n\nText.\n\n**Predict first:** how many?", ("count()", answer))
        assert asked.text == ["Text.", "**Predict first:** how many?"] and not asked.outputs
        assert "how many" not in str(answered.text + answered.after)
    asked, answered = deck("## Chapter\n\nWe train it. **Predict first:** how well?", ("count()", figure()))
    assert "how well" in asked.text[0] and not asked.outputs


def test_a_figure_has_the_sentence_that_leads_to_it_and_the_result_that_follows():
    text, shown = deck(
        f"## Chapter\n\n{PROSE}\n\nMore. Here they are:", ("plot()", figure()), ("say()", markdown("7."))
    )
    assert shown.text == ["Here they are:"] and shown.after == ["7."] and len(shown.outputs) == 1
    assert "More." in text.text and text.notes == [PROSE.strip()]
    (alone,) = deck("## Chapter", ("plot()", figure("Two curves.")))
    assert alone.after == ["<small>Two curves.</small>"], "with no words beside it, those of its alternative text"


def test_code_is_shown_where_it_teaches():
    short, plumbing = "a = 1\nb = 2", "\n".join(f"x{i} = {i}" for i in range(20))
    assert [slide.code for slide in deck("## Chapter\n\nSo:", (short,), (short,), (plumbing,))] == [short]
    assert [slide.code for slide in deck("## Chapter", ("f(1)", new_output("stream", text="1")))] == ["f(1)"]
    assert not deck("## Chapter", ("plot()", figure()))[0].code
    started = deck("# Title\n\nText.", ("settings = check_parameters(globals())",), ("say()", markdown("**phantom**")))
    assert len(started) == 1 and not started[0].code and started[0].notes == ["**phantom**"]
    function = '```python\ndef f(x):\n    """Says it."""\n    return x\n```'
    (shown,) = deck("## Chapter\n\nLook inside:", ("source(f)", markdown(function), markdown(function)))
    assert shown.code == "def f(x):\n    return x\n\n\ndef f(x):\n    return x" and "`f`: Says it." in shown.notes


def test_cells_may_be_skipped_and_solutions_are_for_the_speaker():
    skipped = new_markdown_cell("Not this.", metadata={"slideshow": {"slide_type": "skip"}})
    solution = new_markdown_cell("It is 42.", metadata={"tags": ["solution"]})
    (slide,) = Deck([new_markdown_cell("## Exercise\n\nFind it."), skipped, new_code_cell("find()"), solution]).slides
    assert slide.text == ["Find it."] and slide.notes == ["It is 42."]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two (e.g. this). Three?", ["One.", "Two (e.g. this).", "Three?"]),
        ("**So.** What is it? (Yes.) A 95 % interval.", ["**So.**", "What is it?", "(Yes.)", "A 95 % interval."]),
        ("- Set `a = 1`. What then?", ["- Set `a = 1`.", "What then?"]),
        ("1. Set `a = 1`. What then?", ["1. Set `a = 1`. What then?"]),
        ("**Predict first:** a? b?", ["**Predict first:** a? b?"]),
    ],
)
def test_sentences(text, parts):
    assert sentences(text) == parts


@each
def test_nothing_of_a_notebook_is_lost(path):
    """Each sentence stands on a slide or in its notes, each figure, table and shown function on a slide, in order."""
    cells = nbformat.read(path, 4).cells
    made = Deck(cells).slides
    told = " ".join(" ".join([each.title, *each.text, *each.after, *each.notes]) for each in made)
    told = re.sub(r"\s+", " ", told)
    for cell in cells:
        if cell.cell_type == "markdown":
            for block in blocks(re.sub(r"</?(details|summary)>", "\n\n", cell.source)):
                for sentence in sentences(block.strip("#* ")):
                    assert re.sub(r"\s+", " ", sentence).strip("* ") in told, f"{path.name}: {sentence!r} is nowhere"
    outputs = [output for cell in cells for output in cell.get("outputs", []) if kind_of(output) in ("figure", "table")]
    assert [out for each in made for out in each.outputs if kind_of(out) in ("figure", "table")] == outputs
    functions = re.findall(r"```python\\n.*?def (\w+)", str([cell.get("outputs", []) for cell in cells]))
    assert all(f"def {name}" in "".join(each.code for each in made) for name in functions)


@each
def test_slides_are_short(path):
    for number, slide in enumerate(Deck(nbformat.read(path, 4).cells).slides, start=1):
        counted = words(*[text for text in slide.text if not text.startswith(TABLE)])
        assert slide.title and counted <= WORDS + 15, f"slide {number} of {path.name} has {counted} words"
        assert len(slide.code.splitlines()) <= LINES, f"slide {number} of {path.name}"


def test_decks_are_whole_files_with_nothing_from_elsewhere(tmp_path):
    decks = slides.write_slides(tmp_path)
    assert (
        [path.name for path in decks]
        == [f"{path.stem}.html" for path in NOTEBOOKS]
        == sorted(path.name for path in tmp_path.iterdir())
    )
    for path in decks:
        text = path.read_text(encoding="utf-8")
        body = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # in which the speaker's window stands
        assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=[\"'](?!data:)", body), path.name
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text) and "Reveal.initialize" in text
        assert '<aside class="notes">' in text and 'alt=""' not in body and body.count("<img") == body.count(' alt="')
        for link in re.findall(r'href="([^"#]+)"', body):
            assert link.startswith("https://") or (tmp_path / link).exists(), f"{path.name} links to {link}"
