"""How much of COVID can be read off frozen features with no more than a logistic regression? A quick judge of weights.

    .venv/bin/python benchmarks/linear_probe.py bundled scratch some/other.safetensors

Real slices in data/sars-cov-2-ct, block splits of ten seeds. Features: mean and maximum of each channel of `layer3`,
where the frozen trunk ends. Scored on *validation* slices, so that choosing weights by it spends no test slice. One
forward pass over the set and seconds of regression: far less noise and time than training. It need not agree with
training, which may spoil what a probe can still read (docs/results.md).
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from covid_utils.core.backbones import BACKBONES
from covid_utils.core.settings import Settings
from covid_utils.data import load_data, split_groups
from covid_utils.models import Net, build_model


@torch.inference_mode()
def features(model: Net, images: torch.Tensor) -> np.ndarray:
    """Mean and maximum of each channel of `layer3`, float32 (N, 2 channels)."""
    model.eval()
    found = []
    for batch in images.split(64):
        maps = model.forward_features(model.preprocess(batch))
        found.append(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))
    return torch.cat(found).cpu().numpy()


def probe(x: np.ndarray, table: pd.DataFrame, count: int, seed: int, strength: float) -> tuple[float, float]:
    """Accuracy and AUC on the validation slices of one split, learned from `count` training slices (0: all)."""
    split = split_groups(table, "patient", seed)
    learn = table[split == "train"].sample(frac=1, random_state=seed)
    learn = learn.groupby("label").head(count // 2) if count else learn
    check = table[split == "val"]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    logits = model.fit(x[learn.index], learn.label).decision_function(x[check.index])
    return ((logits > 0) == check.label).mean(), roc_auc_score(check.label, logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="bundled, scratch, imagenet or files")
    parser.add_argument("--backbone", default="resnet18", choices=BACKBONES)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    data = load_data(Settings("sars-cov-2-ct", image_size=options.image_size), progress=False)
    greys = np.stack([np.bincount(image.ravel() // 8, minlength=32) / image.numel() for image in data.images])
    sets = {"grey histogram": (greys, 1.0)}
    for weights in options.weights:
        torch.manual_seed(0)
        sets[weights] = (features(build_model(options.backbone, weights), data.images), 0.01)
    for name, (x, strength) in sets.items():
        texts = []
        for count in (100, 400, 0):
            scores = [probe(x, data.table, count, seed, strength) for seed in range(options.seeds)]
            accuracy, auc = 100 * np.mean(scores, axis=0)
            texts.append(f"{count or 'all'}: {accuracy:.1f} / {auc:.1f}")
        print(f"{name:40s}  {'   '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
