"""Tables of recorded runs say what the recorded numbers say."""

import pandas as pd
import pytest

from covid_utils.evaluation import mean_over_seeds, percent
from covid_utils.labs import benchmark_tables

TABLES = (
    benchmark_tables.cached_copies,
    benchmark_tables.stages_that_learn,
    benchmark_tables.source_findings,
    benchmark_tables.starts,
    benchmark_tables.best_starts,
    benchmark_tables.gain_by_slices,
    benchmark_tables.ways_to_fine_tune,
    benchmark_tables.spread,
    benchmark_tables.better_answers,
)


def score(value, half=0.1):
    return {"value": value, "low": value - half, "high": value + half}


@pytest.fixture
def results(monkeypatch):
    """Made-up runs by the name of their file, in place of the recorded ones."""
    made = {}
    monkeypatch.setattr(benchmark_tables, "read", made.__getitem__)
    return made


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_the_recorded_runs_make_a_table(table):
    made = table()
    assert len(made) >= 2 and not made.isna().any(axis=None) and len(made.to_html(max_cols=0)) < 8000


def test_kept_copies_are_compared_with_none_seed_by_seed(results):
    values = {0: (0.9, 0.8), 1: (0.85, 0.7)}
    results["trunk_cache"] = [
        {"seed": seed, "copies": copies, "accuracy": score(both[seed]), "seconds": 30 if copies else 60}
        for copies, both in values.items()
        for seed in (0, 1)
    ]
    table = benchmark_tables.cached_copies()
    assert table.index.tolist() == ["none: anew each epoch", "1 copy"] and table.index.name == "kept (2 seeds)"
    assert table["test accuracy, %"].tolist() == ["85.0", "77.5"] and table["times as fast"].tolist() == ["1.0", "2.0"]
    assert table.difference.tolist() == ["", percent(mean_over_seeds([-0.05, -0.1]), signed=True)]


def test_stages_are_those_of_the_notebooks_recipe(results):
    recipe = "backbone=efficientnet_lite0 weights=imagenet trainable={} batch_size=16 learning_rate=0.002"
    rows = [
        ("phantom", "last", 0.8, 10),
        ("phantom", "last", 0.9, 30),
        ("other", "last", 0.1, 1),
        ("phantom", "all", 1, 5),
    ]
    results["search"] = [
        {"dataset": name, "recipe": recipe.format(stage), "best": best, "seconds": seconds}
        for name, stage, best, seconds in rows
    ]
    table = benchmark_tables.stages_that_learn()
    assert table.index.tolist() == ["last", "all"]
    assert table.loc["last"].tolist() == ["85.0", "80.0", "90.0", "20"]


def runs_of(values, val=()):
    """Recorded accuracies, {model: one for each seed}, and one of another split; `val`, {model: on validation}."""
    rows = [
        {"split": "patient", "seed": seed, "model": model, "test": {"accuracy": score(value)}}
        for model, each in values.items()
        for seed, value in enumerate(each)
    ]
    rows = [row | ({"val_accuracy": dict(val)[row["model"]]} if row["model"] in dict(val) else {}) for row in rows]
    return [*rows, {"split": "random", "seed": 0, "model": "scratch", "test": {"accuracy": score(0.99)}}]


def test_starts_are_paired_with_the_random_one_over_the_seeds_that_both_have(results):
    drawn = {"scratch": [0.5, 0.6, 0.7], "bundled": [0.6, 0.7], "1-nearest neighbour": [0.99], "grey histogram": [0.95]}
    results["phantom"] = runs_of(drawn, {"scratch": 0.9, "bundled": 0.8})
    real = {"scratch": [0.5, 0.6], "imagenet": [0.4, 0.7], "bundled": [0.9, 0.9]}
    results["sars-cov-2-ct"] = runs_of(real, {"imagenet": 0.8, "bundled": 0.7})  # the other one is ahead on test slices
    table = benchmark_tables.starts()
    assert table.index.tolist() == [
        benchmark_tables.STARTS[name] for name in ("grey histogram", "scratch", "bundled", "imagenet")
    ]
    row = table.loc[benchmark_tables.STARTS["bundled"], "drawn slices"]
    assert row.tolist() == ["65.0", percent(mean_over_seeds([0.1, 0.1]), signed=True), 2]
    assert table.loc[benchmark_tables.STARTS["scratch"], ("drawn slices", "minus ResNet-18, random")] == ""
    best = benchmark_tables.best_starts()
    chosen = [
        ("drawn slices", benchmark_tables.STARTS["bundled"]),
        ("real slices", benchmark_tables.STARTS["imagenet"]),
    ]
    assert best.index.tolist() == chosen
    assert best["that is"].tolist() == ["a gain beyond chance", "cannot be told from chance"]


def test_the_gain_by_slices_is_that_of_the_shortest_budget(results):
    rows = [
        ("scratch", 5, 0.5),
        ("scratch", 15, 0.9),
        ("transfer", 5, 0.6),
        ("transfer", 15, 0.1),
        ("histogram", 0, 0.3),
    ]
    results["learning_curve"] = [
        {"seed": seed, "slices": 50, "model": model, "epochs": epochs, "test": {"accuracy": score(value + seed / 10)}}
        for seed in (0, 1)
        for model, epochs, value in rows
    ]
    table = benchmark_tables.gain_by_slices()
    assert table.columns.tolist() == ["ResNet-18, drawings, 2 seeds"] and table.index.tolist() == [50]
    assert table.iloc[0, 0] == percent(mean_over_seeds([0.1, 0.1]), signed=True)


def test_ways_to_fine_tune_are_paired_with_one_rate(results):
    results["craft"] = [
        {"way": way, "seed": seed, "best": value}
        for way, values in (("one rate", (0.5, 0.6)), ("trick", (0.4, 0.5)))
        for seed, value in enumerate(values)
    ]
    table = benchmark_tables.ways_to_fine_tune()
    assert table.loc["trick"].tolist()[0] == "45.0" and table["that is"].tolist() == ["", "a loss beyond chance"]


def test_the_spread_is_that_of_one_thing_at_a_time(results):
    results["variance"] = [
        {"network": network, "patients": patients, "accuracy": score(value)}
        for network, patients, value in ((0, 0, 0.5), (1, 0, 0.6), (2, 0, 0.7), (0, 1, 0.5), (0, 2, 0.5))
    ]
    found = benchmark_tables.spread()
    assert found["standard deviation, points"].tolist() == ["10.0", "0.0", "5.0"]
    assert found["test accuracy, %"].tolist() == ["50.0 to 70.0", "50.0 to 50.0", ""]


def test_better_answers_have_the_mean_over_the_splits(results):
    gains = [{"way": "both", "part": "val", "split": split, "accuracy": score(split / 10)} for split in (1, 2)]
    results["better_answers"] = {"gains": gains}
    (row,) = benchmark_tables.better_answers().to_dict("records")
    assert row["split 1"] == percent(score(0.1), signed=True)
    assert row["mean over splits"] == percent(mean_over_seeds([0.1, 0.2]), signed=True)


def test_what_a_run_records_has_the_best_epoch_and_all_seconds():
    history = pd.DataFrame({"epoch": [1, 2, 3], "val_accuracy": [0.5, 0.9, 0.7], "val_loss": 1.0, "seconds": [1, 2, 3]})
    summary = benchmark_tables.summary({"auc": score(0.5)}, [[1, 2], [3, 4]], history)
    assert summary["best_epoch"] == 2 and summary["seconds"] == 6 and summary["confusion"] == [[1, 2], [3, 4]]
