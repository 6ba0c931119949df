"""The decks: what a slide shows, what becomes speaker notes, and that nothing is lost or fetched."""

import re

import nbformat
import pytest
import slides
from deck import LINES, TABLE, WORDS, Deck, blocks, kind_of, sentences, words

from covid_course.notebooks import find_notebooks

NOTEBOOKS = find_notebooks()
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


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
def test_slides_are_few_and_short_and_a_question_never_stands_with_its_answer(path):
    made = Deck(nbformat.read(path, 4).cells).slides
    assert len(made) <= 40 and not any("COLAB_RELEASE_TAG" in each.code + str(each.text) for each in made)
    for number, slide in enumerate(made, start=1):
        counted = words(*[text for text in slide.text if not text.startswith(TABLE)])
        assert slide.title and counted <= WORDS + 15, f"slide {number} of {path.name} has {counted} words"
        assert len(slide.code.splitlines()) <= LINES, f"slide {number} of {path.name}"
        asks = "**Predict first" in " ".join(slide.text)
        assert not asks or not slide.outputs, f"slide {number} of {path.name} answers its question"


def test_decks_are_whole_files_with_nothing_from_elsewhere(tmp_path):
    decks = slides.write_slides(tmp_path)
    assert (
        [path.name for path in decks]
        == [f"{path.stem}.html" for path in NOTEBOOKS]
        == sorted(path.name for path in tmp_path.iterdir())
    )
    for path, notebook in zip(decks, NOTEBOOKS, strict=True):
        text = path.read_text(encoding="utf-8")
        body = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # in which the speaker's window stands
        assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=[\"'](?!data:)", body), path.name
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text) and "Reveal.initialize" in text
        pictures = re.findall(
            r"!\[([^]]+)\]\(\.\./docs/", "".join(cell.source for cell in nbformat.read(notebook, 4).cells)
        )
        assert all(f'alt="{words}" src="data:image' in body for words in pictures), path.name
        assert '<aside class="notes">' in text and 'alt=""' not in body and body.count("<img") == body.count(' alt="')
        for link in re.findall(r'href="([^"#]+)"', body):
            assert link.startswith("https://") or (tmp_path / link).exists(), f"{path.name} links to {link}"
