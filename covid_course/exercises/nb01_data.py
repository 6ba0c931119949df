"""Exercises of notebook 1: the look-up, a split of whole patients, mirroring, and normalisation undone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from .grading import WrongAnswer, array, call, same


def _look_up(answer) -> str:
    """Slices that are known ones but for a little noise: a right look-up finds them all."""
    said, truths, far, signed, plain = [], [], [], [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        known = rng.integers(0, 256, (12, 40), np.uint8)
        labels = (known.sum(1).argsort().argsort() + seed) % 2  # the darkest and the brightest differ
        twin = rng.integers(0, 12, 25)
        new = np.clip(known[twin] + rng.integers(-40, 41, (25, 40)), 0, 255).astype(np.uint8)
        said.append(array(call(answer, new.copy(), known.copy(), labels.copy()), (25,), "one label for each new slice"))
        as_float = answer(new.astype(float), known.astype(float), labels.copy())
        plain.append(array(as_float, (25,), "one label for each new slice"))
        differences = new[:, None].astype(float) - known
        truths.append(labels[twin])
        far.append(labels[np.abs(differences).sum(2).argmax(1)])
        sums = differences.sum(2)
        signed.append([labels[each.argmin(1)] for each in (sums, -sums, np.abs(sums))])
        if not np.isin(said[-1], (0, 1)).all():
            raise WrongAnswer("number" if np.array_equal(said[-1], twin) else "labels")
    if np.array_equal(said, truths):
        return "The whole nearest-neighbour classifier is one distance and one `argmin`; it knows nothing of lungs."
    if np.array_equal(plain, truths):
        raise WrongAnswer("wraps")
    if np.array_equal(said, far):
        raise WrongAnswer("farthest")
    kind = "signed" if any(np.array_equal(said, each) for each in zip(*signed, strict=True)) else "wrong"
    raise WrongAnswer(kind, count=int((np.array(said) == truths).sum()))


def _table(patients: int, covid: int, seed: int) -> pd.DataFrame:
    """Slices of imaginary patients, 2 to 5 each, those of a patient side by side, the ill first."""
    slices = np.random.default_rng(seed).integers(2, 6, patients)
    number = np.repeat(np.arange(patients), slices)
    names = [f"p{seed}{n:03d}" for n in number]
    return pd.DataFrame(
        {"path": [f"{i}.png" for i in range(len(number))], "label": (number < covid) * 1, "patient": names}
    )


def _split(answer) -> str:
    """Tables with few ill patients, split with several seeds."""
    dealt = []
    for seed, (patients, covid) in enumerate([(60, 13), (80, 14), (100, 20), (60, 13), (120, 20), (80, 14)]):
        table = _table(patients, covid, seed % 3)
        before = table.copy()
        split = pd.Series(np.asarray(call(answer, table, seed)).ravel(), dtype=object)
        if len(split) != len(before):
            raise WrongAnswer("rows", got=len(split), wanted=len(before))
        dealt.append(split)
        _one_split(split, before)
    if any(np.array_equal(dealt[0], call(answer, _table(60, 13, 0), seed)) for seed in (3, 4)):
        raise WrongAnswer("seed")
    if not np.array_equal(dealt[0], call(answer, _table(60, 13, 0), 0)):
        raise WrongAnswer("not repeatable")
    return "Whole patients, both classes in every part, and the same split again for the same seed."


def _one_split(split: pd.Series, table: pd.DataFrame) -> None:
    if split.isna().any():
        raise WrongAnswer("left out", count=int(split.isna().sum()))
    if set(split) == {"train"}:
        raise WrongAnswer("untried")
    if not set(split) <= {"train", "val", "test"}:
        raise WrongAnswer("names", names=", ".join(sorted(map(str, set(split) - {"train", "val", "test"}))))
    torn = split.groupby(table.patient).nunique() > 1
    if torn.any():
        raise WrongAnswer("torn", count=int(torn.sum()), all=len(torn))
    people = table.assign(split=split).groupby("patient").agg({"label": "first", "split": "first"})
    shares = people.split.value_counts(normalize=True)
    for part, least, most in (("train", 0.55, 0.8), ("val", 0.1, 0.225), ("test", 0.1, 0.225)):
        if not least <= shares.get(part, 0) <= most:
            raise WrongAnswer("sizes", part=part, share=f"{shares.get(part, 0):.0%}")
        ill, expected = people.label[people.split == part], people.label.mean()
        slices = table.label[split == part].mean() - table.label.mean()
        if abs(ill.sum() - expected * len(ill)) > 1.01 and abs(slices) > 0.03:
            raise WrongAnswer("classes", part=part, share=f"{ill.mean():.0%}", all=f"{expected:.0%}")


def _mirror(answer) -> str:
    """A batch of noise, not square, mirrored twice with different random numbers."""
    images = np.random.default_rng(0).integers(0, 256, (400, 4, 6), np.uint8)
    coins = []
    for seed in range(8):
        given = images.copy()
        out = array(call(answer, given, np.random.default_rng(seed)), images.shape, "as many slices of the same size")
        if not np.array_equal(given, images):
            raise WrongAnswer("in place")
        if out.dtype != np.uint8:
            raise WrongAnswer("type", type=out.dtype)
        kept, mirrored, upside = ((out == view).all((1, 2)) for view in (images, images[:, :, ::-1], images[:, ::-1]))
        if (upside & ~kept & ~mirrored).any():
            raise WrongAnswer("upside down")
        if not (kept | mirrored).all():
            raise WrongAnswer("changed")
        coins.append(mirrored)
    shares = [coin.mean() for coin in coins]
    if set(shares) <= {0, 1}:
        raise WrongAnswer({0.0: "untried", 1.0: "always"}[shares[0]] if len(set(shares)) == 1 else "all alike")
    if np.array_equal(coins[0], coins[1]):
        raise WrongAnswer("same ones")
    if not all(0.4 < share < 0.6 for share in shares):
        raise WrongAnswer("chance", share=f"{shares[0]:.0%}")
    return "Every slice had a coin of its own, and the slices that you were given are as they were."


def _alike(out: np.ndarray, other: np.ndarray) -> bool:
    """Whether they agree to one grey value, as bytes (which wrap around, or were cut off)."""
    around = (other - out + 128) % 256 - 128
    return min(np.abs(around).max(), np.abs(other.clip(0, 255) - out).max()) <= 1


def _undo(answer) -> str:
    """All grey values, through two different normalisations and back."""
    grey = torch.arange(256, dtype=torch.uint8).reshape(2, 8, 16)
    found = []
    for mean, std in ((0.6, 0.3), (0.485, 0.229)):
        x = ((grey[:, None].float() / 255 - mean) / std).expand(-1, 3, -1, -1)
        back = call(answer, x.clone(), mean, std)
        if getattr(back, "shape", ()) == (2, 3, 8, 16):
            raise WrongAnswer("channels")
        found.append((array(back, (2, 8, 16), "an array of shape (N, H, W)"), x[:, 0].numpy(), mean, std))
    truth = grey.numpy().astype(float)
    for out, x, mean, std in found:
        if same(out, x) or same(out, 255 * x):
            raise WrongAnswer("untouched")
        if out.max() <= 1.01:
            raise WrongAnswer("scale")
        if any(_alike(out, each) for each in ((x + mean) * std * 255, (x - mean) / std * 255, x / std + mean)):
            raise WrongAnswer("order")
        if np.abs(out.astype(float) - truth).max() > 1.01:
            raise WrongAnswer("fixed" if out is found[1][0] else "wrong")
        if out.dtype != np.uint8:
            raise WrongAnswer("type", type=out.dtype)
        if not np.array_equal(out, truth):
            raise WrongAnswer("rounding", count=int((out != truth).sum()))
    return "All 256 grey values came back, to the last one."


GRADERS = {"look-up": _look_up, "split": _split, "mirror": _mirror, "undo": _undo}
