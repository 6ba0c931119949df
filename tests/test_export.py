"""A network taken along: the ONNX file answers as the course does, and its card tells what the run knows, no more."""

import contextlib
import io
import json
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy.special import expit
from toy import tiny_data

from covid_utils.__main__ import export as export_command
from covid_utils.labs import answers, export
from covid_utils.labs.model_card import model_card
from covid_utils.models import Preprocessing
from covid_utils.runs import device
from covid_utils.runs.commands import main
from covid_utils.runs.files import PROJECT
from covid_utils.runs.records import record
from covid_utils.runs.settings import Settings
from covid_utils.sources.images import read_slice
from covid_utils.training import fit, new_model, predict

ANSWER = {"value": 0.8125, "low": 0.7, "high": 0.9}


def random_slices(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps on the toy slices, and its settings."""
    folder = tmp_path_factory.mktemp("run")
    settings = Settings(run_dir=folder, image_size=32, epochs=2, batch_size=16)
    fit(new_model(settings), tiny_data(), settings, folder / "scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "load_data", lambda *_, **__: replace(tiny_data(), fingerprint="toy"))
        answers.read_run(folder)  # kept from now on
    return folder, settings


def make_reader(backbone: str, preprocess: Preprocessing) -> answers.Reader:
    torch.manual_seed(0)
    settings = Settings(backbone=backbone, image_size=32)
    model = new_model(settings).eval()
    for module in model.modules():  # as after a training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.preprocess = preprocess
    return replace(answers.make_reader(model, tiny_data(), settings), temperature=1.7)


@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (31, 33), (512, 512), (300, 417), (60, 34), (700, 90), (33, 640)])
def test_slices_are_resized_to_the_bit_as_the_course_does(shape, tmp_path):
    image = random_slices(*shape)
    Image.fromarray(image).save(tmp_path / "slice.png")
    for size in (32, 96):
        ours = export.resized(torch.from_numpy(image)[None], size)[0].numpy()
        assert np.array_equal(ours, read_slice(tmp_path / "slice.png", size))


CROPPED = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 0.875)
CASES = {
    "resnet18": ("resnet18", Preprocessing(), False),
    "efficientnet_lite0": ("efficientnet_lite0", Preprocessing((0.5,), (0.5,)), False),
    "a crop, as PyTorch 2.6 writes it": ("resnet18", CROPPED, True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_answers_as_the_course_does(case, monkeypatch):
    backbone, preprocess, old = CASES[case]
    monkeypatch.setattr(device, "BFLOAT16", False)
    monkeypatch.setattr(export, "BATCH_NORM_WRITTEN_OUT", old or export.BATCH_NORM_WRITTEN_OUT)
    reader, norm = make_reader(backbone, preprocess), torch.nn.functional.batch_norm
    content = export.to_onnx(reader, {"purpose": "a test"})
    assert torch.nn.functional.batch_norm is norm
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim] == ["N", "H", "W"]
    for place in (str(PROJECT), "site-packages", "File "):
        assert place.encode() not in content, "it names this machine's folders"
    session = onnxruntime.InferenceSession(content)
    for shape in ((3, 32, 32), (1, 512, 512), (2, 300, 417), (2, 200, 60)):
        slices = random_slices(*shape)
        logit, probability, strangeness = session.run(["logit", "probability", "strangeness"], {"slices": slices})
        small = [Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS) for image in slices]
        images = torch.from_numpy(np.stack(small))
        assert logit == pytest.approx(predict(reader.model, images).numpy(), abs=1e-3)
        assert probability == pytest.approx(expit(logit / 1.7), abs=1e-6)
        assert strangeness == pytest.approx(answers.strangeness(reader, images), rel=1e-3)


def test_the_command_and_the_example_in_the_card(run, tmp_path, monkeypatch, capsys):
    folder, _ = run
    assert main(["export", str(folder), "--out", str(tmp_path)], export=export_command) == 0
    said = capsys.readouterr()
    assert "model.onnx" in said.out and not said.err
    about = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    reader = answers.read_run(folder)
    assert json.loads(about["classes"]) == ["non-COVID", "COVID"] and about["data_fingerprint"] == "toy"
    assert float(about["threshold_logit"]) == reader.threshold and float(about["temperature"]) == reader.temperature
    assert "not fit for clinical use" in about["purpose"] and "MIT" in about["licence"] and about["version"]
    image = random_slices(200, 180)
    Image.fromarray(image).save(tmp_path / "slice.png")
    example = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(example.splitlines()) == 6
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device, "BFLOAT16", False)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(example, {})
    decision, probability, strangeness = printed.getvalue().split()
    wanted = answers.answer_slices(reader, torch.from_numpy(read_slice(tmp_path / "slice.png", 32))[None])[0]
    assert decision == wanted["decision"]
    assert float(probability) == pytest.approx(wanted["probability"], abs=1e-3)
    assert float(strangeness) == pytest.approx(wanted["strangeness"], rel=1e-3)


def test_the_card_holds_what_the_run_recorded(run, tmp_path):
    folder, settings = run
    reader = answers.read_run(folder)
    bare = model_card(reader, folder)
    for lacking in ("notebook 1 was not run", "notebook 2 was not run", "notebook 5 was not run"):
        assert lacking in bare
    counts = {"COVID": 11, "non-COVID": 12, "patients": 13}
    scores = dict.fromkeys("accuracy sensitivity specificity precision f1 average_precision".split(), ANSWER)
    scores["auc"] = dict.fromkeys(("value", "low", "high"))  # as JSON has it where there is no number
    look_up = {"patient": {"value": 0.375, "low": 0.2, "high": 0.5}, "random": ANSWER}
    record(settings, "data", {"counts": dict.fromkeys(("train", "val", "test"), counts), "nearest_neighbour": look_up},
           "toy", 1.0)  # fmt: skip
    record(settings, "scratch", {"test": scores}, "toy", 1.0)
    card = model_card(reader, folder)
    assert "| test | 11 | 12 | 13 |" in card and "37.5 % (20.0 to 50.0) of the test slices" in card
    assert "| accuracy | 81.2 % (70.0 to 90.0) |" in card and "| AUC | – |" in card
    assert f"**{reader.threshold:.3f}**" in card and f"**{reader.temperature:.2f}**" in card
    assert "2 epochs" in card and "seed 0" in card and "random weights" in card and "notebook 5 was not run" in card
    record(settings, "scratch", {"test": scores}, "other slices", 1.0)  # a later training, of something else
    assert "81.2 %" not in model_card(reader, folder)


def test_the_card_of_a_transfer_model(run, tmp_path):
    """Its threshold, and what notebook 5 found; where the weights and slices lie is nobody's business."""
    from covid_utils.sources.pretrained import read_weights, save_weights

    folder, settings = run
    state, notes = read_weights(folder / "scratch" / "checkpoints" / "best.safetensors")
    own = {"dataset": "/home/me/secret/slices", "weights": "/home/me/secret/mine.safetensors", "trainable": "layer3"}
    notes["parameters"] |= own
    save_weights(tmp_path / "transfer" / "checkpoints" / "best.safetensors", state, notes)
    settings, reader = replace(settings, run_dir=tmp_path, **own), answers.read_run(folder)
    names = "accuracy sensitivity specificity precision f1 auc average_precision".split()
    at = dict.fromkeys(names, {"value": 0.5, "low": 0.25, "high": 0.75})
    found = {
        "threshold": {"probability": float(expit(reader.threshold)), "at_threshold": at},
        "audit": {"patient": ["**Leak:** much."], "random": ["none of this"]},
        "external": {"transfer": {"value": 0.625, "low": 0.5, "high": 0.75}},
    }
    record(settings, "transfer", {"test": dict.fromkeys(names, ANSWER)}, "toy", 1.0)
    record(settings, "evaluation", found, "toy", 1.0)
    card = model_card(reader, tmp_path)
    assert "| accuracy | 81.2 % (70.0 to 90.0) | 50.0 % (25.0 to 75.0) |" in card
    assert "**Leak:** much." in card and "another hospital, at logit 0: 62.5 % (50.0 to 75.0)" in card
    assert "none of this" not in card and "stages from layer3 on" in card and "secret" not in card
    assert "secret" not in str(export.described(reader, tmp_path))
    found["threshold"]["probability"] = 0.999  # of another network
    record(settings, "evaluation", found, "toy", 1.0)
    assert "50.0 % (25.0 to 75.0)" not in model_card(reader, tmp_path)


@pytest.mark.parametrize("package", export.NEEDED)
def test_a_missing_package_is_one_sentence(run, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(run[0])], export=export_command) == 1
    said = capsys.readouterr().err.strip()
    assert 'pip install -c constraints.txt -e ".[export]"' in said and "\n" not in said


def test_no_run_no_file(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none")], export=export_command) == 1
    assert "There is no trained network in" in capsys.readouterr().err and not list(tmp_path.iterdir())
