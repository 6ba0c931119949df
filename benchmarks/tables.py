"""Write the result tables of README.md, docs/ and data/weights/README.md.

    .venv/bin/python benchmarks/tables.py

It also takes the README's picture out of notebook 04.

Every table stands between two comments, `<!-- name -->` and `<!-- end -->`, and is never edited by hand.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import defaultdict

import nbformat
import numpy as np
import pandas as pd
from accuracy import BASELINES
from learning_curve_figure import CURVE, draw_learning_curve, learning_curve, paired_gain

from covid_utils.core.files import PROJECT, read_json, replace_file
from covid_utils.core.settings import Settings
from covid_utils.evaluation import mean_over_seeds, percent
from covid_utils.io.datasets import DATASETS
from covid_utils.labs import benchmark_tables
from covid_utils.plotting import compact

RESULTS = PROJECT / "benchmarks" / "results"
PAGES = [
    PROJECT / name
    for name in (
        "README.md",
        "docs/results.md",
        "docs/speed.md",
        "docs/heat-maps.md",
        "docs/teaching.md",
        "docs/scale.md",
        "data/weights/README.md",
    )
]
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
POINTING, PRECISION, ENDS = "pointing game", "average precision", ("value", "low", "high")
WANTED = {  # test accuracy in percent, lowest and highest, that the phantom's program was made for
    ("grey histogram", "patient"): (0, 70),
    ("1-nearest neighbour", "patient"): (0, 70),
    ("1-nearest neighbour", "random"): (85, 100),
    ("scratch", "patient"): (75, 92),
    ("scratch, 2400 patients", "patient"): (97, 100),
}


def mean_of_seeds(rows: list[dict], score: str) -> str:
    """ "96.8 (94.9 to 98.3)": mean over the seeds of a score and of both ends of its 95 % interval, in percent."""
    value, low, high = (100 * np.mean([row["test"][score][end] for row in rows]) for end in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def best_scratch(runs: dict[str, list[dict]]) -> str | None:
    """Of the models from scratch with most seeds the best on validation, the rival of pretrained ones; None if none."""
    most = max((len(rows) for name, rows in runs.items() if name.endswith("scratch")), default=0)
    scratch = [name for name, rows in runs.items() if name.endswith("scratch") and len(rows) == most]
    return max(scratch, key=lambda name: np.mean([row["val_accuracy"] for row in runs[name]]), default=None)


def gain(runs: dict[str, list[dict]], model: str) -> str:
    """Accuracy of a pretrained model minus that of the best one from scratch, paired over the seeds that both have."""
    rival = {row["seed"]: row["test"]["accuracy"]["value"] for row in runs.get(best_scratch(runs), [])}
    pairs = [row["test"]["accuracy"]["value"] - rival[row["seed"]] for row in runs[model] if row["seed"] in rival]
    return percent(mean_over_seeds(np.array(pairs)), signed=True) if len(pairs) > 1 else ""


def summary(rows: list[dict], split: str) -> str:
    """A table with a row per model: accuracy, AUC and the gain over the best scratch model, means over seeds."""
    runs = {name: [row for row in rows if (row["split"], row["model"]) == (split, name)] for name in MODELS}
    runs = {name: found for name, found in runs.items() if found}
    lines = [["test slices", "px", "epochs", "accuracy %", "AUC %", "accuracy minus the best from scratch", "seeds"]]
    for name, found in runs.items():
        recipe = Settings(**found[0]["recipe"])
        network = name not in BASELINES
        against = gain(runs, name) if network and "scratch" not in name else ""
        scores = [mean_of_seeds(found, score) for score in ("accuracy", "auc")]
        budget = [str(recipe.image_size), str(recipe.epochs) if network else "–"]
        learns = {"all": "all learns", "last": "`layer4` + head learn"}
        learns = f", {learns.get(recipe.trainable, f'learns from `{recipe.trainable}` on')}"
        learns = learns if recipe.weights != "scratch" else ""
        lines.append([MODELS[name] + learns, *budget, *scores, against, str(len(found))])
    note = "Means over the seeds of the score and both ends of its 95 % interval (bootstrap over groups)"
    if rival := best_scratch(runs):
        note += (
            f"; differences are paired over the seeds, against {MODELS[rival]} (of those from scratch with most seeds, "
        )
        note += "the best on validation)"
    return markdown(lines) + f"\n\n{note}."


def each_run(rows: list[dict]) -> str:
    """A table with a row per run."""
    names = ("accuracy", "sensitivity", "specificity", "auc")
    lines = [["split", "seed", "model", *names, "validation accuracy", "best epoch"]]
    for row in sorted(rows, key=lambda row: (row["split"], row["seed"])):
        scores = [percent(row["test"][name]).replace(" %", "") for name in names]
        chosen = [f"{100 * row['val_accuracy']:.1f}", str(row["best_epoch"])] if "val_accuracy" in row else ["", ""]
        lines.append([row["split"], str(row["seed"]), row["model"], *scores, *chosen])
    return markdown(lines)


def search(rows: list[dict]) -> str:
    """The recipes that were tried, by their validation accuracy."""
    lines = [["data, split", "recipe", "best epoch, %", "last epoch, %", "loss", "seeds", "seconds, one thread"]]
    groups = defaultdict(list)
    for row in rows:
        groups[f"{row['dataset']}, {row['split']}", row["recipe"]].append(row)
    for (data, recipe), found in sorted(groups.items(), key=lambda each: (each[0][0], each[0][1])):
        best, last = (f"{100 * np.mean([row[name] for row in found]):.1f}" for name in ("best", "last"))
        loss, seconds = f"{np.mean([row['loss'] for row in found]):.2f}", np.median([row["seconds"] for row in found])
        lines.append([data, f"`{recipe}`", best, last, loss, str(len(found)), f"{seconds:.0f}"])
    return markdown(lines)


def difficulty(rows: list[dict]) -> str:
    """Is the phantom neither trivial nor hopeless? What scores should be and are, over the seeds."""
    lines = [["test accuracy %", "wanted", "measured: mean (lowest to highest)", "seeds"]]
    for (model, split), (low, high) in WANTED.items():
        found = [row for row in rows if (row["model"], row["split"]) == (model, split)]
        found = [100 * row["test"]["accuracy"]["value"] for row in found]
        if not found:
            continue  # not measured, or not yet
        measured = f"{np.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})"
        lines.append([f"{MODELS[model]}, {split} split", f"{low} to {high}", measured, str(len(found))])
    return markdown(lines)


def variance() -> str:
    """How far the accuracy of the same recipe spreads when one thing changes: the table of notebook 5."""
    table = benchmark_tables.spread().reset_index()
    return markdown([list(table), *table.values.tolist()])


def pretraining(names: list[str], files: list[dict]) -> str:
    """How the bundled weights were made and how well they do their own task: a column per file."""
    facts = ("backbone", "start", "slices", "views", "image_size", "seed", "seconds", "machine")
    lines = [["", *names]]
    lines += [[name.replace("_", " "), *(str(notes.get(name, "scratch")) for notes in files)] for name in facts]
    for finding in files[0]["held_out_auc"]:
        found = (str(notes["held_out_auc"][finding]) for notes in files)
        lines.append([f"AUC on unseen source patients: {finding}", *found])
    return markdown(lines)


def heat_maps(rows: list[dict]) -> str:
    """Which maps point at the lesion: both scores of each map and network on validation patients."""
    networks = list(dict.fromkeys(row["network"] for row in rows if row["network"]))
    lines = [["map, validation patients", *networks, "seconds"]]
    for name in {row["map"]: None for row in rows if row["network"]}:
        found = {network: rows_of(rows, network, name, "val") for network in networks}
        pairs = [(mean_of_rows(mine, POINTING), mean_of_rows(mine, PRECISION)) for mine in found.values()]
        seconds = np.median([row["seconds"] for row in found[networks[0]]])
        lines.append([name, *(f"{100 * point:.0f} / {precise:.2f}" for point, precise in pairs), f"{seconds:.1f}"])
    return markdown(lines)


def heat_maps_test(rows: list[dict]) -> str:
    """Each network's map that was best on validation patients, and maps that know nothing, on test patients."""
    lines = [["test patients", "map, chosen on validation", "pointing game %", "average precision", "seeds"]]
    for network in {row["network"]: None for row in rows}:
        names = list(dict.fromkeys(row["map"] for row in rows if row["network"] == network))
        if network:
            precision = {name: mean_of_rows(rows_of(rows, network, name, "val"), PRECISION) for name in names}
            names = list(dict.fromkeys([max(names, key=precision.get), "layer4 GradCAM"]))
        for name in names:
            found = rows_of(rows, network, name, "test")
            point, low, high = (100 * mean_of_rows(found, POINTING, end) for end in ENDS)
            scores = [f"{point:.0f} ({low:.0f} to {high:.0f})"]
            precise, low, high = (mean_of_rows(found, PRECISION, end) for end in ENDS)
            scores.append(f"{precise:.2f} ({low:.2f} to {high:.2f})")
            lines.append([network or "no network", name, *scores, str(len(found))])
    return markdown(lines)


