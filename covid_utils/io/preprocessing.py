"""What a network's input looks like: slices, normalised as its weights expect."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

# Mean and standard deviation of chest CT slices in a lung window, intensities from 0 to 1; notebook 01 checks them.
CT_MEAN, CT_STD = 0.6, 0.3


def normalise(images: Tensor, mean: float | Sequence[float] = CT_MEAN, std: float | Sequence[float] = CT_STD) -> Tensor:
    """Slices, uint8 (N, …, H, W), as a network's input: float32 (N, 3, H, W), about zero mean and unit variance.

    >>> normalise(torch.full((1, 2, 2), 153, dtype=torch.uint8)).shape  # 153 / 255 is the mean, so all are 0
    torch.Size([1, 3, 2, 2])
    """
    mean, std = (torch.as_tensor(each, device=images.device).view(-1, 1, 1) for each in (mean, std))
    intensity = images.reshape(len(images), 1, *images.shape[-2:]).float() / 255
    return ((intensity - mean) / std).expand(-1, 3, -1, -1)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What weights expect of their input: a mean and a deviation, and for ImageNet's a centre crop when enlarged."""

    mean: Sequence[float] = (CT_MEAN,)  # one number, or one for each channel, for intensities from 0 to 1
    std: Sequence[float] = (CT_STD,)
    crop_fraction: float = 1.0  # of the slice's width and height
    interpolation: str = "bilinear"  # how the slice is enlarged before the crop

    def __call__(self, images: Tensor) -> Tensor:
        """Slices, uint8 (N, H, H), as input, float32 (N, 3, H, H), channels last (the fastest layout).

        What is a batch of input already, float (N, 3, H, W), is returned as it is. ValueError for anything else.
        """
        if getattr(images, "ndim", 0) == 4 and images.is_floating_point():
            return images
        kind, shape = getattr(images, "dtype", type(images).__name__), tuple(getattr(images, "shape", ()))
        if kind != torch.uint8 or len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(f"Slices must be a torch tensor, uint8 (N, H, H) from 0 to 255, not {kind} {shape}.")
        if self.crop_fraction < 1:
            larger = [round(shape[-1] / self.crop_fraction)]
            images = resize(images.unsqueeze(1), larger, InterpolationMode(self.interpolation))
            images = center_crop(images, [shape[-1]])
        return normalise(images, self.mean, self.std).contiguous(memory_format=torch.channels_last)
