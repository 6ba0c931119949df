"""Where slices come from: folders, splits, batches, downloads; and every bad input in one clear sentence."""

import functools
import http.server
import io
import os
import shutil
import sys
import threading
import types
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from covid_utils.core.settings import Settings
from covid_utils.data import Slices, augment, load_data, loader, split_groups
from covid_utils.io import downloads
from covid_utils.io.datasets import DATASETS
from covid_utils.io.downloads import fetch, unpack
from covid_utils.io.folders import SPLITS, class_of


def picture(path, seed=0, size=(16, 20), mode="L"):
    """Write a random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size, 4), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def classes(folder, count=8, inside="", first=0):
    """Class folders with `count` slices each, in sub-folders `inside`."""
    for label, name in enumerate(("non-COVID", "COVID")):
        for i in range(count):
            picture(folder / name / inside / f"{i}.png", 1000 * label + first + i)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Class folders with eight slices each, too few for a split by patient."""
    return classes(tmp_path / "set")


@pytest.fixture
def csv_folder(tmp_path):
    """The article's layout: three CSV files, two slices of each class in each split, two slices a patient."""
    number = 0
    for split in SPLITS:
        lines = ["filename,label,patient"]
        for label in (0, 0, 1, 1):
            picture(tmp_path / "set" / "images" / f"{number}.png", number)
            lines.append(f"images/{number}.png,{label},p{number // 2}")
            number += 1
        (tmp_path / "set" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "set"


def load(folder, image_size=32, split="random", **settings):
    settings = Settings(folder, folder.parent / "data", image_size=image_size, split=split, **settings)
    return load_data(settings, progress=False)


def refuses(message, folder, error=ValueError, **settings):
    """`load` fails with one sentence that matches `message`, and leaves the folder as it was."""
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} if folder.exists() else {}
    with pytest.raises(error, match=message) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


# ----------------------------------------------------------------------------------------- folders and tables


def test_class_folders(tmp_path):
    data = load(classes(tmp_path / "phantom", count=70), split="patient")
    assert data.name == "./phantom" and data.name not in DATASETS, "a folder of one's own is not taken for ours"
    assert data.images.shape == (140, 32, 32) and data.images.dtype == torch.uint8
    assert data.lesions is data.lungs is data.window is None
    assert data.table.path[:11].tolist() == [f"COVID/{i}.png" for i in range(11)]
    assert data.table.label.tolist() == [1] * 70 + [0] * 70
    assert data.table.groupby("patient").size().tolist() == [20, 20, 20, 10] * 2
    assert "20 consecutive file numbers" in data.patient_source and "guess" in data.patient_source
    assert not data.patient_source.endswith("The random split ignores patients.")
    again = load_data(Settings(tmp_path / "phantom", tmp_path / "data", image_size=32, split="random"))
    assert again.patient_source.endswith(". The random split ignores patients.")


@pytest.mark.parametrize(
    ("names", "label"),
    [
        ("COVID|covid-19|Covid_Positive|CT_COVID|positive|SARS-CoV-2|COVID_19_positive| 1 ", 1),
        ("non-COVID|nonCovid|NON_COVID|Normal|CT_NonCOVID|negative|0", 0),
        ("COVDI|nocvid|-1|COVID?|~covid|1.0|+1|−1|COVID (-)|SARS-CoV-2 (+)|0-|?|nan", None),
    ],
)
def test_class_names(names, label):
    assert {class_of(name) for name in names.split("|")} == {label}


def test_csv_files_keep_their_split(csv_folder):
    """With patients, and without; a given split cuts no block of a guess."""
    data = load(csv_folder, split="random")
    assert data.table.split.value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}
    assert data.table.patient.tolist()[:4] == ["p0", "p0", "p1", "p1"]
    assert data.patient_source == "Patients are named by the CSV files. The split comes with the data."
    for split in SPLITS:
        table = pd.read_csv(csv_folder / f"{split}.csv").drop(columns="patient")
        table = table.assign(label=table.label.map({0: "Non-COVID", 1: "covid"})).set_axis(
            [" Filename", "Label "], axis=1
        )
        table.to_csv(csv_folder / f"{split}.csv", index=False, encoding="utf-8-sig")
    data = load(csv_folder)
    assert data.table.label.tolist() == [0, 0, 1, 1] * 3 and data.patient_source.startswith("No patient is named")
    blocks = [f"{split} {name} block 001" for split in SPLITS for name in ("non-covid", "covid")]
    assert data.table.patient.unique().tolist() == blocks


# -------------------------------------------------------------------------------------------------- the cache


