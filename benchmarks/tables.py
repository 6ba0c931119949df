"""Write the result tables of README.md, docs/ and data/weights/README.md, those of the notebooks, and two pictures.

    .venv/bin/python benchmarks/tables.py

In a page every table stands between two comments, `<!-- name -->` and `<!-- end -->`, and is never edited by hand. The
notebooks read theirs from benchmarks/results/tables. The README's heat maps are taken out of notebook 4.
"""

from __future__ import annotations

import argparse
import re
from base64 import b64decode
from collections.abc import Callable

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
from accuracy import BASELINES
from experiment import RESULTS, read_rows
from heat_maps import NONE
from matplotlib.figure import Figure

from covid_utils.core.files import PROJECT, read_json, replace_file
from covid_utils.core.settings import Settings, typed
from covid_utils.evaluation import mean_over_seeds, percent
from covid_utils.io.datasets import DATASETS
from covid_utils.labs.calibration import verdict
from covid_utils.plotting import BLUE, RED, compact, styled

PAGES = ("README.md", "docs/results.md", "docs/speed.md", "docs/heat-maps.md", "data/weights/README.md")
PAGES = [PROJECT / name for name in PAGES]
MODELS = {
    "1-nearest neighbour": "1-nearest neighbour on pixels (learns nothing)",
    "grey histogram": "logistic regression on the grey histogram",
    "scratch": "ResNet-18 from scratch",
    "scratch, 2400 patients": "ResNet-18 from scratch, 2400 patients",
    "lite0 scratch": "EfficientNet-Lite0 from scratch",
    "bundled": "ResNet-18, bundled weights",
    "lite0 bundled": "EfficientNet-Lite0, bundled weights",
    "lite0 continued": "EfficientNet-Lite0, ImageNet weights, then our drawings",
    "imagenet frozen": "EfficientNet-Lite0, ImageNet weights",
    "imagenet": "EfficientNet-Lite0, ImageNet weights",
    "imagenet, longer": "EfficientNet-Lite0, ImageNet weights",
    "continued, longer": "EfficientNet-Lite0, ImageNet weights, then our drawings",
}
STARTS = {  # the same, as notebook 3 calls them
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
CURVE = {  # what `benchmarks/learning_curve.py` trains, and how it is drawn
    "scratch": ("ResNet-18 from scratch", BLUE, "o"),
    "transfer": ("ResNet-18, bundled weights", RED, "s"),
    "lite0 scratch": ("EfficientNet-Lite0 from scratch", "#56B4E9", "v"),
    "imagenet": ("EfficientNet-Lite0, ImageNet weights", "#E69F00", "D"),
    "grey histogram": ("grey histogram, no network", "grey", "^"),
}
POINTING, PRECISION = "pointing game", "average precision"
WANTED = {  # test accuracy in percent, lowest and highest, that the phantom's program was made for
    ("grey histogram", "patient"): (0, 70),
    ("1-nearest neighbour", "patient"): (0, 70),
    ("1-nearest neighbour", "random"): (85, 100),
    ("scratch", "patient"): (75, 92),
    ("scratch, 2400 patients", "patient"): (97, 100),
}


def read(name: str) -> pd.DataFrame:
    """The recorded rows of a benchmark."""
    return read_rows(RESULTS / f"{name}.csv")


def markdown(rows: list[dict]) -> str:
    """A table with a line per row, their names as its head."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_interval(rows: pd.DataFrame, score: str, number: str = "{:.1f}", factor: float = 100) -> str:
    """ "96.8 (94.9 to 98.3)": means over the rows of a score and of both ends of its interval; "" where it is not."""
    ends = [factor * rows[name].mean() for name in (score, f"{score} low", f"{score} high")]
    return "" if np.isnan(ends[0]) else f"{number} ({number} to {number})".format(*ends)


def with_range(values: pd.Series, number: str = "{:.1f}") -> str:
    """ "90.0 (86.0 to 93.1)": mean, lowest and highest."""
    return f"{number} ({number} to {number})".format(values.mean(), values.min(), values.max())


def gain(table: pd.DataFrame, model: str, against: str) -> dict[str, float]:
    """Mean difference of two columns, paired over the seeds that both have, with its interval."""
    return mean_over_seeds((table[model] - table[against]).dropna())


def by_group(rows: pd.DataFrame, keys: dict[str, str], cells: dict[str, Callable[[pd.DataFrame], object]]) -> str:
    """A line for each group of rows: `keys`, columns and their titles; `cells`, titles and what is said of a group."""
    return markdown(
        [
            dict(zip(keys.values(), key, strict=True)) | {title: cell(mine) for title, cell in cells.items()}
            for key, mine in rows.groupby(list(keys), sort=False)
        ]
    )


# ------------------------------------------------------------------------------------------------ accuracy


def summary(rows: pd.DataFrame, split: str) -> str:
    """A line per model: accuracy, AUC and the gain over the best model from scratch, means over seeds."""
    rows = rows[rows.split == split]
    accuracy = rows.pivot(index="seed", columns="model", values="accuracy")
    scratch = accuracy.filter(regex="scratch$").count()
    validation = rows[rows.model.isin(scratch.index[scratch == scratch.max()])].groupby("model").val_accuracy.mean()
    rival, lines = validation.idxmax(), []
    for name in [name for name in MODELS if name in accuracy]:
        mine = rows[rows.model == name]
        recipe = Settings(**recipe_of(mine.recipe.iloc[0]))
        learns = {"all": "all learns", "last": "`layer4` + head learn"}
        learns = f", {learns.get(recipe.trainable, f'learns from `{recipe.trainable}` on')}"
        pretrained = recipe.weights != "scratch"
        lines.append(
            {
                "test slices": MODELS[name] + (learns if pretrained else ""),
                "px": recipe.image_size,
                "epochs": "–" if name in BASELINES else recipe.epochs,
                "accuracy %": with_interval(mine, "accuracy"),
                "AUC %": with_interval(mine, "auc"),
                "accuracy minus the best from scratch": (
                    percent(gain(accuracy, name, rival), signed=True) if pretrained else ""
                ),
                "seeds": len(mine),
            }
        )
    return (
        f"{markdown(lines)}\n\nMeans over the seeds of the score and both ends of its 95 % interval (bootstrap over "
        f"groups); differences are paired over the seeds, against {MODELS[rival]} (of those from scratch with most "
        "seeds, the best on validation)."
    )


def recipe_of(text: str | float) -> dict:
    """The settings that a recorded recipe changes; none where the cell is empty."""
    return {} if pd.isna(text) else typed(dict(each.split("=") for each in text.split()))


def search(rows: pd.DataFrame) -> str:
    """The recipes that were tried, by their validation accuracy."""
    rows = rows.assign(data=rows.dataset + ", " + rows.split).sort_values(["data", "recipe"], kind="stable")
    rows["recipe"] = "`" + rows.recipe + "`"
    cells = {
        "best epoch, %": lambda mine: f"{100 * mine.best.mean():.1f}",
        "last epoch, %": lambda mine: f"{100 * mine['last'].mean():.1f}",
        "loss": lambda mine: f"{mine.loss.mean():.2f}",
        "seeds": len,
        "seconds, one thread": lambda mine: f"{mine.seconds.median():.0f}",
    }
    return by_group(rows, {"data": "data, split", "recipe": "recipe"}, cells)


def difficulty(rows: pd.DataFrame) -> str:
    """Is the phantom neither trivial nor hopeless? What scores should be and are, over the seeds."""
    lines = []
    for (model, split), (low, high) in WANTED.items():
        found = 100 * rows[(rows.model == model) & (rows.split == split)].accuracy
        if len(found):
            line = {"test accuracy %": f"{MODELS[model]}, {split} split", "wanted": f"{low} to {high}"}
            lines.append(line | {"measured: mean (lowest to highest)": with_range(found), "seeds": len(found)})
    return markdown(lines)


def accuracies(name: str, score: str = "accuracy") -> pd.DataFrame:
    """The recorded accuracies on a data set, patients kept together: a row per seed, a column per model."""
    rows = read(name)
    return rows[rows.split == "patient"].pivot(index="seed", columns="model", values=score)


def starts() -> pd.DataFrame:
    """Of each start, on drawn and on real slices: mean accuracy, and how far it is ahead of a random ResNet-18."""
    both = {}
    for kind, name in KINDS.items():
        found = accuracies(name)
        found = found[[model for model in STARTS if model in found]]
        gains = {model: percent(gain(found, model, "scratch"), signed=True) for model in found}
        scores = {"accuracy, %": (100 * found.mean()).map("{:.1f}".format)}
        scores["minus ResNet-18, random"] = pd.Series(gains | {"scratch": ""})
        both[kind] = pd.DataFrame(scores | {"seeds": found.count().astype(str)})
    table = pd.concat(both, axis=1).reindex(list(STARTS)).dropna(how="all").fillna("")
    return table.rename(STARTS).rename_axis("start")


def best_starts() -> pd.DataFrame:
    """The pretrained start that validation slices choose, drawn and real, and its gain on test slices."""
    rows = []
    for kind, name in KINDS.items():
        chosen = accuracies(name, "val_accuracy")
        best = chosen.drop(columns=chosen.filter(regex="scratch|histogram|neighbour")).mean().idxmax()
        change = gain(accuracies(name), best, "scratch")
        row = {"slices": kind, "best pretrained start, on validation": STARTS[best]}
        rows.append(row | {"minus ResNet-18, random": percent(change, signed=True), "that is": verdict(change)})
    return pd.DataFrame(rows).set_index(["slices", "best pretrained start, on validation"])


def stages_that_learn() -> pd.DataFrame:
    """Validation accuracy and time by the first stage that learns."""
    tried, rows = read("search"), {}
    for stage in ("last", "layer3", "layer2", "all"):
        recipe = f"backbone=efficientnet_lite0 weights=imagenet trainable={stage} batch_size=16 learning_rate=0.002"
        runs = tried[(tried.dataset == "phantom") & (tried.recipe == recipe)]
        if len(runs):
            scores = {"validation accuracy, %": runs.best.mean(), "lowest": runs.best.min(), "highest": runs.best.max()}
            rows[stage] = {name: f"{100 * value:.1f}" for name, value in scores.items()}
            rows[stage]["seconds on one core"] = f"{runs.seconds.median():.0f}"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trainable")


def ways_to_fine_tune() -> pd.DataFrame:
    """Validation accuracy of ways to fine-tune all stages, and their difference to one rate for all."""
    rows = read("fine_tuning")
    best = rows.pivot(index="seed", columns="way", values="best")[rows.way.unique()]
    found = {}
    for way in best:
        change = gain(best, way, "one rate")
        compared = {"minus one rate": percent(change, signed=True), "that is": verdict(change)}
        compared = dict.fromkeys(compared, "") if way == "one rate" else compared
        found[way] = {"validation accuracy, %": f"{100 * best[way].mean():.1f}"} | compared
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(f"all stages learn ({len(best)} seeds)")


def spread() -> pd.DataFrame:
    """How far the test accuracy spreads, in points, when one thing changes at a time."""
    rows, found = read("variance"), []
    error = 100 * (rows["accuracy high"] - rows["accuracy low"]) / 4
    for name, held in (("the network's seed", rows.patients), ("the patients (drawn and split anew)", rows.network)):
        value = 100 * rows.accuracy[held == 0]
        found.append((name, f"{value.min():.1f} to {value.max():.1f}", f"{value.std():.1f}"))
    found.append(("the test patients (one run's standard error)", "", f"{error.mean():.1f}"))
    columns = ["only this changes", "test accuracy, %", "standard deviation, points"]
    return pd.DataFrame(found, columns=columns).set_index("only this changes")


def better_answers() -> pd.DataFrame:
    """What a mirror image and several networks gain over one network, by split, and the mean over splits."""
    rows = []
    for (way, part), mine in read("better_answers").groupby(["way", "part"], sort=False):
        row, mean = {"way": way, "slices": part}, mean_over_seeds(mine.accuracy)
        for _, one in mine.iterrows():
            ends = {"value": one.accuracy, "low": one["accuracy low"], "high": one["accuracy high"]}
            row[f"split {one.split}"] = percent(ends, signed=True)
        row |= {"mean over splits": percent(mean, signed=True), "that is": verdict(mean)}
        rows.append(row | {"AUC": f"{100 * mine.auc.mean():+.1f}"})
    return pd.DataFrame(rows)


def kept_copies() -> pd.DataFrame:
    """Accuracy and time of the default transfer run by the number of kept copies of the features."""
    rows = read("trunk_cache")
    accuracy, seconds = (rows.pivot(index="seed", columns="copies", values=name) for name in ("accuracy", "seconds"))
    epochs = {key: mine.iloc[0] for key, mine in rows.groupby(["copies", "seed"])}
    found = []
    for copies in accuracy:
        sooner = [times_sooner(epochs[0, seed], epochs[copies, seed]) for seed in accuracy.index]
        found.append(
            {
                "copies kept": copies or "none",
                "test accuracy %, mean (lowest to highest)": with_range(100 * accuracy[copies]),
                "difference, paired over seeds": percent(gain(accuracy, copies, 0), signed=True) if copies else "",
                "seconds, median": f"{seconds[copies].median():.0f}",
                "the same validation accuracy: times as fast": f"{np.median(sooner):.1f}" if copies else "",
                "times as fast": f"{(seconds[0] / seconds[copies]).median():.1f}",
            }
        )
    return pd.DataFrame(found)


def times_sooner(one: pd.Series, other: pd.Series) -> float:
    """How many times as fast the other run first had the validation accuracy that both reach."""
    runs = [[np.fromstring(run[name], sep=" ") for name in ("val_accuracy", "epoch_seconds")] for run in (one, other)]
    goal, took = min(accuracy.max() for accuracy, _ in runs), []
    for run, (accuracy, seconds) in zip((one, other), runs, strict=True):
        before = run.seconds - seconds.sum()  # building the model, features of the validation slices
        took.append(before + seconds[: (accuracy >= goal).argmax() + 1].sum())
    return took[0] / took[1]


def pretraining(files: dict[str, dict]) -> str:
    """How the bundled weights were made and how well they do their own task: a column per file."""
    facts = ("backbone", "start", "slices", "views", "image_size", "seed", "seconds", "machine")
    lines = [
        {"": name.replace("_", " ")} | {file: notes.get(name, "scratch") for file, notes in files.items()}
        for name in facts
    ]
    for finding in next(iter(files.values()))["held_out_auc"]:
        found = {file: notes["held_out_auc"][finding] for file, notes in files.items()}
        lines.append({"": f"AUC on unseen source patients: {finding}"} | found)
    return markdown(lines)


def source_findings() -> pd.DataFrame:
    """How well the near source names its twelve findings, by its own start: mean AUC on patients it has not seen."""
    files = {"random weights": "efficientnet_lite0", "photographs": "efficientnet_lite0_imagenet"}
    notes = {start: read_json(PROJECT / "data" / "weights" / f"{name}.json") for start, name in files.items()}
    found = {start: f"{np.mean(list(each['held_out_auc'].values())):.2f}" for start, each in notes.items()}
    return pd.DataFrame({"mean AUC of the findings": found}).rename_axis("start of the near source")


# ------------------------------------------------------------------------------------------------ few slices


def learning_curve(rows: pd.DataFrame, score: str = "accuracy", longer: bool = False) -> pd.DataFrame:
    """A score of recorded runs of `benchmarks/learning_curve.py`: rows slices and seed, columns models.

    Runs of the common, shortest budget (no epochs: no network); with `longer` the longest of those that had more.
    """
    table = rows.sort_values("epochs")
    shortest = table.slices.map(table[table.epochs > 0].groupby("slices").epochs.min())
    table = table[(table.epochs > shortest) == longer]
    return table.groupby(["slices", "seed", "model"])[score].last().unstack("model")


def gain_by_slices(table: pd.DataFrame, model: str, against: str = "scratch") -> dict[int, dict[str, float]]:
    """For each number of slices: mean difference of two models over seeds, with its 95 % interval (Student's t)."""
    pairs = table.reindex(columns=[model, against]).dropna()  # nothing to pair where one was not measured
    return {slices: gain(each, model, against) for slices, each in pairs.groupby("slices")}


def gains_by_slices() -> pd.DataFrame:
    """Accuracy minus that of a ResNet-18 from scratch, by the number of real training slices: shortest budgets."""
    table, columns = learning_curve(read("learning_curve")), {}
    for model, title in {"transfer": STARTS["bundled"], "imagenet": STARTS["imagenet frozen"]}.items():
        seeds = (table[model] - table.scratch).dropna().groupby("slices").size().max()
        gains = gain_by_slices(table, model)
        columns[f"{title}, {seeds} seeds"] = {n: percent(each, signed=True) for n, each in gains.items()}
    return pd.DataFrame(columns).rename_axis("training slices")


def few_slices(rows: pd.DataFrame, models: list[str], longer: bool = False) -> str:
    """For each number of training slices: means over the seeds, and what pretrained models gain over the first one."""
    scores = {name: learning_curve(rows, name, longer)[models].dropna(how="all") for name in ("accuracy", "auc")}
    titles = {model: CURVE[model.removesuffix(", ResNet-50")][0] for model in models}
    if models[0].endswith("ResNet-50"):
        titles = {model: title.replace("ResNet-18", "ResNet-50") for model, title in titles.items()}
    gains = {
        f"{title}: gain, {'AUC' if score == 'auc' else score}": gain_by_slices(table, model, models[0])
        for model, title in titles.items()
        if "weights" in title
        for score, table in scores.items()
    }
    lines = []
    for slices in scores["accuracy"].index.unique("slices"):
        line = {"training slices": slices}
        for model, title in titles.items():
            means = [100 * table.loc[slices][model].mean() for table in scores.values()]
            line[title] = "–" if np.isnan(means[0]) else " / ".join(f"{mean:.1f}" for mean in means)
        found = {name: each.get(slices) for name, each in gains.items()}
        lines.append(line | {name: percent(each, signed=True) if each else "–" for name, each in found.items()})
    counts = {model: int(scores["accuracy"][model].dropna().groupby("slices").size().min()) for model in models}
    seeds = min(counts[model] for model in models[:2])
    fewer = "".join(f" {titles[model]}: {count} seeds." for model, count in counts.items() if count < seeds)
    return (
        f"{markdown(lines)}\n\nAccuracy / AUC in %, means over {seeds} seeds; gains over {titles[models[0]]}, paired "
        f"over seeds, with 95 % intervals.{fewer}"
    )


@styled
def draw_learning_curve(rows: pd.DataFrame) -> Figure:
    """Accuracy by the number of training slices, each seed a dot, and what transfer gains, paired over seeds.

    Filled: all networks train equally long; hollow: longer (see `learning_curve`).
    """
    equal, longer = 100 * learning_curve(rows), 100 * learning_curve(rows, longer=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4))
    for model in [name for name in CURVE if name in equal]:
        (title, colour, marker), each = CURVE[model], equal[model].dropna()
        left.plot(each.index.get_level_values("slices"), each, marker, color=colour, alpha=0.25, markersize=4)
        left.plot(each.groupby("slices").mean(), color=colour, marker=marker, label=title)
    for model in [name for name in ("scratch", "transfer") if name in longer]:
        (title, colour, marker), means = CURVE[model], longer[model].groupby("slices").mean()
        hollow = {"color": colour, "fillstyle": "none", "markersize": 9}
        left.plot(means, marker, label=f"{title}, trained longer", **hollow)
    left.set(xlabel="training slices", ylabel="test accuracy, %")
    figure.legend(*left.get_legend_handles_labels(), fontsize=9, loc="lower center", ncols=3, frameon=False)
    places = (("transfer", equal, 0.94, "full"), ("transfer", longer, 1.0, "none"), ("imagenet", equal, 1.06, "full"))
    for model, found, shift, fill in places:
        (_, colour, marker) = CURVE[model]
        for slices, each in gain_by_slices(found, model).items():
            right.plot((shift * slices,) * 2, (each["low"], each["high"]), color=colour, linewidth=2)
            right.plot(shift * slices, each["value"], marker, color=colour, fillstyle=fill, markersize=7)
    right.axhline(0, color="grey", linestyle=":")
    right.set(xlabel="training slices", ylabel="minus ResNet-18 from scratch, points")
    right.set_ylim(min(right.get_ylim()[0], -1))  # the line at zero off the axis
    for axis in (left, right):
        axis.set_xscale("log")
        axis.margins(x=0.12)
        counts = equal.index.unique("slices")
        axis.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    figure.tight_layout(rect=(0, 0.12, 1, 1))  # the legend hides no mark
    return figure


# ------------------------------------------------------------------------------------------------ heat maps


def heat_maps(rows: pd.DataFrame) -> str:
    """Which maps point at the lesion: both scores of each map and network on validation patients."""
    rows, lines = rows[(rows.part == "val") & (rows.network != NONE)], []
    for name, mine in rows.groupby("map", sort=False):
        scores = {row.network: f"{100 * row[POINTING]:.0f} / {row[PRECISION]:.2f}" for _, row in mine.iterrows()}
        lines.append({"map, validation patients": name} | scores | {"seconds": f"{mine.seconds.iloc[0]:.1f}"})
    return markdown(lines)


def heat_maps_test(rows: pd.DataFrame) -> str:
    """Each network's map that was best on validation patients, and maps that need no network, on test patients."""
    lines = []
    for network, mine in rows[rows.part != "ROAD"].groupby("network", sort=False):
        test = mine[mine.part == "test"].set_index("map")
        best = mine[mine.part == "val"].set_index("map")[PRECISION].idxmax()
        for name in test.index if network == NONE else dict.fromkeys([best, "layer4 GradCAM"]):
            one = test.loc[[name]]
            line = {"test patients": network, "map, chosen on validation": name}
            line["pointing game %"] = with_interval(one, POINTING, "{:.0f}")
            line["average precision"] = with_interval(one, PRECISION, "{:.2f}", 1)
            lines.append(line | {"seeds": one.seeds.iloc[0]})
    return markdown(lines)


def heat_maps_road(rows: pd.DataFrame) -> str:
    """ROAD's gap of each network's maps on the phantom, means over seeds."""
    cells = {
        "ROAD gap, points": lambda mine: with_interval(mine, "ROAD gap", "{:+.1f}"),
        "seeds with the interval above zero": lambda mine: f"{mine['seeds above zero'].sum()} of {mine.seeds.sum()}",
    }
    return by_group(rows[rows.part == "ROAD"], {"network": "network", "map": "map"}, cells)


def heat_maps_real(rows: pd.DataFrame) -> str:
    """Real slices: ROAD, heat in the lungs, and agreement, means over training seeds of a score and its interval."""
    scores = {
        "ROAD gap, points": ("ROAD gap", "{:+.1f}", 100),
        "heat in the lungs, %": ("energy in lungs", "{:.0f}", 100),
        "beyond a flat map, points": ("beyond a flat map", "{:+.1f}", 100),
        "rank correlation: other seeds": ("agreement, other seeds", "{:+.2f}", 1),
        "with ImageNet, then drawings": ("agreement, ImageNet, then drawings", "{:+.2f}", 1),
        "with ImageNet": ("agreement, ImageNet", "{:+.2f}", 1),
    }
    cells = {title: lambda mine, how=how: with_interval(mine, *how) for title, how in scores.items()}
    return by_group(rows, {"network": "network", "map": "map"}, cells | {"seeds": len})


# ------------------------------------------------------------------------------------------------ others


def leaks(rows: pd.DataFrame) -> str:
    """The share of planted leaks of each kind that the audit finds, and of other slices that it names."""
    real = rows.kind + " (" + rows.data + ", groups of file numbers)"
    cells = {
        "found": lambda mine: "" if mine.found.isna().all() else f"{mine.found.mean():.0%}",
        "other held-out slices named": lambda mine: f"{mine['false alarms'].mean():.1%}",
        "seeds": len,
    }
    rows = rows.assign(kind=rows.kind.where(rows.data == "phantom", real))
    return by_group(rows, {"kind": "copy of a training slice"}, cells)


def out_of_distribution(rows: pd.DataFrame) -> str:
    """Which share of inputs each network finds unlike its training slices, and the AUC of its distances."""
    lines = []
    for kind, mine in rows.groupby("kind", sort=False):
        line = {"shown": kind}
        for name, found in mine.groupby("network", sort=False):
            area = "" if found.AUROC.isna().all() else f" / {with_range(found.AUROC, '{:.2f}')}"
            line[f"{name}: called a stranger / AUC"] = f"{found.refused.mean():.0%}{area}"
        lines.append(line)
    note = f"Means over {rows.seed.nunique()} seeds (lowest to highest); other patients, split and network in each."
    return f"{markdown(lines)}\n\n{note}"


def patients(rows: pd.DataFrame) -> str:
    """Scores of slices and of patients on test patients, and how often validation chose each rule; means over seeds."""
    scores = {"accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity", "AUC": "auc"}
    cells = {title: lambda mine, name=name: with_range(100 * mine[name]) for title, name in scores.items()}
    cells["chosen by validation"] = lambda mine: (
        "" if mine.chosen.isna().all() else f"{int(mine.chosen.sum())} of {len(mine)} seeds"
    )
    note = f"In %, means over {rows.seed.nunique()} seeds (lowest to highest)."
    return f"{by_group(rows, {'way': 'counted'}, cells)}\n\n{note}"


def datasets() -> str:
    """The data sets that have a name, and a folder of one's own."""
    what = ("`dataset`", "what", "how", "licence")
    own = (
        "class folders `COVID/` and `non-COVID/`, or `train.csv`, `val.csv`, `test.csv` with `filename,label[,patient]`"
    )
    rows = [(f"`{name}`", entry.title, entry.home, entry.licence) for name, entry in DATASETS.items()]
    return markdown([dict(zip(what, row, strict=True)) for row in [*rows, ("a folder", "your own", own, "yours")]])


def speed(runs: list[dict]) -> str:
    """For each machine: the course against others, and against itself."""
    parts = []
    for run in runs:
        m = run["machine"]
        number = "with" if m["bfloat16"] else "without"
        parts += [
            f"## {m['processor']}, {m['cores']} cores, {number} bfloat16",
            f"{m['backbone']}, {m['image_size']} px, batches of {m['batch']}, pictures: {m['pictures']}; "
            f"torch {m['torch']}, {m['date']}.",
            contenders(run["scratch"], "ours", "training, all layers learn"),
            contenders(run["frozen"], "cached", "training, `layer4` and head learn"),
            markdown([{"": question, "ratio": found} for question, found in ratios(run).items()]),
        ]
    return "\n\n".join(parts)


def contenders(found: dict[str, dict], mine: str, title: str) -> str:
    """A line per contender, with what one of them is against it."""
    titles = {"ours": "ours", "cached": "ours, features kept"}
    lines = []
    for name, each in found.items():
        times = "" if name == mine else f"{found[mine]['images/s'] / each['images/s']:.2f}"
        line = {title: titles.get(name, name), "images/s": f"{each['images/s']:.1f}"}
        lines.append(line | {f"{titles[mine]}: times as fast": times, "peak memory, GB": f"{each['GB']:.1f}"})
    return markdown(lines)


def ratios(run: dict[str, dict]) -> dict[str, str]:
    """The other questions, each answered by one ratio."""
    kept, ours, maps = run["frozen"]["cached"], run["scratch"]["ours"], run["maps"]
    anew, copies = 10 / run["frozen"]["ours"]["images/s"], 4 / kept["made images/s"] + 10 / kept["images/s"]
    share = ours["images/s"] / ours["bare images/s"]
    found = {
        "ten epochs on 4 kept copies, making them included: times as fast as computing anew": f"{anew / copies:.2f}",
        "our loop: share of the network's speed on one constant batch": f"{share:.0%}",
    }
    if "rate" in run:
        parts = (("all layers learn", "all", "scratch", ours), ("features kept", "layer4", "frozen", kept))
        for title, learns, part, mine in parts:
            most = run["rate"]["GFLOP/s"] / run["rate"][f"GFLOP, {learns}"]  # images/s
            share, times = mine["images/s"] / most, most / run[part]["article"]["images/s"]
            found[f"{title}: share of the speed at which large matrices are multiplied"] = f"{share:.0%}"
            found[f"{title}: what all of that speed would be, times the article's"] = f"{times:.1f}"
    for method in ("GradCAM", "EigenCAM"):
        times = maps[f"{method} maps/s"] / maps[f"{method} example maps/s"]
        found[f"{method} maps: times as fast as the library's example, a picture a call"] = f"{times:.1f}"
    if "growth" in run:
        small, many, large, deep = run["growth"].values()
        for title, more in (("10 times the slices (2500)", many), ("5.4 times the pixels (224 px)", large)):
            for name, unit in (("time", "seconds"), ("memory", "GB")):
                found[f"ResNet-18, an epoch of {title}: times the {name}"] = f"{more[unit] / small[unit]:.1f}"
        found["an epoch of ResNet-50 instead of ResNet-18, 96 px"] = f"{deep['seconds'] / small['seconds']:.1f}"
    if "compiled" in run:
        plain, fast = (1 / run["compiled"][name] for name in ("plain images/s", "images/s"))
        wait = run["compiled"]["first step"] - run["machine"]["batch"] * fast
        pays = f"{wait / (plain - fast):,.0f}" if fast < plain else "never"
        found["torch.compile: times as fast"] = f"{plain / fast:.2f}"
        found[f"torch.compile: its {wait:.0f} s of compiling pay after so many slices"] = pays
    return found


# ------------------------------------------------------------------------------------------------ pages


def tables() -> dict[str, str]:
    """The tables of the pages, by name."""
    real, phantom, curve, maps = (read(name) for name in ("sars-cov-2-ct", "phantom", "learning_curve", "heat_maps"))
    weights = sorted((PROJECT / "data" / "weights").glob("*.json"))
    tuned = ways_to_fine_tune()
    seeds = re.search(r"\d+", tuned.index.name)[0]
    tuned = tuned.rename_axis("way").drop(columns="that is").rename(columns=lambda name: name.replace(", %", " %"))
    return {
        "datasets": datasets(),
        "real": summary(real, "patient"),
        "real-random": summary(real, "random"),
        "phantom": summary(phantom, "patient"),
        "search": search(read("search")),
        "difficulty": difficulty(phantom),
        "weights": pretraining({path.stem: read_json(path) for path in weights}),
        "variance": markdown(spread().reset_index().to_dict("records")),
        "speed": speed(read_json(RESULTS / "speed.json")),
        "learning-curve": few_slices(curve, [name for name in CURVE if name in set(curve.model)]),
        "learning-curve-longer": few_slices(curve, ["scratch", "transfer"], longer=True),
        "learning-curve-50": few_slices(curve, ["scratch, ResNet-50", "transfer, ResNet-50"]),
        "heat-maps": heat_maps(maps),
        "heat-maps-test": heat_maps_test(maps),
        "heat-maps-road": heat_maps_road(maps),
        "heat-maps-real": heat_maps_real(read("heat_maps_real")),
        "strangers": out_of_distribution(read("out_of_distribution")),
        "patients": patients(read("patients")),
        "better-answers": markdown(better_answers().drop(columns="that is").to_dict("records")),
        "craft": f"{markdown(tuned.reset_index().to_dict('records'))}\n\nMeans over {seeds} seeds.",
        "leaks": leaks(read("leaks")),
        "kept-features": f"{markdown(kept_copies().drop(columns='times as fast').to_dict('records'))}\n\n5 seeds.",
    }


def notebook_tables() -> dict[str, pd.DataFrame]:
    """The tables of notebooks 3 and 5, by the names of their files in benchmarks/results/tables."""
    copies, better = kept_copies(), better_answers().drop(columns="AUC")
    copies.index = pd.Index(["none: anew each epoch", "1 copy", "2 copies", "4 copies"], name="kept (5 seeds)")
    copies.columns = copies.columns.str.replace(", paired over seeds", "")
    copies["test accuracy, %"] = copies.iloc[:, 1].str.split().str[0]
    better["slices"] = better.slices.replace("val", "validation")
    return {
        "kept_copies": copies[["test accuracy, %", "difference", "times as fast"]],
        "stages_that_learn": stages_that_learn(),
        "source_findings": source_findings(),
        "starts": starts(),
        "best_starts": best_starts(),
        "gain_by_slices": gains_by_slices(),
        "ways_to_fine_tune": ways_to_fine_tune(),
        "spread": spread(),
        "better_answers": better.set_index(["way", "slices"]),
    }


def filled(text: str, content: dict[str, str]) -> str:
    """A page with every table between its comments renewed."""
    for name, table in content.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
    return text


def heat_map_picture() -> bytes:
    """The picture (JPEG) of notebook 4 with both models' maps, as in the article and as chosen, for the README."""
    notebook = nbformat.read(PROJECT / "notebooks" / "04_cam.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/jpeg" in output.get("data", {})]
    wanted = next(p for p in pictures if "chosen for each on validation" in p.metadata["image/jpeg"]["alt"])
    return b64decode(wanted.data["image/jpeg"])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    curve = compact(draw_learning_curve(read("learning_curve")), photo=False)
    replace_file(PROJECT / "docs" / "learning-curve.png", lambda path: path.write_bytes(curve))
    replace_file(PROJECT / "docs" / "heat-maps.jpg", lambda path: path.write_bytes(heat_map_picture()))
    for name, table in notebook_tables().items():
        replace_file(RESULTS / "tables" / f"{name}.csv", table.to_csv)
    content = tables()
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"), content)
        replace_file(page, lambda path, text=text: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
