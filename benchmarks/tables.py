"""Write the result tables of README.md, docs/ and data/weights/README.md, and two pictures.

    .venv/bin/python benchmarks/tables.py
    .venv/bin/python benchmarks/tables.py trailer

The second command draws docs/trailer.png, notebook 1's first picture, from runs/default as `make tutorial` leaves it.

In a page every table stands between two comments, `<!-- name -->` and `<!-- end -->`, and is never edited by hand.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from accuracy import BASELINES
from experiment import RESULTS, read_rows, recipe_of
from heat_maps import NONE
from matplotlib.figure import Figure

from covid_utils.core.files import PROJECT, read_json, replace_file, resolve
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import mean_over_seeds, percent
from covid_utils.explain import cam
from covid_utils.labs.localization import pointing_game, with_lesions
from covid_utils.plotting import BLUE, RED, compact, outline, styled
from covid_utils.runs.load_or_train import load_or_train
from covid_utils.training import predict

PAGES = [PROJECT / name for name in ("README.md", "docs/results.md", "docs/heat-maps.md", "data/weights/README.md")]
MODELS = {  # the models that `benchmarks/accuracy.py` trains
    "1-nearest neighbour": "1-nearest neighbour on pixels (learns nothing)",
    "grey histogram": "logistic regression on the intensity histogram",
    "scratch": "ResNet-18 from scratch",
    "bundled": "ResNet-18, in-domain pretraining",
    "lite0 scratch": "EfficientNet-Lite0 from scratch",
    "lite0 bundled": "EfficientNet-Lite0, in-domain pretraining",
    "lite0 continued": "EfficientNet-Lite0, ImageNet, then in-domain pretraining",
    "imagenet frozen": "EfficientNet-Lite0, ImageNet pretraining",
    "imagenet": "EfficientNet-Lite0, ImageNet pretraining",
    "imagenet, longer": "EfficientNet-Lite0, ImageNet pretraining",
    "continued, longer": "EfficientNet-Lite0, ImageNet, then in-domain pretraining",
}
CURVE = {  # what `benchmarks/learning_curve.py` trains, and how it is drawn
    "scratch": ("ResNet-18 from scratch", BLUE, "o"),
    "transfer": ("ResNet-18, in-domain pretraining", RED, "s"),
    "imagenet": ("EfficientNet-Lite0, ImageNet pretraining", "#E69F00", "D"),
    "grey histogram": ("intensity histogram, no network", "grey", "^"),
}
SPLITS = {"random": "random split (leaks)", "patient": "patient-level split"}
MESSAGE = {  # the kinds of networks in the README's table, and the models of each
    "nearest neighbour on pixels": ["1-nearest neighbour"],
    "from scratch": ["scratch", "lite0 scratch"],
    "in-domain pretraining (synthetic CT)": ["bundled", "lite0 bundled"],
    "ImageNet pretraining": ["imagenet", "imagenet frozen", "imagenet, longer"],
    "ImageNet, then in-domain pretraining": ["lite0 continued", "continued, longer"],
}
WANTED = {  # test accuracy in percent that the phantom's program was made for
    ("grey histogram", "patient"): "0 to 70",
    ("1-nearest neighbour", "patient"): "0 to 70",
    ("1-nearest neighbour", "random"): "85 to 100",
    ("scratch", "patient"): "75 to 92",
}


def read(name: str) -> pd.DataFrame:
    """The recorded rows of a benchmark, networks named as in the pages."""
    names = {"drawings": "in-domain", "ImageNet, then drawings": "ImageNet, then in-domain"}
    return read_rows(RESULTS / f"{name}.csv").replace(names)


def markdown(table: pd.DataFrame | list[dict]) -> str:
    """A table with its index, if that has a name; an empty cell where there is nothing."""
    table = pd.DataFrame(table)
    table = (table if table.index.name is None else table.reset_index()).astype(object).fillna("")
    lines = [table.columns, ["---"] * table.shape[1], *table.to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def by_group(rows: pd.DataFrame, keys: dict[str, str], cells: dict[str, Callable[[pd.DataFrame], object]]) -> str:
    """A line for each group of rows: `keys`, columns and their titles; `cells`, titles and what is said of a group."""
    return markdown(
        [
            dict(zip(keys.values(), key, strict=True)) | {title: cell(mine) for title, cell in cells.items()}
            for key, mine in rows.groupby(list(keys), sort=False)
        ]
    )


def with_interval(rows: pd.DataFrame, score: str, number: str = "{:.1f}", factor: float = 100) -> str:
    """ "96.8 (94.9 to 98.3)": means over the rows of a score and of both ends of its interval; "" where it is not."""
    ends = [factor * rows[name].mean() for name in (score, f"{score} low", f"{score} high")]
    return "" if np.isnan(ends[0]) else f"{number} ({number} to {number})".format(*ends)


def with_range(values: pd.Series, number: str = "{:.1f}") -> str:
    """ "90.0 (86.0 to 93.1)": mean, lowest and highest."""
    return f"{number} ({number} to {number})".format(values.mean(), values.min(), values.max())


def gain(table: pd.DataFrame, model: object, against: object) -> dict[str, float]:
    """Mean difference of two columns, paired over the seeds that both have, with its interval."""
    return mean_over_seeds((table[model] - table[against]).dropna())


def points(table: pd.DataFrame, model: object, against: object) -> str:
    """The `gain` in words; "" for what it is compared with."""
    return "" if model == against else percent(gain(table, model, against), signed=True)


# ------------------------------------------------------------------------------------------------ accuracy


def best_on_validation(rows: pd.DataFrame, kind: str) -> str:
    """Of the models of a kind (see MESSAGE) the one with the highest mean validation accuracy; "" if there is none."""
    mine = rows[rows.model.isin(MESSAGE[kind])]
    return mine.groupby("model").val_accuracy.mean().fillna(0).idxmax() if len(mine) else ""


def message() -> str:
    """The README's table: on real slices, what each split says of each kind of network, means over the seeds.

    Of several networks of one kind it shows, for each split, the one that is best on validation slices.
    """
    rows, lines = read("sars-cov-2-ct"), []
    parts = {split: rows[rows.split == split] for split in SPLITS}
    accuracy = parts["patient"].pivot(index="seed", columns="model", values="accuracy")
    baseline = best_on_validation(parts["patient"], "from scratch")
    for kind in MESSAGE:
        best = {split: best_on_validation(mine, kind) for split, mine in parts.items()}
        line = {"accuracy of": kind}
        for split, title in SPLITS.items():
            mine = parts[split][parts[split].model == best[split]]
            line[title] = with_interval(mine, "accuracy", "{:.0f}") or "not run"
        compared = "pretraining" in kind and best["patient"]
        line["gain over scratch (patient-level)"] = points(accuracy, best["patient"], baseline) if compared else ""
        lines.append(line)
    return markdown(lines)


def summary(name: str, split: str) -> str:
    """A line per model: accuracy, AUC and the gain over the best model from scratch, means over seeds."""
    rows, lines = read(name).query("split == @split"), []
    accuracy = rows.pivot(index="seed", columns="model", values="accuracy")
    baseline = best_on_validation(rows, "from scratch")
    for model in [model for model in MODELS if model in accuracy]:
        mine = rows[rows.model == model]
        recipe = Settings(**recipe_of(mine.recipe.iloc[0]))
        pretrained = recipe.weights != "scratch"
        learns = {"all": ", all trainable", "last": ", `layer4` and head trainable"}
        learns = learns.get(recipe.trainable, f", trainable from `{recipe.trainable}` on") if pretrained else ""
        line = {"test slices": MODELS[model] + learns, "px": recipe.image_size}
        line |= {"epochs": "–" if model in BASELINES else recipe.epochs}
        line |= {f"{score} %": with_interval(mine, score.lower()) for score in ("accuracy", "AUC")}
        line["accuracy minus the best from scratch"] = points(accuracy, model, baseline) if pretrained else ""
        lines.append(line | {"seeds": len(mine)})
    return (
        f"{markdown(lines)}\n\nMeans over the seeds of the score and both ends of its 95 % interval (bootstrap over "
        f"groups); differences are paired over the seeds, against {MODELS[baseline]}, best on validation."
    )


def difficulty() -> str:
    """Is the phantom neither trivial nor hopeless? What scores should be and are, over the seeds."""
    rows = read("phantom")
    rows["wanted"] = [WANTED.get(key) for key in zip(rows.model, rows.split, strict=True)]
    rows["name"] = rows.model.map(MODELS) + ", " + rows.split + " split"
    measured = {"measured: mean (lowest to highest)": lambda mine: with_range(100 * mine.accuracy), "seeds": len}
    return by_group(rows.dropna(subset="wanted"), {"name": "test accuracy %", "wanted": "wanted"}, measured)


def ways_to_fine_tune() -> str:
    """Validation accuracy of ways to fine-tune all stages, and their difference to one rate for all."""
    rows = read("fine_tuning")
    best = rows.pivot(index="seed", columns="way", values="best")[rows.way.unique()]
    found = pd.DataFrame({"validation accuracy, %": (100 * best.mean()).map("{:.1f}".format)})
    found["minus one rate"] = [points(best, way, "one rate") for way in best]
    return markdown(found.rename_axis(f"all stages learn ({len(best)} seeds)"))


def pretraining() -> str:
    """How the bundled weights were made and how well they do their own task: a column per file."""
    files = {path.stem: read_json(path) for path in sorted((PROJECT / "data" / "weights").glob("*.json"))}
    facts = ["backbone", "start", "slices", "views", "image_size", "seed", "seconds", "machine"]
    scores = pd.DataFrame({file: notes["held_out_auc"] for file, notes in files.items()})
    scores.index = "AUC on unseen source patients: " + scores.index
    table = pd.concat([pd.DataFrame(files).loc[facts].fillna("scratch"), scores])
    return markdown(table.rename({"image_size": "image size"}).rename_axis(""))


# ------------------------------------------------------------------------------------------------ few slices


def learning_curve(score: str = "accuracy", longer: bool = False) -> pd.DataFrame:
    """A score of recorded runs of `benchmarks/learning_curve.py`: rows slices and seed, columns models.

    Runs of the common, shortest budget (no epochs: no network); with `longer` the longest of those that had more.
    """
    table = read("learning_curve").sort_values("epochs")
    shortest = table.slices.map(table[table.epochs > 0].groupby("slices").epochs.min())
    table = table[(table.epochs > shortest) == longer]
    return table.groupby(["slices", "seed", "model"])[score].last().unstack("model")


def gain_by_slices(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """For each number of slices: the `gain` over ResNet-18 from scratch, with its 95 % interval (Student's t)."""
    pairs = table[[model, "scratch"]].dropna().groupby("slices")
    return pd.DataFrame.from_dict({slices: gain(each, model, "scratch") for slices, each in pairs}, orient="index")


def few_slices() -> str:
    """For each number of training slices: means over the seeds, and what pretrained networks gain over ResNet-18."""
    scores = {title: learning_curve(title.lower())[list(CURVE)] for title in ("accuracy", "AUC")}
    means = [each.groupby("slices").agg(lambda values: f"{100 * values.mean():.1f}") for each in scores.values()]
    table = (means[0] + " / " + means[1]).rename(columns=lambda model: CURVE[model][0])
    for model in ("transfer", "imagenet"):
        for title, each in scores.items():
            gains = gain_by_slices(each, model).apply(percent, axis=1, signed=True)
            table[f"{CURVE[model][0]}: gain, {title}"] = gains
    seeds = scores["accuracy"].scratch.groupby("slices").count().min()
    return (
        f"{markdown(table.rename_axis('training slices'))}\n\nAccuracy / AUC in %, means over {seeds} "
        "seeds; gains over ResNet-18 from scratch, paired over seeds, with 95 % intervals."
    )


@styled
def draw_learning_curve() -> Figure:
    """Accuracy by the number of training slices, each seed a dot, and what transfer gains, paired over seeds.

    Filled: all networks train equally long; hollow: longer (see `learning_curve`).
    """
    equal, longer = 100 * learning_curve(), 100 * learning_curve(longer=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4))
    for model, (title, colour, marker) in CURVE.items():
        left.plot(equal.index.get_level_values("slices"), equal[model], marker, color=colour, alpha=0.25, markersize=4)
        left.plot(equal[model].groupby("slices").mean(), color=colour, marker=marker, label=title)
    places = (("transfer", equal, 0.94, "full"), ("transfer", longer, 1.0, "none"), ("imagenet", equal, 1.06, "full"))
    for model, table, shift, fill in places:
        _, colour, marker = CURVE[model]
        found = gain_by_slices(table, model)
        x, arms = shift * found.index, (found.value - found.low, found.high - found.value)
        right.errorbar(x, found.value, arms, fmt=marker, color=colour, fillstyle=fill, markersize=7)
    for model in ("scratch", "transfer"):
        title, colour, marker = CURVE[model]
        means = longer[model].groupby("slices").mean()
        left.plot(means, marker, color=colour, fillstyle="none", markersize=9, label=f"{title}, trained longer")
    right.axhline(0, color="grey", linestyle=":")
    left.set(xlabel="training slices", ylabel="test accuracy, %")
    right.set(xlabel="training slices", ylabel="minus ResNet-18 from scratch, points")
    counts = equal.index.unique("slices")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(counts, [f"{count:,}" for count in counts])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), fontsize=9, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))  # the legend hides no mark
    return figure


