"""The source task of the bundled weights."""

import pretrain
import pytest
import torch

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
