"""Leakage audit: near-copies across the splits, and baselines that know nothing about lungs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..core.settings import Settings
from ..data import CTData, load_data
from ..evaluation import metrics_with_intervals, percent
from ..io.patients import guessed

SIDE, FRAME = 32, 4  # pixels of a thumbnail, and of the frame around it
NEAR = 0.95  # correlation of two thumbnails; on the phantom only slices of one patient are as similar
CROPS = list(itertools.product((0.95, 0.9, 0.85, 0.8), (0, 0.5, 1), (0, 0.5, 1)))  # share of each side, from top, left
SHUFFLES = 20
RECOGNISED = 0.05  # accuracy above chance with shuffled labels: patients are recognised


def thumbnails(data: CTData, frame_only: bool = False) -> np.ndarray:
    """Every slice as a 32 × 32 thumbnail of mean 0 and length 1, float32 (N, pixels): a product is a correlation.

    `frame_only`: only the outermost 4 pixels, where there is hardly any lung.
    """
    inner = np.zeros((SIDE, SIDE), bool)
    inner[FRAME:-FRAME, FRAME:-FRAME] = frame_only
    return _standardised(_resized(data.images.numpy(), SIDE)[:, ~inner])


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    """Slices, uint8 (N, H, W) -> (N, side, side)."""
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])


def _standardised(images: np.ndarray) -> np.ndarray:
    """Images as rows of mean 0 and length 1, float32 (N, pixels)."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    return pixels / (np.linalg.norm(pixels, axis=1, keepdims=True) + 1e-6)


def nearest_neighbour(data: CTData, frame_only: bool = False) -> np.ndarray:
    """Scores, float (test slices,), of a 1-nearest-neighbour classifier on thumbnails; above 0 means COVID.

    The correlation with the most similar COVID slice of the training set minus that with the most similar other one.
    A high accuracy means that test slices have near-copies in the training set.
    """
    features, split, covid = thumbnails(data, frame_only), data.table.split.to_numpy(), data.table.label.to_numpy() == 1
    similarity = features[split == "test"] @ features[split == "train"].T
    return similarity[:, covid[split == "train"]].max(1) - similarity[:, ~covid[split == "train"]].max(1)


def grey_histogram(data: CTData) -> np.ndarray:
    """Logits, float (test slices,), of a logistic regression on histograms of 32 intensities: no shapes at all."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    images, train = data.images.numpy(), data.table.split == "train"
    shares = np.stack([np.bincount(image.ravel() // 8, minlength=32) / image.size for image in images])
    classifier.fit(shares[train], data.table.label[train])
    return classifier.decision_function(shares[data.table.split == "test"])


def near_duplicates(data: CTData) -> pd.DataFrame:
    """Held-out slices whose thumbnail is nearly that of a training slice, the most similar first.

    Copies are also found if they were augmented before the split: mirrored, turned by right angles, inverted, or
    cropped to 80 % or more of height and width at a corner, an edge or the middle (shares found: docs/results.md).

    Returns: `slice` and `twin` (rows of `data.table`) and the `similarity` of their thumbnails, at least 0.95.
    """
    train, images = (data.table.split == "train").to_numpy(), _resized(data.images.numpy(), 2 * SIDE)
    rows = np.flatnonzero(train)
    pairs = pd.DataFrame({"slice": np.flatnonzero(~train), "twin": rows[0], "similarity": -1.0})
    for held_out, training in _views(images[~train], images[train]):
        similarity = np.abs(_standardised(held_out) @ _standardised(training).T)  # -1: inverted
        best = similarity.max(1)
        better = best > pairs.similarity
        pairs.loc[better, "twin"], pairs.loc[better, "similarity"] = rows[similarity.argmax(1)[better]], best[better]
    return pairs[pairs.similarity >= NEAR].sort_values("similarity", ascending=False, ignore_index=True)


def _views(held_out: np.ndarray, training: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of thumbnails to compare, of slices, uint8 (N, 64, 64): turned, mirrored, and one or the other cropped."""
    whole, known = _resized(held_out, SIDE), _resized(training, SIDE)
    for turns, step in itertools.product(range(4), (1, -1)):
        yield np.rot90(whole[:, :, ::step], turns, (1, 2)), known
    for share, top, left in CROPS:
        size = round(share * 2 * SIDE)
        y, x = round(top * (2 * SIDE - size)), round(left * (2 * SIDE - size))
        crop, other = (_resized(each[:, y : y + size, x : x + size], SIDE) for each in (held_out, training))
        for step in (1, -1):
            yield crop[:, :, ::step], known
            yield whole[:, :, ::step], other


