"""The training loop by hand; runs that stop and go on; what is refused, and what is loaded again."""

from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from toy import TOY, Bomb, StopAfter, assert_same_bits, fitted, tiny_data

from covid_utils import models, training
from covid_utils.core import backbones, device
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from covid_utils.data import loader
from covid_utils.io.weights import save_weights
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.load_or_train import load_model, load_or_train, new_model, scratch_settings, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def toy_network(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "toy", TOY)


@pytest.fixture(scope="module")
def tiny():
    return tiny_data()


@pytest.fixture
def quick(tmp_path) -> Settings:
    run_dir = str(tmp_path / "run")
    return Settings(image_size=32, epochs=3, batch_size=8, copies=2, backbone="toy", run_dir=run_dir, device="cpu")


@pytest.fixture
def frozen(quick, tmp_path) -> Settings:
    """Random weights in a file stand in for pretrained ones."""
    path = tmp_path / "w.safetensors"
    save_weights(path, models.Net("toy").state_dict(), {})
    return replace(quick, weights=str(path))


# ------------------------------------------------------------------------------------------ the loop


class Line(torch.nn.Module):
    """The logit is `weight` times the image."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x


def test_a_step_follows_the_gradient_of_its_batch_alone():
    """Two batches of one slice each: by hand, with a schedule that halves the rate after each step."""
    model, batches = Line(), [(torch.tensor([2.0]), torch.tensor([1.0])), (torch.tensor([-1.0]), torch.tensor([1.0]))]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    weight = 1.0
    for rate, (x, y) in zip((0.1, 0.05), batches, strict=True):
        weight -= rate * ((torch.sigmoid(weight * x) - y) * x).item()
    training.train_one_epoch(model, batches, optimizer, scheduler, CPU)
    assert model.weight.item() == pytest.approx(weight)
    training.train_one_epoch(model, batches, optimizer, None, CPU)
    with pytest.raises(FloatingPointError, match="the loss became nan"):
        training.train_one_epoch(model, [(torch.tensor([torch.nan]), torch.tensor([1.0]))], optimizer, None, CPU)
    assert model.weight.isfinite()


def test_an_epochs_metrics_are_those_of_all_logits():
    """Not the mean over batches: the last batch is shorter. And `evaluate` changes nothing."""
    model, x, y = Line(), torch.tensor([1.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 1.0])
    whole = training.metrics(x, y)
    batches = [(x[:2], y[:2]), (x[2:], y[2:])]
    assert training.evaluate(model, batches, CPU) == whole and model.weight.item() == 1
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    assert training.train_one_epoch(model, batches, still, None, CPU) == whole


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("logits", "labels", "confusion", "scores"),
    [
        ([2.0, -1.0, 3.0, -2.0, 0.5], [1, 1, 1, 0, 0], [[1, 1], [1, 2]], (3 / 5, 2 / 3, 2 / 3)),
        ([0.0, 0.0], [1, 0], [[1, 0], [1, 0]], (1 / 2, 0, np.nan)),  # only above 0 it means COVID
        ([1.0, 2.0], [0, 0], [[0, 2], [0, 0]], (0, np.nan, 0)),
    ],
)
def test_scores_by_hand(logits, labels, confusion, scores):
    found = training.metrics(torch.tensor(logits), torch.tensor(labels).float())
    assert found["confusion"] == confusion
    names = ("accuracy", "sensitivity", "precision")
    assert [found[name] for name in names] == pytest.approx(scores, nan_ok=True)
    chance = 1 / (1 + np.exp(-np.array(logits)))
    assert found["loss"] == pytest.approx(-np.log(np.where(labels, chance, 1 - chance)).mean())


def test_the_best_epoch_has_the_highest_accuracy_and_of_equal_ones_the_lowest_loss():
    history = pd.DataFrame({"epoch": [1, 2, 3], "val_accuracy": [0.8, 0.9, 0.9], "val_loss": [0.1, 0.5, 0.4]})
    assert training.best_epoch(history) == 3


class Elsewhere:
    """A tensor that must be moved to the CPU before it is used."""

    def __init__(self, *values: float):
        self.values = torch.tensor(values)

    def to(self, device, non_blocking=False):
        assert device == CPU
        return self.values


class Batches(list):
    """A loader that is told its epoch, as cached features are."""

    def set_epoch(self, epoch: int):
        self.epochs = [*getattr(self, "epochs", []), epoch]


def test_fit_is_a_plain_loop(monkeypatch):
    """Images and labels are moved, each epoch has its number, its seed, its bar and its row."""
    seeds, bars, drawn = [], [], []
    seeded = training.seeded
    monkeypatch.setattr(training, "seeded", lambda seed: seeds.append(seed) or seeded(seed))
    monkeypatch.setattr(training, "progress", lambda batches, *told, **more: bars.append((told, more)) or batches)
    model, val = Line(), [(Elsewhere(1.0, -2.0), torch.tensor([1.0, 0.0]))]
    batches = Batches([(Elsewhere(1.0, -2.0), Elsewhere(1.0, 0.0)), (Elsewhere(0.5), Elsewhere(1.0))])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=9)
    curves = type("Curves", (), {"update": staticmethod(lambda history: drawn.append(len(history)))})
    history = training.fit(model, batches, val, optimizer, scheduler, CPU, 2, seed=3, curves=curves)
    assert scheduler.last_epoch == 4  # steps
    assert batches.epochs == history.epoch.tolist() == drawn == [1, 2]
    assert seeds == [3_000_010, 3_000_011]  # runs that are recorded depend on them
    assert bars == [((f"epoch {epoch} of 2",), {}) for epoch in (1, 2)]
    names = ("loss", "accuracy", "sensitivity", "precision")
    parts = [f"{part}_{name}" for part in ("train", "val") for name in names]
    assert list(history) == ["epoch", "seconds", *parts] and history.seconds.between(0, 60).all()
    assert history.val_loss[1] == training.evaluate(model, val, CPU)["loss"] < history.val_loss[0]
    seeds.clear()
    training.fit(model, batches, val, optimizer, None, CPU, 1)
    assert seeds == [1]
    ill = [(torch.tensor([torch.nan]), torch.tensor([1.0]))]
    with pytest.raises(FloatingPointError, match="^the validation loss became nan$"):
        training.fit(model, batches, ill, optimizer, None, CPU, 1)


def test_only_training_uses_bfloat16_where_backbone_and_hardware_gain_by_it(monkeypatch):
    """Any processor can compute in bfloat16, only slowly; here it is told that it is fast."""
    batch, used = [(torch.zeros(2, 32, 32, dtype=torch.uint8), torch.ones(2))], {}
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    for amp, switched_on in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(device, "BFLOAT16", switched_on)
        monkeypatch.setitem(backbones.BACKBONES, "toy", replace(TOY, amp=amp))
        seen, model = [], models.Net("toy")
        model.net.conv1.register_forward_hook(lambda *given, seen=seen: seen.append(given[-1].dtype))
        optimizer, scheduler = training.make_optimizer(model, 1e-3, 100)
        training.train_one_epoch(model, batch, optimizer, scheduler, CPU)
        training.evaluate(model, batch, CPU)
        used[amp, switched_on], evaluated = seen
        assert evaluated == torch.float32
    assert not device.use_amp(torch.nn.Linear(1, 1), CPU)  # a network of one's own: as it is
    assert [dtype == torch.bfloat16 for dtype in used.values()] == [True, False, False]


def test_predict_in_batches_is_in_eval_mode_and_changes_nothing(tiny):
    model = models.Net("toy")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = training.predict(model, tiny.images[:70])
    assert logits.shape == (70,) and logits.dtype == torch.float32 and not logits.requires_grad
    assert torch.allclose(logits[64:], training.predict(model, tiny.images[64:70]), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_optimizers_and_their_schedules():
    """The article's SGD; and AdamW, whose rate rises to the one given and falls again, within its steps."""
    model = models.freeze(models.Net("toy"))
    optimizer, scheduler = training.make_optimizer(model, 1e-4, 10, "sgd")
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], scheduler) == (1e-4, 0.99, None)
    assert len(group["params"]) == 4  # weight and bias of layer4 and of the head
    optimizer, scheduler = training.make_optimizer(model, 1e-2, 10)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW) and group["fused"] and group["weight_decay"] == 0.05
    rates = []
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        rates.append(group["lr"])
    assert len(group["params"]) == 4 and max(rates) == pytest.approx(1e-2) and rates[-1] < 1e-6
    assert scheduler.total_steps == 10 and rates.index(max(rates)) == 1


