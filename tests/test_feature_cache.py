"""Features of frozen stages: computed once, the same as the network's own, in memory or in a file."""

from dataclasses import replace

import pytest
import torch
from toy import TOY, fitted, tiny_data

from covid_utils import models, training
from covid_utils.core import backbones, device, memory
from covid_utils.core.settings import Settings
from covid_utils.data import Slices, augment, loader
from covid_utils.io.weights import save_weights
from covid_utils.runs import feature_cache, load_or_train
from covid_utils.runs.load_or_train import new_model, train

CPU, DATA = torch.device("cpu"), tiny_data()


@pytest.fixture
def frozen(tmp_path, monkeypatch) -> Settings:
    """Settings of a run whose first stages are frozen; random weights in a file stand in for pretrained ones."""
    monkeypatch.setitem(backbones.BACKBONES, "toy", TOY)
    path = tmp_path / "w.safetensors"
    torch.manual_seed(0)
    save_weights(path, models.Net("toy").state_dict(), {})
    return Settings(image_size=32, epochs=5, batch_size=8, copies=2, weights=str(path), backbone="toy", device="cpu")


def cached(model, data, folder, split="train", change=augment, copies=2):
    """The loader of a split's features, as a training has it."""
    return feature_cache.CachedFeatures(model, Slices(data, split), 8, folder, split == "train", change, copies)


def copy_of(loader, epoch: int) -> torch.Tensor:
    loader.set_epoch(epoch)
    return loader.features().tensors[0]


def test_torch_is_left_as_it_was(frozen, tmp_path, monkeypatch):
    """Threads (no more than allowed), cuDNN's choice and random numbers change inside only, also after an error."""

    def state():
        return torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.random.get_rng_state().tolist()

    own, inside = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        before = state()
        for allowed in (4, 1):
            monkeypatch.setattr(device.joblib, "cpu_count", lambda allowed=allowed: allowed)
            with pytest.raises(KeyError), device.seeded(seed=7):
                inside.append(state()[:2])
                raise KeyError
            assert state() == before
        assert inside == [(3, True), (1, True)]  # fewer than allowed is the user's wish
        fitted(replace(frozen, epochs=1), DATA, tmp_path)
        assert state() == before
    finally:
        torch.set_num_threads(own)


@pytest.mark.parametrize(("trainable", "count", "copies"), [("last", 2, 0), ("last", 2, 2), ("layer2", 4, 2)])
def test_features_are_kept_up_to_any_stage_and_frozen_ones_do_not_change(frozen, tmp_path, trainable, count, copies):
    """Nor do their batch norm's statistics, if they see every batch (copies=0: without cached features)."""
    settings = replace(frozen, trainable=trainable, copies=copies, epochs=1)
    model = new_model(settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    features, labels = cached(model, DATA, tmp_path, "val", None, 1).features().tensors
    rows = DATA.table.index[DATA.table.split == "val"]
    logits, wanted = training.predict(models.FeatureHead(model), features), training.predict(model, DATA.images[rows])
    torch.testing.assert_close(logits, wanted, atol=0.02, rtol=0.02)  # features are kept in 16 bits
    assert labels.tolist() == DATA.table.label[rows].tolist()
    train(model, DATA, settings, tmp_path)
    changed = {n.split(".")[1] for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == set(["layer2", "layer3", "layer4", "fc"][-count:])


def test_copies_differ_are_taken_in_turn_and_seen_once_by_the_frozen_stages(frozen, tmp_path):
    seen, model = [], new_model(frozen)
    model.net.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    history = train(model, DATA, frozen, tmp_path)
    train_slices, val = ((DATA.table.split == part).sum() for part in ("train", "val"))
    assert sum(seen) == val + frozen.copies * train_slices
    checked = training.evaluate(model, loader(DATA, "val", 8), CPU)  # the whole network, on the slices
    assert checked["accuracy"] == pytest.approx(history.val_accuracy.max(), abs=1.01 / val)
    features = cached(new_model(frozen), DATA, tmp_path)
    first, second, third = (copy_of(features, epoch) for epoch in (1, 2, 3))
    assert third is first and not torch.equal(first, second)
    assert torch.equal(copy_of(cached(new_model(frozen), DATA, tmp_path), 2), second)  # whichever comes first
    same = cached(new_model(frozen), DATA, tmp_path, change=lambda images: images)
    assert torch.equal(copy_of(same, 1), copy_of(same, 2))


def test_slices_stay_where_they_are_without_room_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * DATA.images.nbytes - 1, 10**9))
    assert device.to_device_if_fits(DATA.images, torch.device("cuda")) is DATA.images


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("trainable", ["last", "all"])
def test_a_gpu_trains_the_same_wherever_its_slices_lie(frozen, tmp_path, monkeypatch, trainable):
    settings = replace(frozen, trainable=trainable, device="cuda", epochs=1)
    there, _ = fitted(settings, DATA, tmp_path / "there")
    for module in (feature_cache, load_or_train):
        monkeypatch.setattr(module, "to_device_if_fits", lambda tensor, device: tensor)
    here, _ = fitted(settings, DATA, tmp_path / "here")
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        assert one.is_cuda  # augmented on the GPU or here, a few pixels round otherwise
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-2)


def test_making_features_in_the_middle_of_an_epoch_leaves_the_trainable_stages_in_train_mode(frozen, tmp_path):
    """The loader computes them when it is first asked, which is after `train_one_epoch` has set the mode."""
    model = new_model(frozen)
    models.train_with_frozen_bn(model)
    next(iter(cached(model, DATA, tmp_path)))
    assert model.net.layer4.training and not model.net.layer3.training and not model.net.bn1.training


def test_large_features_go_to_a_file_and_leave_nothing(frozen, tmp_path, monkeypatch):
    small, _ = fitted(frozen, DATA, tmp_path / "memory")
    monkeypatch.setattr(memory, "MEMORY", 0)
    made, on_disk = [], feature_cache.on_disk
    monkeypatch.setattr(feature_cache, "on_disk", lambda *asked: made.append(asked) or on_disk(*asked))
    cached(new_model(frozen), DATA, tmp_path / "file").features()
    assert len(made) == 1 and not list((tmp_path / "file").iterdir()), "the file has no name: no kill leaves it there"
    large, _ = fitted(frozen, DATA, tmp_path / "file")
    assert all(map(torch.equal, small.state_dict().values(), large.state_dict().values()))
