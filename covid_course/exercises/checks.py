"""What a learner calls: `check`, `predict_first`, `you_said`, `my_progress`."""

from __future__ import annotations

import datetime
import html
import re
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from IPython.display import display
from pydantic import BaseModel

from covid_utils.core.files import did_you_mean, display_path, resolve, write_json

from .grading import grade

FILE = "runs/progress.json"  # what a learner has passed and predicted
GREEN, ORANGE, BLUE = "#009E73", "#D55E00", "#0072B2"  # colour-blind safe, readable on white and on black
TEXTS = yaml.safe_load(Path(__file__).with_name("exercises.yaml").read_text(encoding="utf-8"))
COMMON = TEXTS.pop("common")
MODULES = [import_module(f".{path.stem}", __package__) for path in sorted(Path(__file__).parent.glob("nb*.py"))]
GRADERS = {name: grader for module in MODULES for name, grader in module.GRADERS.items()}
EXERCISES = {name: texts for notebook in TEXTS.values() for name, texts in notebook["exercises"].items()}
PREDICTIONS = {name: title for notebook in TEXTS.values() for name, title in notebook["predictions"].items()}
LISTS = (list, tuple, set, np.ndarray)


class Attempts(BaseModel):
    """Wrong answers since the last right one, and the date of the first right one, "" if there was none."""

    misses: int = 0
    passed: str = ""


class Progress(BaseModel):
    """All exercises that were tried, and all predictions: {name: {"said": guess, "was": result once it is known}}."""

    exercises: dict[str, Attempts]
    predictions: dict[str, dict[Literal["said", "was"], Any]]


def check(name: str, answer: Any) -> None:
    """Try an answer on hidden inputs; if it is wrong, show a hint, and from the second miss on a stronger one.

    Raises ValueError if there is no exercise of this name.
    """
    if name not in EXERCISES:
        raise ValueError(f"There is no exercise {name!r}: {did_you_mean(name, EXERCISES)}")
    progress, message = _read()
    row = progress.exercises.get(name, Attempts())
    kind, text = grade(GRADERS[name], COMMON | EXERCISES[name]["hints"], answer, row.misses)
    if kind != "untried":  # an unchanged starter is no wrong answer
        row.misses = row.misses + 1 if kind else 0
        row.passed = row.passed if kind or row.passed else datetime.date.today().isoformat()
        progress.exercises[name] = row
        message += _write(progress)
    if row.misses > 2:
        text += " The solution is folded below; in a copy without solutions, ask your teacher."
    if kind == "untried":
        show("Exercise:", text, BLUE, message, waiting=True)
    else:
        show("Not yet:" if kind else "Right.", text, ORANGE if kind else GREEN, message)


def predict_first(name: str, guess: Any) -> None:
    """Store a guess (a number, a word or a list), which `you_said` later compares with the result."""
    title = _title(name)
    if guess is ... or guess is None:
        show("Predict:", f"type your guess in place of `...` and run this cell again ({title}).", BLUE, waiting=True)
        return
    progress, message = _read()
    progress.predictions[name] = {"said": list(guess) if isinstance(guess, LISTS) else guess}
    show("Kept:", f"you say **{_words(guess)}** ({title}).", BLUE, message + _write(progress))


def you_said(name: str, value: Any, unit: str = "") -> None:
    """Show a result (a number, a word or a list, as the guess was) with its unit, such as " %", next to the guess."""
    text = f"**{_words(value, unit)}** ({_title(name)})."
    progress, message = _read()
    prediction = progress.predictions.get(name)
    if not prediction:
        show("Measured:", text, BLUE, message)
        return
    said, prediction["was"] = prediction["said"], value
    show("You said:", f"{_words(said, unit)}. Measured: {text}", BLUE, message + _write(progress))


def my_progress(notebook: str = "") -> pd.DataFrame | None:
    """A row for each exercise and prediction, of one notebook ("01" to "09") or all; None if nothing has been done."""
    if notebook and notebook not in TEXTS:
        raise ValueError(f"There is no notebook {notebook!r}: {did_you_mean(notebook, TEXTS)}")
    progress, message = _read()
    if message:
        show("Attention:", message, ORANGE)
    rows = []
    for number in [notebook] if notebook else TEXTS:
        for name, title in TEXTS[number]["predictions"].items():
            row, state = progress.predictions.get(name), "open"
            if row:
                state = f"you said {_words(row['said'])}" + (f", it was {_words(row['was'])}" if "was" in row else "")
            rows.append([number, f"predict: {title}", "", state])
        for name, texts in TEXTS[number]["exercises"].items():
            row, state = progress.exercises.get(name), "open"
            if row:
                state = f"passed, {row.passed}" if row.passed else f"missed {row.misses} times so far"
            rows.append([number, texts["title"], texts["minutes"], state])
    if all(state == "open" for *_, state in rows):
        show("Progress:", f"0 of {len(rows)} exercises and predictions are done.", BLUE, waiting=True)
        return None
    return pd.DataFrame(rows, columns=["notebook", "exercise", "minutes", "done"]).set_index("notebook")


def _read() -> tuple[Progress, str]:
    """The stored progress, and a sentence if its file was damaged and therefore renamed, else ""."""
    path, empty = resolve(FILE), Progress(exercises={}, predictions={})
    try:
        return (Progress.model_validate_json(path.read_bytes()) if path.exists() else empty), ""
    except ValueError:
        renamed = path.replace(path.with_name("progress.damaged.json"))
        return empty, f"{display_path(path)} was damaged: it is now {display_path(renamed)}, and a new one begins."


def _write(progress: Progress) -> str:
    """Store the progress; returns a sentence if that is not possible, else ""."""
    try:
        write_json(resolve(FILE), progress.model_dump())
    except OSError as error:
        return f"(Your progress was not stored: {error.__cause__ or error})"
    return ""


def _title(name: str) -> str:
    if name not in PREDICTIONS:
        raise ValueError(f"There is nothing named {name!r} to predict: {did_you_mean(name, PREDICTIONS)}")
    return PREDICTIONS[name]


def _words(value: Any, unit: str = "") -> str:
    """A guess or a result as text."""
    if isinstance(value, LISTS):
        return ", ".join(_words(each, unit) for each in value) or "none"
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        return str(value)
    return f"{value:.0f}{unit}" if abs(value) >= 1000 else f"{value:.3g}{unit}"


def show(word: str, text: str, colour: str, message: str = "", waiting: bool = False) -> None:
    """Display a box; its first word says the same as its colour. `code`, **bold** and *italics* are as in Markdown.

    `waiting`: it only says that nothing has been entered, so the published notebooks are without it (`clean`).
    """
    text = f"{text} {message}".strip()
    parts = re.split(r"`([^`]+)`", html.escape(text, quote=False))  # every second one is code
    for i, part in enumerate(parts):
        strong = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", part)
        parts[i] = f"<code>{part}</code>" if i % 2 else re.sub(r"\*([^*]+)\*", r"<em>\1</em>", strong)
    style = f"border-left: 6px solid {colour}; padding: 0.3em 0.8em"
    page = f'<div role="status" style="{style}"><strong>{word}</strong> {"".join(parts)}</div>'
    data = {"text/html": page, "text/plain": f"{word} {text}".replace("**", "")}
    display(data, raw=True, metadata={"waiting": True} if waiting else {})
