"""Does a network notice what it has no answer for? The distance of the trunk's features, on slices and on what is none.

    .venv/bin/python benchmarks/strangers.py --seeds 0 1 2 3 4

Networks of the phantom's recipes (runs/heat-maps, as benchmarks/heat_maps.py trains and finds them). The limit is
chosen on validation slices (95 % of them within); reported for test slices and strangers. The rows go to
benchmarks/results/strangers.json.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import skimage.data
import torch
from heat_maps import TRAINED, networks
from sklearn.metrics import roc_auc_score

from covid_utils.core.files import PROJECT, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.labs.predictor import fit_predictor, ood_score

RESULTS = PROJECT / "benchmarks" / "results" / "strangers.json"
PHOTOS = (
    "astronaut", "brick", "camera", "cat", "cell", "clock", "coffee", "coins", "grass", "gravel", "horse",
    "hubble_deep_field", "immunohistochemistry", "logo", "moon", "page", "rocket", "text",
)  # fmt: skip


def photographs(size: int) -> torch.Tensor:
    """scikit-image's pictures that come with it, grey, uint8 (N, size, size)."""
    small = []
    for name in PHOTOS:
        picture = np.asarray(getattr(skimage.data, name)())
        picture = picture.astype(np.uint8) * (255 if picture.dtype == bool else 1)
        if picture.ndim == 3:
            picture = cv2.cvtColor(np.ascontiguousarray(picture[..., :3]), cv2.COLOR_RGB2GRAY)
        small.append(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(small))


def strangers(test: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """What no answer should be given for, and at last slices of another hospital, which are chest CT all the same."""
    values = test.float()
    return {
        "photographs": photographs(test.shape[-1]),
        "noise": torch.from_numpy(np.random.default_rng(seed).integers(0, 256, test.shape, dtype=np.uint8)),
        "turned by 90°": test.rot90(1, (1, 2)),
        "upside down": test.flip(1),
        "inverted": 255 - test,
        "another window (contrast × 0.4)": (0.4 * values + 80).to(torch.uint8),
        "another window (contrast × 3)": (3 * (values - 128) + 128).clamp(0, 255).to(torch.uint8),
        "hospital B": load_data(Settings("phantom-b", seed=seed, patients=60), progress=False).images,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    rows = []
    for seed in parser.parse_args().seeds:
        data = load_data(Settings(seed=seed), progress=False)
        test = data.images[(data.table.split == "test").to_numpy().nonzero()[0]]
        for name, model in networks(data, seed):
            if name not in TRAINED:
                continue
            reader = fit_predictor(model, data, Settings(seed=seed))
            own = ood_score(reader, test)
            row = {"seed": seed, "network": name}
            rows.append(row | {"kind": "test slices", "refused": float((own > 1).mean())})
            for kind, images in strangers(test, seed).items():
                far = ood_score(reader, images)
                truth = np.repeat([0, 1], [len(own), len(far)])
                score = float(roc_auc_score(truth, np.concatenate([own, far])))
                rows.append(row | {"kind": kind, "refused": float((far > 1).mean()), "AUROC": score})
            print(seed, name, {r["kind"]: round(r["refused"], 2) for r in rows[-9:]}, flush=True)
    write_json(RESULTS, rows)


if __name__ == "__main__":
    main()
