"""From slices to a patient, over several seeds: which rule does validation choose, and how well does it do on test?

    .venv/bin/python benchmarks/patients.py --seeds 0 1 2 3 4

Networks of the phantom's recipe with ImageNet's weights (runs/heat-maps, as benchmarks/heat_maps.py trains and loads
them) predict whole lungs of validation and test patients, as in notebook 5. The rows go to
benchmarks/results/patients.csv.
"""

from __future__ import annotations

from accuracy import RECIPES
from experiment import RESULTS, grid, parser, run

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.evaluation import metrics_with_intervals
from covid_utils.labs.calibration import operating_point
from covid_utils.labs.whole_patients import RULES, choose_rule, make_rule, patient_labels, whole_lungs
from covid_utils.runs.load_or_train import load_or_train
from covid_utils.training import predict

SCORES = ("accuracy", "sensitivity", "specificity", "auc")


def measure(seed: int) -> list[dict]:
    """A row for each way to count slices and each rule for patients."""
    settings = Settings(seed=seed, run_dir=f"runs/heat-maps/{seed}", **RECIPES["phantom"]["imagenet frozen"])
    data = load_data(settings, progress=False)
    model, _, _ = load_or_train(data, settings, "ImageNet")
    val = data.table[data.table.split == "val"]
    threshold = operating_point(predict(model, data.images[val.index]), val.label)
    (table, logits), (stack, predicted) = (
        (lungs.table, predict(model, lungs.images).numpy())
        for lungs in (whole_lungs(data, settings, part) for part in ("val", "test"))
    )
    chosen = choose_rule(logits, table.label, table.patient, threshold).name
    rows = []
    for way, truth in (("slices, label of the patient", stack.label), ("slices, what they show", stack.shows)):
        test = metrics_with_intervals(predicted, truth, stack.patient, threshold)
        rows.append({"way": way} | {name: test[name] for name in SCORES})
    for name in RULES:
        rule = make_rule(name, logits, table.label, table.patient, threshold)
        val, test = (
            metrics_with_intervals(rule.scores(some, of.patient), truth, truth.index, rule.limit)
            for some, of in ((logits, table), (predicted, stack))
            for truth in [patient_labels(of.label, of.patient)]
        )
        row = {"way": f"patients, {name}"} | {score: test[score] for score in SCORES}
        rows.append(row | {"val_auc": val["auc"]["value"], "chosen": name == chosen})
    return rows


def main() -> None:
    run(RESULTS / "patients.csv", grid(seed=parser(__doc__).parse_args().seeds), measure)


if __name__ == "__main__":
    main()
