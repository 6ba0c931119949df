"""The network, stages and a head: how it is made, and which of its stages are frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

from .core.checks import check_slices
from .core.device import autocast
from .core.files import did_you_mean
from .io.weights import efficientnet_lite0, load_pretrained, preprocessing_of, pretrained

# Mean and standard deviation of chest CT slices in a lung window, grey values from 0 to 1; notebook 01 checks them.
CT_MEAN, CT_STD = 0.6, 0.3
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
LAYERS, LAST = STAGES[1:-1], STAGES[-2]  # each layer sees half the height and width of the one before


@dataclasses.dataclass(frozen=True)
class Backbone:
    """How a network is made, and the names of the modules in it that make up its stages, in their order."""

    make: Callable[[], nn.Module]
    stem: str
    layer1: str
    layer2: str
    layer3: str
    layer4: str
    head: str
    output: str  # the linear layer at the head's end, replaced by one with a single output
    first_convolution: str


# He et al. 2016, https://arxiv.org/abs/1512.03385
RESNET = ("conv1 bn1 relu maxpool", *LAYERS, "fc", "fc", "conv1")
BACKBONES = {
    "resnet18": Backbone(torchvision.models.resnet18, *RESNET),
    "resnet34": Backbone(torchvision.models.resnet34, *RESNET),
    "resnet50": Backbone(torchvision.models.resnet50, *RESNET),
    "efficientnet_lite0": Backbone(  # Tan and Le 2019, https://arxiv.org/abs/1905.11946, in its version for phones
        efficientnet_lite0, "conv_stem bn1 blocks.0", "blocks.1", "blocks.2", "blocks.3 blocks.4",
        "blocks.5 blocks.6 conv_head bn2", "classifier", "classifier", "conv_stem",
    ),
}  # fmt: skip


def normalise(images: Tensor, mean: float | Sequence[float] = CT_MEAN, std: float | Sequence[float] = CT_STD) -> Tensor:
    """Grey slices, uint8 (N, …, H, W), for the network: float32 (N, 3, H, W), about zero mean and unit variance.

    >>> normalise(torch.full((1, 2, 2), 153, dtype=torch.uint8)).shape  # 153 / 255 is the mean, so all are 0
    torch.Size([1, 3, 2, 2])
    """
    mean, std = (torch.as_tensor(each, device=images.device).view(-1, 1, 1) for each in (mean, std))
    grey = images.reshape(len(images), 1, *images.shape[-2:]).float() / 255
    return ((grey - mean) / std).expand(-1, 3, -1, -1)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What weights want of their input: a mean and a deviation, and for ImageNet's a centre crop of an enlarged slice.

    Attributes:
        mean, std: one number, or one for each of the three channels, for grey values from 0 to 1.
        crop_fraction: how much of the slice's width and height is kept, 0 to 1.
        interpolation: how the slice is enlarged before the crop.
    """

    mean: Sequence[float] = (CT_MEAN,)
    std: Sequence[float] = (CT_STD,)
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"

    def __call__(self, images: Tensor) -> Tensor:
        """Grey slices, uint8 (N, H, H), as the network's input, float32 (N, 3, H, H); ValueError if they are not."""
        check_slices(images)
        if self.crop_fraction < 1:
            size = images.shape[-1]
            wide = [round(size / self.crop_fraction)]
            images = center_crop(resize(images.unsqueeze(1), wide, InterpolationMode(self.interpolation)), [size])
        return normalise(images, self.mean, self.std)


