"""Do layer-wise rates or gradual unfreezing help? On VALIDATION patients of the phantom, several seeds.

    .venv/bin/python benchmarks/fine_tuning.py --seeds 0 1 2

An EfficientNet-Lite0 with ImageNet's weights, notebook 3's recipe with all stages learning. The rows go to
benchmarks/results/fine_tuning.csv.
"""

from __future__ import annotations

import time

from experiment import RESULTS, grid, parser, run

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.labs.finetuning import fine_tune
from covid_utils.training import new_model

WAYS = {
    "one rate": {},
    "layer-wise, × 0.7": {"factor": 0.7},
    "gradual unfreezing": {"unfreeze": ("head", "last", "layer3", "layer2", "layer1", "all")},
}


def measure(seed: int, way: str) -> list[dict]:
    """Validation accuracy at the best and at the last epoch."""
    recipe = {"backbone": "efficientnet_lite0", "weights": "imagenet", "trainable": "all"}
    settings = Settings(seed=seed, batch_size=16, learning_rate=2e-3, **recipe)
    data, started = load_data(settings, progress=False), time.perf_counter()
    accuracy = fine_tune(new_model(settings), data, settings, **WAYS[way]).val_accuracy
    seconds = round(time.perf_counter() - started)
    return [{"best": accuracy.max(), "last": accuracy.iloc[-1], "seconds": seconds}]


def main() -> None:
    seeds = parser(__doc__, seeds=3).parse_args().seeds
    run(RESULTS / "fine_tuning.csv", grid(seed=seeds, way=WAYS), measure)


if __name__ == "__main__":
    main()
