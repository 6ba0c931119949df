import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score
from toy import tiny_data

from covid_utils import evaluation
from covid_utils.evaluation import compare, metrics_with_intervals, percent
from covid_utils.labs import calibration
from covid_utils.labs.audit import grey_histogram, nearest_neighbour

RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1], 100)
LOGITS = RNG.normal(1.5 * (LABELS - 0.5))
FEW_COVID = (LABELS == 0) | (np.arange(200) % 5 == 0)


@pytest.mark.parametrize("threshold", [0, 1])
@pytest.mark.parametrize(
    ("logits", "labels"),
    [(LOGITS, LABELS), (LOGITS[FEW_COVID], LABELS[FEW_COVID]), (LOGITS.round(), LABELS)],
    ids=["balanced", "unbalanced", "ties"],
)
def test_scores_agree_with_scikit_learn(logits, labels, threshold):
    called = logits > threshold
    wanted = {
        "accuracy": (called == labels).mean(),
        "sensitivity": recall_score(labels, called),
        "specificity": recall_score(labels, called, pos_label=0),
        "precision": precision_score(labels, called),
        "f1": f1_score(labels, called),
        "auc": roc_auc_score(labels, logits),
        "average_precision": average_precision_score(labels, logits),
    }
    found = metrics_with_intervals(logits, labels, np.arange(len(labels)), threshold)
    assert {name: score["value"] for name, score in found.items()} == pytest.approx(wanted)
    assert all(score["low"] < score["value"] < score["high"] for score in found.values() if 0 < score["value"] < 1)


@pytest.mark.filterwarnings("error")
def test_a_metric_without_any_case_is_nan():
    found = metrics_with_intervals(-np.ones(9), np.zeros(9), np.arange(9))
    for name in ("sensitivity", "precision", "f1", "auc", "average_precision"):
        assert np.isnan(list(found[name].values())).all() and list(found[name]) == ["value", "low", "high"]
    assert found["specificity"]["value"] == found["accuracy"]["value"] == 1


@pytest.mark.parametrize("threshold", [0, 2])
@pytest.mark.parametrize(
    ("name", "patients"), [("sensitivity", 3), ("specificity", 12), ("precision", 3), ("accuracy", 15), ("auc", 15)]
)
def test_if_all_agree_the_interval_is_the_exact_binomial_one_of_the_patients_that_count(name, patients, threshold):
    """3 patients with COVID and 12 without, two slices each; a logit at the threshold is no COVID."""
    labels, groups = np.repeat([1, 0], [6, 24]), np.arange(30) // 2
    score = metrics_with_intervals(labels + threshold, labels, groups, threshold)[name]
    assert (score["value"], score["high"]) == (1, 1) and score["low"] == pytest.approx(0.025 ** (1 / patients))
    wrong = metrics_with_intervals(1 - labels + threshold, labels, groups, threshold)[name]
    called = 12 if name == "precision" else patients
    assert (wrong["value"], wrong["low"]) == (0, 0) and wrong["high"] == pytest.approx(1 - 0.025 ** (1 / called))


def test_intervals_of_few_patients_by_hand():
    """Student's t is 12.706 for two patients and 3.1824 for four; of one patient there is no interval."""
    drawn = np.array([0.5, 1.0])
    for groups, quantile in ((2, 12.706), (4, 3.1824)):
        half = quantile * 0.25 * np.sqrt(groups / (groups - 1))
        score = evaluation.share_interval(0.75, drawn, groups)
        odds = [score[end] / (1 - score[end]) for end in ("low", "high")]
        assert np.log(odds) == pytest.approx(np.log(3) + np.array([-1, 1]) * half / (0.75 * 0.25), rel=1e-3)
        score = evaluation.mean_interval(0.1, 0.25, groups)
        assert list(score.values()) == pytest.approx([0.1, 0.1 - half, 0.1 + half], rel=1e-3)
    for score in (evaluation.share_interval(1.0, drawn, 1), evaluation.mean_over_seeds([1.0])):
        assert score == pytest.approx({"value": 1, "low": np.nan, "high": np.nan}, nan_ok=True)
    assert evaluation.share_interval(1.0, drawn, 2)["low"] == pytest.approx(0.025**0.5)
    one_of_each = evaluation.metrics_with_intervals([0, 2, 1, 3], [0, 0, 1, 1], [0, 0, 1, 1])["auc"]  # cannot vary
    assert one_of_each == pytest.approx({"value": 0.75, "low": np.nan, "high": np.nan}, nan_ok=True)