def shuffled_labels(data: CTData, seed: int = 0) -> tuple[float, float]:
    """Accuracy of a 1-nearest-neighbour classifier after the labels were permuted among the *patients*.

    Nothing is left to learn about the disease, so an accuracy above chance means that patients are recognised.

    Returns: accuracy on the test slices and the accuracy of chance, means over 20 permutations.
    """
    features, table = thumbnails(data), data.table
    train, test = (np.flatnonzero(table.split == part) for part in ("train", "test"))
    twin = train[(features[test] @ features[train].T).argmax(1)]
    labels, patient = table.groupby("patient").label.mean().round().astype(int), table.groupby("patient").ngroup()
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permutation(labels)[patient] for _ in range(SHUFFLES)])
    covid, covid_twin = shuffled[:, test].mean(1), shuffled[:, train].mean(1)
    chance = covid * covid_twin + (1 - covid) * (1 - covid_twin)
    return float((shuffled[:, twin] == shuffled[:, test]).mean()), float(chance.mean())


@dataclasses.dataclass(frozen=True)
class Audit:
    """What `audit` found."""

    verdict: list[str]  # a sentence per problem, or one that says there is none
    checks: pd.DataFrame  # a row per check: what was measured, and what guessing or a clean split would give
    pairs: pd.DataFrame  # the `near_duplicates`

    def __str__(self) -> str:
        return "\n".join(self.verdict) + "\n\n" + self.checks.to_string()


def audit_folder(folder: str | Path) -> Audit:
    """`audit` of your own folder, or of a data set by its name, split by patient."""
    return audit(load_data(Settings(dataset=folder)))


def audit(data: CTData) -> Audit:
    """Look for leaks between the splits and for shortcuts.

    Nothing here knows what a lung is, so every accuracy above chance is a warning. All accuracies are of the test
    slices, with 95 % intervals over patients.
    """
    table, test = data.table, data.table[data.table.split == "test"]
    held_out, majority = (table.split != "train").sum(), max(test.label.mean(), 1 - test.label.mean())
    shared = (table.groupby("patient").split.nunique() > 1).sum()
    pictures = table.assign(picture=[hashlib.sha256(image).hexdigest() for image in data.images.numpy()])
    pictures = pictures.drop_duplicates(["picture", "label"]).sort_values(["picture", "label"])
    both = pictures[pictures.duplicated("picture", keep=False)]  # one row for either class
    pairs, (shuffled, chance) = near_duplicates(data), shuffled_labels(data)
    scores = {
        "1-nearest neighbour": nearest_neighbour(data),
        "1-nearest neighbour on the outer frame": nearest_neighbour(data, frame_only=True),
        "logistic regression on the grey histogram": grey_histogram(data),
    }
    scores = {name: metrics_with_intervals(each, test.label, test.patient)["accuracy"] for name, each in scores.items()}
    guessing, unit = f"{100 * majority:.0f} %", "groups" if guessed(table.patient).all() else "patients"
    rows = {
        f"{unit} in more than one split": (shared, "0"),
        "pictures that stand in both classes": (both.picture.nunique(), "0"),
        f"held-out slices with a near-copy in training, of {held_out}": (len(pairs), "few"),
        "1-nearest neighbour, patients' labels shuffled": (f"{100 * shuffled:.1f} %", f"{100 * chance:.0f} %"),
    } | {name: (percent(score), guessing) for name, score in scores.items()}
    unless = "" if unit == "patients" else "if neighbouring file numbers are one patient (nobody says so), "
    recognised = shuffled - chance > RECOGNISED
    sentences = {
        f"**Leak:** {unless}{shared} patients have slices in more than one split; split by patient.": shared > 0,
        f"**Labels:** {both.picture.nunique()} pictures stand, pixel for pixel, in both classes (as "
        f"{' and '.join(both.path[:2])}): one of the two labels is wrong.": len(both) > 0,
        f"**Leak:** {len(pairs) / held_out:.0%} of the held-out slices have a near-copy among the training slices.": (
            len(pairs) > 0.02 * held_out
        ),
        f"**Leak:** with the patients' labels shuffled, 1-nearest neighbour scores {100 * (shuffled - chance):.0f} "
        "points above chance: it recognises patients, and so may a network.": recognised,
    } | {
        f"**Shortcut:** {name} alone scores {percent(score)}, where guessing scores {guessing}: only what a network "
        "adds to that counts.": score["low"] > majority and not recognised
        for name, score in list(scores.items())[1:]
    }
    verdict = [sentence for sentence, found in sentences.items() if found]
    checks = pd.DataFrame.from_dict(rows, orient="index", columns=["measured", "guessing"])
    return Audit(verdict or ["No leak and no shortcut found by these checks; others may exist."], checks, pairs)
