"""A tiny data set that needs no drawing: noise, with a light square where the label is 1."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from covid_utils.data import CTData


def tiny_data(patients: int = 24, slices: int = 4, size: int = 32) -> CTData:
    """A learnable toy: `patients` × `slices` slices; the first third of the patients trains, the next validates."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(patients), slices)
    label = number % 2
    images = rng.integers(0, 120, (len(number), size, size), dtype=np.uint8)
    lesions = np.zeros(images.shape, bool)
    lesions[label == 1, 8:20, 8:20] = True
    images[lesions] += 100
    split = np.array(["train", "val", "test"])[number * 3 // patients]
    paths = [f"toy/{n}_{i % slices}" for i, n in enumerate(number)]
    patient = [f"p{n}" for n in number]
    table = pd.DataFrame({"path": paths, "label": label, "patient": patient, "split": split})
    tensors = (torch.from_numpy(each) for each in (images, lesions, np.ones_like(lesions)))
    return CTData(table, *tensors, name="toy", groups="Known.", fingerprint="toy")


class ToyNetwork(nn.Module):
    """A ResNet's names with a convolution each: a step takes a millisecond, a checkpoint some kilobytes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Identity(),
        )
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Conv2d(8, 8, 3, stride, 1) for stride in (1, 2, 2, 2))
        self.fc = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.conv1, self.bn1, self.relu, self.layer1, self.layer2, self.layer3, self.layer4):
            x = part(x)
        return self.fc(x.mean((2, 3)))
