"""One's own slice, one answer: the same by command and widget, refused where the network cannot know."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from PIL import Image

from covid_course import predict as prediction
from covid_course.commands import main
from covid_utils.core.files import read_json
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.labs import predictor
from covid_utils.labs.whole_patients import whole_lungs
from covid_utils.runs.load_or_train import new_model, train
from covid_utils.training import predict as predict_logits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run on a small phantom, its data, and the settings."""
    home = tmp_path_factory.mktemp("run")
    settings = Settings(data_dir=home / "data", run_dir=home / "run", patients=60, image_size=64, epochs=4)
    data = load_data(settings, progress=False)
    train(new_model(settings), data, settings, home / "run" / "scratch")
    return home / "run", data, settings


@pytest.fixture(scope="module")
def reader(run):
    folder, data, settings = run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            predictor, "load_data", lambda s, progress: load_data(replace(s, data_dir=settings.data_dir), False)
        )
        return predictor.read_run(folder)


@pytest.fixture
def own(run, tmp_path):
    """A folder with four test slices and the cat."""
    _, data, _ = run
    for row in data.table.index[data.table.split == "test"][:4]:
        Image.fromarray(data.images[row].numpy()).save(tmp_path / f"slice {row}.png")
    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "cat.png")
    return tmp_path


def test_what_is_worked_out_once_is_kept(run, reader, monkeypatch):
    folder, data, settings = run
    monkeypatch.setattr(predictor, "load_data", None)  # not needed again
    again = predictor.read_run(folder)
    assert (again.threshold, again.temperature, again.map, again.limit, again.rule) == (
        reader.threshold, reader.temperature, reader.map, reader.limit, reader.rule,
    )  # fmt: skip
    assert torch.equal(again.spread, reader.spread) and again.settings.image_size == settings.image_size


def test_threshold_and_limit_are_those_of_validation(run, reader):
    _, data, _ = run
    val = data.table.split == "val"
    found = predictor.predict_slices(reader, data.images[val.to_numpy().nonzero()[0]])
    called = np.array([each["decision"] == "COVID" for each in found])
    truth = data.table.label[val].to_numpy() == 1
    assert called[truth].mean() >= 0.95
    assert np.mean([each["ood_score"] > 1 for each in found]) == pytest.approx(0.05, abs=0.03)
    for each in found:
        assert (each["probability"] >= each["threshold"]) == (each["decision"] == "COVID")
    assert reader.temperature >= 1


def test_a_patient_is_answered_by_the_rule_of_validation_patients(run, reader):
    _, data, settings = run
    lungs = whole_lungs(data, settings, "val")
    logits = predict_logits(reader.model, lungs.images).numpy()
    called, truth = [], []
    for _, own in lungs.table.groupby("patient"):
        answer = predictor.predict_patient(reader, logits[own.index])
        assert (answer["probability"] >= answer["threshold"]) == (answer["decision"] == "COVID")
        called.append(answer["decision"] == "COVID")
        truth.append(own.label.iloc[0] == 1)
    assert np.array(called)[truth].mean() >= 0.9
    with pytest.raises(ValueError, match="no rule for whole patients"):
        predictor.predict_patient(replace(reader, rule=None), logits)


def test_strangers_are_noticed(run, reader):
    _, data, _ = run
    test = data.images[(data.table.split == "test").to_numpy().nonzero()[0]]
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, test.shape, dtype=np.uint8))
    assert (predictor.ood_score(reader, noise) > 1).mean() > 0.9
    assert (predictor.ood_score(reader, 255 - test) > 1).mean() > 0.9
    assert (predictor.ood_score(reader, test) > 1).mean() < 0.8  # few patients, four epochs
    assert predictor.predict_slices(reader, noise[:1])[0]["note"].startswith("unlike all")


