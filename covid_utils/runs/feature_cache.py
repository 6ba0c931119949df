"""Features of augmented slices that the frozen stages make, computed once and used in every epoch."""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ..core.device import seeded, to_device_if_fits
from ..core.files import display_path
from ..core.memory import too_large
from ..data import make_loader
from ..models import STAGES, Net, first_trainable_stage

BATCH = 64  # slices that go through the frozen stages at a time


@dataclasses.dataclass(eq=False)
class CachedFeatures:
    """A loader of features, float16 (N, C, h, w), and labels, float32 (N,), for a `models.FeatureHead`.

    What the frozen stages make of a slice never changes. So each slice is augmented `copies` times, the frozen stages
    see each copy once, when it is first needed, and the epochs take the copies in turn. They live as long as this
    object: other weights, slices or settings can never meet them.
    """

    model: Net  # its first stages are frozen (see `models.first_trainable_stage`)
    slices: Dataset  # takes a list of indices, as `data.Slices` does
    batch_size: int
    folder: Path  # for a file without a name, if the features would fill a quarter of the free memory
    shuffle: bool = False
    augment: Callable[[Tensor], Tensor] | None = None  # uint8 (N, H, H) to the same
    copies: int = 1  # augmented copies of each slice
    seed: int = 0  # of the augmentation
    copy: int = dataclasses.field(default=0, init=False)
    cached: dict[int, TensorDataset] = dataclasses.field(default_factory=dict, init=False)

    def set_epoch(self, epoch: int) -> None:
        """Take the copy of this epoch (from 1)."""
        self.copy = (epoch - 1) % self.copies

    def __len__(self) -> int:
        return len(make_loader(self.slices, self.batch_size, self.shuffle))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(make_loader(self.features(), self.batch_size, self.shuffle))

    @torch.no_grad()
    def features(self) -> TensorDataset:
        """All features of this epoch's copy and their labels, in the order of the slices."""
        if self.copy in self.cached:
            return self.cached[self.copy]
        device, stage = next(self.model.parameters()).device, first_trainable_stage(self.model)
        for part in self.model.parts(*STAGES[: STAGES.index(stage)]):
            part.eval()  # only what is frozen: the rest may be in the middle of a training epoch
        features, labels = None, []
        with seeded(self.seed * 1_000_003 + 500_000 + self.copy):  # a resumed run gets the same copies
            for start in range(0, len(self.slices), BATCH):
                images, y = self.slices[list(range(start, min(start + BATCH, len(self.slices))))]
                images = self.augment(images) if self.augment else images
                part = self.model.forward_features(self.model.preprocess(images.to(device)), before=stage)
                if features is None:
                    shape = (len(self.slices), *part.shape[1:])
                    large = too_large(2 * self.copies * math.prod(shape))
                    features = on_disk(self.folder, shape) if large else torch.empty(shape, dtype=torch.float16)
                features[start : start + BATCH] = part
                labels.append(y)
        self.cached[self.copy] = TensorDataset(to_device_if_fits(features, device), torch.cat(labels))
        return self.cached[self.copy]


def on_disk(folder: Path, shape: tuple[int, ...]) -> Tensor:
    """A float16 tensor in a file without a name in `folder`, gone when nothing uses it. OSError if the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        size = 2 * math.prod(shape)
        if size > shutil.disk_usage(folder).free:  # a disk that fills later would kill the process without a word
            raise OSError(f"No space for {size / 2**20:.0f} MiB of features in {display_path(folder)}: lower copies.")
        return torch.from_numpy(np.memmap(file, np.float16, "w+", shape=shape))
