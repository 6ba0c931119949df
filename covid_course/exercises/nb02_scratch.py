"""Exercises of notebook 2: a convolution, the training step, the loop over epochs, the best epoch."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import torch
from scipy.signal import convolve2d, correlate2d
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from .grading import array, call, expect, mistake, result, same, wrong_if


def _convolution(answer) -> str:
    """Pictures of different height and width, kernels of 2 × 2 and 3 × 3, none of them symmetric."""
    for size, shape in ((3, (6, 9)), (2, (7, 5))):
        rng = np.random.default_rng(size)
        picture, kernel = rng.normal(size=shape), rng.normal(size=(size, size))
        right = correlate2d(picture, kernel, mode="valid")
        out = call(answer, picture.copy(), kernel.copy())
        got = np.shape(out)
        wrong_if(got == shape, "border", height=right.shape[0], width=right.shape[1])
        one_short = (tuple(np.subtract(shape, size)), right.shape[::-1])
        wrong_if(got in one_short, "one short", got=got, wanted=right.shape)
        kinds = {
            "zeros": 0 * right,
            "mean": right / size**2,
            "flipped": convolve2d(picture, kernel, mode="valid"),
            "no kernel": correlate2d(picture, np.ones((size, size)), mode="valid"),
        }
        expect(array(out, right.shape, f"an array of shape {right.shape}"), right, kinds)
    return "That is a convolution; a network has thousands of such kernels, and learns their numbers."


def _steps(step) -> tuple[list, np.ndarray]:
    """What a step returns on each of four batches, and the weights of a tiny network after each, (4, 13)."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0))
    optimizer, seen, losses = torch.optim.SGD(model.parameters(), lr=0.5), [], []
    for _ in range(4):
        x, labels = torch.randn(8, 3, 2, 2), (torch.rand(8) < 0.5).float()
        losses.append(step(model, x, labels, optimizer))
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]).numpy().copy())
    return losses, np.array(seen)


def _variant(kind: str):
    """The training step with one mistake; with none if the kind is ""."""

    def step(model, x, labels, optimizer):
        logits = model(x)
        loss = bce(torch.sigmoid(logits) if kind == "sigmoid" else logits, labels)
        early = kind.startswith("too early")
        if early:
            optimizer.step()
        if not kind.endswith("adds up"):
            optimizer.zero_grad()
        (-loss if kind == "uphill" else loss).backward()
        if not early:
            optimizer.step()
        return loss.item()

    return step


def _step(answer) -> str:
    """Four steps, compared with those of a right step and of wrong ones."""
    right_losses, right = _steps(_variant(""))
    losses, weights = _steps(answer)
    wrong_if(any(loss is ... for loss in losses), "untried")
    wrong_if(np.ptp(weights, axis=0).max() == 0, "still")
    kinds = {kind: _steps(_variant(kind))[1] for kind in ("adds up", "too early", "uphill", "sigmoid")}
    kinds["too early"] = kinds["too early"], _steps(_variant("too early, adds up"))[1]
    expect(weights, right, kinds)
    wrong_if(None in losses, "nothing")
    wrong_if(not same([array(loss, (), "one number, the loss") for loss in losses], right_losses), "other loss")
    return "Four steps on hidden batches, and all weights lie where they should."


class _Watched(nn.Module):
    """A tiny network that logs every pass: its mode, its weights, its inputs and outputs."""

    def __init__(self):
        super().__init__()
        self.norm, self.line, self.log = nn.BatchNorm1d(3), nn.Linear(3, 1), []

    def forward(self, x):
        said = self.line(self.norm(x)).flatten()
        weights = torch.cat([p.detach().flatten() for p in self.parameters()]).clone()
        self.log.append({"train": self.training, "x": x.detach(), "said": said.detach(), "weights": weights})
        return said


def _training(answer) -> str:
    """Three epochs of three batches, two batches of validation after each, of which one is small."""
    torch.manual_seed(2)
    model, epochs = _Watched(), 3
    batches = [(torch.randn(6, 3), (torch.rand(6) < 0.5).float()) for _ in range(3)]
    checks = [(torch.randn(n, 3), (torch.rand(n) < 0.5).float()) for n in (9, 2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    history = call(answer, model, batches, checks, optimizer, epochs)
    passes = [(any(torch.equal(step["x"], x) for x, _ in batches), step) for step in model.log]
    trained, validated = ([step for inside, step in passes if inside == wanted] for wanted in (True, False))
    wanted = {"wanted": len(batches) * epochs, "checks": len(checks) * epochs}
    odd = len(trained) != wanted["wanted"] or not validated or len(validated) % len(checks)
    wrong_if(odd, "passes", learned=len(trained), validated=len(validated), **wanted)
    wrong_if(len(validated) != wanted["checks"], "seldom", count=len(validated) // len(checks), epochs=epochs)
    moved = [not torch.equal(one["weights"], two["weights"]) for one, two in itertools.pairwise(model.log)]
    wrong_if(
        any(moves for moves, (inside, _) in zip(moved, passes, strict=False) if not inside), "learns from validation"
    )
    wrong_if(not any(moved), "still")
    wrong_if(any(step["train"] for step in validated), "no eval")
    wrong_if(not all(step["train"] for step in trained), "no train")
    right = [
        [(step["said"] > 0) == y.bool() for step, (_, y) in zip(validated[i : i + 2], checks, strict=True)]
        for i in (0, 2, 4)
    ]
    truth = np.array([torch.cat(each).float().mean().item() for each in right])
    batch_means = [np.mean([part.float().mean().item() for part in each]) for each in right]
    kinds = {"percent": 100 * truth, "batch means": batch_means, "errors": 1 - truth}
    found = array(history, (epochs,), f"a list of {epochs} accuracies")
    wrong_if(not same(found, truth), mistake(found, kinds, otherwise="accuracy"))
    return "Train mode to learn, eval mode to validate, and the weights rest while you look."


def _best_epoch(answer) -> str:
    """Histories in which the usual mistakes lead to another epoch each."""
    columns = ["epoch", "train_accuracy", "val_accuracy", "val_loss"]
    rows = [
        [1, 0.60, 0.55, 0.70], [2, 0.70, 0.80, 0.62], [3, 0.80, 0.85, 0.55], [4, 0.88, 0.70, 0.80],
        [5, 0.90, 0.85, 0.45], [6, 0.95, 0.85, 0.65], [7, 0.97, 0.75, 0.40], [8, 0.99, 0.72, 0.90],
    ]  # fmt: skip
    history = pd.DataFrame(rows, columns=columns)
    resumed = history[2:].reset_index(drop=True)  # epochs 3 to 8: the position is not the number
    early = history.assign(val_accuracy=[0.5, 0.9, 0.6, 0.7, 0.8, 0.7, 0.6, 0.5])
    for table, best in ((history, 5), (resumed, 5), (early, 2)):
        by = table.set_index("epoch")
        kinds = {
            "training": by.train_accuracy.idxmax(),
            "loss": by.val_loss.idxmin(),
            "value": by.val_accuracy.max(),
            "position": (best - table.epoch.iloc[0], table.val_accuracy.argmax()),
        }
        found = result(answer, table, wanted="one number, an epoch")
        wrong_if(found != best and found in by.index[by.val_accuracy == by.val_accuracy.max()], "tie")
        expect(found, best, kinds)
    return "That is the epoch whose weights `fit` keeps."


GRADERS = {"convolution": _convolution, "step": _step, "loop": _training, "best epoch": _best_epoch}
