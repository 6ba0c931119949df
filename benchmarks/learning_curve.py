"""What are pretrained weights worth when there are few real slices to learn from?

    .venv/bin/python benchmarks/learning_curve.py --seeds 5

Real slices, block split, 96 px. Each seed draws another split, other training slices (as many of either class) and
other random weights; within a seed all models see the same. The networks are a sweep of benchmarks/few_slices.ipynb in
runs/learning-curve, so that it can be stopped and started at any time, and run on a cluster. Rows that are in
benchmarks/results/learning_curve.json are not made again; benchmarks/tables.py writes the figure and the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools

import numpy as np
from search import network_of, recorded

from covid_course.sweep import summary, sweep
from covid_utils.core.files import PROJECT, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.evaluation import metrics_with_intervals, percent
from covid_utils.labs.audit import grey_histogram

RESULTS = PROJECT / "benchmarks" / "results" / "learning_curve.json"
FOLDER = "runs/learning-curve"
KEY = ("model", "slices", "epochs", "seed")
ALL = 1681  # training slices: about so many has every split, so these are all
EPOCHS = {50: 30, 100: 30, 200: 20, 400: 15, ALL: 8}
MODELS = {
    "scratch": {"weights": "scratch", "trainable": "all"},
    "random trunk": {"weights": "scratch", "trainable": "last"},  # a control: frozen as the bundled one, but random
    "transfer": {"weights": "bundled", "trainable": "last"},
    "transfer_all": {"weights": "bundled", "trainable": "all"},
    "lite0 scratch": {"backbone": "efficientnet_lite0", "trainable": "all", "learning_rate": 2e-3},
    "imagenet": {"backbone": "efficientnet_lite0", "weights": "imagenet", "trainable": "all"},
    "scratch, ResNet-50": {"weights": "scratch", "trainable": "all", "backbone": "resnet50"},
    "transfer, ResNet-50": {"weights": "bundled", "trainable": "last", "backbone": "resnet50"},
}


def fewer(data: CTData, count: int, seed: int) -> CTData:
    """The same data with only `count` training slices, half of them COVID, taken at random; or with all (0)."""
    if not count:
        return data
    table = data.table
    train_rows = table[table.split == "train"].sample(frac=1, random_state=seed).groupby("label").head(count // 2).index
    rows = np.sort(np.concatenate([train_rows, table.index[table.split != "train"]]))
    return dataclasses.replace(data, table=table.loc[rows].reset_index(drop=True), images=data.images[rows])


def histogram(slices: int, seed: int) -> dict:
    """The row of the rival that learns no shapes."""
    data = fewer(load_data(Settings("sars-cov-2-ct", seed=seed), progress=False), slices % ALL, seed)
    test = data.table[data.table.split == "test"]
    return {"seconds": 0, "test": metrics_with_intervals(grey_histogram(data), test.label, test.patient)}


def keep(key: tuple, found: dict) -> None:
    """Record a row, and say it."""
    row = dict(zip(KEY, key, strict=True)) | found
    write_json(RESULTS, list((recorded(RESULTS, KEY) | {key: row}).values()))
    scores = {score: percent(row["test"][score]) for score in ("accuracy", "auc")}
    print(f"{key[1]} slices, seed {key[3]}, {key[0]}: {scores}, {row['seconds']:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--slices", type=int, nargs="+", default=list(EPOCHS), help="training slices")
    parser.add_argument("--longer", type=int, default=1, help="so many times the epochs")
    parser.add_argument("--models", nargs="*", default=["scratch", "transfer", "imagenet"], choices=list(MODELS))
    parser.add_argument("--scheduler", help="of a Dask cluster (docs/scale.md)")
    options = parser.parse_args()
    asked = list(itertools.product(range(options.seeds), options.slices))
    for seed, slices in asked:
        if (key := ("grey histogram", slices, 0, seed)) not in recorded(RESULTS, KEY):
            keep(key, histogram(slices, seed))
    keys = [(model, n, options.longer * EPOCHS[n], seed) for seed, n in asked for model in options.models]
    learning = [key for key in keys if key not in recorded(RESULTS, KEY)]
    if not learning:
        return 0
    plan = {
        "notebooks": ["benchmarks/few_slices.ipynb"],
        "folder": FOLDER,
        "parameters": {"dataset": "sars-cov-2-ct", "batch_size": 16},
        "list": [{"slices": n % ALL, "epochs": e, "seed": seed} | MODELS[name] for name, n, e, seed in learning],
    }
    table = sweep(plan, options.scheduler)
    for key, run in zip(learning, table.to_dict("records"), strict=True):
        if run["status"] == "finished":
            keep(key, {"seconds": run["seconds"], "test": network_of(run)["test"]})
    print(summary(table))
    return int((table.status != "finished").any())


if __name__ == "__main__":
    raise SystemExit(main())
