import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy import tiny_data

from covid_utils import models, training
from covid_utils.core.device import pick_device
from covid_utils.core.files import resolve
from covid_utils.core.settings import Settings
from covid_utils.data import loader
from covid_utils.io.preprocessing import Preprocessing
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.load_or_train import load_model, load_or_train, new_model, scratch_settings, train


class StopAfter:
    """Curves that interrupt a training as Ctrl-C does, when so many epochs are saved."""

    def __init__(self, epochs: int):
        self.epochs = epochs

    def update(self, history):
        if len(history) == self.epochs:
            raise KeyboardInterrupt


@pytest.fixture
def tiny():
    return tiny_data()


CPU = torch.device("cpu")


@pytest.fixture
def quick(tmp_path) -> Settings:
    return Settings(image_size=32, epochs=3, batch_size=8, run_dir=str(tmp_path / "run"), device="cpu")


# Run in a process of its own: `fit` on the toy data, optionally killed in the middle of the n-th save.
RUN = """
import os, signal, sys
sys.path.insert(0, os.environ["TESTS"])
from toy import tiny_data
from pathlib import Path
from covid_utils.runs.load_or_train import new_model, train
from covid_utils.core.settings import Settings
import torch
run_dir, kill_at = Path(sys.argv[1]), int(sys.argv[2])
saves, save = [0], torch.save
def killed(content, path):
    saves[0] += 1
    save(content, path)
    if saves[0] == kill_at:
        Path(path).write_bytes(Path(path).read_bytes()[:5000])  # half a file, and then:
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed
settings = Settings(image_size=32, epochs=3, batch_size=8, run_dir=str(run_dir), device="cpu")
print("ready", flush=True)
train(new_model(settings), tiny_data(), settings, run_dir)
"""


def run(folder: Path, kill_at: int = 0) -> subprocess.Popen:
    environment = os.environ | {"TESTS": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    environment["COVID_UTILS_HOME"] = str(folder.parent)
    call = [sys.executable, "-c", RUN, str(folder), str(kill_at)]
    return subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, text=True)


def outcome(folder: Path) -> tuple[dict, dict, pd.DataFrame]:
    """Last weights, best weights and history (without the seconds) of a run."""
    last = read_last(folder / "checkpoints" / "last.pt")["model"]
    best, _ = read_weights(folder / "checkpoints" / "best.safetensors")
    return last, best, pd.read_csv(folder / "history.csv").drop(columns="seconds")


