"""Where does the spread of a test accuracy come from: the network's seed, the split, or the choice of test patients?

    .venv/bin/python benchmarks/variance.py --runs 5

The default scratch run on the default phantom patients: five network seeds on one split, then one network seed on five
splits. The scores go to benchmarks/results/variance.json; finished runs under runs/variance are found again.
"""

from __future__ import annotations

import argparse
import dataclasses

from covid_utils.data import load_data, split_groups
from covid_utils.evaluation import metrics_with_intervals, percent
from covid_utils.runs.files import PROJECT, write_json
from covid_utils.runs.found import find_or_train
from covid_utils.runs.settings import Settings
from covid_utils.sources.datasets import fingerprint
from covid_utils.training import predict


def one_run(network: int, split: int) -> dict:
    """Train and test with these seeds of the network and of the split, on the same 240 patients."""
    data = load_data(Settings())
    table = data.table.assign(split=split_groups(data.table, "patient", split))
    data = dataclasses.replace(data, table=table, fingerprint=fingerprint(table, data.images))
    settings = Settings(seed=network, run_dir=f"runs/variance/network-{network}-split-{split}")
    model, _, _ = find_or_train(data, settings, "scratch")
    test = table[table.split == "test"]
    score = metrics_with_intervals(predict(model, data.images[test.index]), test.label, test.patient)["accuracy"]
    print(f"network seed {network}, split seed {split}: {percent(score)}", flush=True)
    return {"network": network, "split": split, "accuracy": score}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how many seeds of each kind, from 0")
    options = parser.parse_args()
    seeds = [(0, 0)] + [(k, 0) for k in range(1, options.runs)] + [(0, k) for k in range(1, options.runs)]
    rows = []
    for network, split in seeds:
        rows.append(one_run(network, split))
        write_json(PROJECT / "benchmarks" / "results" / "variance.json", rows)


if __name__ == "__main__":
    main()