def heat_maps_road(rows: list[dict]) -> str:
    """ROAD's gap of each network's maps on the phantom, means over seeds."""
    lines = [["network", "map", "ROAD gap, points", "seeds with the interval above zero"]]
    for network, name in dict.fromkeys((row["network"], row["map"]) for row in rows if row["part"] == "ROAD"):
        mine = rows_of(rows, network, name, "ROAD")
        value, low, high = (100 * mean_of_rows(mine, "ROAD gap", end) for end in ENDS)
        clear = sum(row["ROAD gap"]["low"] > 0 for row in mine)
        lines.append([network, name, f"{value:+.1f} ({low:+.1f} to {high:+.1f})", f"{clear} of {len(mine)}"])
    return markdown(lines)


def heat_maps_real(rows: list[dict]) -> str:
    """Real slices: ROAD, heat in the lungs, and agreement, means over training seeds of a score and its interval."""
    scores = {
        "ROAD gap": "ROAD gap, points",
        "energy in lungs": "heat in the lungs, %",
        "beyond a flat map": "beyond a flat map, points",
        "agreement, other seeds": "rank correlation: other seeds",
    }
    scores |= {name: name.replace("agreement,", "with") for name in dict.fromkeys(n for row in rows for n in row) if (
        name.startswith("agreement") and name not in scores
    )}  # fmt: skip
    lines = [["network", "map", *scores.values(), "seeds"]]
    for network, name in dict.fromkeys((row["network"], row["map"]) for row in rows):
        mine, cells = [row for row in rows if (row["network"], row["map"]) == (network, name)], []
        for score in scores:
            known = [row for row in mine if score in row]
            found = [mean_of_rows(known, score, end) for end in ENDS] if known else []
            number = "{:+.2f} ({:+.2f} to {:+.2f})"
            if not score.startswith("agreement"):
                found = [100 * value for value in found]
                number = "{:.0f} ({:.0f} to {:.0f})" if score == "energy in lungs" else "{:+.1f} ({:+.1f} to {:+.1f})"
            cells.append(number.format(*found) if known else "")
        lines.append([network, name, *cells, str(len(mine))])
    return markdown(lines)


