"""Scratch and transfer over several seeds and splits, with intervals and with baselines that learn no shapes.

    .venv/bin/python benchmarks/accuracy.py phantom --splits patient --seeds 5 --epochs 10
    .venv/bin/python benchmarks/accuracy.py sars-cov-2-ct --seeds 5 --epochs 12 --copies 0
    .venv/bin/python benchmarks/accuracy.py sars-cov-2-ct --seeds 3 --epochs 25 --image-size 128

The last two want the real slices in data/sars-cov-2-ct (see data/README.md). Finished runs under runs/<dataset> are
found again, so that it can be stopped and started at any time. The scores join those of other seeds and budgets in
benchmarks/results/<dataset>.json; benchmarks/tables.py then writes the tables of README.md and docs/results.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from covid_utils.data import load_data
from covid_utils.evaluation import compare, metrics_with_intervals, percent
from covid_utils.labs.audit import grey_histogram, nearest_neighbour
from covid_utils.runs.files import PROJECT, read_json, write_json
from covid_utils.runs.found import find_or_train
from covid_utils.runs.settings import Settings
from covid_utils.training import predict

RUNS = {
    "scratch": {"weights": "scratch"},
    "transfer": {"weights": "bundled", "trainable": "last"},
    "transfer_all": {"weights": "bundled", "trainable": "all"},
}


def one_split(options: argparse.Namespace, split: str, seed: int) -> list[dict]:
    """Train what is missing for one split and seed, then read the test slices once; a row per model."""
    common = {
        "dataset": options.dataset,
        "data_dir": options.data_dir,
        "split": split,
        "seed": seed,
        "epochs": options.epochs,
        "image_size": options.image_size,
        "copies": options.copies,
        "run_dir": f"runs/{options.dataset}/{split}-{seed}-{options.image_size}px-{options.epochs}epochs",
    }
    data = load_data(Settings(**common))
    test, logits, seconds = data.table[data.table.split == "test"], {}, {}
    for name in options.models:
        started = time.perf_counter()
        model, history, text = find_or_train(data, Settings(**common | RUNS[name]), name)
        print(f"{split} split, seed {seed}: {text} ({time.perf_counter() - started:.0f} s)", flush=True)
        logits[name] = predict(model, data.images[test.index])
        seconds[name] = history.seconds.sum()
    logits["1-nearest neighbour"], logits["grey histogram"] = nearest_neighbour(data), grey_histogram(data)
    rows = []
    for name, values in logits.items():
        row = {
            "split": split,
            "seed": seed,
            "model": name,
            "test": metrics_with_intervals(values, test.label, test.patient),
        }
        row["logits"] = " ".join(f"{value:.4g}" for value in values)  # so that other scores can be had later
        row |= {"seconds": seconds.get(name), "epochs": options.epochs, "image_size": options.image_size}
        scratch = logits["scratch"] if "scratch" in logits else recorded(row | {"model": "scratch"}, options.dataset)
        if name.startswith("transfer") and scratch is not None:
            row["against scratch"] = compare(scratch, values, test.label, test.patient)
        rows.append(row)
        print(
            f"  {name:20s} accuracy {percent(row['test']['accuracy'])}, AUC {percent(row['test']['auc'])}", flush=True
        )
    return rows


KEY = ("split", "seed", "model", "epochs", "image_size")


def recorded(wanted: dict, dataset: str) -> np.ndarray | None:
    """The logits of a recorded row, if there is one."""
    path = PROJECT / "benchmarks" / "results" / f"{dataset}.json"
    for row in read_json(path) if path.exists() else []:
        if all(row[name] == wanted[name] for name in KEY):
            return np.array(row["logits"].split(), float)
    return None


def join(path: Path, rows: list[dict]) -> None:
    """Add rows to the recorded ones; a row of the same split, seed, model and budget takes the old one's place."""
    found = {tuple(row[name] for name in KEY): row for row in (read_json(path) if path.exists() else []) + rows}
    write_json(path, [found[key] for key in sorted(found, key=str)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("phantom", "sars-cov-2-ct"))
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--splits", nargs="+", default=["random", "patient"])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="the first of them")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--copies", type=int, default=4, help="kept copies of each slice where the trunk is frozen")
    parser.add_argument("--models", nargs="*", default=["scratch", "transfer"], choices=list(RUNS))
    options = parser.parse_args()

    rows = []
    for seed in range(options.first, options.first + options.seeds):
        for split in options.splits:
            new = one_split(options, split, seed)
            join(PROJECT / "benchmarks" / "results" / f"{options.dataset}.json", new)
            rows += new
    for split in options.splits:
        for name in {row["model"]: None for row in rows}:
            found = [row["test"]["accuracy"]["value"] for row in rows if (row["split"], row["model"]) == (split, name)]
            print(
                f"{split:8s} {name:20s} {100 * np.mean(found):.1f} ({100 * min(found):.1f} to {100 * max(found):.1f})"
            )


if __name__ == "__main__":
    main()
