"""Where does the spread of a test accuracy come from: the network's seed, the patients, or the choice of test patients?

    .venv/bin/python benchmarks/variance.py --runs 5

The default scratch run: five network seeds on one draw of patients, then one network seed on five draws, each with a
split of its own. A sweep of notebooks/train.ipynb in runs/variance; the scores go to benchmarks/results/variance.json.
"""

from __future__ import annotations

import argparse

from search import network_of

from covid_course.sweep import summary, sweep
from covid_utils.core.files import PROJECT, write_json


def score(run: dict) -> dict:
    """The row of a finished run: both seeds, and its test accuracy with the ends of its interval."""
    return {
        "network": run["seed"],
        "patients": run["data_seed"],
        "accuracy": network_of(run)["test"]["accuracy"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how many seeds of each kind, from 0")
    parser.add_argument("--scheduler", help="of a Dask cluster (docs/scale.md)")
    options = parser.parse_args()
    seeds = [(k, 0) for k in range(options.runs)] + [(0, k) for k in range(1, options.runs)]
    runs = [{"seed": network, "data_seed": patients} for network, patients in seeds]
    table = sweep({"notebooks": ["train"], "folder": "runs/variance", "list": runs}, options.scheduler)
    print(summary(table))
    if (table.status != "finished").any():
        return 1
    rows = [score(run) for run in table.to_dict("records")]
    write_json(PROJECT / "benchmarks" / "results" / "variance.json", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
