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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import torch
import torchvision
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as T

from covid_utils.core.device import autocast, has_bfloat16, near, pick_device
from covid_utils.core.files import PROJECT, read_json, resolve, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data, loader
from covid_utils.explain import METHODS, cam
from covid_utils.models import BACKBONES, LAST, Tail, freeze, prepare
from covid_utils.runs.feature_cache import CachedAugmentations
from covid_utils.runs.formats import choose_formats
from covid_utils.training import make_optimizer, new_model, train_one_epoch
from ct_phantom.patients import phantom

RESULTS = PROJECT / "benchmarks" / "results" / "speed.json"
TOO_FEW = "too few pictures for so many and so large batches: give smaller --batches or --batch"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ------------------------------------------------------------------------------------------------ contenders
# Each trains on `batches` batches after a first one that is not timed, and returns measurements by name.


def ours(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    """`training.train_one_epoch` on decoded slices, and the same network on one constant batch in memory, in turns."""
    data, settings, model = _ours(folder, o)
    optimizer, _ = make_optimizer(model, settings, steps=10_000)
    x, y = prepare(model, data.images[: o.batch]), torch.ones(o.batch, device=o.device)

    def course() -> None:
        train_one_epoch(
            model, itertools.islice(loader(data, "train", o.batch, shuffle=True, augmented=True), o.batches), optimizer
        )

    def bare() -> None:
        for _ in range(o.batches):
            with autocast(x.device, model.bfloat16.get("learning", True)):
                logit = model(x)
            loss = nn.functional.binary_cross_entropy_with_logits(logit.float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    train_one_epoch(model, [(data.images[: o.batch], y)], optimizer)
    seconds = {function.__name__: _seconds(function) for function in (course, bare)}
    return {"images/s": o.batches * o.batch / seconds["course"], "bare images/s": o.batches * o.batch / seconds["bare"]}


def compiled(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    """`ours` without and with torch.compile (it wants a C++ compiler), and the seconds of the first step with it."""
    data, settings, model = _ours(folder, o)
    optimizer, _ = make_optimizer(model, settings, steps=10_000)
    batches = loader(data, "train", o.batch, shuffle=True, augmented=True)

    def step(count: int) -> float:
        return _seconds(lambda: train_one_epoch(model, itertools.islice(batches, count), optimizer))

    step(1)
    plain = step(o.batches)
    with tempfile.TemporaryDirectory() as place:  # an empty cache, as on the first day
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = place
        model.compile()
        first, fast = step(1), step(o.batches)
    slices = o.batches * o.batch
    return {"plain images/s": slices / plain, "images/s": slices / fast, "first step": first}


def cached(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    """`training.train_one_epoch` on kept features of the frozen trunk; and how fast they are made."""
    data, settings, model = _ours(folder, o, kept=True)
    train_rows = np.flatnonzero(data.table.split == "train")[: o.batches * o.batch]
    rows = np.concatenate([train_rows, np.flatnonzero(data.table.split == "val")[:2]])
    data = dataclasses.replace(data, table=data.table.iloc[rows], images=data.images[rows])
    with tempfile.TemporaryDirectory() as place:
        cache = CachedAugmentations(model, data, settings, Path(place))
        made = _seconds(lambda: cache.epoch(1))
        tail, batches, _ = cache.epoch(1)
        optimizer, _ = make_optimizer(model, settings, steps=10_000)
        train_one_epoch(tail, itertools.islice(batches, 1), optimizer)
        seconds = _seconds(lambda: [train_one_epoch(tail, batches, optimizer) for _ in range(3)]) / 3
    return {"images/s": len(train_rows) / seconds, "made images/s": len(train_rows) / made}


def article(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".webp"))
    change = T.Compose([T.Resize((o.image_size,) * 2), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])

    class Slices(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, i):
            return change(PIL.Image.open(files[i]).convert("RGB")), float(files[i].parent.name == "COVID")

    model = _plain(o, outputs=1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.99)
    criterion = nn.BCEWithLogitsLoss()
    model.train()
    clock = _Clock(o)
    for x, y in torch.utils.data.DataLoader(Slices(), batch_size=o.batch, shuffle=True):
        x, y = x.to(o.device), y.to(o.device)
        optimizer.zero_grad()
        loss = criterion(model(x), y[:, None].float())
        loss.backward()
        optimizer.step()
        loss.item()
        if clock.tick():
            break
    return clock.result()


def tutorial(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    change = T.Compose(
        [T.RandomResizedCrop(o.image_size), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
    )
    pictures = torchvision.datasets.ImageFolder(folder, change)
    batches = torch.utils.data.DataLoader(pictures, batch_size=o.batch, shuffle=True, num_workers=4)
    model = _plain(o, outputs=2)
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    model.train()
    clock, running_loss, running_corrects = _Clock(o), 0.0, 0
    for inputs, labels in batches:
        inputs, labels = inputs.to(o.device), labels.to(o.device)
        optimizer.zero_grad()
        with torch.set_grad_enabled(True):
            outputs = model(inputs)
            _, preds = torch.max(outputs, 1)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
        running_loss += loss.item() * inputs.size(0)
        running_corrects += torch.sum(preds == labels.data)
        if clock.tick():
            break
    return clock.result()


def fastai(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    from fastai.callback.core import Callback, CancelFitException
    from fastai.vision.all import ImageDataLoaders, Resize, vision_learner

    clock = _Clock(o)

    class Ticks(Callback):
        def after_batch(self):
            if self.learn.training and clock.tick():
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
    return clock.result()


class _Clock:
    """Counts batches and times all but the first."""

    def __init__(self, o: argparse.Namespace):
        self.o, self.count, self.start, self.seconds = o, 0, 0.0, 0.0

    def tick(self) -> bool:
        """Call after each batch; true when enough were timed."""
        self.count += 1
        if self.count == 1:
            self.start = _now()
        self.seconds = _now() - self.start
        return self.count > self.o.batches

    def result(self) -> dict[str, float]:
        if self.count <= self.o.batches:
            raise ValueError(TOO_FEW)
        return {"images/s": self.o.batches * self.o.batch / self.seconds}


def _plain(o: argparse.Namespace, outputs: int) -> nn.Module:
    """The bare network; if frozen, as the article has it: `requires_grad=False` for all but the last stage and head."""
    row = BACKBONES[o.backbone]
    model = row.make()
    model.set_submodule(row.output, nn.Linear(model.get_submodule(row.output).in_features, outputs))
    learning = tuple(f"{name}." for name in f"{row.layer4} {row.head}".split())
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not o.frozen or name.startswith(learning)
    return model.to(o.device)


def _ours(folder: Path, o: argparse.Namespace, kept: bool = False) -> tuple[CTData, Settings, nn.Module]:
    """Decoded slices, settings, and a network that is frozen if asked for."""
    data = load_data(Settings(str(folder), split="random", image_size=o.image_size), progress=False)
    data = dataclasses.replace(data, images=near(data.images, torch.device(o.device)))
    settings = Settings(backbone=o.backbone, batch_size=o.batch, image_size=o.image_size)
    if (data.table.split == "train").sum() < o.batches * o.batch:
        raise ValueError(TOO_FEW)
    torch.backends.cudnn.deterministic = True  # as `fit` has it
    model = freeze(new_model(settings), "last" if o.frozen else "all")
    model.to(o.device, memory_format=torch.channels_last)
    choose_formats(model, data.images, kept)
    return data, settings, model


# --------------------------------------------------------------------------------------------- other questions


def maps(folder: Path, o: argparse.Namespace) -> dict[str, float]:
    """Maps a second, ours in batches against the library's own example: one picture a call."""
    data, _, model = _ours(folder, o)
    images, seconds = data.images[:16], {}
    for method in ("GradCAM", "EigenCAM"):
        library = {"GradCAM": METHODS["GradCAM"], "EigenCAM": METHODS["EigenCAM"].__bases__[0]}[method]

        def example(library=library) -> None:
            with library(model=model, target_layers=[model.parts(LAST)[-1]]) as explain:
                for image in images:
                    explain(
                        input_tensor=model.preprocess(image[None]).to(o.device),
                        targets=[BinaryClassifierOutputTarget(1)],
                    )

        def course(method=method) -> None:
            cam(model, images, method)

        ours_s, example_s = (statistics.median(_seconds(f) for _ in range(2)) for f in (course, example))
        seconds |= {f"{method} maps/s": len(images) / ours_s, f"{method} example maps/s": len(images) / example_s}
    return seconds


def growth(_: Path, o: argparse.Namespace) -> dict[str, float]:
    """An epoch of `o.slices` slices of noise: seconds."""
    table = pd.DataFrame({"path": "", "label": np.arange(o.slices) % 2, "patient": 0, "split": "train"})
    images = torch.randint(0, 256, (o.slices, o.image_size, o.image_size), dtype=torch.uint8)
    data = CTData(table, images, None, None, "noise", "", "")
    settings = Settings(backbone=o.backbone)
    torch.backends.cudnn.deterministic = True
    model = new_model(settings).to(o.device, memory_format=torch.channels_last)
    data = dataclasses.replace(data, images=near(data.images, torch.device(o.device)))
    optimizer, _ = make_optimizer(model, settings, 10_000)
    train_one_epoch(model, itertools.islice(loader(data, "train", o.batch, shuffle=True, augmented=True), 1), optimizer)
    epoch = loader(data, "train", o.batch, shuffle=True, augmented=True)
    return {"seconds": _seconds(lambda: train_one_epoch(model, epoch, optimizer))}


def rate(_: Path, o: argparse.Namespace) -> dict[str, float]:
    """How fast large matrices are multiplied here, and what one image costs `ours` and `cached` in training."""
    model = new_model(Settings(backbone=o.backbone)).to(o.device, memory_format=torch.channels_last)
    x = torch.zeros(2, 3, o.image_size, o.image_size, device=o.device)

    def cost(network: nn.Module, x: torch.Tensor) -> float:
        with FlopCounterMode(display=False) as counted:
            network(x).sum().backward()
        return counted.get_total_flops() / len(x) / 1e9

    whole, tail = cost(model, x), cost(Tail(freeze(model)), model.trunk(x).detach())
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


CONTENDERS = {f.__name__: f for f in (ours, compiled, cached, article, tutorial, fastai, maps, growth, rate)}


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


def measure(name: str, o: argparse.Namespace, **changes) -> dict[str, float]:
    """Run one contender in a process of its own: its measurements, and the most memory (a GPU's own) it took, in GB."""
    options = vars(o) | changes | {"one": name, "folder": str(o.folder)}
    call = [sys.executable, __file__, "--one", json.dumps(options)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


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
        o = argparse.Namespace(**json.loads(o.one))
        result = CONTENDERS[o.one](Path(o.folder), o)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        result["GB"] = (torch.cuda.max_memory_allocated() if o.device == "cuda" else memory) / 2**30
        print(json.dumps(result))
        return
    o.folder, o.frozen, o.slices, o.device = pictures(o.data_dir), False, 0, pick_device(o.device).type
    others = ["article", "tutorial"]
    if importlib.util.find_spec("fastai") and hasattr(torchvision.models, o.backbone):
        others.append("fastai")
    found: dict[str, dict] = {"scratch": {}, "frozen": {}}
    for part, names in (("scratch", ["ours", *others]), ("frozen", ["cached", "ours", *others])):
        runs: dict[str, list] = {name: [] for name in names}
        for _ in range(o.rounds):
            for name in names:
                runs[name].append(measure(name, o, frozen=part == "frozen"))
                print(part, name, runs[name][-1], flush=True)
        found[part] = {name: medians(each) for name, each in runs.items()}
    if shutil.which("g++") or shutil.which("clang++") or shutil.which("cl"):
        found["compiled"] = medians([measure("compiled", o) for _ in range(o.rounds)])
    found["rate"] = medians([measure("rate", o) for _ in range(o.rounds)])
    found["maps"] = medians([measure("maps", o) for _ in range(o.rounds)])
    found["growth"] = {}
    small, deep = "resnet18", "resnet50"
    for slices, size, net in ((250, 96, small), (2500, 96, small), (250, 224, small), (250, 96, deep)):
        grown = [measure("growth", o, slices=slices, image_size=size, backbone=net, batch=32) for _ in range(2)]
        found["growth"][f"{net}, {slices} slices of {size} px"] = medians(grown)
        print(net, slices, size, found["growth"][f"{net}, {slices} slices of {size} px"], flush=True)
    machine = {
        "processor": _processor(o.device), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(torch.device(o.device)), "torch": torch.__version__,
        "backbone": o.backbone, "image_size": o.image_size, "batch": o.batch, "pictures": Path(o.folder).name,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    recorded = read_json(RESULTS) if RESULTS.exists() else []
    recorded = [each for each in recorded if _key(each["machine"]) != _key(machine)]
    write_json(RESULTS, [*recorded, {"machine": machine} | found])


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
