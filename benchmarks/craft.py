"""Do layer-wise rates or gradual unfreezing help? On VALIDATION patients of the phantom, several seeds.

    .venv/bin/python benchmarks/craft.py --seeds 0 1 2

An EfficientNet-Lite0 with ImageNet's weights, notebook 3's recipe with all stages learning. The rows go to
benchmarks/results/craft.json, and one that is there is not made again; notebook 3 draws them.
"""

from __future__ import annotations

import argparse
import time

from search import recorded

from covid_utils.core.files import PROJECT, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.labs.finetuning import fine_tune
from covid_utils.training import new_model

RESULTS = PROJECT / "benchmarks" / "results" / "craft.json"
KEY = ("way", "seed")
WAYS = {
    "one rate": {},
    "layer-wise, × 0.7": {"factor": 0.7},
    "gradual unfreezing": {"unfreeze": ("head", "last", "layer3", "layer2", "layer1", "all")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(3)))
    for seed in parser.parse_args().seeds:
        recipe = {"backbone": "efficientnet_lite0", "weights": "imagenet", "trainable": "all"}
        settings = Settings(seed=seed, batch_size=16, learning_rate=2e-3, **recipe)
        data = load_data(settings, progress=False)
        for way, arguments in WAYS.items():
            if (way, seed) in recorded(RESULTS, KEY):
                continue
            started = time.perf_counter()
            history = fine_tune(new_model(settings), data, settings, **arguments)
            row = {"way": way, "seed": seed, "best": float(history.val_accuracy.max())}
            row |= {"last": float(history.val_accuracy.iloc[-1]), "seconds": round(time.perf_counter() - started)}
            write_json(RESULTS, [*recorded(RESULTS, KEY).values(), row])
            print(row, flush=True)


if __name__ == "__main__":
    main()