def leaks(rows: list[dict]) -> str:
    """The share of planted leaks of each kind that the audit finds, and of other slices that it names."""
    table = pd.DataFrame(rows)
    lines = [["copy of a training slice", "found", "other held-out slices named", "seeds"]]
    for (data, kind), mine in table.groupby(["data", "kind"], sort=False):
        found = "" if mine.found.isna().all() else f"{mine.found.mean():.0%}"
        name = kind if data == "phantom" else f"{kind} ({data}, groups of file numbers)"
        lines.append([name, found, f"{mine['false alarms'].mean():.1%}", str(len(mine))])
    return markdown(lines)


def strangers(rows: list[dict]) -> str:
    """Which share of slices, and of what is none, each network calls a stranger, and the AUC of its distances."""
    table = pd.DataFrame(rows)
    networks = list(dict.fromkeys(table.network))
    lines = [["shown", *(f"{name}: called a stranger / AUC" for name in networks)]]
    for kind, mine in table.groupby("kind", sort=False):
        cells = []
        for name in networks:
            found = mine[mine.network == name]
            area = (
                ""
                if found.AUROC.isna().all()
                else f" / {found.AUROC.mean():.2f} ({found.AUROC.min():.2f} to {found.AUROC.max():.2f})"
            )
            cells.append(f"{found.refused.mean():.0%}{area}")
        lines.append([kind, *cells])
    seeds = table.seed.nunique()
    return (
        markdown(lines)
        + f"\n\nMeans over {seeds} seeds (lowest to highest); other patients, split and network in each."
    )


