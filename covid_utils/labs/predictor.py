"""A trained network predicts a slice of one's own: how likely COVID is, why, and whether to believe it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..core.files import display_path, read_json, resolve
from ..core.settings import FIELDS, Settings
from ..data import CTData, load_data
from ..io.weights import read_weights, save_weights
from ..models import Net
from ..runs.load_or_train import load_model
from ..training import predict
from . import localization
from .calibration import operating_point, temperature
from .fine_maps import named_map
from .whole_patients import SENSITIVITY, PatientRule, choose_rule, whole_lungs

KNOWN = 0.95  # share of the validation slices that are in distribution
MAPS = ("layer3 × layer2 HiResCAM, nine views", "layer3 HiResCAM, nine views", "layer2 HiResCAM", "layer4 GradCAM")
WARNING = "\nOUT OF DISTRIBUTION: do not believe the answer"  # below the title of a picture
OUT_OF_DISTRIBUTION = "unlike all training slices: do not believe the answer"
FLAT = 100  # a temperature above says that validation slices could not be told apart: all probabilities are about 0.5
UNINFORMATIVE = "the network could not tell the validation slices apart: probability and decision say nothing"


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained network, and what its validation slices said of how to read it."""

    model: Net  # in eval mode
    settings: Settings  # of its training
    temperature: float  # the logits are divided by it, so that probabilities are calibrated; at least 1
    threshold: float  # a logit above it means COVID; 95 % of the COVID validation slices lie above
    map: str  # in `fine_maps.MAPS`: the one with the best average precision on validation lesions, where there are
    centre: Tensor  # mean of the training slices' features, float32 (C,)
    spread: Tensor  # the inverse of their covariance, float32 (C, C)
    limit: float  # the distance from them that 95 % of the validation slices stay within
    rule: PatientRule | None  # how a patient's slices become one answer; None if the validation patients cannot tell
    window: tuple[float, float] | None  # black and white in all training slices (`CTData.window`), or None


def trained_file(run_dir: str | Path) -> Path:
    """The checkpoint of a run: transfer, else scratch, else that of train.ipynb. FileNotFoundError if it has none."""
    folder = resolve(run_dir)
    files = [folder / name / "checkpoints" / "best.safetensors" for name in ("transfer", "scratch", "network")]
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"There is no trained network in {display_path(folder)}: run the notebooks first (make tutorial)."
        )
    return file


def read_run(run_dir: str | Path) -> Predictor:
    """The network of `trained_file`; what its validation slices say is worked out once and kept beside it.

    Raises:
        FileNotFoundError: no trained network there.
        ValueError: a damaged checkpoint, one of another version of the course, or data that changed since.
    """
    file = trained_file(run_dir)
    model, notes = load_model(file)
    parameters = notes["parameters"].copy()
    fingerprint = parameters.pop("data")
    if unknown := sorted(set(parameters) - set(FIELDS)):
        raise ValueError(
            f"{display_path(file)} is of another version of the course ({', '.join(unknown)}): train it anew, with "
            "resume=False."
        )
    manifest, name = resolve(run_dir) / "manifest.json", file.parents[1].name
    given = read_json(manifest).get(name, {}).get("parameters", {}) if manifest.is_file() else {}
    # where its slices lay when the run was last recorded: the fingerprint tells whether they are the same
    settings = Settings(**parameters | {each: given[each] for each in ("dataset", "data_dir") if each in given})
    kept, key = file.with_name("predictor.safetensors"), hashlib.sha256(file.read_bytes()).hexdigest()
    if kept.exists():
        state, found = read_weights(kept)
        if found.pop("checkpoint") == key and "window" in found:  # which older versions did not keep
            rule, window = found.pop("rule"), found.pop("window")
            rule, window = rule and PatientRule(**rule), window and tuple(window)
            return Predictor(model, settings, **found, **state, rule=rule, window=window)
    try:
        data = load_data(settings, progress=False)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"The first prediction needs the slices that {display_path(file)} saw. {error}") from None
    if data.fingerprint != fingerprint:
        raise ValueError(f"The slices of {data.name} changed after {display_path(file)} was trained: train it anew.")
    predictor = fit_predictor(model, data, settings)
    numbers = {name: getattr(predictor, name) for name in ("temperature", "threshold", "map", "limit", "window")}
    numbers |= {"rule": predictor.rule and dataclasses.asdict(predictor.rule), "checkpoint": key}
    save_weights(kept, {"centre": predictor.centre, "spread": predictor.spread}, numbers)
    return predictor


