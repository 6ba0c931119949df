"""Real slices have no lesion masks: are the maps faithful, do they look into the lungs, and do networks agree?

    .venv/bin/python benchmarks/heat_maps_real.py --seeds 0 1

Block split of seed 0 of data/sars-cov-2-ct (see data/README.md), so that all networks predict the same test slices;
each network is trained with several seeds, with the recipe of accuracy.py (finished trainings under
runs/heat-maps-real are loaded). The rows go to benchmarks/results/heat_maps_real.csv.
"""

from __future__ import annotations

import functools

import numpy as np
from accuracy import RECIPES
from experiment import RESULTS, grid, parser, run

from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.labs import faithfulness, localization
from covid_utils.labs.fine_maps import named_map
from covid_utils.models import Net
from covid_utils.runs.load_or_train import load_or_train
from covid_utils.training import predict

NETWORKS = {"ImageNet, then drawings": "lite0 continued", "ImageNet": "imagenet frozen", "scratch": "scratch"}
NAMES = ("layer4 GradCAM", "layer3 × layer2 HiResCAM, nine views")
BASELINES = ("random", "Sobel edges")
SHARES = (0.1, 0.2, 0.3, 0.5)
SLICES = 80  # of which each network is surest


@functools.cache
def real_slices() -> CTData:
    return load_data(Settings("sars-cov-2-ct", image_size=128), progress=False)


@functools.cache
def trained(name: str, seed: int) -> Net:
    recipe, data = RECIPES["sars-cov-2-ct"][NETWORKS[name]], real_slices()
    settings = Settings("sars-cov-2-ct", seed=seed, run_dir=f"runs/heat-maps-real/{seed}", **recipe)
    return load_or_train(data, settings, name)[0]


@functools.cache
def covid_maps(name: str, kind: str, seed: int) -> np.ndarray:
    """A network's maps of the COVID slices of the test part, explained as "COVID", float32 (N, H, W)."""
    data = real_slices()
    rows = np.flatnonzero((data.table.split == "test") & (data.table.label == 1))
    return named_map(trained(name, seed), data.images[rows], kind, [1] * len(rows))


def faithful(model: Net, data: CTData) -> dict[str, dict]:
    """ROAD's gap of the article's map, of the finest one, and of baselines: test slices, the network's decision.

    The gap is the decision's probability without the least relevant pixels less that without the most relevant ones.
    """
    rows = np.flatnonzero(data.table.split == "test")
    logits = predict(model, data.images[rows])
    surest = logits.abs().argsort(descending=True, stable=True)[:SLICES].numpy()
    images, decision = data.images[rows[surest]], (logits[surest] > 0).int().tolist()
    maps = localization.baselines(images.numpy(), np.zeros(images.shape, bool))
    heat = {name: named_map(model, images, name, decision) for name in NAMES} | {name: maps[name] for name in BASELINES}
    owners = data.table.patient.iloc[rows[surest]]
    least, most = (
        faithfulness.removal_curves(model, images, heat, SHARES, decision, order) for order in ("LeRF", "MoRF")
    )
    gaps = {name: (least[name] - most[name]).mean(0) for name in heat}
    return {name: {"ROAD gap": localization.mean_with_interval(gap, owners)} for name, gap in gaps.items()}


def measure(seed: int, network: str) -> list[dict]:
    """The scores of a network's maps on test slices."""
    data, model = real_slices(), trained(network, seed)
    test = np.flatnonzero(data.table.split == "test")
    label, patients = data.table.label.to_numpy()[test], data.table.patient.to_numpy()[test]
    covid, right = label == 1, (predict(model, data.images[test]) > 0).numpy() == label
    lungs = localization.segment_lungs(data.images[test[covid]].numpy())
    seen = lungs.any((1, 2))
    found = []
    for kind, road in faithful(model, data).items():
        row = {"map": kind, "accuracy": right.mean()} | road
        if kind in NAMES:
            mine = covid_maps(network, kind, seed)
            inside = localization.relevance_mass_accuracy(mine, lungs)
            scores = {
                "energy in lungs": np.where(seen, inside, np.nan),
                "beyond a flat map": np.where(seen, inside - lungs.mean((1, 2)), np.nan),
            }
            for other, theirs in others(network, kind, seed).items():
                each = [faithfulness.rank_correlation(mine, maps) for maps in theirs]
                scores[f"agreement, {other}"] = np.mean(each, axis=0)
            row |= {name: localization.mean_with_interval(each, patients[covid]) for name, each in scores.items()}
        found.append(row)
    return found


def others(network: str, kind: str, seed: int) -> dict[str, list[np.ndarray]]:
    """The maps that a network's maps are compared with: of its earlier seeds, and of this seed's networks before it."""
    before = list(NETWORKS)[: list(NETWORKS).index(network)]
    found = {"other seeds": [covid_maps(network, kind, earlier) for earlier in range(seed)]} if seed else {}
    return found | {name: [covid_maps(name, kind, seed)] for name in before}


def main() -> None:
    seeds = parser(__doc__, seeds=2).parse_args().seeds
    run(RESULTS / "heat_maps_real.csv", grid(seed=seeds, network=NETWORKS), measure)


if __name__ == "__main__":
    main()
