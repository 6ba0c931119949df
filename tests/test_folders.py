"""What people's folders look like: which files are slices, who is a patient, and what is said of the rest."""

import os
import re
import unicodedata

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image
from test_data import classes, load, picture, refuses
from test_data import csv_folder as csv_folder  # a fixture
from test_data import folder as folder  # a fixture

from covid_utils.io.folders import SPLITS
from covid_utils.io.patients import canonical, guessed

# ------------------------------------------------------------------------------- files, folders and patients


def write(folder, names):
    """Random pictures, in the order of their names; what has another ending is no picture."""
    for number, name in enumerate(names):
        if name.endswith((".gif", ".GIF", ".gz", ".txt", ".DS_Store")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")
        else:
            picture(folder / name, number, mode="RGB")
    return folder


def each_class(*names):
    """The names in class folders; {} becomes 0 to 7, each with a picture."""
    return [f"{label}/{name.format(i)}" for label in ("COVID", "Normal") for name in names for i in range(8)]


PLAIN = each_class("{}.png")
READ = {  # files; how many slices, and patients (0: a guess); a part of the sentence
    "hidden_folder_in_class": (
        [*PLAIN, "COVID/.ipynb_checkpoints/1.png", "COVID/p1/@eaDir/1.png", "__MACOSX/1.png", "#recycle/1.png"],
        16, 0, "Left out: hidden and service folders (4).",
    ),
    "masks_beside_images": (
        each_class("images/{}.png", "Lung Masks/{}.png", "images/{}_mask.png"), 16, 0, "Left out: masks (32)."
    ),
    "other endings": (
        [*PLAIN, "COVID/a.gif", "COVID/b.GIF", "Normal/scan.mha.gz", "COVID/.hidden.png", "a.txt", "COVID/.DS_Store"],
        16, 0, "Left out: .gif files, which are not read (2), .gz files, which are not read (1), hidden files (1).",
    ),
    "endings in any case": ([*PLAIN, "COVID/0.PNG", "COVID/a.JPEG", "COVID/my.scan.1.Tif", "COVID/b.webp"], 20, 0, ""),
    "zip_in_zip_folder": ([f"{name}/{name}/{i}.png" for name in ("COVID", "Normal") for i in range(8)], 16, 0, ""),
    "class_in_two_folders": ([f"{a}/{i}.png" for a in ("COVID", "covid-19", "normal") for i in range(8)], 24, 0, ""),
    "below images": (each_class("Patients/Case{}/images/1.png", "Patients/Case{}/labels/1.png"), 16, 16, "masks"),
    "same_scan_numbers": (each_class("scan_{}/1.png"), 16, 16, "The same number in several folders is taken for"),
    "names in both classes": (each_class("anna{}/1.png"), 16, 8, "class folders. 8 of 8 patients have slices of both"),
    "a rare class": ([*PLAIN, *(f"Normal/x{i}.png" for i in range(40))], 56, 0, "Only 14% of the slices are COVID: "),
    "one_large_patient": ([*each_class("a{}/1.png"), *(f"COVID/b/{i}.png" for i in range(20))], 36, 9, "'b' holds 71%"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "slices", "patients", "said"), READ.values(), ids=READ)
def test_what_is_read(tmp_path, names, slices, patients, said):
    data = load(write(tmp_path / "set", names))
    assert len(data.table) == slices and said in data.patient_source
    assert patients or (guessed(data.table.patient).all() and data.patient_source.startswith("No patient is named"))
    assert not patients or data.table.patient.nunique() == patients
    assert "Left out" in said or "masks" in said or "Left out" not in data.patient_source


REFUSED = {  # files, and what is said
    "other class inside": ([*PLAIN, "COVID/normal/1.png"], "lies 'normal', of the other class: move"),
    "zip_in_zip_folder": (
        [f"export/{folder}/{name}" for folder in ("data", "__MACOSX") for name in PLAIN],
        "'export' names neither class: give .*set/export/data, in which the class folders lie",
    ),
    "third class": ([*PLAIN, "Pneumonia/1.png"], "'Pneumonia' names neither class: call .* move other folders out"),
    "misspelled class": (
        [*PLAIN[8:], *(f"COVDI/{i}.png" for i in range(8))],
        "slices in 'COVDI', and 'COVDI' names neither class: call the class folders COVID and non-COVID ",
    ),
    "one class": (PLAIN[8:], "no slices of class COVID: call the class folders COVID .* or give one CSV file"),
    "nothing that is read": (
        [*PLAIN[8:], "COVID/scan.mha.gz"],
        r"no slices of class COVID: .*Slices end in \.png, .* Left out: \.gz files, which are not read \(1\)",
    ),
    "too few slices": (PLAIN[6:], "COVID has too few slices, 2 in 2 files: add slices"),
    "no test": ([f"{split}/{name}" for split in ("train", "validation") for name in PLAIN], "test split of .* holds"),
    "leak": (
        [f"{split}/{name}" for split in ("train", "val", "test") for name in each_class("anna/{}.png")],
        "Patient 'anna' stands in .* and again in .* one split only",
    ),
    "beside the splits": (
        [f"COVID/{split}/1.png" for split in SPLITS] + ["COVID/5.png", *PLAIN[8:]],
        "COVID has path 'COVID/5.png', which lies in no split folder, .*move it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("names", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path, names, message):
    refuses(message, write(tmp_path / "set", names))


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "Testing")])
@pytest.mark.parametrize("order", ["{0}/{1}", "{1}/{0}"])
def test_split_folders(tmp_path, names, order):  # field case: train_val_test_folders
    places = [(order.format(split, label), 4 + n) for n, split in enumerate(names) for label in ("Normal", "COVID")]
    data = load(write(tmp_path / "set", [f"{place}/{i}.png" for place, count in places for i in range(count)]))
    assert data.table.split.value_counts().to_dict() == {"train": 8, "val": 10, "test": 12}
    assert data.patient_source.endswith("The split comes with the data.") and guessed(data.table.patient).all()
    assert (data.table.groupby("patient").split.nunique() == 1).all()  # a guess is not cut