def fit_predictor(model: Net, data: CTData, settings: Settings) -> Predictor:
    """What the training and validation slices say of how to read a network; test slices are not looked at."""
    split, labels = data.table.split.to_numpy(), data.table.label.to_numpy()
    learned, checked = (data.images[split == part] for part in ("train", "val"))
    logits, truth = predict(model, checked).numpy(), labels[split == "val"]
    features = trunk_features(model, learned)
    centre = features.mean(0)
    # a little of the mean variance on the diagonal, as there may be fewer slices than features
    covariance = torch.cov(features.T) + 0.1 * features.var(0).mean() * torch.eye(features.shape[1])
    spread = torch.linalg.inv(covariance.double()).float()
    limit = float(np.quantile(_distance(trunk_features(model, checked), centre, spread), KNOWN))
    scale = max(1.0, temperature(logits, truth))  # where validation is all right it would make all outputs certain
    threshold = operating_point(logits, truth, SENSITIVITY)
    lungs, rule = whole_lungs(data, settings, "val"), None
    if lungs.table.label.nunique() > 1:
        rule = choose_rule(predict(model, lungs.images).numpy(), lungs.table.label, lungs.table.patient, threshold)
    if rule and rule.slope <= 0:  # the probability would fall where the score rises
        rule = None
    best = MAPS[0]
    if data.lesions is not None:  # the map that points best at the lesions of validation patients
        table, images, lesions, _ = localization.with_lesions(data, "val")
        one = np.flatnonzero(~table.patient.duplicated())  # a slice of each patient is enough to choose by
        images, lesions = images[one], lesions[one]
        maps = {name: named_map(model, images, name, [1] * len(images)) for name in MAPS}
        best = max(MAPS, key=lambda name: np.mean(localization.average_precision(maps[name], lesions)))
    return Predictor(model, settings, scale, threshold, best, centre, spread, limit, rule, data.window)


@torch.inference_mode()
def trunk_features(model: Net, images: Tensor) -> Tensor:
    """The features before layer4 of slices, uint8 (N, H, H), averaged over all locations: float32 (N, C) on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    seen = [model.forward_features(model.preprocess(some.to(device))).cpu() for some in images.split(64)]
    return adaptive_avg_pool2d(torch.cat(seen), 1).flatten(1)


def ood_score(predictor: Predictor, images: Tensor) -> np.ndarray:
    """How far slices, uint8 (N, H, H), lie from those of the training: above 1 out of distribution. float32 (N,).

    The Mahalanobis distance of the trunk's mean features (Lee et al. 2018, https://arxiv.org/abs/1807.03888), over the
    one that 95 % of the validation slices stay within. How well it does: docs/results.md.
    """
    return _distance(trunk_features(predictor.model, images), predictor.centre, predictor.spread) / predictor.limit


def _distance(features: Tensor, centre: Tensor, spread: Tensor) -> np.ndarray:
    beyond = features - centre
    return ((beyond @ spread) * beyond).sum(1).clamp_min(0).sqrt().numpy()


def predict_slices(predictor: Predictor, images: Tensor) -> list[dict]:
    """One prediction for each slice, uint8 (N, H, H), as large as those of the training.

    Returns:
        a dict a slice: `probability` of COVID, 0 to 1, temperature-scaled; `threshold`, as a probability; `decision`,
        "COVID" or "non-COVID"; `ood_score`, above 1 for slices unlike the training's; `note`, empty or a warning;
        `logit`.
    """
    flat = [UNINFORMATIVE] if predictor.temperature > FLAT else []
    logits = predict(predictor.model, images).double().numpy()  # else the threshold would lose its last digit
    return [
        {
            "probability": float(expit(logit / predictor.temperature)),
            "threshold": float(expit(predictor.threshold / predictor.temperature)),
            "decision": "COVID" if logit > predictor.threshold else "non-COVID",
            "ood_score": float(score),
            "note": "; ".join([*flat, *([OUT_OF_DISTRIBUTION] if score > 1 else [])]),
            "logit": float(logit),
        }
        for logit, score in zip(logits, ood_score(predictor, images), strict=True)
    ]


def predict_patient(predictor: Predictor, logits: np.ndarray) -> dict:
    """One answer for a patient, from the logits of all slices, float (n,), by the rule chosen on validation patients.

    Returns:
        `probability` of COVID, 0 to 1; `threshold`, as a probability; `decision`, "COVID" or "non-COVID".

    Raises ValueError if the run's validation patients could not tell which rule to take.
    """
    rule = predictor.rule
    if rule is None:
        raise ValueError("This model has no rule for patients, as validation could not tell: predict single slices.")
    score = rule.score(np.asarray(logits, float))
    return {
        "probability": float(rule.probability(score)),
        "threshold": float(rule.probability(rule.limit)),
        "decision": "COVID" if score > rule.limit else "non-COVID",
    }


def headline(answer: dict) -> str:
    """The title of a slice's or a patient's picture, with a warning where it is out of distribution."""
    warning = WARNING if OUT_OF_DISTRIBUTION in answer["note"] else ""
    chance, limit = f"{answer['probability']:.2f}", f"{answer['threshold']:.2f}"
    return f"{answer['decision']}, probability of COVID {chance} (limit {limit}){warning}"


def heat_maps(predictor: Predictor, images: Tensor, found: list[dict]) -> np.ndarray:
    """The predictor's map of each slice's decision, float32 (N, H, H) in 0…1."""
    return named_map(predictor.model, images, predictor.map, [int(each["decision"] == "COVID") for each in found])
