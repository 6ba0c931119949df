"""Class activation maps: which part of a slice weighed in the decision."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from pytorch_grad_cam import EigenCAM, GradCAM
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from torch import Tensor

from .models import Net
from .runs import nearest
from .training import to_device


class OrientedEigenCAM(EigenCAM):
    """EigenCAM whose arbitrary sign is chosen so that strongly active places come out bright.

    A principal component is defined only up to its sign (https://arxiv.org/abs/2008.00299 leaves it open).
    """

    def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth):
        maps = super().get_cam_image(input_tensor, target_layer, targets, activations, grads, eigen_smooth)
        strength = np.linalg.norm(activations, axis=1)
        strength = strength - strength.mean((1, 2), keepdims=True)
        return maps * np.where((maps * strength).sum((1, 2), keepdims=True) < 0, -1, 1)


METHODS = {"GradCAM": GradCAM, "EigenCAM": OrientedEigenCAM}


def cam(model: Net, images: Tensor, method: str = "GradCAM", layer: str = "layer4", explained=None) -> np.ndarray:
    """Class activation maps of a batch of slices.

    GradCAM (https://arxiv.org/abs/1610.02391) asks which places raise the explained class; EigenCAM
    (https://arxiv.org/abs/2008.00299) shows where the activations vary most and ignores the class.

    Args:
        model: the network; its parameters stay as they are, and it is left in eval mode.
        images: grey slices, uint8 (N, H, W).
        method: "GradCAM" or "EigenCAM".
        layer: "layer1" to "layer4"; its last block is looked at.
        explained: the class to explain for each slice, 0 or 1, (N,); by default the model's own decision.

    Returns:
        float32 (N, H, W), each map scaled to 0…1 by itself: brightness can't be compared between maps.

    Raises:
        ValueError: an unknown method or layer, or not one class per slice.
    """
    layers = ("layer1", "layer2", "layer3", "layer4")
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}: {nearest(method, METHODS)}")
    if layer not in layers:
        raise ValueError(f"Unknown layer {layer!r}: {nearest(layer, layers)}")
    if explained is not None and len(explained) != len(images):
        raise ValueError(f"explained has {len(explained)} classes for {len(images)} slices: give one a slice.")
    if not len(images):
        return np.zeros(tuple(images.shape), np.float32)
    model.eval()
    # no `with` block: the library's swallows errors (IndexError) raised inside it
    library = METHODS[method](model=model, target_layers=[getattr(model.net, layer)[-1]])
    try:
        # a frozen trunk passes no gradient unless the input asks for one
        maps = []
        for start in range(0, len(images), 32):  # in batches, as all activations and gradients are kept
            x = to_device(model, model.preprocess(images[start : start + 32])).float().requires_grad_(True)
            if explained is None:
                with torch.no_grad():
                    classes = (model(x) > 0).int().tolist()
            else:
                classes = explained[start : start + 32]
            targets = [BinaryClassifierOutputTarget(int(each)) for each in classes]
            maps.extend(library(input_tensor=x, targets=targets))
    finally:
        library.activations_and_grads.release()
        model.zero_grad(set_to_none=True)
    return _on_whole_slice(maps, images.shape[-1], model.field)


def _on_whole_slice(maps: np.ndarray, size: int, field: float) -> np.ndarray:
    """Maps of what the network saw, placed on the slice they came from (preprocessing may crop the centre)."""
    seen = round(size * field)
    before = (size - seen) // 2
    border = ((before, size - seen - before),) * 2
    resized = (cv2.resize(each, (seen, seen), interpolation=cv2.INTER_LINEAR) for each in maps)
    return np.stack([np.pad(each, border) for each in resized]).astype(np.float32)


def pointing_game(maps: np.ndarray, lesions: np.ndarray, lungs: np.ndarray) -> dict[str, float]:
    """How often the hottest place of a map inside the lungs lies in the lesion.

    The pointing game of Zhang et al. 2016, https://arxiv.org/abs/1608.00507, with the lungs as the board. Several
    equally hot pixels count with the share of them that lies in the lesion, so that a flat map is a random point.

    Args:
        maps: float (N, H, W).
        lesions, lungs: bool (N, H, W).

    Returns:
        hits, slices, and by_chance: how many hits random points inside the lungs would have.
    """
    hits = chance = 0.0
    for heat, lesion, lung in zip(maps, lesions & lungs, lungs, strict=True):
        hottest = lung & (heat == heat[lung].max())
        hits += lesion[hottest].mean()
        chance += lesion[lung].mean()
    return {"hits": float(hits), "slices": len(maps), "by_chance": float(chance)}


def first_kernels(model: Net) -> np.ndarray:
    """The first layer's kernels as colour pictures, float32 (64, 7, 7, 3), each scaled to 0…1 by itself."""
    kernels = model.net.conv1.weight.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    low, high = kernels.min((1, 2, 3), keepdims=True), kernels.max((1, 2, 3), keepdims=True)
    return (kernels - low) / np.maximum(high - low, 1e-8)
