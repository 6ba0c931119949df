"""Is the phantom neither trivial nor hopeless? Baselines and the default scratch run, over several seeds.

    .venv/bin/python benchmarks/phantom_difficulty.py --seeds 5
    .venv/bin/python benchmarks/phantom_difficulty.py --seeds 0 --long

`--long` adds one run on ten times the patients (the second line makes it alone, beside what is recorded). A seed
gives other patients, another split and another network. The scores go to benchmarks/results/phantom_difficulty.json
and, as a table, to the screen; finished runs under runs/phantom are found again, so that it can be stopped and
started at any time.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import pandas as pd

from covid_utils.data import CTData, load_data, loader
from covid_utils.labs.audit import grey_histogram, nearest_neighbour
from covid_utils.runs.files import PROJECT, read_json, write_json
from covid_utils.runs.found import find_or_train
from covid_utils.runs.settings import Settings
from covid_utils.training import evaluate

RESULTS = PROJECT / "benchmarks" / "results" / "phantom_difficulty.json"
GOALS = {  # lowest and highest test accuracy that a row may have
    "grey histogram": (0.0, 0.70),
    "1-nearest neighbour, patient split": (0.0, 0.70),
    "1-nearest neighbour, random split": (0.85, 1.0),
    "scratch": (0.75, 0.92),
    "scratch, ten times the patients": (0.97, 1.0),
}


def accuracy(scores, data: CTData) -> float:
    """Share of right decisions, by scores above or below 0, on the test slices."""
    return float(((scores > 0) == data.table.label[data.table.split == "test"]).mean())


def trained(settings: Settings) -> float:
    """Test accuracy of the best epoch of a run from scratch."""
    data = load_data(settings)
    model, _, text = find_or_train(data, settings, "scratch")
    print(text, flush=True)
    return evaluate(model, loader(data, "test", 64))["accuracy"]


def one_seed(seed: int) -> dict[str, float]:
    """All scores of the default data for one seed."""
    settings = Settings(seed=seed, run_dir=f"runs/phantom/patient-{seed}-96px-10epochs")
    alone, mixed = (load_data(dataclasses.replace(settings, split=split)) for split in ("patient", "random"))
    return {
        "grey histogram": accuracy(grey_histogram(alone), alone),
        "1-nearest neighbour, patient split": accuracy(nearest_neighbour(alone), alone),
        "1-nearest neighbour, random split": accuracy(nearest_neighbour(mixed), mixed),
        "scratch": trained(settings),
    }


def keep(rows: list[dict], seed: int, scores: dict[str, float]) -> None:
    """Put one seed's scores, each with its goal, in the place of recorded ones, and write all of them down."""
    rows[:] = [row for row in rows if (row["seed"], row["score"] in scores) != (seed, True)]
    for name, value in scores.items():
        low, high = GOALS[name]
        rows.append({"seed": seed, "score": name, "accuracy": value, "goal": [low, high], "met": low <= value <= high})
    write_json(RESULTS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    parser.add_argument("--long", action="store_true", help="also train on ten times the patients")
    options = parser.parse_args()

    rows = read_json(RESULTS) if RESULTS.exists() else []
    for seed in range(options.seeds):
        started = time.perf_counter()
        keep(rows, seed, one_seed(seed))
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    if options.long:
        settings = Settings(patients=2400, run_dir="runs/phantom/long")
        keep(rows, 0, {"scratch, ten times the patients": trained(settings)})

    table = pd.DataFrame(rows).groupby("score", sort=False)
    summary = (100 * table.accuracy.agg(["mean", "min", "max"])).round(1)
    summary["goal"] = [f"{100 * GOALS[name][0]:.0f} to {100 * GOALS[name][1]:.0f}" for name in summary.index]
    print(summary.assign(met=table.met.all()).to_string())


if __name__ == "__main__":
    main()
