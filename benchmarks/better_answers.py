"""Better answers without another training recipe? The slice and its mirror image; the mean of several networks.

    .venv/bin/python benchmarks/better_answers.py --splits 0 1 2 --networks 0 1 2 3 4

On real slices, with the recipe that is best there, block split: networks of several seeds learn on the same training
slices. Their logits for validation and test slices, as they are and mirrored, go to
benchmarks/results/better_answers.json; benchmarks/tables.py compares them, paired. A row that is there is not made again.
"""

from __future__ import annotations

import argparse

from accuracy import RECIPES
from search import recorded, trained

from covid_utils.data import load_data
from covid_utils.runs.files import PROJECT, write_json
from covid_utils.runs.settings import Settings
from covid_utils.training import predict

RESULTS = PROJECT / "benchmarks" / "results" / "better_answers.json"
KEY = ("split", "network")
DATASET, RECIPE = "sars-cov-2-ct", "lite0 continued"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", type=int, nargs="+", default=list(range(5)))
    options = parser.parse_args()
    for split in options.splits:
        data = load_data(Settings(DATASET, seed=split, **RECIPES[DATASET][RECIPE]), progress=False)
        for network in options.networks:
            if (split, network) in recorded(RESULTS, KEY):
                continue
            model, found = trained(Settings(DATASET, seed=network, **RECIPES[DATASET][RECIPE]), data)
            row = {"split": split, "network": network, "recipe": RECIPE, "seconds": found["seconds"]}
            for part in ("val", "test"):
                images = data.images[data.table.index[data.table.split == part]]
                for name, some in ((part, images), (f"{part}, mirrored", images.flip(2))):
                    row[name] = " ".join(f"{value:.4g}" for value in predict(model, some).numpy())
            write_json(RESULTS, [*recorded(RESULTS, KEY).values(), row])
            print(f"split {split}, network {network}: {found}", flush=True)


if __name__ == "__main__":
    main()
