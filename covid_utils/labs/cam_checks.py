"""What a heat map has to survive, each check in one call: known lesions, broken networks, lesions that grow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ct_phantom.lesion import draw_with_lesion

from ..core.device import pick_device
from ..core.settings import Settings
from ..data import CTData
from ..evaluation import percent
from ..models import Net
from ..training import new_model, predict
from .calibration import verdict
from .cam_figures import first_convolution
from .faithfulness import cascading_randomisation, rank_correlation, retrain, ssim
from .fine_maps import named_map
from .localization import (
    baselines,
    localization_with_intervals,
    mean_with_interval,
    pointing_game,
    relevance_mass_accuracy,
    with_lesions,
)

ARTICLE = "layer4 GradCAM"  # the map that the article shows
CHOSEN = "chosen on validation"
NO_VERDICT = "No outlines, no verdict."

# ----------------------------------------------------------------------------------- before and after training


def first_layer_kept(model: Net, settings: Settings) -> float:
    """Correlation of the first layer's numbers with those before the training: near 1 if they have hardly moved."""
    before, after = (first_convolution(each).weight.detach().cpu().flatten() for each in (new_model(settings), model))
    return float(np.corrcoef(before, after)[0, 1])


def not_trained(settings: Settings) -> Net:
    """The network of `settings` as it is before its training on these slices, from another seed."""
    fresh = new_model(dataclasses.replace(settings, seed=settings.seed + 1))
    return fresh.eval().to(pick_device(settings.device))


def largest_differences(maps: dict[str, dict[str, np.ndarray]], reference: str = "GradCAM") -> pd.DataFrame:
    """How far maps of one slice differ from the `reference` at most: a row per method, a column per layer.

    Args:
        maps: {layer: {method: float (H, W)}}; a method that a layer lacks is left out.
    """
    methods = [name for name in maps[next(iter(maps))] if all(name in row for row in maps.values())]
    apart = {
        layer: {name: float(np.abs(row[name] - row[reference]).max()) for name in methods}
        for layer, row in maps.items()
    }
    return pd.DataFrame(apart).rename_axis(f"largest difference from {reference}")


# ------------------------------------------------------------------------------------------ against known lesions


def scores_by_map(
    data: CTData, part: str, networks: dict[str, Net], kinds: list[str], every: int = 1
) -> dict[str, dict[str, dict[str, dict]]]:
    """Scores of maps on the COVID slices of a split in which a lesion is drawn, all explained as COVID.

    Args:
        kinds: names in `fine_maps.MAPS`.
        every: 2 takes every second slice only, and half the time.

    Returns:
        {score: {map: {network: {"value", "low", "high"}}}}; empty if no lesion is known.
    """
    if data.lesions is None:
        return {}
    table, images, *masks = (each[::every] for each in with_lesions(data, part))
    scores = {}
    for kind in kinds:
        for name, model in networks.items():
            maps = named_map(model, images, kind, [1] * len(images))
            for score, found in localization_with_intervals(maps, *masks, table.patient).items():
                scores.setdefault(score, {}).setdefault(kind, {})[name] = found
    return scores


def choose_maps(scores: dict, networks, otherwise: str = "layer3 HiResCAM") -> pd.DataFrame:
    """The map of each network with the best average precision, beside the article's.

    Args:
        scores: as `scores_by_map` returns them; if there are none, each network gets the map `otherwise`.

    Returns:
        A row per network: "chosen map", its "average precision" and that of "layer4 GradCAM".
    """
    if not scores:
        return pd.DataFrame({"chosen map": dict.fromkeys(networks, otherwise)})
    precision = pd.DataFrame(scores["average precision"]).map(lambda score: score["value"]).loc[list(networks)]
    chosen = {"chosen map": precision.idxmax(axis=1), "average precision": precision.max(axis=1)}
    return pd.DataFrame(chosen | {ARTICLE: precision[ARTICLE]})


@dataclasses.dataclass
class Scored:
    """Maps scored on test patients; empty where no lesion is known."""

    scores: dict  # {score: {row: {network: {"value", "low", "high"}}}}
    points: dict  # {(row, network): float (N,)}, hits in the pointing game
    chance: np.ndarray  # float (N,), of a random point in the lungs
    patients: pd.Series  # (N,)


def score_on_test(data: CTData, networks: dict[str, Net], chosen: dict[str, str]) -> Scored:
    """The article's map and the `chosen` one, {network: map}, of each network, beside maps that know nothing."""
    if data.lesions is None:
        return Scored({}, {}, np.zeros(0), pd.Series(dtype=int))
    table, images, lesions, lungs = with_lesions(data, "test")
    found = Scored({}, {}, (lesions & lungs).sum((1, 2)) / lungs.sum((1, 2)), table.patient)
    covid = [1] * len(images)
    rows = {ARTICLE: {}, CHOSEN: {}}
    for name, model in networks.items():
        rows[ARTICLE][name] = named_map(model, images, ARTICLE, covid)
        rows[CHOSEN][name] = named_map(model, images, chosen[name], covid)
    rows |= {name: {"": maps} for name, maps in baselines(images.numpy(), lungs).items()}
    for row, each in rows.items():
        for name, maps in each.items():
            for score, value in localization_with_intervals(maps, lesions, lungs, table.patient).items():
                found.scores.setdefault(score, {}).setdefault(row, {})[name] = value
            found.points[row, name] = pointing_game(maps, lesions & lungs, lungs)
    return found


