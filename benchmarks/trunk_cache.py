"""Do kept features of the frozen trunk cost accuracy, and how much time do they save?

    .venv/bin/python benchmarks/trunk_cache.py

The default transfer run of notebook 3, with 0 (features computed anew in every epoch), 1, 2 and 4 augmented copies of
each slice, one after the other for each seed. The rows go to benchmarks/results/trunk_cache.csv.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from experiment import RESULTS, grid, parser, run

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals
from covid_utils.runs.load_or_train import new_model, train
from covid_utils.training import predict


def measure(seed: int, copies: int) -> list[dict]:
    """Test scores of a training, and its validation accuracy and seconds by epoch."""
    data = load_data(Settings(seed=seed))
    settings, started = Settings(weights="bundled", seed=seed, copies=copies), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = new_model(settings)
        history = train(model, data, settings, Path(folder))
    seconds, test = time.perf_counter() - started, data.table[data.table.split == "test"]
    score = metrics_with_intervals(predict(model, data.images[test.index]), test.label, test.patient)
    row = {"accuracy": score["accuracy"], "auc": score["auc"], "seconds": round(seconds, 1)}
    row["val_accuracy"] = " ".join(map(str, history.val_accuracy.round(4)))
    return [row | {"epoch_seconds": " ".join(map(str, history.seconds.round(2)))}]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--copies", type=int, nargs="+", default=[0, 1, 2, 4])
    options = arguments.parse_args()
    run(RESULTS / "trunk_cache.csv", grid(seed=options.seeds, copies=options.copies), measure)


if __name__ == "__main__":
    main()
