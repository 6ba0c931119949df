import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from toy import tiny_data

from covid_utils.audit import grey_histogram, nearest_neighbour
from covid_utils.evaluation import compare, evaluate, percent

RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1], 100)
LOGITS = RNG.normal(1.5 * (LABELS - 0.5))


def test_scores_agree_with_scikit_learn():
    result = evaluate(LOGITS, LABELS, np.arange(200))
    assert result["auc"]["value"] == pytest.approx(roc_auc_score(LABELS, LOGITS))
    assert result["accuracy"]["value"] == pytest.approx(((LOGITS > 0) == LABELS).mean())
    assert result["sensitivity"]["value"] == pytest.approx((LOGITS[LABELS == 1] > 0).mean())
    assert result["specificity"]["value"] == pytest.approx((LOGITS[LABELS == 0] <= 0).mean())
    for score in result.values():
        assert score["low"] < score["value"] < score["high"]


def test_interval_of_independent_slices_is_the_textbook_one():
    accuracy = evaluate(LOGITS, LABELS, np.arange(200))["accuracy"]
    p = accuracy["value"]
    half = 1.96 * np.sqrt(p * (1 - p) / 200)
    assert (accuracy["high"] - accuracy["low"]) / 2 == pytest.approx(half, rel=0.12)


def test_copies_of_a_slice_bring_no_certainty():
    """Four identical slices a patient: the interval is as wide as with one, and twice as wide as the naive one."""
    one = evaluate(LOGITS, LABELS, np.arange(200))["accuracy"]
    logits, labels, patients = np.repeat(LOGITS, 4), np.repeat(LABELS, 4), np.repeat(np.arange(200), 4)
    clustered = evaluate(logits, labels, patients)["accuracy"]
    naive = evaluate(logits, labels, np.arange(800))["accuracy"]

    def width(score):
        return score["high"] - score["low"]

    assert width(clustered) == pytest.approx(width(one), rel=0.05)
    assert width(clustered) / width(naive) == pytest.approx(2, rel=0.2)


def test_comparison_is_paired_and_signed():
    better = LOGITS + 0.8 * (LABELS - 0.5)
    forward, backward = (compare(*pair, LABELS, np.arange(200)) for pair in ((LOGITS, better), (better, LOGITS)))
    assert forward["accuracy"]["value"] == -backward["accuracy"]["value"] > 0
    assert forward["only_b"] - forward["only_a"] == round(200 * forward["accuracy"]["value"])
    same = compare(LOGITS, LOGITS, LABELS, np.arange(200))
    assert same["accuracy"] == {"value": 0, "low": 0, "high": 0} and same["p_mcnemar"] == 1


def test_exact_mcnemar_by_hand():
    """One against nine discordant slices: p = 2 (C(10,0) + C(10,1)) / 2^10."""
    labels = np.ones(20, int)
    labels[10:] = 0
    a, b = np.where(labels == 1, 1.0, -1.0), np.where(labels == 1, 1.0, -1.0)
    a[:9] *= -1
    b[9] *= -1
    assert compare(a, b, labels, np.arange(20))["p_mcnemar"] == pytest.approx(2 * 11 / 1024)


def test_a_missing_class_is_not_a_number():
    assert np.isnan(evaluate(LOGITS, np.zeros(200), np.arange(200))["auc"]["value"])


def test_baselines_see_the_obvious():
    data = tiny_data(48)
    truth = data.table.label[data.table.split == "test"].to_numpy()
    assert (nearest_neighbour(data) == truth).mean() > 0.75
    assert (grey_histogram(data) == truth).mean() > 0.9


def test_percent():
    assert percent({"value": 0.8449, "low": 0.801, "high": 0.886}) == "84.5 % (80.1 to 88.6)"
    assert percent({"value": 0.021, "low": -0.01, "high": 0.05}, signed=True) == "+2.1 points (-1.0 to +5.0)"
