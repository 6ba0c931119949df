"""How an exercise is graded: its kinds of mistakes with their hints, and how an answer is tried on hidden inputs."""

from __future__ import annotations

import copy
import sysconfig
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from covid_utils.core.device import seeded
from covid_utils.core.files import PROJECT

PACKAGES = tuple(str(PROJECT / name) for name in ("covid_course", "covid_utils", "ct_phantom"))
KNOWN = {"slice indices must be integers": "float", "does not require grad": "no grad"}  # {message: kind}
FOREIGN = (*PACKAGES, *sysconfig.get_paths().values())  # code that a learner did not write


class WrongAnswer(Exception):
    """A mistake of a known kind; `facts` fill the placeholders in its hint."""

    def __init__(self, kind: str, **facts: Any):
        super().__init__(kind)
        self.kind, self.facts = kind, facts


def grade(
    grader: Callable[[Any], str], hints: dict[str, tuple[str, str]], answer: Any, misses: int = 0
) -> tuple[str, str]:
    """Try an answer, a function or a value, on the hidden inputs of an exercise.

    Args:
        grader: takes the answer; returns a sentence of praise, or raises `WrongAnswer`.
        hints: {kind of mistake: (what is wrong, how to fix it)}; the second only after `misses` wrong answers.

    Returns the kind of the mistake, "" if there is none, and the text to show.
    """
    try:
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong_if(answer is ..., "untried")
            return "", grader(answer)
    except WrongAnswer as wrong:
        kind, facts = wrong.kind, wrong.facts
    except KeyboardInterrupt:  # the kernel's stop button
        kind, facts = "endless", {}
    except (Exception, SystemExit) as error:  # a learner's code may raise anything
        kind, facts = _stopped(error)
    hint, stronger = hints[kind]
    if kind == "untried" and not misses:  # no hint before the first try
        return kind, f"{hint} Put your code in place of `...` and run the cell again."
    return kind, (f"{hint} {stronger}" if misses else hint).format(**facts)


def _stopped(error: BaseException) -> tuple[str, dict[str, str]]:
    """An exception in one sentence, with the last line of the learner's own code in its traceback."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
    if "boolean subtract" in text:  # numpy advises bitwise_xor, which counts losses as gains
        text = f"{type(error).__name__}: convert both with `.astype(float)` before subtracting"
    own = [step for step in traceback.extract_tb(error.__traceback__) if not step.filename.startswith(FOREIGN)]
    if not own:
        return "unreadable", {"error": text}
    line = f"line {own[-1].lineno}" + (f", `{own[-1].line}`" if own[-1].line else "")
    kind = next((kind for message, kind in KNOWN.items() if message in text), "stopped")
    return kind, {"where": line, "error": text.rstrip(".") + "."}


def call(function: Callable, *inputs: Any) -> Any:
    """What the learner's function returns. Raises WrongAnswer if it is no function, a starter, or returns None."""
    wrong_if(not callable(function), "function")
    answer = function(*inputs)
    wrong_if(answer is ..., "untried")
    wrong_if(answer is None, "nothing")
    return answer


def array(value: Any, shape: tuple[int, ...], wanted: str) -> np.ndarray:
    """A number, list, array or tensor as an array of this shape. Raises WrongAnswer ("form") if it is none."""
    try:
        found = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except Exception:
        found = np.array(None)
    wrong_if(found.dtype.kind not in "biuf" or found.shape != shape, "form", got=_described(value), wanted=wanted)
    return found[()]


def result(
    function: Callable, *inputs: Any, shape: tuple[int, ...] = (), wanted: str = "a single number"
) -> np.ndarray:
    """What the learner's function returns for copies of the inputs, as an array of this shape (or a number)."""
    return array(call(function, *copy.deepcopy(inputs)), shape, wanted)


def same(one: Any, other: Any) -> bool:
    """Whether two arrays or numbers agree up to rounding."""
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-4, atol=1e-5)


def near(one: Any, other: Any) -> bool:
    """Whether two numbers agree up to 10 %."""
    return bool(np.isclose(one, other, rtol=0.1))


def mistake(found: Any, mistakes: dict[str, Any], equal: Callable = same, otherwise: str = "wrong") -> str:
    """The first kind of mistake whose result, or one of a tuple of them, is `equal` to what was found."""
    for kind, results in mistakes.items():
        if any(equal(found, each) for each in (results if isinstance(results, tuple) else (results,))):
            return kind
    return otherwise


def expect(found: Any, right: Any, mistakes: dict[str, Any], equal: Callable = same, **facts: Any) -> None:
    """Raise WrongAnswer, of the kind of `mistake`, unless what was found is `equal` to the right result."""
    wrong_if(not equal(found, right), mistake(found, mistakes, equal), **facts)


def wrong_if(condition: Any, kind: str, **facts: Any) -> None:
    """Raise WrongAnswer of this kind if the condition is true."""
    if condition:
        raise WrongAnswer(kind, **facts)


def _described(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and type {value.dtype}"
    return f"a {type(value).__name__}" + (f" of length {len(value)}" if hasattr(value, "__len__") else "")