# ------------------------------------------------------------------------------------------------ heat maps


def heat_maps_test() -> str:
    """Each network's map that was best on validation patients, and maps that need no network, on test patients."""
    rows, chosen = read("heat_maps"), []
    for network, mine in rows[rows.part != "ROAD"].groupby("network", sort=False):
        test, val = (mine[mine.part == part].set_index("map") for part in ("test", "val"))
        best = dict.fromkeys([val["average precision"].idxmax(), "layer4 GradCAM"])
        chosen.append(test.loc[list(test.index if network == NONE else best)].reset_index())
    cells = {
        "pointing game %": lambda mine: with_interval(mine, "pointing game", "{:.0f}"),
        "average precision": lambda mine: with_interval(mine, "average precision", "{:.2f}", 1),
        "seeds": lambda mine: mine.seeds.iloc[0],
    }
    return by_group(pd.concat(chosen), {"network": "test patients", "map": "map, chosen on validation"}, cells)


def heat_maps_real() -> str:
    """Real slices: ROAD, heat in the lungs, and agreement, means over training seeds of a score and its interval."""
    scores = {
        "ROAD gap, points": ("ROAD gap", "{:+.1f}", 100),
        "heat in the lungs, %": ("energy in lungs", "{:.0f}", 100),
        "beyond a flat map, points": ("beyond a flat map", "{:+.1f}", 100),
        "rank correlation: other seeds": ("agreement, other seeds", "{:+.2f}", 1),
        "with ImageNet, then in-domain": ("agreement, ImageNet, then drawings", "{:+.2f}", 1),
        "with ImageNet": ("agreement, ImageNet", "{:+.2f}", 1),
    }
    cells = {title: lambda mine, how=how: with_interval(mine, *how) for title, how in scores.items()}
    return by_group(read("heat_maps_real"), {"network": "network", "map": "map"}, cells | {"seeds": len})


