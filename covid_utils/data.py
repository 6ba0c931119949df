"""Where slices come from, and how they become a table, a split, tensors and batches."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from .phantom.patients import FINDINGS, phantom
from .runs.files import nearest, resolve
from .runs.settings import Settings
from .sources.downloads import covid_ct, figure, sars_cov_2_ct
from .sources.folders import SPLITS, folder_table
from .sources.images import decode

DATASETS = ("phantom", "phantom-b", "sars-cov-2-ct", "covid-ct")
HELD_OUT = 400 / 2481  # share of the validation and of the test slices: the article's 1681/400/400


@dataclasses.dataclass(frozen=True)
class CTData:
    """Slices in memory; row i of the table is image i.

    Attributes:
        table: a row per slice: `path`, `label` (1 = COVID, 0 = non-COVID), `patient` (who must not be divided
            between splits), `split` ("train", "val" or "test"); the phantom also has `findings`, names
            with commas between.
        images: uint8 (N, H, W), 0 black to 255 white.
        lesions: bool (N, H, W), where disease was drawn; None for real slices.
        lungs: bool (N, H, W); None for real slices.
        name: the dataset's name.
        groups: one sentence on where the patients come from.
        fingerprint: SHA-256 of pixels and table, as hexadecimal text.
    """

    table: pd.DataFrame
    images: Tensor
    lesions: Tensor | None
    lungs: Tensor | None
    name: str
    groups: str
    fingerprint: str


def load_data(
    dataset: str = "phantom",
    data_dir: str | Path = "data",
    split: str = "patient",
    image_size: int = 96,
    seed: int = 0,
    patients: int = 240,
    progress: bool = True,
) -> CTData:
    """Slices with labels, patients and splits.

    Args:
        dataset: "phantom" (imaginary patients, no network needed), "phantom-b" (those of another imaginary
            hospital, with other scanners), "sars-cov-2-ct", "covid-ct", or a folder
            with class folders or with train.csv, val.csv and test.csv.
        data_dir: where drawn, downloaded and decoded slices are kept.
        split: "patient" keeps each patient's slices together; "random" deals out single slices, as the
            article did. A split that comes with the data is kept as it is.
        image_size: height and width in pixels, at least 32.
        seed: what the split depends on, and the phantom.
        patients: how many imaginary patients the phantom has.
        progress: show a progress bar.

    Raises:
        ValueError: a wrong parameter; a damaged slice; a wrong CSV file; too few slices to split.
        FileNotFoundError: a missing folder or file.
        ConnectionError: a download failed.
    """
    dataset = str(dataset)
    Settings(dataset=dataset, data_dir=data_dir, split=split, image_size=image_size, seed=seed, patients=patients)
    home = resolve(data_dir)
    if dataset in ("phantom", "phantom-b"):
        return _draw(dataset, patients, image_size, split, seed, home / "phantom", progress)
    folder = _find(dataset, home, progress)
    table, groups = folder_table(folder)
    if dataset == "covid-ct":
        table["patient"] = table.path.map(figure)
        groups = "No patient is named: panels of one figure stand in for one. The split is the published one."
    if "split" in table:
        _check_splits(table)
    else:  # before the slow part, so that a set that cannot be split says so at once
        table, groups = _split(table, groups, split, seed)
    images = decode(folder, table.path.tolist(), image_size, home / "cache", progress)
    return CTData(table, images, None, None, folder.name, groups, fingerprint(table, images))


def _find(dataset: str, home: Path, progress: bool) -> Path:
    """The folder that holds a dataset, downloaded if need be."""
    if dataset == "sars-cov-2-ct":
        return sars_cov_2_ct(home / dataset)
    if dataset == "covid-ct":
        return covid_ct(home / dataset, progress)
    folder = resolve(dataset)
    if not folder.is_dir() and not set(dataset) & set("/\\.~"):
        raise ValueError(f"Unknown dataset {dataset!r}, and {folder} is no folder: {nearest(dataset, DATASETS)}")
    return folder


def _draw(name: str, patients: int, image_size: int, split: str, seed: int, cache_dir: Path, progress: bool) -> CTData:
    """The phantom as data: path "phantom/p0003_s2" is slice 2 of patient 3."""
    hospital = {"phantom": "A", "phantom-b": "B"}[name]
    drawn = phantom(
        patients, image_size=image_size, seed=seed, hospital=hospital, cache_dir=cache_dir, progress=progress
    )
    images, lesions, lungs = (torch.from_numpy(drawn[name]) for name in ("images", "lesions", "lungs"))
    table = pd.DataFrame({"label": drawn["label"].astype(int), "patient": drawn["patient"]})
    number = table.groupby("patient").cumcount().astype(str)
    table["patient"] = table.patient.map("p{:04d}".format)
    table.insert(0, "path", f"{name}/" + table.patient + "_s" + number)
    found = [",".join(name for name, has in zip(FINDINGS, row, strict=True) if has) for row in drawn["findings"]]
    table["findings"] = [names or "normal" for names in found]
    table, groups = _split(table, "Every imaginary patient is a group of its own.", split, seed)
    return CTData(table, images, lesions, lungs, name, groups, fingerprint(table, images))


def _split(table: pd.DataFrame, groups: str, split: str, seed: int) -> tuple[pd.DataFrame, str]:
    """The table with a split, and the sentence on groups with a word on what the split does with them."""
    note = " The random split pays no heed to them." if split == "random" else ""
    return table.assign(split=split_groups(table, split, seed)), groups + note


def fingerprint(table: pd.DataFrame, images: Tensor) -> str:
    """SHA-256 of pixels and table, as hexadecimal text."""
    digest = hashlib.sha256(images.numpy())
    digest.update(table.to_csv(index=False).encode())
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------- splits


def split_groups(table: pd.DataFrame, split: str = "patient", seed: int = 0) -> pd.Series:
    """Deal whole groups out to the splits, so that each has about the same share of both classes.

    Validation and test get 400/2481 of the slices each, exactly so with single slices. The groups are dealt
    in the order of a hash of seed and name: the same on every machine, however the files are listed.

    Args:
        table: with `path`, `label`, `patient`.
        split: "patient" deals out patients, "random" single slices.

    Returns:
        "train", "val" or "test" for each row.

    Raises:
        ValueError: a class has fewer than three groups.
    """
    name = table.patient if split == "patient" else table.path
    groups = table.groupby(name).label.agg(["size", "mean"])
    groups["label"] = (groups["mean"] >= 0.5).astype(int)  # a patient with slices of both classes: the larger part
    groups = groups.loc[sorted(groups.index, key=lambda g: hashlib.sha256(f"{seed} {g}".encode()).digest())]
    wanted = round(HELD_OUT * len(table))
    covid = round(wanted * groups["size"][groups.label == 1].sum() / len(table))
    dealt = {}
    for label, target in ((1, covid), (0, wanted - covid)):
        left = groups["size"][groups.label == label]
        if len(left) < 3:
            hint = "use split='random' or " if split == "patient" else ""
            raise ValueError(
                f"Class {('non-COVID', 'COVID')[label]} has too few slices, {left.sum()} in {len(left)} "
                f"{'patients' if split == 'patient' else 'files'}: {hint}add slices, as train, val and test "
                "need one each."
            )
        for part, spare in (("test", 2), ("val", 1)):
            taken = _fill(left, target, most=len(left) - spare)
            dealt |= dict.fromkeys(taken, part)
            left = left.drop(taken)
    return name.map(dealt).fillna("train").astype(str)


def _fill(sizes: pd.Series, target: int, most: int) -> list:
    """At most `most` groups whose sizes add up to about `target`; the smallest group if all are too large."""
    taken, total = [], 0
    for group, size in sizes.items():
        if total + size / 2 <= target and len(taken) < most:
            taken.append(group)
            total += size
    return taken or [sizes.idxmin()]


def _check_splits(table: pd.DataFrame) -> None:
    """Raise ValueError if a given split lacks a class."""
    for split in SPLITS:
        labels = table.label[table.split == split]
        if labels.nunique() < 2:
            there = f"only {('non-COVID', 'COVID')[labels.iloc[0]]} slices" if len(labels) else "no slices"
            raise ValueError(
                f"The {split} split ({split}.csv) holds {there}: put slices of both classes in it, "
                "or no score can be computed."
            )


# ---------------------------------------------------------------------------------------------------- batches


class Slices(Dataset):
    """The slices of one split as a PyTorch dataset.

    `slices[i]` is an image, uint8 (H, W), and its label, float32 (), 1 = COVID; `slices[[i, j, …]]` is a
    whole batch at once, uint8 (N, H, W) and float32 (N,).

    Attributes:
        rows: int64, which rows of `data.table` these are.

    Raises ValueError for an unknown split.
    """

    def __init__(self, data: CTData, split: str):
        if split not in SPLITS:
            raise ValueError(f"Unknown split {split!r}: {nearest(split, SPLITS)}")
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
    """Batches of one split: images uint8 (N, H, W), changed at random if `augmented`, and labels float32 (N,).

    The sampler hands out whole batches of indices, so that one indexing makes a batch, with no Python per
    slice. Shuffling draws from torch's global generator. A last batch of a single slice is left out of a
    shuffled epoch: batch normalisation cannot learn from one slice.
    """
    slices = Slices(data, split)
    order = RandomSampler(slices) if shuffle else SequentialSampler(slices)
    lonely = shuffle and len(slices) % batch_size == 1
    batches = BatchSampler(order, batch_size, drop_last=lonely)
    return DataLoader(slices, batch_size=None, sampler=batches, collate_fn=_augment_batch if augmented else None)


def _augment_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A batch with its images augmented."""
    images, labels = batch
    return augment(images), labels


