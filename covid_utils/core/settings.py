"""The parameters of a run, checked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from .backbones import BACKBONES
from .files import did_you_mean

Text = Annotated[str, Field(min_length=1), BeforeValidator(lambda it: str(it) if isinstance(it, Path) else it)]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parameters that the notebooks share, checked: ValueError, naming the parameter, if a value is wrong."""

    dataset: Text = "phantom"  # a name in io.datasets.DATASETS, or a folder of your own
    data_dir: Text = "data"  # where synthetic and downloaded data are cached
    split: Literal["patient", "random"] = "patient"  # "patient" keeps a patient's slices together, "random" does not
    image_size: Annotated[int, Field(ge=32, le=1024)] = 96  # pixels
    patients: Annotated[int, Field(ge=20, le=1_000_000)] = 240  # how many synthetic patients dataset="phantom" draws
    slices: Annotated[int, Field(ge=0, le=10_000_000)] = 0  # training slices, half of them of either class; 0: all
    backbone: str = "resnet18"  # a name in backbones.BACKBONES
    weights: Text = "scratch"  # "scratch", "bundled", "imagenet" or a .safetensors file
    trainable: Literal["last", "layer3", "layer2", "all"] = "last"  # the first trainable stage of pretrained weights
    copies: Annotated[int, Field(ge=0, le=1000)] = 4  # cached augmentations of each slice, with frozen stages; or 0
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    learning_rate: Annotated[float, Field(ge=1e-8, le=10)] = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"  # "adamw" with a one-cycle schedule, or the article's "sgd"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data_seed: Annotated[int, Field(ge=-1, lt=2**31)] = -1  # of the slices and their split; -1: `seed` is
    seeds: Annotated[int, Field(ge=2, le=1000)] = 3  # how many a sweep tries (notebook 9)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # "auto" takes a CUDA GPU if there is one
    run_dir: Text = "runs/default"
    keep_network: bool = True  # of train.ipynb: whether its checkpoints stay when the scores are recorded
    resume: bool = True  # continue an unfinished run of the same parameters

    def __post_init__(self) -> None:
        for name, field in FIELDS.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), field.validate_python))


FIELDS = {
    name: TypeAdapter(kind, config=ConfigDict(strict=True))
    for name, kind in get_type_hints(Settings, include_extras=True).items()
}


def _checked(name: str, value: Any, validate) -> Any:
    """The value as pydantic returns it. Raises ValueError, naming the parameter, if it refuses it."""
    if name == "backbone" and value not in list(BACKBONES):  # a row can be added at any time
        raise ValueError(f"Unknown backbone {value!r}: {did_you_mean(value, BACKBONES)}")
    try:
        return validate(value)
    except ValidationError as error:
        raise ValueError(f"Parameter {name}: {error.errors()[0]['msg']}, not {value!r}.") from None


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError if one of the names is no parameter of any notebook."""
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"Unknown parameter {name!r}: {did_you_mean(name, FIELDS)}")


def check_parameters(namespace: dict[str, Any]) -> Settings:
    """A notebook's parameters, in its `globals()`, as checked `Settings`.

    papermill only warns of a parameter that a notebook does not know, so the names in the cell it injects (its first
    line is `# Parameters`) are checked here. Raises ValueError, naming the parameter, if one is unknown, has no effect
    in this notebook, or is wrong.
    """
    own, injected = set(), set()
    for cell in namespace.get("In", []):
        names = injected if cell.lstrip().startswith("# Parameters\n") else own
        names.update(re.findall(r"^(\w+) = ", cell, re.MULTILINE))
    check_names(injected)
    for name in injected - own:
        raise ValueError(f"Parameter {name!r} has no effect in this notebook: leave it out.")
    return Settings(**{name: namespace[name] for name in FIELDS if name in namespace})


class _Texts(yaml.BaseLoader):
    """Reads all values as text, so that 1e-4 is a number and 017 is 17, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} is given twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file, all values as text. Raises ValueError, naming the file, if it can't be read."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Texts)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read {path}: {' '.join(str(error).split())}.") from None


def read_profile(path: str | Path) -> dict[str, Any]:
    """The parameters of a YAML file, `name: value` a line. Raises ValueError, naming the file, if one is wrong."""
    content = read_yaml(path)
    try:
        if not isinstance(content, dict):
            raise ValueError("every line must be `name: value`.")
        return typed(content)
    except ValueError as error:
        raise ValueError(f"Profile {path}: {error}") from None


def typed(texts: dict[str, str]) -> dict[str, Any]:
    """Parameters given as text, as the types that `Settings` wants. ValueError, naming the parameter, if one is wrong.

    >>> typed({"learning_rate": "1e-4", "seed": "017", "resume": "False"})
    {'learning_rate': 0.0001, 'seed': 17, 'resume': False}
    """
    check_names(texts)
    return {name: _checked(name, text, FIELDS[name].validate_strings) for name, text in texts.items()}
