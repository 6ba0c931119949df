"""What are pretrained weights worth when there are few real slices to learn from?

    .venv/bin/python benchmarks/learning_curve.py

Real slices, block split, 96 px. Each seed draws another split, other training slices (as many of either class) and
other random weights; within a seed all models see the same. The networks are a sweep of benchmarks/few_slices.ipynb in
runs/learning-curve, so that it can be stopped and started at any time, and run on a cluster. The rows go to
benchmarks/results/learning_curve.csv; benchmarks/tables.py draws the figure and writes the table.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from experiment import RESULTS, grid, parser, run, run_sweep

from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.evaluation import metrics_with_intervals
from covid_utils.labs.audit import grey_histogram

ALL = 1681  # training slices: about so many has every split, so these are all
EPOCHS = {50: 30, 100: 30, 200: 20, 400: 15, ALL: 8}
MODELS = {
    "scratch": {"weights": "scratch", "trainable": "all"},
    "transfer": {"weights": "bundled", "trainable": "last"},
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


def histogram(seed: int, slices: int, model: str, epochs: int) -> list[dict]:
    """The row of the baseline that learns no shapes, and has no epochs."""
    data = fewer(load_data(Settings("sars-cov-2-ct", seed=seed), progress=False), slices % ALL, seed)
    test = data.table[data.table.split == "test"]
    return [{"seconds": 0} | metrics_with_intervals(grey_histogram(data), test.label, test.patient)]


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--slices", type=int, nargs="+", default=list(EPOCHS), help="training slices")
    arguments.add_argument("--longer", type=int, default=1, help="so many times the epochs")
    arguments.add_argument("--models", nargs="*", default=["scratch", "transfer", "imagenet"], choices=list(MODELS))
    arguments.add_argument("--scheduler", help="of a Dask cluster (docs/reference.md)")
    options, path = arguments.parse_args(), RESULTS / "learning_curve.csv"
    run(path, grid(seed=options.seeds, slices=options.slices, model=["grey histogram"], epochs=[0]), histogram)
    runs = []
    for each in grid(seed=options.seeds, slices=options.slices, model=options.models):
        shared = {"epochs": options.longer * EPOCHS[each["slices"]], "seed": each["seed"]}
        runs.append((each | shared, shared | {"slices": each["slices"] % ALL} | MODELS[each["model"]]))
    common = {"dataset": "sars-cov-2-ct", "batch_size": 16}
    plan = {"notebooks": ["benchmarks/few_slices.ipynb"], "folder": "runs/learning-curve", "parameters": common}
    return run_sweep(path, plan, runs, options.scheduler)


if __name__ == "__main__":
    raise SystemExit(main())
