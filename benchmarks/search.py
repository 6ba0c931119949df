"""Which recipe? Trains each on a few splits and scores it on VALIDATION slices: no test slice is read here.

    .venv/bin/python benchmarks/search.py sars-cov-2-ct \\
        "backbone=efficientnet_lite0 weights=imagenet trainable=all image_size=128 epochs=6" \\
        "backbone=resnet18 epochs=12"

A recipe is what differs from the defaults, as names and values of `Settings`. The rows go to
benchmarks/results/search.csv.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from experiment import RESULTS, grid, parser, run

from covid_utils.core.settings import Settings, typed
from covid_utils.data import CTData, load_data
from covid_utils.models import Net
from covid_utils.runs.load_or_train import new_model, train
from covid_utils.training import best_epoch


def trained(settings: Settings, data: CTData) -> tuple[Net, dict]:
    """Train: the best epoch's model; its validation accuracy and loss, the last one's accuracy, and the seconds."""
    started, model = time.perf_counter(), new_model(settings)
    with tempfile.TemporaryDirectory() as folder:
        history = train(model, data, settings, Path(folder))
    accuracy, best = history.val_accuracy, history.epoch.eq(best_epoch(history)).idxmax()
    scores = {"best": accuracy[best], "last": accuracy.iloc[-1], "loss": history.val_loss[best]}
    return model, scores | {"seconds": round(time.perf_counter() - started)}


def measure(dataset: str, split: str, recipe: str, seed: int) -> list[dict]:
    changes = typed(dict(each.split("=") for each in recipe.split()))
    settings = Settings(dataset, split=split, seed=seed, **changes)
    return [trained(settings, load_data(settings, progress=False))[1]]


def main() -> None:
    arguments = parser(__doc__, seeds=3)
    arguments.add_argument("dataset", choices=("phantom", "sars-cov-2-ct"))
    arguments.add_argument("recipes", nargs="+")
    arguments.add_argument("--split", default="patient", choices=("patient", "random"))
    options = arguments.parse_args()
    asked = grid(dataset=[options.dataset], split=[options.split], recipe=options.recipes, seed=options.seeds)
    run(RESULTS / "search.csv", asked, measure)


if __name__ == "__main__":
    main()
