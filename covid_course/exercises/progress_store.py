"""What a learner has passed and predicted, in `runs/progress.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from covid_utils.core.files import display_path, resolve, write_json

FILE = "runs/progress.json"


class Attempts(BaseModel):
    """Wrong answers since the last right one, and the date of the first right one, "" if there was none."""

    misses: int = 0
    passed: str = ""


class Progress(BaseModel):
    """All exercises that were tried, and all predictions: {name: {"said": guess, "was": result once it is known}}."""

    exercises: dict[str, Attempts]
    predictions: dict[str, dict[Literal["said", "was"], Any]]


def read() -> tuple[Progress, str]:
    """The stored progress, and a sentence if its file was damaged and therefore renamed, else ""."""
    path, empty = resolve(FILE), Progress(exercises={}, predictions={})
    try:
        return (Progress.model_validate_json(path.read_bytes()) if path.exists() else empty), ""
    except ValueError:
        renamed = path.replace(path.with_name("progress.damaged.json"))
        return empty, f"{display_path(path)} was damaged: it is now {display_path(renamed)}, and a new one begins."


def write(progress: Progress) -> str:
    """Store the progress; returns a sentence if that is not possible, else ""."""
    try:
        write_json(resolve(FILE), progress.model_dump())
    except OSError as error:
        return f"(Your progress was not stored: {error.__cause__ or error})"
    return ""
