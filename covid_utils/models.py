"""The network: how it is made, and which of its stages are frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from .core.backbones import BACKBONES
from .core.files import did_you_mean
from .io.preprocessing import Preprocessing
from .io.weights import load_pretrained, pretrained

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
LAYERS = STAGES[1:-1]  # the feature map of each has half the height and width of the one before


class StagedModule(nn.Module):
    """A network in stages, for what works on a part of it: freezing, cached features, CAM, OOD scores."""

    net: nn.Module
    backbone: str

    def parts(self, *stages: str) -> list[nn.Module]:
        """The modules of stages ("stem", "layer1" to "layer4", "head"), in forward order."""
        row = BACKBONES[self.backbone]  # row.stem, for example, is "conv1 bn1 relu maxpool"
        names = [name for stage in stages for name in getattr(row, stage).split()]
        return [self.net.get_submodule(name) for name in names]

    def forward_features(self, x: Tensor, before: str = "layer4") -> Tensor:
        """The features that go into the stage `before`, float32 (N, C, h, w), of the network's input (N, 3, H, W)."""
        for part in self.parts(*STAGES[: STAGES.index(before)]):
            x = part(x)
        return x

    def embed(self, features: Tensor, first: str = "layer4") -> Tensor:
        """The head's input, (N, C): features passed through the stages from `first` on, averaged over locations."""
        for part in self.parts(*STAGES[STAGES.index(first) : -1]):
            features = part(features)
        return adaptive_avg_pool2d(features, 1).flatten(1)

    def forward_head(self, features: Tensor, first: str = "layer4") -> Tensor:
        """Logits, float32 (N,), from the features that go into the stage `first` (timm's takes those of the last)."""
        (head,) = self.parts("head")
        return head(self.embed(features, first)).flatten()


class Net(StagedModule):
    """A network with one logit: above 0 it predicts COVID, and sigmoid(logit) is the probability.

    Args:
        backbone: a name in BACKBONES. ValueError if it is unknown, or fails `check_stages`.

    Attributes:
        net: the network of torchvision or timm, with a new output layer.
        preprocess: normalises slices, uint8 (N, H, H), to input, float32 (N, 3, H, H); leaves float input as it is.
        amp: whether it trains faster in bfloat16 (see `core.device.use_amp`).
    """

    def __init__(self, backbone: str = "resnet18"):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"Unknown backbone {backbone!r}: {did_you_mean(backbone, BACKBONES)}")
        row = BACKBONES[backbone]
        self.backbone, self.amp = backbone, row.amp
        self.preprocess = Preprocessing()
        self.net = row.network()
        features = self.net.get_submodule(row.output).in_features
        self.net.set_submodule(row.output, nn.Linear(features, 1))
        check_stages(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (N,), of slices, uint8 (N, H, H), or of preprocessed ones, float32 (N, 3, H, H)."""
        return self.net(self.preprocess(images)).flatten()


class FeatureHead(nn.Module):
    """A model from its first trainable stage on: from cached features, float16 (N, C, h, w), to logits."""

    def __init__(self, model: Net):
        super().__init__()
        self.model, self.first, self.amp = model, first_trainable_stage(model), model.amp

    def forward(self, features: Tensor) -> Tensor:
        return self.model.forward_head(features.float().contiguous(memory_format=torch.channels_last), self.first)


@torch.no_grad()
def check_stages(model: Net) -> None:
    """Raise ValueError if a network's stages, one after the other, compute something else than its own forward pass.

    That happens if its row of BACKBONES leaves something out: the last ReLU of torchvision's DenseNet, say, is a
    function in its `forward`, and no module that a row could name.
    """
    model.eval()
    x = torch.linspace(-1, 1, 3 * 64 * 64).sin().view(1, 3, 64, 64)  # draws no random numbers
    own, staged = model.net(x).flatten(), model.forward_head(model.forward_features(x))
    model.train()
    if not torch.allclose(own, staged, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"The stages of backbone {model.backbone!r} compute another network than its own forward pass "
            f"(logit {staged.item():.4f} instead of {own.item():.4f}): name every module in its row of BACKBONES."
        )


def build_model(backbone: str = "resnet18", weights: str = "scratch") -> Net:
    """A network with a new output layer, and its other parameters from `weights`.

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
    model.preprocess = Preprocessing(**notes.get("preprocessing", {}))
    return model


def freeze(model: Net, trainable: str = "last") -> Net:
    """Freeze all stages before `trainable`: "last" trains layer4 and head, "all" everything; returns the model."""
    first = {"last": "layer4", "all": "stem"}.get(trainable, trainable)  # else a stage's own name
    if first not in STAGES:
        raise ValueError(f"Unknown stage {trainable!r}: {did_you_mean(trainable, ['last', 'all', *STAGES])}")
    model.requires_grad_(False)
    for part in model.parts(*STAGES[STAGES.index(first) :]):
        part.requires_grad_()
    return model


def first_trainable_stage(model: Net) -> str:
    """The first stage with a trainable parameter: the features before it never change."""
    return next(s for s in STAGES if any(p.requires_grad for part in model.parts(s) for p in part.parameters()))


def train_with_frozen_bn(model: nn.Module) -> None:
    """`model.train()`, but with every frozen module in eval mode.

    In train mode a batch norm's running mean and variance follow the batches *without* any gradient, and dropout and
    stochastic depth leave out parts at random, so `requires_grad=False` alone does not freeze them
    (https://pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html).
    """
    model.train()
    for module in model.modules():
        trainable = [parameter.requires_grad for parameter in module.parameters()]
        if trainable and not any(trainable):
            module.eval()  # and all that it holds
