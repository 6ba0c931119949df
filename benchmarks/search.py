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

from experiment import RESULTS, grid, parser, recipe_of, run

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.runs.load_or_train import new_model, train
from covid_utils.training import best_epoch


def measure(dataset: str, split: str, recipe: str, seed: int) -> list[dict]:
    """Validation accuracy and loss at the best epoch, the accuracy at the last one, and the seconds of training."""
    settings = Settings(dataset, split=split, seed=seed, **recipe_of(recipe))
    data, started = load_data(settings, progress=False), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        history = train(new_model(settings), data, settings, Path(folder))
    best = history.set_index("epoch").loc[best_epoch(history)]
    scores = {"best": best.val_accuracy, "last": history.val_accuracy.iloc[-1], "loss": best.val_loss}
    return [scores | {"seconds": round(time.perf_counter() - started)}]


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
