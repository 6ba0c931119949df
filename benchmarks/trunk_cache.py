"""Do kept features of the frozen trunk cost accuracy, and how much time do they save?

    .venv/bin/python benchmarks/trunk_cache.py --seeds 5

The default transfer run of notebook 03, with 0 (features computed anew in every epoch), 1, 2 and 4 augmented copies of
each slice, one after the other for each seed. Results go to benchmarks/results/trunk_cache.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from covid_utils.core.files import PROJECT, read_json, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals, percent
from covid_utils.training import fit, new_model, predict

RESULTS = PROJECT / "benchmarks" / "results" / "trunk_cache.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--copies", type=int, nargs="+", default=[0, 1, 2, 4])
    options = parser.parse_args()
    rows = read_json(RESULTS) if RESULTS.exists() else []
    for seed in range(options.seeds):
        data = load_data(Settings(seed=seed))
        test = data.table[data.table.split == "test"]
        for copies in options.copies:
            if any((row["seed"], row["copies"]) == (seed, copies) for row in rows):
                continue
            settings = Settings(weights="bundled", seed=seed, copies=copies)
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                model = new_model(settings)
                history = fit(model, data, settings, Path(folder))
            seconds = time.perf_counter() - started
            score = metrics_with_intervals(predict(model, data.images[test.index]), test.label, test.patient)
            row = {"seed": seed, "copies": copies, "accuracy": score["accuracy"], "auc": score["auc"]}
            row |= {"seconds": round(seconds, 1), "val_accuracy": history.val_accuracy.round(4).tolist()}
            rows.append(row | {"epoch_seconds": history.seconds.round(2).tolist()})
            write_json(RESULTS, rows)
            print(f"seed {seed}, {copies} copies: {percent(score['accuracy'])}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