def leaks() -> str:
    """The share of planted leaks of each kind that the audit finds, and of other slices that it names."""
    rows = read("leaks")
    real = rows.kind + " (" + rows.data + ", groups of file numbers)"
    rows["kind"] = rows.kind.where(rows.data == "phantom", real)
    cells = {
        "found": lambda mine: "" if mine.found.isna().all() else f"{mine.found.mean():.0%}",
        "other held-out slices named": lambda mine: f"{mine['false alarms'].mean():.1%}",
        "seeds": len,
    }
    return by_group(rows, {"kind": "copy of a training slice"}, cells)


# ------------------------------------------------------------------------------------------------ the first picture


@styled
def draw_trailer(run_dir: str = "runs/default") -> Figure:
    """The steps of the course in a run of notebooks 1 to 3: scratch → transfer, CAM, is it true?

    The slice is, of the test slices with COVID that the transfer model classifies correctly, the one with the median
    logit. The map is Grad-CAM at the layer whose maps most often peak inside the lesion on validation slices.
    """
    settings = Settings(run_dir=run_dir)
    data = load_data(settings)
    model, *_ = load_or_train(data, dataclasses.replace(settings, weights="bundled"), "transfer")
    _, images, lesions, lungs = with_lesions(data, "val")
    hits = {
        layer: pointing_game(cam(model, images, layer=layer), lesions & lungs, lungs).mean()
        for layer in ("layer2", "layer3", "layer4")
    }
    layer = max(hits, key=hits.get)
    _, images, lesions, _ = with_lesions(data, "test")
    logits = predict(model, images).numpy()
    order = logits.argsort(kind="stable")
    positives = order[logits[order] > 0]
    chosen = positives[len(positives) // 2]

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.7), width_ratios=(1.5, 1, 1, 0.85), layout="constrained")
    for name, title, style, colour in (("scratch", "from scratch", "o--", BLUE), ("transfer", "transfer", "s-", RED)):
        history = pd.read_csv(resolve(run_dir) / name / "history.csv")
        axes[0].plot(history.epoch, 100 * history.val_accuracy, style, color=colour, label=title)
    axes[0].set(title="scratch → transfer", xlabel="epoch", ylabel="validation accuracy, %", ylim=(45, 100))
    axes[0].legend(loc="lower right")
    for axis, title in ((axes[1], "test slice, COVID lesions"), (axes[2], f"CAM (Grad-CAM, {layer})")):
        axis.imshow(images[chosen], cmap="gray", vmin=0, vmax=255)
        axis.set(title=title, xticks=[], yticks=[])
        outline(axis, lesions[chosen])
    axes[2].imshow(cam(model, images[[chosen]], layer=layer)[0], cmap="inferno", alpha=0.5)
    found = read_json(resolve(run_dir) / "metrics.json")["data"]["nearest_neighbour"]
    shares = {f"{name}\nsplit": 100 * found[name]["value"] for name in SPLITS}
    bars = axes[3].bar(list(shares), list(shares.values()), color=["grey", "lightgrey"])
    axes[3].bar_label(bars, fmt="%.0f %%")
    axes[3].axhline(50, color="black", linestyle=":")
    axes[3].text(-0.38, 52, "guessing", color="white", fontsize=9)
    axes[3].set(title="is it true?", ylabel="test accuracy of a\nnearest neighbour, %", ylim=(0, 110))
    return figure


# ------------------------------------------------------------------------------------------------ pages


def tables() -> dict[str, str]:
    """The tables of the pages, by name."""
    return {
        "message": message(),
        "real": summary("sars-cov-2-ct", "patient"),
        "real-random": summary("sars-cov-2-ct", "random"),
        "phantom": summary("phantom", "patient"),
        "difficulty": difficulty(),
        "weights": pretraining(),
        "learning-curve": few_slices(),
        "heat-maps-test": heat_maps_test(),
        "heat-maps-real": heat_maps_real(),
        "craft": ways_to_fine_tune(),
        "leaks": leaks(),
    }


def filled(text: str, content: dict[str, str]) -> str:
    """A page with every table between its comments renewed."""
    for name, table in content.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
    return text


def main() -> None:
    if sys.argv[1:] == ["trailer"]:
        draw_trailer().savefig(PROJECT / "docs" / "trailer.png", dpi=100)
        return
    curve = compact(draw_learning_curve(), photo=False)
    replace_file(PROJECT / "docs" / "learning-curve.png", lambda path: path.write_bytes(curve))
    content = tables()
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"), content)
        replace_file(page, lambda path, text=text: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
