"""Which maps point at the lesion? By network, layer and method, on validation and on test patients, over several seeds.

    .venv/bin/python benchmarks/heat_maps.py --seeds 0 1 2 3 4

Every COVID slice with a lesion is explained as "COVID". The map is chosen on validation patients and reported on test
patients. ROAD: the 80 test slices of which a network is surest, and its own decision (rows of the part "ROAD"). Rows
that are in benchmarks/results/heat_maps.json are not made again; benchmarks/tables.py writes the tables in
docs/heat-maps.md; finished trainings under runs/heat-maps are found again.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

from accuracy import RECIPES
from heat_maps_real import faithful
from search import recorded

from covid_utils.core.files import PROJECT, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.labs import localization
from covid_utils.labs.fine_maps import MAPS, named_map
from covid_utils.models import Net
from covid_utils.runs.load_or_train import find_or_train
from covid_utils.training import new_model

RESULTS = PROJECT / "benchmarks" / "results" / "heat_maps.json"
KEY = ("seed", "network", "part", "map")
TRAINED = {"ImageNet": "imagenet frozen", "drawings": "bundled", "scratch": "scratch"}  # as in accuracy.RECIPES
BEFORE = ("ImageNet", "scratch")  # also before they have learned anything about the target


def networks(data: CTData, seed: int):
    """Name and network, one after the other."""
    for name, recipe in TRAINED.items():
        settings = Settings(seed=seed, run_dir=f"runs/heat-maps/{seed}", **RECIPES["phantom"][recipe])
        yield name, find_or_train(data, settings, name)[0]
        if name in BEFORE:
            yield f"{name}, not trained", new_model(dataclasses.replace(settings, seed=seed + 1)).eval()


def scores(network: Net | None, data: CTData, part: str) -> dict[str, dict]:
    """The scores of every map of a network, or of the maps that know nothing, on the COVID slices of a part."""
    found, images, lesions, lungs = localization.with_lesions(data, part)
    blind = {} if network else localization.baselines(images.numpy(), lungs)
    rows = {}
    for name in blind or MAPS:
        started = time.perf_counter()
        maps = blind[name] if blind else named_map(network, images, name, [1] * len(images))
        seconds = time.perf_counter() - started
        rows[name] = localization.localization_with_intervals(maps, lesions, lungs, found.patient)
        rows[name] |= {"seconds": round(seconds, 2), "slices": len(images)}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    for seed in parser.parse_args().seeds:
        parts = {row["part"] for row in recorded(RESULTS, KEY).values() if row["seed"] == seed}
        data, rows = load_data(Settings(seed=seed), progress=False), []
        for network, model in [("", None), *networks(data, seed)]:
            for part in ("val", "test", "ROAD"):
                if part in parts or (part == "ROAD" and network not in TRAINED):
                    continue
                found = faithful(model, data) if part == "ROAD" else scores(model, data, part)
                rows += [{"seed": seed, "network": network, "part": part, "map": n} | row for n, row in found.items()]
            print(f"seed {seed}, {network or 'no network'}: {len(rows)} rows so far", flush=True)
        write_json(RESULTS, [*recorded(RESULTS, KEY).values(), *rows])


if __name__ == "__main__":
    main()
