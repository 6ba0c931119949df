"""A model card (Mitchell et al. 2019, https://arxiv.org/abs/1810.03993), filled from what a run has recorded."""

from __future__ import annotations

from pathlib import Path

from scipy.special import expit

from covid_utils.core.files import read_json, resolve
from covid_utils.evaluation import percent
from covid_utils.io.datasets import DATASETS
from covid_utils.io.folders import SPLITS
from covid_utils.io.weights import LITE0, read_weights
from covid_utils.labs.predictor import KNOWN, SENSITIVITY, Predictor, trained_file

OUTPUTS = {  # of the ONNX file, in their order
    "logit": "above threshold_logit means COVID",
    "probability": "of COVID, from 0 to 1: sigmoid(logit / temperature)",
    "strangeness": "above 1: unlike the training slices, do not believe the answer",
}
USE = """\
import numpy, onnxruntime, PIL.Image
model = onnxruntime.InferenceSession("model.onnx")
threshold = float(model.get_modelmeta().custom_metadata_map["threshold_logit"])
slices = numpy.asarray(PIL.Image.open("slice.png").convert("L"))[None]
logit, probability, strangeness = model.run(None, {"slices": slices})
print("COVID" if logit[0] > threshold else "non-COVID", probability[0], strangeness[0])
"""
SCORES = {
    "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity", "precision": "precision",
    "f1": "F1", "auc": "AUC", "average_precision": "average precision",
}  # fmt: skip
TEXT = Path(__file__).with_suffix(".md")
SAME = ("dataset", "split", "seed", "image_size", "backbone", "weights")  # of a training and of what is told of it


def trained(run_dir: str | Path) -> tuple[str, dict]:
    """The name of a run's network, "transfer" or "scratch", and the notes of its checkpoint."""
    file = trained_file(run_dir)
    return file.parents[1].name, read_weights(file)[1]


def licences(parameters: dict) -> str:
    """Under which terms code, first weights and slices may be used, by a checkpoint's parameters."""
    data, weights = DATASETS.get(parameters["dataset"]), parameters["weights"]
    first = {
        "scratch": "none, they were random numbers",
        "bundled": "MIT (this course)",
        "imagenet": "Apache-2.0 (EfficientNet-Lite0)"
        if parameters["backbone"] == LITE0
        else "see torchvision, which published them; ImageNet's pictures are for research",
    }
    return (
        f"code: MIT; slices: {data.licence if data else 'yours to say, they came from a folder of your own'}; "
        f"first weights: {first.get(weights, f'see those of {Path(weights).name}')}"
    )


def model_card(reader: Predictor, run_dir: str | Path) -> str:
    """The card as Markdown. Numbers come from the run alone; what the run lacks is said to be lacking."""
    name, notes = trained(run_dir)
    parameters, files = notes["parameters"], {}
    for file in ("metrics", "manifest"):
        path = resolve(run_dir) / f"{file}.json"
        files[file] = read_json(path) if path.exists() else {}

    def told(section: str, names: tuple = SAME) -> dict:
        """What a notebook recorded, if it was of the same slices and network."""
        made = files["manifest"].get(section, {})
        same = made.get("data") == parameters["data"]
        same &= all(made["parameters"][each] == parameters[each] for each in names) if same else False
        return files["metrics"].get(section, {}) if same else {}

    data, scores = told("data", ("split",)), told(name)
    checks = told("evaluation") if name == "transfer" else {}
    return TEXT.read_text(encoding="utf-8").format(
        title=f"{parameters['backbone']}, {Path(parameters['dataset']).name} slices",
        details=_details(name, notes, files["manifest"][name] if scores else {}),
        licence=licences(parameters),
        slices=_slices(parameters, data),
        best=notes["epoch"], val=f"{100 * notes['val_accuracy']:.1f} %",
        threshold=f"{reader.threshold:.3f}", chance=f"{expit(reader.threshold / reader.temperature):.3f}",
        sensitivity=f"{100 * SENSITIVITY:.0f}", known=f"{100 * KNOWN:.0f}", temperature=f"{reader.temperature:.2f}",
        scores=_scores(reader, scores, checks, name),
        checks="\n".join(f"- {line}" for line in _checks(parameters["split"], data, checks)),
        outputs="\n".join(f"- `{output}`, float32 (N,): {what}." for output, what in OUTPUTS.items()),
        use=USE, size=reader.settings.image_size,
    )  # fmt: skip


