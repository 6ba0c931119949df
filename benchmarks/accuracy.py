"""Each model with its recipe over several seeds and splits, with intervals and beside baselines that learn no shapes.

    .venv/bin/python benchmarks/accuracy.py phantom --splits patient
    .venv/bin/python benchmarks/accuracy.py sars-cov-2-ct

The second wants the real slices in data/sars-cov-2-ct (see data/README.md). benchmarks/search.py chose the recipes on
validation slices. The networks are a sweep of notebooks/train.ipynb in runs/accuracy/<dataset>, so that it can be
stopped and started at any time, and run on a cluster; the rows go to benchmarks/results/<dataset>.csv.
"""

from __future__ import annotations

from experiment import RESULTS, as_text, grid, parser, recipe_text, run, run_sweep

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals
from covid_utils.labs.audit import grey_histogram, nearest_neighbour

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


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("dataset", choices=RECIPES)
    arguments.add_argument("--splits", nargs="+", default=["patient", "random"])
    arguments.add_argument("--models", nargs="*", help="if not given, all")
    arguments.add_argument("--scheduler", help="of a Dask cluster (docs/reference.md)")
    options = arguments.parse_args()
    path, recipes = RESULTS / f"{options.dataset}.csv", RECIPES[options.dataset]
    names = options.models or [*BASELINES, *recipes]

    def baseline(split: str, seed: int, model: str) -> list[dict]:
        data = load_data(Settings(options.dataset, split=split, seed=seed), progress=False)
        test = data.table[data.table.split == "test"]
        logits = BASELINES[model](data)
        return [metrics_with_intervals(logits, test.label, test.patient) | {"logits": as_text(logits)}]

    asked = grid(split=options.splits, seed=options.seeds, model=names)
    run(path, [each for each in asked if each["model"] in BASELINES], baseline)
    trained = [(each, recipes[each["model"]]) for each in asked if each["model"] not in BASELINES]
    runs = [
        (each | {"recipe": recipe_text(recipe)}, {"split": each["split"], "seed": each["seed"]} | recipe)
        for each, recipe in trained
    ]
    folder = f"runs/accuracy/{options.dataset}"
    plan = {"notebooks": ["train"], "folder": folder, "parameters": {"dataset": options.dataset}}
    return run_sweep(path, plan, runs, options.scheduler)


if __name__ == "__main__":
    raise SystemExit(main())
