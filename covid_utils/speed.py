"""What is fast here: threads, bfloat16, the layout of images, and the frozen trunk computed once."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .data import CTData, augment, loader
from .models import Net
from .runs.settings import Settings
from .sources.images import MEMORY, too_large

BFLOAT16 = True  # `speed.BFLOAT16 = False` computes in float32 everywhere, to see the difference


def limit_threads() -> None:
    """No more threads than the cores that this process may use.

    PyTorch starts one for each core that it sees. A container (JupyterHub, say) may be allowed the time of fewer, and
    threads that wait for one another waste it; joblib knows what is allowed.
    """
    allowed = joblib.cpu_count()
    if allowed < torch.get_num_threads():
        torch.set_num_threads(allowed)


limit_threads()


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 where the hardware says it multiplies in it, in float32 elsewhere."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # these two ask the processor (cpuid)
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        fast = device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in asked)
    return torch.autocast(device.type, torch.bfloat16, enabled=fast and BFLOAT16)


def prepare(model: Net, images: Tensor) -> Tensor:
    """Slices, uint8 (N, H, W), as the network's input, float32 (N, 3, H, W), on its device.

    To a GPU they travel as bytes, a twelfth of what they become, and from pinned memory, so that nothing waits for it.
    The channels come last in memory, where convolutions are fastest.
    """
    device = next(model.parameters()).device
    if device.type == "cuda" and not images.is_cuda:
        images = images.pin_memory()
    return model.preprocess(images.to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)


def near(data: CTData, device: torch.device) -> CTData:
    """The same data with their slices in the GPU's memory, if they fill at most a quarter of what is free there.

    They are cut into batches and augmented there, and no batch has to travel.
    """
    if device.type != "cuda" or data.images.nbytes > MEMORY * torch.cuda.mem_get_info(device)[0]:
        return data
    return dataclasses.replace(data, images=data.images.to(device))


# ------------------------------------------------------------------------------------------- the frozen trunk


def is_frozen(model: Net) -> bool:
    """Whether nothing before `layer4` learns."""
    return not any(
        p.requires_grad for name, p in model.net.named_parameters() if not name.startswith(("layer4.", "fc."))
    )


def trunk(model: Net) -> nn.Sequential:
    """All of a network up to and with `layer3`, with its own weights: (N, 3, H, W) to features (N, C, h, w)."""
    return nn.Sequential(*list(model.net.children())[:7])


class Tail(nn.Module):
    """`layer4` and the head of a network, with the weights of the network itself: what is left to train.

    Takes the features that the trunk hands on, float (N, C, h, w), and gives logits, float32 (N,).
    """

    def __init__(self, model: Net):
        super().__init__()
        self.net, self.preprocess = model.net, Tensor.float

    def forward(self, features: Tensor) -> Tensor:
        return self.net.fc(self.net.avgpool(self.net.layer4(features)).flatten(1)).flatten()


class TrunkCache:
    """Each epoch's batches as features of the frozen trunk, computed once and kept.

    As long as nothing before `layer4` learns, what the trunk makes of a picture never changes. So each slice is
    augmented `settings.copies` times, the trunk sees each copy once, and the epochs take the copies in turn. They
    live as long as this object: other weights, slices or settings can never meet them.

    Args:
        model: a network whose trunk is frozen (see `is_frozen`).
        data: slices with their splits.
        settings: copies, batch_size, seed.
        folder: for a file of features (deleted in the end) if they would fill a quarter of the free memory.
        change: how training slices are augmented, uint8 (N, H, W) to the same.
    """

    def __init__(
        self,
        model: Net,
        data: CTData,
        settings: Settings,
        folder: Path,
        change: Callable[[Tensor], Tensor] = augment,
    ):
        self.model, self.settings, self.folder, self.tail = model, settings, folder, Tail(model)
        self.change = change
        self.trunk = trunk(model)
        self.data, split = data, data.table.split
        self.rows = {name: np.flatnonzero(split == name) for name in ("train", "val")}
        self.shape = self._through_trunk(data.images[:1]).shape[1:]
        count = settings.copies * len(self.rows["train"]) + len(self.rows["val"])
        self.on_disk = too_large(2 * count * self.shape.numel())
        self.files: list[tempfile.TemporaryDirectory] = []
        self.copies: dict[int, CTData] = {}
        self.val = self._features("val")

    def epoch(self, number: int) -> tuple[Tail, DataLoader, DataLoader]:
        """What learns in epoch `number` (from 1), its training batches and its validation batches."""
        copy = (number - 1) % self.settings.copies
        if copy not in self.copies:
            with torch.random.fork_rng(devices=[]):  # seeds of its own, so that a resumed run gets the same copies
                torch.manual_seed(self.settings.seed * 1_000_003 + 500_000 + copy)
                self.copies[copy] = self._features("train", self.change)
        batches = loader(self.copies[copy], "train", self.settings.batch_size, shuffle=True)
        return self.tail, batches, loader(self.val, "val", self.settings.batch_size)

    @torch.no_grad()
    def _through_trunk(self, images: Tensor) -> Tensor:
        """Slices, uint8 (N, H, W), as the trunk's features, (N, C, h, w)."""
        self.trunk.eval()
        x = prepare(self.model, images)
        with autocast(x.device):
            return self.trunk(x)

    def _features(self, split: str, change: Callable[[Tensor], Tensor] = lambda images: images) -> CTData:
        """The slices of one split with their features, float16 (N, C, h, w), for images."""
        rows = self.rows[split]
        shape = (len(rows), *self.shape)
        if self.on_disk:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.files.append(tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True))
            path = Path(self.files[-1].name) / "features"
            kept = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.float16).view(shape)
        else:
            kept = torch.empty(shape, dtype=torch.float16)
        for start in range(0, len(rows), 64):
            images = change(self.data.images[rows[start : start + 64]])
            kept[start : start + 64] = self._through_trunk(images)
        features = dataclasses.replace(self.data, table=self.data.table.iloc[rows], images=kept)
        return near(features, next(self.model.parameters()).device)
