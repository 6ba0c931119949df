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
from covid_utils.data import loader
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.device import pick_device
from covid_utils.runs.files import resolve
from covid_utils.runs.found import find_or_train, load_model
from covid_utils.runs.settings import Settings
from covid_utils.sources.pretrained import read_weights, save_weights


@pytest.fixture
def tiny():
    return tiny_data()


@pytest.fixture
def quick(tmp_path) -> Settings:
    return Settings(image_size=32, epochs=3, batch_size=8, run_dir=str(tmp_path / "run"), device="cpu")


# Run in a process of its own: `fit` on the toy data, optionally killed in the middle of the n-th save.
RUN = """
import os, signal, sys
sys.path.insert(0, os.environ["TESTS"])
from toy import tiny_data
from pathlib import Path
from covid_utils import training
from covid_utils.runs.settings import Settings
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
training.fit(training.new_model(settings), tiny_data(), settings, run_dir)
"""


def run(folder: Path, kill_at: int = 0) -> subprocess.Popen:
    environment = os.environ | {"TESTS": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
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
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    process.kill()
    process.wait()
    assert run(killed).wait() == 0
    assert_same_bits(outcome(killed), outcome(tmp_path / "whole"))
    assert [p.name for p in (killed / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_an_interrupted_kernel_goes_on_with_the_same_objects(tmp_path, quick, tiny):
    """Stop in the middle of an epoch, run the cell again; the end is bit-identical to an uninterrupted run."""
    model = training.new_model(quick)
    training.fit(model, tiny, quick, tmp_path / "whole")

    def interrupt(history):
        if len(history) == 1:
            raise KeyboardInterrupt

    model = training.new_model(quick)
    with pytest.raises(KeyboardInterrupt):
        training.fit(model, tiny, quick, tmp_path / "stopped", interrupt)
    with torch.no_grad():
        model.net.conv1.weight += 1  # as an unfinished epoch would have left it
    training.fit(model, tiny, quick, tmp_path / "stopped")
    assert_same_bits(outcome(tmp_path / "stopped"), outcome(tmp_path / "whole"))


def test_same_seed_same_run_other_seed_another(tmp_path, quick, tiny):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings = replace(quick, seed=seed, epochs=2)
        training.fit(training.new_model(settings), tiny, settings, tmp_path / name)
    assert_same_bits(outcome(tmp_path / "a"), outcome(tmp_path / "b"))
    assert not outcome(tmp_path / "a")[2].equals(outcome(tmp_path / "c")[2])


def test_it_learns_and_loads_the_best_epoch(quick):
    settings, tiny = replace(quick, epochs=6), tiny_data(patients=72)
    model = training.new_model(settings)
    history = training.fit(model, tiny, settings, resolve(quick.run_dir))
    best = training.best_epoch(history)
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]
    assert history.val_accuracy.max() > 0.9
    checked = training.evaluate(model, loader(tiny, "val", 8, shuffle=False))
    assert checked["accuracy"] == history.val_accuracy[best - 1]
    loaded, notes = load_model(resolve(quick.run_dir) / "checkpoints" / "best.safetensors")
    assert notes["epoch"] == best
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_best_epoch_breaks_ties_by_loss():
    history = pd.DataFrame({"epoch": [1, 2, 3], "val_accuracy": [0.8, 0.9, 0.9], "val_loss": [0.1, 0.5, 0.4]})
    assert training.best_epoch(history) == 3


def test_frozen_trunk_stays_bit_identical(quick, tiny, tmp_path):
    save_weights(tmp_path / "w.safetensors", models.Net("resnet18").state_dict(), {})
    settings = replace(quick, weights=str(tmp_path / "w.safetensors"), epochs=1)
    model = training.new_model(settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training.fit(model, tiny, settings, tmp_path / "run")
    moved = {name.split(".")[1] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"layer4", "fc"}


def test_nan_stops_and_keeps_the_last_good_checkpoint(quick, tiny, tmp_path, monkeypatch):
    calls = []

    class Sick(models.Preprocessing):
        def __call__(self, images):
            calls.append(1)
            x = super().__call__(images)
            return x * float("nan") if len(calls) > 8 else x

    model = training.new_model(quick)
    model.preprocess = Sick()
    with pytest.raises(
        FloatingPointError,
        match=r"Epoch 2: the loss became nan\. Lower learning_rate.*resume=False.*epoch 1",
    ):
        training.fit(model, tiny, quick, tmp_path / "run")
    last = read_last(tmp_path / "run" / "checkpoints" / "last.pt")
    assert len(last["history"]) == 1 and all(t.isfinite().all() for t in last["model"].values())


def test_an_unfinished_run_of_other_parameters_is_refused(quick, tiny, tmp_path):
    def interrupt(_history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(training.new_model(quick), tiny, quick, tmp_path / "run", interrupt)
    other = replace(quick, learning_rate=0.5)
    with pytest.raises(
        ValueError, match="unfinished run with learning_rate=0.001 instead of 0.5: give another run_dir"
    ):
        training.fit(training.new_model(other), tiny, other, tmp_path / "run")
    assert len(read_last(tmp_path / "run" / "checkpoints" / "last.pt")["history"]) == 1
    anew = replace(other, resume=False, epochs=1, learning_rate=0.01)
    assert len(training.fit(training.new_model(anew), tiny, anew, tmp_path / "run")) == 1


def test_a_truncated_checkpoint_is_named(quick, tiny, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    settings = replace(quick, epochs=1)
    training.fit(training.new_model(settings), tiny, settings, tmp_path / "run")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="last.pt is damaged .*resume=False"):
        training.fit(training.new_model(settings), tiny, settings, tmp_path / "run")


def test_find_or_train(quick, tiny):
    settings = replace(quick, epochs=1)
    model, _, text = find_or_train(tiny, settings, "scratch")
    assert text.startswith("Trained the scratch model now")
    again, history, text = find_or_train(tiny, replace(settings, learning_rate=0.002), "scratch")
    assert "best epoch 1; it was trained with learning_rate=0.001 instead of 0.002" in text and len(history) == 1
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="was trained with seed=0 instead of 7: give another run_dir"):
        find_or_train(tiny, replace(settings, seed=7), "scratch")


def test_changed_data_are_found(quick, tiny):
    settings = replace(quick, epochs=1)
    find_or_train(tiny, settings, "scratch")
    with pytest.raises(ValueError, match="was trained with other slices .the data have changed since.: give another"):
        find_or_train(replace(tiny, fingerprint="changed"), settings, "scratch")


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


def test_the_articles_optimizer(tiny):
    settings = Settings(optimizer="sgd", learning_rate=1e-4)
    optimizer, scheduler = training.make_optimizer(models.freeze(models.Net()), settings, 10)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], scheduler) == (1e-4, 0.99, None)
    assert len(group["params"]) == 17  # layer4 and the head of a ResNet-18
