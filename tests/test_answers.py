"""Predictions for slices of one's own: kept beside the network, by its validation slices, refused where it must be."""

import html
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import test_volumes as volumes
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import expit
from toy import tiny_data

from covid_course import predict as prediction
from covid_course.commands import main
from covid_utils.core.files import write_json
from covid_utils.io.scans import find_scans
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.labs import predictor
from covid_utils.training import predict

DATA = tiny_data(48)  # what the run of `toy_run` was trained on


@pytest.fixture(scope="module")
def reader(toy_run):
    return predictor.read_run(toy_run[0])


def part(data, name):
    return data.table.index[data.table.split == name]


def test_threshold_and_limit_are_those_of_validation(toy_run, reader):
    rows = part(DATA, "val")
    found = predictor.predict_slices(reader, DATA.images[rows])
    called, truth = np.array([each["decision"] == "COVID" for each in found]), DATA.table.label[rows] == 1
    assert not any("told apart" in each["note"] for each in found)
    assert called[truth].mean() >= 0.95 and reader.temperature >= 1
    assert np.mean([each["ood_score"] > 1 for each in found]) == pytest.approx(0.05, abs=0.03)
    assert all((each["probability"] >= each["threshold"]) == (each["decision"] == "COVID") for each in found)


def test_where_validation_slices_cannot_be_told_apart_that_is_said(toy_run, reader):
    """As where labels are noise."""
    wrong = replace(DATA, table=DATA.table.assign(label=1 - DATA.table.label), lesions=None)
    rows = part(wrong, "val")
    asked = predictor.fit_predictor(reader.model, wrong, reader.settings)
    found = predictor.predict_slices(asked, DATA.images[rows])
    assert asked.rule is None and all(each["note"].startswith(predictor.UNINFORMATIVE) for each in found)
    assert all(abs(each["probability"] - 0.5) < 0.1 for each in found)


def test_slices_unlike_the_training_slices_are_noticed(toy_run, reader):
    test = DATA.images[part(DATA, "test")]
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, test.shape, dtype=np.uint8))
    for other in (noise, 255 - test):
        assert (predictor.ood_score(reader, other) > 1).mean() > 0.9
    assert (predictor.ood_score(reader, test) > 1).mean() < 0.5  # few patients, four epochs
    assert predictor.predict_slices(reader, noise[:1])[0]["note"].startswith("unlike all")


@pytest.mark.parametrize(
    ("given", "message"), [("empty", "There are no slices in .*empty"), ("gone", "There is no file or folder .*gone")]
)
def test_what_cannot_be_predicted(toy_run, tmp_path, capsys, given, message):
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(toy_run[0]), str(tmp_path / given)]) == 1
    said = capsys.readouterr().err.strip()
    assert re.search(message, said) and "\n" not in said


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"colour": "blue"}, "of another version of the course .*colour"),
        ({"data": "other"}, "slices of toy .*changed"),
        (None, "first prediction.* nothing in moved and elsewhere"),
    ],
)
def test_a_run_of_another_version_or_of_slices_that_changed_or_are_gone(
    toy_run, tmp_path, monkeypatch, changed, message
):
    state, notes = read_weights(toy_run[0] / "scratch" / "checkpoints" / "best.safetensors")
    notes["parameters"] |= changed or {}
    save_weights(tmp_path / "network" / "checkpoints" / "best.safetensors", state, notes)
    write_json(tmp_path / "manifest.json", {"network": {"parameters": {"dataset": "moved", "data_dir": "elsewhere"}}})

    def load(settings, **_):
        if changed is None:
            raise FileNotFoundError(f"There is nothing in {settings.dataset} and {settings.data_dir}: check the path.")
        return DATA

    monkeypatch.setattr(predictor, "load_data", load)
    with pytest.raises(ValueError, match=message):
        predictor.read_run(tmp_path)


@settings(deadline=None)  # a busy machine takes a second for what takes a millisecond
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(1, 20), st.floats(1e-3, 3))
def test_probability_and_decision_agree(reader, logit, threshold, temperature, slope):
    """Of slices for any threshold and temperature, of patients for any rule that is believed."""
    asked = replace(reader, threshold=threshold, temperature=temperature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "predict", lambda *_: torch.tensor([logit], dtype=torch.float64))
        patch.setattr(predictor, "ood_score", lambda *_: np.zeros(1))
        (row,) = predictor.predict_slices(asked, torch.zeros(1, 8, 8, dtype=torch.uint8))
    rule = replace(reader.rule, slope=slope, limit=threshold)
    for each in (row, predictor.predict_patient(replace(asked, rule=rule), np.array([logit]))):
        assert (each["probability"] > each["threshold"]) <= (each["decision"] == "COVID")
        assert (each["probability"] < each["threshold"]) <= (each["decision"] == "non-COVID")


# -------------------------------------------------------------------------- predictions, by command and by widget


@pytest.fixture
def people(tmp_path):
    """Two series, a volume, a picture and what cannot be read; test slices in Hounsfield units."""
    rows = DATA.images[(DATA.table.split == "test").to_numpy().nonzero()[0]].numpy()
    units = [rows[i : i + 6] / 255 * 1500 - 1350 for i in range(0, 18, 6)]
    home = tmp_path / "people"
    volumes.series(home / "anna", units[0])
    volumes.series(home / "bert" / "CT", units[1])
    volumes.nifti(home / "<b>carl.nii.gz", units[2].astype(np.float32))
    volumes.nifti(home / "dora.nii.gz", (units[2] > 0).astype(np.uint8))
    shared = volumes.series(home / "emil", volumes.chest())
    volumes.series(home / "emil" / "b", volumes.chest()[:, ::2], **shared)
    Image.fromarray(rows[0]).save(home / "loose.png")
    (home / "<b>broken.png").write_bytes(b"no picture")
    return home