def _details(name: str, notes: dict, made: dict) -> str:
    """How the network was trained, in a list."""
    p = notes["parameters"]
    frozen = "" if p["trainable"] == "all" else f", of which the stages from {p['trainable']} on learned"
    weights = Path(p["weights"]).name
    start = "random weights" if weights == "scratch" else f"the weights {weights!r}{frozen}"
    lines = [
        f"Network: {p['backbone']} with one output, the {name!r} model of its run, started from {start}.",
        f"Training: {p['epochs']} epochs of batches of {p['batch_size']} with {p['optimizer']}, learning rate "
        f"{p['learning_rate']:g}, seed {p['seed']}; slices flipped, turned, scaled and moved at random.",
    ]
    if made:
        lines.append(
            f"Made with PyTorch {made['versions']['torch']} on Python {made['python']}, of the course's commit "
            f"{made['commit'] or 'unknown'}."
        )
    return "\n".join(f"- {line}" for line in lines)


def _slices(parameters: dict, data: dict) -> str:
    """Which slices were learned from and tested on."""
    row = DATASETS.get(parameters["dataset"])
    title = row.title.removesuffix(" (the default)") if row else "a folder of one's own"
    lines = [
        f"- `{Path(parameters['dataset']).name}`: {title}, {parameters['image_size']} × {parameters['image_size']} "
        "pixels.",
        f"- Split: `{parameters['split']}`"
        + (", which keeps a patient's slices together" if parameters["split"] == "patient" else ", slice by slice")
        + f", seed {parameters['seed']}. {row.patients if row else ''}".rstrip(),
        f"- Fingerprint (SHA-256 of pixels and table): `{parameters['data']}`.",
    ]
    if not data:
        return "\n".join([*lines, "- How many slices and patients: not recorded (notebook 1 was not run on them)."])
    table = ["", "| split | COVID slices | other slices | patients |", "| --- | --- | --- | --- |"]
    for split, count in ((split, data["counts"][split]) for split in SPLITS):
        table.append(f"| {split} | {count['COVID']} | {count['non-COVID']} | {count['patients']} |")
    return "\n".join(lines + table)


def _scores(reader: Predictor, scores: dict, checks: dict, name: str) -> str:
    """A table of the test scores, at logit 0 and at the threshold."""
    number = 3 if name == "transfer" else 2
    if not scores:
        return f"The test scores were not recorded: notebook {number} was not run to its end on this training."
    columns = {"logit above 0": scores["test"]}
    if checks and abs(checks["threshold"]["probability"] - expit(reader.threshold)) < 1e-3:
        columns["logit above the threshold"] = checks["threshold"]["at_threshold"]
    rows = [["test slices", *columns], ["---"] * (len(columns) + 1)]
    rows += [[title, *(_share(column[score]) for column in columns.values())] for score, title in SCORES.items()]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return text if len(columns) > 1 else f"{text}\n\nAt the threshold nothing was measured (notebook 5 was not run)."


def _share(score: dict) -> str:
    """A score in percent; "–" for what JSON has as null."""
    return "–" if None in score.values() else percent(score)


def _checks(split: str, data: dict, checks: dict) -> list[str]:
    """What was tried to prove the number wrong, and what came of it."""
    lines = []
    if data:
        lines.append(
            "A look-up of the most similar training slice, which learns nothing, is right on "
            f"{_share(data['nearest_neighbour'][split])} of the test slices."
        )
    if not checks:
        lacking = "leaks and shortcuts, another hospital, calibration, the threshold on test slices"
        return [*lines, f"Not looked at: {lacking} (notebook 5 was not run on this network)."]
    lines.append("Search for leaks and shortcuts: " + " ".join(checks["audit"][split]))
    outside = checks["external"].get("transfer")
    lines.append(
        f"Accuracy at another hospital, at logit 0: {_share(outside)}."
        if outside
        else "Slices of another hospital: not tested, none were there."
    )
    return lines
