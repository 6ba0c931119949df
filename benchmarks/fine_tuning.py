"""Do layer-wise rates or gradual unfreezing help? On VALIDATION patients of the phantom, several seeds.

    .venv/bin/python benchmarks/fine_tuning.py --seeds 0 1 2

An EfficientNet-Lite0 with ImageNet weights, notebook 3's recipe with all stages trainable. The rows go to
benchmarks/results/fine_tuning.csv; notebook 8 shows them.
"""

from __future__ import annotations

import time

import pandas as pd
import torch
from experiment import RESULTS, grid, parser, run

from covid_utils.core.device import seeded
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data, loader
from covid_utils.models import STAGES, Net, freeze
from covid_utils.runs.load_or_train import new_model
from covid_utils.training import evaluate, train_one_epoch

CPU = torch.device("cpu")
WAYS = {
    "one rate": {},
    "layer-wise, × 0.7": {"factor": 0.7},
    "gradual unfreezing": {"unfreeze": ("head", "last", "layer3", "layer2", "layer1", "all")},
}


def layerwise_rates(model: Net, rate: float, factor: float) -> list[dict]:
    """Parameter groups for an optimizer: the head at `rate`, each stage before it at `factor` of the next one's.

    Discriminative fine-tuning (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2; they take 1/2.6).
    """
    groups = []
    for depth, stage in enumerate(reversed(STAGES)):
        parameters = [p for part in model.parts(stage) for p in part.parameters()]
        groups.append({"params": parameters, "lr": rate * factor**depth})
    return [group for group in groups if group["params"]]


def fine_tune(model: Net, data: CTData, settings: Settings, factor: float = 1.0, unfreeze: tuple = ()) -> pd.DataFrame:
    """Train all stages, each at a rate of its own, or unfrozen one after the other; the last epoch's weights stay.

    Args:
        factor: as for `layerwise_rates`; 1 is one rate for all.
        unfreeze: what learns from each epoch on, as `models.freeze` takes it ("head", "last", …); when the names are
            used up, the last one holds. Empty: all stages from the start.

    Returns:
        the history: `epoch`, `val_accuracy`, `val_loss`.
    """
    batches = loader(data, "train", settings.batch_size, shuffle=True, augmented=True)
    checks, history = loader(data, "val", settings.batch_size), []
    groups = layerwise_rates(model, settings.learning_rate, factor)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=settings.epochs * len(batches)
    )
    stages = [*unfreeze, *[(unfreeze or ("all",))[-1]] * settings.epochs]
    for epoch, stage in enumerate(stages[: settings.epochs], start=1):
        with seeded(settings.seed * 1_000_003 + epoch):
            train_one_epoch(freeze(model, stage), batches, optimizer, schedule, CPU)
            found = evaluate(model, checks, CPU)
        history.append({"epoch": epoch, "val_accuracy": found["accuracy"], "val_loss": found["loss"]})
    return pd.DataFrame(history)


def measure(seed: int, way: str) -> list[dict]:
    """Validation accuracy at the best and at the last epoch."""
    recipe = {"backbone": "efficientnet_lite0", "weights": "imagenet", "trainable": "all"}
    settings = Settings(seed=seed, batch_size=16, learning_rate=2e-3, **recipe)
    data, started = load_data(settings, progress=False), time.perf_counter()
    accuracy = fine_tune(new_model(settings), data, settings, **WAYS[way]).val_accuracy
    seconds = round(time.perf_counter() - started)
    return [{"best": accuracy.max(), "last": accuracy.iloc[-1], "seconds": seconds}]


def main() -> None:
    seeds = parser(__doc__, seeds=3).parse_args().seeds
    run(RESULTS / "fine_tuning.csv", grid(seed=seeds, way=WAYS), measure)


if __name__ == "__main__":
    main()