def patients(rows: list[dict]) -> str:
    """Scores of slices and of patients on test patients, and how often validation chose each rule; means over seeds."""
    table = pd.DataFrame(rows)
    names = list(rows[0]["test"])
    lines = [["counted", *("AUC" if name == "auc" else name for name in names), "chosen by validation"]]
    for way, mine in table.groupby("way", sort=False):
        values = [[100 * test[name]["value"] for test in mine.test] for name in names]
        cells = [f"{np.mean(each):.1f} ({min(each):.1f} to {max(each):.1f})" for each in values]
        lines.append(
            [way, *cells, "" if mine.chosen.isna().all() else f"{int(mine.chosen.sum())} of {len(mine)} seeds"]
        )
    return markdown(lines) + f"\n\nIn %, means over {table.seed.nunique()} seeds (lowest to highest)."


def better_answers(rows: list[dict]) -> str:
    """What mirror images and several networks gain over one network's answer, by split, and the mean over splits."""
    table = pd.DataFrame(rows)
    splits = sorted(table.split.unique())
    lines = [["way", "slices", *(f"split {split}" for split in splits), "mean over splits", "AUC"]]
    for (way, part), mine in table.groupby(["way", "part"], sort=False):
        mean = mean_over_seeds([gain["value"] for gain in mine.accuracy])
        gains = [percent(gain, signed=True) for gain in mine.accuracy]
        lines.append([way, part, *gains, percent(mean, signed=True), f"{100 * mine.auc.mean():+.1f}"])
    return markdown(lines)


def craft(rows: list[dict]) -> str:
    """Validation accuracy of ways to fine-tune all stages, and their difference to one rate for all, paired by seed."""
    table = pd.DataFrame(rows)
    best = table.pivot(index="seed", columns="way", values="best")[table.way.unique()]
    lines = [["way", "validation accuracy %", "minus one rate"]]
    for way in best:
        gain = mean_over_seeds((best[way] - best.iloc[:, 0]).dropna())
        shown = percent(gain, signed=True) if way != best.columns[0] else ""
        lines.append([way, f"{100 * best[way].mean():.1f}", shown])
    return markdown(lines) + f"\n\nMeans over {len(best)} seeds."


def classroom(rows: list[dict]) -> str:
    """Memory and time of kernels that run at once: what one has resident, all together, and times one alone."""
    heads = ("notebook", "kernels at once", "one of them, GiB", "all together, GiB", "seconds", "times one alone")
    lines, said = [list(heads)], []
    alone = {row["notebook"]: row["seconds"] for row in rows if row["kernels"] == 1}
    for row in rows:
        times = f"{row['seconds'] / alone[row['notebook']]:.1f}" if row["kernels"] > 1 else ""
        memory = [f"{row[name]:.1f}" for name in ("largest, GiB", "together, GiB")]
        lines.append([row["notebook"], str(row["kernels"]), *memory, str(row["seconds"]), times])
        busy = f"{row['taken by other programs, %']} %"
        said.append(f"{busy} before {row['notebook']} × {row['kernels']}")
    first, most = rows[0], max(rows, key=lambda row: row["kernels"])
    cores = {(row["cores"], row["threads"], row["epochs"]) for row in rows}
    assert len(cores) == 1, "rows of one machine and one recipe"
    note = (
        f"{first['cores']} cores, {first['threads']} thread for each kernel, {first['epochs']} epochs. The cores were "
        f"shared with other programs, which took ({', '.join(said)}): the times are rough. "
        f"Thirty would take about {30 * most['together, GiB'] / most['kernels']:.0f} GiB, if it goes on like this."
    )
    return markdown(lines) + "\n\n" + note


