from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import tiny_data

from covid_utils import models, training
from covid_utils.core import device, memory
from covid_utils.core.settings import Settings
from covid_utils.data import loader
from covid_utils.explain import cam, look_inside
from covid_utils.io.weights import save_weights
from covid_utils.runs import feature_cache


@pytest.fixture
def tiny():
    return tiny_data()


@pytest.fixture
def frozen(tmp_path) -> Settings:
    """Settings of a run whose trunk is frozen; random weights in a file stand in for pretrained ones."""
    path = tmp_path / "trunk.safetensors"
    torch.manual_seed(0)
    save_weights(path, models.Net("resnet18").state_dict(), {})
    return Settings(image_size=32, epochs=5, batch_size=8, copies=2, weights=str(path), device="cpu")


def fitted(settings: Settings, data, folder, on_epoch=None):
    model = training.new_model(settings)
    return model, training.fit(model, data, settings, folder, on_epoch)


def test_torch_is_left_as_it_was(monkeypatch):
    """Threads (no more than allowed), cuDNN's choice and random numbers change inside only, also after an error."""

    def state():
        return torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.random.get_rng_state().tolist()

    own, inside = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        before = state()
        for allowed in (4, 1):
            monkeypatch.setattr(device.joblib, "cpu_count", lambda allowed=allowed: allowed)
            with pytest.raises(KeyError), device.repeatable(seed=7):
                inside.append((torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.rand(3).tolist()))
                raise KeyError
            assert state() == before
    finally:
        torch.set_num_threads(own)
    assert [threads for threads, _, _ in inside] == [3, 1]  # fewer than allowed is the user's wish
    assert all(deterministic for _, deterministic, _ in inside) and inside[0][2] == inside[1][2]


def test_no_more_threads_than_allowed_wherever_a_network_answers(tiny, frozen, tmp_path, monkeypatch):
    """Training, predicting, making cached features, heat maps: a container may be allowed fewer than it has cores."""
    model, seen, own = training.new_model(frozen), [], torch.get_num_threads()
    model.net.conv1.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(device.joblib, "cpu_count", lambda: 1)
    torch.set_num_threads(3)
    try:
        for ask in (
            lambda: training.predict(model, tiny.images[:2]),
            lambda: feature_cache.CachedAugmentations(model, tiny, frozen, tmp_path).epoch(1),
            lambda: cam(model, tiny.images[:2]),
            lambda: look_inside(model, tiny.images[:2]),
            lambda: training.fit(model, tiny, replace(frozen, copies=0, epochs=1), tmp_path / "run"),
        ):
            seen.clear()
            ask()
            assert seen and set(seen) == {1} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(own)


def test_training_leaves_torch_as_it_was(tiny, frozen, tmp_path):
    before = torch.random.get_rng_state()
    for name, settings in (("frozen", frozen), ("scratch", replace(frozen, weights="scratch"))):
        fitted(replace(settings, epochs=1), tiny, tmp_path / name)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_first_stage_to_learn():
    model = models.Net("resnet18")
    assert models.first_to_learn(model) == "stem"
    for trainable, first in {"last": "layer4", "layer3": "layer3", "layer2": "layer2", "all": "stem"}.items():
        assert models.first_to_learn(models.freeze(model, trainable)) == first
    models.freeze(model).net.layer1[1].bn1.weight.requires_grad_(True)
    assert models.first_to_learn(model) == "layer1"


