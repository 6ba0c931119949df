import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score, roc_auc_score
from toy import tiny_data

from covid_utils import evaluation
from covid_utils.evaluation import compare, metrics_with_intervals, percent
from covid_utils.labs import calibration
from covid_utils.labs.audit import grey_histogram, nearest_neighbour

RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1], 100)
LOGITS = RNG.normal(1.5 * (LABELS - 0.5))


def test_scores_agree_with_scikit_learn():
    result = metrics_with_intervals(LOGITS, LABELS, np.arange(200))
    assert result["auc"]["value"] == pytest.approx(roc_auc_score(LABELS, LOGITS))
    assert result["accuracy"]["value"] == pytest.approx(((LOGITS > 0) == LABELS).mean())
    assert result["sensitivity"]["value"] == pytest.approx((LOGITS[LABELS == 1] > 0).mean())
    assert result["specificity"]["value"] == pytest.approx((LOGITS[LABELS == 0] <= 0).mean())
    called = LOGITS > 0
    assert result["precision"]["value"] == pytest.approx(precision_score(LABELS, called))
    assert result["f1"]["value"] == pytest.approx(f1_score(LABELS, called))
    for logits in (LOGITS, LOGITS.round(0)):  # the second has many ties
        found = metrics_with_intervals(logits, LABELS, np.arange(200))["average_precision"]["value"]
        assert found == pytest.approx(average_precision_score(LABELS, logits))
    for score in result.values():
        assert score["low"] < score["value"] < score["high"]


def test_interval_of_independent_slices_is_the_textbook_one():
    accuracy = metrics_with_intervals(LOGITS, LABELS, np.arange(200))["accuracy"]
    p = accuracy["value"]
    half = 1.96 * np.sqrt(p * (1 - p) / 200)
    assert (accuracy["high"] - accuracy["low"]) / 2 == pytest.approx(half, rel=0.12)


def test_copies_of_a_slice_bring_no_certainty():
    """Four identical slices a patient: the interval is as wide as with one, and twice as wide as the naive one."""
    one = metrics_with_intervals(LOGITS, LABELS, np.arange(200))["accuracy"]
    logits, labels, patients = np.repeat(LOGITS, 4), np.repeat(LABELS, 4), np.repeat(np.arange(200), 4)
    clustered = metrics_with_intervals(logits, labels, patients)["accuracy"]
    naive = metrics_with_intervals(logits, labels, np.arange(800))["accuracy"]

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
    assert np.isnan(metrics_with_intervals(LOGITS, np.zeros(200), np.arange(200))["auc"]["value"])


@pytest.mark.parametrize("wrong", [np.nan, None])
def test_scores_of_no_number_are_refused(wrong):
    broken = LOGITS.copy().astype(object)
    broken[::4] = wrong
    for call in (
        lambda: metrics_with_intervals(broken.astype(float), LABELS, np.arange(200)),
        lambda: compare(LOGITS, broken.astype(float), LABELS, np.arange(200)),
    ):
        with pytest.raises(ValueError, match=r"50 of 200 logits are NaN"):
            call()


def test_labels_are_0_or_1_and_as_many_as_logits():
    with pytest.raises(ValueError, match="Labels must be 0"):
        metrics_with_intervals(LOGITS, 2 * LABELS, np.arange(200))
    with pytest.raises(ValueError, match=r"\(200,\) logits for \(3,\) labels"):
        metrics_with_intervals(LOGITS, LABELS[:3], np.arange(200))


def test_baselines_see_the_obvious():
    data = tiny_data(48)
    truth = data.table.label[data.table.split == "test"].to_numpy()
    assert ((nearest_neighbour(data) > 0) == truth).mean() > 0.75
    assert ((grey_histogram(data) > 0) == truth).mean() > 0.9


def test_percent():
    assert percent({"value": 0.8449, "low": 0.801, "high": 0.886}) == "84.5 % (80.1 to 88.6)"
    assert percent({"value": 0.021, "low": -0.01, "high": 0.05}, signed=True) == "+2.1 points (-1.0 to +5.0)"


# ------------------------------------------------------------------------------ do the intervals keep their word?


