"""Parameters, files and records of a run."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch

from covid_course.commands import results
from covid_utils.core.device import pick_device
from covid_utils.core.files import PROJECT, read_json, replace_file, resolve, write_json
from covid_utils.core.settings import Settings, check_parameters, read_profile
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.records import record


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": -1}, "epochs must lie between 1 and 10000, not -1"),
        ({"epochs": "3"}, "epochs must be a whole number, not '3'"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"seed": 2**31}, "seed must lie between 0 and 2147483647"),
        ({"learning_rate": "1e-4"}, "write 1.0e-4"),
        ({"learning_rate": float("nan")}, "learning_rate must lie between"),
        ({"image_size": 16}, "image_size must lie between 32"),
        ({"backbone": "resnet81"}, "did you mean 'resnet18'"),
        ({"backbone": ["resnet18"]}, "Unknown backbone"),
        ({"split": "patients"}, "did you mean 'patient'"),
        ({"device": "tpu"}, "choose one of 'auto'|did you mean"),
        ({"resume": "true"}, "resume must be true or false"),
        ({"run_dir": " "}, "run_dir is empty"),
    ],
)
def test_wrong_values_are_named(wrong, words):
    with pytest.raises(ValueError, match=words) as caught:
        Settings(**wrong)
    assert "\n" not in str(caught.value)


def test_right_values_pass_and_copies_are_checked():
    settings = Settings(learning_rate=1, run_dir=PROJECT)
    assert settings.learning_rate == 1.0 and settings.run_dir == str(PROJECT)
    assert dataclasses.asdict(dataclasses.replace(settings, epochs=3))["epochs"] == 3
    with pytest.raises(ValueError, match="epochs must lie between"):
        dataclasses.replace(settings, epochs=0)


def test_the_last_stage_may_be_called_by_its_old_name(tmp_path):
    """In a parameter, in a profile, and in a run that was left unfinished."""
    profile = tmp_path / "old.yaml"
    profile.write_text("trainable: layer4\n")
    assert Settings(trainable="layer4") == Settings(trainable="last") == Settings(**read_profile(profile))
    torch.save({"parameters": {"trainable": "layer4"}, "history": []}, tmp_path / "last.pt")
    assert read_last(tmp_path / "last.pt")["parameters"] == {"trainable": "last"}
    torch.save({"something": "else"}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="last.pt is damaged"):
        read_last(tmp_path / "last.pt")


def test_a_key_given_twice_is_named_with_its_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 3\nseed: 1\nepochs: 1\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: 'epochs' is given twice"):
        read_profile(tmp_path / "mine.yaml")


def test_notebook_parameters_are_checked():
    injected = "# Parameters\nepohcs = 3\n"
    with pytest.raises(ValueError, match="Unknown parameter 'epohcs': did you mean 'epochs'"):
        check_parameters({"In": ["", "epochs = 2", injected], "epochs": 2, "epohcs": 3})
    with pytest.raises(ValueError, match="Parameter 'weights' has no effect in this notebook"):
        check_parameters({"In": ["epochs = 2", "# Parameters\nweights = 'bundled'\n"], "weights": "bundled"})
    # names that a learner makes in other cells, or in a cell that only begins like papermill's, are not checked
    cells = ["epochs = 2\nmodel = 1", "# Parameters of mine\nthickness = 3\n", "  # Parameters\nepochs = 5"]
    for given, epochs in ((cells[:2], 2), (cells, 5)):
        assert check_parameters({"In": given, "epochs": epochs, "model": 1, "thickness": 3}).epochs == epochs


def test_relative_paths_start_at_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("data") == PROJECT / "data"
    assert resolve(tmp_path) == tmp_path


def test_files_are_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "results.json"
    write_json(target, {"old": 1})
    for error, raised in ((KeyboardInterrupt(), KeyboardInterrupt), (RuntimeError("torn"), RuntimeError)):

        def half(path, error=error):
            path.write_text("{")
            raise error

        with pytest.raises(raised):
            replace_file(target, half)
        assert json.loads(target.read_text()) == {"old": 1}
        assert os.listdir(tmp_path) == ["results.json"]


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="Cannot write .* choose another folder with run_dir or data_dir"):
        write_json(tmp_path / "file" / "results.json", {})


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="metrics.json is not valid JSON .* delete it"):
        read_json(tmp_path / "metrics.json")


def test_nan_is_null_in_json(tmp_path):
    content = {"auc": float("nan"), "all": [np.float32("inf"), 1.5, {"deep": np.array([1, np.nan])}], "none": None}
    write_json(tmp_path / "metrics.json", content)
    expected = {"auc": None, "all": [None, 1.5, {"deep": [1.0, None]}], "none": None}
    assert read_json(tmp_path / "metrics.json") == expected
    assert "NaN" not in (text := (tmp_path / "metrics.json").read_text()) and "Infinity" not in text


def test_a_score_that_is_nan_is_shown_as_a_dash(tmp_path):
    score, none = {"value": 0.5, "low": 0.25, "high": 0.75}, dict.fromkeys(("value", "low", "high"), float("nan"))
    scores = {"accuracy": score, "sensitivity": score, "specificity": none, "auc": none}
    write_json(tmp_path / "metrics.json", {"scratch": {"test": scores, "best_epoch": 3, "seconds": 9.0}})
    assert "".join(results(tmp_path).split()).endswith("50.0%(25.0%to75.0%)50.0%––39")


def test_record_keeps_the_other_sections(tmp_path):
    settings = Settings(run_dir=str(tmp_path))
    record(settings, "scratch", {"a": 1}, "f" * 8, 1.0)
    record(settings, "transfer", {"a": 2}, "f" * 8, 1.0)
    assert read_json(tmp_path / "metrics.json") == {"scratch": {"a": 1}, "transfer": {"a": 2}}
    manifest = read_json(tmp_path / "manifest.json")["transfer"]
    assert manifest["parameters"] == dataclasses.asdict(settings) and manifest["versions"]["torch"]
    assert manifest["device"] == str(pick_device("auto"))
