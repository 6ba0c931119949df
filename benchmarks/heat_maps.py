"""Which maps point at the lesion? By network, layer and method, on validation and on test patients, over several seeds.

    .venv/bin/python benchmarks/heat_maps.py --seeds 0 1 2 3 4

Every COVID slice with a lesion is explained as "COVID". The map is chosen on validation patients and reported on test
patients. ROAD: the 80 test slices of which a network is surest, and its own decision (rows of the part "ROAD"). The
scores of each seed go to runs/heat-maps/scores.csv, their means to benchmarks/results/heat_maps.csv.
"""

from __future__ import annotations

import dataclasses
import time

import pandas as pd
from accuracy import RECIPES
from experiment import RESULTS, grid, parser, run, write_rows
from heat_maps_real import faithful

from covid_utils.core.files import resolve
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.labs import localization
from covid_utils.labs.fine_maps import MAPS, named_map
from covid_utils.models import Net
from covid_utils.runs.load_or_train import load_or_train, new_model

TRAINED = {"ImageNet": "imagenet frozen", "drawings": "bundled", "scratch": "scratch"}  # as in accuracy.RECIPES
NONE, UNTRAINED = "no network", ", not trained"
NETWORKS = (NONE, "ImageNet", f"ImageNet{UNTRAINED}", "drawings", "scratch", f"scratch{UNTRAINED}")
GROUP = ["network", "part", "map"]


def load_network(data: CTData, seed: int, name: str) -> Net:
    """A network trained on the phantom, found in runs/heat-maps if it is there; or as it was before training."""
    recipe = TRAINED[name.removesuffix(UNTRAINED)]
    settings = Settings(seed=seed, run_dir=f"runs/heat-maps/{seed}", **RECIPES["phantom"][recipe])
    if name.endswith(UNTRAINED):
        return new_model(dataclasses.replace(settings, seed=seed + 1)).eval()
    return load_or_train(data, settings, name)[0]


def measure(seed: int, network: str, part: str) -> list[dict]:
    """The scores of every map of a network, or of the maps that need none, on the COVID slices of a part."""
    data = load_data(Settings(seed=seed), progress=False)
    model = None if network == NONE else load_network(data, seed, network)
    if part == "ROAD":
        return [{"map": name} | row for name, row in faithful(model, data).items()]
    found, images, lesions, lungs = localization.with_lesions(data, part)
    baselines = {} if model else localization.baselines(images.numpy(), lungs)
    rows = []
    for name in baselines or MAPS:
        started = time.perf_counter()
        maps = named_map(model, images, name, [1] * len(images)) if model else baselines[name]
        seconds = round(time.perf_counter() - started, 2)
        scores = {
            "pointing game": localization.pointing_game(maps, lesions & lungs, lungs),
            "energy in lesion": localization.relevance_mass_accuracy(maps, lesions),
            "energy in lungs": localization.relevance_mass_accuracy(maps, lungs),
            "IoU at lesion area": localization.iou_at_lesion_area(maps, lesions),
            "average precision": localization.average_precision(maps, lesions),
        }
        row = {"map": name, "seconds": seconds, "slices": len(images)}
        for score, values in scores.items():
            row[score] = localization.mean_with_interval(values, found.patient, share=True)
        rows.append(row)
    return rows


def mean_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """For each network, part and map: the means over the seeds of each score and of both ends of its interval.

    The seconds are medians; `seeds above zero` counts those whose interval of ROAD's gap lies above it.
    """
    groups = rows.groupby(GROUP, sort=False)
    means = groups.mean(numeric_only=True).drop(columns=["seed", "seconds"])
    means.insert(0, "seeds", groups.seed.nunique())
    means["seconds"] = groups.seconds.median()
    means["seeds above zero"] = groups["ROAD gap low"].agg(lambda low: (low > 0).sum())
    return means.reset_index()


def main() -> None:
    asked = grid(seed=parser(__doc__).parse_args().seeds, network=NETWORKS, part=("val", "test", "ROAD"))
    asked = [each for each in asked if each["part"] != "ROAD" or each["network"] in TRAINED]
    rows = run(resolve("runs/heat-maps/scores.csv"), asked, measure)
    write_rows(RESULTS / "heat_maps.csv", mean_scores(rows))


if __name__ == "__main__":
    main()