def study(rng, patients=60, slices=4, accuracy=0.85, alike=0.4):
    """An imaginary study: which slices were right. Each patient has an accuracy of its own, beta-distributed."""
    a, b = accuracy * (1 - alike) / alike, (1 - accuracy) * (1 - alike) / alike
    right = rng.random((patients, slices)) < rng.beta(a, b, patients)[:, None]
    labels = np.tile([0, 1], patients).repeat(slices)[: patients * slices]
    return np.where(right.ravel() == (labels == 1), 1.0, -1.0), labels, np.arange(patients).repeat(slices)


def test_the_interval_holds_the_truth_in_95_of_100_studies(monkeypatch):
    """1000 studies with clustered slices; slices taken as independent would hold it far too rarely."""
    monkeypatch.setattr(evaluation, "REPEATS", 400)
    rng, held, naive = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        logits, labels, patients = study(rng)
        honest = metrics_with_intervals(logits, labels, patients)["accuracy"]
        held += honest["low"] <= 0.85 <= honest["high"]
        right = ((logits > 0) == labels).mean()
        naive += abs(right - 0.85) <= 1.96 * np.sqrt(right * (1 - right) / len(labels))
    assert 0.93 <= held / 1000 <= 0.97
    assert naive / 1000 < 0.88


def test_all_right_is_not_certain():
    """39 patients, all right: the exact binomial interval of 39 trials, 0.025 ** (1 / 39)."""
    labels = np.tile([0, 1], 78)
    score = metrics_with_intervals(2.0 * labels - 1, labels, np.arange(156) // 4)["accuracy"]
    assert (score["value"], score["high"]) == (1, 1) and score["low"] == pytest.approx(0.025 ** (1 / 39))


def test_sample_size_has_the_power_it_promises():
    """Simulation: with so many slices McNemar's test finds the difference in about 80 of 100 studies."""
    n = calibration.sample_size(0.06, 0.14)
    rng = np.random.default_rng(0)
    only = rng.multinomial(n, [0.04, 0.10, 0.86], size=1000)
    z = (only[:, 1] - only[:, 0]) / np.sqrt(only[:, 0] + only[:, 1])
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.04)
    with pytest.raises(ValueError, match="disagree must lie between"):
        calibration.sample_size(0.1, 0.05)


def test_the_operating_point_finds_as_many_as_asked():
    for wanted in (0.5, 0.9, 1.0):
        threshold = calibration.operating_point(LOGITS, LABELS, wanted)
        found = (LOGITS[LABELS == 1] > threshold).mean()
        assert found >= wanted and (LOGITS[LABELS == 1] > np.nextafter(threshold, np.inf)).mean() < found
    with pytest.raises(ValueError, match="No COVID slice"):
        calibration.operating_point(LOGITS, np.zeros(200))


def test_predictive_values_by_hand():
    """Of 1000 people 10 are ill: 9 are found; 99 of the 990 others are called ill too."""
    yes, no = calibration.predictive_values(0.9, 0.9, 0.01)
    assert yes == pytest.approx(9 / 108) and no == pytest.approx(891 / 892)


def test_temperature_undoes_a_scaling():
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-honest))).astype(int)
    found = calibration.temperature(3 * honest, labels)
    assert found == pytest.approx(3, rel=0.1)
    _, sure = calibration.calibration(3 * honest, labels)
    table, scaled = calibration.calibration(3 * honest / found, labels)
    assert all(scaled[name] < sure[name] for name in sure)
    assert scaled["log loss"] == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-3 * honest / found))))
    assert (table.predicted - table.fraction_of_positives).abs().max() < 0.06


def test_the_difference_of_two_patient_groups_is_newcombes():
    """Method 10 in table II of Newcombe 1998: 56/70 against 48/80, 9/10 against 3/10."""

    def wilson(right: int, n: int) -> dict[str, float]:
        low, high = binomtest(right, n).proportion_ci(method="wilson")
        return {"value": right / n, "low": low, "high": high}

    for one, other, wanted in (((48, 80), (56, 70), (0.0524, 0.3339)), ((3, 10), (9, 10), (0.1705, 0.8090))):
        found = calibration.difference_interval(wilson(*one), wilson(*other))
        assert (found["low"], found["high"]) == pytest.approx(wanted, abs=5e-5)


def test_words_for_intervals():
    said = [calibration.verdict({"low": low, "high": high}) for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))]
    assert said == ["a gain beyond chance", "a loss beyond chance", "cannot be told from chance"]
