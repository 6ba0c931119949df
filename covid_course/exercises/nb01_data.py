"""Exercises of notebook 1: a nearest-neighbour classifier, a patient-level split, mirroring, undone normalisation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from .grading import array, call, expect, result, same, wrong_if


def _nearest_neighbour(answer) -> str:
    """Slices that are known ones but for a little noise: a right classifier finds them all."""
    parts = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        known = rng.integers(0, 256, (30, 16), np.uint8)
        labels = (known.sum(1).argsort().argsort() + seed) % 2  # the darkest and the brightest differ
        twin = rng.integers(0, 30, 25)
        new = np.clip(known[twin] + rng.integers(-40, 41, (25, 16)), 0, 255).astype(np.uint8)
        form = {"shape": (25,), "wanted": "one label for each new slice"}
        found = result(answer, new, known, labels, **form)
        as_float = result(answer, new.astype(float), known.astype(float), labels, **form)
        differences = new[:, None].astype(float) - known
        sums = differences.sum(2)
        across, farthest = np.abs(differences).sum(1).argmin(1), np.abs(differences).sum(2).argmax(1)
        places = [across, farthest, sums.argmin(1), (-sums).argmin(1), np.abs(sums).argmin(1)]
        parts.append([found, labels[twin], as_float, twin, *(labels[each] for each in places)])
    found, right, as_float, number, across, farthest, *signed = map(np.concatenate, zip(*parts, strict=True))
    wrong_if(same(found, number), "number")
    wrong_if(not np.isin(found, (0, 1)).all(), "labels")
    wrong_if(same(as_float, right) and not same(found, right), "wraps")
    wrong_if(same(as_float, across), "axis")
    kinds = {"farthest": farthest, "signed": tuple(signed)}
    expect(found, right, kinds, count=int((found == right).sum()))
    return "The whole nearest-neighbour classifier is one distance and one `argmin`."


def _table(patients: int, covid: int, seed: int) -> pd.DataFrame:
    """Slices of imaginary patients, 2 to 5 each, those of a patient side by side, those with COVID first."""
    number = np.repeat(np.arange(patients), np.random.default_rng(seed).integers(2, 6, patients))
    table = pd.DataFrame({"label": (number < covid) * 1, "patient": [f"p{seed}{n:03d}" for n in number]})
    return table.assign(path=[f"{i}.png" for i in table.index])


def _split(answer) -> str:
    """Tables with few COVID patients, split with several seeds."""
    first, table = None, _table(60, 13, 0)
    for seed, (patients, covid) in enumerate([(60, 13), (80, 14), (100, 20), (60, 13), (120, 20), (80, 14)]):
        given = _table(patients, covid, seed % 3)
        split = pd.Series(np.asarray(call(answer, given.copy(), seed)).ravel(), dtype=object)
        wrong_if(len(split) != len(given), "rows", got=len(split), wanted=len(given))
        wrong_if(split.isna().any(), "left out", count=int(split.isna().sum()))
        wrong_if(set(split) == {"train"}, "untried")
        unknown = set(split) - {"train", "val", "test"}
        wrong_if(unknown, "names", names=", ".join(sorted(map(str, unknown))))
        torn = split.groupby(given.patient).nunique() > 1
        wrong_if(torn.any(), "torn", count=int(torn.sum()), all=len(torn))
        people = given.assign(split=split).groupby("patient").agg({"label": "first", "split": "first"})
        wrong_if(people.label[people.split != "train"].nunique() == 1, "one class")
        share = (people.split == "train").mean()
        wrong_if(0.2 < share < 0.45, "repeated", share=f"{share:.0%}")  # patients drawn as often as they have slices
        for part, least, most in (("train", 0.55, 0.8), ("val", 0.1, 0.225), ("test", 0.1, 0.225)):
            share = (people.split == part).mean()
            wrong_if(not least <= share <= most, "sizes", part=part, share=f"{share:.0%}")
            labels, expected = people.label[people.split == part], people.label.mean()
            slices = given.label[split == part].mean() - given.label.mean()
            uneven = abs(labels.sum() - expected * len(labels)) > 1.01 and abs(slices) > 0.03
            wrong_if(uneven, "classes", part=part, share=f"{labels.mean():.0%}", all=f"{expected:.0%}")
        first = split if first is None else first
    wrong_if(any(np.array_equal(first, call(answer, table.copy(), seed)) for seed in (3, 4)), "seed")
    wrong_if(not np.array_equal(first, call(answer, table.copy(), 0)), "not repeatable")
    return "No patient is in two splits, each split has both classes, and the same seed gives the same split."


def _mirror(answer) -> str:
    """A batch of noise, not square, mirrored with different random numbers."""
    images = np.random.default_rng(0).integers(0, 256, (400, 4, 6), np.uint8)
    chosen = []
    for seed in (0, *range(8)):
        given = images.copy()
        out = array(call(answer, given, np.random.default_rng(seed)), images.shape, "as many slices of the same size")
        wrong_if(not np.array_equal(given, images), "in place")
        wrong_if(out.dtype != np.uint8, "type", type=out.dtype)
        kept, mirrored, upside = ((out == view).all((1, 2)) for view in (images, images[:, :, ::-1], images[:, ::-1]))
        wrong_if((upside & ~kept & ~mirrored).any(), "upside down")
        wrong_if(not (kept | mirrored).all(), "changed")
        chosen.append(mirrored)
    shares = np.mean(chosen, axis=1)
    wrong_if((shares == 0).all(), "untried")
    wrong_if((shares == 1).all(), "always")
    wrong_if(np.isin(shares, (0, 1)).all(), "all alike")
    wrong_if(np.array_equal(chosen[0], chosen[-1]), "same ones")
    wrong_if(not np.array_equal(chosen[0], chosen[1]), "not repeatable")
    wrong_if(not np.all((0.4 < shares) & (shares < 0.6)), "chance", share=f"{shares[0]:.0%}")
    return "Each slice is mirrored independently of the others, and the given batch is unchanged."


def _alike(out: np.ndarray, other: np.ndarray) -> bool:
    """Whether they agree to one intensity, as bytes (which wrap around, or were cut off)."""
    around = (other - out + 128) % 256 - 128
    return min(np.abs(around).max(), np.abs(other.clip(0, 255) - out).max()) <= 1


def _undo(answer) -> str:
    """All intensities, through two different normalisations and back."""
    grey = np.arange(256.0).reshape(2, 8, 16)
    for kind, mean, std in (("wrong", 0.6, 0.3), ("fixed", 0.485, 0.229)):
        x = torch.from_numpy((grey / 255 - mean) / std).float()
        back = call(answer, x[:, None].repeat(1, 3, 1, 1), mean, std)
        wrong_if(getattr(back, "shape", ()) == (2, 3, 8, 16), "channels")
        out, x = array(back, (2, 8, 16), "an array of shape (N, H, W)"), x.numpy()
        wrong_if(same(out, x) or same(out, 255 * x), "untouched")
        wrong_if(out.max() <= 1.01, "scale")
        disordered = ((x + mean) * std * 255, (x - mean) / std * 255, x / std + mean)
        wrong_if(any(_alike(out, each) for each in disordered), "order")
        wrong_if(np.abs(out - grey).max() > 1.01, kind)
        wrong_if(out.dtype != np.uint8, "type", type=out.dtype)
        wrong_if(not np.array_equal(out, grey), "rounding", count=int((out != grey).sum()))
    return "All 256 intensities came back exactly."


GRADERS = {"nearest neighbour": _nearest_neighbour, "split": _split, "mirror": _mirror, "undo": _undo}
