"""Scratch and transfer on the real slices: three seeds, both splits, with intervals and baselines.

Put the SARS-CoV-2 CT-Scan slices in data/sars-cov-2-ct (see data/README.md), then run

    .venv/bin/python benchmarks/real_data.py

Finished runs under runs/real are found again, so that it can be stopped and started at any time. The results go
to benchmarks/results/real_data.json and, as a table, to the screen.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

from covid_utils.data import load_data, loader
from covid_utils.evaluation import compare, evaluate, grey_histogram, nearest_neighbour, percent
from covid_utils.runs import PROJECT, Settings, resolve, write_json
from covid_utils.training import find_or_train, predict

RUNS = {
    "scratch": {"weights": "scratch"},
    "transfer": {"weights": "bundled", "trainable": "layer4"},
    "transfer_all": {"weights": "bundled", "trainable": "all"},
}


def one_run(split: str, seed: int, runs: list[str], options: argparse.Namespace) -> list[dict]:
    """Train what is missing for one split and seed, then read the test slices once; a row per model."""
    run_dir = f"{options.runs}/{split}-{seed}"
    common = Settings(
        dataset="sars-cov-2-ct", data_dir=options.data_dir, split=split, seed=seed, run_dir=run_dir,
        image_size=options.image_size, epochs=options.epochs,
    )  # fmt: skip
    data = load_data(common.dataset, resolve(common.data_dir), split, common.image_size, seed)
    models = {}
    for name in runs:
        started = time.perf_counter()
        settings = Settings(**vars(common) | RUNS[name])
        models[name], history, text = find_or_train(data, settings, name)
        print(f"{split} split, seed {seed}: {text} ({time.perf_counter() - started:.0f} s)", flush=True)
    test = data.table[data.table.split == "test"]
    logits = {name: predict(model, loader(data, "test", 64, shuffle=False))[0] for name, model in models.items()}
    logits["1-nearest neighbour"] = nearest_neighbour(data) - 0.5
    logits["grey histogram"] = grey_histogram(data) - 0.5
    rows = []
    for name, values in logits.items():
        row = {
            "split": split,
            "seed": seed,
            "model": name,
            "test": evaluate(values, test.label, test.patient),
        }
        if name.startswith("transfer"):
            row["against scratch"] = compare(logits["scratch"], values, test.label, test.patient)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--runs", default="runs/real", help="folder for the runs")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(RUNS), choices=list(RUNS))
    options = parser.parse_args()

    rows = []
    for seed in range(options.seeds):
        for split in ("random", "patient"):
            rows += one_run(split, seed, options.models, options)
            for row in rows[-len(options.models) - 2 :]:
                test = row["test"]
                print(
                    f"  {row['model']:20s} accuracy {percent(test['accuracy'])}, AUC {percent(test['auc'])}",
                    flush=True,
                )
            write_json(PROJECT / "benchmarks" / "results" / "real_data.json", rows)

    table = pd.DataFrame([row | {name: 100 * row["test"][name]["value"] for name in row["test"]} for row in rows])
    print(
        table.groupby(["split", "model"])[["accuracy", "sensitivity", "specificity", "auc"]]
        .agg(["mean", np.ptp])
        .round(1)
    )


if __name__ == "__main__":
    main()
