"""The article, repeated: a ResNet-50 with the article's own recipe, from scratch or from pretrained weights.

    .venv/bin/python benchmarks/article.py --seeds 0 1 2
    .venv/bin/python benchmarks/article.py --seeds 0 1 2 --transfer imagenet

The recipe is notebooks/profiles/article.yaml (SGD, 50 epochs, random split), here at 128 px. The best epoch is
chosen on validation slices; the test slices are read once. The same command goes on with a run that was stopped (its
folder is in runs/article). The scores go to benchmarks/results/article.csv, with intervals over groups of slices and,
for the accuracy, also over single slices; the epochs to benchmarks/results/article_history.csv.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from experiment import RESULTS, as_text, grid, is_recorded, parser, read_rows, run, write_rows

from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings, read_profile, typed
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals
from covid_utils.runs.load_or_train import load_or_train
from covid_utils.training import best_epoch, predict

RECIPE = read_profile(PROJECT / "notebooks" / "profiles" / "article.yaml") | {"image_size": 128}
PRINTED = SimpleNamespace(update=lambda history: print(history[-1], flush=True))  # after each epoch


def measure(**configuration) -> list[dict]:
    """Train, or go on; keep the history, and return the test scores of the best epoch's network."""
    settings = Settings(**RECIPE | configuration | {"run_dir": "runs/article"})
    data = load_data(settings)
    name = "-".join(Path(str(value)).name for value in configuration.values())
    model, history, where = load_or_train(data, settings, name, PRINTED)
    print(where)
    path = RESULTS / "article_history.csv"
    if not is_recorded(rows := read_rows(path), configuration):
        write_rows(path, pd.concat([rows, pd.DataFrame([configuration]).merge(history, how="cross")]))
    test = data.table[data.table.split == "test"]
    logits = predict(model, data.images[test.index])
    row = {"best_epoch": best_epoch(history), "val_accuracy": history.val_accuracy.max()}
    row["seconds"] = round(history.seconds.sum())
    row |= metrics_with_intervals(logits, test.label, test.patient)
    row["accuracy, single slices"] = metrics_with_intervals(logits, test.label, range(len(test)))["accuracy"]
    return [row | {"logits": as_text(logits)}]


def main() -> None:
    arguments = parser(__doc__, seeds=3)
    for name in ("dataset", "backbone", "image_size", "epochs"):
        arguments.add_argument(f"--{name.replace('_', '-')}", default=str(RECIPE[name]), help="(%(default)s)")
    what = '"imagenet", "bundled" or a .safetensors file: only the last stage and the head are trained'
    arguments.add_argument("--transfer", dest="weights", metavar="WEIGHTS", default="scratch", help=what)
    options = vars(arguments.parse_args())
    seeds = options.pop("seeds")
    run(RESULTS / "article.csv", grid(**{name: [each] for name, each in typed(options).items()}, seed=seeds), measure)


if __name__ == "__main__":
    main()
