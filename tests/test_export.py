"""The ONNX file computes what the course does; its card says what the run has recorded, and nothing else."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.special import expit
from toy import tiny_data

from covid_course import export
from covid_course.commands import main
from covid_course.model_card import model_card
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from covid_utils.io.preprocessing import Preprocessing
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.labs import predictor
from covid_utils.runs.load_or_train import new_model
from covid_utils.runs.records import record
from covid_utils.training import predict


def random_slices(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("backbone", "preprocess"),
    [
        pytest.param("efficientnet_lite0", Preprocessing((0.5,), (0.5,)), marks=pytest.mark.weekly),
        ("resnet18", Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 0.875)),  # with a crop, as ImageNet's
    ],
)
def test_the_file_computes_what_the_course_does(backbone, preprocess):
    torch.manual_seed(0)
    settings = Settings(backbone=backbone, image_size=32)
    model = new_model(settings).eval()
    for module in model.modules():  # as after a training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.preprocess = preprocess
    course = replace(predictor.fit_predictor(model, tiny_data(), settings), temperature=1.7)
    content = export.to_onnx(course, {"purpose": "a test"})
    file = onnx.load_from_string(content)
    onnx.checker.check_model(file, full_check=True)
    assert [(each.domain, each.version) for each in file.opset_import] == [("", 18)]
    for place in (str(PROJECT), "site-packages", "File "):
        assert place.encode() not in content, "it names this machine's folders"
    session = onnxruntime.InferenceSession(content)
    for count in (1, 5):
        slices = random_slices(count, 32, 32)
        images = torch.from_numpy(slices)
        logit, probability, ood_score = session.run(None, {"slices": slices})
        assert logit == pytest.approx(predict(model, images).numpy(), abs=1e-3)
        assert probability == pytest.approx(expit(logit / 1.7), abs=1e-6)
        assert ood_score == pytest.approx(predictor.ood_score(course, images), rel=1e-3)


def test_the_file_of_the_command_says_what_it_is(toy_run, tmp_path, capsys):
    folder, _ = toy_run
    assert main(["export", str(folder), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "model.onnx" in said.out and not said.err
    about = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    course = predictor.read_run(folder)
    assert json.loads(about["classes"]) == ["non-COVID", "COVID"] and about["data_fingerprint"] == "toy"
    assert float(about["threshold_logit"]) == course.threshold and float(about["temperature"]) == course.temperature
    assert "not fit for clinical use" in about["purpose"] and "MIT" in about["licence"] and about["version"]


@pytest.mark.parametrize(("command", "package"), [("export", "onnxscript"), ("demo", "voila.app")])
def test_a_missing_run_or_package_is_one_sentence(toy_run, tmp_path, monkeypatch, capsys, command, package):
    assert main([command, str(tmp_path / "none")]) == 1
    assert "There is no trained network in" in capsys.readouterr().err and not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, package, None)
    assert main([command, str(toy_run[0])]) == 1
    said = capsys.readouterr().err.strip()
    assert f'pip install -c constraints.txt -e ".[{command}]"' in said and "\n" not in said


# -------------------------------------------------------------------------------------------------- model card


SCORE = {"value": 0.8125, "low": 0.7, "high": 0.9}
SCORES = ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc", "average_precision")


def test_the_card_holds_what_the_run_recorded_and_nothing_private(toy_run, tmp_path):
    """The folders of weights and slices are private."""
    folder, settings = toy_run
    course = predictor.read_run(folder)
    bare = str(model_card(course, folder))
    assert all(f"notebook {number} was not run" in bare for number in (1, 2, 5, 6)) and "random weights" in bare
    state, notes = read_weights(folder / "scratch" / "checkpoints" / "best.safetensors")
    own = {"dataset": "/home/me/secret/slices", "weights": "/home/me/secret/mine.safetensors", "trainable": "layer3"}
    notes["parameters"] |= own
    save_weights(tmp_path / "transfer" / "checkpoints" / "best.safetensors", state, notes)
    settings = replace(settings, run_dir=tmp_path, **own)
    data = {
        "counts": dict.fromkeys(("train", "val", "test"), {"COVID": 11, "non-COVID": 12, "patients": 13}),
        "nearest_neighbour": {"patient": {"value": 0.375, "low": 0.2, "high": 0.5}, "random": SCORE},
    }
    scores = dict.fromkeys(SCORES, SCORE) | {"auc": dict.fromkeys(SCORE)}  # as JSON has it for NaN
    at = dict.fromkeys(SCORES, {"value": 0.5, "low": 0.25, "high": 0.75})
    found = {
        "threshold": {"probability": float(expit(course.threshold)), "at_threshold": at},
        "audit": {"patient": ["**Leak:** much."], "random": ["none of this"]},
    }
    external = {"external": {"transfer": {"value": 0.625, "low": 0.5, "high": 0.75}}}
    sections = {"data": data, "transfer": {"test": scores}, "evaluation": found, "generalisation": external}
    for name, section in sections.items():
        record(settings, name, section, "toy", 1.0)
    card = str(model_card(course, tmp_path))
    for words in (
        "| accuracy | 81.2 % (70.0 to 90.0) | 50.0 % (25.0 to 75.0) |", "| auc | – |", "| val | 11 | 12 | 13 |\n",
        "37.5 % (20.0 to 50.0) of the test slices", f"**{course.threshold:.3f}**", f"**{course.temperature:.2f}**",
        "4 epochs", "seed 0", "**Leak:** much.", "another hospital, at logit 0: 62.5 % (50.0 to 75.0)",
        "stages from layer3 on",
    ):  # fmt: skip
        assert words in card
    assert not re.search("secret|none of this|{", card.split("```")[0])
    assert "secret" not in str(export.described(course, tmp_path))
    found["threshold"]["probability"] = 0.999  # of another network
    record(settings, "evaluation", found, "toy", 1.0)
    assert "50.0 % (25.0 to 75.0)" not in str(model_card(course, tmp_path))
    record(settings, "transfer", {"test": scores}, "other slices", 1.0)  # a later training, of something else
    assert "81.2 %" not in str(model_card(course, tmp_path))
