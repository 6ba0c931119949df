"""Recorded results: each configuration is measured once, and the tables say what the numbers say."""

import pandas as pd
import pytest
import tables
from experiment import RESULTS, grid, is_recorded, read_rows, run

from covid_utils.evaluation import mean_over_seeds, percent


def test_a_configuration_is_measured_once_and_numbers_are_kept_exactly(tmp_path):
    path, measured = tmp_path / "rows.csv", []

    def measure(seed, way):
        measured.append((seed, way))
        return [{"map": name, "score": {"value": seed / 3, "low": 0.0, "high": 1.0}} for name in ("a", "b")]

    run(path, grid(seed=[0], way=["x"]), measure)
    rows = run(path, grid(seed=[0, 1], way=["x", ""]), measure)
    assert measured == [(0, "x"), (0, ""), (1, "x"), (1, "")] and len(rows) == 8
    assert rows.score[4] == 1 / 3 and list(rows) == ["seed", "way", "map", "score", "score low", "score high"]
    assert is_recorded(rows, {"seed": 1, "way": ""}) and not is_recorded(rows, {"seed": 2, "way": "x"})
    with pytest.raises(ZeroDivisionError):
        run(path, grid(seed=[2], way=["x"]), lambda seed, way: 1 / 0)
    pd.testing.assert_frame_equal(read_rows(path), rows)


def test_the_notebooks_files_are_those_of_the_recorded_results():
    content = tables.notebook_tables()
    assert {path.stem for path in (RESULTS / "tables").glob("*.csv")} == set(content)
    for name, table in content.items():
        assert len(table) >= 2 and not table.isna().any(axis=None)
        assert (RESULTS / "tables" / f"{name}.csv").read_text() == table.to_csv(), "run benchmarks/tables.py"


@pytest.fixture
def results(monkeypatch):
    """Made-up rows by the name of their file, in place of the recorded ones."""
    made = {}
    monkeypatch.setattr(tables, "read", lambda name: pd.DataFrame(made[name]))
    return made


def points(*values):
    return percent(mean_over_seeds(values), signed=True)


def runs_of(values, val):
    """Recorded accuracies, {model: one for each seed}, and one of another split; `val`, {model: on validation}."""
    rows = [
        {"split": "patient", "seed": seed, "model": model, "accuracy": value, "val_accuracy": val.get(model)}
        for model, each in values.items()
        for seed, value in enumerate(each)
    ]
    return [*rows, {"split": "random", "seed": 0, "model": "scratch", "accuracy": 0.99}]


def test_starts_are_paired_with_the_random_one_over_the_seeds_that_both_have(results):
    drawn = {"scratch": [0.5, 0.6, 0.7], "bundled": [0.6, 0.7], "1-nearest neighbour": [0.99], "grey histogram": [0.95]}
    results["phantom"] = runs_of(drawn, {"scratch": 0.9, "bundled": 0.8})
    real = {"scratch": [0.5, 0.6], "imagenet": [0.4, 0.7], "bundled": [0.9, 0.9]}
    results["sars-cov-2-ct"] = runs_of(real, {"imagenet": 0.8, "bundled": 0.7})  # the other one is ahead on test slices
    table, best = tables.starts(), tables.best_starts()
    names = [tables.STARTS[name] for name in ("grey histogram", "scratch", "bundled", "imagenet")]
    assert table.index.tolist() == names
    assert table.loc[names[2], "drawn slices"].tolist() == ["65.0", points(0.1, 0.1), "2"]
    assert table.loc[names[1], ("drawn slices", "minus ResNet-18, random")] == ""
    assert best.index.tolist() == [("drawn slices", names[2]), ("real slices", names[3])]
    assert best["that is"].tolist() == ["a gain beyond chance", "cannot be told from chance"]
