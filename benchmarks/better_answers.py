"""Better answers without another training recipe? The slice and its mirror image; the mean of several networks.

    .venv/bin/python benchmarks/better_answers.py --splits 0 1 2 --networks 0 1 2 3 4

On real slices, with the recipe that is best there, block split: networks of several seeds learn on the same training
slices. Their logits for validation and test slices, as they are and mirrored, go to
benchmarks/results/better_answers.json, and beside them what each way gains over one network's answer, paired, by split.
A row that is there is not made again.
"""

from __future__ import annotations

import argparse

import numpy as np
from accuracy import RECIPES, written
from search import trained

from covid_utils.core.files import PROJECT, read_json, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.evaluation import compare, percent
from covid_utils.training import predict

RESULTS = PROJECT / "benchmarks" / "results" / "better_answers.json"
WAYS = ("mirror image too", "all networks", "both")
DATASET, RECIPE = "sars-cov-2-ct", "lite0 continued"


def gains(rows: list[dict], data: CTData, part: str) -> list[dict]:
    """What each way gains over the answer of one network, on the slices of a part of one split.

    All networks' slices are compared at once, so that the accuracy is the mean over them; the bootstrap draws whole
    groups with all their networks.
    """
    table, n = data.table[data.table.split == part], len(rows)
    one, mirrored = (
        np.array([np.fromstring(row[name], sep=" ") for row in rows]) for name in (part, f"{part}, mirrored")
    )
    both = (one + mirrored) / 2
    together = [np.broadcast_to(each.mean(0), one.shape) for each in (one, both)]
    better = dict(zip(WAYS, (both, *together), strict=True))
    labels, groups = np.tile(table.label, n), np.tile(table.patient, n)
    found = []
    for way, logits in better.items():
        accuracy = compare(one.ravel(), logits.ravel(), labels, groups)["accuracy"]
        auc = [compare(a, b, table.label, table.patient)["auc"]["value"] for a, b in zip(one, logits, strict=True)]
        found.append({"part": part, "way": way, "networks": n, "accuracy": accuracy, "auc": float(np.mean(auc))})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", type=int, nargs="+", default=list(range(5)))
    options = parser.parse_args()
    known = read_json(RESULTS) if RESULTS.exists() else {"runs": [], "gains": []}
    for split in options.splits:
        data = load_data(Settings(DATASET, seed=split, **RECIPES[DATASET][RECIPE]), progress=False)
        for network in options.networks:
            if any((row["split"], row["network"]) == (split, network) for row in known["runs"]):
                continue
            model, found = trained(Settings(DATASET, seed=network, **RECIPES[DATASET][RECIPE]), data)
            row = {"split": split, "network": network, "recipe": RECIPE, "seconds": found["seconds"]}
            for part in ("val", "test"):
                images = data.images[data.table.index[data.table.split == part]]
                for name, some in ((part, images), (f"{part}, mirrored", images.flip(2))):
                    row[name] = written(predict(model, some).numpy())
            known["runs"].append(row)
            write_json(RESULTS, known)
            print(f"split {split}, network {network}: {found}", flush=True)
        runs = [row for row in known["runs"] if row["split"] == split]
        new = [{"split": split} | row for part in ("val", "test") for row in gains(runs, data, part)]
        known["gains"] = [row for row in known["gains"] if row["split"] != split] + new
        write_json(RESULTS, known)
        for row in new:
            print(f"split {split}, {row['part']}, {row['way']}: {percent(row['accuracy'], signed=True)}", flush=True)


if __name__ == "__main__":
    main()
