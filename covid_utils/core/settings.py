"""The parameters of a run, checked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .files import did_you_mean

CHOICES = {
    "split": ("patient", "random"),
    "trainable": ("last", "layer3", "layer2", "all"),
    "optimizer": ("adamw", "sgd"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
LIMITS = {  # lowest and highest sensible value
    "image_size": (32, 1024),
    "patients": (20, 1_000_000),
    "slices": (0, 10_000_000),
    "copies": (0, 1000),
    "epochs": (1, 10_000),
    "batch_size": (2, 4096),
    "learning_rate": (1e-8, 10.0),
    "seed": (0, 2**31 - 1),
    "data_seed": (-1, 2**31 - 1),
    "seeds": (2, 1000),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parameters that the notebooks share; every value is checked when it is made.

    Raises ValueError, naming the parameter, if a value has the wrong type, is out of range or unknown.

    >>> Settings(epochs=3).batch_size
    32
    """

    dataset: str = "phantom"  # a name in io.datasets.DATASETS, or a folder of your own
    data_dir: str = "data"  # where drawn and downloaded data are kept
    split: str = "patient"  # "patient" keeps a patient's slices together; "random" is what the article did
    image_size: int = 96  # pixels
    patients: int = 240  # how many imaginary patients dataset="phantom" draws
    slices: int = 0  # training slices to learn from, half of either class (benchmarks/few_slices.ipynb); 0: all
    backbone: str = "resnet18"
    weights: str = "scratch"  # "scratch", "bundled", "imagenet" or a .safetensors file
    trainable: str = "last"  # of pretrained weights, the first stage that learns: "layer2", "layer3", "last"; or "all"
    copies: int = 4  # with frozen stages: augmented copies of each slice whose features are cached; 0 caches none
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: str = "adamw"  # "adamw" with a one-cycle schedule, or the article's "sgd"
    seed: int = 0
    data_seed: int = -1  # of the slices and their split, where a sweep varies it apart from the network's; -1: `seed`
    seeds: int = 3  # how many a sweep tries (notebook 6)
    device: str = "auto"  # "auto" takes a CUDA GPU if there is one; or "cpu", "cuda", "mps"
    run_dir: str = "runs/default"
    resume: bool = True  # go on with an unfinished run of the same parameters

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value, or a ValueError that says what the parameter wants."""
    name, kind = field.name, field.type
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, Path):
        value = str(value)
    wanted = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}[kind]
    if type(value).__name__ != kind:
        hint = " (in YAML, write 1.0e-4 rather than 1e-4)" if kind == "float" and isinstance(value, str) else ""
        raise ValueError(f"Parameter {name} must be {wanted}, not {value!r}{hint}.")
    if kind == "str" and not value.strip():
        raise ValueError(f"Parameter {name} is empty: give {wanted}.")
    if name in LIMITS and not LIMITS[name][0] <= value <= LIMITS[name][1]:
        low, high = LIMITS[name]
        raise ValueError(f"Parameter {name} must lie between {low} and {high}, not {value!r}.")
    if name == "trainable" and value == "layer4":
        return "last"
    choices = CHOICES.get(name) or (_backbones() if name == "backbone" and value != field.default else (value,))
    if value not in choices:
        raise ValueError(f"Unknown {name} {value!r}: {did_you_mean(value, choices)}")
    return value


def _backbones() -> tuple[str, ...]:
    from ..models import BACKBONES  # here, since torchvision takes seconds to import: `--help` need not wait for it

    return tuple(BACKBONES)


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError if one of the names is no parameter of any notebook."""
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"Unknown parameter {name!r}: {did_you_mean(name, FIELDS)}")


def check_parameters(namespace: dict[str, Any]) -> Settings:
    """The notebook's parameters as checked `Settings`.

    `namespace` is the notebook's `globals()`. papermill only warns of a parameter that a notebook does not
    know, so the names in the cell it injects (it starts with `# Parameters`) are checked here.

    Raises ValueError, naming the parameter, if one is unknown, has no effect in this notebook, or is wrong.
    """
    own = set()
    for source in namespace.get("In", []):
        if source.lstrip().splitlines()[:1] != ["# Parameters"]:
            own |= set(re.findall(r"^(\w+) = ", source, re.MULTILINE))
            continue
        given = re.findall(r"^(\w+) = ", source, re.MULTILINE)
        check_names(given)
        for name in given:
            if name not in own:
                raise ValueError(f"Parameter {name!r} has no effect in this notebook: leave it out.")
    return Settings(**{name: namespace[name] for name in FIELDS if name in namespace})


def read_profile(path: str | Path) -> dict[str, Any]:
    """The parameters of a YAML file, `name: value` in every line, checked as those of the command line are.

    All values are read as text first, so that 1e-4 is a number and 017 is 17.
    Raises ValueError, naming the file, if it can't be read.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read the profile {path}: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"The profile {path} must hold a line `name: value` for every parameter.")
    try:
        return typed(content)
    except ValueError as error:
        raise ValueError(f"Profile {path}: {error}") from None


def typed(texts: dict[str, str]) -> dict[str, Any]:
    """Parameters given as text, as the types that `Settings` wants.

    Raises ValueError, naming the parameter, if a name is unknown or a value wrong.

    >>> typed({"learning_rate": "1e-4", "seed": "017", "resume": "False"})
    {'learning_rate': 0.0001, 'seed': 17, 'resume': False}
    """
    check_names(texts)
    values: dict[str, Any] = dict(texts)
    for name, text in texts.items():
        kind = FIELDS[name].type
        try:
            if kind in ("int", "float"):
                values[name] = {"int": int, "float": float}[kind](text)
            elif kind == "bool" and str(text).lower() in ("true", "false"):
                values[name] = text.lower() == "true"
        except (ValueError, TypeError):
            pass  # Settings says what is wrong with it
    Settings(**values)
    return values
