"""Does a network notice inputs unlike its training slices? The distance of its features, on slices and on other inputs.

    .venv/bin/python benchmarks/out_of_distribution.py --seeds 0 1 2 3 4

Networks of the phantom's recipes (runs/heat-maps, as benchmarks/heat_maps.py trains and loads them). The limit is
chosen on validation slices (95 % of them within); reported for test slices and for what is out of distribution. The
rows go to benchmarks/results/out_of_distribution.csv.
"""

from __future__ import annotations

import cv2
import numpy as np
import skimage.data
import torch
from experiment import RESULTS, grid, parser, run
from heat_maps import TRAINED, load_network
from sklearn.metrics import roc_auc_score

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.labs.predictor import fit_predictor, ood_score

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


def shown(test: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """What should not be diagnosed, and at last slices of another hospital, which are chest CT all the same."""
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


def measure(seed: int, network: str) -> list[dict]:
    """The share of slices beyond the limit for each kind of input, and the AUC of the distance against test slices."""
    data = load_data(Settings(seed=seed), progress=False)
    test = data.images[(data.table.split == "test").to_numpy().nonzero()[0]]
    reader = fit_predictor(load_network(data, seed, network), data, Settings(seed=seed))
    own = ood_score(reader, test)
    rows = [{"kind": "test slices", "refused": (own > 1).mean()}]
    for kind, images in shown(test, seed).items():
        far = ood_score(reader, images)
        truth = np.repeat([0, 1], [len(own), len(far)])
        area = roc_auc_score(truth, np.concatenate([own, far]))
        rows.append({"kind": kind, "refused": (far > 1).mean(), "AUROC": area})
    return rows


def main() -> None:
    asked = grid(seed=parser(__doc__).parse_args().seeds, network=TRAINED)
    run(RESULTS / "out_of_distribution.csv", asked, measure)


if __name__ == "__main__":
    main()
