"""The imaginary patients: the same bytes everywhere, masks that mean something, and no short cut to the label."""

import multiprocessing
import time

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from covid_utils.phantom import patients as module
from covid_utils.phantom.patients import FINDINGS, HOSPITALS, draw_patient, phantom


def digest(slices):
    return [getattr(slices, name).tobytes() for name in ("images", "lesions", "lungs", "findings", "level")]


def draw_digest(patient):
    return digest(draw_patient(patient, image_size=64, n_slices=2))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """160 patients of hospital A, two slices each."""
    return phantom(160, n_slices=2, image_size=64, cache_dir=tmp_path_factory.mktemp("small"), progress=False)


@pytest.mark.parametrize("size", [64, 96, 224])
def test_shapes_and_types(size):
    slices = draw_patient(1, image_size=size, n_slices=3)
    assert slices.images.shape == slices.lesions.shape == slices.lungs.shape == (3, size, size)
    assert slices.images.dtype == np.uint8 and slices.lesions.dtype == slices.lungs.dtype == bool
    assert slices.findings.shape == (3, len(FINDINGS)) and slices.findings.dtype == bool
    assert np.all((slices.level >= 0) & (slices.level <= 1)) and np.all(np.diff(slices.level) > 0)
    assert slices.images.std() > 30 and 0.15 < slices.lungs.mean() < 0.8


def test_same_bytes_in_any_order_and_in_another_process():
    forwards = [draw_digest(patient) for patient in range(4)]
    backwards = [draw_digest(patient) for patient in reversed(range(4))][::-1]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.map(draw_digest, range(4))
    assert forwards == backwards == elsewhere


def test_seeds_hospitals_and_patients_differ():
    images = [draw_patient(2, seed, hospital, 64, 1).images for seed in (0, 1) for hospital in HOSPITALS]
    images.append(draw_patient(4, 0, "A", 64, 1).images)
    assert len({image.tobytes() for image in images}) == len(images)


def test_unknown_hospital_is_named():
    with pytest.raises(ValueError, match="Unknown hospital 'sauce'.*'source'"):
        draw_patient(0, hospital="sauce")


def test_every_covid_slice_shows_disease_inside_the_lungs(small):
    covid = small["label"] == 1
    assert covid.mean() == 0.5
    assert small["lesions"][covid].any((1, 2)).all()
    assert small["findings"][covid][:, :3].any(1).all(), "ground glass, crazy paving or consolidation"
    assert not small["findings"][~covid][:, :3].any(), "these belong to COVID here"
    assert not (small["lesions"] & ~small["lungs"]).any()


def test_slices_without_finding_have_an_empty_mask(small):
    healthy = ~small["findings"].any(1)
    assert healthy.any() and not healthy[small["label"] == 1].any()
    assert not small["lesions"][healthy].any() and small["lesions"][~healthy].any((1, 2)).all()


def test_lesions_are_where_the_image_is_brighter(small):
    """A mask that did not fit its image would hold what any piece of lung holds."""
    covid = (small["label"] == 1) & ~small["findings"][:, FINDINGS.index("emphysema")]  # which is darker
    images, lesions, lungs = (small[name][covid] for name in ("images", "lesions", "lungs"))
    inside = [image[mask].mean() for image, mask in zip(images, lesions, strict=True)]
    outside = [np.median(image[m]) for image, m in zip(images, lungs & ~lesions, strict=True)]
    assert np.mean(np.array(inside) > np.array(outside) + 10) > 0.97


def test_source_hospital_has_every_finding_but_those_of_covid_and_no_label():
    drawn = [draw_patient(patient, hospital="source", image_size=64, n_slices=1) for patient in range(150)]
    findings = np.concatenate([slices.findings for slices in drawn])
    assert {slices.label for slices in drawn} == {-1}
    assert not findings[:, :3].any() and findings[:, 3:].any(0).all() and findings.sum(1).max() <= 3


def test_speed():
    times = []
    for patient in range(8):
        start = time.process_time()
        draw_patient(patient)
        times.append((time.process_time() - start) / 4)
    assert np.median(times) < 0.015


def test_second_call_reads_the_cache(tmp_path, monkeypatch):
    first = phantom(2, 2, 64, cache_dir=tmp_path, progress=False)
    monkeypatch.setattr(module, "draw_patient", None)  # drawing again would fail
    again = phantom(2, 2, 64, cache_dir=tmp_path, progress=False)
    assert first.keys() == again.keys() and all(np.array_equal(first[k], again[k]) for k in first)
    assert first["patient"].tolist() == [0, 0, 1, 1] and first["label"].tolist() == [0, 0, 1, 1]


def test_changed_generator_draws_anew(tmp_path, monkeypatch):
    phantom(2, 1, 64, cache_dir=tmp_path, progress=False)
    monkeypatch.setattr(module, "_source", lambda: b"another generator")
    phantom(2, 1, 64, cache_dir=tmp_path, progress=False)
    assert len(list(tmp_path.glob("*.npz"))) == 2


@pytest.mark.parametrize("keep", [0, 100, 0.6])
def test_damaged_cache_is_drawn_again(tmp_path, capsys, keep):
    first = phantom(2, 2, 64, cache_dir=tmp_path, progress=False)
    (path,) = tmp_path.glob("*.npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    again = phantom(2, 2, 64, cache_dir=tmp_path, progress=False)
    assert "damaged" in capsys.readouterr().out and np.array_equal(first["images"], again["images"])
    assert path.read_bytes()[:2] == b"PK" and len(list(tmp_path.iterdir())) == 1


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Cannot write .*phantom-A-2x1.*another folder"):
        phantom(2, 1, 64, cache_dir=tmp_path / "file", progress=False)


def test_grey_values_alone_do_not_give_the_label(small):
    train = small["patient"] < 110
    histograms = np.stack([np.bincount(image.ravel() >> 3, minlength=32) for image in small["images"]])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(histograms[train], small["label"][train])
    assert model.score(histograms[~train], small["label"][~train]) <= 0.7


def test_pixels_recognise_the_patient_not_the_disease(small):
    """The nearest training image is the neighbouring slice if it may be, and no help if it may not."""
    thumbnails = np.stack([cv2.resize(i, (32, 32), interpolation=cv2.INTER_AREA) for i in small["images"]])
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    distance = (flat**2).sum(1) - 2 * flat @ flat.T  # squared, but for a constant in each row
    np.fill_diagonal(distance, np.inf)
    same = small["patient"][:, None] == small["patient"]
    label = small["label"]
    random_split = (label[distance.argmin(1)] == label).mean()
    patient_split = (label[np.where(same, np.inf, distance).argmin(1)] == label).mean()
    assert patient_split <= 0.7 and random_split > patient_split + 0.15
