"""What are pretrained weights worth when there are few real slices to learn from?

    .venv/bin/python benchmarks/learning_curve.py --seeds 5

Real slices, block split, 96 px. Each seed draws another split, other training slices (as many of either class) and
other random weights; within a seed all models see the same. Equal budgets: as many epochs for all, the last one counts
(no validation slices: who has 50 slices to learn from has none to spare), test slices are read once. Rows that are
in benchmarks/results/learning_curve.json are not made again; benchmarks/tables.py writes the figure and the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from search import recorded

from covid_utils.data import CTData, load_data, loader
from covid_utils.evaluation import metrics_with_intervals, percent
from covid_utils.labs.audit import grey_histogram
from covid_utils.models import build_model, first_to_learn, freeze
from covid_utils.runs.cached import CachedAugmentations
from covid_utils.runs.device import repeatable
from covid_utils.runs.files import PROJECT, write_json
from covid_utils.runs.formats import choose_formats
from covid_utils.runs.settings import Settings
from covid_utils.training import make_optimizer, predict, train_one_epoch

RESULTS = PROJECT / "benchmarks" / "results" / "learning_curve.json"
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
    """The same data with only `count` training slices, half of them COVID, taken at random; or with all."""
    if count == ALL:
        return data
    table = data.table
    train_rows = table[table.split == "train"].sample(frac=1, random_state=seed).groupby("label").head(count // 2).index
    rows = np.sort(np.concatenate([train_rows, table.index[table.split != "train"]]))
    return dataclasses.replace(data, table=table.loc[rows].reset_index(drop=True), images=data.images[rows])


def learned(data: CTData, settings: Settings) -> np.ndarray:
    """Train for all epochs, and the test slices' logits after the last one."""
    with repeatable(settings.seed):
        model = freeze(build_model(settings.backbone, settings.weights), settings.trainable)
    model.to(memory_format=torch.channels_last)
    kept = first_to_learn(model) != "stem"
    choose_formats(model, data.images, kept)
    batches = loader(data, "train", settings.batch_size, shuffle=True, augmented=True)
    optimizer, scheduler = make_optimizer(model, settings, settings.epochs * len(batches))
    with tempfile.TemporaryDirectory() as folder:
        cache = CachedAugmentations(model, data, settings, Path(folder)) if kept else None
        for epoch in range(1, settings.epochs + 1):
            with repeatable(settings.seed * 1_000_003 + epoch):
                learner, batches, _ = cache.epoch(epoch) if cache else (model, batches, None)
                train_one_epoch(learner, batches, optimizer, scheduler)
    return predict(model, data.images[data.table.index[data.table.split == "test"]]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="the first of them")
    parser.add_argument("--slices", type=int, nargs="+", default=list(EPOCHS), help="training slices")
    parser.add_argument("--longer", type=int, default=1, help="so many times the epochs")
    parser.add_argument("--models", nargs="*", default=["scratch", "transfer"], choices=list(MODELS))
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        data = load_data(Settings("sars-cov-2-ct", seed=seed), progress=False)
        for count in options.slices:
            few, epochs = fewer(data, count, seed), options.longer * EPOCHS[count]
            test = few.table[few.table.split == "test"]
            for name in ["grey histogram", *options.models]:
                started = time.perf_counter()
                row = {"seed": seed, "slices": count, "model": name, "epochs": epochs if name in MODELS else 0}
                if tuple(row[key] for key in KEY) in recorded(RESULTS, KEY):
                    continue
                if name in MODELS:
                    logits = learned(few, Settings(seed=seed, epochs=epochs, batch_size=16, **MODELS[name]))
                else:
                    logits = grey_histogram(few)
                row |= {"seconds": round(time.perf_counter() - started, 1)}
                row |= {"test": metrics_with_intervals(logits, test.label, test.patient)}
                write_json(RESULTS, [*recorded(RESULTS, KEY).values(), row])
                print(
                    f"seed {seed}, {count} slices, {name:14s} accuracy {percent(row['test']['accuracy'])}, "
                    f"AUC {percent(row['test']['auc'])}, {row['seconds']:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
