"""What a network trained on photographs calls a picture."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch import nn

from ..core.backbones import BACKBONES
from ..io.weights import LITE0, imagenet_preprocessing, pretrained
from ..plotting import BLUE, show, styled


def photograph_network() -> nn.Module:
    """EfficientNet-Lite0 as published: with the head that tells ImageNet's 1000 classes apart."""
    network = BACKBONES[LITE0].network()
    network.load_state_dict(pretrained(LITE0, "imagenet")[0])
    return network.eval()


@torch.inference_mode()
def name_picture(network: nn.Module, picture: np.ndarray, count: int = 3) -> dict[str, float]:
    """The likeliest of ImageNet's 1000 names for a picture, with their probabilities, the likeliest first.

    Args:
        network: as `photograph_network` gives it.
        picture: uint8, a photograph (H, W, 3) or a grey slice (H, W); all of it is seen, at 224 by 224 pixels.
    """
    small = Image.fromarray(np.asarray(picture)).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    (mean,), (std,) = (imagenet_preprocessing(LITE0)[name] for name in ("mean", "std"))
    chances, classes = network((x - mean) / std).softmax(1)[0].topk(count)
    synonyms = [ImageNetInfo().index_to_description(number).split(",") for number in classes.tolist()]
    return {first: chance for (first, *_), chance in zip(synonyms, chances.tolist(), strict=True)}


@styled
def show_names(pictures: list[np.ndarray], names: list[dict[str, float]], alt: str) -> None:
    """Show pictures, and under each the names that `name_picture` gave it, as bars."""
    figure, axes = plt.subplots(
        2, len(pictures), figsize=(3.6 * len(pictures), 4.4), squeeze=False, height_ratios=(2.4, 1)
    )
    for picture, found, (top, bottom) in zip(pictures, names, axes.T, strict=True):
        top.imshow(picture, cmap="gray")
        top.axis("off")
        bottom.barh(range(len(found)), list(found.values()), color=BLUE, alpha=0.35)
        for place, (name, chance) in enumerate(found.items()):
            bottom.text(0.02, place, f"{name}  {chance:.0%}", va="center", fontsize=10)
        bottom.set(xlim=(0, 1), ylim=(len(found) - 0.5, -0.5), yticks=(), xlabel="probability")
    figure.tight_layout()
    show(figure, alt, photo=True, small=True)
