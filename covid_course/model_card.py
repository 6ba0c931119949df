"""A model card (Mitchell et al. 2019, https://arxiv.org/abs/1810.03993), filled from what a run has recorded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from scipy.special import expit

from covid_utils.core.files import read_json, resolve
from covid_utils.evaluation import percent
from covid_utils.io.datasets import DATASETS
from covid_utils.io.weights import LITE0, read_weights
from covid_utils.labs.predictor import KNOWN, SENSITIVITY, Predictor, trained_file

TEMPLATE = Path(__file__).with_suffix(".md")  # in Jinja2
OUTPUTS = {  # of the ONNX file, in their order
    "logit": "above threshold_logit means COVID",
    "probability": "of COVID, from 0 to 1: sigmoid(logit / temperature)",
    "ood_score": "above 1: out of distribution, unlike the training slices; do not trust the other outputs",
}
SAME = ("dataset", "split", "seed", "image_size", "backbone", "weights")  # in a training and in what was recorded of it


def trained(run_dir: str | Path) -> tuple[str, dict]:
    """The name of a run's network, "transfer" or "scratch", and the notes of its checkpoint."""
    file = trained_file(run_dir)
    return file.parents[1].name, read_weights(file)[1]


def licences(parameters: dict) -> str:
    """The licences of code, initial weights and slices, by a checkpoint's parameters."""
    data, weights = DATASETS.get(parameters["dataset"]), parameters["weights"]
    imagenet = "see torchvision, which published them; ImageNet's pictures are for research"
    initial = {
        "scratch": "none, they were random",
        "bundled": "MIT (this course)",
        "imagenet": "Apache-2.0 (EfficientNet-Lite0)" if parameters["backbone"] == LITE0 else imagenet,
    }
    return (
        f"code: MIT; slices: {data.licence if data else 'for you to state, they came from a folder of your own'}; "
        f"initial weights: {initial.get(weights, f'see those of {Path(weights).name}')}"
    )


def model_card(predictor: Predictor, run_dir: str | Path) -> ModelCard:
    """The card; `str` of it is Markdown. Numbers come from the run alone; what was not recorded is named as missing."""
    name, notes = trained(run_dir)
    parameters = notes["parameters"]
    files = [resolve(run_dir) / file for file in ("metrics.json", "manifest.json")]
    metrics, manifest = (read_json(file) if file.exists() else {} for file in files)

    def recorded(section: str, same: tuple[str, ...] = SAME) -> dict:
        """What a notebook recorded, if it was of the same slices and parameters; else {}."""
        made = manifest.get(section, {})
        if made.get("data") != parameters["data"] or any(made["parameters"][n] != parameters[n] for n in same):
            return {}
        return metrics.get(section, {})

    scores = recorded(name)
    evaluation = recorded("evaluation") if name == "transfer" else {}
    external = recorded("generalisation").get("external", {}) if name == "transfer" else {}
    columns = {"logit above 0": scores["test"]} if scores else {}
    if columns and evaluation:
        measured = evaluation["threshold"]
        if abs(measured["probability"] - expit(predictor.threshold)) < 1e-3:
            columns["logit above the threshold"] = measured["at_threshold"]
    return ModelCard.from_template(
        ModelCardData(license="other", library_name="onnx", pipeline_tag="image-classification"),
        template_path=str(TEMPLATE),
        name=name,
        notes=notes,
        parameters=parameters,
        dataset=Path(parameters["dataset"]).name,  # only the names: a path may tell who trained it
        initial_weights=Path(parameters["weights"]).name,
        known_dataset=DATASETS.get(parameters["dataset"]),
        licence=licences(parameters),
        made=manifest[name] if scores else {},
        data=recorded("data", ("split",)),
        columns=columns,
        evaluation=evaluation,
        external=external,
        predictor=predictor,
        threshold_probability=float(expit(predictor.threshold / predictor.temperature)),
        SENSITIVITY=SENSITIVITY,
        KNOWN=KNOWN,
        OUTPUTS=OUTPUTS,
        percent=lambda score: "–" if None in score.values() else percent(score),  # JSON has null for NaN
    )
