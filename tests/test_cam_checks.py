"""What a heat map has to survive; maps and networks of known answers stand in for real ones."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from covid_utils.core.settings import Settings
from covid_utils.data import CTData
from covid_utils.labs import cam_checks
from covid_utils.runs.load_or_train import new_model

SETTINGS = Settings(image_size=32, backbone="resnet18", device="cpu")
N = 24


def course(known: bool = True) -> CTData:
    """Slices of 32 pixels, two of each patient, whose left half is lung; the lesion is a bright patch in it."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 100, (N, 32, 32), dtype=np.uint8))
    lesions, lungs = torch.zeros(N, 32, 32, dtype=torch.bool), torch.zeros(N, 32, 32, dtype=torch.bool)
    lungs[:, :, :16] = True
    for i in range(N):
        if i % 2:
            lesions[i, i : i + 6, 4:10] = True
            images[i][lesions[i]] = 250
    parts = ["train"] * 8 + ["val"] * 8 + ["test"] * 8
    table = pd.DataFrame({"path": [f"s{i}" for i in range(N)], "label": [i % 2 for i in range(N)]})
    table["patient"], table["split"] = [i // 4 for i in range(N)], parts
    values = {"name": "toy", "table": table, "images": images}
    values |= {"lesions": lesions if known else None, "lungs": lungs if known else None}
    names = [field.name for field in dataclasses.fields(CTData)]
    return CTData(**{name: values.get(name) for name in names})


def sees(model, images, kind, targets):
    """A stand-in for `named_map`: a "network" called "seeing" finds what is bright, where the map is fine enough."""
    assert len(targets) == len(images)
    heat = images.numpy() / 255.0
    good = model == "seeing" and kind != "layer4 GradCAM"
    return heat if good else heat[:, ::-1, ::-1].copy()


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(cam_checks, "named_map", sees)


def test_a_first_layer_that_stayed_has_correlation_one():
    model = new_model(SETTINGS)
    assert cam_checks.first_layer_kept(model, SETTINGS) == pytest.approx(1)
    with torch.no_grad():
        model.net.conv1.weight.neg_()
    assert cam_checks.first_layer_kept(model, SETTINGS) == pytest.approx(-1)


def test_a_network_that_was_not_trained_begins_from_another_seed():
    fresh = cam_checks.not_trained(SETTINGS)
    assert not fresh.training
    assert torch.equal(fresh.net.conv1.weight, new_model(dataclasses.replace(SETTINGS, seed=1)).net.conv1.weight)
    assert not torch.equal(fresh.net.conv1.weight, new_model(SETTINGS).net.conv1.weight)


def test_the_map_that_sees_the_lesion_wins(stand_in):
    data, networks = course(), {"transfer": "seeing", "scratch": "blind"}
    networks |= {f"{name}, not trained": "blind" for name in ("scratch", "transfer")}
    scores = cam_checks.scores_by_map(data, "val", networks, ["layer4 GradCAM", "layer3 HiResCAM"])
    assert scores["pointing game"]["layer3 HiResCAM"]["transfer"]["value"] == 1
    assert scores["pointing game"]["layer4 GradCAM"]["transfer"]["value"] < 0.5
    chosen = dict.fromkeys(networks, "layer3 HiResCAM")
    found, points = cam_checks.score_on_test(data, networks, chosen)
    assert points[cam_checks.CHOSEN, "transfer"].tolist() == [1] * 4 and points.index.tolist() == [4, 4, 5, 5]
    assert np.allclose(points["chance", ""], 36 / (32 * 16), atol=0.03)
    rows = [cam_checks.ARTICLE, cam_checks.CHOSEN, "random", "centred blob", "lung mask", "Sobel edges"]
    assert list(found["average precision"]) == rows


def test_without_outlines_there_are_no_scores(stand_in):
    data, networks = course(known=False), {"scratch": "blind", "transfer": "blind"}
    assert cam_checks.scores_by_map(data, "val", networks, ["layer4 GradCAM"]) == {}
    found, points = cam_checks.score_on_test(data, networks, dict.fromkeys(networks, "layer3 HiResCAM"))
    assert found == {} and points.empty


def test_three_networks_learn_the_same_slices_with_other_labels(monkeypatch):
    data, calls = course(), []

    def retrain(base, images, labels, seed):
        calls.append((images, labels, seed))
        return base, 0.75

    monkeypatch.setattr(cam_checks, "retrain", retrain)
    trained = cam_checks.retrain_three_times(data, SETTINGS, slices=6)
    assert list(trained) == ["honest", "honest, another seed", "shuffled labels"]
    (images, honest, one), (again, same, two), (_, shuffled, three) = calls
    assert torch.equal(images, again) and len(images) == 6 and torch.equal(honest, same)
    brightest = images.flatten(1).amax(1) == 250  # only slices of COVID have a patch
    assert torch.equal(honest.bool(), brightest), "labels belong to their slices"
    assert sorted(shuffled.tolist()) == sorted(honest.tolist()) and not torch.equal(shuffled, honest)
    assert one == three != two
