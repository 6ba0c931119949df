"""Learning rates for fine-tuning: the range test, and a rate for each stage."""

from __future__ import annotations

from itertools import chain, islice, repeat

import pandas as pd
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ..core.device import seeded
from ..core.settings import Settings
from ..data import CTData, loader
from ..models import STAGES, Net, train_with_frozen_bn


def range_test(
    model: Net, data: CTData, settings: Settings, lowest: float = 1e-5, highest: float = 1.0, steps: int = 60
) -> pd.DataFrame:
    """The training loss while the learning rate grows from step to step.

    The learning-rate range test (Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3), here in equal factors as
    fastai does it. A good rate lies where the loss falls fastest, well before it rises. The network is spoilt by it:
    give one that is not needed any more.

    Returns:
        a row a step: `rate`, `loss`, and `smooth`, the mean of the last five or so. It ends early once the loss is four
        times the lowest, or NaN.
    """
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lowest, weight_decay=0.05)
    faster = torch.optim.lr_scheduler.ExponentialLR(optimizer, (highest / lowest) ** (1 / (steps - 1)))
    batches = chain.from_iterable(repeat(loader(data, "train", settings.batch_size, shuffle=True, augmented=True)))
    rows, device = [], next(model.parameters()).device
    with seeded(settings.seed):
        train_with_frozen_bn(model)
        for images, labels in islice(batches, steps):
            loss = binary_cross_entropy_with_logits(model(images.to(device)), labels.to(device))
            rows.append({"rate": optimizer.param_groups[0]["lr"], "loss": loss.item()})
            if not rows[-1]["loss"] < 4 * min(row["loss"] for row in rows):
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            faster.step()
    table = pd.DataFrame(rows)
    return table.assign(smooth=table.loss.ewm(span=5).mean())


def layerwise_rates(model: Net, rate: float, factor: float) -> list[dict]:
    """Parameter groups for an optimizer: the head learns at `rate`, each stage before it at `factor` of the next one's.

    Discriminative fine-tuning (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2; they take 1/2.6).
    """
    groups = []
    for depth, stage in enumerate(reversed(STAGES)):
        parameters = [p for part in model.parts(stage) for p in part.parameters()]
        groups.append({"params": parameters, "lr": rate * factor**depth})
    return [group for group in groups if group["params"]]