def test_cache_is_used_and_noticed_when_stale(folder, monkeypatch, capsys):
    first = load(folder)
    (cache,) = (folder.parent / "data" / "cache").iterdir()
    content = cache.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1])):
        cache.write_bytes(damaged)
        assert torch.equal(load(folder).images, first.images)
    assert capsys.readouterr().out.count("is damaged: reading the slices again") == 2
    with monkeypatch.context() as patch:
        patch.setattr("covid_utils.io.images.read_file", None)  # any reading would fail
        assert load(folder).fingerprint == first.fingerprint
        os.utime(folder / "COVID" / "0.png", (1, 1))  # perhaps another picture of the same size
        with pytest.raises(TypeError):
            load(folder)
    picture(folder / "COVID" / "0.png", 99, size=(30, 30))
    changed = load(folder)
    assert not torch.equal(changed.images[0], first.images[0]) and changed.fingerprint != first.fingerprint
    assert load(folder, seed=1).fingerprint != changed.fingerprint  # another split
    shutil.copytree(folder, folder.parent / "elsewhere")
    assert load(folder.parent / "elsewhere").fingerprint == changed.fingerprint


def test_a_large_set_stays_in_its_file_and_is_the_same(folder, monkeypatch):
    whole, mapped, read = load(folder), [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda *given, **named: mapped.append(read(*given, **named)) or mapped[-1])
    small = load(folder)
    assert not np.shares_memory(small.images.numpy(), mapped[-1])
    monkeypatch.setattr("covid_utils.core.memory.MEMORY", 0)
    large = load(folder)
    assert np.shares_memory(large.images.numpy(), mapped[-1])
    assert large.fingerprint == small.fingerprint == whole.fingerprint
    large.images[0] = 7  # writing to it leaves the file as it is
    assert torch.equal(load(folder).images, small.images)


# ----------------------------------------------------------------------------------------------------- splits


def article_table():
    """As many slices as the article had, in blocks of 20."""
    label = np.repeat([1, 0], [1252, 1229])
    names = [f"{label} {i}" for i, label in enumerate(label)]
    blocks = [f"{label} block {i // 20}" for i, label in enumerate(label)]
    return pd.DataFrame({"path": names, "label": label, "patient": blocks})


@pytest.mark.parametrize(("way", "most_off"), [("random", 0), ("patient", 20)])
@pytest.mark.parametrize("seed", range(3))
def test_splits_are_as_large_as_the_article_s_with_both_classes_and_whole_groups(way, most_off, seed):
    table = article_table()
    split = split_groups(table, way, seed)
    for part in ("val", "test"):
        assert abs((split == part).sum() - 400) <= most_off
        assert abs(table.label[split == part].mean() - 1252 / 2481) <= (0.05 if most_off else 0.003)
    assert way == "random" or (split.groupby(table.patient).nunique() == 1).all()
    shuffled = table.sample(frac=1, random_state=seed)
    assert split_groups(shuffled, way, seed).sort_index().equals(split)
    assert not split_groups(table, way, seed + 1).equals(split)


UNEVEN = [1, 1, 100, 100, 1, 1]  # slices of each patient
SMALL = {  # labels, slices of each patient, and the splits of patients a, b, c, … for seed 0: r(train), v(al), t(est)
    "one class each": ([0, 1] * 6, [1] * 12, "rrrrrrrvttvr"),
    "half and half": ([0, 1] * 6, [2] * 6, "vtrrtv"),  # field cases: labels_in_one_file, slices_labelled_one_by_one
    "more COVID": ([0, 1, 1] * 6, [3] * 6, "vtrrtv"),
    "one of both classes": ([0, 1] + [1] * 6 + [0] * 8, [2] * 8, "vtrrtrvr"),  # counts as COVID
    "three of eight": ([1, 1, 0] * 3 + [0, 0, 1] * 5, [3] * 8, "vtrrtrvr"),
    "five of eight": ([1, 1, 0] * 4 + [0, 0, 1, 1, 1, 0] + [0, 0, 1] * 2, [3] * 8, "rtrrtvvr"),
    "uneven": ([1] * 102 + [0] * 102, UNEVEN, "vtrrtv"),
    "many": ([0] * 30 + [1] * 18, [3] * 16, "rrrrtrvrtvvrrtrr"),
}


