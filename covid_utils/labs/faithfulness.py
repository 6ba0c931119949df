"""Does a heat map tell the truth about its network? Remove what it shows; break the network; train it anew."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..models import Net
from ..speed import autocast, prepare, trunk
from ..training import predict

# ------------------------------------------------------------------------------------------- removing pixels


def remove(
    images: Tensor, maps: np.ndarray, share: float, first: str = "most", fill: str = "road", seed: int = 0
) -> Tensor:
    """Slices without the share of pixels that their heat maps call most (or least) relevant.

    Equally hot pixels go in random order: a map with many zeros would else lose all of them at once.

    Args:
        images: uint8 (N, H, W).
        maps: float (N, H, W).
        share: 0 to 1, how many of the pixels go.
        first: "most" or "least" relevant pixels go first.
        fill: what stands in for them. "road": noisy linear imputation, each pixel the mean of its neighbours
            (ROAD, Rong et al. 2022, https://arxiv.org/abs/2202.00449, section 4.2); "black"; "blur".
        seed: of ties and noise.

    Returns:
        uint8 (N, H, W).

    Raises:
        ValueError: an unknown `first` or `fill`.
    """
    if first not in ("most", "least") or fill not in ("road", "black", "blur"):
        raise ValueError(f"Unknown first={first!r} or fill={fill!r}: use most or least, and road, black or blur.")
    rng = np.random.default_rng(seed)
    result = []
    for image, heat in zip(images.numpy(), maps, strict=True):
        order = np.lexsort((rng.random(heat.size), heat.ravel() * (-1 if first == "most" else 1)))
        gone = np.zeros(heat.size, bool)
        gone[order[: round(share * heat.size)]] = True
        filled = image.astype(np.float32)
        if fill == "road" and 0 < gone.sum() < gone.size:
            filled = impute(filled, gone.reshape(image.shape)) + gone.reshape(image.shape) * rng.normal(
                0, 2.55, image.shape
            )
        elif fill == "blur":
            filled = np.where(gone.reshape(image.shape), cv2.GaussianBlur(filled, (0, 0), len(image) / 12), filled)
        elif fill == "black":
            filled = np.where(gone.reshape(image.shape), 0, filled)
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
    missing = gone.ravel()
    rows = _neighbours(*image.shape)[missing]
    known = -rows[:, ~missing] @ image[~gone]
    # the matrix is symmetric and positive definite; this ordering makes its decomposition three times faster
    options = {"SymmetricMode": True}
    solve = splu(rows[:, missing].tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options=options)
    filled = image.copy()
    filled[gone] = solve.solve(known)
    return filled


@lru_cache(maxsize=4)
def _neighbours(height: int, width: int) -> sparse.csr_matrix:
    """Graph Laplacian of the pixel grid: ROAD's weights 1/6 beside and 1/12 across."""
    index = np.arange(height * width).reshape(height, width)
    total = sparse.csr_matrix((height * width,) * 2)
    for down, right, weight in ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12)):
        here = index[: height - down, max(0, -right) : width - max(0, right)].ravel()
        there = index[down:, max(0, right) : width + min(0, right)].ravel()
        total = total + sparse.coo_matrix((np.full(len(here), weight), (here, there)), total.shape)
    total = total + total.T
    return (sparse.diags(np.asarray(total.sum(1)).ravel()) - total).tocsr()


def removal_curve(
    model: Net, images: Tensor, maps: np.ndarray, shares: Sequence[float], explained, first="most", fill="road"
) -> np.ndarray:
    """Probability of the explained class after each share of the pixels is removed.

    With fill="road": ROAD's curves. With fill="black", most relevant first: deletion; with fill="blur", least relevant
    first: insertion, read from right to left (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421, section 4.2).

    Args: as for `remove`; `explained`: 0 or 1 for each slice, (N,).

    Returns:
        float32 (len(shares), N).
    """
    stack = torch.cat([remove(images, maps, share, first, fill) for share in shares])
    logits, _ = predict(model, ((part, torch.zeros(len(part))) for part in stack.split(64)))
    sign = 2 * torch.as_tensor(explained).float() - 1
    return torch.sigmoid(logits.reshape(len(shares), -1) * sign).numpy()


# --------------------------------------------------------------------------------- agreement and sanity checks


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps of each slice, (N, H, W) each; 0 if one is flat. float (N,)."""
    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    return np.array([spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0 for a, b in pairs])


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Structural similarity (SSIM, https://doi.org/10.1109/TIP.2003.819861) of two maps in 0…1 of each slice, (N,)."""
    return np.array([structural_similarity(a, b, data_range=1.0) for a, b in zip(one, other, strict=True)])


BLOCKS = ("fc", "layer4", "layer3", "layer2", "layer1", "conv1")


def cascade(model: Net, seed: int) -> Iterator[tuple[str, Net]]:
    """The network with ever more blocks random, from the head down to the first layer.

    Cascading randomisation of Adebayo et al. 2018, https://arxiv.org/abs/1810.03292, section 3.1.

    Args:
        model: the network; it stays as it is.
        seed: not the one that the network's own training began with: a head hardly moves, and would come out as it was.

    Yields:
        name of the block that became random last, and the network: the same object every time.
    """
    random = torch.random.get_rng_state()
    torch.manual_seed(seed)
    fresh, broken = Net(model.backbone), copy.deepcopy(model).eval()
    torch.random.set_rng_state(random)
    for name in BLOCKS:
        getattr(broken.net, name).load_state_dict(getattr(fresh.net, name).state_dict())
        if name == "conv1":
            broken.net.bn1.load_state_dict(fresh.net.bn1.state_dict())
        yield name, broken


def retrain(start: Net, images: Tensor, labels: Tensor, seed: int, epochs: int = 8) -> tuple[Net, float]:
    """`layer4` and a new head trained once more, on features of the layers below that are worked out only once.

    No augmentation: a quick recipe to compare networks that differ in nothing but the seed or the labels.

    Args:
        start: the network to start from; it stays as it is.
        images: uint8 (N, H, W).
        labels: float32 (N,), 0 or 1; shuffled ones make a network that learns by heart.

    Returns:
        network in eval mode, and its accuracy on these slices in the last epoch.
    """
    model = copy.deepcopy(start).eval()
    below, device = trunk(model), next(model.parameters()).device
    with torch.no_grad(), autocast(device):
        parts = [below(prepare(model, part)).float() for part in images.split(64)]
    features, labels = torch.cat(parts), labels.to(device)
    torch.manual_seed(seed)
    model.net.fc = nn.Linear(model.net.fc.in_features, 1).to(device)
    top = nn.Sequential(model.net.layer4, model.net.avgpool, nn.Flatten(1), model.net.fc)
    top.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(top.parameters(), lr=5e-4)
    for _ in range(epochs):
        right = 0
        for rows in torch.randperm(len(labels)).to(device).split(64):
            if len(rows) == 1:
                continue  # batch norm can't learn from one slice
            with autocast(device):
                logits = top(features[rows]).flatten()
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(logits.float(), labels[rows]).backward()
            optimizer.step()
            right += ((logits > 0) == (labels[rows] > 0.5)).sum().item()
    return model.eval(), right / len(labels)
