"""Layer-wise rates and gradual unfreezing do what they say."""

import pytest
import torch
from fine_tuning import fine_tune, layerwise_rates
from toy import tiny_data

from covid_utils.core.settings import Settings
from covid_utils.models import Net

DATA, SETTINGS = tiny_data(), Settings(image_size=32, epochs=2, batch_size=16)


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


def test_early_stages_move_less_at_a_smaller_rate_and_not_at_all_before_they_are_unfrozen(model):
    before = weights(model)
    history = fine_tune(model, DATA, SETTINGS, factor=0.1)
    assert history.val_accuracy.between(0, 1).all() and len(history) == 2
    assert 0 < moved(before, model, "net.conv1") < 0.01 * moved(before, model, "fc")
    before = weights(model)
    fine_tune(model, DATA, SETTINGS, unfreeze=("head", "last"))
    assert moved(before, model, "layer4") > 0 and moved(before, model, "layer3") == 0
