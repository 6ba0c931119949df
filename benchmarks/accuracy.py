"""Each model with its recipe over several seeds and splits, with intervals and beside baselines that learn no shapes.

    .venv/bin/python benchmarks/accuracy.py phantom --splits patient
    .venv/bin/python benchmarks/accuracy.py phantom --splits patient --seeds 0 --models "scratch, 2400 patients"
    .venv/bin/python benchmarks/accuracy.py sars-cov-2-ct

The third wants the real slices in data/sars-cov-2-ct (see data/README.md). What was tried to choose
the recipes, on validation slices, benchmarks/search.py has recorded. A row that is in benchmarks/results/<dataset>.json
with the same recipe is not made again. The networks are a sweep of notebooks/train.ipynb in runs/accuracy/<dataset>, so
that it can be stopped and started at any time, and run on a cluster; benchmarks/tables.py then writes the tables.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import pandas as pd
from search import network_of, recorded

from covid_course.sweep import summary, sweep
from covid_utils.core.files import PROJECT, resolve, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals, percent
from covid_utils.labs.audit import grey_histogram, nearest_neighbour

KEY = ("split", "seed", "model")
LITE0 = {"backbone": "efficientnet_lite0"}
BASELINES = {"1-nearest neighbour": nearest_neighbour, "grey histogram": grey_histogram}
CONTINUED = "data/weights/efficientnet_lite0_imagenet.safetensors"
PHANTOM = LITE0 | {"batch_size": 16, "learning_rate": 2e-3}
REAL = LITE0 | {"image_size": 128, "epochs": 8, "trainable": "layer3"}
LONGER = LITE0 | {"image_size": 160, "epochs": 12, "batch_size": 16, "trainable": "layer2"}
RECIPES = {
    "phantom": {
        "scratch": {},
        "bundled": {"weights": "bundled"},
        "imagenet frozen": PHANTOM | {"weights": "imagenet", "trainable": "layer2"},
        "lite0 bundled": PHANTOM | {"weights": "bundled", "trainable": "layer2"},
        "lite0 continued": PHANTOM | {"weights": CONTINUED, "trainable": "layer2"},
        "lite0 scratch": PHANTOM,
        "scratch, 2400 patients": {"patients": 2400},
    },
    "sars-cov-2-ct": {
        "scratch": {"image_size": 128, "epochs": 12},
        "bundled": {"image_size": 128, "epochs": 12, "weights": "bundled"},
        "lite0 scratch": LITE0 | {"image_size": 128, "epochs": 12, "learning_rate": 2e-3},
        "lite0 bundled": REAL | {"weights": "bundled"},
        "lite0 continued": REAL | {"weights": CONTINUED},
        "imagenet frozen": REAL | {"weights": "imagenet"},
        "imagenet": LITE0 | {"image_size": 128, "epochs": 6, "weights": "imagenet", "trainable": "all"},
        "imagenet, longer": LONGER | {"weights": "imagenet"},
        "continued, longer": LONGER | {"weights": CONTINUED},
    },
}
ON_DEMAND = ("scratch, 2400 patients",)  # only if named: a quarter of an hour a seed


def results(dataset: str) -> Path:
    """Where the rows of a data set are kept."""
    return PROJECT / "benchmarks" / "results" / f"{dataset}.json"


def baseline(dataset: str, split: str, seed: int, name: str) -> dict:
    """A baseline's part of a row: scores and logits."""
    data = load_data(Settings(dataset, split=split, seed=seed), progress=False)
    test = data.table[data.table.split == "test"]
    logits = BASELINES[name](data)
    return {"test": metrics_with_intervals(logits, test.label, test.patient), "logits": written(logits)}


def network(run: dict) -> dict:
    """The same of a run of the sweep, and its best epoch, seconds and validation accuracy."""
    folder = resolve(run["notebook"]).parent
    found, test = network_of(run), pd.read_csv(folder / "test.csv")
    row = {"best_epoch": found["best_epoch"], "seconds": round(run["seconds"]), "val_accuracy": found["val_accuracy"]}
    return row | {"test": found["test"], "logits": written(test.logit)}


def written(logits) -> str:
    """Logits as text, so that other scores can be had later."""
    return " ".join(f"{value:.4g}" for value in logits)


def keep(path: Path, key: tuple, recipe: dict, found: dict) -> None:
    """Record a row, and say it."""
    row = dict(zip(KEY, key, strict=True)) | {"recipe": recipe} | found
    rows = recorded(path, KEY) | {key: row}
    write_json(path, [rows[key] for key in sorted(rows)])
    scores = {score: percent(row["test"][score]) for score in ("accuracy", "auc")}
    print(f"{key[0]}, seed {key[1]}, {key[2]}: {scores}, {row.get('seconds', 0)} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=RECIPES)
    parser.add_argument("--splits", nargs="+", default=["patient", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--models", nargs="*", help="if not given, all but the longest")
    parser.add_argument("--scheduler", help="of a Dask cluster (docs/scale.md)")
    options = parser.parse_args()
    path, recipes = results(options.dataset), dict.fromkeys(BASELINES, {}) | RECIPES[options.dataset]
    names = options.models or [name for name in recipes if name not in ON_DEMAND]
    known = {key: row.get("recipe") for key, row in recorded(path, KEY).items()}
    wanted = [
        key for key in itertools.product(options.splits, options.seeds, names) if known.get(key) != recipes[key[2]]
    ]
    for key in wanted:
        if key[2] in BASELINES:
            keep(path, key, {}, baseline(options.dataset, *key))
    learning = [key for key in wanted if key[2] not in BASELINES]
    if not learning:
        return 0
    plan = {
        "notebooks": ["train"],
        "folder": f"runs/accuracy/{options.dataset}",
        "parameters": {"dataset": options.dataset},
        "list": [{"split": split, "seed": seed} | recipes[name] for split, seed, name in learning],
    }
    table = sweep(plan, options.scheduler)
    for key, run in zip(learning, table.to_dict("records"), strict=True):
        if run["status"] == "finished":
            keep(path, key, recipes[key[2]], network(run))
    print(summary(table))
    return int((table.status != "finished").any())


if __name__ == "__main__":
    raise SystemExit(main())
