"""Exercises of notebook 5: a bootstrap over patients, a threshold, the temperature, two models drawn in pairs."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from covid_utils.labs.calibration import temperature

from .grading import expect, mistake, near, result, wrong_if
from .nb03_transfer import standard_error, votes

DRAWS = 1500


def _bootstrap(answer) -> str:
    """Forty patients of four slices; the draws' spread tells what was drawn."""
    right, _, patients = votes(2)
    form = {"shape": (DRAWS,), "wanted": f"{DRAWS} accuracies"}
    drawn = result(answer, right, patients, DRAWS, np.random.default_rng(5), **form)
    accuracy, spread = right.mean(), drawn.std()
    wrong_if(drawn.max() > 1.001, "percent" if near(drawn.mean(), 100 * accuracy) else "sums")
    wrong_if(spread < 1e-9, "no spread")
    wrong_if(abs(drawn.mean() - accuracy) > 0.02, "off", mean=f"{drawn.mean():.1%}", truth=f"{accuracy:.1%}")
    by_patient = standard_error(right.astype(float), patients)
    by_slice = (accuracy * (1 - accuracy) / len(right)) ** 0.5
    otherwise = "once" if 0.65 < spread / by_patient < 0.9 else "wrong"
    kind = mistake(spread, {"slices": by_slice}, near, otherwise)
    wrong_if(not near(spread, by_patient), kind, spread=100 * spread, honest=100 * by_patient)
    points = f"{100 * spread:.1f} points, is the standard error; slices alone would say {100 * by_slice:.1f}."
    return f"The spread of your draws, {points}"


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
        covid, others = np.sort(logits[labels == 1]), np.sort(logits[labels == 0])
        said = result(answer, logits, labels, wanted, wanted="one number, a logit")
        best = covid[int((1 - wanted) * len(covid) + 1e-9)]
        found, cleared, best_cleared = (covid >= said).mean(), (others < said).mean(), (others < best).mean()
        if found >= wanted - 1e-9 and cleared >= best_cleared - 1e-9:
            continue
        low = others[-1 - int((1 - wanted) * len(others))]
        wrong_if(abs(said - np.quantile(others, wanted)) < 0.1 or abs(said - low) < 1e-9, "specificity")
        wrong_if(abs(said - np.quantile(logits, 1 - wanted)) < 0.1 < abs(said - best), "everybody")
        rates = {"found": f"{found:.1%}", "wanted": f"{wanted:.0%}"}
        wrong_if(found < wanted, "misses", **rates)
        wrong_if(True, "too low", cleared=f"{cleared:.0%}", best=f"{best_cleared:.0%}")
    return "As few false alarms as that sensitivity allows, and no fewer."


def _temperature(answer) -> str:
    """Logits that are too sure, and some that are not sure enough."""
    for seed, scale in ((3, 2.5), (4, 0.4)):
        logits, labels = _scores(seed, scale)
        right = temperature(logits, labels)
        said = result(answer, logits, labels, wanted="one number, the temperature")
        facts = {"said": f"{said:.2f}"}
        wrong_if(scale < 1 and said > 0.9, "narrow", **facts)  # the right one is far below 1
        expect(said, right, {"one": 1.0, "inverse": 1 / right}, near, **facts)
    return "Your number makes the log loss least, for a network that is too sure and for one that is not sure enough."


def _pairs(answer) -> str:
    """The gain of a model in draws of patients, the same ones for both models."""
    right_a, right_b, patients = votes(3)
    for a, b in ((right_a, right_b), (right_b, right_a)):  # at last B is the worse one
        form = {"shape": (DRAWS,), "wanted": f"{DRAWS} differences"}
        drawn = result(answer, a, b, patients, DRAWS, np.random.default_rng(6), **form)
        gain, spread = b.mean() - a.mean(), drawn.std()
        wrong_if(gain < 0 <= drawn.min(), "disagreement")
        wrong_if(abs(drawn.mean() + gain) < 0.03, "sign")
        wrong_if(abs(drawn.mean() - gain) > 0.03, "off", mean=f"{drawn.mean():+.3f}", truth=f"{gain:+.3f}")
        paired = standard_error(b.astype(float) - a, patients)
        unpaired = np.hypot(*(standard_error(each.astype(float), patients) for each in (a, b)))
        otherwise = "slices" if spread < 0.72 * paired else "wrong"
        kind = mistake(spread, {"unpaired": unpaired}, near, otherwise)
        wrong_if(not near(spread, paired), kind, spread=100 * spread, honest=100 * paired)
    return "Each draw has the same patients for both models, so what is hard for both cancels."


GRADERS = {"bootstrap": _bootstrap, "threshold": _threshold, "temperature": _temperature, "pairs": _pairs}
