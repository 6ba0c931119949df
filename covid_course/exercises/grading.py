"""How an exercise is graded: its kinds of mistakes with their hints, and how an answer is tried on hidden inputs."""

from __future__ import annotations

import ctypes
import dataclasses
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from covid_utils.core.device import seeded
from covid_utils.core.files import PROJECT

LIMIT = 20  # seconds that an answer may take; a right one needs less than one
PACKAGES = tuple(str(PROJECT / name) for name in ("covid_course", "covid_utils", "ct_phantom"))
FOREIGN = (*PACKAGES, *sysconfig.get_paths().values())  # code that a learner did not write


class WrongAnswer(Exception):
    """A mistake of a known kind; `facts` fill the placeholders in its hint."""

    def __init__(self, kind: str, **facts: Any):
        super().__init__(kind)
        self.kind, self.facts = kind, facts


@dataclasses.dataclass(frozen=True)
class Exercise:
    """What a check needs to know.

    Attributes:
        title: the task, in a few words.
        minutes: how long it takes.
        grader: takes the answer; returns a sentence of praise, or raises `WrongAnswer`.
        hints: {kind of mistake: (what is wrong, how to fix it)}; the second from the second wrong answer on.
    """

    title: str
    minutes: int
    grader: Callable[[Any], str]
    hints: dict[str, tuple[str, str]]


COMMON = {
    "untried": ("there is nothing to check so far.", "Put your code in place of `...` and run the cell again."),
    "function": (
        "the function itself is expected, not what it returns.",
        "Write its name without brackets, as in `check(…, my_function)`.",
    ),
    "nothing": ("your function returns nothing.", "Let it end with `return` and the result."),
    "form": (
        "your function returns {got}, but {wanted} was expected.",
        "Look at its `.shape`, or at the `len()` of a list, before you return it.",
    ),
    "stopped": (
        "your code stopped in {where}: {error}",
        "Call your function in a cell of its own, with a small input, to see the whole message.",
    ),
    "unreadable": ("your answer is not of the expected form ({error}).", "Compare it with the text above."),
    "slow": (
        f"your code ran for more than {LIMIT} seconds and was stopped.",
        "Does a loop never end? Look at its condition.",
    ),
}


def grade(exercise: Exercise, answer: Any, misses: int = 0) -> tuple[str, str]:
    """Try an answer on the hidden inputs of an exercise.

    Args:
        exercise: the task.
        answer: a function or a value.
        misses: the number of wrong answers before; if there were any, the hint is a stronger one.

    Returns:
        the kind of the mistake, "" if there is none, and the text to show.
    """
    try:
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if answer is ...:
                raise WrongAnswer("untried")
            return "", run_with_limit(LIMIT, lambda: exercise.grader(answer))
    except WrongAnswer as wrong:
        kind, facts = wrong.kind, wrong.facts
    except TimeoutError:
        kind, facts = "slow", {}
    except (Exception, SystemExit) as error:  # a learner's code may raise anything
        kind, facts = _stopped(error)
    hint, stronger = (COMMON | exercise.hints)[kind]
    if kind == "untried" and not misses:  # no hint before the first try
        stronger = COMMON["untried"][1]
    return kind, (f"{hint} {stronger}" if misses or kind == "untried" else hint).format(**facts)


def _stopped(error: BaseException) -> tuple[str, dict[str, str]]:
    """An exception in one sentence, with the last line of the learner's own code in its traceback."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
    own = [step for step in traceback.extract_tb(error.__traceback__) if not step.filename.startswith(FOREIGN)]
    if not own:
        return "unreadable", {"error": text}
    line = f"line {own[-1].lineno}" + (f", `{own[-1].line}`" if own[-1].line else "")
    return "stopped", {"where": line, "error": text.rstrip(".") + "."}


def run_with_limit(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work()` returns or raises; TimeoutError after so many seconds, and its thread is stopped."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except (Exception, SystemExit) as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        return future.result(seconds)
    finally:  # too slow, or the kernel was interrupted
        if not future.done():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def call(function: Callable, *arguments: Any) -> Any:
    """What the learner's function returns. Raises WrongAnswer if it is no function, a starter, or returns None."""
    if not callable(function):
        raise WrongAnswer("function")
    answer = function(*arguments)
    if answer is None or answer is ...:
        raise WrongAnswer("untried" if answer is ... else "nothing")
    return answer


def array(value: Any, shape: tuple[int, ...], wanted: str) -> np.ndarray:
    """A number, list, array or tensor as an array of this shape. Raises WrongAnswer ("form") if it is none."""
    try:
        found = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except Exception:
        found = np.array(None)
    if found.dtype.kind not in "biuf" or found.shape != shape:
        raise WrongAnswer("form", got=_described(value), wanted=wanted)
    return found


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays agree up to rounding."""
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-4, atol=1e-5)


def mistake(found: Any, results: dict[str, Any], equal: Callable = same, otherwise: str = "wrong") -> str:
    """The first kind of mistake whose result is `equal` to what was found; `otherwise` if there is none."""
    return next((kind for kind, result in results.items() if equal(found, result)), otherwise)


def _described(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and type {value.dtype}"
    return f"a {type(value).__name__}" + (f" of length {len(value)}" if hasattr(value, "__len__") else "")
