"""Parameters, files and records of a run."""

import dataclasses
import json
import os

import numpy as np
import pytest

from covid_utils.core import settings
from covid_utils.core.device import pick_device
from covid_utils.core.files import read_json, replace_file, write_json
from covid_utils.core.settings import Settings, check_parameters
from covid_utils.runs.records import record


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epoch", 3, "Unknown parameter 'epoch': did you mean 'epochs'|unexpected keyword"),
        ("epochs", -1, "epochs: Input should be greater than or equal to 1, not '?-1"),
        ("epochs", "1.5", "epochs: .* integer.*, not '1.5'"),
        ("resume", "maybe", "resume: .* boolean.*, not 'maybe'"),
        ("learning_rate", float("nan"), "learning_rate: .* not '?nan"),
        ("backbone", "resnet81", "did you mean 'resnet18'"),
        ("backbone", ["resnet18"], "Unknown backbone"),
        ("split", "patients", "split: Input should be 'patient' or 'random'"),
        ("run_dir", "", "run_dir: .* at least 1 character"),
    ],
)
def test_wrong_values_are_named_in_one_sentence(name, value, words):
    for call in (lambda: Settings(**{name: value}), lambda: settings.typed({name: str(value)})):
        with pytest.raises((ValueError, TypeError), match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("learning_rate", "1e-4", 1e-4), ("seed", "017", 17), ("resume", "False", False), ("dataset", "17", "17")],
)
def test_values_have_the_type_their_name_wants_on_the_command_line_and_in_yaml(tmp_path, name, text, value):
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"{name}: {text}\n")
    for got in (settings.typed({name: text})[name], settings.read_profile(profile)[name]):
        assert got == value and type(got) is type(value)


@pytest.mark.parametrize("text", ["epochs: [1, 2]", "epochs:", "- 3", "", "epochs: 3: 4", "epochs: 3\nepochs: 1"])
def test_a_wrong_profile_is_named(tmp_path, text):
    profile = tmp_path / "mine.yaml"
    profile.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        settings.read_profile(profile)


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


def test_files_are_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "results.json"
    write_json(target, {"old": 1})
    for error in (KeyboardInterrupt, RuntimeError):

        def half(path, error=error):
            path.write_text("{")
            raise error

        with pytest.raises(error):
            replace_file(target, half)
        assert json.loads(target.read_text()) == {"old": 1} and os.listdir(tmp_path) == ["results.json"]
    with pytest.raises(OSError, match="Cannot write .* choose another folder with run_dir or data_dir"):
        write_json(target / "results.json", {})


def test_json_says_null_for_nan_and_names_a_damaged_file(tmp_path):
    content = {"auc": float("nan"), "all": [np.float32("inf"), 1.5, {"deep": np.array([1, np.nan])}], "none": None}
    write_json(tmp_path / "metrics.json", content)
    expected = {"auc": None, "all": [None, 1.5, {"deep": [1.0, None]}], "none": None}
    assert read_json(tmp_path / "metrics.json") == expected
    assert "NaN" not in (text := (tmp_path / "metrics.json").read_text()) and "Infinity" not in text
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="metrics.json is not valid JSON .* delete it"):
        read_json(tmp_path / "metrics.json")


def test_record_keeps_the_other_sections(tmp_path):
    own = Settings(run_dir=str(tmp_path))
    record(own, "scratch", {"a": 1}, "f" * 8, 1.0)
    record(own, "transfer", {"a": 2}, "f" * 8, 1.0)
    assert read_json(tmp_path / "metrics.json") == {"scratch": {"a": 1}, "transfer": {"a": 2}}
    manifest = read_json(tmp_path / "manifest.json")["transfer"]
    assert manifest["parameters"] == dataclasses.asdict(own) and manifest["versions"]["torch"]
    assert manifest["device"] == str(pick_device("auto"))
