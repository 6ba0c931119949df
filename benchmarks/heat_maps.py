"""Collect the scores of heat maps of finished runs of notebook 04 in results/heat_maps.json.

    python -m covid_utils tutorial
    python benchmarks/heat_maps.py phantom=runs/default sars-cov-2-ct=runs/real

Each result keeps what it takes to repeat it: parameters, versions, data fingerprint (see `runs.records.record`).
"""

import sys
from pathlib import Path

from covid_utils.runs.files import read_json, resolve, write_json

RESULTS = Path(__file__).parent / "results" / "heat_maps.json"


def main(pairs: list[str]) -> None:
    found = read_json(RESULTS) if RESULTS.exists() else {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        folder = resolve(folder)
        manifest = read_json(folder / "manifest.json")["cam"]
        manifest["parameters"] = {k: v for k, v in manifest["parameters"].items() if not k.endswith("_dir")}
        found[name] = {"scores": read_json(folder / "metrics.json")["cam"], "manifest": manifest}
    write_json(RESULTS, found)
    print(f"{len(found)} results in {RESULTS}")


if __name__ == "__main__":
    main(sys.argv[1:])
