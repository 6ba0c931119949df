"""The network, where its weights come from, and what of it is frozen."""

from __future__ import annotations

import hashlib
import json
import zlib
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .runs.files import PROJECT, nearest, replace_file, resolve
from .runs.settings import BACKBONES

# Mean and standard deviation of chest CT slices in a lung window, grey values from 0 to 1; notebook 01 checks them.
CT_MEAN, CT_STD = 0.6, 0.3
BUNDLED = PROJECT / "data" / "weights"


class Net(nn.Module):
    """A ResNet whose last layer is replaced by a single output, the logit of COVID.

    ResNet: He et al. 2016, https://arxiv.org/abs/1512.03385.

    Args:
        backbone: "resnet18", "resnet34" or "resnet50".

    Attributes:
        net: the torchvision network; its last block of layers is `net.layer4`, its head `net.fc`.
        preprocess: function from grey slices, uint8 (N, H, W), to the network's input, float32 (N, 3, H, W).
        origin: where the weights came from ("scratch", "bundled", "imagenet" or a file).
        field: how much of the image's width `preprocess` keeps, 0 to 1 (it may crop the centre).
    """

    def __init__(self, backbone: str = "resnet18"):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"Unknown backbone {backbone!r}: {nearest(backbone, BACKBONES)}")
        self.net = torchvision.models.get_model(backbone, weights=None)
        self.net.fc = nn.Linear(self.net.fc.in_features, 1)
        self.backbone = backbone
        self.origin = "scratch"
        self.preprocess = normalise
        self.field = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (N,), of a batch x, float32 (N, 3, H, W); sigmoid(logit) is the probability of COVID."""
        return self.net(x).flatten()


def normalise(images: Tensor, mean: float = CT_MEAN, std: float = CT_STD) -> Tensor:
    """Grey slices, uint8 (N, H, W), for the network: float32 (N, 3, H, W), about zero mean and unit variance."""
    grey = (images.float() / 255 - mean) / std
    return grey.unsqueeze(1).expand(-1, 3, -1, -1)


def imagenet_preprocess(images: Tensor, transforms) -> Tensor:
    """Grey slices, uint8 (N, H, W), through the preprocessing that torchvision publishes with its weights."""
    return transforms(images.unsqueeze(1).expand(-1, 3, -1, -1))


def build_model(backbone: str = "resnet18", weights: str = "scratch", image_size: int = 96) -> Net:
    """A network with a new head, and the trunk (all else) from `weights`.

    Args:
        backbone: "resnet18", "resnet34" or "resnet50".
        weights: "scratch" (random, from torch's generator), "bundled" (ours, pretrained on phantom findings),
            "imagenet" (torchvision's default ones, downloaded once) or a .safetensors file.
        image_size: pixels; ImageNet's own preprocessing resizes to 232/224 of it and crops the centre.

    Raises:
        ValueError: unknown backbone or weights, a damaged file, or weights of another architecture.
        ConnectionError: the ImageNet weights are not on this machine and there is no network.
    """
    model = Net(backbone)
    if weights == "scratch":
        return model
    if weights == "imagenet":
        state = _imagenet_state(backbone)
        _use_imagenet_preprocessing(model, image_size)
    else:
        path = _bundled(backbone) if weights == "bundled" else resolve(weights)
        if not path.is_file():
            known = ("scratch", "bundled", "imagenet")
            raise ValueError(f"Unknown weights {weights!r}, and no file {path}: {nearest(weights, known)}")
        state, _ = read_weights(path)
    _load_trunk(model, state, weights)
    model.origin = weights
    return model


def _load_trunk(model: Net, state: dict[str, Tensor], weights: str) -> None:
    """Put all weights but the head's into the network; shapes must agree."""
    trunk = {name.removeprefix("net."): tensor for name, tensor in state.items()}
    trunk = {name: tensor for name, tensor in trunk.items() if not name.startswith("fc.")}
    own = {name: tensor for name, tensor in model.net.state_dict().items() if not name.startswith("fc.")}
    wrong = [name for name in own if name not in trunk or trunk[name].shape != own[name].shape]
    if wrong or len(trunk) != len(own):
        first = (wrong or sorted(set(trunk) - set(own)))[0]
        raise ValueError(
            f"The weights {weights!r} are of another architecture than {model.backbone} (they differ at {first}): "
            "give the backbone they were trained with."
        )
    model.net.load_state_dict(trunk, strict=False)


def _use_imagenet_preprocessing(model: Net, image_size: int) -> None:
    """Preprocess as torchvision does for these weights: resize to 232/224 of the size, crop, its mean and variance."""
    resized = round(image_size * 232 / 224)
    weights = torchvision.models.get_model_weights(model.backbone).DEFAULT
    transforms = weights.transforms(crop_size=image_size, resize_size=resized)
    model.preprocess = partial(imagenet_preprocess, transforms=transforms)
    model.field = image_size / resized


def _imagenet_state(backbone: str) -> dict[str, Tensor]:
    """torchvision's default ImageNet weights, from the local torch-hub cache or the network."""
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise ConnectionError(
            f"The ImageNet weights could not be downloaded ({error}): without a network use weights='bundled' "
            f"with backbone {_there()}, or copy {file.name} from another machine to {file}."
        ) from None
    except Exception as error:  # a damaged file raises anything from EOFError to KeyError
        raise ValueError(f"{file} is damaged ({error!r}): delete it, so that it is downloaded anew.") from None
    return state


def _there() -> str:
    """The backbones that have bundled weights, as words."""
    return " or ".join(sorted(file.stem for file in BUNDLED.glob("*.safetensors")))


def _bundled(backbone: str) -> Path:
    """The bundled weights' file, its SHA-256 compared with the recorded one."""
    path = BUNDLED / f"{backbone}.safetensors"
    if not path.is_file():
        raise ValueError(f"No bundled weights for {backbone!r} in {BUNDLED}: use backbone {_there()}.")
    sums = dict(line.split()[::-1] for line in (BUNDLED / "SHA256SUMS").read_text().splitlines())
    if hashlib.sha256(path.read_bytes()).hexdigest() != sums[path.name]:
        raise ValueError(f"{path} is damaged (its SHA-256 is not the recorded one): run `git checkout {path}`.")
    return path


# -------------------------------------------------------------------------------------------------- files


def save_weights(path: Path, state: dict[str, Tensor], notes: dict, step: float | None = None) -> None:
    """Write weights as safetensors, whole or not at all.

    Args:
        path: file to write.
        state: names and tensors.
        notes: anything JSON can hold; kept in the file's header.
        step: round each output channel of a kernel to multiples of this share of its standard deviation (or of a 127th
            of its largest number, if that is more), and pack them with zlib; 0 to 0.25 makes a quarter to a seventh.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if step is not None:
        for name in [name for name, tensor in state.items() if tensor.dim() > 1]:
            channels = state[name].flatten(1)
            scale = torch.maximum(step * channels.std(1, correction=0), channels.abs().amax(1) / 127).clamp_min(1e-12)
            whole = (channels / scale[:, None]).round().to(torch.int8)
            state[f"{name}.scale"], state[f"{name}.shape"] = scale, torch.tensor(state[name].shape)
            state[name] = torch.frombuffer(bytearray(zlib.compress(whole.numpy(), 9)), dtype=torch.uint8)
    replace_file(path, lambda temporary: save_file(state, temporary, metadata={"notes": json.dumps(notes)}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and notes of a safetensors file; packed kernels come back as float32.

    Raises ValueError, naming the file, if it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
        for name in [name.removesuffix(".scale") for name in state if name.endswith(".scale")]:
            scale, shape = state.pop(f"{name}.scale"), state.pop(f"{name}.shape")
            whole = torch.frombuffer(bytearray(zlib.decompress(state[name].numpy())), dtype=torch.int8)
            state[name] = (whole.view(len(scale), -1) * scale[:, None]).view(shape.tolist())
    except (SafetensorError, ValueError, KeyError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or holds no weights of ours ({error}): make or fetch it again.") from None
    return state, notes


def load_model(path: Path) -> tuple[Net, dict]:
    """The network of a checkpoint that `training.fit` wrote, in eval mode, and the checkpoint's notes.

    Raises FileNotFoundError if there is none, ValueError if it is damaged or no checkpoint of ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No checkpoint {path}: train the model first (notebooks 02 and 03).")
    state, notes = read_weights(path)
    if "parameters" not in notes:
        raise ValueError(f"{path} holds weights but no checkpoint of this course: give one that `fit` wrote.")
    parameters = notes["parameters"]
    model = Net(parameters["backbone"])
    if parameters["weights"] == "imagenet":
        _use_imagenet_preprocessing(model, parameters["image_size"])
    model.origin = parameters["weights"]
    model.load_state_dict(state)
    return model.eval(), notes


# ------------------------------------------------------------------------------------------------ freezing


def freeze(model: Net, trainable: str = "layer4") -> Net:
    """Let only `layer4` and the head learn ("layer4"), or everything ("all"). Returns the same network."""
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(trainable == "all" or name.startswith(("layer4.", "fc.")))
    return model


def train_mode(model: nn.Module) -> None:
    """`model.train()`, but frozen batch norms stay in eval mode.

    A batch norm keeps a running mean and variance that follow the batches in train mode *without* any gradient,
    so `requires_grad=False` alone does not freeze it (https://pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html).
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def parameter_table(model: Net) -> pd.DataFrame:
    """A row per parameter tensor: name, shape, how many numbers, and whether they learn."""
    rows = [(n, tuple(p.shape), p.numel(), p.requires_grad) for n, p in model.named_parameters()]
    return pd.DataFrame(rows, columns=["parameter", "shape", "numbers", "trainable"])


def block_table(model: Net) -> pd.DataFrame:
    """A row per block of the network: how many numbers it has and how many of them learn."""
    table = parameter_table(model)
    table["block"] = table.parameter.str.split(".").str[1]
    table["learning"] = table.numbers.where(table.trainable, 0)
    return table.groupby("block", sort=False)[["numbers", "learning"]].sum()
