import dataclasses

import numpy as np
import pytest
import torch
from leaks import found, plant

from covid_utils.core.settings import Settings
from covid_utils.data import load_data, split_groups
from covid_utils.labs.audit import audit, near_duplicates, shuffled_labels, thumbnails


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return load_data(Settings(data_dir=tmp_path_factory.mktemp("data"), image_size=64, patients=60), progress=False)


def dealt(data, split, seed=0):
    return dataclasses.replace(data, table=data.table.assign(split=split_groups(data.table, split, seed)))


def test_thumbnails_correlate_as_numpy_says(phantom):
    small = thumbnails(phantom)
    assert small.shape == (len(phantom.table), 32 * 32)
    assert thumbnails(phantom, frame_only=True).shape[1] == 32**2 - 24**2
    assert small[0] @ small[5] == pytest.approx(np.corrcoef(small[0], small[5])[0, 1], abs=1e-4)


@pytest.mark.parametrize("kind", ["unchanged", "inverted", "mirrored", "turned by 90°", "cut to 90 %, a corner"])
def test_copies_are_found_also_if_augmented_before_the_split(phantom, kind):
    data, planted = plant(phantom, kind, seed=0)
    shares, pairs = found(data, planted), near_duplicates(data)
    assert shares["found"] >= 0.95 and shares["false alarms"] == 0
    if kind == "unchanged":
        assert (pairs.twin == planted[pairs.slice].to_numpy()).all() and pairs.similarity.min() > 0.999
        assert near_duplicates(phantom).empty, "no slice of another patient is so similar"


def test_the_same_picture_under_both_labels_is_named(phantom):
    images, label = phantom.images.clone(), phantom.table.label.to_numpy()
    train = (phantom.table.split == "train").to_numpy()
    images[np.flatnonzero(train & (label == 0))[:3]] = images[np.flatnonzero(train & (label == 1))[:3]]
    wrong = audit(dataclasses.replace(phantom, images=images)).verdict
    assert any("3 pictures stand, pixel for pixel, in both classes (as phantom/p" in sentence for sentence in wrong)


def test_groups_that_are_a_guess_are_no_patients(phantom):
    table = phantom.table.assign(patient=[f"covid block {i // 40:03d}" for i in range(len(phantom.table))])
    guess = audit(dataclasses.replace(phantom, table=table))
    assert guess.verdict[0].startswith("**Leak:** if neighbouring file numbers are one patient (nobody says so), ")
    assert "groups in more than one split" in guess.checks.index


def test_shuffled_labels_are_learned_only_where_the_split_leaks(phantom):
    leaky, chance = shuffled_labels(dealt(phantom, "random"))
    clean, clean_chance = shuffled_labels(phantom)
    assert leaky - chance > 0.3 and abs(clean - clean_chance) < 0.1


def test_the_audit_says_what_is_wrong(phantom):
    images = phantom.images.clone()
    images[torch.tensor(phantom.table.label.to_numpy() == 1), :6] = 255  # a bright bar at the top
    marked = dataclasses.replace(phantom, images=images)
    clean, leaky, marked = map(audit, (phantom, dealt(phantom, "random"), marked))
    assert len(clean.verdict) == 1 and clean.verdict[0].startswith("No leak") and clean.pairs.empty
    assert sum(sentence.startswith("**Leak") for sentence in leaky.verdict) == 3 and len(leaky.pairs) > 0
    assert leaky.verdict[0] in str(leaky) and "1-nearest neighbour" in str(leaky)
    assert any("outer frame" in sentence and sentence.startswith("**Shortcut") for sentence in marked.verdict)
