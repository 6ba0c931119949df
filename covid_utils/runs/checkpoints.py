"""Checkpoints of a training: the best and the last epoch, and the history."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import pandas as pd
import torch

from ..core.files import display_path, replace_file
from ..core.settings import Settings
from ..io.weights import read_weights, save_weights
from ..training import best_epoch


def run_key(settings: Settings, fingerprint: str) -> dict:
    """What makes two runs the same run: all parameters but paths and the device, and the data's fingerprint."""
    parameters = dataclasses.asdict(settings)
    for name in ("run_dir", "data_dir", "data_seed", "resume", "device", "seeds", "keep_network"):
        del parameters[name]
    if settings.weights == "scratch":
        parameters["trainable"] = "all"  # whatever the setting: nothing is frozen then
    if parameters["trainable"] == "all":
        parameters["copies"] = 0  # and so there is nothing to cache
    return parameters | {"data": fingerprint}


def differing(one: dict, other: dict) -> str:
    """The parameters in which two runs differ, as text; the same slices may have another path.

    >>> differing({"epochs": 3, "seed": 0}, {"epochs": 12, "seed": 0})
    'epochs=3 instead of 12'
    """
    names = [name for name in one | other if one.get(name) != other.get(name)]
    if "data" in one and "data" not in names:
        names = [name for name in names if name != "dataset"]
    texts = [f"{name}={one.get(name)!r} instead of {other.get(name)!r}" for name in names if name != "data"]
    return ", ".join(texts) or ("other slices (the data have changed since)" if names else "")


def read_last(path: Path) -> dict:
    """The content of `last.pt`. Raises ValueError, naming the file, if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare checksums
            if wrong := archive.testzip():
                raise ValueError(f"the checksum of {wrong} is wrong")
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not {"history", "parameters"} <= found.keys():
            raise ValueError("it is no checkpoint of this course")
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}): delete it to train again.") from None
    return found


def is_finished(last: dict) -> bool:
    """Whether a run, as `read_last` returns it, has trained all its epochs."""
    return len(last["history"]) >= last["parameters"]["epochs"]


class Checkpoint:
    """The files of one training, in `folder`: `checkpoints/best.safetensors`, `checkpoints/last.pt`, `history.csv`.

    `parameters` say what the run is (see `run_key`); a run of others that is there is replaced only with `overwrite`.
    """

    def __init__(self, folder: Path, parameters: dict, model, optimizer, scheduler=None, overwrite: bool = False):
        self.folder, self.parameters, self.overwrite = folder, parameters, overwrite
        self.parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        self.last, self.best = (folder / "checkpoints" / name for name in ("last.pt", "best.safetensors"))

    def resume(self) -> list[dict]:
        """The history of an unfinished run of the same parameters, which goes on; or an empty one, saved as such.

        A finished run is trained again. Raises ValueError if a run of other parameters is there, or a damaged file.
        """
        found = None if self.overwrite or not self.last.exists() else read_last(self.last)
        if found and (others := differing(found["parameters"], self.parameters)):
            kind = "a finished" if is_finished(found) else "an unfinished"
            raise ValueError(
                f"{display_path(self.folder)} holds {kind} run with {others}: give another run_dir, the same "
                "parameters, or set resume=False to replace it."
            )
        if found is None or is_finished(found):
            self._save_last([])
            return []
        for name, part in self.parts.items():
            if part is not None:
                part.load_state_dict(found[name])
        return found["history"]

    def save(self, history: list[dict]) -> None:
        """Keep the last epoch of `history`, also as the best one if it is. Raises OSError if the disk is full."""
        if best_epoch(history) == len(history):
            model, row = self.parts["model"], history[-1]
            notes = {"parameters": self.parameters, "epoch": row["epoch"], "val_accuracy": row["val_accuracy"]}
            notes["preprocessing"] = dataclasses.asdict(model.preprocess)
            save_weights(self.best, model.state_dict(), notes)
        table = pd.DataFrame(history)
        replace_file(self.folder / "history.csv", lambda path: table.to_csv(path, index=False))
        self._save_last(history)

    def load_best(self) -> None:
        """Put the best epoch's weights into the model, and the model into eval mode."""
        self.parts["model"].load_state_dict(read_weights(self.best)[0])
        self.parts["model"].eval()

    def _save_last(self, history: list[dict]) -> None:
        """Everything it takes to go on after this epoch."""
        content = {"parameters": self.parameters, "history": history}
        content |= {name: None if part is None else part.state_dict() for name, part in self.parts.items()}
        replace_file(self.last, lambda temporary: torch.save(content, temporary))
