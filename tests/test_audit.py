import dataclasses

import numpy as np
import pytest
import torch
from leaks import found, plant

from covid_utils.core.settings import Settings
from covid_utils.data import load_data, split_groups
from covid_utils.labs.audit import audit, near_duplicates, shuffled_labels, thumbnails
from covid_utils.labs.shortcuts import SHORTCUTS, add_shortcut, another_hospital, mark_all, without_lungs


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
    clean, leaky, marked = map(audit, (phantom, dealt(phantom, "random"), add_shortcut(phantom, "mark")))
    assert len(clean.verdict) == 1 and clean.verdict[0].startswith("No leak") and clean.pairs.empty
    assert sum(sentence.startswith("**Leak") for sentence in leaky.verdict) == 3 and len(leaky.pairs) > 0
    assert "<th>1-nearest neighbour</th>" in leaky._repr_markdown_() and leaky.verdict[0] in str(leaky)
    assert any("outer frame" in sentence and sentence.startswith("**Shortcut") for sentence in marked.verdict)


@pytest.mark.parametrize("kind", SHORTCUTS)
def test_a_shortcut_goes_with_the_label_as_often_as_asked(phantom, kind):
    always, half = add_shortcut(phantom, kind), add_shortcut(phantom, kind, agreement=0.5)
    assert (always.table.marked == (always.table.label == 1)).all()
    assert (half.table.marked == (half.table.label == 1)).mean() == pytest.approx(0.5, abs=0.02)
    changed = (always.images != phantom.images).flatten(1).any(1)
    assert changed.tolist() == always.table.marked.tolist()
    assert always.fingerprint != phantom.fingerprint
    every = mark_all(always, kind)
    assert every.table.marked.all() and torch.equal(every.images[changed], always.images[changed])
    assert (every.images != phantom.images).flatten(1).any(1).all()
    with pytest.raises(ValueError, match=f"did you mean '{kind}'"):
        add_shortcut(phantom, kind + "s")


def test_lungs_are_painted_over_and_nothing_else(phantom):
    painted = without_lungs(phantom.images[:4], phantom.lungs[:4])
    assert torch.equal(painted[~phantom.lungs[:4]], phantom.images[:4][~phantom.lungs[:4]])
    assert all(len(image[lung].unique()) == 1 for image, lung in zip(painted, phantom.lungs[:4], strict=True))


def test_another_hospital_is_all_test_slices_and_may_be_missing(tmp_path):
    settings = Settings(data_dir=str(tmp_path), patients=44, image_size=32)
    other = another_hospital(settings)
    assert other.name == "phantom-b" and set(other.table.split) == {"test"} and other.table.patient.nunique() == 22
    assert another_hospital(dataclasses.replace(settings, dataset="sars-cov-2-ct")) is None, "not downloaded"
    assert another_hospital(dataclasses.replace(settings, dataset=str(tmp_path))) is None, "a folder has none"
