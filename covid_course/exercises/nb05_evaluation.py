"""Exercises of notebook 5: a bootstrap over patients, a threshold, the temperature, two models drawn in pairs."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from covid_utils.labs.calibration import temperature

from .grading import WrongAnswer, array, call
from .nb03_transfer import standard_error, votes

DRAWS = 1500


def _bootstrap(answer) -> str:
    """Forty patients of four slices; the draws' spread tells what was drawn."""
    right, _, patients = votes(2)
    rng = np.random.default_rng(5)
    drawn = array(call(answer, right.copy(), patients.copy(), DRAWS, rng), (DRAWS,), f"{DRAWS} accuracies")
    if drawn.max() > 1.001:
        raise WrongAnswer("percent" if np.isclose(drawn.mean(), 100 * right.mean(), rtol=0.05) else "sums")
    spread, honest = drawn.std(), standard_error(right.astype(float), patients)
    if spread < 1e-9:
        raise WrongAnswer("no spread")
    naive = (right.mean() * (1 - right.mean()) / len(right)) ** 0.5
    if abs(drawn.mean() - right.mean()) > 0.02:
        raise WrongAnswer("off", mean=f"{drawn.mean():.1%}", truth=f"{right.mean():.1%}")
    if abs(spread / honest - 1) < 0.1:
        points = f"{100 * spread:.1f} points, is the standard error; slices alone would say {100 * naive:.1f}."
        return f"The spread of your draws, {points}"
    if abs(spread / naive - 1) < 0.1:
        raise WrongAnswer("slices", spread=f"{100 * spread:.1f}", honest=f"{100 * honest:.1f}")
    raise WrongAnswer(
        "once" if 0.65 < spread / honest < 0.9 else "wrong", spread=f"{100 * spread:.1f}", honest=f"{100 * honest:.1f}"
    )


def _scores(seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, (N,), that are too sure by `scale`, and labels, 0 or 1; more healthy than ill."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-0.4, 2, 300)
    return true * scale, (rng.random(300) < expit(true)).astype(int)


def _threshold(answer) -> str:
    """The highest threshold at which enough ill slices are found; a logit as high as it is a yes."""
    for seed, wanted, ill in ((0, 0.95, 119), (1, 0.9, 100), (2, 0.8, 118), (5, 0.95, 20)):
        logits, labels = _scores(seed)
        some = (labels == 0) | (labels.cumsum() <= ill)  # of 100 ill ones exactly ten may be missed, of 20 one
        logits, labels = logits[some], labels[some]
        covid, others = np.sort(logits[labels == 1]), logits[labels == 0]
        said = float(array(call(answer, logits.copy(), labels.copy(), wanted), (), "one number, a logit"))
        best = covid[int(np.floor((1 - wanted) * len(covid) + 1e-9))]
        found, best_cleared = (covid >= said).mean(), (others < best).mean()
        if found >= wanted - 1e-9 and (others < said).mean() >= best_cleared - 1e-9:
            continue
        low = np.sort(others)[::-1][int(np.floor((1 - wanted) * len(others)))]
        if np.isclose(said, expit(best), atol=1e-3):
            raise WrongAnswer("probability")
        if abs(said - np.quantile(others, wanted)) < 0.1 or abs(said - low) < 1e-9:
            raise WrongAnswer("specificity")
        if abs(said - np.quantile(logits, 1 - wanted)) < 0.1 and abs(said - best) > 0.1:
            raise WrongAnswer("everybody")
        if abs((covid < said).mean() - wanted) < 0.02:
            raise WrongAnswer("other end", found=f"{found:.0%}", wanted=f"{wanted:.0%}")
        if found < wanted:
            raise WrongAnswer("misses", found=f"{found:.1%}", wanted=f"{wanted:.0%}")
        raise WrongAnswer("too low", cleared=f"{(others < said).mean():.0%}", best=f"{best_cleared:.0%}")
    return "As few false alarms as that sensitivity allows, and no fewer."


def _temperature(answer) -> str:
    """Logits that are too sure, and some that are not sure enough."""
    for seed, scale in ((3, 2.5), (4, 0.4)):
        logits, labels = _scores(seed, scale)
        truth = temperature(logits, labels)
        said = float(array(call(answer, logits.copy(), labels.copy()), (), "one number, the temperature"))
        if np.isclose(said, truth, rtol=0.1):
            continue
        loss = np.logaddexp(0, -(2 * labels - 1) * logits / truth).mean()
        kinds = {
            "one": (1.0, 0.1),
            "loss": (loss, 0.001),
            "inverse": (1 / truth, 0.1),
            "logarithm": (np.log(truth), 0.1),
        }
        near = next((kind for kind, (each, far) in kinds.items() if np.isclose(said, each, rtol=far)), "")
        near = "place" if said > 20 and said == round(said) else near
        narrow = said > 0.9 and scale < 1  # only temperatures above 1 were tried
        raise WrongAnswer(("narrow" if narrow and seed == 4 else near) or "wrong", said=f"{said:.2f}")
    return "Your number makes the log loss least, for a network that is too sure and for one that is not sure enough."


def _pairs(answer) -> str:
    """The gain of a model in draws of patients, the same ones for both models."""
    a, b, patients = votes(3)
    _pair(answer, a, b, patients)
    return _pair(answer, b, a, patients)  # now B is the worse one


def _pair(answer, a: np.ndarray, b: np.ndarray, patients: np.ndarray) -> str:
    rng = np.random.default_rng(6)
    drawn = array(call(answer, a.copy(), b.copy(), patients.copy(), DRAWS, rng), (DRAWS,), f"{DRAWS} differences")
    gain = b.mean() - a.mean()
    if gain < 0 <= drawn.min():
        raise WrongAnswer("disagreement")
    if abs(drawn.mean() + gain) < 0.03:
        raise WrongAnswer("sign")
    if abs(drawn.mean() - gain) > 0.03:
        raise WrongAnswer("off", mean=f"{drawn.mean():+.3f}", truth=f"{gain:+.3f}")
    spread, honest = drawn.std(), standard_error(b.astype(float) - a, patients)
    if abs(spread / honest - 1) < 0.1:
        return "Each draw has the same patients for both models, so what is hard for both cancels."
    apart = np.hypot(*(standard_error(each.astype(float), patients) for each in (a, b)))
    kind = "unpaired" if abs(spread / apart - 1) < 0.12 else "slices" if spread < 0.72 * honest else "wrong"
    raise WrongAnswer(kind, spread=f"{100 * spread:.1f}", honest=f"{100 * honest:.1f}")


GRADERS = {"bootstrap": _bootstrap, "threshold": _threshold, "temperature": _temperature, "pairs": _pairs}
