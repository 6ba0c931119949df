"""Tests of heat maps, each in one call: against known lesions, before training, after retraining."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch

from ..core.device import pick_device
from ..core.settings import Settings
from ..data import CTData
from ..models import Net
from ..runs.load_or_train import new_model
from .cam_figures import first_convolution
from .faithfulness import retrain
from .fine_maps import named_map
from .localization import baselines, localization_with_intervals, pointing_game, with_lesions

ARTICLE = "layer4 GradCAM"  # the map that the article shows
CHOSEN = "chosen on validation"


def first_layer_kept(model: Net, settings: Settings) -> float:
    """Correlation of the first layer's weights with those before training: near 1 if they have hardly moved."""
    before, after = (first_convolution(each).weight.detach().cpu().flatten() for each in (new_model(settings), model))
    return float(np.corrcoef(before, after)[0, 1])


def not_trained(settings: Settings) -> Net:
    """The network of `settings` as it is before training on these slices, from another seed."""
    fresh = new_model(dataclasses.replace(settings, seed=settings.seed + 1))
    return fresh.eval().to(pick_device(settings.device))


def scores_by_map(
    data: CTData, part: str, networks: dict[str, Net], kinds: list[str], every: int = 1
) -> dict[str, dict[str, dict[str, dict]]]:
    """Scores of maps on the COVID slices of a split whose lesions are known, all explained as COVID.

    Args:
        kinds: names in `fine_maps.MAPS`.
        every: 2 takes every second slice only, and half the time.

    Returns:
        {score: {map: {network: {"value", "low", "high"}}}}; empty if no lesion is known.
    """
    if data.lesions is None:
        return {}
    table, images, *masks = (each[::every] for each in with_lesions(data, part))
    covid = [1] * len(images)
    maps = {kind: {name: named_map(model, images, kind, covid) for name, model in networks.items()} for kind in kinds}
    return _scores(maps, *masks, table.patient)


def score_on_test(data: CTData, networks: dict[str, Net], chosen: dict[str, str]) -> tuple[dict, pd.DataFrame]:
    """Scores of the article's map and the `chosen` one, {network: map}, of each network, and of the baselines.

    Returns:
        {score: {row: {network or "": {"value", "low", "high"}}}}, and the pointing game's hits: an index of patients, a
        column for each (row, network), and ("chance", ""), a random point in the lungs. Both are empty if no lesion is
        known.
    """
    if data.lesions is None:
        return {}, pd.DataFrame()
    table, images, lesions, lungs = with_lesions(data, "test")
    covid = [1] * len(images)
    maps = {
        ARTICLE: {name: named_map(model, images, ARTICLE, covid) for name, model in networks.items()},
        CHOSEN: {name: named_map(model, images, chosen[name], covid) for name, model in networks.items()},
    }
    maps |= {name: {"": heat} for name, heat in baselines(images.numpy(), lungs).items()}
    inside = lesions & lungs
    points = {
        (row, name): pointing_game(heat, inside, lungs) for row, each in maps.items() for name, heat in each.items()
    }
    points["chance", ""] = inside.sum((1, 2)) / lungs.sum((1, 2))
    return _scores(maps, lesions, lungs, table.patient), pd.DataFrame(points, index=table.patient)


def _scores(maps: dict[str, dict[str, np.ndarray]], lesions, lungs, patients) -> dict[str, dict]:
    """{row: {network: maps}} as {score: {row: {network: {"value", "low", "high"}}}}."""
    scores = {}
    for row, by_network in maps.items():
        for name, heat in by_network.items():
            for score, value in localization_with_intervals(heat, lesions, lungs, patients).items():
                scores.setdefault(score, {}).setdefault(row, {})[name] = value
    return scores


def retrain_three_times(data: CTData, settings: Settings, slices: int = 320) -> dict[str, tuple]:
    """`faithfulness.retrain` with the true labels, with another seed, and with shuffled labels.

    Returns:
        {"honest", "honest, another seed", "shuffled labels": (network, accuracy on its own labels)}.
    """
    chosen = data.table.index[data.table.split == "train"].to_numpy()
    chosen = np.random.default_rng(settings.seed).permutation(chosen)[:slices]
    truth = torch.tensor(data.table.label[chosen].to_numpy(), dtype=torch.float32)
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(settings.seed))
    recipes = {"honest": (truth, 1), "honest, another seed": (truth, 2), "shuffled labels": (truth[order], 1)}
    base = new_model(settings).to(pick_device(settings.device))
    return {name: retrain(base, data.images[chosen], labels, seed) for name, (labels, seed) in recipes.items()}
