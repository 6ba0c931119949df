"""Features of augmented slices that the frozen stages make, made once and used in every epoch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ..core.device import near, repeatable
from ..core.files import display_path
from ..core.memory import enough_memory, too_large
from ..core.settings import Settings
from ..data import CTData, Slices, augment, batches_of
from ..models import Net, Tail, ask

BATCH = 64  # slices that go through the trunk at a time


class CachedAugmentations:
    """Each epoch's batches as features of the frozen trunk, computed once and kept.

    What the stages before the first that learns make of a picture never changes. So each slice is augmented
    `settings.copies` times, these stages see each copy once, and the epochs take the copies in turn. They live as
    long as this object: other weights, slices or settings can never meet them.

    Args:
        model: a network whose first stages are frozen (see `models.first_to_learn`).
        data: slices with their splits.
        settings: copies, batch_size, seed.
        folder: for a file of features, if they would fill a quarter of the free memory; it has no name, so that nothing
            is left of it, however the process ends.
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
        self.model, self.settings, self.folder, self.change = model, settings, folder, change
        self.tail = Tail(model)
        self.slices = {split: Slices(data, split) for split in ("train", "val")}
        self.shape = self._through_trunk(data.images[:1]).shape[1:]
        count = settings.copies * len(self.slices["train"]) + len(self.slices["val"])
        self.on_disk = too_large(2 * count * self.shape.numel())
        self.copies: dict[int, TensorDataset] = {}
        self.val = self._features("val")

    def epoch(self, number: int) -> tuple[Tail, DataLoader, DataLoader]:
        """What learns in epoch `number` (from 1), its training batches and its validation batches."""
        copy = (number - 1) % self.settings.copies
        if copy not in self.copies:
            with repeatable(self.settings.seed * 1_000_003 + 500_000 + copy):  # a resumed run gets the same copies
                self.copies[copy] = self._features("train", self.change)
        size = self.settings.batch_size
        return self.tail, batches_of(self.copies[copy], size, shuffle=True), batches_of(self.val, size)

    @repeatable()
    @torch.no_grad()
    def _through_trunk(self, images: Tensor) -> Tensor:
        """Slices, uint8 (N, H, W), as the frozen stages' features, (N, C, h, w)."""
        self.model.eval()
        return ask(self.model, images, partial(self.model.trunk, until=self.tail.since))

    @enough_memory("copies or image_size")
    @repeatable()
    def _features(self, split: str, change: Callable[[Tensor], Tensor] = lambda images: images) -> TensorDataset:
        """One split's features, float16 (N, C, h, w), and labels, float32 (N,)."""
        slices = self.slices[split]
        shape = (len(slices), *self.shape)
        kept = on_disk(self.folder, shape) if self.on_disk else torch.empty(shape, dtype=torch.float16)
        for start in range(0, len(slices), BATCH):
            images, _ = slices[list(range(start, min(start + BATCH, len(slices))))]
            kept[start : start + BATCH] = self._through_trunk(change(images))
        return TensorDataset(near(kept, next(self.model.parameters()).device), slices.labels[slices.rows])


def on_disk(folder: Path, shape: tuple[int, ...]) -> Tensor:
    """A float16 tensor in a file without a name in `folder`, gone when nothing uses it. OSError if the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 2 * int(np.prod(shape))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # or a disk that fills later would kill the process without a word
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(np.memmap(file, np.float16, "w+", shape=shape))
    except OSError as error:
        raise OSError(
            f"Cannot keep features in {display_path(folder)} ({size / 2**20:.0f} MiB: "
            f"{error.strerror}): free some space, "
            "lower copies or image_size, or choose another run_dir."
        ) from error
