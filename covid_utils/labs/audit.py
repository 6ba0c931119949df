"""What can be scored without any understanding: leaks between the splits, and shortcuts."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..core.settings import Settings
from ..data import CTData, load_data, split_groups
from ..evaluation import metrics_with_intervals, percent
from ..io.patients import guessed

SIDE, FRAME = 32, 4  # pixels of a thumbnail, and of the frame around it
NEAR = 0.95  # correlation of thumbnails; on the phantom only slices of one patient are as similar
TURNS, CUTS = (-15, -10, -5, 5, 10, 15), (0.95, 0.9, 0.85, 0.8)  # degrees; shares of height and width
SHUFFLES = 20


def thumbnails(data: CTData, frame_only: bool = False) -> np.ndarray:
    """Every slice as a 32 × 32 thumbnail of length 1 and mean 0: the product of two is their correlation.

    Args:
        data: slices.
        frame_only: only the outermost 4 pixels, where there is hardly any lung.

    Returns: float32 (N, pixels).
    """
    inner = np.zeros((SIDE, SIDE), bool)
    inner[FRAME:-FRAME, FRAME:-FRAME] = frame_only
    return _unit(_halved(data.images.numpy())[:, ~inner])


def _unit(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails as rows of length 1 and mean 0."""
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)  # correlation rather than brightness
    return pixels / (np.linalg.norm(pixels, axis=1, keepdims=True) + 1e-6)


def nearest_neighbour(data: CTData, frame_only: bool = False) -> np.ndarray:
    """Scores, float (test slices,), of a pixel 1-nearest-neighbour among the training slices; above 0 means COVID.

    How much more similar the nearest COVID slice is than the nearest other one (correlation of thumbnails). It learns
    nothing: where it does well, test slices have near-copies among the training slices.
    """
    features, split, covid = thumbnails(data, frame_only), data.table.split.to_numpy(), data.table.label.to_numpy() == 1
    nearest = [
        (features[split == "test"] @ features[(split == "train") & of_class].T).max(1) for of_class in (covid, ~covid)
    ]
    return nearest[0] - nearest[1]


