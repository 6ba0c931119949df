"""A model card says what the run has recorded, what is missing, and nothing else."""

import shutil
from dataclasses import replace

from scipy.special import expit

from covid_course import export
from covid_course.model_card import model_card
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.labs import predictor
from covid_utils.runs.records import record

SCORE = {"value": 0.8125, "low": 0.7, "high": 0.9}
SCORES = ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc", "average_precision")


def test_the_card_holds_what_the_run_recorded(toy_run, tmp_path):
    folder = shutil.copytree(toy_run[0], tmp_path / "run")
    settings = replace(toy_run[1], run_dir=folder)
    course = predictor.read_run(folder)
    bare = str(model_card(course, folder))
    for number in (1, 2, 5, 6):
        assert f"notebook {number} was not run" in bare
    data = {
        "counts": dict.fromkeys(("train", "val", "test"), {"COVID": 11, "non-COVID": 12, "patients": 13}),
        "nearest_neighbour": {"patient": {"value": 0.375, "low": 0.2, "high": 0.5}, "random": SCORE},
    }
    scores = dict.fromkeys(SCORES, SCORE) | {"auc": dict.fromkeys(SCORE)}  # as JSON has it for NaN
    record(settings, "data", data, "toy", 1.0)
    record(settings, "scratch", {"test": scores}, "toy", 1.0)
    card = str(model_card(course, folder))
    assert "| test slices | logit above 0 |\n| --- | --- |\n| accuracy | 81.2 % (70.0 to 90.0) |\n" in card
    assert "| auc | – |" in card and "| val | 11 | 12 | 13 |\n| test | 11 | 12 | 13 |\n" in card
    assert "37.5 % (20.0 to 50.0) of the test slices" in card and "{" not in card.split("```")[0]
    assert f"**{course.threshold:.3f}**" in card and f"**{course.temperature:.2f}**" in card
    assert "2 epochs" in card and "seed 0" in card and "random weights" in card and "notebook 5 was not run" in card
    record(settings, "scratch", {"test": scores}, "other slices", 1.0)  # a later training, of something else
    assert "81.2 %" not in str(model_card(course, folder))


def test_the_card_of_a_transfer_model(toy_run, tmp_path):
    """Its threshold, and what notebook 5 found; the folders of weights and slices are private."""
    folder, settings = toy_run
    state, notes = read_weights(folder / "scratch" / "checkpoints" / "best.safetensors")
    own = {"dataset": "/home/me/secret/slices", "weights": "/home/me/secret/mine.safetensors", "trainable": "layer3"}
    notes["parameters"] |= own
    save_weights(tmp_path / "transfer" / "checkpoints" / "best.safetensors", state, notes)
    settings, course = replace(settings, run_dir=tmp_path, **own), predictor.read_run(folder)
    at = dict.fromkeys(SCORES, {"value": 0.5, "low": 0.25, "high": 0.75})
    found = {
        "threshold": {"probability": float(expit(course.threshold)), "at_threshold": at},
        "audit": {"patient": ["**Leak:** much."], "random": ["none of this"]},
    }
    external = {"transfer": {"value": 0.625, "low": 0.5, "high": 0.75}}
    record(settings, "transfer", {"test": dict.fromkeys(SCORES, SCORE)}, "toy", 1.0)
    record(settings, "evaluation", found, "toy", 1.0)
    record(settings, "generalisation", {"external": external}, "toy", 1.0)
    card = str(model_card(course, tmp_path))
    assert "| accuracy | 81.2 % (70.0 to 90.0) | 50.0 % (25.0 to 75.0) |" in card
    assert "**Leak:** much." in card and "another hospital, at logit 0: 62.5 % (50.0 to 75.0)" in card
    assert "none of this" not in card and "stages from layer3 on" in card and "secret" not in card
    assert "secret" not in str(export.described(course, tmp_path))
    found["threshold"]["probability"] = 0.999  # of another network
    record(settings, "evaluation", found, "toy", 1.0)
    assert "50.0 % (25.0 to 75.0)" not in str(model_card(course, tmp_path))
