"""How fast a network trains on this machine, and how long each notebook will therefore take."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median

import joblib
import numpy as np
import torch
from torch import Tensor

from covid_utils.core.device import pick_device, seeded
from covid_utils.core.files import read_json
from covid_utils.core.settings import Settings
from covid_utils.data import augment
from covid_utils.runs.load_or_train import new_model
from covid_utils.training import make_optimizer, predict, train_one_epoch
from ct_phantom.patients import draw_patient

from .machine import Check
from .notebooks import RECORD, find_notebooks

SLOW = 15  # minutes: too long to wait for one notebook in class
BATCHES = 4  # training batches for each batch of inference, about as in an epoch


def draw() -> tuple[Tensor, Tensor]:
    """A batch of phantom slices to measure with, uint8 (32, 96, 96), and their labels, float32 (32,)."""
    patients = [draw_patient(number) for number in range(8)]
    labels = torch.tensor([patient.label for patient in patients], dtype=torch.float32)
    return torch.from_numpy(np.concatenate([patient.images for patient in patients])), labels.repeat_interleave(4)


@seeded(0)
def measure(slices: Tensor, labels: Tensor, device: str = "auto", seconds: float = 2.0) -> dict[str, float]:
    """How fast the network of notebook 2 trains here on a batch, with inference in between as in its epochs.

    Returns training slices/s in "float32" on all threads, and, on a CPU, on "one thread"; each takes `seconds` or more.
    """
    settings, chosen = Settings(device=device), pick_device(device)
    model = new_model(settings).to(chosen, memory_format=torch.channels_last)
    model.amp = False
    optimizer, scheduler = make_optimizer(model, settings.learning_rate, steps=100_000)

    def per_second() -> float:
        train_one_epoch(model, [(slices, labels)], optimizer, None, chosen)  # one-off preparations
        started, trained = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            batches = ((augment(slices), labels) for _ in range(BATCHES))
            train_one_epoch(model, batches, optimizer, scheduler, chosen)
            predict(model, slices)
            trained += BATCHES * len(slices)
        return trained / (time.perf_counter() - started)

    found = {"float32": per_second()}
    if chosen.type == "cpu":
        torch.set_num_threads(1)  # `seeded` restores it
        found["one thread"] = per_second()
    return found


def threads(found: dict[str, float]) -> Check:
    """Whether all threads together are faster than one: other programs that compute prevent it."""
    many, one = found["float32"], found.get("one thread", 0)
    what = f"{many:.0f} training slices a second" + (f", {one:.0f} on one thread" if one else "")
    to_do = "close other programs that compute, or start JupyterLab with OMP_NUM_THREADS=1 in its environment"
    return Check("speed", one < 1.1 * many, what, to_do)


def rate(notebook: str, found: dict[str, float], cores: int) -> float:
    """The slices/s that a notebook's time depends on; notebook 9 keeps all cores busy, with a training on each."""
    return cores * found.get("one thread", found["float32"]) if notebook.startswith("09") else found["float32"]


def minutes(found: dict[str, float]) -> dict[str, float]:
    """The estimated computing time of each recorded notebook with its own parameters, by name, in minutes.

    A notebook's time is taken to be proportional to that of a training slice, as in the recorded runs.
    """
    slices, cores = defaultdict(list), joblib.cpu_count()
    for run in read_json(RECORD):
        for name, seconds in run["seconds"].items():
            slices[name].append(seconds * rate(name, run["slices/s"], run["cores"]))
    names = [path.stem for path in find_notebooks()]
    return {name: median(slices[name]) / rate(name, found, cores) / 60 for name in names if name in slices}


def durations(found: dict[str, float]) -> list[Check]:
    """A line for each notebook but the first: how long it computes here, and whether that is short enough in class."""
    to_do = "run 'make tutorial' before the class, so that the trained models are there, or set patients = 120"
    expected, checks = minutes(found), []
    for name in [path.stem for path in find_notebooks()][1:]:
        took = expected.get(name, 0)
        what = f"about {took:.0f} min" if took >= 1 else "less than a minute"
        checks.append(Check(name, took <= SLOW, what if name in expected else "not measured yet", to_do))
    return checks