class Net(nn.Module):
    """A network for one yes or no: trunk (stem to `layer3`), last stage (`layer4`), classifier head with one output.

    Args:
        backbone: a name in BACKBONES.

    Attributes:
        net: the network that it is made of, its own names inside.
        preprocess: a Preprocessing, from grey slices, uint8 (N, H, W), to the input, float32 (N, 3, H, W).
        bfloat16: whether "learning" and "answering" are faster in this number format (see `runs.formats`).
        origin: where the weights came from ("scratch", "bundled", "imagenet" or a file).
    """

    def __init__(self, backbone: str = "resnet18"):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"Unknown backbone {backbone!r}: {did_you_mean(backbone, BACKBONES)}")
        row = BACKBONES[backbone]
        self.net = row.make()
        self.net.set_submodule(row.output, nn.Linear(self.net.get_submodule(row.output).in_features, 1))
        self.backbone, self.origin, self.preprocess = backbone, "scratch", Preprocessing()
        self.bfloat16: dict[str, bool] = {}

    def parts(self, *stages: str) -> list[nn.Module]:
        """The modules of stages ("stem", "layer1" to "layer4", "head"), in their order, with the network's weights."""
        names = " ".join(getattr(BACKBONES[self.backbone], stage) for stage in stages).split()
        return [self.net.get_submodule(name) for name in names]

    def trunk(self, x: Tensor, until: str = LAST) -> Tensor:
        """Inputs, float32 (N, 3, H, W), as features of the stages before `until`, (N, C, h, w)."""
        for part in self.parts(*STAGES[: STAGES.index(until)]):
            x = part(x)
        return x

    def pooled(self, features: Tensor, since: str = LAST) -> Tensor:
        """What `trunk` hands to stage `since`, through all stages from there on, averaged over all places: (N, C)."""
        for part in self.parts(*STAGES[STAGES.index(since) : -1]):
            features = part(features)
        return adaptive_avg_pool2d(features, 1).flatten(1)

    def tail(self, features: Tensor, since: str = LAST) -> Tensor:
        """Logits, float32 (N,), of what `trunk` hands to stage `since`: the stages from there on, average, head."""
        (head,) = self.parts("head")
        return head(self.pooled(features, since)).flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (N,), of a batch x, float32 (N, 3, H, W); sigmoid(logit) is the probability of COVID."""
        return self.tail(self.trunk(x))


class Tail(nn.Module):
    """What is left to train on kept features, float (N, C, h, w): the stages that learn, as they are in the model."""

    def __init__(self, model: Net):
        super().__init__()
        self.model, self.since = model, first_to_learn(model)
        self.preprocess, self.bfloat16 = Tensor.float, model.bfloat16

    def forward(self, features: Tensor) -> Tensor:
        return self.model.tail(features, self.since)


def ask(model: nn.Module, images: Tensor, part: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """What a network (or only a `part` of it) answers to slices, uint8 (N, H, W): on its device, in its number format.

    To a GPU they travel as bytes, a twelfth of what they become, and from pinned memory, so that nothing waits for it.
    """
    x = prepare(model, images)
    direction = "learning" if torch.is_grad_enabled() else "answering"
    with autocast(x.device, model.bfloat16.get(direction, True)):
        return (part or model)(x)


def prepare(model: nn.Module, images: Tensor) -> Tensor:
    """Slices, uint8 (N, H, W), or what a `Tail` takes, as input on the network's device, channels last: the fastest."""
    device = next(model.parameters()).device
    if device.type == "cuda" and not images.is_cuda:
        images = images.pin_memory()
    return model.preprocess(images.to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)


def build_model(backbone: str = "resnet18", weights: str = "scratch") -> Net:
    """A network with a new output layer, and all else from `weights`.

    Args:
        backbone: a name in BACKBONES.
        weights: "scratch" (random, from torch's generator), or what `pretrained` takes: "bundled", "imagenet", a file.

    Raises:
        ValueError: unknown backbone or weights, a damaged file, or weights of another architecture.
        ConnectionError: the ImageNet weights are not on this machine and there is no network.
    """
    model = Net(backbone)
    if weights == "scratch":
        return model
    state, notes = pretrained(backbone, weights)
    load_pretrained(model.net, state, f"The weights {weights!r}", backbone, spared=BACKBONES[backbone].output)
    model.origin, model.preprocess = weights, Preprocessing(**preprocessing_of(notes))
    return model


def freeze(model: Net, trainable: str = "last") -> Net:
    """Let the head learn and the stages from `trainable` on: "last", "layer3", "layer2", "all". Returns the network."""
    first = {"last": LAST, "all": "stem"}.get(trainable, trainable)  # else a stage's own name
    model.requires_grad_(False)
    for part in model.parts(*STAGES[STAGES.index(first) :]):
        part.requires_grad_()
    return model


def first_to_learn(model: Net) -> str:
    """The first stage that has a parameter which learns: what comes before it never changes."""
    learns = [s for s in STAGES if any(p.requires_grad for part in model.parts(s) for p in part.parameters())]
    return learns[0]


def train_mode(model: nn.Module) -> None:
    """`model.train()`, but what is frozen holds still.

    In train mode a batch norm's running mean and variance follow the batches *without* any gradient, and dropout and
    stochastic depth leave out parts at random, so `requires_grad=False` alone does not freeze them
    (https://pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html).
    """
    model.train()
    for module in model.modules():
        learns = [parameter.requires_grad for parameter in module.parameters()]
        if learns and not any(learns):
            module.eval()  # and all that it holds
