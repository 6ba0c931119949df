"""What benchmarks train: the source task of the bundled weights; layer-wise rates and gradual unfreezing."""

import pretrain
import pytest
import torch
from fine_tuning import fine_tune, layerwise_rates
from toy import tiny_data

from covid_utils.core.settings import Settings
from covid_utils.models import Net
from ct_phantom.patients import SOURCE


def test_a_few_steps_lower_the_source_loss():
    torch.manual_seed(0)
    model, losses = pretrain.SourceNet("resnet18"), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = {name: tensor[:8] for name, tensor in pretrain.draw(8, 0, 64).items()}
    images, lesions = batch.pop("images"), batch.pop("lesions")
    for _ in range(8):
        loss, logits = pretrain.source_loss(model, images, lesions, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert logits.shape == (8, len(SOURCE)) and losses[-1] < 0.7 * losses[0]


def test_early_stages_move_less_at_a_smaller_rate_and_not_at_all_before_they_are_unfrozen():
    torch.manual_seed(0)
    model, data, settings = Net("resnet18"), tiny_data(), Settings(image_size=32, epochs=2, batch_size=16)
    groups = layerwise_rates(model, 0.01, 0.5)
    assert [group["lr"] for group in groups] == pytest.approx([0.01 * 0.5**k for k in range(6)])
    found = [parameter for group in groups for parameter in group["params"]]
    assert found[0] is model.net.fc.weight and len(set(found)) == len(found) == len(list(model.parameters()))

    def moved(**options) -> dict[str, float]:
        before = {name: value.clone() for name, value in model.named_parameters()}
        history = fine_tune(model, data, settings, **options)
        assert history.val_accuracy.between(0, 1).all() and len(history) == 2
        return {name: (value - before[name]).abs().max().item() for name, value in model.named_parameters()}

    change = moved(factor=0.1)
    assert 0 < change["net.conv1.weight"] < 0.01 * change["net.fc.weight"]
    change = moved(unfreeze=("head", "last"))
    assert change["net.layer4.0.conv1.weight"] > 0 == change["net.layer3.0.conv1.weight"]
