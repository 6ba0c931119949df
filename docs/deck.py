"""From the cells of a notebook to slides, by one rule, so that cells need no marks.

- A heading begins a chapter. Of prose, up to WORDS words go on a slide: first sentences, then those with a new term.
- A question ("**Predict first**") is shown whole, and never together with its answer.
- Each figure, table and function of the helper that the notebook shows has a slide, with the sentence that leads to it;
  a finding or a short table joins the figure or table it follows.
- Of the notebook's own code a few lines are shown: below prose, or with what they print; no set-up.
- An exercise is one slide. What is left out, docstrings, hints and answers become speaker notes.

A cell with the usual `slide_type` "skip" has no slide.
"""

from __future__ import annotations

import ast
import math
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from nbformat import NotebookNode

TABLE = ("|", "<table", "![")  # how a table begins, in Markdown and as pandas writes it, and a picture
WORDS = 60  # of prose on a slide
CAPTION = 40  # words beside a figure or much code
LINES = 20  # of code on a slide
SHORT = 8  # lines of the notebook's own code; beside a table 3
QUESTION = re.compile(r"\*\*(Predict|Think|Look|Try|Guess)\b")
ASIDE = re.compile(r"\*\*(Time|Next)|\*+For learning only")  # the last stands below each slide
SET_UP = re.compile(r"check_parameters\(globals|^record\(", re.MULTILINE)
LEADS = re.compile(r"(Here|Below|Outlined|The same)\b|.*:$", re.DOTALL)
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
ITEM = re.compile(r"((?:[-*]|\d+\.) )(.*)", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z0-9*`“\"(])|(?<=[.!?][*)\"”])\s+|(?<=[.!?]\*\*)\s+")
HELPER = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].glob("covid_utils/*.py"))
MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass
class Slide:
    """What a slide shows, in this order, and what the speaker reads."""

    title: str
    level: int  # 1 the deck's first slide, 2 a chapter's, 3 within a chapter
    text: list[str] = field(default_factory=list)  # Markdown
    code: str = ""
    outputs: list[NotebookNode] = field(default_factory=list)
    after: list[str] = field(default_factory=list)  # below the outputs
    notes: list[str] = field(default_factory=list)


def words(*texts: str) -> int:
    """How many there are; a table or a picture fills a slide."""
    return sum(WORDS if text.startswith(TABLE) else len(text.split()) for text in texts)


def blocks(source: str) -> list[str]:
    """The parts of a Markdown text: headings, paragraphs, items of lists, tables, code."""
    lines, tokens = source.splitlines(), MARKDOWN.parse(source)
    kept = [token for token in tokens if token.level == 0 and token.map and not token.type.endswith("list_open")]
    kept += [token for token in tokens if token.level == 1 and token.type == "list_item_open"]
    return ["\n".join(lines[slice(*token.map)]).strip() for token in sorted(kept, key=lambda token: token.map)]


def sentences(text: str) -> list[str]:
    """Those of a paragraph or an item; a table, code, a question or an exercise (a numbered item) that fits is one."""
    if re.match(r"\||```|!\[", text) or (words(text) <= WORDS and (QUESTION.search(text) or re.match(r"\d+\. ", text))):
        return [text]
    mark, rest = ITEM.fullmatch(text).groups() if ITEM.fullmatch(text) else ("", text)
    first, *others = SENTENCE.split(rest)
    return [mark + first, *others]


def gist(texts: list[str], room: int = WORDS) -> list[str]:
    """Of each text the first sentence and, as `room` allows, those with a term in bold, then those that follow on."""
    parts, kept, total = [sentences(text) for text in texts], set(), 0
    ranked = sorted(
        ((0 if i == 0 or QUESTION.search(sentence) else 1 if "**" in sentence else 2), n, i)
        for n, part in enumerate(parts)
        for i, sentence in enumerate(part)
    )
    for rank, n, i in ranked:
        count = words(parts[n][i])
        if rank == 0 or (total + count <= room and (rank == 1 or (n, i - 1) in kept)):
            kept.add((n, i))
            total += count
    return [" ".join(each for i, each in enumerate(part) if (n, i) in kept) for n, part in enumerate(parts)]


def kind_of(output: NotebookNode) -> str:
    """What an output is for a deck: "figure", "source" (code shown), "sentence" (Markdown), "table" or "text"."""
    data = output.get("data", {})
    if any(name.startswith("image/") for name in data):
        return "figure"
    if "text/markdown" in data:
        return "source" if data["text/markdown"].startswith("```python") else "sentence"
    return "table" if "text/html" in data else "text"


def room_below(slide: Slide, *more: NotebookNode) -> int:
    """How many paragraphs or items still have a place under a slide's figure or table, and under `more` of them."""
    rows = sum(output.get("data", {}).get("text/html", "").count("<tr") for output in (*slide.outputs, *more))
    return 3 - len(slide.text) - len(slide.after) + any("<small>" in each for each in slide.after) - 3 * (rows > SHORT)


class Deck:
    """Slides, made from a notebook's cells one after the other."""

    def __init__(self, cells: list[NotebookNode]):
        self.slides: list[Slide] = []
        self.title, self.chapter, self.level, self.pending, self.begun = "", "", 1, [], False
        for cell in cells:
            tags = cell.metadata.get("tags", [])
            if "solution" in tags:
                self.aside(cell.source)
            elif "exercise" in tags:
                self.flush()
                self.title = self.chapter
            elif cell.metadata.get("slideshow", {}).get("slide_type") != "skip":
                {"markdown": self.prose, "code": self.code}[cell.cell_type](cell)
        self.flush()

    def add(self, text: list[str], **parts) -> Slide:
        self.slides.append(Slide(self.title, self.level, text, **parts))
        self.level = 3
        return self.slides[-1]

    def aside(self, *texts: str) -> None:
        """Words for the speaker, to the last slide."""
        notes = (self.slides[-1] if self.slides else self.add([])).notes
        notes += [re.sub(r"</?(details|summary)>", "\n\n", text) for text in texts]

    def flush(self) -> None:
        """Slides for the prose that has come up, in parts of about the same length."""
        texts, self.pending = self.pending, []
        if self.title.startswith("Exercise") and texts:  # on one slide: its first paragraphs
            shown = gist(texts[: max(1, sum(words(*texts[: n + 1]) <= WORDS for n in range(len(texts))))])
            self.add(shown, notes=[text for text in texts if text not in shown])
            return
        leads = [words(sentences(text)[0]) for text in texts] if words(*texts) > WORDS else [0] * len(texts)
        share, groups = sum(leads) / max(math.ceil((sum(leads) - 15) / WORDS), 1), {}
        for i, text in enumerate(texts):
            groups.setdefault(int((sum(leads[:i]) + leads[i] / 2) / share) if share else 0, []).append(text)
        for group in groups.values():
            shown = gist(group)
            self.add(shown, notes=[full for full, part in zip(group, shown, strict=True) if part != full])

    def prose(self, cell: NotebookNode) -> None:
        for number, block in enumerate(blocks(FOLDED.sub("", cell.source))):
            if ASIDE.match(block):
                self.aside(block)
            elif heading := re.match(r"(#+) (.*)|\*\*([^*]+)\*\*$", block):
                self.flush()
                self.title, self.level = heading[2] or heading[3], len(heading[1] or "###")
                if self.level == 2:
                    self.chapter, self.begun = self.title, True
            elif number or not self.below(block):
                self.pending.append(block)
        if folded := FOLDED.findall(cell.source):
            self.flush()
            self.aside(*folded)

    def lead(self, room: int) -> list[str]:
        """Takes from the prose that has come up what leads to a result; the rest becomes slides."""
        text = []
        if words(*self.pending) <= room and not any(map(QUESTION.search, self.pending)):
            text, self.pending = self.pending, []
        else:
            *rest, end = sentences(self.pending[-1])
            if LEADS.match(end) and words(end) <= CAPTION and not QUESTION.search(end):
                text, self.pending[-1:] = [end], [" ".join(rest)] if rest else []
        self.flush()
        return text

    def code(self, cell: NotebookNode) -> None:
        if SET_UP.search(cell.source) or "parameters" in str(cell.metadata.get("tags")):
            if self.begun and self.pending:
                self.aside(f"*{self.title}*", *self.pending)
                self.pending = []
            return self.flush()
        kinds = [kind_of(output) for output in cell.outputs]
        own = cell.source if len(cell.source.splitlines()) <= (3 if "table" in kinds else SHORT) else ""
        name = re.match(r"(?:@.*\n)?((?:def|class) \w+)", cell.source)
        if not kinds and not own and name and f"\n{name[1]}(" in HELPER:
            self.sources([cell.source])
        elif not kinds and own and self.pending and not any(map(QUESTION.search, self.pending)):
            self.add(self.lead(WORDS), code=own)
        self.sources([output.data["text/markdown"] for output in cell.outputs if kind_of(output) == "source"])
        for output, kind in zip(cell.outputs, kinds, strict=True):
            if kind == "sentence":
                self.sentence(output.data["text/markdown"])
            elif kind == "figure":
                alt = next((each["alt"] for each in output.metadata.values() if "alt" in each), "")
                text = self.lead(CAPTION)
                self.add(text, outputs=[output], after=[] if text or not alt else [f"<small>{alt}</small>"])
            elif kind != "source":
                shown = self.slides[-1].outputs if self.level == 3 and not self.pending else []
                line = kind == "table" and "<tr" not in str(output)  # all that a figure has room for
                follows = 0 < len(shown) < 3 and (line or kind_of(shown[0]) != "figure")
                if follows and (kind == "text" or room_below(self.slides[-1], output) > 0):
                    self.slides[-1].outputs.append(output)
                else:
                    self.add(self.lead(WORDS), code=own, outputs=[output])
                own = ""

    def below(self, text: str) -> bool:
        """Writes a finding below the figure or table that it follows, if there is room; returns whether there was."""
        last, shown = self.slides[-1] if self.slides else Slide("", 1), gist(blocks(text), CAPTION)
        said = shown if last.outputs and kind_of(last.outputs[0]) != "figure" else [*last.text, *shown]
        room = last.outputs and len(shown) <= room_below(last) and words(*said) <= WORDS
        if self.pending or not room or QUESTION.search(text):
            return False
        last.after = [each for each in last.after if "<small>" not in each] + shown
        last.notes += [text] if text != "\n\n".join(shown) else []
        return True

    def sentence(self, text: str) -> None:
        """A result in words: below the figure or table that it follows, or on a slide of its own."""
        if not self.begun:
            self.aside(text)
        elif not self.below(text):
            if any(map(QUESTION.search, self.pending)):
                self.flush()
            self.pending += blocks(text)

    def sources(self, shown: list[str]) -> None:
        """Slides of the functions and classes that a cell shows, several small ones together."""
        parts, said = [], []
        for markdown in shown:
            code, docstrings = without_docstrings(markdown.removeprefix("```python\n").removesuffix("\n```"))
            said += docstrings
            for part in divided(code):
                if parts and len(f"{parts[-1]}\n\n\n{part}".splitlines()) <= LINES:
                    part = f"{parts.pop()}\n\n\n{part}"
                parts.append(part)
        for number, part in enumerate(parts):
            self.add([] if number else self.lead(CAPTION), code=part, notes=[] if number else said)


def without_docstrings(code: str) -> tuple[str, list[str]]:
    """Code without its docstrings, and these, each with its name."""
    code, said = textwrap.dedent(code), []  # a method stands indented
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) and len(node.body) > 1:
            said.append(f"`{node.name}`: {ast.get_docstring(node)}")
            first, last = node.body[0].lineno - 1, node.body[0].end_lineno
            lines[first:last] = [None] * (last - first)
    return "\n".join(line for line in lines if line is not None).strip(), said


def divided(code: str) -> list[str]:
    """Code in parts of at most LINES lines, cut near the middle, where it is indented least or a line is empty."""
    lines = code.splitlines()
    if len(lines) <= LINES:
        return [code]

    def cost(i: int) -> int:
        indent = len(lines[i]) - len(lines[i].lstrip())
        return abs(i - len(lines) // 2) + 2 * indent - 6 * (not lines[i - 1].strip())

    cut = min(range(len(lines) // 4, len(lines) - len(lines) // 4), key=cost)
    return divided("\n".join(lines[:cut]).rstrip()) + divided("\n".join(lines[cut:]))
