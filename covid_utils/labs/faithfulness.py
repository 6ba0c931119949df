"""Is a heat map faithful to its network? Remove pixels by relevance (ROAD), and compare maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.stats import spearmanr
from torch import Tensor

from ..models import Net
from ..training import predict


def remove(images: Tensor, maps: np.ndarray, share: float, order: str = "MoRF", seed: int = 0) -> Tensor:
    """Slices without the share of pixels that their heat maps call most (or least) relevant.

    ROAD (Rong et al. 2022, https://arxiv.org/abs/2202.00449, section 4.2): noisy linear imputation fills the gaps, so
    that each missing pixel is the weighted mean of its eight neighbours, known or not.
    Tied pixels are removed in random order; otherwise a map with many zeros would lose all of them at once.

    Args:
        images: uint8 (N, H, W), and as many maps, float (N, H, W).
        share: 0 to 1, the share of pixels to remove.
        order: "MoRF", most relevant pixels first, or "LeRF", least relevant first; else ValueError.
        seed: of ties and noise.

    Returns:
        uint8 (N, H, W).
    """
    if order not in ("MoRF", "LeRF"):
        raise ValueError(f"Unknown order={order!r}: use MoRF or LeRF.")
    rng, result = np.random.default_rng(seed), []
    for image, heat in zip(images.numpy(), maps, strict=True):
        ranks = np.lexsort((rng.random(heat.size), heat.ravel() * (-1 if order == "MoRF" else 1)))
        gone = np.zeros(heat.size, bool)
        gone[ranks[: round(share * heat.size)]] = True
        gone, filled = gone.reshape(image.shape), image.astype(np.float32)
        if 0 < gone.sum() < gone.size:
            filled = NoisyLinearImputer(noise=0.0)(torch.from_numpy(filled)[None], torch.from_numpy(~gone).float())
            filled = filled[0].numpy() + gone * rng.normal(0, 2.55, image.shape)
        result.append(np.clip(np.round(filled), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(result))


def removal_curves(
    model: Net, images: Tensor, maps: dict[str, np.ndarray], shares: Sequence[float], targets, order="MoRF"
) -> dict[str, np.ndarray]:
    """ROAD's curves: probability of the target class after each share of the pixels is removed, by several maps.

    Args: as for `remove`; `maps`: {name: float (N, H, W)}; `targets`: 0 or 1 for each slice, (N,).

    Returns:
        {name: float32 (len(shares), N)}.
    """
    sign, curves = 2 * torch.as_tensor(targets).float() - 1, {}
    for name, heat in maps.items():
        logits = predict(model, torch.cat([remove(images, heat, share, order) for share in shares]))
        curves[name] = torch.sigmoid(logits.reshape(len(shares), -1) * sign).numpy()
    return curves


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps of each slice, (N, H, W) each; 0 if one is flat. float (N,).

    >>> rank_correlation(np.array([[[1, 2, 3]]]), np.array([[[10, 20, 90]]]))
    array([1.])
    """
    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    return np.array([spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0 for a, b in pairs])