def said_of_points(found: Scored, chosen: dict[str, str], names) -> str:
    """What the pointing game and average precision say of the chosen maps of the networks `names`, as Markdown."""
    lines = []
    for name in names if found.scores else ():
        hit, precise = (found.scores[score][CHOSEN][name] for score in ("pointing game", "average precision"))
        lungs = found.scores["average precision"]["lung mask"][""]["value"]
        more = "more" if hit["low"] > found.chance.mean() else "no more, for all we can tell,"
        count = len(found.chance)
        lines.append(
            f"- **{name}** ({chosen[name]}) points into the lesion in **{hit['value'] * count:.0f} of {count}** "
            f"slices, {percent(hit)}; random points in the lungs would in {found.chance.sum():.0f}: {more} than "
            f"chance. As a detector of lesion pixels it has an average precision of {precise['value']:.2f} "
            f"({precise['low']:.2f} to {precise['high']:.2f}); the lung mask has {lungs:.2f}."
        )
    return "\n".join(lines) or NO_VERDICT


def beats_chance(found: Scored, names) -> bool:
    """Whether a chosen map of the networks `names` points into the lesion clearly more often than a random point."""
    rows = found.scores["pointing game"][CHOSEN]
    return any(rows[name]["low"] > found.chance.mean() for name in names)


def paired_gains(found: Scored) -> dict[tuple[str, str], dict[str, float]]:
    """Differences in the pointing game, slice by slice: {(network, compared with): {"value", "low", "high"}}."""
    pairs = [("transfer", "scratch"), ("transfer", "transfer, not trained"), ("scratch", "scratch, not trained")]
    others = {(name, other): (CHOSEN, other) for name, other in pairs}
    others["transfer", f"its own {ARTICLE}"] = (ARTICLE, "transfer")
    gains = {}
    for (name, other), place in others.items() if found.points else ():
        more = found.points[CHOSEN, name] - found.points[place]
        gains[name, other] = mean_with_interval(more, found.patients)
    return gains


def said_of_gains(gains: dict[tuple[str, str], dict[str, float]]) -> str:
    """`paired_gains` as Markdown, with a verdict each."""
    lines = ["Pointing game on test patients, paired:", ""]
    for (name, other), gain in gains.items():
        lines.append(f"- {name} minus {other}: **{percent(gain, signed=True)}**, {verdict(gain)}")
    return "\n".join(lines) if gains else NO_VERDICT


# -------------------------------------------------------------------------------------------- broken, and again


def break_stage_by_stage(
    model: Net, images: Tensor, kinds: dict[str, str], targets, seed: int
) -> dict[str, dict[str, list[float]]]:
    """How far maps still agree with the intact network's, as it becomes random from the head down.

    Args:
        kinds: {title: name in `fine_maps.MAPS`}.
        targets: 0 or 1 for each slice, (N,).
        seed: as for `faithfulness.cascading_randomisation`.

    Returns:
        {"rank correlation": {title: values}, "SSIM": …}; first 1 for the intact network, then one value a stage.
    """
    intact = {title: named_map(model, images, kind, targets) for title, kind in kinds.items()}
    ranks, similar = {title: [1.0] for title in kinds}, {title: [1.0] for title in kinds}
    for _, broken in cascading_randomisation(model, seed):
        for title, kind in kinds.items():
            maps = named_map(broken, images, kind, targets)
            ranks[title].append(rank_correlation(intact[title], maps).mean())
            similar[title].append(ssim(intact[title], maps).mean())
    return {"rank correlation": ranks, "SSIM": similar}


def retrain_three_times(data: CTData, settings: Settings, slices: int = 320) -> dict[str, tuple]:
    """The quick recipe of `faithfulness.retrain` with honest labels, with another seed, and with shuffled labels.

    Returns:
        {"honest", "honest, another seed", "shuffled labels": (network, accuracy on its own labels)}.
    """
    learn = data.table.index[data.table.split == "train"].to_numpy()
    learn = np.random.default_rng(settings.seed).permutation(learn)[:slices]
    truth = torch.tensor(data.table.label[learn].to_numpy(), dtype=torch.float32)
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(settings.seed))
    recipes = {"honest": (truth, 1), "honest, another seed": (truth, 2), "shuffled labels": (truth[order], 1)}
    base = new_model(settings).to(pick_device(settings.device))
    return {name: retrain(base, data.images[learn], labels, seed) for name, (labels, seed) in recipes.items()}


