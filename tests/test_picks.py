"""Which slices are shown."""

import pandas as pd
import torch

from covid_utils.labs import example_selection

LOGITS = torch.tensor([3.0, 4.0, -2.5, -1.0, -5.0, 2.0, 1.0, 6.0])
LABELS = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
PATIENTS = pd.Series([7, 8, 7, 9, 5, 9, 6, 8], index=range(100, 108))


def test_of_each_outcome_the_one_of_which_the_network_is_surest():
    chosen = example_selection.surest_of_each_outcome(LOGITS, LABELS)
    assert chosen == {"COVID, found": 7, "COVID, missed": 2, "non-COVID, cleared": 4, "false alarm": 5}
    assert example_selection.surest_of_each_outcome(-LOGITS.abs(), LABELS * 0) == {"non-COVID, cleared": 7}


def test_no_two_slices_of_one_patient():
    assert example_selection.of_different_patients(LOGITS.argsort(descending=True), PATIENTS) == [7, 0]
    assert example_selection.of_different_patients([7, 1, 0, 2, 3], PATIENTS, count=5) == [7, 0, 3]
    assert example_selection.of_different_patients([], PATIENTS) == []


def test_confidently_right_and_confidently_wrong():
    gallery = example_selection.confident(LOGITS, LABELS, PATIENTS)
    assert list(gallery.values()) == [7, 4, 2, 5]  # the second surest, 1, is of the first one's patient
    titles = list(gallery)
    assert titles[0] == "right: COVID\np(COVID) 1.00" and titles[2] == "wrong: COVID\np(COVID) 0.08"
    assert [title.split("\n")[0] for title in titles[1::2]] == ["right: non-COVID", "wrong: non-COVID"]
    twins = example_selection.confident(torch.tensor([9.0, 9.0]), torch.tensor([1, 1]), pd.Series([0, 1]))
    assert sorted(twins.values()) == [0, 1], "two of the same title both stay"
