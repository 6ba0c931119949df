"""Maps with a finer grid than a layer's feature map, and names for the kinds of maps that are compared."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.files import did_you_mean
from ..explain import cam, find_layer, gradients_at_layer, network_input
from ..models import Net
from ..training import predict

METHODS = ("GradCAM", "EigenCAM", "HiResCAM", "LayerCAM")
MAPS = {  # name: method, layers whose maps are multiplied, views of each slice
    **{f"{layer} {method}": (method, (layer,), 1) for layer in ("layer4", "layer3", "layer2") for method in METHODS},
    "layer3 HiResCAM, nine views": ("HiResCAM", ("layer3",), 9),
    "layer3 × layer2 HiResCAM, nine views": ("HiResCAM", ("layer3", "layer2"), 9),
}


def fine_cam(model: Net, images: Tensor, method: str = "HiResCAM", layer: str = "layer3", targets=None) -> np.ndarray:
    """Shift-averaged class activation maps: the mean over nine shifted views, at twice a layer's resolution.

    The feature-map grid is fixed relative to the image border. So each slice is shown nine times, shifted by half a
    location up or down, left or right, or not at all, and each map is shifted back: where the shifted locations
    overlap, the mean says which part of a location is high. Beyond its border a view repeats the slice's edge.

    Args: as for `explain.cam`; without `targets` the decision for the unshifted slice.

    Returns:
        float32 (N, H, W), each map scaled to 0…1 by itself.
    """
    if targets is None:
        targets = (predict(model, images) > 0).int().tolist()
    size = images.shape[-1]
    activations, *_ = gradients_at_layer(model.eval(), network_input(model, images[:1]), find_layer(model, layer))
    half = size // activations.shape[-1] // 2
    wide = pad(images[:, None].float(), (half,) * 4, mode="replicate")[:, 0].to(torch.uint8)
    corners = [(down, right) for down in (0, half, 2 * half) for right in (0, half, 2 * half)]
    windows = [(..., slice(down, down + size), slice(right, right + size)) for down, right in corners]
    maps = cam(model, torch.cat([wide[window] for window in windows]), method, layer, list(targets) * 9)
    heat, views = np.zeros(tuple(wide.shape), np.float32), np.zeros(tuple(wide.shape[1:]), np.float32)
    for window, shifted in zip(windows, np.split(maps, 9), strict=True):
        heat[window] += shifted
        views[window] += 1
    mean = (heat / views)[:, half : half + size, half : half + size]
    return mean / np.maximum(mean.max((1, 2), keepdims=True), 1e-7)


def named_map(model: Net, images: Tensor, name: str, targets=None) -> np.ndarray:
    """The maps that a name in MAPS stands for; of several layers their geometric mean. Args, returns: as `fine_cam`."""
    if name not in MAPS:
        raise ValueError(f"Unknown map {name!r}: {did_you_mean(name, MAPS)}")
    method, layers, views = MAPS[name]
    compute = cam if views == 1 else fine_cam
    product = np.prod([compute(model, images, method, layer, targets) for layer in layers], axis=0)
    return product ** (1 / len(layers))