def compare_retrained(
    trained: dict[str, tuple], images: Tensor, kinds: dict[str, str], targets, test_images: Tensor, labels: Tensor
) -> pd.DataFrame:
    """What each network of `retrain_three_times` has learned, and how far its maps agree with the first one's.

    Args:
        images: slices to explain, with `targets`; kinds: as for `break_stage_by_stage`.
        test_images, labels: slices on which the networks are asked.
    """
    first, _ = next(iter(trained.values()))
    reference = {title: named_map(first, images, kind, targets) for title, kind in kinds.items()}
    table = {}
    for label, (model, fitted) in trained.items():
        correct = (predict(model, test_images) > 0) == labels.bool()
        row = {"fits its labels": f"{fitted:.0%}", "right on test": f"{correct.float().mean():.0%}"}
        for title, kind in kinds.items():
            alike = rank_correlation(reference[title], named_map(model, images, kind, targets)).mean()
            row[f"{title}: agreement"] = f"{alike:+.2f}"
        table[label] = row
    return pd.DataFrame(table).T


# ------------------------------------------------------------------------------------------------ without lesions


def energy_inside(maps: dict[str, np.ndarray], lungs: np.ndarray, patients) -> pd.DataFrame:
    """Which share of each network's heat lies inside the lungs, and how much more that is than a flat map's.

    Args:
        maps: {network: float (N, H, W)}; lungs: bool (N, H, W); patients: (N,).

    Returns:
        A row per network, intervals in both columns: "inside" and "more than a flat map".
    """
    flat, rows = lungs.mean((1, 2)), {}
    for name, heat in maps.items():
        share = relevance_mass_accuracy(heat, lungs)
        inside, more = mean_with_interval(share, patients, share=True), mean_with_interval(share - flat, patients)
        rows[name] = {"inside": inside, "more than a flat map": more}
    return pd.DataFrame.from_dict(rows, orient="index")


def said_of_energy(energy: pd.DataFrame, lungs: np.ndarray) -> str:
    """`energy_inside` as Markdown, with a verdict each."""
    lines = [f"Energy inside the lungs, where a flat map has {lungs.mean((1, 2)).mean():.1%}:", ""]
    for name, inside, more in energy.itertuples():
        clearly = "is" if more["low"] > 0 else "is *not*"
        lines.append(
            f"- {name} {percent(inside)}: **{percent(more, signed=True)}**, which {clearly} clearly more than a "
            "flat map's"
        )
    return "\n".join(lines)


def said_of_agreement(together: np.ndarray, alike: np.ndarray) -> str:
    """How far the maps of two networks agree, (N,), where both decide alike, bool (N,), and where they do not."""
    parts = []
    for where, which in (("both decide alike", alike), ("they don't", ~alike)):
        if which.any():
            parts.append(f"**{together[which].mean():+.2f}** where {where} ({which.sum()} slices)")
    return f"The models' maps correlate by {', and by '.join(parts)}."


# --------------------------------------------------------------------------------------------- lesions that grow

SIZES = (0.0, 0.1, 0.2, 0.3, 0.4)
PLACES = {"at the pleura": 0.05, "deep inside": 0.5}


def with_patches(
    first_patient: int, depth: float, size: float, image_size: int, seed: int
) -> tuple[Tensor, np.ndarray]:
    """A slice of each of ten imaginary patients with a patch of ground glass in both lungs, and where it lies."""
    fixed = {"place": 0.6, "density": 0.45, "lungs": "both", "level": 0.55, "image_size": image_size, "seed": seed}
    pairs = [draw_with_lesion(first_patient + i, depth=depth, size=size, **fixed) for i in range(10)]
    slices, patches = (np.stack(part) for part in zip(*pairs, strict=True))
    return torch.from_numpy(slices), patches


def grow_patches(
    networks: dict[str, Net], chosen: dict[str, str], first_patient: int, image_size: int, seed: int
) -> tuple[dict, pd.DataFrame]:
    """Ten patients whose patches grow, at each of PLACES.

    Args:
        chosen: {network: name in `fine_maps.MAPS`}, the map that is scored.

    Returns:
        {"p(COVID), place": {network: mean probability at each of SIZES}}, and a row per network and place: in how
        many of the ten the hottest place lies in a patch of the largest size, and in how many a random one would.
    """
    growth, rows = {}, []
    for place, depth in PLACES.items():
        curves = growth[f"p(COVID), {place}"] = {name: [] for name in networks}
        for size in SIZES:
            slices, patches = with_patches(first_patient, depth, size, image_size, seed)
            for name, model in networks.items():
                curves[name].append(torch.sigmoid(predict(model, slices)).mean().item())
        for name, model in networks.items():  # with patches of the largest size
            heat = named_map(model, slices, chosen[name], [1] * len(slices))
            hits = pointing_game(heat, patches, np.ones_like(patches)).sum()
            rows.append([name, place, f"{hits:.0f} of {len(slices)}", f"{patches.mean((1, 2)).sum():.1f}"])
    columns = ["network", "patches", "hottest place in a patch", "a random place would"]
    return growth, pd.DataFrame(rows, columns=columns).set_index("network")
