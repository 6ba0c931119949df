"""One epoch, many epochs, and what is measured after each."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from .core.device import seeded, use_amp
from .core.progress import progress
from .models import train_with_frozen_bn


def train_one_epoch(model, loader, optimizer, scheduler, device):
    """One pass over the training slices, with one optimizer step per batch.

    Args:
        model: any nn.Module that turns the loader's images into logits; frozen parts stay as they are.
        loader: batches of images (for a `Net`: augmented slices, uint8 (N, H, H)) and labels, float32 (N,), 1 = COVID.
        optimizer: a torch optimizer over the trainable parameters.
        scheduler: changes the learning rate after every batch, or None.
        device: a torch.device, where the model is.

    Returns the epoch's `metrics`, measured while the weights were changing. FloatingPointError if the loss is NaN.
    """
    train_with_frozen_bn(model)
    amp, logits, labels = use_amp(model, device), [], []
    for images, y in loader:
        images = images.to(device, non_blocking=True)
        y = y.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logit = model(images).flatten()
        loss = binary_cross_entropy_with_logits(logit.float(), y)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        logits.append(logit.detach().float())
        labels.append(y)
    return metrics(torch.cat(logits).cpu(), torch.cat(labels).cpu())


@torch.inference_mode()
def evaluate(model, loader, device):
    """The `metrics` of one pass in eval mode, without updating weights; arguments as for `train_one_epoch`."""
    model.eval()
    logits, labels = [], []
    for images, y in loader:
        logits.append(model(images.to(device)).flatten().float().cpu())
        labels.append(y.cpu())
    return metrics(torch.cat(logits), torch.cat(labels))


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, batch_size: int = 64) -> Tensor:
    """Logits, float32 (N,) on the CPU, of slices, uint8 (N, H, H), or of input, float32 (N, 3, H, H), in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(batch.to(device)).flatten().float().cpu() for batch in images.split(batch_size)])


def metrics(logits: Tensor, labels: Tensor) -> dict:
    """Loss (binary cross-entropy), accuracy, sensitivity, precision and confusion matrix.

    Args:
        logits: float32 (N,); above 0 means COVID.
        labels: float32 (N,), 0 or 1.

    Returns:
        dict; `confusion` is int (2, 2), rows the true class, columns the predicted; a metric without any case is NaN.

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


def make_optimizer(model, learning_rate, steps, optimizer="adamw"):
    """Optimizer and learning-rate schedule over the trainable parameters.

    "adamw": AdamW (https://arxiv.org/abs/1711.05101) whose rate rises to `learning_rate` and falls again over all
    `steps`, one a batch (one-cycle, https://arxiv.org/abs/1708.07120; beta1 cycles with it). "sgd": the article's,
    whose momentum of 0.99 makes steps of up to a hundred times `learning_rate`; its schedule is None.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if optimizer == "sgd":
        return torch.optim.SGD(trainable, lr=learning_rate, momentum=0.99), None
    adamw = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.05, fused=True)
    return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, learning_rate, total_steps=steps)


def fit(model, train_loader, val_loader, optimizer, scheduler, device, epochs, seed=0, checkpoint=None, curves=None):
    """Train for `epochs` epochs and return the history, a DataFrame with a row per epoch.

    Args:
        model, train_loader, val_loader, optimizer, scheduler, device: as for `train_one_epoch`. If the training loader
            has a method `set_epoch`, it gets each epoch's number.
        seed: of shuffling and augmentation, with the epoch's number.
        checkpoint: a `runs.checkpoints.Checkpoint` of model, optimizer and scheduler: saves them after each epoch, goes
            on with an unfinished run, and loads the best epoch's weights at the end. None keeps the last epoch's.
        curves: its `update(history)` is called after each epoch (see `plotting.LiveCurves`), or None.
    """
    history = checkpoint.resume() if checkpoint else []
    for epoch in range(len(history) + 1, epochs + 1):
        start = time.perf_counter()
        if hasattr(train_loader, "set_epoch"):
            train_loader.set_epoch(epoch)
        # each epoch has its own seed, so that a resumed run is bitwise identical
        with seeded(seed * 1_000_003 + epoch):
            batches = progress(train_loader, f"epoch {epoch} of {epochs}")
            train = train_one_epoch(model, batches, optimizer, scheduler, device)
            val = evaluate(model, val_loader, device)
        history.append(epoch_row(epoch, time.perf_counter() - start, train, val))
        if checkpoint:
            checkpoint.save(history)
        if curves:
            curves.update(history)
    if checkpoint:
        checkpoint.load_best()
    return pd.DataFrame(history)


def best_epoch(history: pd.DataFrame | list[dict]) -> int:
    """The epoch with the highest validation accuracy; of equal ones the one with the lowest validation loss.

    >>> first, second = ({"epoch": i, "val_accuracy": 0.9, "val_loss": 1 / i} for i in (1, 2))
    >>> best_epoch([first, second])
    2
    """
    ranked = pd.DataFrame(history).sort_values(["val_accuracy", "val_loss"], ascending=[False, True])
    return int(ranked.epoch.iloc[0])


def epoch_row(epoch: int, seconds: float, train: dict, val: dict) -> dict:
    """An epoch's row in the history: its metrics but the confusion matrices. FloatingPointError for a loss of NaN."""
    if not np.isfinite(val["loss"]):
        raise FloatingPointError(f"the validation loss became {val['loss']}")
    parts = {"train": train, "val": val}
    values = {f"{part}_{name}": value for part, each in parts.items() for name, value in each.items()}
    return {"epoch": epoch, "seconds": seconds} | {k: v for k, v in values.items() if not k.endswith("confusion")}
