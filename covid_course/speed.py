"""How fast a network trains on this machine, and how long each notebook will therefore take."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median

import joblib
import numpy as np
import torch
from torch import Tensor

from covid_utils.core.device import has_bfloat16, pick_device, seeded
from covid_utils.core.files import PROJECT, read_json
from covid_utils.core.settings import Settings
from covid_utils.data import augment
from covid_utils.runs.load_or_train import new_model
from covid_utils.training import make_optimizer, predict, train_one_epoch
from ct_phantom.patients import draw_patient

from .machine import Check

RECORD = PROJECT / "benchmarks" / "results" / "minutes.json"  # recorded runs of the default recipe
SLOW = 15  # minutes: too long to wait for one notebook in class
BATCHES = 4  # training batches for each batch of inference, about as in an epoch


def draw() -> tuple[Tensor, Tensor]:
    """A batch of phantom slices to measure with, uint8 (32, 96, 96), and their labels, float32 (32,)."""
    patients = [draw_patient(number) for number in range(8)]
    labels = torch.tensor([patient.label for patient in patients], dtype=torch.float32)
    return torch.from_numpy(np.concatenate([patient.images for patient in patients])), labels.repeat_interleave(4)


@seeded(0)
def measure(slices: Tensor, labels: Tensor, device: str = "auto", seconds: float = 2.0) -> dict[str, float]:
    """How fast the network of notebook 2 trains here, with as much inference in between as in one of its epochs.

    Args:
        slices, labels: a batch.
        seconds: how long each of the up to three measurements takes at least.

    Returns: training slices/s in "float32", in "bfloat16" (where the hardware has it), and on "one thread" (in the
        faster of the two; where there are more threads, and no GPU).
    """
    settings, chosen = Settings(device=device), pick_device(device)
    model = new_model(settings).to(chosen, memory_format=torch.channels_last)
    optimizer, scheduler = make_optimizer(model, settings.learning_rate, steps=100_000)

    def per_second(bfloat16: bool) -> float:
        model.amp = bfloat16
        train_one_epoch(
            model, [(slices, labels)], optimizer, None, chosen
        )  # the first step includes one-off preparations
        started, trained = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            batches = ((augment(slices), labels) for _ in range(BATCHES))
            train_one_epoch(model, batches, optimizer, scheduler, chosen)
            predict(model, slices)
            trained += BATCHES * len(slices)
        return trained / (time.perf_counter() - started)

    found = {"float32": per_second(False)}
    if has_bfloat16(chosen):
        found["bfloat16"] = per_second(True)
    if chosen.type == "cpu" and torch.get_num_threads() > 1:
        torch.set_num_threads(1)  # `seeded` restores it
        found["one thread"] = per_second(found.get("bfloat16", 0) > found["float32"])
    return found


def usual(found: dict[str, float]) -> float:
    """Training slices/s as the course computes: in the faster precision, on all threads."""
    return max(found["float32"], found.get("bfloat16", 0))


def number_format(found: dict[str, float]) -> Check:
    """The precision in which the network is trained, and why. Always ok: either will do."""
    if "bfloat16" not in found:
        return Check("bfloat16", True, "this hardware does not compute in it; the course computes in float32")
    ratio = found["bfloat16"] / found["float32"]
    said = f"{ratio:.1f} times as fast as float32, so it is used" if ratio > 1 else "slower than float32, so not used"
    return Check("bfloat16", True, f"the hardware computes in it; a training step is {said}")


def threads(found: dict[str, float]) -> Check:
    """Whether all threads together are faster than one: other programs that compute at the same time prevent it."""
    many, one = usual(found), found.get("one thread", 0)
    alone = f", {one:.0f} on one thread" if one else ""
    to_do = "close other programs that compute, or start JupyterLab with OMP_NUM_THREADS=1 in its environment"
    return Check("speed", one < 1.1 * many, f"{many:.0f} training slices a second{alone}", to_do)


def pace(found: dict[str, float], notebook: str, cores: int) -> float:
    """The slices/s that a notebook's time depends on: in the recorded runs only notebook 2 gained by bfloat16.

    Notebook 6 keeps all cores busy, with a training on each.
    """
    if notebook.startswith("06"):
        return cores * found.get("one thread", usual(found))
    return usual(found) if notebook.startswith("02") else found["float32"]


def minutes(found: dict[str, float]) -> dict[str, float]:
    """The estimated computing time of each notebook with its own parameters, by name, in minutes.

    A notebook's time is taken to be proportional to that of a training slice, as in the recorded runs.
    """
    slices = defaultdict(list)
    for run in read_json(RECORD):
        for name, seconds in run["seconds"].items():
            slices[name].append(seconds * pace(run["slices/s"], name, run["cores"]))
    cores = joblib.cpu_count()
    return {name: median(counts) / pace(found, name, cores) / 60 for name, counts in sorted(slices.items())}


def durations(found: dict[str, float]) -> list[Check]:
    """A line for each notebook: how long it computes here, and whether that is short enough for a class."""
    to_do = "run 'make tutorial' before the class, so that the trained networks are there, or set patients = 120"
    return [
        Check(name, took <= SLOW, f"about {took:.0f} min" if took >= 1 else "less than a minute", to_do)
        for name, took in minutes(found).items()
    ]


def measured(device: str = "auto") -> list[Check]:
    """The checks that measure; some seconds of work."""
    found = measure(*draw(), device)
    return [number_format(found), threads(found), *durations(found)]