def grey_histogram(data: CTData) -> np.ndarray:
    """Logits, float (test slices,), of a logistic regression on 32-bin grey histograms (no shapes at all)."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    features, split = grey_shares(data.images.numpy()), data.table.split.to_numpy()
    classifier.fit(features[split == "train"], data.table.label[split == "train"])
    return classifier.decision_function(features[split == "test"])


def grey_shares(images: np.ndarray) -> np.ndarray:
    """How often each of 32 grey values occurs in slices, uint8 (N, H, W): float64 (N, 32), each row's sum is 1.

    >>> grey_shares(np.zeros((1, 4, 4), np.uint8))[0, :2]
    array([1., 0.])
    """
    return np.stack([np.bincount(image.ravel() // 8, minlength=32) / image.size for image in images])


def near_duplicates(data: CTData) -> pd.DataFrame:
    """Slices held out whose thumbnail is almost that of a training slice, the most similar first.

    Also if one of the two was mirrored, turned, inverted or cut, as copies are that were augmented before the split:
    turned by right angles or up to 15 degrees, cut to 80 % or more of height and width (found shares: docs/results.md).

    Returns: a row per held-out slice with `slice` and `twin` (rows of `data.table`), their `similarity`, at
    least 0.95 (correlation of the thumbnails), and `how` the slice was changed for it.
    """
    train = (data.table.split == "train").to_numpy()
    learn, held_out = np.flatnonzero(train), np.flatnonzero(~train)
    small = np.stack([cv2.resize(i, (2 * SIDE,) * 2, interpolation=cv2.INTER_AREA) for i in data.images.numpy()])
    mine, theirs = small[~train], _unit(_halved(small[train]))
    pairs = pd.DataFrame({"slice": held_out, "twin": learn[0], "similarity": -1.0, "how": ""})

    def look(how: str, view: np.ndarray, twins: np.ndarray, signs=(1,)) -> None:
        """Note the pairs that are more alike in this view of the slices than in those before."""
        for turned, flipped in (("", view), (" and mirrored", view[:, :, ::-1])):
            similarity = _unit(flipped) @ twins.T
            for sign in signs:
                best = (sign * similarity).argmax(1)
                value = sign * similarity[np.arange(len(best)), best]
                better = value > pairs.similarity + 1e-4  # what can be seen without a change needs none
                pairs.loc[better, "twin"], pairs.loc[better, "similarity"] = learn[best[better]], value[better]
                pairs.loc[better, "how"] = how + turned + " and inverted" * (sign < 0)

    for turns in range(4):
        look(
            f"turned by {90 * turns}°" if turns else "as it is", np.rot90(_halved(mine), turns, (1, 2)), theirs, (1, -1)
        )
    for degrees in TURNS:
        look(f"turned by about {degrees}°", _moved(mine, degrees=degrees), theirs)
    for share, down, right in itertools.product(CUTS, (0, 0.5, 1), (0, 0.5, 1)):
        window = {"share": share, "down": down, "right": right}
        look(f"cut to about {share:.0%}", _halved(mine), _unit(_moved(small[train], **window)))
        look(f"of {share:.0%} of it", _moved(mine, **window), theirs)
    return pairs[pairs.similarity >= NEAR].sort_values("similarity", ascending=False, ignore_index=True)


def _moved(
    images: np.ndarray, degrees: float = 0, share: float = 1, down: float = 0.5, right: float = 0.5
) -> np.ndarray:
    """Slices, uint8 (N, 64, 64), turned, or a window of them enlarged, as thumbnails, uint8 (N, 32, 32)."""
    side = images.shape[-1]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, degrees, 1)
    if share < 1:
        matrix = np.array([[1, 0, -right * (1 - share) * side], [0, 1, -down * (1 - share) * side]]) / share
    moved = [cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE) for image in images]
    return _halved(np.stack(moved))


def _halved(images: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images])


def same_pictures(data: CTData) -> pd.DataFrame:
    """Slices whose pixels stand in both classes: a row for each with `picture` (a SHA-256), `path` and `label`."""
    digests = [hashlib.sha256(image).hexdigest() for image in data.images.numpy()]
    table = data.table.assign(picture=digests)
    return table[table.groupby("picture").label.transform("nunique") > 1][["picture", "path", "label"]]


def shuffled_labels(data: CTData, seed: int = 0) -> tuple[float, float]:
    """What a 1-nearest-neighbour "learns" if every *patient* gets the label of another one.

    There is nothing to learn about disease then. Whoever scores above chance has recognised patients.

    Returns: accuracy on the test slices, and what chance would give, means over 20 shuffles.
    """
    features, table = thumbnails(data), data.table
    learn, test = (np.flatnonzero(table.split == part) for part in ("train", "test"))
    twin = learn[(features[test] @ features[learn].T).argmax(1)]
    _, patient = np.unique(table.patient, return_inverse=True)
    labels = pd.Series(table.label.to_numpy()).groupby(patient).mean().round().astype(int).to_numpy()
    rng, reached, chance = np.random.default_rng(seed), [], []
    for _ in range(SHUFFLES):
        shuffled = rng.permutation(labels)[patient]
        covid, covid_twin = shuffled[test].mean(), shuffled[learn].mean()
        reached.append((shuffled[twin] == shuffled[test]).mean())
        chance.append(covid * covid_twin + (1 - covid) * (1 - covid_twin))
    return float(np.mean(reached)), float(np.mean(chance))


# ---------------------------------------------------------------------------------------------------- the audit


@dataclasses.dataclass(frozen=True)
class Audit:
    """What `audit` found; a notebook shows it as text and a table.

    Attributes:
        verdict: one sentence per problem, or one that says there is none.
        checks: a row per check: what was measured, what it would be without a problem, what it means.
        pairs: the `near_duplicates`.
    """

    verdict: list[str]
    checks: pd.DataFrame
    pairs: pd.DataFrame

    def __str__(self) -> str:
        return "\n".join(self.verdict) + "\n\n" + self.checks.to_string()

    def _repr_markdown_(self) -> str:
        lines = [["check", *self.checks.columns], ["---"] * (1 + len(self.checks.columns))]
        lines += [[str(name), *map(str, row)] for name, row in zip(self.checks.index, self.checks.values, strict=True)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n".join(f"- {sentence}" for sentence in self.verdict) + "\n\n" + table


def audit(data: CTData) -> Audit:
    """Look for leaks between the splits and for shortcuts, in any data: `print(audit_folder("my/folder"))`.

    Nothing here learns what a lung is, so every score above chance is a warning. All are scores on the test
    slices, with 95 % intervals over patients.
    """
    table, test = data.table, data.table[data.table.split == "test"]
    shared, guess_only = int((table.groupby("patient").split.nunique() > 1).sum()), guessed(table.patient).all()
    both = same_pictures(data)
    pairs, (shuffled, chance) = near_duplicates(data), shuffled_labels(data)
    guess = max(test.label.mean(), 1 - test.label.mean())

    def score(scores: np.ndarray) -> dict[str, float]:
        return metrics_with_intervals(scores, test.label, test.patient)["accuracy"]

    found = {"whole slice": score(nearest_neighbour(data)), "frame": score(nearest_neighbour(data, frame_only=True))}
    found["histogram"] = score(grey_histogram(data))
    random = dataclasses.replace(data, table=table.assign(split=split_groups(table, "random")))
    mixed = ((nearest_neighbour(random) > 0) == random.table.label[random.table.split == "test"]).mean()
    held_out = int((table.split != "train").sum())
    shown = {name: percent(value) for name, value in found.items()}
    rows = {
        f"{'groups' if guess_only else 'patients'} in more than one split": (shared, "0"),
        "pictures that stand in both classes": (both.picture.nunique(), "0"),
        f"held-out slices with a near-copy in training, of {held_out}": (len(pairs), "few"),
        "1-nearest neighbour, patients' labels shuffled": (f"{100 * shuffled:.1f} %", f"{100 * chance:.0f} %"),
        "1-nearest neighbour": (shown["whole slice"], f"{100 * guess:.0f} %"),
        "the same, had slices been split at random": (f"{100 * mixed:.1f} %", f"{100 * guess:.0f} %"),
        "1-nearest neighbour on the outer frame": (shown["frame"], f"{100 * guess:.0f} %"),
        "logistic regression on the grey histogram": (shown["histogram"], f"{100 * guess:.0f} %"),
    }
    checks = pd.DataFrame.from_dict(rows, orient="index", columns=["measured", "guessing"])
    verdict = _verdict(shared, guess_only, both, len(pairs) / held_out, shuffled - chance, found, guess)
    return Audit(verdict, checks, pairs)


def audit_folder(folder: str | Path) -> Audit:
    """`audit` of a folder of one's own, or of a data set by its name, split by patient."""
    return audit(load_data(Settings(dataset=folder)))