def rows_of(rows: list[dict], network: str, name: str, part: str) -> list[dict]:
    """The rows of a network's map on the patients of a part, one for each seed."""
    return [row for row in rows if (row["network"], row["map"], row["part"]) == (network, name, part)]


def mean_of_rows(rows: list[dict], score: str, end: str = "value") -> float:
    """The mean over rows of a score, or of one end of its interval."""
    return np.mean([row[score][end] for row in rows])


def markdown(lines: list[list[str]]) -> str:
    """A table; the first line is its head."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


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
            ratios(run),
        ]
    return "\n\n".join(parts)


def contenders(found: dict[str, dict], mine: str, title: str) -> str:
    """A row per contender, with what one of them is against it."""
    titles = {"ours": "ours", "cached": "ours, features kept"}
    lines = [[title, "images/s", f"{titles[mine]}: times as fast", "peak memory, GB"]]
    for name, each in found.items():
        times = "" if name == mine else f"{found[mine]['images/s'] / each['images/s']:.2f}"
        lines.append([titles.get(name, name), f"{each['images/s']:.1f}", times, f"{each['GB']:.1f}"])
    return markdown(lines)


def ratios(run: dict[str, dict]) -> str:
    """The other questions, each answered by one ratio."""
    kept, ours, maps = run["frozen"]["cached"], run["scratch"]["ours"], run["maps"]
    ten_epochs = 10 / run["frozen"]["ours"]["images/s"]
    small, many, large, deep = run["growth"].values()
    m = run["machine"]
    lines = [
        ["", "ratio"],
        [
            "ten epochs on 4 kept copies, making them included: times as fast as computing anew",
            f"{ten_epochs / (4 / kept['made images/s'] + 10 / kept['images/s']):.2f}",
        ],
        [
            "our loop: share of the network's speed on one constant batch",
            f"{ours['images/s'] / ours['bare images/s']:.0%}",
        ],
    ]
    if "rate" in run:
        parts = (("all layers learn", "all", "scratch", ours), ("features kept", "layer4", "frozen", kept))
        for title, learns, part, mine in parts:
            most = run["rate"]["GFLOP/s"] / run["rate"][f"GFLOP, {learns}"]  # images/s
            share, times = mine["images/s"] / most, most / run[part]["article"]["images/s"]
            lines.append([f"{title}: share of the speed at which large matrices are multiplied", f"{share:.0%}"])
            lines.append([f"{title}: what all of that speed would be, times the article's", f"{times:.1f}"])
    for method in ("GradCAM", "EigenCAM"):
        times = maps[f"{method} maps/s"] / maps[f"{method} example maps/s"]
        lines.append([f"{method} maps: times as fast as the library's example, a picture a call", f"{times:.1f}"])
    for title, more in (("10 times the slices (2500)", many), ("5.4 times the pixels (224 px)", large)):
        for name, unit in (("time", "seconds"), ("memory", "GB")):
            lines.append([f"ResNet-18, an epoch of {title}: times the {name}", f"{more[unit] / small[unit]:.1f}"])
    if "compiled" in run:
        plain, fast = (1 / run["compiled"][name] for name in ("plain images/s", "images/s"))
        wait = run["compiled"]["first step"] - m["batch"] * fast
        pays = f"{wait / (plain - fast):,.0f}" if fast < plain else "never"
        lines.append(["torch.compile: times as fast", f"{plain / fast:.2f}"])
        lines.append([f"torch.compile: its {wait:.0f} s of compiling pay after so many slices", pays])
    lines.append(["an epoch of ResNet-50 instead of ResNet-18, 96 px", f"{deep['seconds'] / small['seconds']:.1f}"])
    return markdown(lines)


def kept_features(rows: list[dict]) -> str:
    """Accuracy and time of the default transfer run by the number of kept copies."""
    lines = [
        [
            "copies kept", "test accuracy %, mean (lowest to highest)", "difference, paired over seeds",
            "seconds, median", "the same validation accuracy: times as fast",
        ]
    ]  # fmt: skip
    anew = {row["seed"]: row for row in rows if row["copies"] == 0}
    plain = {seed: row["accuracy"]["value"] for seed, row in anew.items()}
    for copies in sorted({row["copies"] for row in rows}):
        mine = [row for row in rows if row["copies"] == copies and row["seed"] in plain]
        found = np.array([100 * row["accuracy"]["value"] for row in mine])
        change = found / 100 - [plain[row["seed"]] for row in mine]
        gain = mean_over_seeds(change)
        spread = f"{found.mean():.1f} ({found.min():.1f} to {found.max():.1f})"
        seconds = f"{np.median([row['seconds'] for row in mine]):.0f}"
        times = f"{np.median([sooner(anew[row['seed']], row) for row in mine]):.1f}"
        against = [percent(gain, signed=True), seconds, times] if copies else ["", seconds, ""]
        lines.append([str(copies or "none"), spread, *against])
    return markdown(lines) + f"\n\n{len(plain)} seeds."


def sooner(one: dict, other: dict) -> float:
    """How many times as fast the other run first had the validation accuracy that both reach, its start included."""
    goal, seconds = min(max(run["val_accuracy"]) for run in (one, other)), []
    for run in (one, other):
        epochs = next(i for i, accuracy in enumerate(run["val_accuracy"], start=1) if accuracy >= goal)
        start = run["seconds"] - sum(run["epoch_seconds"])  # building the model, features of the validation slices
        seconds.append(start + sum(run["epoch_seconds"][:epochs]))
    return seconds[0] / seconds[1]


def few_slices(rows: list[dict], models: list[str], longer: bool = False) -> str:
    """For each number of training slices: means over the seeds, and what pretrained models gain over the first one."""
    scores = {name: learning_curve(rows, name, longer)[models].dropna(how="all") for name in ("accuracy", "auc")}
    titles = {model: CURVE[model.removesuffix(", ResNet-50")][0] for model in models}
    if models[0].endswith("ResNet-50"):
        titles = {model: title.replace("ResNet-18", "ResNet-50") for model, title in titles.items()}
    gained = [model for model in models if "weights" in titles[model]]
    columns = [f"{titles[model]}: gain, {score}" for model in gained for score in ("accuracy", "AUC")]
    lines = [["training slices", *titles.values(), *columns]]
    for slices in scores["accuracy"].index.unique("slices"):
        cells = []
        for model in models:
            means = [100 * table.loc[slices][model].mean() for table in scores.values()]
            cells.append("–" if np.isnan(means[0]) else " / ".join(f"{mean:.1f}" for mean in means))
        for model in gained:
            for table in scores.values():
                gain = paired_gain(table, model, models[0]).get(slices)
                cells.append(percent(gain, signed=True) if gain else "–")
        lines.append([str(slices), *cells])
    seeds = int(scores["accuracy"][models[:2]].dropna().groupby("slices").size().min())
    note = (
        f"Accuracy / AUC in %, means over {seeds} seeds; gains over {titles[models[0]]}, paired over seeds, with 95 % "
        "intervals."
    )
    for model in models:
        fewer = int(scores["accuracy"][model].dropna().groupby("slices").size().min())
        note += f" {titles[model]}: {fewer} seeds." if fewer < seeds else ""
    return markdown(lines) + "\n\n" + note


def datasets() -> str:
    """The data sets that have a name, and a folder of one's own."""
    lines = [["`dataset`", "what", "how", "licence"]]
    lines += [[f"`{name}`", entry.title, entry.home, entry.licence] for name, entry in DATASETS.items()]
    own = (
        "class folders `COVID/` and `non-COVID/`, or `train.csv`, `val.csv`, `test.csv` with `filename,label[,patient]`"
    )
    return markdown([*lines, ["a folder", "your own", own, "yours"]])