@pytest.mark.parametrize(("labels", "sizes", "seed_0"), SMALL.values(), ids=SMALL)
def test_small_sets_are_split_the_same_on_every_machine(labels, sizes, seed_0):
    """Recorded runs depend on it; and every split gets both classes and whole patients."""
    table = pd.DataFrame({"label": labels, "patient": np.repeat(list("abcdefghijklmnop")[: len(sizes)], sizes)})
    table["path"] = table.index.astype(str)
    found = split_groups(table).groupby(table.patient).first()
    assert "".join(found.map({"train": "r", "val": "v", "test": "t"})) == seed_0
    for seed in range(10):
        split = split_groups(table, seed=seed)
        assert (table.label.groupby(split).nunique() == 2).all() and split.nunique() == 3
        assert (split.groupby(table.patient).nunique() == 1).all()


# ---------------------------------------------------------------------------------------------------- phantom


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return load_data(Settings(data_dir=tmp_path_factory.mktemp("data"), image_size=48, patients=20), progress=False)


def test_the_phantom_and_another_hospital(drawn, tmp_path):
    table = drawn.table
    assert drawn.images.shape == drawn.lesions.shape == drawn.lungs.shape == (80, 48, 48)
    assert drawn.images.dtype == torch.uint8 and drawn.lesions.dtype == drawn.lungs.dtype == torch.bool
    assert table.path[6] == "phantom/p0001_s2" and table.patient[6] == "p0001"
    assert table.groupby("patient").label.nunique().max() == 1 and table.label.mean() == 0.5
    assert (table.groupby("patient").split.nunique() == 1).all() and set(table.split) == set(SPLITS)
    assert (table.findings == "normal").any() and (table.findings.str.len() > 0).all()
    assert drawn.name == "phantom" and len(drawn.fingerprint) == 64
    settings = Settings(DATASETS["phantom"].elsewhere, tmp_path, image_size=48, patients=20)
    other = load_data(settings, progress=False)
    assert other.name == "phantom-b" and other.images.shape == drawn.images.shape
    assert not (other.images == drawn.images).flatten(1).all(1).any(), "patients of its own"


# ---------------------------------------------------------------------------------------------------- batches


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
    in_order = loader(drawn, "val", batch_size=5)
    images, labels = (torch.cat(parts) for parts in zip(*in_order, strict=True))
    chosen = drawn.table.split == "val"
    assert torch.equal(images, drawn.images[np.flatnonzero(chosen)])
    assert labels.tolist() == drawn.table.label[chosen].tolist() and len(in_order) == -(-chosen.sum() // 5)
    torch.manual_seed(0)
    changed = list(loader(drawn, "val", batch_size=5, augmented=True))
    torch.manual_seed(0)
    assert all(torch.equal(batch, augment(plain)) for (batch, _), (plain, _) in zip(changed, in_order, strict=True))
    assert torch.equal(torch.cat([labels for _, labels in changed]), labels)

    orders, n = [], len(Slices(drawn, "train"))
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        orders.append(torch.cat([images for images, _ in loader(drawn, "train", shuffle=True)]))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2]) and len(orders[0]) == n
    for size, shuffle, seen in ((n - 1, True, n - 1), (n - 1, False, n), (n - 2, True, n)):
        batches = loader(drawn, "train", size, shuffle)
        assert sum(len(labels) for _, labels in batches) == seen, "none is alone in a batch of a shuffled epoch"


def test_augment_is_random_for_each_slice_and_repeatable(drawn):
    images, results = drawn.images[:32], []
    before = images.clone()
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(augment(images))
    assert results[0].shape == images.shape and results[0].dtype == torch.uint8 and torch.equal(images, before)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    alike = augment(images[:1].repeat(32, 1, 1))
    assert len({image.numpy().tobytes() for image in alike}) == 32  # each slice in its own way
    assert (augment(torch.full((20, 32, 32), 90, dtype=torch.uint8)) == 90).all(), "brightness stays"
    sharp, both = (images > 100).to(torch.uint8) * 255, []
    for each in (sharp, 255 - sharp):
        torch.manual_seed(0)
        both.append(augment(each).int())
    assert both[0].min() == 0 and both[0].max() == 255 and ((both[0] + both[1] - 255).abs() <= 1).all(), "no overflow"


