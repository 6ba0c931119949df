"""The networks that can be trained, a row each; PyTorch is imported only when one is made."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Backbone:
    """How a network is made, and which of its modules make up its stages (their names, in the order they compute)."""

    make: str | Callable[..., Any]  # "package:function", or a function; it returns the network with random weights
    stem: str  # names of modules, separated by spaces
    layer1: str
    layer2: str
    layer3: str
    layer4: str
    head: str  # pooling comes before it
    output: str  # the linear layer at the head's end, replaced by one with a single output
    amp: bool = False  # whether it trains faster in bfloat16, where the hardware multiplies in it

    def network(self) -> Any:
        """The network, a torch.nn.Module, with random weights from torch's global generator."""
        make = pkgutil.resolve_name(self.make) if isinstance(self.make, str) else self.make
        return make()


# He et al. 2016, https://arxiv.org/abs/1512.03385
RESNET = ("conv1 bn1 relu maxpool", "layer1", "layer2", "layer3", "layer4", "fc", "fc", True)
BACKBONES = {
    "resnet18": Backbone("torchvision.models:resnet18", *RESNET),
    "resnet34": Backbone("torchvision.models:resnet34", *RESNET),
    "resnet50": Backbone("torchvision.models:resnet50", *RESNET),
    # Tan and Le 2019, https://arxiv.org/abs/1905.11946, in its version for phones; its convolutions with a kernel for
    # each channel train slower in bfloat16 on a CPU (42 against 65 images/s)
    "efficientnet_lite0": Backbone(
        "timm.models.efficientnet:tf_efficientnet_lite0",
        stem="conv_stem bn1 blocks.0",
        layer1="blocks.1",
        layer2="blocks.2",
        layer3="blocks.3 blocks.4",
        layer4="blocks.5 blocks.6 conv_head bn2",
        head="classifier",
        output="classifier",
    ),
}
