"""Parameters of a run, and files that are written whole or not at all."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parents[1]


def home() -> Path:
    """Where relative paths start: the project's folder, or COVID_UTILS_HOME (tests keep to themselves with it)."""
    return Path(os.environ.get("COVID_UTILS_HOME", PROJECT)).resolve()


def resolve(path: str | Path) -> Path:
    """Absolute path; a relative one starts at the project's folder, wherever the notebook runs."""
    return home() / Path(path).expanduser()


def shown(path: str | Path) -> str:
    """A path as a reader should see it: relative to the project's folder where it lies inside it."""
    path = resolve(path)
    return path.relative_to(home()).as_posix() if path.is_relative_to(home()) else str(path)


def nearest(name: object, choices: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest right one, or all of them."""
    choices = list(choices)
    close = difflib.get_close_matches(str(name).lower(), choices, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(map(repr, choices))}."


def replace_file(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all.

    `write(temporary)` fills a temporary file beside `path`, which then takes its name in one step, so that
    a reader, a full disk or a kill never leaves half a file there.

    Raises OSError, in one sentence, if the folder cannot be written to or the disk is full; whatever stood
    at `path` is still there then.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        # torch and safetensors report a full disk as errors of their own
        full = any(words in str(error) for words in ("No space left", "unexpected pos", "PytorchStreamWriter"))
        if isinstance(error, OSError) or full:
            reason = getattr(error, "strerror", None) or ("No space left on device" if full else str(error))
            raise OSError(
                f"Cannot write {path}: {reason}. Free some space or choose another folder with run_dir or "
                "data_dir; what was there before is unchanged."
            ) from error
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    text = json.dumps(content, indent=2, default=_plain) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises ValueError, naming the file, if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it and run the notebook again.") from None


def _plain(value: Any) -> Any:
    """NumPy and torch scalars and arrays, and paths, as JSON knows them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


# --------------------------------------------------------------------------------------------- parameters

BACKBONES = ("resnet18", "resnet34", "resnet50")
CHOICES = {
    "split": ("patient", "random"),
    "backbone": BACKBONES,
    "trainable": ("layer4", "all"),
    "optimizer": ("adamw", "sgd"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
LIMITS = {  # lowest and highest sensible value
    "image_size": (32, 1024),
    "patients": (20, 1_000_000),
    "copies": (0, 1000),
    "epochs": (1, 10_000),
    "batch_size": (2, 4096),
    "learning_rate": (1e-8, 10.0),
    "seed": (0, 2**31 - 1),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parameters that the notebooks share; every value is checked when it is made.

    Raises ValueError, naming the parameter, if a value has the wrong type, is out of range or unknown.
    """

    dataset: str = "phantom"  # "phantom", "sars-cov-2-ct", "covid-ct" or a folder of your own
    data_dir: str = "data"  # where drawn and downloaded data are kept
    split: str = "patient"  # "patient" keeps a patient's slices together; "random" is what the article did
    image_size: int = 96  # pixels
    patients: int = 240  # how many imaginary patients dataset="phantom" draws
    backbone: str = "resnet18"
    weights: str = "scratch"  # "scratch", "bundled", "imagenet" or a .safetensors file
    trainable: str = "layer4"  # with pretrained weights: "layer4" (and the head), or "all"
    copies: int = 4  # with a frozen trunk: augmented copies of each slice whose features are kept; 0 keeps none
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: str = "adamw"  # "adamw" with a one-cycle schedule, or the article's "sgd"
    seed: int = 0
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
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"Unknown {name} {value!r}: {nearest(value, CHOICES[name])}")
    return value


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError if one of the names is no parameter of any notebook."""
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"Unknown parameter {name!r}: {nearest(name, FIELDS)}")


def check_parameters(namespace: dict[str, Any]) -> Settings:
    """The notebook's parameters as checked `Settings`.

    `namespace` is the notebook's `globals()`. papermill only warns of a parameter that a notebook does not
    know, so the names in the cell it injects (it starts with `# Parameters`) are checked here.

    Raises ValueError, naming the parameter, if one is unknown, has no effect in this notebook, or is wrong.
    """
    own = set()
    for source in namespace.get("In", []):
        if not source.lstrip().startswith("# Parameters"):
            own |= set(re.findall(r"^(\w+) = ", source, re.MULTILINE))
            continue
        given = re.findall(r"^(\w+) = ", source, re.MULTILINE)
        check_names(given)
        for name in given:
            if name not in own:
                raise ValueError(f"Parameter {name!r} has no effect in this notebook: leave it out.")
    return Settings(**{name: namespace[name] for name in FIELDS if name in namespace})


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on; "auto" takes a CUDA GPU where there is one. ValueError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise ValueError(f"This machine has no device {name!r}: use device='auto' or 'cpu'.")
    return torch.device(name)


# ------------------------------------------------------------------------------------------ what a run leaves


def record(settings: Settings, section: str, metrics: dict, fingerprint: str, seconds: float) -> None:
    """Add a section to the run's `metrics.json`, and to `manifest.json` what it takes to repeat it.

    The manifest holds the parameters, versions, git commit, data fingerprint, device and seconds of each section.
    """
    folder = resolve(settings.run_dir)
    manifest = {
        "parameters": dataclasses.asdict(settings),
        "versions": {
            name: metadata.version(name)
            for name in ("torch", "torchvision", "numpy", "opencv-python-headless", "grad-cam")
        },
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "commit": _commit(),
        "data": fingerprint,
        "device": str(pick_device(settings.device)),
        "seconds": round(seconds, 1),
    }
    for name, content in (("metrics.json", metrics), ("manifest.json", manifest)):
        path = folder / name
        write_json(path, (read_json(path) if path.exists() else {}) | {section: content})


def _commit() -> str | None:
    """The project's git commit, or None outside a checkout."""
    call = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
