"""The knobs of fine-tuning do what they say."""

import copy

import numpy as np
import pytest
import torch
from fine_tuning import fine_tune
from toy import tiny_data

from covid_utils.core import device
from covid_utils.core.settings import Settings
from covid_utils.labs.finetuning import (
    batch_sizes,
    kept_per_slice,
    layerwise_rates,
    precisions,
    range_test,
    time_answers,
)
from covid_utils.models import Net, freeze
from covid_utils.training import predict

SETTINGS = Settings(image_size=32, epochs=2, batch_size=8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net("resnet18")


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items() if "running" not in name}


def moved(before, model, part):
    after = model.state_dict()
    return max((after[name] - value).abs().max().item() for name, value in before.items() if part in name)


def test_rates_fall_from_the_head_to_the_stem(model):
    groups = layerwise_rates(model, 0.01, 0.5)
    assert [group["lr"] for group in groups] == pytest.approx([0.01 * 0.5**k for k in range(6)])
    assert groups[0]["params"][0] is model.net.fc.weight and groups[-1]["params"][0] is model.net.conv1.weight
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(found) == len(set(found)) == len(list(model.parameters())), "each parameter once"


def test_gradual_unfreezing_begins_with_the_head(model):
    before = weights(model)
    history = fine_tune(model, tiny_data(), Settings(image_size=32, epochs=1, batch_size=8), unfreeze=("head", "all"))
    assert history.epoch.tolist() == [1] and moved(before, model, "fc") > 0
    assert moved(before, model, "conv1") == moved(before, model, "layer4") == 0
    fine_tune(model, tiny_data(), SETTINGS, unfreeze=("head", "last"))
    assert moved(before, model, "layer4") > 0 and moved(before, model, "layer3") == 0


def test_early_stages_move_less_at_a_smaller_rate():
    drift = {}
    for factor in (1.0, 0.1):
        torch.manual_seed(0)
        model = Net("resnet18")
        before = weights(model)
        history = fine_tune(model, tiny_data(), SETTINGS, factor=factor)
        drift[factor] = moved(before, model, "net.conv1")
        assert history.val_accuracy.between(0, 1).all() and len(history) == 2
    assert 0 < drift[0.1] < 0.01 * drift[1.0]


def test_the_range_test_raises_the_rate_in_equal_factors_until_the_loss_explodes(model):
    calm = range_test(model, tiny_data(), SETTINGS, 1e-6, 1e-5, steps=5)
    assert np.allclose(calm.rate, np.geomspace(1e-6, 1e-5, 5)) and calm.loss.between(0.1, 5).all()
    assert calm.smooth.iloc[0] == calm.loss.iloc[0] and calm.smooth.iloc[-1] != calm.loss.iloc[-1]
    wild = range_test(Net("resnet18"), tiny_data(), SETTINGS, 1e-3, 1e6, steps=40)
    assert len(wild) < 40 and not wild.loss.iloc[-1] < 4 * wild.loss.min()


def test_precisions_are_equal_without_bfloat16_and_nothing_moves(model, monkeypatch):
    monkeypatch.setattr(device, "BFLOAT16", False)
    images, before = tiny_data().images[:4], {name: value.clone() for name, value in model.state_dict().items()}
    table, logits = precisions(model, images, repeats=1)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], predict(model, images))
    assert table.index.tolist() == ["float32", "bfloat16"] and (table[["inference", "training"]] > 0).all(axis=None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "nothing moved"


def test_what_a_slice_keeps_for_the_backward_pass(model):
    images = tiny_data().images
    kept = {stage: kept_per_slice(freeze(model, stage), images[:8]) for stage in ("head", "last", "layer2", "all")}
    assert kept["head"] == 512 * 4, "the head needs its input, 512 numbers of 4 bytes"
    assert kept["head"] < kept["last"] < kept["layer2"] < kept["all"]
    assert kept_per_slice(model, images[:16]) == pytest.approx(kept["all"], rel=0.02)


def test_every_way_to_answer_is_compared_with_the_first(model):
    images, other = tiny_data().images[:4], copy.deepcopy(model)
    with torch.no_grad():
        other.net.fc.bias += 2
    table = time_answers({"one": (model, images), "the same": (model, images), "other": (other, images)})
    assert table.index.tolist() == ["one", "the same", "other"] and table["times as fast"].iloc[0] == 1
    assert table["logits differ by"].tolist() == pytest.approx([0, 0, 2], abs=0.05) and (table.seconds >= 0).all()
    assert time_answers({}).empty


def test_what_a_slice_of_a_batch_costs_by_the_first_stage_that_learns(model):
    frozen = [p.requires_grad for p in model.parameters()]
    table = batch_sizes(model, tiny_data().images[:8])
    assert table.index.tolist() == ["last", "layer3", "layer2", "all"]
    kept = {
        stage: kept_per_slice(freeze(copy.deepcopy(model), stage), tiny_data().images[:8]) for stage in ("last", "all")
    }
    assert table["megabytes a slice"]["all"] == f"{kept['all'] / 1e6:.1f}"
    assert table["slices in 4 GB"]["all"] == f"{4e9 / kept['all']:,.0f}"
    assert table["times the last stage's"]["all"] == f"{kept['all'] / kept['last']:.1f}"
    assert [p.requires_grad for p in model.parameters()] == frozen, "the network itself stays as it was"
