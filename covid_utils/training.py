"""One step, one epoch, many epochs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from .core.device import near, pick_device, repeatable
from .core.progress import progress, time_left
from .core.settings import Settings
from .data import CTData, loader
from .models import Net, ask, build_model, first_to_learn, freeze, train_mode
from .runs.checkpoints import Checkpoints, identity
from .runs.feature_cache import CachedAugmentations
from .runs.formats import choose_formats


def update(loss: Tensor, optimizer, scheduler=None) -> None:
    """Move the weights a little against the gradient of a loss (). Raises FloatingPointError if it is no number."""
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss.item()}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if scheduler:
        scheduler.step()


def train_one_epoch(model: nn.Module, batches: Iterable, optimizer, scheduler=None) -> dict:
    """One pass over the training slices: every batch moves the weights a little.

    Args:
        model: the network; frozen parts stay as they are.
        batches: pairs of augmented images, uint8 (N, H, W), and labels, float32 (N,), 1 = COVID.
        optimizer: a torch optimizer over the parameters that learn.
        scheduler: changes the learning rate after every batch, or None.

    Returns:
        the epoch's `metrics`, measured while the network was changing.
    """
    train_mode(model)
    logits, labels = [], []
    for images, y in batches:
        logit = ask(model, images).float()
        y = y.to(logit.device, non_blocking=True)
        update(binary_cross_entropy_with_logits(logit, y), optimizer, scheduler)
        logits.append(logit.detach())
        labels.append(y)
    return metrics(torch.cat(logits).cpu(), torch.cat(labels).cpu())


@repeatable()
@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, batch_size: int = 64) -> Tensor:
    """Logits, float32 (N,) on the CPU, of slices, uint8 (N, H, W), without learning."""
    model.eval()
    return torch.cat([ask(model, some).float().cpu() for some in images.split(batch_size)])


def evaluate(model: nn.Module, batches: Iterable) -> dict:
    """The `metrics` of one pass over slices that the network does not learn from."""
    logits, labels = zip(*((predict(model, images), y) for images, y in batches), strict=True)
    found = metrics(torch.cat(logits), torch.cat(labels))
    if not np.isfinite(found["loss"]):
        raise FloatingPointError("the validation loss is no longer a number")
    return found


def metrics(logits: Tensor, labels: Tensor) -> dict:
    """Loss (binary cross-entropy), accuracy, sensitivity, precision and confusion matrix.

    Args:
        logits: float32 (N,); above 0 means COVID.
        labels: float32 (N,), 0 or 1.

    Returns:
        dict; `confusion` is int (2, 2), rows the truth, columns the decision; a metric without any case is nan.

    >>> metrics(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([1.0, 0.0, 0.0]))["confusion"]
    [[1, 1], [0, 1]]
    """
    confusion = confusion_matrix(labels.numpy(), (logits > 0).numpy(), labels=[0, 1])
    (_, false_positive), (false_negative, true_positive) = confusion
    with np.errstate(invalid="ignore"):
        return {
            "loss": binary_cross_entropy_with_logits(logits, labels).item(),
            "accuracy": float(confusion.trace() / confusion.sum()),
            "sensitivity": float(true_positive / (true_positive + false_negative)),
            "precision": float(true_positive / (true_positive + false_positive)),
            "confusion": confusion.tolist(),
        }


def make_optimizer(model: nn.Module, settings: Settings, steps: int):
    """Optimizer and schedule over the parameters that learn.

    "adamw": AdamW (https://arxiv.org/abs/1711.05101) whose rate rises to `learning_rate` and falls again over
    all `steps` (one-cycle, https://arxiv.org/abs/1708.07120). "sgd": the article's, with momentum 0.99: after
    a hundred batches its steps are a hundred times `learning_rate`.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(learning, lr=settings.learning_rate, momentum=0.99), None
    optimizer = torch.optim.AdamW(learning, lr=settings.learning_rate, weight_decay=0.05, fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps)


def fit(model: Net, data: CTData, settings: Settings, folder: Path, on_epoch: Callable | None = None) -> pd.DataFrame:
    """Train for `settings.epochs` epochs; leaves the best one's weights in the model, and returns the history.

    The best epoch has the highest validation accuracy (of equal ones, the lowest loss). `folder` gets the checkpoints
    and `history.csv`; an unfinished run there goes on. `on_epoch` is called with the history after every epoch.
    """
    device = pick_device(settings.device)
    model.to(device, memory_format=torch.channels_last)
    data = dataclasses.replace(data, images=near(data.images, device))
    batches = loader(data, "train", settings.batch_size, shuffle=True, augmented=True)
    checks = loader(data, "val", settings.batch_size)
    optimizer, scheduler = make_optimizer(model, settings, steps=settings.epochs * len(batches))
    checkpoints = Checkpoints(folder, identity(settings, data.fingerprint), model, optimizer, scheduler)
    history = checkpoints.start(settings.resume)
    kept = settings.copies > 0 and first_to_learn(model) != "stem"
    if not history:
        choose_formats(model, data.images, kept)
    cache = CachedAugmentations(model, data, settings, folder) if kept else None
    while len(history) < settings.epochs:
        epoch, start = len(history) + 1, time.perf_counter()
        # random numbers of its own for each epoch, so that a run that goes on ends with the same bits
        with repeatable(settings.seed * 1_000_003 + epoch), checkpoints.advise(epoch):
            learner, batches, checks = cache.epoch(epoch) if cache else (model, batches, checks)
            watched = progress(batches, _title(history, settings.epochs), total=len(batches))
            trained = train_one_epoch(learner, watched, optimizer, scheduler)
            validated = evaluate(learner, checks)
        history.append(_row(epoch, time.perf_counter() - start, trained, validated))
        checkpoints.save(history, best=best_epoch(history) == epoch)
        if on_epoch:
            on_epoch(pd.DataFrame(history))
    checkpoints.load_best()
    return pd.DataFrame(history)


def best_epoch(history: pd.DataFrame | list[dict]) -> int:
    """The epoch with the highest validation accuracy; of equal ones the one with the lowest validation loss.

    >>> first, second = ({"epoch": i, "val_accuracy": 0.9, "val_loss": 1 / i} for i in (1, 2))
    >>> best_epoch([first, second])
    2
    """
    ranked = pd.DataFrame(history).sort_values(["val_accuracy", "val_loss"], ascending=[False, True])
    return int(ranked.epoch.iloc[0])


def new_model(settings: Settings) -> Net:
    """The network that `settings` describe: seeded, its weights loaded, frozen unless it starts from scratch."""
    with repeatable(settings.seed):
        model = build_model(settings.backbone, settings.weights)
    return freeze(model, "all" if settings.weights == "scratch" else settings.trainable)


def _row(epoch: int, seconds: float, trained: dict, validated: dict) -> dict:
    """An epoch's row in the history: its metrics but the confusion matrices."""
    parts = {"train": trained, "val": validated}
    values = {f"{part}_{name}": value for part, each in parts.items() for name, value in each.items()}
    return {"epoch": epoch, "seconds": seconds} | {k: v for k, v in values.items() if not k.endswith("confusion")}


def _title(history: list[dict], epochs: int) -> str:
    """What the progress line says: which epoch, and how long all will take, judged by those so far."""
    text = f"epoch {len(history) + 1} of {epochs}"
    if not history:
        return text
    return f"{text}, {time_left(np.mean([row['seconds'] for row in history]) * (epochs - len(history)))}"
