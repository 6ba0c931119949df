"""How slices become a table with a split, and the table becomes batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from .core.files import did_you_mean
from .core.settings import Settings
from .io.datasets import fingerprint, open_dataset
from .io.folders import CLASSES, SPLITS

HELD_OUT = 400 / 2481  # share of slices in validation, and in test: the article's split is 1681/400/400


@dataclasses.dataclass(frozen=True)
class CTData:
    """Slices in memory; row i of the table is image i.

    Attributes:
        table: a row per slice: `path`, `label` (1 = COVID, 0 = non-COVID), `patient` (the group that stays in one
            split), `split` ("train", "val" or "test"); for the phantom also `findings`, separated by commas.
        images: uint8 (N, H, H), 0 black to 255 white.
        lesions, lungs: masks, bool (N, H, H), of the disease and the lungs; None for real slices.
        name: the dataset's name.
        patient_source: where the patients come from, in a sentence or more for the reader.
        fingerprint: SHA-256 of pixels and table, in hexadecimal.
        window: the intensities shown as black and white, if CSV files give the same for all slices; else None.
    """

    table: pd.DataFrame
    images: Tensor
    lesions: Tensor | None
    lungs: Tensor | None
    name: str
    patient_source: str
    fingerprint: str
    window: tuple[float, float] | None = None


def load_data(settings: Settings, progress: bool = True) -> CTData:
    """Slices with labels, patients and splits.

    Args:
        settings: `dataset` (a name or a folder), `data_dir`, `split`, `image_size`, `seed` (of the split and of the
            phantom) and `patients` (of the phantom). A split that comes with the data is kept as it is.
        progress: show a progress bar.

    Raises:
        ValueError: an unknown data set, a damaged slice, a wrong CSV file, or too few slices to split.
        FileNotFoundError: a missing folder or file.
        ConnectionError: a download failed.
    """
    name, table, patient_source, read = open_dataset(settings, progress)
    if "split" not in table:
        table["split"] = split_groups(table, settings.split, settings.seed)
        patient_source += " The random split ignores patients." if settings.split == "random" else ""
    images, lesions, lungs, window = read()  # only now, as it takes long: what cannot be split was refused above
    return CTData(table, images, lesions, lungs, name, patient_source, fingerprint(table, images), window)


def split_groups(table: pd.DataFrame, split: str = "patient", seed: int = 0) -> pd.Series:
    """Assign patients (or single slices) to train, val and test, each with about the same share of both classes.

    Validation and test get 400/2481 of the slices each, exactly so with single slices. Groups are taken in the
    order of a hash of seed and name, so the split is the same on every machine, in whatever order files are listed.

    Args:
        table: with `path`, `label`, `patient`.
        split: "patient" keeps each patient's slices together, "random" assigns single slices.

    Returns "train", "val" or "test" for each row. ValueError if a class has fewer than three patients (or slices).
    """
    name = table.patient if split == "patient" else table.path
    groups = table.groupby(name).label.agg(["size", "mean"])
    groups["label"] = (groups["mean"] >= 0.5).astype(int)  # the majority; COVID if equal
    groups = groups.loc[sorted(groups.index, key=lambda g: hashlib.sha256(f"{seed} {g}".encode()).digest())]
    mixed = groups["mean"].between(0, 1, inclusive="neither")
    if mixed.all() and not 3 <= groups["label"].sum() <= len(groups) - 3:
        # every patient has slices of both classes, so any of them brings both to its split: labels may alternate
        groups["label"] = [number % 2 for number in range(len(groups))]
    held_out = round(HELD_OUT * len(table))
    covid = round(held_out * groups["size"][groups.label == 1].sum() / len(table))
    assigned = {}
    for label, target in ((1, covid), (0, held_out - covid)):
        left = groups["size"][groups.label == label]
        if len(left) < 3:
            unit, hint = ("patients", "use split='random' or ") if split == "patient" else ("files", "")
            raise ValueError(
                f"Class {CLASSES[label]} has too few slices, {left.sum()} in {len(left)} {unit}: {hint}add slices, as "
                "train, val and test need one each."
            )
        for part, spare in (("test", 2), ("val", 1)):  # spare: groups to leave for the splits still to come
            taken = _fill(left, target, most=len(left) - spare)
            assigned |= dict.fromkeys(taken, part)
            left = left.drop(taken)
    return name.map(assigned).fillna("train").astype(str)


def _fill(sizes: pd.Series, target: int, most: int) -> list:
    """At most `most` groups, in order, each if it brings their total size nearer to `target`; at least the smallest."""
    taken, total = [], 0
    for group, size in sizes.items():
        if total + size / 2 <= target and len(taken) < most:
            taken.append(group)
            total += size
    return taken or [sizes.idxmin()]


class Slices(Dataset):
    """The slices of one split as a PyTorch dataset; ValueError if there is no such split.

    `slices[i]` is an image, uint8 (H, W), and its label, float32 (), 1 = COVID; `slices[[i, j, …]]` is a whole batch,
    uint8 (N, H, W) and float32 (N,). `slices.rows`, int64 (N,): their rows in `data.table`.
    """

    def __init__(self, data: CTData, split: str):
        if split not in SPLITS:
            raise ValueError(f"Unknown split {split!r}: {did_you_mean(split, SPLITS)}")
        self.rows = torch.from_numpy((data.table.split == split).to_numpy().nonzero()[0])
        self.images = data.images
        self.labels = torch.tensor(data.table.label.to_numpy(), dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | list[int]) -> tuple[Tensor, Tensor]:
        rows = self.rows[index]
        return self.images[rows], self.labels[rows]


def loader(
    data: CTData, split: str, batch_size: int = 32, shuffle: bool = False, augmented: bool = False
) -> DataLoader:
    """Batches of one split: images uint8 (N, H, W), randomly augmented if `augmented`, and labels float32 (N,)."""
    transform = (lambda batch: (augment(batch[0]), batch[1])) if augmented else None
    return make_loader(Slices(data, split), batch_size, shuffle, transform)


def make_loader(dataset: Dataset, batch_size: int, shuffle: bool, transform: Callable | None = None) -> DataLoader:
    """Batches of any data set that takes a list of indices, each changed by `transform` if it is given.

    The sampler yields lists of indices, and the data set returns a whole batch for each: no Python code per slice
    (https://pytorch.org/docs/stable/data.html#disable-automatic-batching). Shuffling uses torch's global generator. A
    last batch of a single slice is left out of a shuffled epoch: batch normalisation needs more than one.
    """
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(order, batch_size, drop_last=shuffle and len(dataset) % batch_size == 1)
    return DataLoader(dataset, batch_size=None, sampler=batches, collate_fn=transform)


def augment(images: Tensor) -> Tensor:
    """Random augmentation, independent for each slice.

    Each is flipped left to right with probability 0.5, rotated by up to 10 degrees, scaled by 0.9 to 1.1, and shifted
    by up to 5 % of the width and height. Brightness and contrast stay: in a CT slice they mean something.

    Args:
        images: uint8 (N, H, H).

    Returns:
        uint8 (N, H, H); random numbers come from torch's global generator.
    """
    n = len(images)
    flip = (torch.rand(n) < 0.5).float() * 2 - 1
    angle, scale, shift_x, shift_y, _, _ = torch.rand(6, n) * 2 - 1  # six drawn, four used: recorded runs depend on it
    angle, scale = torch.deg2rad(10 * angle), 1 + 0.1 * scale
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # affine maps (N, 2, 3) from coordinates in the result to coordinates in the slice, both from -1 to 1: 0.1 is 5 %
    entries = [cos * flip, -sin, 0.1 * shift_x, sin * flip, cos, 0.1 * shift_y]
    matrix = torch.stack(entries, dim=1).view(n, 2, 3).to(images.device)
    grid = affine_grid(matrix, [n, 1, *images.shape[1:]], align_corners=False)
    # bicubic, since bilinear blurs: the network would learn from blurred slices and be tested on sharp ones
    pixels = images[:, None].float()
    moved = grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)[:, 0]
    return moved.round_().clamp_(0, 255).to(torch.uint8)
