"""Where does the spread of a test accuracy come from: the network's seed, the patients, or the choice of test patients?

    .venv/bin/python benchmarks/variance.py

The default scratch run: several network seeds on one draw of patients, then one network seed on as many draws, each
with a split of its own. A sweep of notebooks/train.ipynb in runs/variance; the scores go to
benchmarks/results/variance.csv.
"""

from __future__ import annotations

from experiment import RESULTS, parser, run_sweep


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--scheduler", help="of a Dask cluster (docs/reference.md)")
    options = arguments.parse_args()
    seeds = [(seed, 0) for seed in options.seeds] + [(0, seed) for seed in options.seeds if seed]
    runs = [
        ({"network": network, "patients": patients}, {"seed": network, "data_seed": patients})
        for network, patients in seeds
    ]
    return run_sweep(
        RESULTS / "variance.csv", {"notebooks": ["train"], "folder": "runs/variance"}, runs, options.scheduler
    )


if __name__ == "__main__":
    raise SystemExit(main())
