"""A tiny data set that needs no drawing, a network whose step takes a millisecond, and what is asked of a training."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from torch import Tensor, nn

from covid_utils.core import backbones
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from covid_utils.data import CTData
from covid_utils.io.weights import read_weights
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.load_or_train import new_model, train


def tiny_data(patients: int = 24, slices: int = 4, size: int = 32) -> CTData:
    """Noise, with a light square where the label is 1; the first third of the patients trains, the next validates."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(patients), slices)
    label = number % 2
    images = rng.integers(0, 120, (len(number), size, size), dtype=np.uint8)
    lesions = np.zeros(images.shape, bool)
    lesions[label == 1, 8:20, 8:20] = True
    images[lesions] += 100
    split = np.array(["train", "val", "test"])[number * 3 // patients]
    paths = [f"toy/{n}_{i % slices}" for i, n in enumerate(number)]
    patient = [f"p{n}" for n in number]
    table = pd.DataFrame({"path": paths, "label": label, "patient": patient, "split": split})
    tensors = (torch.from_numpy(each) for each in (images, lesions, np.ones_like(lesions)))
    return CTData(table, *tensors, name="toy", patient_source="Known.", fingerprint="toy")


class ToyNetwork(nn.Module):
    """A ResNet's names with a convolution each: a step takes a millisecond, a checkpoint some kilobytes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.relu, self.maxpool = nn.ReLU(), nn.Identity()
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Conv2d(8, 8, 3, stride, 1) for stride in (1, 2, 2, 2))
        self.fc = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.conv1, self.bn1, self.relu, self.layer1, self.layer2, self.layer3, self.layer4):
            x = part(x)
        return self.fc(x.mean((2, 3)))


TOY = backbones.Backbone(ToyNetwork, *backbones.RESNET)


class StopAfter:
    """Curves that interrupt a training as Ctrl-C does, when so many epochs are saved."""

    def __init__(self, epochs: int):
        self.epochs = epochs

    def update(self, history: list[dict]) -> None:
        if len(history) == self.epochs:
            raise KeyboardInterrupt


def fitted(settings: Settings, data: CTData, folder: Path, curves=None):
    """A new model trained in a folder, and its history."""
    model = new_model(settings)
    return model, train(model, data, settings, folder, curves)


def outcome(folder: Path) -> tuple[dict, dict, pd.DataFrame]:
    """Last weights, best weights and history (without the seconds) of a run."""
    last = read_last(folder / "checkpoints" / "last.pt")["model"]
    best, _ = read_weights(folder / "checkpoints" / "best.safetensors")
    return last, best, pd.read_csv(folder / "history.csv").drop(columns="seconds")


def assert_same_bits(one: Path, other: Path) -> None:
    """Two runs ended with the same weights and the same history."""
    *states, history = outcome(one)
    *others, other_history = outcome(other)
    for a, b in zip(states, others, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    pd.testing.assert_frame_equal(history, other_history, check_exact=True)


class Bomb:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@contextlib.contextmanager
def started(*arguments: str, **options):
    """A process of `python -m covid_utils` that hears Ctrl-C; it and what it started are killed in the end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a new process ignores what this one ignores
    command = [sys.executable, "-m", "covid_utils", *arguments]
    options = {"stdout": subprocess.PIPE, "text": True, "cwd": PROJECT, "start_new_session": True} | options
    process = subprocess.Popen(command, **options)
    signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        if process.poll() is None:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
        process.wait()
