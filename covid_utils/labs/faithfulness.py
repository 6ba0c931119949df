"""Is a heat map faithful to its network? Remove pixels by relevance (ROAD), randomise weights, retrain."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import TensorDataset

from ..core.backbones import BACKBONES
from ..core.device import pick_device, seeded
from ..core.settings import Settings
from ..data import CTData, make_loader
from ..models import LAYERS, FeatureHead, Net, freeze
from ..runs.load_or_train import new_model
from ..training import predict, train_one_epoch

CASCADE = ("head", *LAYERS[::-1], "stem")


def remove(
    images: Tensor, maps: np.ndarray, share: float, order: str = "MoRF", fill: str = "road", seed: int = 0
) -> Tensor:
    """Slices without the share of pixels that their heat maps call most (or least) relevant.

    Tied pixels are removed in random order; otherwise a map with many zeros would lose all of them at once.

    Args:
        images: uint8 (N, H, W), and as many maps, float (N, H, W).
        share: 0 to 1, the share of pixels to remove.
        order: "MoRF", most relevant pixels first, or "LeRF", least relevant first; else ValueError.
        fill: what replaces them. "road": noisy linear imputation, each pixel the mean of its neighbours
            (ROAD, Rong et al. 2022, https://arxiv.org/abs/2202.00449, section 4.2); "black"; else ValueError.
        seed: of ties and noise.

    Returns:
        uint8 (N, H, W).
    """
    if order not in ("MoRF", "LeRF") or fill not in ("road", "black"):
        raise ValueError(f"Unknown order={order!r} or fill={fill!r}: use MoRF or LeRF, and road or black.")
    rng, result = np.random.default_rng(seed), []
    for image, heat in zip(images.numpy(), maps, strict=True):
        ranks = np.lexsort((rng.random(heat.size), heat.ravel() * (-1 if order == "MoRF" else 1)))
        gone = np.zeros(heat.size, bool)
        gone[ranks[: round(share * heat.size)]] = True
        gone, filled = gone.reshape(image.shape), image.astype(np.float32)
        if fill == "black":
            filled[gone] = 0
        elif 0 < gone.sum() < gone.size:
            filled = impute(filled, gone) + gone * rng.normal(0, 2.55, image.shape)
        result.append(np.clip(np.round(filled), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(result))


def impute(image: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Fill missing pixels so that each is the weighted mean of its eight neighbours, known or not.

    Args:
        image: float32 (H, W).
        gone: bool (H, W), which pixels are missing; not all of them.

    Returns:
        float32 (H, W).
    """
    known = torch.from_numpy(~gone).float()
    return NoisyLinearImputer(noise=0.0)(torch.from_numpy(image)[None], known)[0].numpy()


def removal_curves(
    model: Net, images: Tensor, maps: dict[str, np.ndarray], shares: Sequence[float], targets, order="MoRF", fill="road"
) -> dict[str, np.ndarray]:
    """Probability of the target class after each share of the pixels is removed, by each of several maps.

    With fill="road": ROAD's curves. With fill="black" and MoRF: deletion (Petsiuk et al. 2018,
    https://arxiv.org/abs/1806.07421, section 4.2).

    Args: as for `remove`; `maps`: {name: float (N, H, W)}; `targets`: 0 or 1 for each slice, (N,).

    Returns:
        {name: float32 (len(shares), N)}.
    """
    sign, curves = 2 * torch.as_tensor(targets).float() - 1, {}
    for name, heat in maps.items():
        logits = predict(model, torch.cat([remove(images, heat, share, order, fill) for share in shares]))
        curves[name] = torch.sigmoid(logits.reshape(len(shares), -1) * sign).numpy()
    return curves


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps of each slice, (N, H, W) each; 0 if one is flat. float (N,).

    >>> rank_correlation(np.array([[[1, 2, 3]]]), np.array([[[10, 20, 90]]]))
    array([1.])
    """
    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    return np.array([spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0 for a, b in pairs])


def cascading_randomisation(model: Net, seed: int) -> Iterator[tuple[str, Net]]:
    """The network with more and more stages randomly initialised, from the head down to the stem.

    Adebayo et al. 2018, https://arxiv.org/abs/1810.03292, section 3.1.

    Args:
        model: the network; it is not changed.
        seed: not the one of the network's own training: a head hardly moves, and would be initialised as it is.

    Yields:
        name of the stage that was randomised last, and the network: the same object every time.
    """
    with seeded(seed):
        fresh, broken = Net(model.backbone), copy.deepcopy(model).eval()
    for stage in CASCADE:
        for part, random in zip(broken.parts(stage), fresh.parts(stage), strict=True):
            part.load_state_dict(random.state_dict())
        yield stage, broken


def retrain_three_times(
    data: CTData, settings: Settings, slices: int = 320, epochs: int = 8
) -> dict[str, tuple[Net, float]]:
    """Train the last stage with the true labels, again with another seed, and with shuffled labels.

    A quick recipe for networks that differ in nothing else: cached features of the frozen stages, a new output layer,
    no augmentation. With shuffled labels a network can only memorise (Adebayo et al.'s data randomisation test).

    Returns:
        {"honest", "honest, another seed", "shuffled labels": (network in eval mode, accuracy on its own labels in the
        last epoch)}.
    """
    device = pick_device(settings.device)
    rows = data.table.index[data.table.split == "train"].to_numpy()
    rows = np.random.default_rng(settings.seed).permutation(rows)[:slices]
    truth = torch.tensor(data.table.label[rows].to_numpy(), dtype=torch.float32, device=device)
    shuffled = truth[torch.randperm(len(truth), generator=torch.Generator().manual_seed(settings.seed))]
    base = freeze(new_model(settings)).to(device).eval()
    with torch.no_grad():
        batches = (base.preprocess(some.to(device)) for some in data.images[rows].split(64))
        features = torch.cat([base.forward_features(batch) for batch in batches])
    trained = {}
    recipes = {"honest": (truth, 1), "honest, another seed": (truth, 2), "shuffled labels": (shuffled, 1)}
    for name, (labels, seed) in recipes.items():
        model = copy.deepcopy(base)
        with seeded(seed):
            model.net.get_submodule(BACKBONES[model.backbone].output).reset_parameters()
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
            loader = make_loader(TensorDataset(features, labels), 64, shuffle=True)
            for _ in range(epochs):
                last = train_one_epoch(FeatureHead(model), loader, optimizer, None, device)
        trained[name] = model.eval(), last["accuracy"]
    return trained
