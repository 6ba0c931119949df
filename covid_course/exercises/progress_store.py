"""What a learner has passed and predicted, in `runs/progress.json`."""

from __future__ import annotations

import itertools
from typing import Any

from covid_utils.core.files import display_path, read_json, resolve, write_json

FILE = "runs/progress.json"
_unwritten: dict[str, Any] = {}  # by path: what could not be written; it lasts until the kernel ends


def read() -> tuple[dict[str, dict], str]:
    """The stored progress, and a sentence if its file was damaged: it is then renamed, not overwritten.

    Returns:
        {"exercises": {name: {"misses", "passed"}}, "predictions": {name: {"said", "was"}}}, and a sentence or "".
    """
    path, empty = resolve(FILE), {"exercises": {}, "predictions": {}}
    if path in _unwritten or not path.exists():
        return _unwritten.get(path, empty), ""
    try:
        content = read_json(path)
    except (ValueError, OSError):
        content = None
    if _is_valid(content):
        return content, ""
    names = (path.with_name(f"progress.damaged-{number}.json") for number in itertools.count(1))
    renamed = next(name for name in names if not name.exists())
    try:
        path.rename(renamed)
    except OSError:
        return empty, f"{display_path(path)} cannot be read."
    return empty, f"{display_path(path)} was damaged: it is now {display_path(renamed)}, and a new one begins."


def write(content: dict[str, dict]) -> str:
    """Store the progress; returns a sentence if that is not possible (a learner can go on all the same), else ""."""
    path = resolve(FILE)
    try:
        write_json(path, content)
    except OSError as error:
        _unwritten[path] = content
        return f"(Your progress lasts only until this kernel ends: {error.__cause__ or error})"
    _unwritten.pop(path, None)
    return ""


def _is_valid(content: Any) -> bool:
    """Whether `content` has the form that `write` gives it."""
    try:
        exercises, predictions = content["exercises"].values(), content["predictions"].values()
        counts = all(type(row["misses"]) is int and isinstance(row["passed"], str) for row in exercises)
        return counts and all("said" in row for row in predictions)
    except (TypeError, KeyError, AttributeError):
        return False
