"""A network taken along: the ONNX file answers as the course does."""

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

from covid_course import export
from covid_course.commands import main
from covid_utils.__main__ import export as export_command
from covid_utils.core import device
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from covid_utils.io.images import read_slice
from covid_utils.labs import predictor
from covid_utils.models import Preprocessing
from covid_utils.training import new_model, predict


def random_slices(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def make_reader(backbone: str, preprocess: Preprocessing) -> predictor.Predictor:
    torch.manual_seed(0)
    settings = Settings(backbone=backbone, image_size=32)
    model = new_model(settings).eval()
    for module in model.modules():  # as after a training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.preprocess = preprocess
    return replace(predictor.fit_predictor(model, tiny_data(), settings), temperature=1.7)


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
        assert strangeness == pytest.approx(predictor.ood_score(reader, images), rel=1e-3)


def test_the_command_and_the_example_in_the_card(toy_run, tmp_path, monkeypatch, capsys):
    folder, _ = toy_run
    assert main(["export", str(folder), "--out", str(tmp_path)], export=export_command) == 0
    said = capsys.readouterr()
    assert "model.onnx" in said.out and not said.err
    about = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    reader = predictor.read_run(folder)
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
    wanted = predictor.predict_slices(reader, torch.from_numpy(read_slice(tmp_path / "slice.png", 32))[None])[0]
    assert decision == wanted["decision"]
    assert float(probability) == pytest.approx(wanted["probability"], abs=1e-3)
    assert float(strangeness) == pytest.approx(wanted["ood_score"], rel=1e-3)


@pytest.mark.parametrize("package", export.NEEDED)
def test_a_missing_package_is_one_sentence(toy_run, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(toy_run[0])], export=export_command) == 1
    said = capsys.readouterr().err.strip()
    assert 'pip install -c constraints.txt -e ".[export]"' in said and "\n" not in said


def test_no_run_no_file(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none")], export=export_command) == 1
    assert "There is no trained network in" in capsys.readouterr().err and not list(tmp_path.iterdir())
