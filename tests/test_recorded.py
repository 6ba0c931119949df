"""Recorded results: each configuration is measured once, and the tables say what the numbers say."""

import sys

import article
import pandas as pd
import pytest
import tables
from experiment import flat, grid, is_recorded, read_rows, run

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


def test_the_readmes_table_shows_the_best_of_a_kind_on_validation(monkeypatch):
    accuracy = {
        "scratch": (0.9, 0.5),
        "lite0 scratch": (0.8, 0.9),
        "bundled": (0.7, 0.6),
        "1-nearest neighbour": (None, 0.4),
    }
    rows = [
        {"split": "patient", "seed": seed, "model": model, "val_accuracy": val}
        | flat({"accuracy": {"value": test + seed / 10, "low": 0.3, "high": 0.95}})
        for model, (val, test) in accuracy.items()
        for seed in (0, 1)
    ]
    monkeypatch.setattr(tables, "read", {"sars-cov-2-ct": pd.DataFrame(rows)}.get)
    neighbour, scratch, in_domain, *others = tables.message().splitlines()[2:]
    assert "| not run | 45 (30 to 95) |  |" in neighbour and "| not run | 55 (30 to 95) |  |" in scratch
    assert f"| 65 (30 to 95) | {percent(mean_over_seeds([0.1, 0.1]), signed=True)} |" in in_domain
    assert all(line.count("not run") == 2 for line in others)


def test_the_articles_recipe_goes_on_after_a_stop_to_the_same_scores(tmp_path, monkeypatch):
    small = "--dataset phantom --backbone resnet18 --image-size 32 --epochs 2 --seeds 0 --transfer bundled"
    monkeypatch.setattr(sys, "argv", ["article.py", *small.split()])
    monkeypatch.setattr(article, "RECIPE", article.RECIPE | {"patients": 24, "data_dir": str(tmp_path)})
    trained, found = [], []

    def stop_once(history):
        trained.append(len(history))
        if trained == [1]:
            raise KeyboardInterrupt

    for place in (tmp_path / "stopped", tmp_path / "undisturbed"):
        monkeypatch.setenv("COVID_UTILS_HOME", str(place))
        monkeypatch.setattr(article, "RESULTS", place)
        monkeypatch.setattr(article.PRINTED, "update", stop_once)
        if not trained:
            with pytest.raises(KeyboardInterrupt):
                article.main()
            assert not list(place.glob("*.csv"))
        article.main()
        found.append([read_rows(place / f"{name}.csv") for name in ("article", "article_history")])
        article.main()  # what is recorded is not measured again
    assert trained == [1, 2, 1, 2]
    (rows, history), undisturbed = found
    assert len(rows) == 1 and rows["accuracy low"][0] < rows.accuracy[0] < rows["accuracy high"][0]
    assert rows.best_epoch[0] == article.best_epoch(history) and history.epoch.tolist() == [1, 2]
    for stopped, other in zip((rows, history), undisturbed, strict=True):
        pd.testing.assert_frame_equal(stopped.drop(columns="seconds"), other.drop(columns="seconds"))
