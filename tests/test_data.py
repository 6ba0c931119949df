"""Where slices come from: folders, splits, batches, downloads; and every bad input in one clear sentence."""

import hashlib
import http.server
import io
import os
import shutil
import sys
import threading
import types
import zipfile

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from covid_utils.core.settings import Settings
from covid_utils.data import Slices, augment, load_data, loader, split_groups
from covid_utils.io import downloads
from covid_utils.io.datasets import DATASETS
from covid_utils.io.discovery import natural
from covid_utils.io.downloads import covid_ct, fetch, figure, unpack
from covid_utils.io.folders import class_of
from covid_utils.io.images import read_slice


def picture(path, seed=0, size=(40, 50), mode="L"):
    """Write a random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size, 4), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """Class folders with 70 slices each."""
    for i in range(1, 71):
        picture(tmp_path / "set" / "COVID" / f"Covid ({i}).png", i)
        picture(tmp_path / "set" / "non-COVID" / f"Non-Covid ({i}).png", 1000 + i)
    return tmp_path / "set"


@pytest.fixture
def csv_folder(tmp_path):
    """The article's layout: three CSV files, two slices of each class in each split, two slices a patient."""
    number = 0
    for split in ("train", "val", "test"):
        lines = ["filename,label,patient"]
        for label in (0, 0, 1, 1):
            picture(tmp_path / "set" / "images" / f"{number}.png", number)
            lines.append(f"images/{number}.png,{label},p{number // 2}")
            number += 1
        (tmp_path / "set" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "set"


def load(folder, image_size=32, **settings):
    return load_data(Settings(folder, folder.parent / "data", image_size=image_size, **settings), progress=False)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refuses(message, folder, error=ValueError, **settings):
    """`load` fails with one sentence that matches `message`, and leaves the folder as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")} if folder.exists() else {}
    with pytest.raises(error, match=message) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# ----------------------------------------------------------------------------------------- folders and tables


def test_class_folders(folder):
    data = load(folder)
    assert data.images.shape == (140, 32, 32) and data.images.dtype == torch.uint8
    assert data.table.path[:3].tolist() == [
        "COVID/Covid (1).png",
        "COVID/Covid (2).png",
        "COVID/Covid (3).png",
    ]
    assert data.table.label.tolist() == [1] * 70 + [0] * 70
    assert data.table.patient.nunique() == 8
    assert data.table.groupby("patient").size().max() == 20
    assert data.table.patient[19] != data.table.patient[20]
    assert "20 consecutive file numbers" in data.groups and "guess" in data.groups
    for row, path in enumerate(data.table.path[:3]):
        assert torch.equal(data.images[row], torch.from_numpy(read_slice(folder / path, 32)))


def test_patients_from_sub_folders(tmp_path):
    for name in ("covid19", "Normal"):
        for patient in range(5):
            for i in range(2):
                picture(tmp_path / "set" / name / f"{name}-{patient}" / f"{i}.jpg", i, mode="RGB")
    data = load(tmp_path / "set")
    assert data.groups == "Patients are named by the sub-folders of the class folders."
    assert sorted(data.table.patient.unique())[:2] == ["Normal-0", "Normal-1"]
    assert (data.table.groupby("patient").split.nunique() == 1).all()


@pytest.mark.parametrize(
    ("name", "label"),
    [("COVID", 1), ("covid-19", 1), ("Covid_Positive", 1), ("CT_COVID", 1), ("positive", 1)]
    + [
        ("non-COVID", 0),
        ("nonCovid", 0),
        ("NON_COVID", 0),
        ("Normal", 0),
        ("CT_NonCOVID", 0),
        ("negative", 0),
    ]
    + [("COVDI", None), ("nocvid", None)],
)
def test_class_names(name, label):
    assert class_of(name) == label


def test_natural_order():
    assert sorted(["a10", "a2", "b1", "A1", "7", "a"], key=natural) == ["7", "a", "A1", "a2", "a10", "b1"]


def test_csv_files_keep_their_split(csv_folder):
    data = load(csv_folder, split="random")
    assert data.table.split.value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}
    assert data.table.patient.tolist()[:4] == ["p0", "p0", "p1", "p1"]
    assert data.groups == "Patients are named by the CSV files. The split is the one in the CSV files."


def test_csv_without_patients_and_with_class_names(csv_folder):
    for split in ("train", "val", "test"):
        table = pd.read_csv(csv_folder / f"{split}.csv").drop(columns="patient")
        table["label"] = table.label.map({0: "Non-COVID", 1: "covid"})
        table.columns = [" Filename", "Label "]
        table.to_csv(csv_folder / f"{split}.csv", index=False, encoding="utf-8-sig")
    data = load(csv_folder)
    assert data.table.label.tolist() == [0, 0, 1, 1] * 3
    blocks = [f"{split} {name} block 001" for split in ("train", "val", "test") for name in ("non-covid", "covid")]
    assert data.table.patient.unique().tolist() == blocks  # a given split cuts no block, which is only a guess
    assert data.groups.startswith("No patient is named")


# ------------------------------------------------------------------------------------------------ image files


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "tiff", "bmp", "PNG"])
def test_formats_agree(tmp_path, suffix):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    path = tmp_path / f"slice.{suffix}"
    Image.fromarray(ramp).save(path)
    image = read_slice(path, 64)
    assert image.shape == (64, 64) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - ramp[0]).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_become_grey(tmp_path, mode):
    path = tmp_path / ("slice.tif" if mode == "CMYK" else "slice.png")
    values = np.full((40, 40), 255, dtype=np.uint8)
    values[:20] = 0
    Image.fromarray(values).convert(mode).save(path)
    found = read_slice(path, 40)
    assert (found[:15] == 0).all() and (found[25:] == 255).all()


def test_transparent_places_are_black(tmp_path):
    values = np.full((40, 40, 4), 255, dtype=np.uint8)
    values[:20, :, 3] = 0
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (read_slice(tmp_path / "a.png", 40)[:15] == 0).all()


@pytest.mark.parametrize(
    "values", [np.full((40, 40, 4), (255, 255, 255, 0), np.uint8), np.full((40, 40), 700, np.uint16)]
)
def test_blank_slices_are_refused(folder, values):
    Image.fromarray(values).save(folder / "COVID" / "Covid (3).png")
    refuses(r"Covid \(3\)\.png cannot be read \(it is blank, one grey level throughout\)", folder)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("low", "high"), [(0, 4095), (1000, 65535)])
def test_16_bit_is_scaled_by_its_range(tmp_path, suffix, low, high):
    ramp = np.tile(np.linspace(low, high, 64).round().astype(np.uint16), (64, 1))
    Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
    image = read_slice(tmp_path / f"a.{suffix}", 64)
    assert np.abs(image[0].astype(int) - np.linspace(0, 255, 64)).max() <= 1


def test_float_pictures(tmp_path):
    Image.fromarray(np.linspace(-1, 1, 1600, dtype=np.float32).reshape(40, 40)).save(tmp_path / "float.tif")
    image = read_slice(tmp_path / "float.tif", 40)
    assert image.min() == 0 and image.max() == 255


def dicom(path, hounsfield):
    """Write a CT slice with slope 2 and intercept -1024."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, pydicom.uid.generate_uid()
    stored = ((np.asarray(hounsfield) + 1024) // 2).astype(np.uint16)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = (
        1,
        "MONOCHROME2",
        0,
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
    dataset.PixelData = stored.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def test_dicom_in_the_lung_window(tmp_path):
    hounsfield = np.full((32, 32), -600)
    hounsfield[:8], hounsfield[24:] = -1024, 400
    dicom(tmp_path / "a.dcm", hounsfield)
    image = read_slice(tmp_path / "a.dcm", 32)
    assert image[0, 0] == round((1350 - 1024) / 1500 * 255)
    assert abs(int(image[16, 16]) - 127.5) <= 0.5
    assert image[-1, -1] == 255


def test_dicom_without_pydicom(tmp_path, monkeypatch):
    dicom(tmp_path / "a.dcm", np.zeros((32, 32)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"a\.dcm is DICOM.*pip install pydicom"):
        read_slice(tmp_path / "a.dcm", 32)


def test_several_pictures_in_one_file(tmp_path):
    page = Image.fromarray(np.zeros((40, 40), dtype=np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read \(it holds 3 pictures"):
        read_slice(tmp_path / "a.tif", 32)


# -------------------------------------------------------------------------------------------------- the cache


def test_cache_is_used_and_noticed_when_stale(folder, monkeypatch, capsys):
    first = load(folder)
    (cache,) = (folder.parent / "data" / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("covid_utils.io.images.read_file", None)  # any reading would fail
        assert load(folder).fingerprint == first.fingerprint

    content = cache.read_bytes()
    cache.write_bytes(content[: len(content) // 2])  # truncated
    assert torch.equal(load(folder).images, first.images)
    cache.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit is wrong
    assert torch.equal(load(folder).images, first.images)
    assert capsys.readouterr().out.count("is damaged: reading the slices again") == 2

    os.utime(folder / "COVID" / "Covid (1).png", (1, 1))  # perhaps another picture of the same size
    with monkeypatch.context() as patch:
        patch.setattr("covid_utils.io.images.read_file", None)
        with pytest.raises(TypeError):
            load(folder)
    picture(folder / "COVID" / "Covid (1).png", 99, size=(30, 30))
    changed = load(folder)
    assert not torch.equal(changed.images[0], first.images[0]) and changed.fingerprint != first.fingerprint


def test_decoded_pixels_are_hashed_once(folder, monkeypatch):
    first, hashed, sha256 = load(folder), [], hashlib.sha256

    def counted(content=b""):
        hashed.append(memoryview(content).nbytes)
        return sha256(content)

    monkeypatch.setattr(hashlib, "sha256", counted)
    again = load(folder)
    assert [size for size in hashed if size >= again.images.nbytes] == [again.images.nbytes]
    assert again.fingerprint == first.fingerprint


def test_a_large_set_stays_in_its_file_and_is_the_same(folder, monkeypatch):
    whole, mapped, read = load(folder), [], np.load
    monkeypatch.setattr(np, "load", lambda *given, **named: mapped.append(read(*given, **named)) or mapped[-1])
    small = load(folder)
    assert not np.shares_memory(small.images.numpy(), mapped[-1])
    monkeypatch.setattr("covid_utils.core.memory.MEMORY", 0)
    large = load(folder)
    assert isinstance(mapped[-1], np.memmap) and np.shares_memory(large.images.numpy(), mapped[-1])
    assert large.fingerprint == small.fingerprint == whole.fingerprint
    large.images[0] = 7  # whoever scribbles on it leaves the file as it is
    assert torch.equal(load(folder).images, small.images)


def test_fingerprint_knows_pixels_split_and_nothing_else(folder):
    first = load(folder, seed=0)
    assert load(folder, seed=1).fingerprint != first.fingerprint
    moved = folder.parent / "elsewhere"
    shutil.copytree(folder, moved)
    assert load(moved).fingerprint == first.fingerprint


# ----------------------------------------------------------------------------------------------------- splits


def article_table():
    """As many slices as the article had, in blocks of 20."""
    label = np.repeat([1, 0], [1252, 1229])
    names = [f"{label} {i}" for i, label in enumerate(label)]
    blocks = [f"{label} block {i // 20}" for i, label in enumerate(label)]
    return pd.DataFrame({"path": names, "label": label, "patient": blocks})


def test_random_split_is_the_article_s():
    table = article_table()
    split = split_groups(table, "random")
    assert split.value_counts().to_dict() == {"train": 1681, "val": 400, "test": 400}
    for part in ("train", "val", "test"):
        assert abs(table.label[split == part].mean() - 1252 / 2481) < 0.003
    assert not split.equals(split_groups(table, "random", seed=1))


@pytest.mark.parametrize("seed", range(5))
def test_patient_split_keeps_groups_whole(seed):
    table = article_table()
    split = split_groups(table, "patient", seed)
    assert (split.groupby(table.patient).nunique() == 1).all()
    for part in ("val", "test"):
        assert abs((split == part).sum() - 400) <= 20
        assert abs(table.label[split == part].mean() - 0.5) < 0.05
    shuffled = table.sample(frac=1, random_state=seed)
    assert split_groups(shuffled, "patient", seed).sort_index().equals(split)


def test_uneven_patients_still_give_every_split_both_classes():
    sizes = [1, 1, 100, 100, 1, 1]
    patients = np.repeat(list("abcdef"), sizes)
    table = pd.DataFrame({"label": np.repeat([1, 1, 1, 0, 0, 0], sizes), "patient": patients})
    table["path"] = [str(i) for i in range(len(table))]
    for seed in range(10):
        split = split_groups(table, seed=seed)
        assert (table.label.groupby(split).nunique() == 2).all() and split.nunique() == 3


# ---------------------------------------------------------------------------------------------------- phantom


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return load_data(Settings(data_dir=tmp_path_factory.mktemp("data"), image_size=48, patients=20), progress=False)


def test_phantom(drawn):
    table = drawn.table
    assert drawn.images.shape == drawn.lesions.shape == drawn.lungs.shape == (80, 48, 48)
    assert drawn.images.dtype == torch.uint8 and drawn.lesions.dtype == drawn.lungs.dtype == torch.bool
    assert table.path[6] == "phantom/p0001_s2" and table.patient[6] == "p0001"
    assert table.groupby("patient").label.nunique().max() == 1 and table.label.mean() == 0.5
    assert (table.groupby("patient").split.nunique() == 1).all() and set(table.split) == {
        "train",
        "val",
        "test",
    }
    assert (table.findings == "normal").any() and (table.findings.str.len() > 0).all()
    assert drawn.name == "phantom" and len(drawn.fingerprint) == 64


# ---------------------------------------------------------------------------------------------------- batches


def test_the_other_hospital_has_patients_of_its_own(drawn, tmp_path):
    settings = Settings(DATASETS["phantom"].elsewhere, tmp_path, image_size=48, patients=20)
    other = load_data(settings, progress=False)
    assert other.name == "phantom-b" and other.images.shape == drawn.images.shape
    assert not (other.images == drawn.images).flatten(1).all(1).any()


def test_slices_one_by_one_and_as_a_batch(drawn):
    train = Slices(drawn, "train")
    rows = np.flatnonzero(drawn.table.split == "train")
    assert len(train) == len(rows) and train.rows.tolist() == rows.tolist()
    image, label = train[3]
    assert torch.equal(image, drawn.images[rows[3]]) and label == drawn.table.label[rows[3]]
    images, labels = train[[3, 0]]
    assert torch.equal(images, drawn.images[rows[[3, 0]]]) and labels.dtype == torch.float32
    with pytest.raises(ValueError, match="Unknown split 'tets': did you mean 'test'"):
        Slices(drawn, "tets")


def test_loader(drawn):
    in_order = loader(drawn, "val", batch_size=5, shuffle=False)
    images, labels = (torch.cat(parts) for parts in zip(*in_order, strict=True))
    chosen = drawn.table.split == "val"
    assert torch.equal(images, drawn.images[np.flatnonzero(chosen)])
    assert labels.tolist() == drawn.table.label[chosen].tolist() and len(in_order) == -(-chosen.sum() // 5)

    orders = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        orders.append(torch.cat([images for images, _ in loader(drawn, "train", 8, shuffle=True)]))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert len(orders[0]) == (drawn.table.split == "train").sum()


def test_loader_leaves_out_a_lonely_last_slice_only_when_shuffling(drawn):
    n = len(Slices(drawn, "train"))
    assert sum(len(labels) for _, labels in loader(drawn, "train", n - 1, shuffle=True)) == n - 1
    assert sum(len(labels) for _, labels in loader(drawn, "train", n - 1, shuffle=False)) == n


def test_augment(drawn):
    images = drawn.images[:32]
    before = images.clone()
    torch.manual_seed(0)
    changed = augment(images)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    assert torch.equal(images, before)
    torch.manual_seed(0)
    assert torch.equal(augment(images), changed)
    assert not torch.equal(augment(images), changed)

    torch.manual_seed(0)
    alike = augment(images[:1].repeat(32, 1, 1)).float()
    assert len({image.numpy().tobytes() for image in alike}) == 32  # each slice in its own way
    middle = alike[:, 8:-8, 8:-8]
    same, mirrored = (
        np.array([np.corrcoef(image.flatten(), other.flatten())[0, 1] for image in middle])
        for other in (images[0, 8:-8, 8:-8].float(), images[0, 8:-8, 8:-8].flip(1).float())
    )
    assert 8 <= (same > mirrored).sum() <= 24  # about half are flipped
    assert np.maximum(same, mirrored).min() > 0.3  # and all still show the patient


def test_augment_moves_no_further_than_it_says():
    dot = torch.zeros(200, 101, 101, dtype=torch.uint8)
    dot[:, 48:53, 48:53] = 255
    torch.manual_seed(0)
    moved = augment(dot).float()
    bright = moved > 0.6 * moved.amax((1, 2), keepdim=True)
    places = torch.stack([spot.nonzero().float().mean(0) - 50 for spot in bright])
    assert places.abs().max() <= 0.05 * 101 * 1.12 + 0.5  # 5 %, seen through a scale of up to 1.1
    assert places.abs().max() > 3


def test_augment_leaves_the_greys_alone_unless_asked():
    """The same moves with and without: they draw the same random numbers."""
    plain = torch.full((20, 32, 32), 90, dtype=torch.uint8)
    assert (augment(plain) == 90).all() and augment(plain, greys=True).unique().numel() > 1
    dot = torch.zeros(1, 33, 33, dtype=torch.uint8)
    dot[:, 10:13, 10:13] = 255
    torch.manual_seed(0)
    place = augment(dot)[0].argmax()
    torch.manual_seed(0)
    assert augment(dot, greys=True)[0].argmax() == place


# -------------------------------------------------------------------------------------------------- bad input


def test_missing_folder(tmp_path):
    refuses("There is no folder .*nowhere: check the path", tmp_path / "nowhere", FileNotFoundError)


def test_unknown_dataset(tmp_path):
    with pytest.raises(ValueError, match="Unknown dataset 'fantom'.* did you mean 'phantom'"):
        load_data(Settings("fantom", tmp_path))
    with pytest.raises(ValueError, match="Unknown dataset 'sars-cov2-ct'.* did you mean 'sars-cov-2-ct'"):
        load_data(Settings("sars-cov2-ct", tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 31}, "image_size: .* greater than or equal to 32"),
        ({"image_size": 96.0}, "image_size: .* integer, not 96.0"),
        ({"image_size": True}, "image_size: .* integer"),
        ({"split": "pateint"}, "split: .* 'patient' or 'random', not 'pateint'"),
        ({"seed": -1}, "seed: .* greater"),
        ({"patients": "many"}, "patients: .* integer"),
    ],
)
def test_wrong_parameter(folder, settings, message):
    refuses(message, folder, **settings)


def test_empty_class(folder):
    shutil.rmtree(folder / "COVID")
    (folder / "COVID").mkdir()
    (folder / "COVID" / "notes.txt").write_text("no slice")
    refuses(r"Class folder .*COVID holds no slices: put files ending in \.png", folder)


def test_misspelled_class_folder(folder):
    (folder / "COVID").rename(folder / "COVDI")
    refuses("holds a folder 'COVDI' that names neither class: call it COVID, COVID-19,.*non-COVID", folder)


def test_missing_class_folder(folder):
    shutil.rmtree(folder / "non-COVID")
    refuses(r"no class folder for non-COVID \(it holds 'COVID'\): name the", folder, FileNotFoundError)


def test_truncated_zero_byte_and_false_pictures(folder):
    path = folder / "non-COVID" / "Non-Covid (7).png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refuses(r"Slice .*Non-Covid \(7\)\.png cannot be read \(.*\): replace or delete", folder)
    path.write_bytes(b"")
    refuses(r"Slice .*Non-Covid \(7\)\.png is empty \(0 bytes\)", folder)
    path.write_text("<html>not found</html>")
    refuses(r"Slice .*Non-Covid \(7\)\.png cannot be read", folder)
    path.write_bytes(content)
    assert len(load(folder).table) == 140  # and all is well again


def test_csv_without_the_column(csv_folder):
    edit(csv_folder / "val.csv", "filename,", "file;")
    refuses(r"val\.csv has no column 'filename' \(it has .*\): its first line must be", csv_folder)


def test_csv_that_is_empty_or_no_text(csv_folder):
    (csv_folder / "val.csv").write_bytes(b"")
    refuses(r"val\.csv is not a readable CSV file", csv_folder)
    (csv_folder / "val.csv").write_bytes(bytes(range(128, 256)))
    refuses(r"val\.csv is not a readable CSV file", csv_folder)


def test_csv_missing(csv_folder):
    (csv_folder / "test.csv").unlink()
    refuses(r"test\.csv is missing: .* needs train\.csv, val\.csv and test\.csv", csv_folder, FileNotFoundError)


def test_csv_unknown_label(csv_folder):
    edit(csv_folder / "test.csv", "10.png,1", "10.png,maybe")
    edit(csv_folder / "test.csv", "images/8.png", "\nimages/8.png")  # a blank line counts as a row
    refuses("test.csv row 5 .* has the unknown label 'maybe': write 1 or COVID", csv_folder)


def test_csv_label_left_out(csv_folder):
    edit(csv_folder / "test.csv", "10.png,1,", "10.png,,")
    refuses("test.csv row 4 .* has the unknown label", csv_folder)


def test_csv_file_not_there(csv_folder):
    edit(csv_folder / "val.csv", "images/5.png", "images/55.png")
    refuses("val.csv row 3 names 'images/55.png', which is not there", csv_folder, FileNotFoundError)


def test_same_file_in_two_splits(csv_folder):
    edit(csv_folder / "test.csv", "images/8.png", "images/../images/1.png")
    refuses(r"1\.png' stands in train.csv row 3 and again in test.csv row 2: keep each slice in one", csv_folder)


def test_patient_in_two_splits(csv_folder):
    edit(csv_folder / "test.csv", ",p4", ",p0")
    refuses(r"Patient 'p0' stands in train.csv row 2 and again in test.csv row 2: keep each patient", csv_folder)


def test_single_class_validation_set(csv_folder):
    (csv_folder / "val.csv").write_text((csv_folder / "val.csv").read_text().replace(",1,", ",0,"))
    refuses(r"The val split \(val\.csv\) holds only non-COVID slices: put slices of both", csv_folder)
    (csv_folder / "val.csv").write_text("filename,label\n")
    refuses(r"The val split \(val\.csv\) holds no slices", csv_folder)


def test_too_few_slices_to_split(folder):
    for i in range(25, 71):
        (folder / "COVID" / f"Covid ({i}).png").unlink()
    refuses("COVID has too few slices, 24 in 2 patients: use split='random' or add slices", folder)
    assert set(load(folder, split="random").table.split) == {"train", "val", "test"}
    for i in range(3, 25):
        (folder / "COVID" / f"Covid ({i}).png").unlink()
    refuses("COVID has too few slices, 2 in 2 files: add slices", folder, split="random")


# -------------------------------------------------------------------------------------------------- downloads


class Server(http.server.ThreadingHTTPServer):
    """A local file server that can cut off answers, and counts what was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cut = {}, 0, []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(self.path)
        self.server.asked += 1
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.cut.pop(0) if self.server.cut else len(content)])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 600_000, dtype=np.uint8))


def test_an_interrupted_transfer_leaves_nothing_and_is_repeated(server, tmp_path):
    server.files["/a.bin"], server.cut = CONTENT, [300_000]
    with pytest.raises(ConnectionError, match="Could not download .*run it again"):
        fetch(f"{server.address}/a.bin", tmp_path / "a.bin", progress=False)
    assert not list(tmp_path.iterdir())
    for _ in range(2):  # once it is there, nothing is asked
        fetch(f"{server.address}/a.bin", tmp_path / "a.bin", progress=False)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.asked == 2


def test_download_refused_or_without_network(server, tmp_path):
    with pytest.raises(ConnectionError, match="404.*by hand; dataset='phantom' needs no network"):
        fetch(f"{server.address}/none", tmp_path / "none", progress=False)
    assert server.asked == 1  # trying again would not help
    with pytest.raises(ConnectionError, match="Could not download .*dataset='phantom' needs no network"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a", progress=False)


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png"])
def test_an_archive_writes_nothing_outside_its_folder(tmp_path, name):
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    make_zip(archive, {"good.png": b"1", name: b"2"})
    unpack(archive, archive.parent / "out")
    assert all(path.is_relative_to(archive.parent / "out") for path in tmp_path.rglob("*.png"))


def test_damaged_archive_is_fetched_anew(tmp_path):
    archive = tmp_path / "a.zip"
    make_zip(archive, {"good.bin": CONTENT})
    content = bytearray(archive.read_bytes())
    content[5000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip is damaged .* was deleted: run it again"):
        unpack(archive, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def covid_ct_files():
    """What the repository of COVID-CT serves, with six small pictures a class."""
    files, number = {}, 0
    for name in ("COVID", "NonCOVID"):
        members = {}
        for split in ("train", "val", "test"):
            names = [f"paper {number}%{panel}.png" for panel in range(2)]
            for panel in names:
                buffer = io.BytesIO()
                values = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
                Image.fromarray(values).save(buffer, "png")
                members[f"CT_{name}/{panel}"] = buffer.getvalue()
            files[f"/Data-split/{name}/{split}CT_{name}.txt"] = "\n".join(names).encode()
            number += 1
        buffer = io.BytesIO()
        make_zip(buffer, members)
        files[f"/Images-processed/CT_{name}.zip"] = buffer.getvalue()
    return files


def test_covid_ct(server, tmp_path, monkeypatch):
    server.files = covid_ct_files()
    monkeypatch.setattr(downloads, "COVID_CT", server.address)
    data = load_data(Settings("covid-ct", tmp_path, image_size=32), progress=False)
    assert data.table.split.value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}
    assert data.table.label.sum() == 6 and data.table.patient.nunique() == 6
    assert "panels of one figure" in data.groups and "published" in data.groups
    asked = server.asked
    assert load_data(Settings("covid-ct", tmp_path, image_size=32), progress=False).fingerprint == data.fingerprint
    assert server.asked == asked == 8


def test_covid_ct_list_that_names_a_picture_not_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "COVID_CT", server.address)
    server.files = covid_ct_files()
    server.files["/Data-split/COVID/valCT_COVID.txt"] += b"\nlost.png\n"
    with pytest.raises(FileNotFoundError, match=r"valCT_COVID\.txt names 'lost\.png', which is not in"):
        covid_ct(tmp_path / "covid-ct", progress=False)


def test_figures():
    assert figure("Images-processed/CT_COVID/a/x-p27%10.png") == figure("b/a/x-p27%2.png") == "a/x-p27"
    assert figure("CT_COVID/1.png") != figure("CT_NonCOVID/1.png")


def test_kaggle(folder, tmp_path, monkeypatch):
    """As Kaggle's archives are: with a folder more around the class folders, and one beside them that is none."""
    shutil.copytree(folder, tmp_path / "archive" / "versions" / "inner")
    (tmp_path / "archive" / "aside").mkdir()
    kaggle = types.SimpleNamespace(dataset_download=lambda handle: str(tmp_path / "archive"))
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    data = load_data(Settings("sars-cov-2-ct", tmp_path / "data", image_size=32), progress=False)
    assert data.name == "sars-cov-2-ct" and len(data.table) == 140
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # from now on the copy in data_dir is used
    assert load_data(Settings("sars-cov-2-ct", tmp_path / "data", image_size=32)).fingerprint == data.fingerprint


@pytest.mark.parametrize("error", [OSError("Name or service\nnot known"), RuntimeError("401"), ImportError()])
def test_kaggle_out_of_reach(tmp_path, monkeypatch, error):
    def fail(handle):
        raise error

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=fail))
    with pytest.raises(ConnectionError, match="by hand from https://www.kaggle.com/.*phantom") as caught:
        load_data(Settings("sars-cov-2-ct", tmp_path))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
