"""A training by its settings; a finished one is used again, a missing one is made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from ..core.device import pick_device, seeded, to_device_if_fits
from ..core.files import display_path, lock_folder, resolve
from ..core.memory import explain_out_of_memory
from ..core.settings import Settings
from ..data import CTData, Slices, augment, loader
from ..io.preprocessing import Preprocessing
from ..io.weights import LITE0, read_weights
from ..models import FeatureHead, Net, build_model, first_trainable_stage, freeze
from ..training import fit, make_optimizer
from .checkpoints import Checkpoint, differing, is_finished, read_last, run_key
from .feature_cache import CachedFeatures


def new_model(settings: Settings) -> Net:
    """The network that `settings` describe: seeded, its weights loaded, frozen unless it starts from scratch."""
    if torch.get_default_dtype() != torch.float32:
        raise ValueError("PyTorch's default dtype is not float32 here: run torch.set_default_dtype(torch.float32).")
    with seeded(settings.seed):
        model = build_model(settings.backbone, settings.weights)
    return freeze(model, "all" if settings.weights == "scratch" else settings.trainable)


def train(model: Net, data: CTData, settings: Settings, folder: Path, curves=None) -> pd.DataFrame:
    """Train a model as `settings` say: `training.fit` with the loaders, optimizer and checkpoint of a run in `folder`.

    An unfinished run there goes on. The best epoch's weights are in the model afterwards. Where stages are frozen, and
    `copies` is not 0, only the others are trained, on cached features.

    Returns the history. Raises, with advice, FloatingPointError if the loss becomes NaN, MemoryError, OSError (also if
    another process trains in the folder), and ValueError if the folder holds a run of other parameters.
    """
    device, size = pick_device(settings.device), settings.batch_size
    model.to(device, memory_format=torch.channels_last)
    data = dataclasses.replace(data, images=to_device_if_fits(data.images, device))
    if settings.copies > 0 and first_trainable_stage(model) != "stem":
        trained, slices, copies = FeatureHead(model), Slices(data, "train"), settings.copies
        train_loader = CachedFeatures(model, slices, size, folder, True, augment, copies, settings.seed)
        val_loader = CachedFeatures(model, Slices(data, "val"), size, folder)
    else:
        trained, val_loader = model, loader(data, "val", size)
        train_loader = loader(data, "train", size, shuffle=True, augmented=True)
    steps = settings.epochs * len(train_loader)
    optimizer, scheduler = make_optimizer(model, settings.learning_rate, steps, settings.optimizer)
    key = run_key(settings, data.fingerprint)
    checkpoint = Checkpoint(folder, key, model, optimizer, scheduler, overwrite=not settings.resume)
    with explain_failures(settings, folder):
        return fit(
            trained, train_loader, val_loader, optimizer, scheduler, device,
            settings.epochs, settings.seed, checkpoint, curves,
        )  # fmt: skip


@contextlib.contextmanager
def explain_failures(settings: Settings, folder: Path) -> Iterator[None]:
    """Around a training in `folder`: one process at a time, and what can go wrong is raised as `train` says."""
    lower = f"batch_size (now {settings.batch_size}), image_size (now {settings.image_size}) or copies"
    try:
        with explain_out_of_memory(lower), lock_folder(folder):
            yield
    except FloatingPointError as error:
        rate = f"lower learning_rate (now {settings.learning_rate})"
        raise FloatingPointError(f"{error}: {rate} and set resume=False, or give another run_dir.") from None


def load_or_train(data: CTData, settings: Settings, name: str, curves=None) -> tuple[Net, pd.DataFrame, str]:
    """The best epoch's network of a finished run in `run_dir/name`, such as "scratch", trained first if there is none.

    Returns the network in eval mode, the history, and one sentence saying where it came from. Raises ValueError if the
    run there used other data or another backbone, so that it cannot be compared.
    """
    folder = resolve(settings.run_dir) / name
    last, best = folder / "checkpoints" / "last.pt", folder / "checkpoints" / "best.safetensors"
    found = read_last(last) if last.exists() else None
    if found is None or not is_finished(found):
        model = new_model(settings)
        history = train(model, data, settings, folder, curves)
        return model, history, f"Trained the {name} model now, as {display_path(folder)} held no finished one."
    wanted = run_key(settings, data.fingerprint)
    same = ("dataset", "split", "seed", "image_size", "backbone", "weights", "data")
    clash = differing(*({name: each.get(name) for name in same} for each in (found["parameters"], wanted)))
    if clash:
        raise ValueError(f"{display_path(folder)} was trained with {clash}: give another run_dir or the same values.")
    model, notes = load_model(best)
    other = differing(found["parameters"], wanted)
    text = f"Loaded the {name} model from {display_path(folder)}, best epoch {notes['epoch']}"
    model.to(pick_device(settings.device), memory_format=torch.channels_last)
    return model, pd.DataFrame(found["history"]), text + (f"; it was trained with {other}." if other else ".")


def scratch_settings(settings: Settings) -> Settings:
    """The settings of notebook 2's network from scratch, the baseline of the one that `settings` describe.

    Backbone, batch size and learning rate are those of the run in `run_dir/scratch`; without one, those in `settings`,
    but for an EfficientNet, which trains too slowly from scratch (docs/results.md), those of notebook 2's ResNet-18.
    """
    last = resolve(settings.run_dir) / "scratch" / "checkpoints" / "last.pt"
    default = vars(Settings() if settings.backbone == LITE0 else settings)
    found = read_last(last)["parameters"] if last.exists() else default
    same = {name: found[name] for name in ("backbone", "batch_size", "learning_rate")}
    return dataclasses.replace(settings, weights="scratch", **same)


def load_model(path: Path) -> tuple[Net, dict]:
    """The network of a checkpoint that `train` wrote, in eval mode, and the checkpoint's notes.

    Raises FileNotFoundError if there is none, ValueError if it is damaged or no checkpoint of ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No checkpoint {path}: train the model first (notebooks 02 and 03).")
    state, notes = read_weights(path)
    if not {"parameters", "preprocessing"} <= notes.keys():
        raise ValueError(f"{path} holds weights but no checkpoint of this course: give one that training wrote.")
    model = Net(notes["parameters"]["backbone"])
    model.preprocess = Preprocessing(**notes["preprocessing"])
    model.load_state_dict(state)
    return model.eval(), notes
