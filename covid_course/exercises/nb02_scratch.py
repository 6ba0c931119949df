"""Exercises of notebook 2: a convolution, the training step, the loop over epochs."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from scipy.signal import convolve2d, correlate2d
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from .grading import array, call, expect, mistake, same, wrong_if


def _convolution(answer) -> str:
    """Pictures of different height and width, kernels of 2 × 2 and 3 × 3, none of them symmetric."""
    for size, shape in ((3, (6, 9)), (2, (7, 5))):
        rng = np.random.default_rng(size)
        picture, kernel = rng.normal(size=shape), rng.normal(size=(size, size))
        right = correlate2d(picture, kernel, mode="valid")
        fits = {"height": right.shape[0], "width": right.shape[1]}
        try:
            out = call(answer, picture.copy(), kernel.copy())
        except (ValueError, IndexError) as error:
            said = str(error).rstrip(" .")
            wrong_if("broadcast" in said or "out of bounds" in said, "sticks out", error=said, **fits)
            raise
        got = np.shape(out)
        wrong_if(got == shape, "border", **fits)
        one_short = (tuple(np.subtract(shape, size)), right.shape[::-1])
        wrong_if(got in one_short, "one short", got=got, wanted=right.shape)
        out = array(out, right.shape, f"an array of shape {right.shape}")
        wrong_if(out[1:, 1:].any() and not (out[-1].any() and out[:, -1].any()), "last")
        kinds = {
            "zeros": 0 * right,
            "mean": right / size**2,
            "flipped": convolve2d(picture, kernel, mode="valid"),
            "no kernel": correlate2d(picture, np.ones((size, size)), mode="valid"),
        }
        expect(out, right, kinds)
    return "That is a convolution; a network has thousands of such kernels, and training sets their weights."


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


def _variant(order: str = "zero backward step", loss_of=bce):
    """A training step that does these things one after the other."""

    def step(model, x, labels, optimizer):
        loss = loss_of(model(x), labels)
        parts = {"zero": optimizer.zero_grad, "backward": loss.backward, "step": optimizer.step}
        for part in order.split():
            parts[part]()
        return loss.item()

    return step


def _step(answer) -> str:
    """Four steps, compared with those of a right step and of wrong ones."""
    right_losses, right = _steps(_variant())
    losses, weights = _steps(answer)
    wrong_if(any(loss is ... for loss in losses), "untried")
    wrong_if(np.ptp(weights, axis=0).max() == 0, "still")
    kinds = {
        "adds up": _steps(_variant("backward step"))[1],
        "too early": (_steps(_variant("step zero backward"))[1], _steps(_variant("step backward"))[1]),
        "uphill": _steps(_variant(loss_of=lambda logits, labels: -bce(logits, labels)))[1],
        "sigmoid": _steps(_variant(loss_of=lambda logits, labels: bce(logits.sigmoid(), labels)))[1],
    }
    expect(weights, right, kinds)
    wrong_if(None in losses, "nothing")
    wrong_if(not same([array(loss, (), "one number, the loss") for loss in losses], right_losses), "other loss")
    wrong_if(any(isinstance(loss, torch.Tensor) for loss in losses), "tensor")
    return "All weights are right after four steps on hidden batches."


def _end(model, batches: list, *orders: str) -> torch.Tensor:
    """The weights of a copy of this network after `_variant`s in these orders, in turn, on each of the batches."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for (x, labels), order in zip(batches, itertools.cycle(orders)):
        _variant(order)(model, x, labels, optimizer)
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def _training(answer) -> str:
    """Three epochs of three batches, two batches of validation after each, of which one is small."""
    torch.manual_seed(2)
    model, epochs, log = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0)), 3, []
    batches = [(torch.randn(6, 3), (torch.rand(6) < 0.5).float()) for _ in range(3)]
    checks = [(torch.randn(n, 3), (torch.rand(n) < 0.5).float()) for n in (9, 2)]
    start = copy.deepcopy(model)

    def note(module, inputs, logits):
        step = {"mode": module.training, "yes": logits.detach() > 0, "weights": module[1].weight.detach().clone()}
        batch = next((pair for pair in batches if torch.equal(inputs[0], pair[0])), None)
        log.append(step | {"batch": batch, "learn": batch is not None})

    model.register_forward_hook(note)
    history = call(answer, model, batches, checks, torch.optim.SGD(model.parameters(), lr=0.3), epochs)
    trained, validated = ([step for step in log if step["learn"] == learn] for learn in (True, False))
    wanted = {"wanted": len(batches) * epochs, "checks": len(checks) * epochs}
    odd = len(trained) != wanted["wanted"] or not validated or len(validated) % len(checks)
    wrong_if(odd, "passes", learned=len(trained), validated=len(validated), **wanted)
    wrong_if(len(validated) != wanted["checks"], "seldom", count=len(validated) // len(checks), epochs=epochs)
    moved = [step["learn"] for step, after in itertools.pairwise(log) if not same(step["weights"], after["weights"])]
    wrong_if(not all(moved), "learns from validation")
    wrong_if(not moved, "still")
    wrong_if(any(step["mode"] for step in validated), "no eval")
    wrong_if(not all(step["mode"] for step in trained), "no train")
    taken, correct, added = [step["batch"] for step in trained], "zero backward step", "backward step"
    sums = (_end(start, taken, added), _end(start, taken, correct, added, added))  # never emptied, or once per epoch
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    wrong_if(not same(weights, _end(start, taken, correct)), mistake(weights, {"adds up": sums}, otherwise="step"))
    right = [step["yes"] == y.bool() for step, (_, y) in zip(validated, checks * epochs, strict=True)]
    pairs = [[each.float() for each in right[i : i + 2]] for i in range(0, len(right), 2)]
    truth = np.array([torch.cat(pair).mean() for pair in pairs])
    batch_means = np.array([[each.mean() for each in pair] for pair in pairs]).mean(1)
    kinds = {"percent": 100 * truth, "batch means": batch_means, "errors": 1 - truth}
    found = array(history, (epochs,), f"a list of {epochs} accuracies")
    wrong_if(not same(found, truth), mistake(found, kinds, otherwise="accuracy"))
    return "Train mode to train, eval mode to validate, and validation changes no weight."


GRADERS = {"convolution": _convolution, "step": _step, "loop": _training}
