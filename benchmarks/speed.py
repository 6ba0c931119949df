"""How fast is the course against what a learner would otherwise run? Every row is a ratio measured in one run.

    make bench            or        .venv/bin/python benchmarks/speed.py --rounds 2

Each contender trains the same network on the same pictures (data/sars-cov-2-ct if it is there, else phantom slices as
PNG files) in a process of its own; contenders take turns (A B A B), and medians are compared. The results of this
machine go to benchmarks/results/speed.json; benchmarks/tables.py writes docs/speed.md from them.

article: the published article's loop, written plainly (float32, PIL in the Dataset, SGD); tutorial: that of PyTorch's
transfer learning tutorial, https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html (with our batch size;
its own is 4); fastai: `vision_learner` on the same files (needs `pip install -e ".[bench]"`).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torchvision
from experiment import RESULTS
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as T

from covid_utils.core.backbones import BACKBONES
from covid_utils.core.device import has_bfloat16, pick_device, to_device_if_fits, use_amp
from covid_utils.core.files import read_json, resolve, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, Slices, augment, load_data, loader
from covid_utils.explain import METHODS, cam
from covid_utils.models import FeatureHead, freeze
from covid_utils.runs.feature_cache import CachedFeatures
from covid_utils.runs.load_or_train import new_model
from covid_utils.training import make_optimizer, train_one_epoch
from ct_phantom.patients import phantom

TOO_FEW = "too few pictures for so many and so large batches: give smaller --batches or --batch"
TENSORS = [T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]


# ------------------------------------------------------------------------------------------------ contenders
# Each trains on `batches` batches after a first one that is not timed, and returns measurements by name.


def ours(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    """`training.train_one_epoch` on decoded slices, and the same network on one constant batch in memory, in turns."""
    data, settings, model = _ours(folder, o)
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
    seconds = {function.__name__: _seconds(function) for function in (course, bare)}
    return {"images/s": o.batches * o.batch / seconds["course"], "bare images/s": o.batches * o.batch / seconds["bare"]}


def cached(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    """`training.train_one_epoch` on kept features of the frozen trunk; and how fast they are made."""
    (data, settings, model), device = _ours(folder, o), torch.device(o.device)
    train_rows = np.flatnonzero(data.table.split == "train")[: o.batches * o.batch]
    rows = np.concatenate([train_rows, np.flatnonzero(data.table.split == "val")[:2]])
    data = dataclasses.replace(data, table=data.table.iloc[rows], images=data.images[rows])
    with tempfile.TemporaryDirectory() as place:
        cache = CachedFeatures(model, Slices(data, "train"), o.batch, Path(place), shuffle=True, augment=augment)
        made, head = _seconds(cache.features), FeatureHead(model)
        optimizer, _ = make_optimizer(model, settings.learning_rate, steps=10_000)
        train_one_epoch(head, itertools.islice(cache, 1), optimizer, None, device)
        epochs = _seconds(lambda: [train_one_epoch(head, cache, optimizer, None, device) for _ in range(3)])
        seconds = epochs / 3
    return {"images/s": len(train_rows) / seconds, "made images/s": len(train_rows) / made}


def article(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".webp"))
    change = T.Compose([T.Resize((o.image_size,) * 2), *TENSORS])

    class Slices(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, i):
            return change(PIL.Image.open(files[i]).convert("RGB")), float(files[i].parent.name == "COVID")

    model, criterion = _plain(o, outputs=1), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.99)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = criterion(model(x.to(o.device)), y.to(o.device)[:, None].float())
        loss.backward()
        optimizer.step()
        loss.item()

    return _each_step(step, DataLoader(Slices(), batch_size=o.batch, shuffle=True), o)


def tutorial(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    pictures = torchvision.datasets.ImageFolder(folder, T.Compose([T.RandomResizedCrop(o.image_size), *TENSORS]))
    model, criterion, losses = _plain(o, outputs=2), nn.CrossEntropyLoss(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        outputs = model(inputs.to(o.device))
        loss = criterion(outputs, labels.to(o.device))
        loss.backward()
        optimizer.step()
        losses.append((loss.item(), torch.sum(outputs.argmax(1).cpu() == labels)))

    return _each_step(step, DataLoader(pictures, batch_size=o.batch, shuffle=True, num_workers=4), o)


def fastai(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    from fastai.callback.core import Callback, CancelFitException
    from fastai.vision.all import ImageDataLoaders, Resize, vision_learner

    ends = []

    class Ticks(Callback):
        def after_batch(self):
            if self.learn.training:
                ends.append(_now())
            if len(ends) > o.batches:
                raise CancelFitException()

    batches = ImageDataLoaders.from_folder(
        folder, valid_pct=0.2, seed=0, item_tfms=Resize(o.image_size), bs=o.batch, device=torch.device(o.device)
    )
    network = getattr(torchvision.models, o.backbone)
    learner = vision_learner(batches, network, pretrained=False, cbs=[Ticks()])
    if o.frozen:  # its own `freeze` stops before layer4
        for block in list(learner.model[0].children())[:-1]:
            block.requires_grad_(False)
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
    return _rate_of(ends, o)


def _each_step(step: Callable, batches: Iterable, o: argparse.Namespace) -> dict[str, float]:
    """Images a second of a loop over batches, from their loading to the end of the step."""
    ends = []
    for x, y in itertools.islice(batches, o.batches + 1):
        step(x, y)
        ends.append(_now())
    return _rate_of(ends, o)


def _rate_of(ends: list[float], o: argparse.Namespace) -> dict[str, float]:
    """Images a second, from the time at which each step ended. Raises ValueError if there were too few."""
    if len(ends) <= o.batches:
        raise ValueError(TOO_FEW)
    return {"images/s": o.batches * o.batch / (ends[o.batches] - ends[0])}


def _plain(o: argparse.Namespace, outputs: int) -> nn.Module:
    """The bare network; if frozen, as the article has it: `requires_grad=False` for all but the last stage and head."""
    row = BACKBONES[o.backbone]
    model = row.make()
    model.set_submodule(row.output, nn.Linear(model.get_submodule(row.output).in_features, outputs))
    learning = tuple(f"{name}." for name in f"{row.layer4} {row.head}".split())
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not o.frozen or name.startswith(learning)
    return model.to(o.device).train()


def _ours(folder: Path, o: argparse.Namespace) -> tuple[CTData, Settings, nn.Module]:
    """Decoded slices, settings, and a network that is frozen if asked for."""
    data = load_data(Settings(str(folder), split="random", image_size=o.image_size), progress=False)
    data = dataclasses.replace(data, images=to_device_if_fits(data.images, torch.device(o.device)))
    settings = Settings(backbone=o.backbone, batch_size=o.batch, image_size=o.image_size)
    if (data.table.split == "train").sum() < o.batches * o.batch:
        raise ValueError(TOO_FEW)
    torch.backends.cudnn.deterministic = True  # as `fit` has it
    model = freeze(new_model(settings), "last" if o.frozen else "all")
    model.to(o.device, memory_format=torch.channels_last)
    return data, settings, model


# --------------------------------------------------------------------------------------------- other questions


def maps(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    """Maps a second, ours in batches against the library's own example: one picture a call."""
    data, _, model = _ours(folder, o)
    images, found = data.images[:16], {}

    def example(library: type) -> None:
        with library(model=model, target_layers=[model.parts("layer4")[-1]]) as explain:
            for image in images:
                x = model.preprocess(image[None]).to(o.device)
                explain(input_tensor=x, targets=[BinaryClassifierOutputTarget(1)])

    for method, library in (("GradCAM", METHODS["GradCAM"]), ("EigenCAM", METHODS["EigenCAM"].__bases__[0])):
        ours_s = statistics.median(_seconds(lambda m=method: cam(model, images, m)) for _ in range(2))
        example_s = statistics.median(_seconds(lambda each=library: example(each)) for _ in range(2))
        found |= {f"{method} maps/s": len(images) / ours_s, f"{method} example maps/s": len(images) / example_s}
    return found


