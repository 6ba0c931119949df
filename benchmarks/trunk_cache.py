"""Do kept features of the frozen trunk cost accuracy, and how much time do they save?

    .venv/bin/python benchmarks/trunk_cache.py

The default transfer run of notebook 3, with 0 (features computed anew in every epoch), 1, 2 and 4 augmented copies of
each slice, one after the other for each seed. The rows go to benchmarks/results/trunk_cache.csv.
"""

from __future__ import annotations

from experiment import RESULTS, grid, parser, run
from search import trained

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals
from covid_utils.training import predict


def measure(seed: int, copies: int) -> list[dict]:
    """Test scores and seconds of a training."""
    data = load_data(Settings(seed=seed))
    model, trained_in = trained(Settings(weights="bundled", seed=seed, copies=copies), data)
    test = data.table[data.table.split == "test"]
    score = metrics_with_intervals(predict(model, data.images[test.index]), test.label, test.patient)
    return [{"accuracy": score["accuracy"], "auc": score["auc"], "seconds": trained_in["seconds"]}]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--copies", type=int, nargs="+", default=[0, 1, 2, 4])
    options = arguments.parse_args()
    run(RESULTS / "trunk_cache.csv", grid(seed=options.seeds, copies=options.copies), measure)


if __name__ == "__main__":
    main()