def test_training_slices_are_shuffled_and_augmented_anew_in_every_epoch(quick, tiny, tmp_path):
    """And each is seen once an epoch; validation slices come as they are."""
    model, seen = new_model(quick), {True: [], False: []}
    model.register_forward_pre_hook(lambda module, given: seen[module.training].append(given[0]))
    train(model, tiny, replace(quick, epochs=2), tmp_path)
    stored, val = (tiny.images[np.flatnonzero(tiny.table.split == part)] for part in ("train", "val"))
    epochs = torch.cat(seen[True]).view(2, *stored.shape)
    bright = [(each[:, 11:17, 11:17].float().mean((1, 2)) > 110).tolist() for each in (stored, *epochs)]
    assert len({tuple(each) for each in bright}) == 3 and {sum(each) for each in bright} == {len(stored) // 2}
    unchanged = (epochs.flatten(0, 1)[:, None] == stored).flatten(2).all(2).any(1)
    assert unchanged.float().mean() < 0.1 and torch.equal(torch.cat(seen[False]), val.repeat(2, 1, 1))


def test_the_cells_of_notebook_2_train_what_a_run_trains(tmp_path):
    """The network, the loop and what they are put together from: the same history and weights, bit by bit."""
    cells = {cell.id: cell.source for cell in nbformat.read(PROJECT / "notebooks" / "02_scratch.ipynb", 4).cells}
    small = {"patients": 24, "image_size": 32, "epochs": 2, "data_dir": str(tmp_path), "seed": 1}
    names = {}
    for name in ("cell-01-more", "cell-01"):
        exec(cells[name], names)
    names |= small | {"run_dir": str(tmp_path / "cells")}
    taught = ("net", "train-one-epoch", "evaluate", "make-optimizer", "fit")
    for name in ("cell-02", "cell-02-data", *taught, "assemble-code", "train"):
        exec(cells[name], names)
    settings = Settings(**small, run_dir=str(tmp_path / "run"))
    model, history, _ = load_or_train(names["data"], settings, "scratch")
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), names["history"].drop(columns="seconds"))
    assert type(names["model"]) is not type(model)
    assert all(map(torch.equal, names["model"].state_dict().values(), model.state_dict().values()))
    loaded, _, told = load_or_train(names["data"], replace(settings, run_dir=str(tmp_path / "cells")), "scratch")
    assert told.startswith("Loaded") and not loaded.training