def test_the_command_answers_each_file_and_says_which_it_could_not_read(run, reader, own, capsys):
    folder, data, _ = run
    (own / "broken.png").write_bytes(b"no picture")
    code = main(["predict", str(folder), str(own), "--out", str(own / "out")])
    said = capsys.readouterr()
    assert code == 1 and "broken.png cannot be read" in said.err and "not fit for clinical use" in said.out
    table = pd.read_csv(own / "out" / "answers.csv")
    assert len(table) == 5 and json.loads((own / "out" / "answers.json").read_text()) == read_json(
        own / "out/answers.json"
    )
    images = data.images[data.table.index[data.table.split == "test"][:4]]
    wanted = [each["probability"] for each in predictor.predict_slices(reader, images)]
    assert np.allclose(table[table.file.str.contains("slice ")].probability, wanted, atol=1e-6)
    assert table.note[table.file.str.contains("cat")].str.startswith("unlike").all()
    for picture in table.picture:
        with Image.open(own / "out" / picture) as shown:
            assert shown.width > 400
    assert main(["predict", str(folder), str(own / "cat.png"), "--out", str(own / "out2")]) == 0


def test_the_widget_gives_the_same_answers(run, reader, own):
    folder, _, _ = run
    (own / "<b>broken.png").write_bytes(b"no picture")
    controls = prediction.upload(reader)
    files = sorted(own.glob("*.png"))
    facts = {"type": "image/png", "size": 1, "last_modified": pd.Timestamp(0, tz="UTC")}
    controls["files"].value = [facts | {"name": file.name, "content": file.read_bytes()} for file in files]
    readable = [file.name for file in files if "broken" not in file.name]
    assert list(controls["number"].options) == readable
    assert "&lt;b&gt;broken.png cannot be read" in controls["answers"].value  # a name is shown, never run
    main(["predict", str(folder), *map(str, files), "--out", str(own / "out")])
    table = pd.read_csv(own / "out" / "answers.csv")
    cells = np.reshape(re.findall(r"<td>(.*?)</td>", controls["answers"].value), (len(table), -1))
    assert (
        np.allclose(table.probability, cells[:, 1].astype(float), atol=1e-3) and (table.decision == cells[:, 3]).all()
    )
    first = controls["picture"].value
    assert len(first) > 1000 and controls["number"].value == readable[0]
    controls["number"].value = readable[1]
    assert controls["picture"].value != first


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "There is no trained network in .*: run the notebooks with this run_dir first"),
        ("empty", "holds no slices"),
        ("gone", "There is no file or folder .*gone.png"),
    ],
)
def test_what_cannot_be_asked(run, tmp_path, capsys, what, message):
    folder, _, _ = run
    (tmp_path / "empty").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "x.png")
    call = {
        "nothing": [str(tmp_path), str(tmp_path / "x.png")],
        "empty": [str(folder), str(tmp_path / "empty")],
        "gone": [str(folder), str(tmp_path / "gone.png")],
    }[what]
    assert main(["predict", *call]) == 1
    said = capsys.readouterr().err.strip()
    assert re.search(message, said) and "\n" not in said


def test_a_run_of_another_version_or_of_other_data(run, tmp_path, monkeypatch):
    from covid_utils.io.weights import read_weights, save_weights

    folder, data, settings = run
    state, notes = read_weights(folder / "scratch" / "checkpoints" / "best.safetensors")
    new = tmp_path / "scratch" / "checkpoints" / "best.safetensors"
    new.parent.mkdir(parents=True)
    save_weights(new, state, notes | {"parameters": notes["parameters"] | {"colour": "blue"}})
    with pytest.raises(ValueError, match=r"of another version of the course \(it has the parameters colour\)"):
        predictor.read_run(tmp_path)
    save_weights(new, state, notes | {"parameters": notes["parameters"] | {"data": "other"}})
    monkeypatch.setattr(predictor, "load_data", lambda *_, **__: data)
    with pytest.raises(ValueError, match="slices of phantom have changed since"):
        predictor.read_run(tmp_path)