@pytest.mark.parametrize("trainable", ["layer3", "layer2"])
def test_features_are_kept_up_to_any_stage(tiny, frozen, tmp_path, trainable):
    settings = replace(frozen, trainable=trainable, epochs=1)
    model = training.new_model(settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tail, _, checks = feature_cache.CachedAugmentations(model, tiny, settings, tmp_path).epoch(1)
    rows = tiny.table.index[tiny.table.split == "val"]
    logits = training.predict(tail, checks.dataset.tensors[0])
    torch.testing.assert_close(logits, training.predict(model, tiny.images[rows]), atol=0.02, rtol=0.02)
    training.fit(model, tiny, settings, tmp_path)
    changed = {n.split(".")[1] for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {"layer2", "layer3", "layer4", "fc"} - ({"layer2"} if trainable == "layer3" else set())


def test_tail_and_trunk_are_the_network(tiny, frozen, tmp_path):
    model = training.new_model(frozen)
    tail, _, checks = feature_cache.CachedAugmentations(model, tiny, frozen, tmp_path).epoch(1)
    features, labels = checks.dataset.tensors
    rows = tiny.table.index[tiny.table.split == "val"]
    logits, wanted = training.predict(tail, features), training.predict(model, tiny.images[rows])
    assert labels.tolist() == tiny.table.label[rows].tolist()
    torch.testing.assert_close(logits, wanted, atol=0.02, rtol=0.02)  # features are kept in 16 bits


def test_the_trunk_sees_each_copy_once_and_stays(tiny, frozen, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "choose_formats", lambda *_: None)  # it shows a few slices to a copy
    seen, model = [], training.new_model(frozen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.net.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    history = training.fit(model, tiny, frozen, tmp_path)
    train, val = ((tiny.table.split == part).sum() for part in ("train", "val"))
    assert sum(seen) == 1 + val + frozen.copies * train  # the 1 asks for the shape
    changed = {
        name.split(".")[1] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"layer4", "fc"}
    checked = training.evaluate(model, loader(tiny, "val", 8))  # the whole network now, on the slices themselves
    assert checked["accuracy"] == pytest.approx(history.val_accuracy.max(), abs=1.01 / val)


def test_copies_differ_and_are_taken_in_turn(tiny, frozen, tmp_path):
    cache = feature_cache.CachedAugmentations(training.new_model(frozen), tiny, frozen, tmp_path)
    first, second, third = (cache.epoch(number)[1].dataset.tensors[0] for number in (1, 2, 3))
    assert third is first and not torch.equal(first, second)
    again = feature_cache.CachedAugmentations(training.new_model(frozen), tiny, frozen, tmp_path)
    assert torch.equal(again.epoch(2)[1].dataset.tensors[0], second)  # whichever comes first, as after a stop


def test_training_slices_are_changed_as_asked(tiny, frozen, tmp_path):
    same = feature_cache.CachedAugmentations(
        training.new_model(frozen), tiny, frozen, tmp_path, change=lambda images: images
    )
    first, second = (same.epoch(number)[1].dataset.tensors[0] for number in (1, 2))
    assert torch.equal(first, second)


def test_an_interrupted_run_ends_with_the_same_bits(tiny, frozen, tmp_path):
    whole, history = fitted(frozen, tiny, tmp_path / "whole")

    def interrupt(so_far):
        if len(so_far) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(frozen, tiny, tmp_path / "stopped", interrupt)
    resumed, same = fitted(frozen, tiny, tmp_path / "stopped")
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))
    np.testing.assert_array_equal(history.drop(columns="seconds"), same.drop(columns="seconds"))


def test_large_features_go_to_a_file_and_leave_nothing(tiny, frozen, tmp_path, monkeypatch):
    small, _ = fitted(frozen, tiny, tmp_path / "memory")
    monkeypatch.setattr(memory, "MEMORY", 0)
    made, on_disk = [], feature_cache.on_disk
    monkeypatch.setattr(feature_cache, "on_disk", lambda *asked: made.append(asked) or on_disk(*asked))
    feature_cache.CachedAugmentations(training.new_model(frozen), tiny, frozen, tmp_path / "file")
    assert len(made) == 1 and not list((tmp_path / "file").iterdir()), (
        "in a file without a name: no kill leaves it there"
    )
    large, _ = fitted(frozen, tiny, tmp_path / "file")
    assert all(map(torch.equal, small.state_dict().values(), large.state_dict().values()))
    assert [path.name for path in (tmp_path / "file").iterdir() if path.is_dir()] == ["checkpoints"]


def test_only_a_frozen_trunk_is_kept(tiny, frozen, tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError("a cache was made")

    monkeypatch.setattr(training, "CachedAugmentations", never)
    for other in (replace(frozen, copies=0), replace(frozen, trainable="all"), replace(frozen, weights="scratch")):
        fitted(
            replace(other, epochs=1), tiny, tmp_path / f"{other.copies}{other.trainable}{other.weights == 'scratch'}"
        )


def test_bfloat16_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    x = torch.ones(2, 2)
    with device.autocast(torch.device("cpu")):
        assert (x @ x).dtype == torch.bfloat16
    monkeypatch.setattr(device, "BFLOAT16", False)
    with device.autocast(torch.device("cpu")):
        assert (x @ x).dtype == torch.float32


def test_bfloat16_learns_and_answers_the_same_within_tolerance(tiny, monkeypatch):
    """Any processor can compute in bfloat16, only slowly; here it is told that it is fast."""

    def learned() -> tuple[torch.Tensor, float]:
        torch.manual_seed(0)
        model = models.Net("resnet18")
        optimizer, _ = training.make_optimizer(model, Settings(), steps=100)
        loss = training.train_one_epoch(model, loader(tiny, "train", 8), optimizer)["loss"]
        return training.predict(model, tiny.images[tiny.table.index[tiny.table.split == "val"]]), loss

    monkeypatch.setattr(device, "BFLOAT16", False)
    exact, loss = learned()
    monkeypatch.setattr(device, "BFLOAT16", True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    rough, rough_loss = learned()
    assert not torch.equal(rough, exact)
    assert rough_loss == pytest.approx(loss, rel=0.05)
    torch.testing.assert_close(rough, exact, atol=0.03, rtol=0)


def test_slices_stay_where_they_are_without_a_gpu_or_room_on_it(tiny, monkeypatch):
    assert device.near(tiny.images, torch.device("cpu")) is tiny.images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * tiny.images.nbytes - 1, 10**9))
    assert device.near(tiny.images, torch.device("cuda")) is tiny.images


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("trainable", ["last", "all"])
def test_on_a_gpu_training_learns_the_same_wherever_its_slices_lie(tiny, frozen, tmp_path, monkeypatch, trainable):
    assert device.near(tiny.images, torch.device("cuda")).is_cuda
    settings = replace(frozen, trainable=trainable, device="cuda", epochs=1)
    there, history = fitted(settings, tiny, tmp_path / "there")
    assert next(there.parameters()).is_cuda and history.train_loss.notna().all()
    monkeypatch.setattr(feature_cache, "near", lambda tensor, device: tensor)
    monkeypatch.setattr(training, "near", lambda tensor, device: tensor)
    here, _ = fitted(settings, tiny, tmp_path / "here")
    # augmented on the GPU or here, a few pixels round otherwise
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-2)


def test_slices_reach_workers_that_are_started_anew(tiny):
    """As DataLoader's workers are on Windows and macOS: what they work on is sent to them."""
    one, many = loader(tiny, "val", 4), loader(tiny, "val", 4)
    several = torch.utils.data.DataLoader(
        many.dataset, batch_size=None, sampler=many.sampler, num_workers=2, multiprocessing_context="spawn"
    )
    for (images_here, labels_here), (images_there, labels_there) in zip(one, several, strict=True):
        assert torch.equal(images_here, images_there) and torch.equal(labels_here, labels_there)
