"""From slices to a patient, over several seeds: which rule does validation choose, and what is it worth on test?

    .venv/bin/python benchmarks/patients.py --seeds 0 1 2 3 4

Networks of the phantom's recipe with ImageNet's weights (runs/heat-maps, as benchmarks/heat_maps.py trains and finds
them), asked about whole lungs of validation and test patients, as notebook 5 does. The rows go to
benchmarks/results/patients.json; a seed that is there is not made again.
"""

from __future__ import annotations

import argparse

from accuracy import RECIPES
from search import recorded

from covid_utils.core.files import PROJECT, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals, percent
from covid_utils.labs.calibration import operating_point
from covid_utils.labs.whole_patients import RULES, choose_rule, make_rule, patient_metrics, whole_lungs
from covid_utils.runs.load_or_train import find_or_train
from covid_utils.training import predict

RESULTS = PROJECT / "benchmarks" / "results" / "patients.json"
KEY = ("seed", "way")
SCORES = ("accuracy", "sensitivity", "specificity", "auc")


def one_seed(seed: int) -> list[dict]:
    """A row for each way to count slices and each rule for patients."""
    settings = Settings(seed=seed, run_dir=f"runs/heat-maps/{seed}", **RECIPES["phantom"]["imagenet frozen"])
    data = load_data(settings, progress=False)
    model, _, _ = find_or_train(data, settings, "ImageNet")
    val = data.table[data.table.split == "val"]
    threshold = operating_point(predict(model, data.images[val.index]), val.label)
    (table, logits), (stack, answers) = (
        (lungs.table, predict(model, lungs.images).numpy())
        for lungs in (whole_lungs(data, settings, part) for part in ("val", "test"))
    )
    chosen = choose_rule(logits, table.label, table.patient, threshold).name
    rows = []
    for way, truth in (("slices, label of the patient", stack.label), ("slices, what they show", stack.shows)):
        rows.append({"way": way, "test": metrics_with_intervals(answers, truth, stack.patient, threshold)})
    for name in RULES:
        rule = make_rule(name, logits, table.label, table.patient, threshold)
        row = {"way": f"patients, {name}", "val_auc": patient_metrics(rule, logits, table)["auc"]["value"]}
        rows.append(row | {"chosen": name == chosen, "test": patient_metrics(rule, answers, stack)})
    return [{"seed": seed} | row | {"test": {name: row["test"][name] for name in SCORES}} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    for seed in parser.parse_args().seeds:
        if any(row["seed"] == seed for row in recorded(RESULTS, KEY).values()):
            continue
        rows = one_seed(seed)
        write_json(RESULTS, [*recorded(RESULTS, KEY).values(), *rows])
        print(seed, {row["way"]: percent(row["test"]["auc"]) for row in rows}, flush=True)


if __name__ == "__main__":
    main()
