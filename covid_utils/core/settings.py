"""The parameters of a run, checked."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from .backbones import BACKBONES
from .files import did_you_mean

Text = Annotated[
    str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given), Field(pattern=r"\S")
]
Stage = Annotated[
    Literal["last", "layer3", "layer2", "all"],
    BeforeValidator(lambda stage: "last" if stage == "layer4" else stage),  # as it was called at first
]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parameters that the notebooks share; every value is checked when it is made.

    Raises ValueError, naming the parameter, if a value has the wrong type, is out of range or unknown.

    >>> Settings(epochs=3).batch_size
    32
    """

    dataset: Text = "phantom"  # a name in io.datasets.DATASETS, or a folder of your own
    data_dir: Text = "data"  # where drawn and downloaded data are cached
    split: Literal["patient", "random"] = "patient"  # "patient" keeps a patient's slices together, "random" does not
    image_size: Annotated[int, Field(ge=32, le=1024)] = 96  # pixels
    patients: Annotated[int, Field(ge=20, le=1_000_000)] = 240  # how many imaginary patients dataset="phantom" draws
    slices: Annotated[int, Field(ge=0, le=10_000_000)] = 0  # training slices, half of them of either class; 0: all
    backbone: str = "resnet18"  # a name in backbones.BACKBONES
    weights: Text = "scratch"  # "scratch", "bundled", "imagenet" or a .safetensors file
    trainable: Stage = "last"  # of pretrained weights, the first trainable stage: "layer2", "layer3", "last"; or "all"
    copies: Annotated[int, Field(ge=0, le=1000)] = 4  # cached augmentations of each slice, with frozen stages; or 0
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    learning_rate: Annotated[float, Field(ge=1e-8, le=10)] = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"  # "adamw" with a one-cycle schedule, or the article's "sgd"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data_seed: Annotated[int, Field(ge=-1, lt=2**31)] = -1  # of the slices and their split; -1: `seed` is
    seeds: Annotated[int, Field(ge=2, le=1000)] = 3  # how many a sweep tries (notebook 6)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # "auto" takes a CUDA GPU if there is one
    run_dir: Text = "runs/default"
    resume: bool = True  # continue an unfinished run of the same parameters

    def __post_init__(self) -> None:
        for name in FIELDS:
            object.__setattr__(self, name, _checked(name, getattr(self, name)))


FIELDS = {
    name: TypeAdapter(kind, config=ConfigDict(strict=True))
    for name, kind in get_type_hints(Settings, include_extras=True).items()
}
WANTED = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
FROM_TEXT = {int: int, float: float, bool: lambda text: {"true": True, "false": False}[text.lower()]}


def _checked(name: str, value: Any) -> Any:
    """The value as pydantic takes it, or a ValueError that says what the parameter wants."""
    if name == "backbone" and value not in list(BACKBONES):  # a row can be added at any time
        raise ValueError(f"Unknown backbone {value!r}: {did_you_mean(value, BACKBONES)}")
    try:
        return FIELDS[name].validate_python(value)
    except ValidationError as error:
        wrong, wanted, kind = error.errors()[0]["type"], FIELDS[name].json_schema(), type(getattr(Settings, name))
    if "enum" in wanted:
        raise ValueError(f"Unknown {name} {value!r}: {did_you_mean(value, wanted['enum'])}")
    if wrong == "string_pattern_mismatch":
        raise ValueError(f"Parameter {name} is empty: give a text.")
    if not wrong.endswith("_type"):
        high = wanted.get("maximum", wanted.get("exclusiveMaximum", 0) - 1)
        raise ValueError(f"Parameter {name} must lie between {wanted['minimum']} and {high}, not {value!r}.")
    hint = " (in YAML, write 1.0e-4 rather than 1e-4)" if kind is float and isinstance(value, str) else ""
    raise ValueError(f"Parameter {name} must be {WANTED[kind]}, not {value!r}{hint}.")


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError if one of the names is no parameter of any notebook."""
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"Unknown parameter {name!r}: {did_you_mean(name, FIELDS)}")


def check_parameters(namespace: dict[str, Any]) -> Settings:
    """The notebook's parameters as checked `Settings`.

    `namespace` is the notebook's `globals()`. papermill only warns of a parameter that a notebook does not
    know, so the names in the cell it injects (its first line is `# Parameters`) are checked here.

    Raises ValueError, naming the parameter, if one is unknown, has no effect in this notebook, or is wrong.
    """
    own, injected = set(), []
    for source in namespace.get("In", []):
        assigned = re.findall(r"^(\w+) = ", source, re.MULTILINE)
        if source.lstrip().splitlines()[:1] == ["# Parameters"]:
            injected += assigned
        else:
            own |= set(assigned)
    check_names(injected)
    for name in injected:
        if name not in own:
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
    """The parameters of a YAML file, `name: value` in every line, checked as those of the command line are.

    Raises ValueError, naming the file, if it can't be read.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"The profile {path} must hold a line `name: value` for every parameter.")
    try:
        return typed(content)
    except ValueError as error:
        raise ValueError(f"Profile {path}: {error}") from None


def typed(texts: dict[str, Any]) -> dict[str, Any]:
    """Parameters given as text, as the types that `Settings` wants.

    Raises ValueError, naming the parameter, if a name is unknown or a value wrong.

    >>> typed({"learning_rate": "1e-4", "seed": "017", "resume": "False"})
    {'learning_rate': 0.0001, 'seed': 17, 'resume': False}
    """
    check_names(texts)
    values = dict(texts)
    for name, text in texts.items():
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # `_checked` says what is wrong
            values[name] = FROM_TEXT[type(getattr(Settings, name))](text)
    return {name: _checked(name, value) for name, value in values.items()}