def augment(images: Tensor, greys: bool = True) -> Tensor:
    """Slices as they might also have been taken: each changed at random in its own way.

    Half are flipped left to right; all are rotated by up to 10 degrees, scaled by 0.9 to 1.1, shifted by up
    to 5 % of the width and height, and changed in contrast by 0.85 to 1.15 and in brightness by up to 20 of
    255 grey values.

    Args:
        images: uint8 (N, H, W).
        greys: False leaves contrast and brightness alone.

    Returns:
        uint8 (N, H, W); random numbers come from torch's global generator.
    """
    n = len(images)
    flip = (torch.rand(n) < 0.5).float() * 2 - 1
    angle, scale, right, down, contrast, brightness = torch.rand(6, n) * 2 - 1
    angle, scale = torch.deg2rad(10 * angle), 1 + 0.1 * scale
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # from places in the result to places in the slice, both counted from -1 to 1
    rows = [cos * flip, -sin, 0.1 * right, sin * flip, cos, 0.1 * down]
    matrix = torch.stack(rows, dim=1).view(n, 2, 3).to(images.device)
    grid = affine_grid(matrix, [n, 1, *images.shape[1:]], align_corners=False)
    # bicubic, since bilinear blurs: the network would learn from blurred slices and be tested on sharp ones
    pixels = images[:, None].float()
    moved = grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)[:, 0]
    if greys:
        gain = (1 + 0.15 * contrast).view(n, 1, 1).to(images.device)
        offset = (20 * brightness).view(n, 1, 1).to(images.device)
        moved = (moved - 128) * gain + 128 + offset
    return moved.round_().clamp_(0, 255).to(torch.uint8)
