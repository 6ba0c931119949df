"""What a check is made of: an exercise, its kinds of mistakes with their hints, and how an answer is tried."""

from __future__ import annotations

import ctypes
import dataclasses
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from covid_utils.core.device import repeatable
from covid_utils.core.files import PROJECT

LIMIT = 20  # seconds that an answer may take; a right one needs less than one
FOREIGN = (str(PROJECT / "covid_utils"), *sysconfig.get_paths().values())  # code that a learner did not write


class Miss(Exception):
    """A mistake of a known kind; `facts` fill the gaps in its hint."""

    def __init__(self, kind: str, **facts: Any):
        super().__init__(kind)
        self.kind, self.facts = kind, facts


@dataclasses.dataclass(frozen=True)
class Exercise:
    """What a check needs to know.

    Attributes:
        title: what is to be done, in a few words.
        minutes: how long that takes.
        judge: takes the answer; returns a sentence of praise, or raises a `Miss`.
        hints: {kind of mistake: (what is wrong, what to do about it)}; the second from the second miss on.
    """

    title: str
    minutes: int
    judge: Callable[[Any], str]
    hints: dict[str, tuple[str, str]]


COMMON = {
    "untried": ("there is nothing to check so far.", "Put your code in place of `...` and run the cell again."),
    "function": (
        "the function itself is wanted, not what it returns.",
        "Write its name without brackets, as in `check(…, my_function)`.",
    ),
    "nothing": ("your function returns nothing.", "Let it end with `return` and the result."),
    "form": (
        "what comes back is {got}, but {wanted} was asked for.",
        "Look at its `.shape`, or at the `len()` of a list, before you return it.",
    ),
    "stopped": (
        "your code stopped in {where}: {error}",
        "Call your function in a cell of its own, with a small input, to see the whole message.",
    ),
    "unreadable": ("your answer cannot be read as what was asked for ({error}).", "Compare it with the text above."),
    "slow": (
        f"your code ran for more than {LIMIT} seconds and was stopped.",
        "Does a loop never end? Look at its condition.",
    ),
}


def judged(exercise: Exercise, answer: Any, misses: int = 0) -> tuple[str, str]:
    """Try an answer on the hidden inputs of an exercise.

    Args:
        exercise: what is asked.
        answer: a function or a value.
        misses: how often it was missed before; if it was, the hint is a stronger one.

    Returns:
        the kind of the mistake, "" if there is none, and what to say.
    """
    try:
        with repeatable(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if answer is ...:
                raise Miss("untried")
            return "", within(LIMIT, lambda: exercise.judge(answer))
    except Miss as miss:
        kind, facts = miss.kind, miss.facts
    except TimeoutError:
        kind, facts = "slow", {}
    except (Exception, SystemExit) as error:  # whatever the learner's code does wrong is an answer, too
        kind, facts = _stopped(error)
    hint, stronger = (COMMON | exercise.hints)[kind]
    if kind == "untried" and not misses:  # nothing is given away before the first try
        stronger = COMMON["untried"][1]
    return kind, (f"{hint} {stronger}" if misses or kind == "untried" else hint).format(**facts)


def _stopped(error: BaseException) -> tuple[str, dict[str, str]]:
    """An exception in one sentence, with the last line of the learner's own code that it passed through."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
    own = [step for step in traceback.extract_tb(error.__traceback__) if not step.filename.startswith(FOREIGN)]
    if not own:
        return "unreadable", {"error": said}
    line = f"line {own[-1].lineno}" + (f", `{own[-1].line}`" if own[-1].line else "")
    return "stopped", {"where": line, "error": said.rstrip(".") + "."}


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work()` returns or raises; TimeoutError after so many seconds, and its thread is told to stop."""
    found: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            found.append((True, work()))
        except (Exception, SystemExit) as error:
            found.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:  # too slow, or somebody pressed stop
        late = thread.is_alive()
        if late:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
            thread.join(1)
    if late:
        raise TimeoutError
    right, value = found[0]
    if right:
        return value
    raise value


def ask(function: Callable, *arguments: Any) -> Any:
    """What the learner's function answers. Raises Miss if it is no function, still the starter, or answers nothing."""
    if not callable(function):
        raise Miss("function")
    answer = function(*arguments)
    if answer is None or answer is ...:
        raise Miss("untried" if answer is ... else "nothing")
    return answer


def array(value: Any, shape: tuple[int, ...], wanted: str) -> np.ndarray:
    """A number, list, array or tensor as an array of this shape. Raises Miss ("form") if it is none."""
    try:
        found = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except Exception:
        found = np.array(None)
    if found.dtype.kind not in "biuf" or found.shape != shape:
        raise Miss("form", got=_described(value), wanted=wanted)
    return found


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays agree but for rounding."""
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-4, atol=1e-5)


def _described(value: Any) -> str:
    if hasattr(value, "shape"):
        return (
            f"an array of shape {tuple(value.shape)} and type {value.dtype}" if hasattr(value, "dtype") else "a table"
        )
    return f"a {type(value).__name__}" + (f" of length {len(value)}" if hasattr(value, "__len__") else "")
