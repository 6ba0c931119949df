"""Real slices have no lesion masks: are the maps faithful, do they look into the lungs, and do networks agree?

    .venv/bin/python benchmarks/heat_maps_real.py --seeds 0 1 2

Block split of seed 0 of data/sars-cov-2-ct (see data/README.md), so that all networks answer for the same test slices;
each network is trained with several seeds, with the recipe of accuracy.py. Finished trainings under runs/heat-maps-real
are found again; the rows go to benchmarks/results/heat_maps_real.json, and benchmarks/tables.py writes the table.
`--gallery FOLDER` draws what each network is surest of, right and wrong, to be looked at (the slices' licence keeps the
pictures out of the project).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from accuracy import RECIPES
from search import recorded

from covid_utils.core.files import PROJECT, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.labs import faithfulness, localization
from covid_utils.labs.fine_maps import named_map
from covid_utils.models import Net
from covid_utils.runs.load_or_train import find_or_train
from covid_utils.training import predict

RESULTS = PROJECT / "benchmarks" / "results" / "heat_maps_real.json"
KEY = ("seed", "network", "map")
NETWORKS = {"ImageNet, then drawings": "lite0 continued", "ImageNet": "imagenet frozen", "scratch": "scratch"}
NAMES = ("layer4 GradCAM", "layer3 × layer2 HiResCAM, nine views")
BLIND = ("random", "Sobel edges")
SHARES = (0.1, 0.2, 0.3, 0.5)
SLICES = 80  # of which each network is surest


def network(data: CTData, name: str, seed: int) -> Net:
    settings = Settings(
        "sars-cov-2-ct", seed=seed, run_dir=f"runs/heat-maps-real/{seed}", **RECIPES[data.name][NETWORKS[name]]
    )
    return find_or_train(data, settings, name)[0]


def gap(model: Net, images: torch.Tensor, maps: np.ndarray, decision: list[int]) -> np.ndarray:
    """ROAD's gap for each slice: the decision's probability without the least relevant pixels minus the most, (N,)."""
    left = [faithfulness.removal_curve(model, images, maps, SHARES, decision, order) for order in ("LeRF", "MoRF")]
    return (left[0] - left[1]).mean(0)


def faithful(model: Net, data: CTData) -> dict[str, dict]:
    """ROAD's gap of the article's map, of the finest one, and of maps that know nothing: test slices, own decision."""
    rows = np.flatnonzero(data.table.split == "test")
    logits = predict(model, data.images[rows])
    surest = logits.abs().argsort(descending=True, stable=True)[:SLICES].numpy()
    images, decision = data.images[rows[surest]], (logits[surest] > 0).int().tolist()
    blind = localization.baselines(images.numpy(), np.zeros(images.shape, bool))
    heat = {name: named_map(model, images, name, decision) for name in NAMES} | {name: blind[name] for name in BLIND}
    owners = data.table.patient.iloc[rows[surest]]
    return {
        name: {"ROAD gap": localization.mean_with_interval(gap(model, images, maps, decision), owners)}
        for name, maps in heat.items()
    }


def rows(model: Net, data: CTData, seed: int, name: str, maps: dict) -> list[dict]:
    """The scores of a network's maps on test slices; `maps` gets those of the COVID slices, explained as "COVID"."""
    test = data.table[data.table.split == "test"].reset_index(drop=True)
    images = data.images[(data.table.split == "test").to_numpy().nonzero()[0]]
    logits, covid = predict(model, images), np.flatnonzero(test.label == 1)
    lungs = localization.segment_lungs(images[covid].numpy())
    seen = lungs.any((1, 2))
    found = []
    for kind, road in faithful(model, data).items():
        row = {"seed": seed, "network": name, "map": kind, "accuracy": ((logits > 0).numpy() == test.label).mean()}
        row |= road
        if kind in NAMES:
            maps[name, kind, seed] = named_map(model, images[covid], kind, [1] * len(covid))
            inside = localization.relevance_mass_accuracy(maps[name, kind, seed], lungs)
            beyond = np.where(seen, inside - lungs.mean((1, 2)), np.nan)
            row["energy in lungs"] = localization.mean_with_interval(
                np.where(seen, inside, np.nan), test.patient[covid]
            )
            row["beyond a flat map"] = localization.mean_with_interval(beyond, test.patient[covid])
            row |= agreement(maps, name, kind, seed, test.patient[covid])
        found.append(row)
    return found


def agreement(maps: dict, name: str, kind: str, seed: int, patients) -> dict[str, dict]:
    """Mean rank correlation with the maps made so far: of this network's other seeds, of this seed's other networks."""
    mine = maps[name, kind, seed]
    others = {"other seeds": [m for key, m in maps.items() if key[:2] == (name, kind) and key[2] != seed]}
    others |= {other: [maps[other, kind, seed]] for other in NETWORKS if other != name and (other, kind, seed) in maps}
    return {
        f"agreement, {other}": localization.mean_with_interval(
            np.mean([faithfulness.rank_correlation(mine, each) for each in theirs], axis=0), patients
        )
        for other, theirs in others.items()
        if theirs
    }


def gallery(model: Net, data: CTData, name: str, folder: Path) -> None:
    """The test slices of which a network is surest, right and wrong, with the map of its decision."""
    test = (data.table.split == "test").to_numpy()
    images, label = data.images[test], data.table.label[test].to_numpy()
    logits = predict(model, images)
    right = ((logits > 0).numpy() == label).nonzero()[0]
    wrong = np.setdiff1d(np.arange(len(label)), right)
    picked = [chosen[logits[chosen].abs().argsort(descending=True).numpy()][:6] for chosen in (right, wrong)]
    chosen = np.concatenate(picked)
    decision = (logits[chosen] > 0).int().tolist()
    probability = torch.sigmoid(logits[chosen]).tolist()
    figure, axes = plt.subplots(2, 6, figsize=(12, 5), squeeze=False)
    heat = named_map(model, images[chosen], NAMES[1], decision)
    for axis, i, image, one, p in zip(axes.flat, chosen, images[chosen], heat, probability, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.imshow(one, cmap="inferno", alpha=0.4)
        axis.set_title(f"{'COVID' if label[i] else 'non-COVID'}: p = {p:.2f}", fontsize=9)
        axis.axis("off")
    figure.savefig(folder / f"{name}.png")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--gallery", type=Path, help="an existing folder")
    options = parser.parse_args()
    data, maps = load_data(Settings("sars-cov-2-ct", image_size=128), progress=False), {}
    for seed in options.seeds:
        for name in NETWORKS:
            model = network(data, name, seed)
            for row in rows(model, data, seed, name, maps):
                known = recorded(RESULTS, KEY) | {(seed, name, row["map"]): row}
                write_json(RESULTS, list(known.values()))
            print(f"seed {seed}, {name}: accuracy {row['accuracy']:.3f}", flush=True)
            if options.gallery:
                gallery(model, data, name, options.gallery)


if __name__ == "__main__":
    main()