@pytest.mark.parametrize("flip", [0.4, 0.5])  # from 0.5 it is mirrored
@pytest.mark.parametrize("drawn", [(0, 0.5, 0.5, 0.5), (1, 1, 0.5, 0.5), (0.5, 0, 1, 0), (1, 0.2, 0, 0.9)])
def test_augment_by_hand(flip, drawn, monkeypatch):
    """Where a dot of a slice goes, from the numbers drawn for its angle, scale and shifts, each from 0 to 1."""
    numbers = iter([torch.tensor([flip]), torch.tensor([[*drawn, 0, 0]]).T])
    monkeypatch.setattr(torch, "rand", lambda *shape: next(numbers).view(shape))
    image = torch.zeros(1, 101, 101, dtype=torch.uint8)
    image[0, 20:23, 78:81] = 255
    moved = augment(image)[0].double()
    angle, scale, x, y = 2 * np.array(drawn) - 1
    place = complex(79 - 50, 21 - 50) - complex(x, y) * 0.05 * 101
    place *= (1 + 0.1 * scale) * np.exp(-1j * np.deg2rad(10) * angle)
    row, column = ((moved.sum(axis) * torch.arange(101)).sum().item() / moved.sum().item() for axis in (1, 0))
    assert (column - 50, row - 50) == pytest.approx((place.real * (1 if flip < 0.5 else -1), place.imag), abs=0.1)


# -------------------------------------------------------------------------------------------------- bad input


def test_unknown_dataset(tmp_path):
    refuses("There is no folder .*nowhere: check the path", tmp_path / "nowhere", FileNotFoundError)
    refuses("There is no folder .*~nobody-here/x: check the path", Path("~nobody-here/x"), FileNotFoundError)
    with pytest.raises(ValueError, match="Unknown dataset 'fantom'.* did you mean 'phantom'"):
        load_data(Settings("fantom", tmp_path))


CSV_FAULTS = {  # what is written for what in which file, and what is said of it
    "no column": ("val", "filename,", "file,", r"val\.csv has no column 'filename' \(it has .*\)"),
    "another column": ("val", "label,patient", "label,PatientID", "has a column 'patientid': call it patient"),
    "long row": ("val", "images/4.png", "images/4, b.png", "not a readable CSV file .*quotes around a name that has"),
    "no label": ("test", "10.png,1,", "10.png,,", "test.csv row 4 has label nan, which is unknown"),
    "no such file": ("val", "images/5.png", "images/55.png", "row 3 has filename 'images/55.png', which is not there"),
    "same file": ("test", "images/8.png", "images/../images/1.png", r"1\.png' stands in train.csv row 3 and again in"),
    "same patient": ("test", ",p4", ",p0", r"Patient 'p0' stands in train.csv row 2 and again in test.csv row 2: keep"),
    "empty": ("val", None, b"", r"val\.csv is not a readable CSV file"),
    "one class": ("val", None, b"filename,label\nimages/4.png,0\n", "val split .* holds only non-COVID slices: put"),
    "no rows": ("val", None, b"filename,label\n", "The val split of .* holds no slices"),
    "window": ("val", "patient\nimages/4.png,0,p2", "low,high\nimages/4.png,0,9,4", "row 2 has high '4', where low"),
}  # fmt: skip


@pytest.mark.parametrize(("split", "old", "new", "message"), CSV_FAULTS.values(), ids=CSV_FAULTS)
def test_a_faulty_csv_file(csv_folder, split, old, new, message):
    path = csv_folder / f"{split}.csv"
    content = path.read_bytes()
    assert old is None or old.encode() in content
    path.write_bytes(new if old is None else content.replace(old.encode(), new.encode(), 1))
    refuses(message, csv_folder)
    path.unlink()
    refuses(rf"{path.name} is missing: give train\.csv, val\.csv and test\.csv", csv_folder, FileNotFoundError)


