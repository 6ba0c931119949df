"""Tables of what recorded runs found (`benchmarks/results`), as the notebooks show them; and what a run records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..core.files import PROJECT, read_json
from ..evaluation import mean_over_seeds, percent
from ..training import best_epoch
from .calibration import verdict

STARTS = {  # models of the recorded accuracies, as the notebooks call them
    "grey histogram": "grey histogram, no network",
    "scratch": "ResNet-18, random",
    "bundled": "ResNet-18, drawings",
    "lite0 scratch": "EfficientNet-Lite0, random",
    "lite0 bundled": "EfficientNet-Lite0, drawings",
    "lite0 continued": "EfficientNet-Lite0, photographs, then drawings",
    "imagenet frozen": "EfficientNet-Lite0, photographs",
    "imagenet": "EfficientNet-Lite0, photographs, all learns",
    "imagenet, longer": "EfficientNet-Lite0, photographs, 160 pixels",
    "continued, longer": "EfficientNet-Lite0, photographs, then drawings, 160 pixels",
}
KINDS = {"drawn slices": "phantom", "real slices": "sars-cov-2-ct"}
GAINS = {"transfer": "ResNet-18, drawings", "imagenet": "EfficientNet-Lite0, photographs"}


def read(name: str) -> Any:
    """The content of a file of recorded runs, such as "phantom"."""
    return read_json(PROJECT / "benchmarks" / "results" / f"{name}.json")


def cached_copies() -> pd.DataFrame:
    """What it costs to keep a few augmented copies of the features: a row per number of copies (`trunk_cache.py`)."""
    runs = pd.DataFrame(read("trunk_cache"))
    runs["accuracy"] = _values(runs.accuracy)
    accuracy, seconds = (runs.pivot(index="seed", columns="copies", values=name) for name in ("accuracy", "seconds"))
    names = {0: "none: anew each epoch", 1: "1 copy"}
    rows = {}
    for count in accuracy:
        gain = mean_over_seeds(accuracy[count] - accuracy[0])
        rows[names.get(count, f"{count} copies")] = {
            "test accuracy, %": f"{100 * accuracy[count].mean():.1f}",
            "difference": percent(gain, signed=True) if count else "",
            "times as fast": f"{(seconds[0] / seconds[count]).median():.1f}",
        }
    return pd.DataFrame(rows).T.rename_axis(f"kept ({len(accuracy)} seeds)")


def stages_that_learn() -> pd.DataFrame:
    """Validation accuracy and time by the first stage that learns, a row for each (`search.py`)."""
    tried, rows = pd.DataFrame(read("search")), {}
    for stage in ("last", "layer3", "layer2", "all"):
        recipe = f"backbone=efficientnet_lite0 weights=imagenet trainable={stage} batch_size=16 learning_rate=0.002"
        runs = tried[(tried.dataset == "phantom") & (tried.recipe == recipe)]
        if len(runs):
            rows[stage] = {
                "validation accuracy, %": f"{100 * runs.best.mean():.1f}",
                "lowest": f"{100 * runs.best.min():.1f}",
                "highest": f"{100 * runs.best.max():.1f}",
                "seconds on one core": f"{runs.seconds.median():.0f}",
            }
    return pd.DataFrame(rows).T.rename_axis("trainable")


def source_findings() -> pd.DataFrame:
    """How well the near source names its twelve findings, by its own start: mean AUC on patients it has not seen."""
    found = {}
    for name in ("efficientnet_lite0", "efficientnet_lite0_imagenet"):
        notes = read_json(PROJECT / "data" / "weights" / f"{name}.json")
        found[notes["start"]] = f"{np.mean(list(notes['held_out_auc'].values())):.2f}"
    names = {"scratch": "random weights", "imagenet": "photographs"}
    return pd.DataFrame({"mean AUC of the findings": found}).rename(names).rename_axis("start of the near source")


def accuracies(name: str, part: str = "test") -> pd.DataFrame:
    """Accuracies of the recorded runs on a data set: a row per seed, a column per model (`accuracy.py`).

    `part`: "test", or "val" for those of validation slices at the best epoch, which models that learn nothing lack.
    """
    runs = pd.DataFrame(read(name))
    runs = runs[runs.split == "patient"]
    runs = runs.assign(test=_values(runs.test.str["accuracy"]), val=runs.get("val_accuracy"))
    return runs.pivot(index="seed", columns="model", values=part)


def starts() -> pd.DataFrame:
    """Of each start, on drawn and on real slices: mean accuracy, and how far it is ahead of a random ResNet-18."""
    both = {}
    for kind, name in KINDS.items():
        found = accuracies(name)
        rows = {}
        for model in [model for model in STARTS if model in found]:
            gain = mean_over_seeds((found[model] - found.scratch).dropna())
            rows[STARTS[model]] = {
                "accuracy, %": f"{100 * found[model].mean():.1f}",
                "minus ResNet-18, random": percent(gain, signed=True) if model != "scratch" else "",
                "seeds": found[model].count(),
            }
        both[kind] = pd.DataFrame(rows).T
    return pd.concat(both, axis=1).reindex(STARTS.values()).dropna(how="all").fillna("")


def best_starts() -> pd.DataFrame:
    """The pretrained start that validation slices choose, drawn and real; its gain on test slices, and what that is."""
    rows = {}
    for kind, name in KINDS.items():
        found, chosen = accuracies(name), accuracies(name, "val")
        ahead = chosen.drop(columns=chosen.filter(regex="scratch|histogram|neighbour")).mean().idxmax()
        gain = mean_over_seeds((found[ahead] - found.scratch).dropna())
        rows[kind, STARTS[ahead]] = {
            "minus ResNet-18, random": percent(gain, signed=True),
            "that is": verdict(gain),
        }
    return pd.DataFrame(rows).T.rename_axis(["", "best pretrained start, on validation"])


def gain_by_slices() -> pd.DataFrame:
    """Accuracy minus that of a ResNet-18 from scratch, by the number of real training slices (`learning_curve.py`).

    Only runs of the shortest budget of epochs: the same for all.
    """
    runs = pd.DataFrame(read("learning_curve"))
    runs["accuracy"] = _values(runs.test.str["accuracy"])
    shortest = runs.slices.map(runs[runs.epochs > 0].groupby("slices").epochs.min())
    equal = runs[runs.epochs == shortest].pivot(index=["slices", "seed"], columns="model", values="accuracy")
    columns = {}
    for name in [name for name in GAINS if name in equal]:
        pairs = (equal[name] - equal.scratch).dropna().groupby("slices")
        seeds = pairs.size().max()
        columns[f"{GAINS[name]}, {seeds} seeds"] = {
            slices: percent(mean_over_seeds(gain), signed=True) for slices, gain in pairs
        }
    return pd.DataFrame(columns).rename_axis("training slices")


def ways_to_fine_tune() -> pd.DataFrame:
    """Layer-wise rates and gradual unfreezing against one rate for all stages (`craft.py`)."""
    runs = pd.DataFrame(read("craft"))
    best = runs.pivot(index="seed", columns="way", values="best")[runs.way.unique()]
    rows = {}
    for way in best:
        gain = mean_over_seeds(best[way] - best["one rate"])
        rows[way] = {
            "validation accuracy, %": f"{100 * best[way].mean():.1f}",
            "minus one rate": percent(gain, signed=True) if way != "one rate" else "",
            "that is": verdict(gain) if way != "one rate" else "",
        }
    return pd.DataFrame(rows).T.rename_axis(f"all stages learn ({len(best)} seeds)")


def spread() -> pd.DataFrame:
    """How far the test accuracy spreads, in points, when one thing changes at a time (`variance.py`)."""
    runs = pd.DataFrame(read("variance"))
    value = 100 * _values(runs.accuracy)
    error = 100 * (runs.accuracy.str["high"] - runs.accuracy.str["low"]) / 4
    rows = {}
    for name, held in (("the network's seed", runs.patients), ("the patients (drawn and split anew)", runs.network)):
        found = value[held == 0]
        rows[name] = [f"{found.min():.1f} to {found.max():.1f}", f"{found.std():.1f}"]
    rows["the test patients (one run's standard error)"] = ["", f"{error.mean():.1f}"]
    columns = ["test accuracy, %", "standard deviation, points"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("only this changes")


def better_answers() -> pd.DataFrame:
    """What a mirror image and several networks add to one network's answer, by split (`better_answers.py`)."""
    gains = pd.DataFrame(read("better_answers")["gains"])
    gains["part"] = gains.part.map({"val": "validation", "test": "test"})
    rows = {}
    for key, some in gains.groupby(["way", "part"], sort=False):
        mean = mean_over_seeds(_values(some.accuracy))
        shown = some.accuracy.map(lambda gain: percent(gain, signed=True))
        rows[key] = dict(zip(some.split.map("split {}".format), shown, strict=True))
        rows[key] |= {"mean over splits": percent(mean, signed=True), "that is": verdict(mean)}
    return pd.DataFrame(rows).T


def summary(scores: dict, confusion: list, history: pd.DataFrame) -> dict:
    """What `runs.records.record` keeps of a trained network: test scores, best epoch, seconds of training."""
    return {
        "test": scores,
        "confusion": confusion,
        "best_epoch": best_epoch(history),
        "seconds": history.seconds.sum(),
    }


def _values(scores: pd.Series) -> pd.Series:
    """The values of scores with intervals, float (N,)."""
    return scores.str["value"].astype(float)
