"""Class activation maps: which part of a slice the decision rests on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from torch import Tensor, nn

from .core.files import did_you_mean
from .models import LAYERS, StagedModule
from .training import predict

BATCH = 32  # slices at a time, as all activations are kept


def first_component(activations: np.ndarray) -> np.ndarray:
    """Eigen-CAM: the activations' first principal component as a map, which shows where they vary most.

    Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299, section III; centred, as in the library. A principal
    component's sign is arbitrary; here it is chosen so that strongly active locations are positive.

    Args:
        activations: float32 (C, h, w) of one slice.

    Returns:
        float32 (h, w).
    """
    pixels = activations.reshape(len(activations), -1).T  # a row per location, a column per channel
    # the thin decomposition: the library's full one works out C x C numbers, of which one row is used
    _, _, components = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    projected = (pixels - pixels.mean(0)) @ components[0]
    strength = np.linalg.norm(pixels, axis=1)
    sign = -1 if projected @ (strength - strength.mean()) < 0 else 1
    return (sign * projected).reshape(activations.shape[1:]).astype(np.float32)


class OrientedEigenCAM(EigenCAM):
    """The library's Eigen-CAM with a fixed sign, and some forty times faster."""

    def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth):
        return np.stack([first_component(each) for each in activations])


METHODS = {
    "GradCAM": GradCAM,  # https://arxiv.org/abs/1610.02391
    "EigenCAM": OrientedEigenCAM,  # https://arxiv.org/abs/2008.00299
    "GradCAM++": GradCAMPlusPlus,  # https://arxiv.org/abs/1710.11063
    "HiResCAM": HiResCAM,  # https://arxiv.org/abs/2011.08891
    "LayerCAM": LayerCAM,  # https://doi.org/10.1109/TIP.2021.3089943
}


def cam(
    model: nn.Module,
    images: Tensor,
    method: str = "GradCAM",
    layer: str | nn.Module = "layer4",
    targets: Sequence[int] | None = None,
    reshape_transform: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """Class activation maps of a batch of slices, by the library grad-cam.

    Grad-CAM weighs each channel by the mean gradient of the target class; Grad-CAM++, HiResCAM and LayerCAM differ in
    how gradients become weights. Eigen-CAM shows where the activations vary most and ignores the class.

    Args:
        model: any network with one logit; its parameters stay as they are, and it is left in eval mode.
        images: what it takes: for a `Net` slices, uint8 (N, H, H), or input, float32 (N, 3, H, W).
        method: a name in METHODS.
        layer: the module whose output the map is made of, or its name; for a `Net` also "layer1" to "layer4".
        targets: the class to explain for each slice, 0 or 1, (N,); by default the model's own decision.
        reshape_transform: turns the layer's output into a feature map, (N, C, h, w), for layers whose output is none
            (the tokens of a transformer); see the library.

    Returns:
        float32 (N, H, W), each map scaled to 0…1 by itself: brightness can't be compared between maps. A map is 0
        everywhere if there is no evidence for the class.

    Raises:
        ValueError: an unknown method or layer, or not one class per slice.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}: {did_you_mean(method, METHODS)}")
    if targets is not None and (np.shape(targets) != (len(images),) or any(each not in (0, 1) for each in targets)):
        raise ValueError(f"targets must be a list with 0 or 1 for each of {len(images)} slices, not {targets}.")
    module, x = find_layer(model, layer), network_input(model, images)
    if not len(x):
        return np.zeros((0, *x.shape[-2:]), np.float32)
    targets = predict(model, x) > 0 if targets is None else targets
    maps = []
    with _gradients_from(model, module):
        library = METHODS[method](model=model, target_layers=[module], reshape_transform=reshape_transform)
        try:  # not `with library`: it swallows errors (IndexError) raised inside it
            for start in range(0, len(x), BATCH):
                batch = x[start : start + BATCH]
                # class 0's score is minus the logit; the library pairs slices and targets, and leaves out the rest
                wanted = [BinaryClassifierOutputTarget(int(label)) for label in targets[start : start + BATCH]]
                maps.extend(library(input_tensor=batch, targets=wanted))
        finally:
            library.activations_and_grads.release()
    size, fraction = x.shape[-1], getattr(getattr(model, "preprocess", None), "crop_fraction", 1.0)
    if fraction >= 1:
        return np.stack(maps)
    # `Preprocessing` enlarges to round(size / fraction) pixels and keeps the central `size`; around them the map is 0
    seen = round(size * size / round(size / fraction))
    before = (size - seen) // 2
    border = ((before, size - seen - before),) * 2
    return np.stack([np.pad(cv2.resize(each, (seen, seen)), border) for each in maps])  # bilinear


def gradients_at_layer(model, x, layer):
    """One forward and one backward pass: a layer's activations, and the logit's gradients with respect to them.

    `model`, in eval mode, takes `x`, N inputs, and has one logit. The output of `layer`, one of its modules, is
    detached and becomes the graph's first node: so frozen layers work too, and nothing before them is kept.

    Returns:
        activations and gradients, both float32 (N, C, h, w), and logits, float32 (N,).
    """
    kept = {}

    def keep(module, inputs, output):  # a forward hook
        torch.set_grad_enabled(True)  # from here on the computation is recorded
        kept["activations"] = output.detach().requires_grad_()
        return kept["activations"]  # takes the place of the output

    hook = layer.register_forward_hook(keep)
    with torch.inference_mode(False), torch.no_grad(), hook:
        logits = model(x).flatten()
        (gradients,) = torch.autograd.grad(logits.sum(), kept["activations"])
    return kept["activations"].detach(), gradients, logits.detach()


def grad_cam(activations, gradients):
    """Grad-CAM before its ReLU and scaling: what raises the COVID logit is positive, in units of the logit.

    Each channel is weighted by its mean gradient (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, equation 1).

    Args: float32 (N, C, h, w), as from `gradients_at_layer`.

    Returns:
        float32 (N, h, w), a value for each location of the layer's feature map.
    """
    weights = gradients.mean((2, 3), keepdim=True)  # (N, C, 1, 1): one for each channel
    return (weights * activations).sum(1)


def find_layer(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    """A module of the model: itself, or by its name. Raises ValueError for an unknown name."""
    if isinstance(layer, nn.Module):
        return layer
    if isinstance(model, StagedModule) and layer in LAYERS:
        return model.parts(layer)[-1]
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(f"Unknown layer {layer!r}: {did_you_mean(layer, [*LAYERS, *modules])}")
    return modules[layer]


def network_input(model: nn.Module, images: Tensor) -> Tensor:
    """Images, preprocessed if the model has a `preprocess`, on the model's device."""
    preprocess = getattr(model, "preprocess", None)
    return (preprocess(images) if preprocess else images).to(next(model.parameters()).device)


@contextlib.contextmanager
def _gradients_from(model: nn.Module, layer: nn.Module):
    """Inside, the graph begins at the layer, as in `gradients_at_layer`, and no parameter requires a gradient."""
    model.eval()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # registered before the library's hooks, which so see the detached output
    hook = layer.register_forward_hook(lambda _module, _input, output: output.detach().requires_grad_())
    try:
        for parameter in trainable:
            parameter.requires_grad = False
        with torch.inference_mode(False), torch.enable_grad(), hook:  # also if the caller had switched gradients off
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad = True
