import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score
from toy import tiny_data

from covid_utils import evaluation
from covid_utils.evaluation import compare, metrics_with_intervals, percent
from covid_utils.labs import calibration
from covid_utils.labs.audit import grey_histogram, nearest_neighbour

RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1], 100)
LOGITS = RNG.normal(1.5 * (LABELS - 0.5))


def test_scores_agree_with_scikit_learn():
    called = LOGITS > 0
    wanted = {
        "accuracy": (called == LABELS).mean(),
        "sensitivity": recall_score(LABELS, called),
        "specificity": recall_score(LABELS, called, pos_label=0),
        "precision": precision_score(LABELS, called),
        "f1": f1_score(LABELS, called),
        "auc": roc_auc_score(LABELS, LOGITS),
        "average_precision": average_precision_score(LABELS, LOGITS),
    }
    found = metrics_with_intervals(LOGITS, LABELS, np.arange(200))
    assert {name: score["value"] for name, score in found.items()} == pytest.approx(wanted)
    assert all(score["low"] < score["value"] < score["high"] for score in found.values())
    ties = LOGITS.round(0)
    found = metrics_with_intervals(ties, LABELS, np.arange(200))
    assert found["average_precision"]["value"] == pytest.approx(average_precision_score(LABELS, ties))
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(LABELS, ties))
    assert np.isnan(metrics_with_intervals(LOGITS, 0 * LABELS, np.arange(200))["auc"]["value"]), "a class is missing"


def test_copies_of_a_slice_bring_no_certainty():
    """Four identical slices a patient: the interval is as wide as with one, and twice as wide as the naive one."""
    one = metrics_with_intervals(LOGITS, LABELS, np.arange(200))["accuracy"]
    logits, labels, patients = np.repeat(LOGITS, 4), np.repeat(LABELS, 4), np.repeat(np.arange(200), 4)
    clustered = metrics_with_intervals(logits, labels, patients)["accuracy"]
    naive = metrics_with_intervals(logits, labels, np.arange(800))["accuracy"]

    one, clustered, naive = (score["high"] - score["low"] for score in (one, clustered, naive))
    share = (LABELS == (LOGITS > 0)).mean()
    assert clustered == pytest.approx(one, rel=0.05) and clustered / naive == pytest.approx(2, rel=0.2)
    assert one == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 200), rel=0.12), "the textbook's"


def test_comparison_is_paired_and_signed():
    better = LOGITS + 0.8 * (LABELS - 0.5)
    forward, backward = (compare(*pair, LABELS, np.arange(200)) for pair in ((LOGITS, better), (better, LOGITS)))
    assert forward["accuracy"]["value"] == -backward["accuracy"]["value"] > 0
    assert forward["only_b"] - forward["only_a"] == round(200 * forward["accuracy"]["value"])
    same = compare(LOGITS, LOGITS, LABELS, np.arange(200))
    assert same["accuracy"] == {"value": 0, "low": 0, "high": 0} and same["p_mcnemar"] == 1


def test_exact_mcnemar_by_hand():
    """One against nine discordant slices: p = 2 (C(10,0) + C(10,1)) / 2^10."""
    assert evaluation.mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (np.where(LABELS, LOGITS, np.nan), LABELS, r"100 of 200 logits are NaN"),
        (LOGITS, 2 * LABELS, "Labels must be 0"),
        (LOGITS, LABELS[:3], r"\(200,\) logits for \(3,\) labels"),
    ],
)
def test_what_cannot_be_scored_is_refused(logits, labels, said):
    with pytest.raises(ValueError, match=said):
        metrics_with_intervals(logits, labels, np.arange(200))
    with pytest.raises(ValueError, match=said):
        compare(logits, logits, labels, np.arange(200))


def test_baselines_see_the_obvious():
    data = tiny_data(48)
    truth = data.table.label[data.table.split == "test"].to_numpy()
    assert ((nearest_neighbour(data) > 0) == truth).mean() > 0.75
    assert ((grey_histogram(data) > 0) == truth).mean() > 0.9


def test_percent_and_words_for_intervals():
    change = {"value": 0.021, "low": -0.01, "high": 0.05}
    assert percent({"value": 0.8449, "low": 0.801, "high": 0.886}) == "84.5 % (80.1 to 88.6)"
    assert percent(change, signed=True) == "+2.1 points (-1.0 to +5.0)"
    said = [calibration.verdict(change | ends) for ends in ({"low": 0.01}, {"high": -0.001}, {})]
    assert said == ["a gain beyond chance", "a loss beyond chance", "cannot be told from chance"]


# ------------------------------------------------------------------------------ do the intervals keep their word?


def study(rng, patients=60, slices=4, accuracy=0.85, alike=0.4):
    """An imaginary study: which slices were right. Each patient has an accuracy of its own, beta-distributed."""
    a, b = accuracy * (1 - alike) / alike, (1 - accuracy) * (1 - alike) / alike
    right = rng.random((patients, slices)) < rng.beta(a, b, patients)[:, None]
    labels = np.tile([0, 1], patients).repeat(slices)[: patients * slices]
    return np.where(right.ravel() == (labels == 1), 1.0, -1.0), labels, np.arange(patients).repeat(slices)


def test_the_interval_holds_the_truth_in_95_of_100_studies(monkeypatch):
    """600 studies with clustered slices; slices taken as independent would hold it far too rarely."""
    monkeypatch.setattr(evaluation, "REPEATS", 400)
    rng, held, naive = np.random.default_rng(0), 0, 0
    for _ in range(600):
        logits, labels, patients = study(rng)
        honest = metrics_with_intervals(logits, labels, patients)["accuracy"]
        held += honest["low"] <= 0.85 <= honest["high"]
        right = ((logits > 0) == labels).mean()
        naive += abs(right - 0.85) <= 1.96 * np.sqrt(right * (1 - right) / len(labels))
    assert 0.93 <= held / 600 <= 0.97
    assert naive / 600 < 0.88


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
    assert calibration.predictive_values(0.9, 0.9, 0.01) == pytest.approx((9 / 108, 891 / 892))
    assert np.isnan(calibration.predictive_values(0, 1, 0.1)[0]), "nobody is called ill"


def test_temperature_undoes_a_scaling():
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-honest))).astype(int)
    found = calibration.temperature(3 * honest, labels)
    assert found == pytest.approx(3, rel=0.1)
    as_trained, scaled = (log_loss(labels, 1 / (1 + np.exp(-3 * honest / t))) for t in (1, found))
    assert scaled < as_trained