def test_a_damaged_and_a_blank_picture_stop_the_whole_set(folder):  # field case: blank_slices_are_learned
    path = folder / "non-COVID" / "7.png"
    content, blank = path.read_bytes(), io.BytesIO()
    Image.new("L", (40, 40), 200).save(blank, "png")
    for wrong, message in (
        (content[: len(content) // 2], r"\(.*\): replace or delete"),
        (b"", ".*empty"),
        (b"<html>not found</html>", ""),
        (blank.getvalue(), r"\(it is blank, one grey level throughout\)"),
    ):
        path.write_bytes(wrong)
        refuses(rf"Slice .*7\.png cannot be read {message}", folder)


def test_too_few_slices_to_split(folder):
    refuses("COVID has too few slices, 8 in 1 patients: use split='random' or add slices, as", folder, split="patient")
    table = article_table()[:1255]
    with pytest.raises(ValueError, match="Class non-COVID has too few slices, 3 in 1 patients"):
        split_groups(table, "patient")
    assert set(split_groups(table, "random")) == set(SPLITS)
    with pytest.raises(ValueError, match="Class non-COVID has too few slices, 2 in 2 files: add slices, as train, val"):
        split_groups(table[:-1], "random")


# -------------------------------------------------------------------------------------------------- downloads


@pytest.fixture
def server(tmp_path_factory):
    """A local server of `folder`, which counts what was asked, and cuts its answers to the lengths in `cut`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source, outputfile):
            outputfile.write(source.read()[: server.cut.pop(0) if server.cut else None])

        def log_message(self, *arguments):  # once for each request
            server.asked += 1

    folder = tmp_path_factory.mktemp("www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        server.folder, server.asked, server.cut = folder, 0, []
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 600_000, dtype=np.uint8))


def test_an_interrupted_transfer_leaves_nothing_and_is_repeated(server, tmp_path):
    (server.folder / "a.bin").write_bytes(CONTENT)
    server.cut = [300_000]
    for address in (server.address, "http://127.0.0.1:9"):
        with pytest.raises(ConnectionError, match="Could not download .* again, or .* dataset='phantom' needs no netw"):
            fetch(f"{address}/a.bin", tmp_path / "a.bin", progress=False)
        assert not list(tmp_path.iterdir())
    for _ in range(2):  # once it is there, nothing is asked
        fetch(f"{server.address}/a.bin", tmp_path / "a.bin", progress=False)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.asked == 2


def test_an_archive_writes_nothing_outside_its_folder_and_is_deleted_if_damaged(tmp_path):
    archive, out = tmp_path / "in" / "a.zip", tmp_path / "in" / "out"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for name in ("good.png", "../evil.png", "/evil.png", "a/../../evil.png"):
            content.writestr(name, CONTENT)
    unpack(archive, out)
    found = list(tmp_path.rglob("*.png"))
    assert found and all(path.is_relative_to(out) for path in found)
    damaged = bytearray(archive.read_bytes())
    damaged[5000] ^= 255
    archive.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.zip is damaged .* was deleted: run it again"):
        unpack(archive, tmp_path / "in" / "again")
    assert list(archive.parent.iterdir()) == [out]


def test_covid_ct(server, tmp_path, monkeypatch):
    for name in ("COVID", "NonCOVID"):  # its repository, two pictures of each class in each split
        lists = server.folder / "Data-split" / name
        lists.mkdir(parents=True)
        for number, split in enumerate(SPLITS):
            names = [f"{name} {number}%{panel}.png" for panel in range(2)]
            for panel in names:
                picture(tmp_path / name / f"CT_{name}" / panel, number)
            (lists / f"{split}CT_{name}.txt").write_text("\n".join(names))
        shutil.make_archive(server.folder / "Images-processed" / f"CT_{name}", "zip", tmp_path / name)
    monkeypatch.setattr(downloads, "COVID_CT", server.address)
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    (tmp_path / "covid-ct").mkdir()  # a folder of one's own
    settings = Settings("covid-ct", tmp_path / "data", image_size=32)
    data = load_data(settings, progress=False)
    assert data.table.split.value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}
    assert data.table.label.sum() == 6 and data.table.patient.nunique() == 6
    assert "panels of one figure" in data.patient_source and "published" in data.patient_source
    assert load_data(settings, progress=False).fingerprint == data.fingerprint
    assert server.asked == 8  # each file once
    (tmp_path / "data/covid-ct/Data-split/COVID/valCT_COVID.txt").write_text("lost.png")
    (tmp_path / "data/covid-ct/val.csv").unlink()
    with pytest.raises(ValueError, match=r"val\.csv row 2 has filename 'lost\.png', which is not there"):
        load_data(settings, progress=False)


def test_kaggle(folder, tmp_path, monkeypatch):
    """As Kaggle's archives are: with a folder more around the class folders, and one beside them that is none."""
    shutil.copytree(folder, tmp_path / "archive" / "versions" / "inner")
    (tmp_path / "archive" / "aside").mkdir()
    settings, found = Settings("sars-cov-2-ct", tmp_path / "data", image_size=32, split="random"), []
    kaggle = types.SimpleNamespace(dataset_download=lambda handle: str(tmp_path / "archive"))
    for package in (kaggle, None):  # the second time the copy in data_dir is used
        monkeypatch.setitem(sys.modules, "kagglehub", package)
        found.append(load_data(settings, progress=False))
    assert (found[0].name, len(found[0].table)) == ("sars-cov-2-ct", 16) and len({d.fingerprint for d in found}) == 1


@pytest.mark.parametrize("error", [OSError("Name or service\nnot known"), RuntimeError("401"), ImportError()])
def test_kaggle_out_of_reach(tmp_path, monkeypatch, error):
    def fail(handle):
        raise error

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=fail))
    with pytest.raises(ConnectionError, match="by hand from https://www.kaggle.com/.*phantom") as caught:
        load_data(Settings("sars-cov-2-ct", tmp_path))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
