"""Which recipe? Trains each on a few splits and scores it on VALIDATION slices: no test slice is read here.

    .venv/bin/python benchmarks/search.py sars-cov-2-ct \\
        "backbone=efficientnet_lite0 weights=imagenet trainable=all image_size=128 epochs=6" \\
        "backbone=resnet18 epochs=12"

A recipe is what differs from the defaults, as names and values of `Settings`. Runs that are in
benchmarks/results/search.json are not made again; benchmarks/tables.py writes the table in docs/results.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from covid_utils.core.files import PROJECT, read_json, resolve, write_json
from covid_utils.core.settings import Settings, typed
from covid_utils.data import CTData, load_data
from covid_utils.models import Net
from covid_utils.training import best_epoch, fit, new_model

RESULTS = PROJECT / "benchmarks" / "results" / "search.json"
KEY = ("dataset", "split", "recipe", "seed")


def recorded(path: Path = RESULTS, key: tuple = KEY) -> dict[tuple, dict]:
    """The recorded rows of a file by what identifies them; none if there is no file."""
    return {tuple(row[name] for name in key): row for row in (read_json(path) if path.exists() else [])}


def network_of(run: dict) -> dict:
    """What a finished run of a sweep has recorded of its network, by its row in the sweep's table."""
    return read_json(resolve(run["notebook"]).parent / "metrics.json")["network"]


def trained(settings: Settings, data: CTData) -> tuple[Net, dict]:
    """Train: the best epoch's model; its number, its validation accuracy and loss, the last one's, the seconds."""
    started, model = time.perf_counter(), new_model(settings)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(model, data, settings, Path(folder)).set_index("epoch")
    best = best_epoch(history.reset_index())
    return model, {
        "best_epoch": best,
        "best": history.val_accuracy[best],
        "last": history.val_accuracy.iloc[-1],
        "loss": history.val_loss[best],
        "seconds": round(time.perf_counter() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("phantom", "sars-cov-2-ct"))
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--split", default="patient", choices=("patient", "random"))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    options = parser.parse_args()
    for recipe in options.recipes:
        settings = Settings(
            **typed(dict(each.split("=") for each in recipe.split())), dataset=options.dataset, split=options.split
        )
        for seed in range(options.seeds):
            row = {"dataset": options.dataset, "split": options.split, "recipe": recipe, "seed": seed}
            if tuple(row[name] for name in KEY) not in recorded():
                seeded = dataclasses.replace(settings, seed=seed)
                _, scores = trained(seeded, load_data(seeded, progress=False))
                write_json(RESULTS, [*recorded().values(), row | scores])
        scores = [recorded()[options.dataset, options.split, recipe, seed] for seed in range(options.seeds)]
        best, last = (100 * np.mean([row[name] for row in scores]) for name in ("best", "last"))
        print(
            f"{options.split} split, {recipe}: best {best:.1f}, last {last:.1f}, {scores[-1]['seconds']} s", flush=True
        )


if __name__ == "__main__":
    main()
