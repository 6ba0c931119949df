"""How fast is the course against what a learner would otherwise run? Every row is a ratio measured in one run.

    make bench            or        .venv/bin/python benchmarks/speed.py --rounds 2

Each contender trains the same network on the same pictures (data/sars-cov-2-ct if it is there, else phantom slices as
PNG files) in a process of its own; contenders take turns (A B A B), and medians are compared. The results of this
machine go to benchmarks/results/speed.json; docs/maintainers.md quotes some of them.

article: the published article's loop, written plainly (float32, PIL in the Dataset, SGD).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import multiprocessing
import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import torch
import torchvision
from experiment import RESULTS
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms as T

from covid_utils.core.device import has_bfloat16, pick_device, to_device_if_fits, use_amp
from covid_utils.core.files import read_json, resolve, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, Slices, augment, load_data, loader
from covid_utils.models import FeatureHead, Net, freeze
from covid_utils.runs.feature_cache import CachedFeatures
from covid_utils.runs.load_or_train import new_model
from covid_utils.training import make_optimizer, train_one_epoch
from ct_phantom.patients import phantom

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ------------------------------------------------------------------------------------------------ contenders
# Each trains on `o.batches` batches after a first one that is not timed, and returns measurements by name.


def ours(o: argparse.Namespace) -> dict[str, float]:
    """`training.train_one_epoch` on decoded slices, and the same network on one constant batch in memory, in turns."""
    data, settings, model = course_model(o)
    optimizer, _ = make_optimizer(model, settings.learning_rate, steps=10_000)
    device = torch.device(o.device)
    x, y = model.preprocess(data.images[: o.batch].to(device)), torch.ones(o.batch, device=device)

    def course() -> None:
        batches = itertools.islice(loader(data, "train", o.batch, shuffle=True, augmented=True), o.batches)
        train_one_epoch(model, batches, optimizer, None, device)

    def bare() -> None:
        for _ in range(o.batches):
            with torch.autocast(device.type, torch.bfloat16, enabled=use_amp(model, device)):
                logit = model.net(x).flatten()
            loss = nn.functional.binary_cross_entropy_with_logits(logit.float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    train_one_epoch(model, [(data.images[: o.batch], y)], optimizer, None, device)
    images = o.batches * o.batch
    return {"images/s": images / seconds(course), "bare images/s": images / seconds(bare)}


def cached(o: argparse.Namespace) -> dict[str, float]:
    """`training.train_one_epoch` on kept features of the frozen trunk; and how fast they are made."""
    (data, settings, model), device = course_model(o), torch.device(o.device)
    train_rows = np.flatnonzero(data.table.split == "train")[: o.batches * o.batch]
    rows = np.concatenate([train_rows, np.flatnonzero(data.table.split == "val")[:2]])
    data = dataclasses.replace(data, table=data.table.iloc[rows], images=data.images[rows])
    with tempfile.TemporaryDirectory() as place:
        cache = CachedFeatures(model, Slices(data, "train"), o.batch, Path(place), shuffle=True, augment=augment)
        made, head = seconds(cache.features), FeatureHead(model)
        optimizer, _ = make_optimizer(model, settings.learning_rate, steps=10_000)
        train_one_epoch(head, itertools.islice(cache, 1), optimizer, None, device)
        epochs = seconds(lambda: [train_one_epoch(head, cache, optimizer, None, device) for _ in range(3)])
    return {"images/s": 3 * len(train_rows) / epochs, "made images/s": len(train_rows) / made}


def article(o: argparse.Namespace) -> dict[str, float]:
    """The published article's loop: images a second, from the loading of a batch to the end of its step.

    If frozen, as the article has it: `requires_grad=False` for all but the last stage and head.
    """
    change = T.Compose([T.Resize((o.image_size,) * 2), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])
    pictures = torchvision.datasets.ImageFolder(o.folder, change)
    model = freeze(Net(o.backbone), "last" if o.frozen else "all").net.to(o.device).train()
    criterion, ends = nn.BCEWithLogitsLoss(), []
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.99)
    batches = DataLoader(pictures, batch_size=o.batch, shuffle=True, drop_last=True)
    for x, y in itertools.islice(batches, o.batches + 1):
        optimizer.zero_grad()
        loss = criterion(model(x.to(o.device)), y.to(o.device)[:, None].float())
        loss.backward()
        optimizer.step()
        loss.item()
        ends.append(now())
    return {"images/s": (len(ends) - 1) * o.batch / (ends[-1] - ends[0])}


def course_model(o: argparse.Namespace) -> tuple[CTData, Settings, nn.Module]:
    """Decoded slices, settings, and a network that is frozen if asked for."""
    data = load_data(Settings(o.folder, split="random", image_size=o.image_size), progress=False)
    data = dataclasses.replace(data, images=to_device_if_fits(data.images, torch.device(o.device)))
    settings = Settings(backbone=o.backbone, batch_size=o.batch, image_size=o.image_size)
    if (data.table.split == "train").sum() < o.batches * o.batch:
        raise ValueError("Too few pictures: give smaller --batches or --batch.")
    torch.backends.cudnn.deterministic = True  # as `fit` has it
    model = freeze(new_model(settings), "last" if o.frozen else "all")
    model.to(o.device, memory_format=torch.channels_last)
    return data, settings, model


def seconds(function: Callable) -> float:
    start = now()
    function()
    return now() - start


def now() -> float:
    """Seconds on a clock, when a GPU has finished what it was told to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