def rate(_: Path, o: argparse.Namespace) -> dict[str, float]:
    """How fast large matrices are multiplied here, and what one image costs `ours` and `cached` in training."""
    model = new_model(Settings(backbone=o.backbone)).to(o.device, memory_format=torch.channels_last)
    x = torch.zeros(2, 3, o.image_size, o.image_size, device=o.device)

    def cost(network: nn.Module, x: torch.Tensor) -> float:
        with FlopCounterMode(display=False) as counted:
            network(x).sum().backward()
        return counted.get_total_flops() / len(x) / 1e9

    whole, tail = cost(model, x), cost(FeatureHead(freeze(model)), model.forward_features(x).detach())
    size = 8192 if o.device == "cuda" else 2048
    number = torch.bfloat16 if has_bfloat16(x.device) else torch.float32
    a, b = torch.rand(2, size, size, device=o.device).to(number)
    _seconds(lambda: a @ b)
    seconds = statistics.median(_seconds(lambda: a @ b) for _ in range(10))
    return {"GFLOP/s": 2 * size**3 / seconds / 1e9, "GFLOP, all": whole, "GFLOP, layer4": tail}


def _seconds(function) -> float:
    start = _now()
    function()
    return _now() - start


def _now() -> float:
    """Seconds on a clock, when a GPU has finished what it was told to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


CONTENDERS = {f.__name__: f for f in (ours, cached, article, tutorial, fastai, maps, rate)}


# ------------------------------------------------------------------------------------------------------- main


def pictures(data_dir: str) -> Path:
    """A folder with a folder of pictures for each class."""
    real = resolve(data_dir) / "sars-cov-2-ct"
    if real.is_dir():
        return real
    folder = resolve("runs/speed-phantom")
    drawn = phantom(patients=120, image_size=224)
    for i, (image, label) in enumerate(zip(drawn["images"], drawn["label"], strict=True)):
        path = folder / ("COVID" if label else "non-COVID") / f"{i}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(image).save(path)
    return folder


def measure(name: str, o: argparse.Namespace, frozen: bool = False) -> dict[str, float]:
    """Run one contender in a process of its own: its measurements, and the most memory (a GPU's own), in GB."""
    call = [sys.executable, __file__, "--one", json.dumps(vars(o) | {"one": name, "frozen": frozen})]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    print(name, done.stdout.splitlines()[-1], flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(names: list[str], o: argparse.Namespace, frozen: bool = False) -> dict[str, dict[str, float]]:
    """Medians of the contenders' measurements; they take turns."""
    rounds = [{name: measure(name, o, frozen) for name in names} for _ in range(o.rounds)]
    return {
        name: {each: round(statistics.median(found[name][each] for found in rounds), 3) for each in rounds[0][name]}
        for name in names
    }


def contend(options: dict) -> None:
    """Run one contender, and print what it measured as JSON."""
    o = argparse.Namespace(**options)
    found = CONTENDERS[o.one](Path(o.folder), o)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found["GB"] = (torch.cuda.max_memory_allocated() if o.device == "cuda" else memory) / 2**30
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.one:
        return contend(json.loads(o.one))
    o.folder, o.device = str(pictures(o.data_dir)), pick_device(o.device).type
    others = ["article", "tutorial"]
    if importlib.util.find_spec("fastai") and hasattr(torchvision.models, o.backbone):
        others.append("fastai")
    found = {"scratch": compare(["ours", *others], o), "frozen": compare(["cached", "ours", *others], o, frozen=True)}
    found |= compare(["rate", "maps"], o)
    machine = {
        "processor": _processor(o.device), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(torch.device(o.device)), "torch": torch.__version__,
        "backbone": o.backbone, "image_size": o.image_size, "batch": o.batch, "pictures": Path(o.folder).name,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    path = RESULTS / "speed.json"
    recorded = [each for each in read_json(path) if _key(each["machine"]) != _key(machine)] if path.exists() else []
    write_json(path, [*recorded, {"machine": machine} | found])


def _key(machine: dict) -> tuple:
    return tuple(machine[name] for name in ("processor", "cores", "backbone", "image_size", "batch"))


def _processor(device: str) -> str:
    """The GPU's name, or the processor's and what it can multiply."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
