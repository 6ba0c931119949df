"""What benchmarks train: the source task of the bundled weights; layer-wise rates and gradual unfreezing."""

import pretrain
import pytest
import torch
from fine_tuning import fine_tune, layerwise_rates
from toy import tiny_data

from covid_utils.core.settings import Settings
from covid_utils.models import Net
from ct_phantom.patients import SOURCE


@pytest.fixture(scope="module")
def content():
    return pretrain.draw(8, 0, 64)


def test_the_targets_fit_their_slices(content):
    """The histogram is that of the slice, smaller slices keep their values, and masks are flipped with their slices."""
    images = torch.zeros(2, 96, 96, dtype=torch.uint8)
    images[1, :24] = 255  # a quarter
    histogram, small = pretrain.grey_values(images), pretrain.smaller(images, 48)
    assert histogram.shape == (2, pretrain.BINS) and torch.allclose(histogram.norm(dim=1), torch.tensor(4.0))
    assert histogram[0, 0] == 4 and torch.isclose((histogram[1, -1] / histogram[1, 0]) ** 2, torch.tensor(1 / 3))
    assert torch.equal(small, images[:, ::2, ::2])
    torch.manual_seed(0)
    images, lesions = pretrain.flip_pair(content["images"], content["lesions"])
    turned = (lesions != content["lesions"]).any((1, 2))
    assert turned.any() and torch.equal(lesions[turned], content["lesions"][turned].flip(-1))
    assert torch.equal(images[turned], content["images"][turned].flip(-1))


def test_a_few_steps_lower_the_source_loss(content):
    torch.manual_seed(0)
    model, losses = pretrain.SourceNet("resnet18"), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = {name: tensor[:8] for name, tensor in content.items()}
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