def test_masks_under_another_name_are_refused(folder):
    for i in range(3):
        Image.fromarray(np.tri(40, 50, i, dtype=np.uint8) * 255).save(folder / "COVID" / f"x{i}.png")
    refuses("COVID/x0.png .* only two grey levels, as masks do", folder)
    assert not list((folder.parent / "data" / "cache").glob("*"))


def test_every_file_and_folder_counts_once(folder, tmp_path):  # field case: link_to_parent
    for name, target in {
        "all": folder, "again": folder / "COVID", "others": folder / "non-COVID", "up": tmp_path, "loop": "loop",
        "one more.png": folder / "COVID" / "0.png", "other.png": folder / "non-COVID" / "1.png",
    }.items():  # fmt: skip
        (folder / "COVID" / name).symlink_to(target)
    picture(tmp_path / "elsewhere" / "9.png", 9)
    for name in ("outside", "outside too"):  # what lies elsewhere may be linked in, once
        (folder / "COVID" / name).symlink_to(tmp_path / "elsewhere")
    data = load(folder)
    assert data.table.label.value_counts().to_dict() == {1: 9, 0: 8}
    assert "links to what is read elsewhere (7)" in data.patient_source


def test_a_link_that_leads_nowhere_and_a_pipe_that_would_hang(folder):  # field case: broken_link
    (folder / "COVID" / "gone.png").symlink_to(folder / "nothing.png")
    refuses(r"gone\.png is a link that leads nowhere, or a pipe: delete it", folder, FileNotFoundError)
    (folder / "COVID" / "gone.png").unlink()
    os.mkfifo(folder / "COVID" / "pipe.png")
    refuses(r"pipe\.png is a link that leads nowhere, or a pipe: delete it", folder, FileNotFoundError)


def test_names_that_are_not_utf8(folder):
    try:
        os.rename(folder / "COVID" / "0.png", os.fsencode(folder / "COVID") + b"/M\xfcller.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    refuses(r"M.ller.png' is not UTF-8 .*: rename it", folder)


# -------------------------------------------------------------------------------------------------- CSV files


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_names_that_are_written_otherwise(csv_folder, written):
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    (csv_folder / "images" / "0.png").rename(csv_folder / "images" / unicodedata.normalize(other, "ü.png"))
    text = (
        (csv_folder / "train.csv").read_text().replace("images/0.png", unicodedata.normalize(written, "images\\ü.png"))
    )
    (csv_folder / "train.csv").write_text(text, encoding="utf-8")
    assert len(load(csv_folder).table) == 12


def edit_rows(folder, change):
    """Each CSV file anew: `change` of its header, and of each of its rows."""
    for split in SPLITS:
        path = folder / f"{split}.csv"
        path.write_text("".join(f"{change(line, row == 0)}\r\n" for row, line in enumerate(path.read_text().split())))


def test_numbers_as_tables_write_them_and_commas_at_the_end(csv_folder):
    names = {"p0": "1.0", "p1": "001", "p2": "2 "}
    edit_rows(csv_folder, lambda line, _: line[:-2] + names.get(line[-2:], line[-2:]) + ",")
    table = load(csv_folder).table
    assert table.label.tolist() == [0, 0, 1, 1] * 3
    assert table.patient.nunique() == 5 and canonical(table.patient).equals(table.patient.astype(object))


def test_columns_that_are_not_read(csv_folder):  # field case: patient_column_of_another_name
    edit_rows(csv_folder, lambda line, header: line + (",age,note" if header else ",40,"))
    assert load(csv_folder).patient_source.endswith("Left out: column 'age' (12).")
    edit_rows(csv_folder, lambda line, header: "filename,label,MRN,age,note" if header else line)
    refuses("has a column 'mrn': call it patient, or leave it out", csv_folder)


def test_a_window_from_the_csv_file(csv_folder, capsys):
    for path in (csv_folder / "images").iterdir():
        Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50)).save(path)
    own = load(csv_folder)
    assert "12 of 12 slices" in capsys.readouterr().out
    load(csv_folder)
    edit_rows(csv_folder, lambda line, header: line + (",low,high" if header else ",0,4000"))
    wide = load(csv_folder)
    assert "slices" not in capsys.readouterr().out  # it is said once, and not where a window is given
    assert "low" not in wide.table and (own.window, wide.window) == (None, (0, 4000))
    edit_rows(csv_folder, lambda line, _: re.sub(r"(images/1\..*)4000", r"\g<1>3000", line))
    varied = load(csv_folder)
    assert varied.window is None and "Windows (low, high) differ" in varied.patient_source


