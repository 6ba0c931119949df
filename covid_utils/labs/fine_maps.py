"""Maps finer than a layer's cells, and which of all maps to believe."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core.files import did_you_mean
from ..explain import cam, look_inside
from ..models import Net
from ..training import predict

METHODS = ("GradCAM", "EigenCAM", "HiResCAM", "LayerCAM")
MAPS = {  # name: method, layers whose maps are multiplied, views of each slice
    **{f"{layer} {method}": (method, (layer,), 1) for layer in ("layer4", "layer3", "layer2") for method in METHODS},
    "layer3 HiResCAM, nine views": ("HiResCAM", ("layer3",), 9),
    "layer3 × layer2 HiResCAM, nine views": ("HiResCAM", ("layer3", "layer2"), 9),
}


def cells(model: Net, layer: str, image_size: int) -> int:
    """How many cells a layer has each way for slices of so many pixels."""
    activations, _, _ = look_inside(model, torch.zeros(1, image_size, image_size, dtype=torch.uint8), layer)
    return activations.shape[-1]


def fine_cam(model: Net, images: Tensor, method: str = "HiResCAM", layer: str = "layer3", targets=None) -> np.ndarray:
    """Class activation maps at twice a layer's resolution: the mean over nine views of each slice.

    The grid of cells hangs on the slice's edge. So the slice is shown nine times, moved by half a cell up or down, left
    or right, or not at all, and each map is moved back: where the moved cells overlap, they say which part of a cell is
    hot. What a view shows beyond the slice repeats the slice's edge.

    Args: as for `explain.cam`; without `targets` the decision for the slice that was not moved.

    Returns:
        float32 (N, H, W), each map scaled to 0…1 by itself.
    """
    if targets is None:
        targets = (predict(model, images) > 0).int().tolist()
    size = images.shape[-1]
    half = size // cells(model, layer, size) // 2
    wide = pad(images[:, None].float(), (half,) * 4, mode="replicate")[:, 0].to(torch.uint8)
    corners = [(down, right) for down in (0, half, 2 * half) for right in (0, half, 2 * half)]
    windows = [(..., slice(down, down + size), slice(right, right + size)) for down, right in corners]
    maps = cam(model, torch.cat([wide[window] for window in windows]), method, layer, list(targets) * 9)
    heat, views = np.zeros(tuple(wide.shape), np.float32), np.zeros(tuple(wide.shape[1:]), np.float32)
    for window, moved in zip(windows, np.split(maps, 9), strict=True):
        heat[window] += moved
        views[window] += 1
    mean = (heat / views)[:, half : half + size, half : half + size]
    return mean / np.maximum(mean.max((1, 2), keepdims=True), 1e-7)


def named_map(model: Net, images: Tensor, name: str, targets=None) -> np.ndarray:
    """The maps that a name in MAPS stands for; those of several layers are multiplied (their geometric mean).

    Args and returns: as for `fine_cam`. Raises ValueError for an unknown name.
    """
    if name not in MAPS:
        raise ValueError(f"Unknown map {name!r}: {did_you_mean(name, MAPS)}")
    method, layers, views = MAPS[name]
    if targets is None and len(layers) > 1:  # asked for once, not for each layer
        targets = (predict(model, images) > 0).int().tolist()
    one = cam if views == 1 else fine_cam
    product = np.prod([one(model, images, method, layer, targets) for layer in layers], axis=0)
    return product ** (1 / len(layers))


def titled_maps(networks: dict[str, Net], images: Tensor, kinds: dict[str, str], targets=None) -> dict[str, np.ndarray]:
    """The map that `kinds` names for each network, under a title in two or three lines for a figure.

    Returns: {title: float32 (N, H, W)}.
    """
    titles = {name: f"{name}\n{kinds[name].replace(' HiResCAM, ', chr(10))}" for name in networks}
    return {titles[name]: named_map(model, images, kinds[name], targets) for name, model in networks.items()}
