"""Better predictions without another training recipe? The slice and its mirror image; the mean of several networks.

    .venv/bin/python benchmarks/better_answers.py --splits 0 1 2 --seeds 0 1 2 3 4

Real slices, the recipe that is best there, block split: networks of several seeds are trained on the same slices. Their
logits of validation and test slices, as they are and mirrored, go to benchmarks/results/better_answers_logits.csv, and
what each way gains over one network, paired, by split, to better_answers.csv.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from accuracy import RECIPES
from experiment import RESULTS, as_text, flat, grid, parser, run, write_rows
from search import trained

from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.evaluation import compare
from covid_utils.training import predict

DATASET, RECIPE = "sars-cov-2-ct", "lite0 continued"


def settings_of(seed: int) -> Settings:
    return Settings(DATASET, seed=seed, **RECIPES[DATASET][RECIPE])


def measure(split: int, network: int) -> list[dict]:
    """The logits of a network on validation and test slices, as they are and mirrored."""
    data = load_data(settings_of(split), progress=False)
    model, scores = trained(settings_of(network), data)
    row = {"recipe": RECIPE, "seconds": scores["seconds"]}
    for part in ("val", "test"):
        images = data.images[data.table.index[data.table.split == part]]
        row[part] = as_text(predict(model, images).numpy())
        row[f"{part}, mirrored"] = as_text(predict(model, images.flip(2)).numpy())
    return [row]


def gains(rows: pd.DataFrame, data: CTData, part: str) -> list[dict]:
    """What each way gains over one network, on the slices of a part of one split.

    All networks' slices are compared at once, so that the accuracy is the mean over them; the bootstrap draws whole
    groups with all their networks.
    """
    table, n = data.table[data.table.split == part], len(rows)
    one, mirrored = (
        np.stack(rows[name].map(lambda text: np.fromstring(text, sep=" "))) for name in (part, f"{part}, mirrored")
    )
    both = (one + mirrored) / 2
    ways = {"mirror image too": both}
    ways |= {name: np.broadcast_to(of.mean(0), one.shape) for name, of in (("all networks", one), ("both", both))}
    labels, groups = np.tile(table.label, n), np.tile(table.patient, n)
    found = []
    for way, logits in ways.items():
        accuracy = compare(one.ravel(), logits.ravel(), labels, groups)["accuracy"]
        auc = [compare(a, b, table.label, table.patient)["auc"]["value"] for a, b in zip(one, logits, strict=True)]
        found.append(flat({"part": part, "way": way, "networks": n, "accuracy": accuracy, "auc": float(np.mean(auc))}))
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    options = arguments.parse_args()
    asked = grid(split=options.splits, network=options.seeds)
    logits, found = run(RESULTS / "better_answers_logits.csv", asked, measure), []
    for split, rows in logits.groupby("split"):
        data = load_data(settings_of(split), progress=False)
        found += [{"split": split} | row for part in ("val", "test") for row in gains(rows, data, part)]
    write_rows(RESULTS / "better_answers.csv", pd.DataFrame(found))


if __name__ == "__main__":
    main()