def test_it_learns_and_loads_the_best_epoch(quick, tmp_path):
    tiny = tiny_data(patients=48)
    model, history = fitted(replace(quick, epochs=5, learning_rate=0.01), tiny, tmp_path)
    best = training.best_epoch(history)
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0] and history.val_accuracy.max() > 0.9
    assert training.evaluate(model, loader(tiny, "val", 8), CPU)["accuracy"] == history.val_accuracy[best - 1]
    loaded, notes = load_model(tmp_path / "checkpoints" / "best.safetensors")
    assert notes["epoch"] == best
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


# ------------------------------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("start", ["quick", "frozen"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bits(tiny, tmp_path, start, optimizer, request):
    """On pixels and on cached features; the same kernel goes on, in the middle of an epoch."""
    settings = replace(request.getfixturevalue(start), optimizer=optimizer)
    fitted(settings, tiny, tmp_path / "whole")
    model = new_model(settings)
    with pytest.raises(KeyboardInterrupt):
        train(model, tiny, settings, tmp_path / "stopped", StopAfter(1))
    with torch.no_grad():
        model.net.fc.weight += 1  # as an unfinished epoch would have left it
    train(model, tiny, settings, tmp_path / "stopped")
    assert_same_bits(tmp_path / "stopped", tmp_path / "whole")


