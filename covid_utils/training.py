"""One epoch, many epochs, checkpoints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from .data import CTData, loader
from .models import Net, build_model, freeze, load_model, read_weights, save_weights, train_mode
from .runs.device import pick_device
from .runs.files import replace_file, resolve, shown
from .runs.progress import progress
from .runs.settings import Settings
from .speed import TrunkCache, autocast, is_frozen, near, prepare

# ---------------------------------------------------------------------------------------------- one epoch


def train(model: Net, batches: Iterable, optimizer, scheduler=None) -> dict:
    """One pass over the training slices: every batch moves the weights a little.

    Args:
        model: the network; frozen parts stay as they are.
        batches: pairs of augmented images, uint8 (N, H, W), and labels, float32 (N,), 1 = COVID.
        optimizer: a torch optimizer over the parameters that learn.
        scheduler: changes the learning rate after every batch, or None.

    Returns:
        the epoch's `scores`, measured while the network was changing.

    Raises:
        FloatingPointError: the loss is no longer a finite number.
    """
    train_mode(model)
    logits, labels = [], []
    for images, y in batches:
        x = prepare(model, images)
        y = y.to(x.device, non_blocking=True)
        with autocast(x.device):
            logit = model(x)
        loss = binary_cross_entropy_with_logits(logit.float(), y)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()} in batch {len(logits) + 1}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        logits.append(logit.detach().float())
        labels.append(y)
    return scores(torch.cat(logits).cpu(), torch.cat(labels).cpu())


def test(model: Net, batches: Iterable) -> dict:
    """The `scores` of one pass over slices that the network does not learn from."""
    return scores(*predict(model, batches))


@torch.inference_mode()
def predict(model: Net, batches: Iterable) -> tuple[Tensor, Tensor]:
    """Logits and labels, both float32 (N,) on the CPU, of all slices, without learning."""
    model.eval()
    logits, labels = [], []
    for images, y in batches:
        x = prepare(model, images)
        with autocast(x.device):
            logits.append(model(x).float().cpu())
        labels.append(y)
    return torch.cat(logits), torch.cat(labels)


def scores(logits: Tensor, labels: Tensor) -> dict:
    """Loss (binary cross-entropy), accuracy, sensitivity, precision and confusion matrix.

    Args:
        logits: float32 (N,); above 0 means COVID.
        labels: float32 (N,), 0 or 1.

    Returns:
        dict; `confusion` is int (2, 2), rows the truth, columns the decision; a score without any case is nan.
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


# ---------------------------------------------------------------------------------------------- many epochs


def make_optimizer(model: Net, settings: Settings, steps: int):
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


def fit(
    model: Net,
    data: CTData,
    settings: Settings,
    folder: Path,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
) -> pd.DataFrame:
    """Train for `settings.epochs` epochs, keeping the best and the last checkpoint.

    The best epoch is the one with the highest validation accuracy (of equal ones, the lowest loss). An
    unfinished run in `folder` goes on where it stopped; each epoch draws its random numbers from the seed and
    its own number, so that a resumed run ends with the same bits as an uninterrupted one.

    Args:
        model: the network; left with the best epoch's weights, in eval mode.
        data: slices with their splits.
        settings: epochs, batch_size, learning_rate, optimizer, copies, seed, device, resume.
        folder: gets `checkpoints/best.safetensors`, `checkpoints/last.pt` and `history.csv`.
        on_epoch: called with the history after every epoch (a live plot, say).

    Returns:
        history, a row per epoch: epoch, seconds, and loss, accuracy, sensitivity, precision of
        both `train_…` and `val_…`.

    Raises:
        ValueError: an unfinished run of other parameters, or a damaged checkpoint.
        FloatingPointError: the loss became nan; the last good checkpoint is kept.
    """
    last, best = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best.safetensors"
    for leftover in [*last.parent.glob(".last.pt.*"), *last.parent.glob(".best.safetensors.*")]:
        leftover.unlink(missing_ok=True)  # what a kill in the middle of a save left
    torch.backends.cudnn.deterministic = True  # repeatable on a GPU too; a CPU is anyway
    device = pick_device(settings.device)
    model.to(device, memory_format=torch.channels_last)
    parameters, data = identity(settings, data), near(data, device)
    batches = loader(data, "train", settings.batch_size, shuffle=True, augmented=True)
    checks = loader(data, "val", settings.batch_size)
    optimizer, scheduler = make_optimizer(model, settings, steps=settings.epochs * len(batches))

    history = _resume(last, parameters, settings, model, optimizer, scheduler) if settings.resume else None
    if history is None:
        history = []
        _save_last(last, parameters, history, model, optimizer, scheduler)
    cache = TrunkCache(model, data, settings, folder) if settings.copies and is_frozen(model) else None
    while len(history) < settings.epochs:
        epoch, start = len(history) + 1, time.perf_counter()
        torch.manual_seed(settings.seed * 1_000_003 + epoch)
        try:
            learner, batches, checks = cache.epoch(epoch) if cache else (model, batches, checks)
            left = _time_left(history, settings.epochs)
            named = progress(batches, desc=f"epoch {epoch} of {settings.epochs}{left}", total=len(batches))
            learned = train(learner, named, optimizer, scheduler)
            checked = test(learner, checks)
            if not np.isfinite(checked["loss"]):
                raise FloatingPointError("the validation loss is no longer a number")
        except FloatingPointError as error:
            raise FloatingPointError(
                f"Epoch {epoch}: {error}. Lower learning_rate (now {settings.learning_rate}) and set resume=False, or "
                f"give another run_dir; {shown(last)} still holds epoch {epoch - 1}."
            ) from None
        row = {"epoch": epoch, "seconds": time.perf_counter() - start}
        for name, values in (("train", learned), ("val", checked)):
            row |= {f"{name}_{score}": value for score, value in values.items() if score != "confusion"}
        history.append(row)
        if best_epoch(history) == epoch:
            notes = {"parameters": parameters, "epoch": epoch, "val_accuracy": row["val_accuracy"]}
            save_weights(best, model.state_dict(), notes)
        table = pd.DataFrame(history)
        replace_file(folder / "history.csv", lambda path, table=table: table.to_csv(path, index=False))
        _save_last(last, parameters, history, model, optimizer, scheduler)
        if on_epoch:
            on_epoch(table)
    model.load_state_dict(read_weights(best)[0])
    model.eval()
    return pd.DataFrame(history)