def test_from_a_folder_to_a_table_of_patients(toy_run, reader, people, tmp_path, capsys):
    run, out = str(toy_run[0]), tmp_path / "out"
    code = main(["predict", run, str(people), "--out", str(out)])
    said = capsys.readouterr()
    assert code == 1 and len(said.err.strip().splitlines()) == 3 and "not fit for clinical use" in said.out
    for words in ("broken.png cannot be read", "dora.nii.gz cannot be read", "Patient 'emil' in"):
        assert words in said.err
    patients, slices = (pd.read_csv(out / f"{name}.csv") for name in ("patients", "answers"))
    assert patients.patient.tolist() == ["<b>carl", "anna", "bert/CT"] and (patients.slices == 6).all()
    assert slices[slices.patient.isna()].file.tolist() == [str(people / "loose.png")] and len(slices) == 19
    mine, anna = slices[slices.patient == "anna"], patients[patients.patient == "anna"].iloc[0]
    assert mine.position.tolist() == [-100 + volumes.STEP * i for i in range(6)]
    logits = predict(reader.model, DATA.images[part(DATA, "test")[:6]]).double().numpy()
    assert np.allclose(mine.probability, expit(logits / reader.temperature), atol=1e-2)  # greys are rounded twice
    assert anna.probability == pytest.approx(predictor.predict_patient(reader, logits)["probability"], abs=1e-2)
    assert anna.out_of_distribution == (mine.ood_score > 1).sum() and anna.decision in said.out
    assert sorted(path.name for path in out.glob("*.png")) == sorted([*patients.picture, "loose.png"])
    everything = said.out + said.err + "".join(path.read_bytes().decode("latin-1") for path in out.iterdir())
    assert "SECRET" not in everything.upper() and "anna" in everything

    assert main(["predict", run, str(people / "<b>broken.png"), "--out", str(out)]) == 1
    assert len(pd.read_csv(out / "patients.csv")) == 3, "where nothing is predicted nothing is lost"
    assert main(["predict", run, str(people / "loose.png"), "--out", str(out)]) == 0
    assert len(pd.read_csv(out / "answers.csv")) == 1, "no patient of an earlier call is left"
    assert not (out / "patients.csv").exists()


def test_the_picture_of_a_patient(reader, people, tmp_path):
    """It shows the slices with the highest logits, and says so if they are unlike the training slices."""
    volumes.series(tmp_path / "noise", np.random.default_rng(0).integers(-1350, 150, (4, 32, 32)))
    (scan,), (noise,) = (find_scans([folder])[0] for folder in (people / "anna", tmp_path / "noise"))
    found = prediction.predict_scan(reader, scan)
    highest = sorted(sorted(range(6), key=lambda i: -found.slices[i]["probability"])[:3])
    titles = [axis.get_title() for axis in found.draw().axes if axis.get_title()]
    assert [int(title.split()[1].strip(",")) - 1 for title in titles] == highest
    found = prediction.predict_scan(reader, noise)
    assert found.row["out_of_distribution"] == 4 and found.row["note"] == predictor.OUT_OF_DISTRIBUTION
    assert "OUT OF DISTRIBUTION" in found.draw()._suptitle.get_text()


def test_the_widget_gives_patients_the_same_answers(reader, people, tmp_path):
    controls = prediction.upload(reader)
    names = ("<b>carl.nii.gz", "dora.nii.gz", "loose.png", "<b>broken.png")
    files = [*sorted((people / "anna").iterdir()), *(people / name for name in names)]
    facts = {"type": "", "size": 1, "last_modified": pd.Timestamp(0, tz="UTC")}
    controls["files"].value = [facts | {"name": file.name, "content": file.read_bytes()} for file in files]
    text = controls["answers"].value
    assert "<b>" not in text and "&lt;b&gt;broken.png cannot be read" in text  # a name is never run
    assert "SECRET" not in text.upper() and "/tmp" not in text
    assert "Slice dora.nii.gz cannot be read" in text
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in text.split("<tr>")]
    shown = {html.unescape(row[0]): row[1:] for row in rows if row}
    assert list(shown) == ["loose.png", "IM0000.dcm", "<b>carl.nii.gz"] == list(controls["number"].options)
    for name, place in {"IM0000.dcm": "anna", "<b>carl.nii.gz": "<b>carl.nii.gz"}.items():
        (scan,), _, _ = find_scans([people / place])
        row, (slices, probability, _, decision, *_) = prediction.predict_scan(reader, scan).row, shown[name]
        assert (int(slices), decision) == (6, row["decision"])
        assert float(probability) == pytest.approx(row["probability"], abs=1e-3)
    first = controls["picture"].value
    controls["number"].value = "IM0000.dcm"
    assert controls["picture"].value != first and len(first) > 1000
    before = {"x.png": {"metadata": {"size": 1}, "content": b"x"}}  # as ipywidgets 7 has uploads, on Colab
    assert prediction._uploaded(before, tmp_path) == {tmp_path / "000000.png": "x.png"}