def test_one_table_for_all_slices(csv_folder):
    tables = [pd.read_csv(csv_folder / f"{split}.csv") for split in SPLITS]
    for split in SPLITS:
        (csv_folder / f"{split}.csv").unlink()
    (csv_folder / "other.csv").write_text("age,sex\n3,f\n")

    def one_table(*names):
        parts = [table.assign(split=name) for table, name in zip(tables, names, strict=False)] or tables
        pd.concat(parts).to_csv(csv_folder / "labels.csv", index=False)
        return csv_folder

    data = load(one_table(), split="patient")
    assert data.table.patient.nunique() == 6 and (data.table.groupby("patient").split.nunique() == 1).all()
    data = load(one_table("Training", "validation", "test"))
    assert data.table.split.value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}
    refuses(r"labels.csv row \d+ has split 'here', which is unknown: give train", one_table("train", "here", "test"))
    (csv_folder / "labels.csv").rename(csv_folder / "train_COVIDx.txt")  # field case: labels_in_one_file
    refuses("names neither class: if other.csv or train_COVIDx.txt holds the labels, make it one CSV", csv_folder)


# ------------------------------------------------------------------------------------------- who is a patient


def dicom(path, seed, patient, **tags):
    """A CT slice as DICOM."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.Modality, data.PatientID, data.Rows, data.Columns = "CT", patient, 40, 50
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 15, 0, 1, -1350
    data.PixelData = np.random.default_rng(seed).integers(0, 1500, (40, 50), dtype=np.uint16).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


HEADERS = {  # sub-folder and PatientID of slice i of a class; how many patients; what is said
    "dicom_patient_ids": (  # six people with two slices each, of whom two share a folder: who knows who is who there
        lambda name, i: (f"both-{name}" if i < 4 else "images", f"SECRET-{name}-{i // 2}"), 10,
        "Patients are named by the DICOM headers, whose ids are replaced by numbers of ours.",
    ),
    "an anonymiser's id": (lambda name, i: ("", "ANON"), 2, "100% of the slices share one PatientID, as anonymisers"),
    "one_large_patient_hides_all_ids": (
        lambda name, i: ("", "large" if name == "COVID" and i < 8 else f"{name}-{i // 2}"), 9, "holds 67% of a class"
    ),
    "two folders each, and slices without an id": (
        lambda name, i: (f"{name}{i // 2}", f"{name}-{i // 4}" if i % 2 else ""), 6, "DICOM headers"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("of", "patients", "said"), HEADERS.values(), ids=HEADERS)
def test_patients_in_dicom_headers(tmp_path, of, patients, said):
    for label, name in enumerate(("Normal", "COVID")):
        for i in range(12):
            place, patient = of(name, i)
            dicom(tmp_path / "set" / name / place / f"{i}.dcm", 100 * label + i, patient)
    data = load(tmp_path / "set", split="patient" if patients > 2 else "random")
    assert data.table.patient.nunique() == patients and said in data.patient_source
    assert patients == 2 or (data.table.groupby("patient").split.nunique() == 1).all()
    assert "SECRET" not in data.table.to_csv() + data.patient_source


# ------------------------------------------------------------------------------------------------- the cache


def test_folders_that_look_alike_have_a_cache_of_their_own(tmp_path):
    """Two sets of one name, whose files are alike in name, size and time; then one file's content changes."""
    one, two = (classes(tmp_path / name / "ct", first=first) for name, first in (("one", 0), ("two", 500)))
    for path in (path for path in tmp_path.rglob("*.png")):
        path.write_bytes(path.read_bytes().ljust(4000, b"\0"))
        os.utime(path, ns=(10**18, 10**18))
    for data_dir in (tmp_path / "one" / "data", tmp_path / "two" / "data"):
        data_dir.symlink_to(tmp_path / "data")
    (tmp_path / "data").mkdir()
    images = load(one).images
    assert not torch.equal(images, load(two).images)
    (one / "COVID" / "0.png").write_bytes((one / "COVID" / "1.png").read_bytes())
    os.utime(one / "COVID" / "0.png", ns=(10**18, 10**18))
    changed = load(one).images
    assert torch.equal(changed[0], images[1]) and torch.equal(changed[1:], images[1:])