PAPER = {  # of docs/scale.md; what is assumed, and nobody has measured here
    "images a GPU takes a second, ResNet-50 at 224 pixels, three of four stages frozen": 1000,
    "seconds of a run beside its training (start, decoding, scores)": 30,
    "price of a GPU-hour, dollars": 2,
    "gigabytes of memory of a run": 4,
}


def sweep_paper(cost: dict, runs: int = 10_000, gpus: int = 100) -> str:
    """What many runs of the article's recipe would need, from its numbers, assumptions, and measured costs."""
    speed, beside, price, memory = PAPER.values()
    slices, held_out, epochs = 2481, 400, 50
    seconds = epochs * (slices - held_out) / speed + beside
    hours = runs * seconds / 3600
    busy = max(row["main_cpu_ms"] for row in cost["throughput"]["found"]) / 1000
    lines = [["what", "how much"], *([f"*assumed:* {name}", f"{value:,}"] for name, value in PAPER.items())]
    lines += [
        ["seconds of a run", f"{seconds:.0f}"],
        ["GPU-hours", f"{hours:,.0f}"],
        [f"hours on {gpus} GPUs", f"{hours / gpus:.1f}"],
        ["dollars", f"{hours * price:,.0f}"],
        ["runs that end each second, scheduler", f"{gpus / seconds:.1f}"],
        ["of one core, scheduler (highest measured processor time of a run)", f"{gpus / seconds * busy:.1%}"],
        ["MB through the scheduler, in all (2 kB a run)", f"{runs * 2 / 1000:.0f}"],
        ["MB that a worker reads: all slices, decoded, 1 byte a pixel", f"{slices * 224**2 / 1e6:.0f}"],
        ["GB of memory, all workers", f"{gpus * memory:,}"],
    ]
    return markdown(lines)