def _verdict(
    shared: int, guess_only: bool, both: pd.DataFrame, near: float, leak: float, found: dict, guess: float
) -> list[str]:
    """The findings of an audit in words."""
    verdict = []
    if shared and guess_only:
        verdict.append(
            f"**Leak:** if neighbouring file numbers are one patient (nobody says so), {shared} of them have slices in "
            "more than one split."
        )
    elif shared:
        verdict.append(f"**Leak:** {shared} patients have slices in more than one split; split by patient.")
    if len(both):
        one, other = both[both.picture == both.picture.iloc[0]].drop_duplicates("label").path
        verdict.append(
            f"**Labels:** {both.picture.nunique()} pictures stand, pixel for pixel, in both classes (as {one} and "
            f"{other}): one of the two labels is wrong."
        )
    if near > 0.02:
        verdict.append(f"**Leak:** {near:.0%} of the held-out slices have a near-copy among the training slices.")
    if leak > 0.05:
        verdict.append(
            f"**Leak:** with the patients' labels shuffled a look-up still scores {100 * leak:.0f} points above "
            "chance: it recognises patients, and so may a network."
        )
        return [*verdict, "What frame and histogram score means little while the split leaks: audit the patient split."]
    for name, words in (("frame", "outer frame, where there is hardly any lung,"), ("histogram", "grey histogram")):
        if found[name]["low"] > guess:
            verdict.append(
                f"**Shortcut:** the {words} alone decides {percent(found[name])}, where guessing gets "
                f"{100 * guess:.0f} %: a network's score is worth only what it has beyond that."
            )
    return verdict or ["No leak and no shortcut found by these checks; others may exist."]