def best_epoch(history: pd.DataFrame | list[dict]) -> int:
    """The epoch with the highest validation accuracy; of equal ones the one with the lowest validation loss."""
    ranked = pd.DataFrame(history).sort_values(["val_accuracy", "val_loss"], ascending=[False, True])
    return int(ranked.epoch.iloc[0])


def identity(settings: Settings, data: CTData) -> dict:
    """What makes two runs the same run: all parameters but places and the device, and the data's fingerprint."""
    parameters = dataclasses.asdict(settings)
    for name in ("run_dir", "data_dir", "resume", "device"):
        del parameters[name]
    if settings.weights == "scratch":
        parameters["trainable"] = "all"  # whatever is asked for: nothing is frozen then
    if parameters["trainable"] == "all":
        parameters["copies"] = 0  # and so there is nothing to keep
    return parameters | {"data": data.fingerprint}


def differing(one: dict, other: dict) -> str:
    """The parameters in which two runs differ, as text: "epochs=3 instead of 12"."""
    names = [name for name, value in other.items() if one.get(name) != value]
    texts = [f"{name}={one.get(name)!r} instead of {other[name]!r}" for name in names if name != "data"]
    return ", ".join(texts) or ("other slices (the data have changed since)" if names else "")


def _save_last(path: Path, parameters, history, model, optimizer, scheduler) -> None:
    """Everything it takes to go on after this epoch."""
    content = {
        "parameters": parameters,
        "history": history,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler else None,
    }
    replace_file(path, lambda temporary: torch.save(content, temporary))


def read_last(path: Path) -> dict:
    """The content of `last.pt`. Raises ValueError, naming the file, if it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}): delete it, or set resume=False to start anew.") from None


def _resume(path: Path, parameters: dict, settings: Settings, model, optimizer, scheduler) -> list[dict] | None:
    """Load an unfinished run of the same parameters and return its history; None if there is nothing to resume."""
    if not path.exists():
        return None
    found = read_last(path)
    if len(found["history"]) >= found["parameters"]["epochs"]:
        return None
    if found["parameters"] != parameters:
        raise ValueError(
            f"{shown(path.parent.parent)} holds an unfinished run with {differing(found['parameters'], parameters)}: "
            "give another run_dir, the same parameters, or set resume=False to start anew."
        )
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    if scheduler:
        scheduler.load_state_dict(found["scheduler"])
    return found["history"]


def _time_left(history: list[dict], epochs: int) -> str:
    """What is left, in minutes and seconds, judged by the epochs so far."""
    if not history:
        return ""
    seconds = round(np.mean([row["seconds"] for row in history]) * (epochs - len(history)))
    return f", {seconds // 60}:{seconds % 60:02d} left"


# ------------------------------------------------------------------------------------------- find or train


def new_model(settings: Settings) -> Net:
    """The network that `settings` describe: seeded, its weights loaded, frozen unless it starts from scratch."""
    torch.manual_seed(settings.seed)
    model = build_model(settings.backbone, settings.weights, settings.image_size)
    return freeze(model, "all" if settings.weights == "scratch" else settings.trainable)


def find_or_train(data: CTData, settings: Settings, name: str, on_epoch=None) -> tuple[Net, pd.DataFrame, str]:
    """The best epoch's network of a finished run in `run_dir/name`, trained first if there is none.

    Args:
        name: "scratch" or "transfer", the run's folder.

    Returns:
        network in eval mode, history, and one sentence saying where it came from.

    Raises:
        ValueError: the run there used other data or another backbone, so that it cannot be compared.
    """
    folder = resolve(settings.run_dir) / name
    last, best = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best.safetensors"
    found = read_last(last) if last.exists() else None
    if found is None or len(found["history"]) < found["parameters"]["epochs"]:
        model = new_model(settings)
        history = fit(model, data, settings, folder, on_epoch)
        return model, history, f"Trained the {name} model now, as {shown(folder)} held no finished one."
    wanted = identity(settings, data)
    same = ("dataset", "split", "seed", "image_size", "backbone", "weights", "data")
    clash = differing(found["parameters"], {key: wanted[key] for key in same})
    if clash:
        raise ValueError(f"{shown(folder)} was trained with {clash}: give another run_dir or the same parameters.")
    model, notes = load_model(best)
    other = differing(found["parameters"], wanted)
    text = f"Loaded the {name} model from {shown(folder)}, best epoch {notes['epoch']}"
    model.to(pick_device(settings.device), memory_format=torch.channels_last)
    return model, pd.DataFrame(found["history"]), text + (f"; it was trained with {other}." if other else ".")