# ------------------------------------------------------------------------------------------------------- main


def pictures(data_dir: str) -> Path:
    """A folder with a folder of pictures for each class: real slices, or phantom slices that are drawn now."""
    real, folder = resolve(data_dir) / "sars-cov-2-ct", resolve("runs/speed-phantom")
    if real.is_dir():
        return real
    drawn = phantom(patients=120, image_size=224)
    for i, (image, label) in enumerate(zip(drawn["images"], drawn["label"], strict=True)):
        path = folder / ("COVID" if label else "non-COVID") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path)
    return folder


def measure(contender: Callable, o: argparse.Namespace) -> dict[str, float]:
    """A contender's measurements, and the most memory (a GPU's own), in GB."""
    found = contender(o)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found["GB"] = (torch.cuda.max_memory_allocated() if o.device == "cuda" else memory) / 2**30
    print(contender.__name__, found, flush=True)
    return found


def compare(contenders: list[Callable], o: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians of the contenders' measurements; they take turns, each in a process of its own."""
    rounds = []
    for each in contenders * o.rounds:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rounds.append({"name": each.__name__} | pool.submit(measure, each, o).result())
    medians = pd.DataFrame(rounds).groupby("name", sort=False).median().round(3)
    return {name: row.dropna().to_dict() for name, row in medians.iterrows()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    o = parser.parse_args()
    o.folder, o.device, o.frozen = pictures(o.data_dir), pick_device(o.device).type, False
    found = {"scratch": compare([ours, article], o)}
    o.frozen = True
    found["frozen"] = compare([cached, ours, article], o)
    machine = {"processor": torch.cuda.get_device_name() if o.device == "cuda" else processor()}
    machine |= {"cores": os.cpu_count(), "backbone": o.backbone, "image_size": o.image_size, "batch": o.batch}
    path = RESULTS / "speed.json"
    recorded = [each for each in read_json(path) if not machine.items() <= each["machine"].items()]
    machine |= {"threads": torch.get_num_threads(), "bfloat16": has_bfloat16(torch.device(o.device))}
    machine |= {"torch": torch.__version__, "pictures": o.folder.name, "date": time.strftime("%Y-%m-%d")}
    write_json(path, [*recorded, {"machine": machine} | found])


def processor() -> str:
    """The processor's name, and what it can multiply."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", info)
    return f"{name[1] if name else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