def assert_same_bits(one, other) -> None:
    for a, b in zip(one[:2], other[:2], strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    pd.testing.assert_frame_equal(one[2], other[2], check_exact=True)


def test_kills_change_nothing(tmp_path):
    """kill -9 in the middle of two saves and once at a random moment; the end is bit-identical."""
    assert run(tmp_path / "whole").wait() == 0
    killed = tmp_path / "killed"
    for kill_at in (2, 2):  # epoch 1's save, then the next epoch's after resuming
        assert run(killed, kill_at).wait() == -signal.SIGKILL
    left = read_last(killed / "checkpoints" / "last.pt")["history"]
    assert len(left) < 3  # the last complete checkpoint is still readable
    process = run(killed)
    process.stdout.readline()
    wait = np.random.default_rng().uniform(0, 0.5)
    print(f"killed {wait} s after the start")
    time.sleep(wait)
    process.kill()
    process.wait()
    assert run(killed).wait() == 0
    assert_same_bits(outcome(killed), outcome(tmp_path / "whole"))
    assert [p.name for p in (killed / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_an_interrupted_kernel_goes_on_with_the_same_objects(tmp_path, quick, tiny):
    """Stop in the middle of an epoch, run the cell again; the end is bit-identical to an uninterrupted run."""
    model = new_model(quick)
    train(model, tiny, quick, tmp_path / "whole")

    model = new_model(quick)
    with pytest.raises(KeyboardInterrupt):
        train(model, tiny, quick, tmp_path / "stopped", StopAfter(1))
    with torch.no_grad():
        model.net.conv1.weight += 1  # as an unfinished epoch would have left it
    train(model, tiny, quick, tmp_path / "stopped")
    assert_same_bits(outcome(tmp_path / "stopped"), outcome(tmp_path / "whole"))


def test_same_seed_same_run_other_seed_another(tmp_path, quick, tiny):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings = replace(quick, seed=seed, epochs=2)
        train(new_model(settings), tiny, settings, tmp_path / name)
    assert_same_bits(outcome(tmp_path / "a"), outcome(tmp_path / "b"))
    assert not outcome(tmp_path / "a")[2].equals(outcome(tmp_path / "c")[2])


def test_it_learns_and_loads_the_best_epoch(quick):
    settings, tiny = replace(quick, epochs=6), tiny_data(patients=72)
    model = new_model(settings)
    history = train(model, tiny, settings, resolve(quick.run_dir))
    best = training.best_epoch(history)
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]
    assert history.val_accuracy.max() > 0.9
    checked = training.evaluate(model, loader(tiny, "val", 8), CPU)
    assert checked["accuracy"] == history.val_accuracy[best - 1]
    loaded, notes = load_model(resolve(quick.run_dir) / "checkpoints" / "best.safetensors")
    assert notes["epoch"] == best
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_fit_shuffles_and_augments_training_slices_anew_in_every_epoch(quick, tiny, tmp_path, monkeypatch):
    """And each is seen once an epoch; validation slices come as they are."""
    epochs, checks = [], []

    def watched(model, batches, *rest):
        epochs.append([(images.clone(), labels.clone()) for images, labels in batches])
        return train_one_epoch(model, epochs[-1], *rest)

    def checked(model, batches, device):
        checks.append(torch.cat([images for images, _ in batches]))
        return evaluate(model, batches, device)

    train_one_epoch, evaluate = training.train_one_epoch, training.evaluate
    monkeypatch.setattr(training, "train_one_epoch", watched)
    monkeypatch.setattr(training, "evaluate", checked)
    train(new_model(quick), tiny, quick, tmp_path)
    stored = tiny.images[tiny.table.index[tiny.table.split == "train"]]
    labels = [torch.cat([y for _, y in batches]) for batches in epochs]
    images = [torch.cat([x for x, _ in batches]) for batches in epochs]
    assert len(epochs) == 3 and all(len(each) == len(stored) for each in images)
    table = torch.tensor(tiny.table.label[tiny.table.split == "train"].to_numpy(), dtype=torch.float32)
    for one, other in ((labels[0], table), (labels[0], labels[1]), (labels[1], labels[2])):
        assert not torch.equal(one, other) and torch.equal(one.sort()[0], other.sort()[0])
    kept = [(each[:, None] == stored).flatten(2).all(2).any(1).float().mean() for each in images]
    assert max(kept) < 0.1  # hardly one is as it is stored
    assert not torch.equal(images[0].sort(0)[0], images[1].sort(0)[0])
    val = tiny.images[tiny.table.index[tiny.table.split == "val"]]
    assert all(torch.equal(each, val) for each in checks)


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


def test_predict_needs_no_labels_and_does_not_learn(tiny):
    model = new_model(Settings())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = training.predict(model, tiny.images[:70])
    assert logits.shape == (70,) and logits.dtype == torch.float32 and not logits.requires_grad
    assert torch.allclose(logits[64:], training.predict(model, tiny.images[64:70]), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_best_epoch_breaks_ties_by_loss():
    history = pd.DataFrame({"epoch": [1, 2, 3], "val_accuracy": [0.8, 0.9, 0.9], "val_loss": [0.1, 0.5, 0.4]})
    assert training.best_epoch(history) == 3


def test_frozen_trunk_stays_bit_identical(quick, tiny, tmp_path):
    save_weights(tmp_path / "w.safetensors", models.Net("resnet18").state_dict(), {})
    settings = replace(quick, weights=str(tmp_path / "w.safetensors"), epochs=1)
    model = new_model(settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, tiny, settings, tmp_path / "run")
    moved = {name.split(".")[1] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"layer4", "fc"}


def test_nan_stops_and_keeps_the_last_good_checkpoint(quick, tiny, tmp_path, monkeypatch):
    calls = []

    class Sick(Preprocessing):
        def __call__(self, images):
            calls.append(1)
            x = super().__call__(images)
            return x * float("nan") if len(calls) > 8 else x

    model = new_model(quick)
    model.preprocess = Sick()
    with pytest.raises(
        FloatingPointError,
        match=r"Epoch 2: the loss became nan\. Lower learning_rate.*resume=False.*epoch 1",
    ):
        train(model, tiny, quick, tmp_path / "run")
    last = read_last(tmp_path / "run" / "checkpoints" / "last.pt")
    assert len(last["history"]) == 1 and all(t.isfinite().all() for t in last["model"].values())


def test_an_unfinished_run_of_other_parameters_is_refused(quick, tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(new_model(quick), tiny, quick, tmp_path / "run", StopAfter(1))
    other = replace(quick, learning_rate=0.5)
    with pytest.raises(
        ValueError, match="unfinished run with learning_rate=0.001 instead of 0.5: give another run_dir"
    ):
        train(new_model(other), tiny, other, tmp_path / "run")
    assert len(read_last(tmp_path / "run" / "checkpoints" / "last.pt")["history"]) == 1
    anew = replace(other, resume=False, epochs=1, learning_rate=0.01)
    assert len(train(new_model(anew), tiny, anew, tmp_path / "run")) == 1


def test_a_finished_run_of_other_parameters_is_kept(quick, tiny, tmp_path):
    once = replace(quick, epochs=1)
    train(new_model(once), tiny, once, tmp_path / "run")
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    other = replace(quick, epochs=2)
    with pytest.raises(ValueError, match="a finished run with epochs=1 instead of 2: give another run_dir.*replace it"):
        train(new_model(other), tiny, other, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")} == files
    anew = replace(other, resume=False)
    assert len(train(new_model(anew), tiny, anew, tmp_path / "run")) == 2
    again = train(new_model(other), tiny, other, tmp_path / "run")  # the same once more
    assert len(again) == 2


def test_a_truncated_checkpoint_is_named(quick, tiny, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    settings = replace(quick, epochs=1)
    train(new_model(settings), tiny, settings, tmp_path / "run")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="last.pt is damaged .*resume=False"):
        train(new_model(settings), tiny, settings, tmp_path / "run")


class Bomb:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_with_a_program_inside_is_refused(tmp_path):
    torch.save({"parameters": Bomb(tmp_path / "ran")}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="last.pt is damaged"):
        read_last(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()


def test_the_baseline_from_scratch_is_the_one_that_is_there(quick, tiny):
    """An EfficientNet learns too slowly from scratch, so its baseline is a ResNet-18, or what notebook 2 trained."""
    pretrained = replace(quick, backbone="efficientnet_lite0", weights="imagenet", learning_rate=0.005, epochs=1)
    baseline = scratch_settings(pretrained)
    assert (baseline.backbone, baseline.weights, baseline.learning_rate) == (
        "resnet18",
        "scratch",
        Settings.learning_rate,
    )
    assert (baseline.epochs, baseline.seed, baseline.image_size) == (1, quick.seed, quick.image_size)
    assert scratch_settings(replace(pretrained, backbone="resnet50")).backbone == "resnet50"
    assert scratch_settings(replace(pretrained, optimizer="sgd")).learning_rate == 0.005
    started = replace(pretrained, weights="scratch", backbone="resnet34", learning_rate=0.003, epochs=2)

    with pytest.raises(KeyboardInterrupt):
        load_or_train(tiny, started, "scratch", StopAfter(1))
    baseline = scratch_settings(replace(pretrained, epochs=2))
    assert (baseline.backbone, baseline.learning_rate) == ("resnet34", 0.003)
    assert "Trained" in load_or_train(tiny, baseline, "scratch")[2]  # and an unfinished one goes on


def test_find_or_train(quick, tiny):
    settings = replace(quick, epochs=1)
    model, _, text = load_or_train(tiny, settings, "scratch")
    assert text.startswith("Trained the scratch model now")
    again, history, text = load_or_train(tiny, replace(settings, learning_rate=0.002), "scratch")
    assert "best epoch 1; it was trained with learning_rate=0.001 instead of 0.002" in text and len(history) == 1
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="was trained with seed=0 instead of 7: give another run_dir"):
        load_or_train(tiny, replace(settings, seed=7), "scratch")


def test_changed_data_are_found(quick, tiny):
    settings = replace(quick, epochs=1)
    load_or_train(tiny, settings, "scratch")
    with pytest.raises(ValueError, match="was trained with other slices .the data have changed since.: give another"):
        load_or_train(replace(tiny, fingerprint="changed"), settings, "scratch")


def test_scores_by_hand():
    logits, labels = torch.tensor([2.0, -1.0, 3.0, -2.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    scores = training.metrics(logits, labels)
    assert scores["confusion"] == [[1, 1], [1, 2]]
    assert scores["accuracy"] == pytest.approx(3 / 5) and scores["sensitivity"] == scores["precision"] == pytest.approx(
        2 / 3
    )
    assert np.isnan(training.metrics(-logits.abs(), labels * 0)["precision"])


def test_a_missing_device_is_named():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no device 'cuda'"):
            pick_device("cuda")
    assert pick_device("cpu").type == "cpu"


def test_the_articles_optimizer():
    optimizer, scheduler = training.make_optimizer(models.freeze(models.Net()), 1e-4, 10, "sgd")
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], scheduler) == (1e-4, 0.99, None)
    assert len(group["params"]) == 17  # layer4 and the head of a ResNet-18