def test_nan_stops_and_keeps_the_last_good_checkpoint(quick, tiny, tmp_path):
    model, calls = new_model(quick), []
    model.register_forward_hook(lambda *given: calls.append(1) or given[-1] * (1 if len(calls) < 9 else torch.nan))
    with pytest.raises(FloatingPointError, match=r"the loss became nan: lower learning_rate .*resume=False"):
        train(model, tiny, quick, tmp_path)
    last = read_last(tmp_path / "checkpoints" / "last.pt")
    assert len(last["history"]) == 1 and all(t.isfinite().all() for t in last["model"].values())


@pytest.mark.parametrize(("stop", "kind"), [(1, "an unfinished"), (9, "a finished")])
def test_a_run_of_other_parameters_is_refused_and_kept(quick, tiny, tmp_path, stop, kind):
    try:
        fitted(quick, tiny, tmp_path, StopAfter(stop))
    except KeyboardInterrupt:
        assert stop == 1
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.stat().st_size}
    other = replace(quick, learning_rate=0.5, epochs=4)
    with pytest.raises(ValueError, match=f"{kind} run with .*learning_rate=0.001 instead of 0.5: give another run_dir"):
        fitted(other, tiny, tmp_path)
    assert all(path.read_bytes() == content for path, content in files.items())
    assert len(fitted(replace(quick, resume=False, epochs=1), tiny, tmp_path)[1]) == 1
    assert len(fitted(replace(quick, epochs=1), tiny, tmp_path)[1]) == 1  # a finished one is made anew


def test_a_damaged_checkpoint_is_named_and_no_program_in_it_is_run(quick, tiny, tmp_path):
    path = tmp_path / "checkpoints" / "last.pt"
    fitted(replace(quick, epochs=1), tiny, tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="last.pt is damaged .*delete it"):
        fitted(quick, tiny, tmp_path)
    for content in ({"something": "else"}, {"parameters": Bomb(tmp_path / "ran")}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="last.pt is damaged"):
            read_last(path)
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------- loading again


def test_the_baseline_from_scratch_is_the_one_that_is_there(quick, tiny):
    """An EfficientNet trains too slowly from scratch, so its baseline is a ResNet-18, or what notebook 2 trained."""
    pretrained = replace(quick, backbone="efficientnet_lite0", weights="imagenet", learning_rate=0.005)
    baseline = scratch_settings(pretrained)
    assert (baseline.backbone, baseline.weights) == ("resnet18", "scratch")
    assert baseline.learning_rate == Settings.learning_rate and baseline.epochs == quick.epochs
    assert scratch_settings(replace(pretrained, backbone="resnet50")).backbone == "resnet50"
    with pytest.raises(KeyboardInterrupt):
        load_or_train(tiny, replace(quick, learning_rate=0.003), "scratch", StopAfter(1))
    baseline = scratch_settings(pretrained)
    assert (baseline.backbone, baseline.learning_rate) == ("toy", 0.003)
    assert "Trained" in load_or_train(tiny, baseline, "scratch")[2]  # and an unfinished one goes on


def test_load_or_train(quick, tiny):
    settings = replace(quick, epochs=1)
    model, _, text = load_or_train(tiny, settings, "scratch")
    assert text.startswith("Trained the scratch model now")
    again, history, text = load_or_train(tiny, replace(settings, learning_rate=0.002), "scratch")
    assert "best epoch 1; it was trained with learning_rate=0.001 instead of 0.002" in text and len(history) == 1
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
    with pytest.raises(ValueError, match="was trained with seed=0 instead of 7: give another run_dir"):
        load_or_train(tiny, replace(settings, seed=7), "scratch")
    with pytest.raises(ValueError, match="was trained with other slices .the data have changed since.: give another"):
        load_or_train(replace(tiny, fingerprint="changed"), settings, "scratch")