def test_the_mean_over_seeds_has_the_interval_of_a_t_test():
    for values in ([1, 3], [0.1, 0.4, 0.2]):
        found, wanted = evaluation.mean_over_seeds(values), ttest_1samp(values, 0).confidence_interval()
        assert list(found.values()) == pytest.approx([np.mean(values), wanted.low, wanted.high])


def test_bootstrap_draws_patients_and_the_seed_decides_which():
    patients = np.array(["b", "a", "b", "c"])
    weights = evaluation.bootstrap_weights(patients, 0)
    assert weights.shape == (evaluation.REPEATS + 1, 4) and (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, [0, 1, 3]].sum(1) == 3).all()
    for call in (metrics_with_intervals, lambda *given, **seed: compare(-LOGITS, *given, **seed)):
        one, again, other = (call(LOGITS, LABELS, np.arange(200), **seed) for seed in ({}, {"seed": 0}, {"seed": 1}))
        assert one == again != other


def test_comparison_is_paired_and_signed():
    logits, better = np.append(LOGITS, [0, 0]), np.append(LOGITS + 0.8 * (LABELS - 0.5), [1, 0])
    labels, patients = np.append(LABELS, [1, 0]), np.arange(202)  # a logit of 0 means no COVID
    forward, backward = (compare(*pair, labels, patients) for pair in ((logits, better), (better, logits)))
    right, right_then = ((each > 0) == labels for each in (logits, better))
    assert forward["accuracy"]["value"] == pytest.approx(right_then.mean() - right.mean())
    assert forward["auc"]["value"] == pytest.approx(roc_auc_score(labels, better) - roc_auc_score(labels, logits))
    assert (forward["only_a"], forward["only_b"]) == ((right & ~right_then).sum(), (right_then & ~right).sum())
    disagree = forward["only_a"] + forward["only_b"]
    assert forward["p_mcnemar"] == binomtest(forward["only_a"], disagree).pvalue < 0.05
    for name in ("accuracy", "auc"):
        low, high = (backward[name][end] for end in ("low", "high"))
        assert list(forward[name].values()) == pytest.approx([-backward[name]["value"], -high, -low]) and low < high
    same = compare(LOGITS, LOGITS, LABELS, np.arange(200))
    assert same["accuracy"] == {"value": 0, "low": 0, "high": 0} and same["p_mcnemar"] == 1


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


def test_percent_of_intervals():
    change = {"value": 0.021, "low": -0.01, "high": 0.05}
    assert percent({"value": 0.8449, "low": 0.801, "high": 0.886}) == "84.5 % (80.1 to 88.6)"
    assert percent(change, signed=True) == "+2.1 points (-1.0 to +5.0)"


# ------------------------------------------------------------------------------ do the intervals keep their word?


def study(rng, patients=60, slices=4, accuracy=0.85, alike=0.4):
    """An imaginary study: which slices were right. Each patient has an accuracy of its own, beta-distributed."""
    a, b = accuracy * (1 - alike) / alike, (1 - accuracy) * (1 - alike) / alike
    right = rng.random((patients, slices)) < rng.beta(a, b, patients)[:, None]
    labels = np.tile([0, 1], patients).repeat(slices)[: patients * slices]
    return np.where(right.ravel() == (labels == 1), 1.0, -1.0), labels, np.arange(patients).repeat(slices)


def test_the_interval_holds_the_truth_in_95_of_100_studies(monkeypatch):
    """300 studies with clustered slices; slices taken as independent would hold it far too rarely."""
    monkeypatch.setattr(evaluation, "REPEATS", 400)
    rng, held, naive = np.random.default_rng(0), 0, 0
    for _ in range(300):
        logits, labels, patients = study(rng)
        honest = metrics_with_intervals(logits, labels, patients)["accuracy"]
        held += honest["low"] <= 0.85 <= honest["high"]
        right = ((logits > 0) == labels).mean()
        naive += abs(right - 0.85) <= 1.96 * np.sqrt(right * (1 - right) / len(labels))
    assert 0.93 <= held / 300 <= 0.97
    assert naive / 300 < 0.88


def test_the_operating_point_finds_as_many_as_asked():
    for wanted in (0.5, 0.9, 1.0):
        threshold = calibration.operating_point(LOGITS, LABELS, wanted)
        found = (LOGITS[LABELS == 1] > threshold).mean()
        assert found >= wanted and (LOGITS[LABELS == 1] > np.nextafter(threshold, np.inf)).mean() < found
    with pytest.raises(ValueError, match="No COVID slice"):
        calibration.operating_point(LOGITS, np.zeros(200))


def test_temperature_undoes_a_scaling():
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-honest))).astype(int)
    assert calibration.temperature(3 * honest, labels) == pytest.approx(3, rel=0.1)
