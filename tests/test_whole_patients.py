"""One answer for all slices of a person: by rules that are chosen on validation patients."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from toy import tiny_data

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.labs import whole_patients
from covid_utils.labs.whole_patients import RULES, choose_rule, whole_lungs

LOGITS = np.array([-1.0, 3, 2, 5, -4, -5, -6, 1, 2])
PATIENTS = ["a", "a", "a", "a", "b", "b", "b", "c", "c"]


def test_rules_by_hand():
    for name, expected in zip(RULES, ([9 / 4, -5, 1.5], [10 / 3, -5, 1.5], [3 / 4, 0, 1 / 2]), strict=True):
        rule = whole_patients.PatientRule(name, threshold=1.0, limit=0, slope=1, offset=0)
        scores = rule.scores(LOGITS, PATIENTS)
        assert scores.index.tolist() == ["a", "b", "c"] and scores.tolist() == pytest.approx(expected)
        assert rule.score(LOGITS[:4]) == pytest.approx(expected[0])


def test_a_patient_has_the_disease_if_any_slice_shows_it():
    logits, names = [1.0, 2, 0, 0, 0, -1], ["x", "x", "b", "b", "a", "a"]
    for labels, least in (([0, 1, 0, 0, 0, 0], "x"), ([1, 0, 0, 0, 1, 0], "a")):
        rule = choose_rule(logits, labels, names, 0.0)
        assert rule.limit == np.nextafter(rule.scores(logits, names)[least], -np.inf), "the lowest of those who have it"
    with pytest.raises(ValueError, match="some with and some without"):
        choose_rule([1.0, 2.0], [1, 1], ["a", "b"], 0.0)


def few_ill_slices(seed: int = 0, ill: int = 1, patients: int = 60):
    """Logits where only `ill` of ten slices of an ill patient stand out, and patients differ in their mean."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), 10)
    logits = rng.normal(0, 1, 10 * patients) + np.repeat(rng.normal(0, 1.5, patients), 10) * (ill > 5)
    show = (np.tile(np.arange(10), patients) < ill) & (who % 2 == 1)
    logits[show] += 4
    return logits, who % 2, who


def test_the_rule_with_the_best_order_on_validation_is_chosen():
    logits, labels, who = few_ill_slices()
    rule = choose_rule(logits, labels, who, 1.0)
    assert rule.name == "mean of the highest three"
    mean = dataclasses.replace(rule, name="mean logit")
    truth = labels[::10]
    assert roc_auc_score(truth, mean.scores(logits, who)) < roc_auc_score(truth, rule.scores(logits, who))


@pytest.mark.parametrize("name", RULES)
def test_limit_and_probability_are_those_of_validation_patients(name, monkeypatch):
    monkeypatch.setattr(whole_patients, "RULES", {name: RULES[name]})  # the only one to choose from
    logits, labels, who = few_ill_slices(ill=4)
    rule, truth = choose_rule(logits, labels, who, 0.5), labels[::10]
    scores = rule.scores(logits, who).to_numpy()
    assert (scores[truth == 1] > rule.limit).mean() >= 0.95 and (scores > rule.limit).mean() < 0.9
    chance = rule.probability(scores)
    assert chance.mean() == pytest.approx(truth.mean(), abs=0.02), "as many as are ill"
    assert ((chance > 0.5) == truth).mean() > 0.85 and rule.slope > 0


def test_whole_lungs_of_phantom_patients_are_drawn(tmp_path):
    settings = Settings(data_dir=str(tmp_path), patients=20, image_size=48)
    data = load_data(settings, progress=False)
    stacks, val = whole_lungs(data, settings, "val", n_slices=6), data.table[data.table.split == "val"]
    assert stacks.table.patient.unique().tolist() == val.patient.unique().tolist()
    assert stacks.images.shape == stacks.lesions.shape == (len(stacks.table), 48, 48)
    assert (stacks.table.groupby("patient").size() == 6).all() and set(stacks.table.split) == {"val"}
    assert (stacks.table.groupby("patient").label.first() == val.groupby("patient").label.first()).all()
    assert (stacks.table.shows <= stacks.table.label).all()
    assert 0 < stacks.table.shows[stacks.table.label == 1].mean() < 1


def test_whole_lungs_of_real_patients_are_the_slices_that_are_there():
    data = tiny_data()
    data.table.loc[data.table.index[data.table.split == "test"][1], "label"] = 0
    mixed, test = whole_lungs(data, Settings(), "test"), data.table[data.table.split == "test"]
    assert mixed.table.path.tolist() == test.path.tolist() and mixed.table.shows.tolist() == test.label.tolist()
    assert mixed.table.label.tolist() == test.groupby("patient").label.transform("max").tolist()
    assert (mixed.images == data.images[test.index]).all() and len(mixed.lesions) == len(test)
    assert whole_lungs(dataclasses.replace(data, lesions=None, lungs=None), Settings(), "test").lesions is None
