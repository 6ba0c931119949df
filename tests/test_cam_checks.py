"""What a heat map has to survive; maps and networks of known answers stand in for real ones."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from covid_utils.core.settings import Settings
from covid_utils.data import CTData
from covid_utils.labs import cam_checks, faithfulness
from covid_utils.labs.localization import average_precision
from covid_utils.models import Net
from covid_utils.training import new_model

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


def larger(images):
    """Three times as large, so that the last layer has more than one cell."""
    return images.repeat_interleave(3, 1).repeat_interleave(3, 2)


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


def test_largest_differences_leave_out_what_a_layer_lacks():
    flat = np.zeros((4, 4))
    one = flat.copy()
    one[1, 2] = -0.25
    maps = {"layer4": {"GradCAM": flat, "A": one, "ScoreCAM": one}, "layer2": {"GradCAM": one, "A": one}}
    table = cam_checks.largest_differences(maps)
    assert table.loc["A"].to_dict() == {"layer4": 0.25, "layer2": 0} and list(table.index) == ["GradCAM", "A"]
    assert table.index.name == "largest difference from GradCAM"


def test_the_map_that_sees_the_lesion_is_chosen_and_wins(stand_in):
    data, networks = course(), {"transfer": "seeing", "scratch": "blind"}
    networks |= {f"{name}, not trained": "blind" for name in ("scratch", "transfer")}
    scores = cam_checks.scores_by_map(data, "val", networks, ["layer4 GradCAM", "layer3 HiResCAM"])
    assert scores["pointing game"]["layer3 HiResCAM"]["transfer"]["value"] == 1
    assert scores["pointing game"]["layer4 GradCAM"]["transfer"]["value"] < 0.5
    choice = cam_checks.choose_maps(scores, networks)
    assert choice.loc["transfer", "chosen map"] == "layer3 HiResCAM" and list(choice.index) == list(networks)
    assert choice.loc["transfer", "average precision"] == 1 and choice.loc["transfer", "layer4 GradCAM"] < 0.5
    chosen = choice["chosen map"].to_dict()
    found = cam_checks.score_on_test(data, networks, chosen)
    assert found.points[cam_checks.CHOSEN, "transfer"].tolist() == [1] * 4 and len(found.patients) == 4
    assert np.allclose(found.chance, 36 / (32 * 16), atol=0.03)
    rows = list(found.scores["average precision"])
    assert rows == [cam_checks.ARTICLE, cam_checks.CHOSEN, "random", "centred blob", "lung mask", "Sobel edges"]
    said = cam_checks.said_of_points(found, chosen, ["transfer", "scratch"]).splitlines()
    assert "**4 of 4**" in said[0] and ": more than chance" in said[0] and "no more" in said[1]
    assert cam_checks.beats_chance(found, ["transfer"]) and not cam_checks.beats_chance(found, ["scratch, not trained"])


def test_every_second_slice_only(stand_in, monkeypatch):
    counts = []
    monkeypatch.setattr(
        cam_checks, "named_map", lambda m, images, *rest: counts.append(len(images)) or sees(m, images, *rest)
    )
    for every in (1, 2):
        cam_checks.scores_by_map(course(), "val", {"a": "seeing"}, ["layer3 HiResCAM"], every)
    assert counts == [4, 2]


def test_without_outlines_there_is_no_verdict(stand_in):
    data, networks = course(known=False), {"scratch": "blind", "transfer": "blind"}
    scores = cam_checks.scores_by_map(data, "val", networks, ["layer4 GradCAM"])
    choice = cam_checks.choose_maps(scores, networks)
    assert choice["chosen map"].to_dict() == dict.fromkeys(networks, "layer3 HiResCAM")
    found = cam_checks.score_on_test(data, networks, choice["chosen map"].to_dict())
    assert scores == found.scores == found.points == cam_checks.paired_gains(found) == {}
    said = [cam_checks.said_of_points(found, {}, networks), cam_checks.said_of_gains({})]
    assert said == [cam_checks.NO_VERDICT] * 2


def test_gains_are_paired_and_say_which_way():
    one, none = np.ones(8), np.zeros(8)
    points = {(cam_checks.CHOSEN, "transfer"): one, (cam_checks.CHOSEN, "scratch"): none}
    points |= {(cam_checks.CHOSEN, "transfer, not trained"): one, (cam_checks.CHOSEN, "scratch, not trained"): one}
    points[cam_checks.ARTICLE, "transfer"] = none
    gains = cam_checks.paired_gains(cam_checks.Scored({}, points, none, pd.Series(range(8))))
    assert [gain["value"] for gain in gains.values()] == [1, 0, -1, 1]
    lines = cam_checks.said_of_gains(gains).splitlines()[2:]
    verdicts = ["a gain beyond chance", "cannot be told from chance", "a loss beyond chance", "a gain beyond chance"]
    assert all(line.endswith(verdict) for line, verdict in zip(lines, verdicts, strict=True))
    assert lines[3].startswith("- transfer minus its own layer4 GradCAM: **+100.0 points")


def test_eigencam_does_not_notice_a_random_head():
    torch.manual_seed(0)
    images = larger(course().images[:3])
    kinds = {"GradCAM": "layer4 GradCAM", "EigenCAM": "layer4 EigenCAM"}
    found = cam_checks.break_stage_by_stage(Net("resnet18").eval(), images, kinds, [1, 0, 1], seed=5)
    assert list(found) == ["rank correlation", "SSIM"]
    for curves in found.values():
        assert {len(curve) for curve in curves.values()} == {1 + len(faithfulness.CASCADE)}
        assert curves["EigenCAM"][:2] == pytest.approx([1, 1]) and curves["GradCAM"][0] == 1
        assert curves["EigenCAM"][-1] < 0.99


def test_three_networks_learn_the_same_slices_with_other_labels(monkeypatch):
    data, calls = course(), []

    def retrain(base, images, labels, seed):
        calls.append((images, labels, seed))
        return base, 0.75

    monkeypatch.setattr(cam_checks, "retrain", retrain)
    trained = cam_checks.retrain_three_times(data, SETTINGS, slices=6)
    (images, honest, one), (again, same, two), (_, shuffled, three) = calls
    assert torch.equal(images, again) and len(images) == 6 and torch.equal(honest, same)
    brightest = images.flatten(1).amax(1) == 250  # only slices of COVID have a patch
    assert torch.equal(honest.bool(), brightest), "labels belong to their slices"
    assert sorted(shuffled.tolist()) == sorted(honest.tolist()) and not torch.equal(shuffled, honest)
    assert one == three != two
    table = cam_checks.compare_retrained(
        trained, larger(images[:2]), {"A": "layer4 EigenCAM"}, [1, 1], data.images, torch.tensor(data.table.label)
    )
    assert list(table.index) == ["honest", "honest, another seed", "shuffled labels"]
    assert (table["fits its labels"] == "75%").all() and (table["A: agreement"] == "+1.00").all()
    assert (table["right on test"] == "50%").all()


def test_energy_counts_only_beyond_a_flat_map():
    lungs = np.zeros((4, 8, 8), bool)
    lungs[:, :, :2] = True  # a quarter
    maps = {"inside": lungs * 1.0, "flat": np.ones((4, 8, 8))}
    energy = cam_checks.energy_inside(maps, lungs, range(4))
    assert [each["value"] for each in energy["inside"]] == [1, 0.25]
    assert [each["value"] for each in energy["more than a flat map"]] == [0.75, 0]
    head, _, first, second = cam_checks.said_of_energy(energy, lungs).splitlines()
    assert "25.0%" in head and "which is clearly more" in first and "which is *not* clearly more" in second


def test_agreement_is_told_apart_where_decisions_differ():
    together = np.array([0.5, 0.7, -0.2])
    said = cam_checks.said_of_agreement(together, np.array([True, True, False]))
    assert "**+0.60** where both decide alike (2 slices), and by **-0.20** where they don't (1 slices)" in said
    assert "don't" not in cam_checks.said_of_agreement(together, np.ones(3, bool))


def test_patches_grow_and_the_map_that_sees_them_hits(monkeypatch):
    monkeypatch.setattr(cam_checks, "predict", lambda model, slices: slices.float().mean((1, 2)) / 50)
    patch = {}

    def named(model, slices, kind, targets):
        return patch["seen"] * 1.0 if model == "seeing" else 1.0 - patch["seen"]

    real = cam_checks.with_patches

    def remember(*arguments):
        slices, patch["seen"] = real(*arguments)
        return slices, patch["seen"]

    monkeypatch.setattr(cam_checks, "with_patches", remember)
    monkeypatch.setattr(cam_checks, "named_map", named)
    networks = {"a": "seeing", "b": "blind"}
    growth, hits = cam_checks.grow_patches(networks, dict.fromkeys(networks, ""), 40, 64, seed=0)
    assert list(growth) == ["p(COVID), at the pleura", "p(COVID), deep inside"]
    curves = growth["p(COVID), at the pleura"]["a"]
    assert len(curves) == len(cam_checks.SIZES) and (np.diff(curves) > 0).all(), "ground glass is brighter than lung"
    assert hits["hottest place in a patch"].tolist() == ["10 of 10", "0 of 10"] * 2
    assert all(0 < float(text) < 3 for text in hits["a random place would"])


def test_patches_are_drawn_in_ten_patients():
    slices, patches = cam_checks.with_patches(40, 0.05, 0.3, 64, seed=0)
    assert slices.shape == patches.shape == (10, 64, 64) and patches.any((1, 2)).all()
    assert len(torch.unique(slices, dim=0)) == 10
    assert not cam_checks.with_patches(40, 0.05, 0.0, 64, seed=0)[1].any()


def test_average_precision_of_the_stand_in():
    """The lesion is what is brightest, or the tests above would prove nothing."""
    data = course()
    ill = data.table.label.to_numpy() == 1
    assert average_precision(data.images.numpy()[ill] / 255, data.lesions.numpy()[ill]).min() == 1