def sweep_cost(cost: dict) -> str:
    """What a sweep costs beside its runs: throughput of simulated ones, overhead of ones that do nothing."""
    said = cost["throughput"]
    ideal = [
        ["workers", "1,000 simulated runs, s", "runs a second", "scheduler's processor time, ms a run", "memory, MB"]
    ]
    for row in said["found"]:
        rate = f"{row['runs'] / row['seconds']:.1f}"
        ideal.append(
            [row["workers"], f"{row['seconds']:.0f}", rate, f"{row['main_cpu_ms']:.1f}", f"{row['main_mib']:.0f}"]
        )
    text = markdown([[str(each) for each in line] for line in ideal])
    text += f"\n\n{said['cores']} cores, load {said['load_before']:.0f} before and {said['load_after']:.0f} after."
    if "overhead" not in cost:
        return text
    found, load = cost["overhead"]["found"], cost["overhead"]
    main, worker = (", ".join(f"{value:.0f}" for value in found[name]) for name in ("main_mib", "worker_mib"))
    return (
        f"{text}\n\n{found['runs']} runs of a notebook that does nothing, on one worker: papermill's own time "
        f"{found['papermill_seconds']:.2f} s a run, all else {found['other_seconds']:.3f} s, "
        f"**{found['other_seconds'] / found['papermill_seconds']:.1%}** of it. Memory after a tenth of the runs, "
        f"half of them, and all: scheduler and client {main} MB, worker {worker} MB (load {load['load_before']:.0f} "
        f"before, {load['load_after']:.0f} after)."
    )


