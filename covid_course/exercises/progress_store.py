"""What a learner has passed and predicted, in `core/progress.json`."""

from __future__ import annotations

import os
from typing import Any

from covid_utils.core.files import display_path, read_json, resolve, write_json

FILE = "core/progress.json"
_unwritten: dict[str, Any] = {}  # what a folder that cannot be written to does not keep: it lasts as long as the kernel


def read() -> tuple[dict[str, dict], str]:
    """What is kept, {"exercises": {name: {"misses", "passed"}}, "predictions": {name: {"said", "was"}}}.

    Also a sentence if the file was damaged: it is then put aside, not overwritten.
    """
    path, empty = resolve(FILE), {"exercises": {}, "predictions": {}}
    if path in _unwritten:
        return _unwritten[path], ""
    if not path.exists():
        return empty, ""
    try:
        content = read_json(path)
    except (ValueError, OSError):
        content = None
    if _whole(content):
        return content, ""
    aside = next(name for i in range(1, 10_000) if not (name := path.with_name(f"progress.damaged-{i}.json")).exists())
    try:
        os.replace(path, aside)
    except OSError:
        return empty, f"{display_path(path)} cannot be read."
    return empty, f"{display_path(path)} was damaged: it is now {display_path(aside)}, and a new one begins."


def write(content: dict[str, dict]) -> str:
    """Keep it; returns a sentence if that is not possible (the learner goes on all the same), else ""."""
    path = resolve(FILE)
    try:
        write_json(path, content)
    except OSError as error:
        _unwritten[path] = content
        return f"(Your progress lasts only until this kernel ends: {error.__cause__ or error})"
    _unwritten.pop(path, None)
    return ""


def _whole(content: Any) -> bool:
    """Whether it is what `write` wrote."""
    try:
        exercises, predictions = content["exercises"].values(), content["predictions"].values()
        counts = all(type(row["misses"]) is int and isinstance(row["passed"], str) for row in exercises)
        return counts and all("said" in row for row in predictions)
    except (TypeError, KeyError, AttributeError):
        return False
