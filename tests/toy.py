"""A tiny data set that needs no drawing: noise, with a light square where the label is 1."""

import numpy as np
import pandas as pd
import torch

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