def sweep_threads(cost: dict) -> str:
    """Two runs at a time with one thread each, or one after the other with two."""
    if "threads" not in cost:
        return "*Not measured yet: `benchmarks/sweep_cost.py threads`.*"
    rows, lines = (
        cost["threads"]["found"],
        [["four trainings (ResNet-18, 64 pixels), two cores", "seconds, each round"]],
    )
    for how in dict.fromkeys(row["how"] for row in rows):
        lines.append([how, ", ".join(f"{row['seconds']:.0f}" for row in rows if row["how"] == how)])
    return markdown(lines) + f"\n\nLoad before {cost['threads']['load_before']:.1f}."


def tables() -> dict[str, str]:
    """All tables by name."""
    real, phantom = read_json(RESULTS / "sars-cov-2-ct.json"), read_json(RESULTS / "phantom.json")
    curve, maps = read_json(RESULTS / "learning_curve.json"), read_json(RESULTS / "heat_maps.json")
    pointing = [row for row in maps if row["part"] != "ROAD"]
    weights = sorted((PROJECT / "data" / "weights").glob("*.json"))
    return {
        "datasets": datasets(),
        "real": summary(real, "patient"),
        "real-random": summary(real, "random"),
        "phantom": summary(phantom, "patient"),
        "search": search(read_json(RESULTS / "search.json")),
        "real-runs": each_run(real),
        "phantom-runs": each_run(phantom),
        "difficulty": difficulty(phantom),
        "weights": pretraining([path.stem for path in weights], [read_json(path) for path in weights]),
        "variance": variance(),
        "speed": speed(read_json(RESULTS / "speed.json")),
        "learning-curve": few_slices(curve, [name for name in CURVE if any(row["model"] == name for row in curve)]),
        "learning-curve-longer": few_slices(curve, ["scratch", "transfer"], longer=True),
        "learning-curve-50": few_slices(curve, ["scratch, ResNet-50", "transfer, ResNet-50"]),
        "heat-maps": heat_maps(pointing),
        "heat-maps-test": heat_maps_test(pointing),
        "heat-maps-road": heat_maps_road(maps),
        "heat-maps-real": heat_maps_real(read_json(RESULTS / "heat_maps_real.json")),
        "strangers": strangers(read_json(RESULTS / "strangers.json")),
        "patients": patients(read_json(RESULTS / "patients.json")),
        "better-answers": better_answers(read_json(RESULTS / "better_answers.json")["gains"]),
        "craft": craft(read_json(RESULTS / "craft.json")),
        "classroom": classroom(read_json(RESULTS / "classroom.json")),
        "leaks": leaks(read_json(RESULTS / "leaks.json")),
        "kept-features": kept_features(read_json(RESULTS / "trunk_cache.json")),
        "sweep-cost": sweep_cost(read_json(RESULTS / "sweep_cost.json")),
        "sweep-threads": sweep_threads(read_json(RESULTS / "sweep_cost.json")),
        "sweep-paper": sweep_paper(read_json(RESULTS / "sweep_cost.json")),
    }


def filled(text: str, content: dict[str, str]) -> str:
    """A page with every table between its comments renewed."""
    for name, table in content.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
    return text


def heat_map_picture() -> bytes:
    """The picture (JPEG) of notebook 04 with both models' maps, as in the article and as chosen, for the README."""
    notebook = nbformat.read(PROJECT / "notebooks" / "04_cam.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/jpeg" in output.get("data", {})]
    wanted = next(p for p in pictures if "chosen for each on validation" in p.metadata["image/jpeg"]["alt"])
    return b64decode(wanted.data["image/jpeg"])


def learning_curve_picture() -> bytes:
    """The figure (PNG) of accuracy by the number of real training slices."""
    return compact(draw_learning_curve(read_json(RESULTS / "learning_curve.json")), photo=False)


if __name__ == "__main__":
    replace_file(PROJECT / "docs" / "learning-curve.png", lambda path: path.write_bytes(learning_curve_picture()))
    replace_file(PROJECT / "docs" / "heat-maps.jpg", lambda path: path.write_bytes(heat_map_picture()))
    content = tables()
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"), content)
        replace_file(page, lambda path, text=text: path.write_text(text, encoding="utf-8"))
