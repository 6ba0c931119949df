"""Each model with its recipe over several seeds and splits, with intervals and beside baselines that learn no shapes.

    .venv/bin/python benchmarks/accuracy.py phantom --splits patient
    .venv/bin/python benchmarks/accuracy.py phantom --splits patient --seeds 0 --models "scratch, 2400 patients"
    .venv/bin/python benchmarks/accuracy.py sars-cov-2-ct

The second wants the real slices in data/sars-cov-2-ct (see data/README.md). What was tried to choose
the recipes, on validation slices, benchmarks/search.py has recorded. A row that is in benchmarks/results/<dataset>.json
with the same recipe is not made again, so that it can be stopped and started at any time; benchmarks/tables.py then
writes the tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from search import recorded, trained

from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals, percent
from covid_utils.labs.audit import grey_histogram, nearest_neighbour
from covid_utils.runs.files import PROJECT, write_json
from covid_utils.runs.settings import Settings
from covid_utils.training import predict

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=RECIPES)
    parser.add_argument("--splits", nargs="+", default=["patient", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--models", nargs="*", help="if not given, all but the longest")
    options = parser.parse_args()
    recipes = dict.fromkeys(BASELINES, {}) | RECIPES[options.dataset]
    names = options.models or [name for name in recipes if name not in ON_DEMAND]
    for split in options.splits:
        for seed in options.seeds:
            for name in names:
                row = {"split": split, "seed": seed, "model": name, "recipe": recipes[name]}
                known = recorded(results(options.dataset), KEY).get((split, seed, name))
                if known and known.get("recipe") == row["recipe"]:
                    continue
                settings = Settings(options.dataset, split=split, seed=seed, **recipes[name])
                data = load_data(settings, progress=False)
                test = data.table[data.table.split == "test"]
                if name in BASELINES:
                    logits = BASELINES[name](data)
                else:
                    model, found = trained(settings, data)
                    logits = predict(model, data.images[test.index]).numpy()
                    row |= {name: found[name] for name in ("best_epoch", "seconds")} | {"val_accuracy": found["best"]}
                row["test"] = metrics_with_intervals(logits, test.label, test.patient)
                row["logits"] = " ".join(f"{value:.4g}" for value in logits)  # so that other scores can be had later
                rows = recorded(results(options.dataset), KEY) | {(split, seed, name): row}
                write_json(results(options.dataset), [rows[key] for key in sorted(rows)])
                scores = {score: percent(row["test"][score]) for score in ("accuracy", "auc")}
                print(f"{split}, seed {seed}, {name}: {scores}, {row.get('seconds', 0)} s", flush=True)


if __name__ == "__main__":
    main()
