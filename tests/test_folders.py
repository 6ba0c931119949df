"""What people's folders look like: which files are slices, who is a patient, and what is said of the rest."""

import os
import re
import sys
import unicodedata

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from test_data import classes, load, picture, refuses
from test_data import csv_folder as csv_folder  # a fixture
from test_data import folder as folder  # a fixture

from covid_utils.io.discovery import is_slice, slices_below
from covid_utils.io.folders import SPLITS
from covid_utils.io.images import read_slice
from covid_utils.io.patients import canonical, guessed

# ------------------------------------------------------------------------------------- which files are slices


@pytest.mark.parametrize("place", ["COVID", "COVID/p1", "."])
def test_service_folders_are_passed_over_and_counted(folder, place):
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle"):
        picture(folder / place / name / "1.png")
    data = load(folder)
    assert len(data.table) == 16 and guessed(data.table.patient).all()
    assert "Left out: hidden and service folders (5)." in data.patient_source


def test_masks_are_left_out_and_counted(tmp_path):
    folder = classes(tmp_path / "set", inside="images")
    for i in range(8):
        picture(folder / "COVID" / "Lung Masks" / f"{i}.png", i)
        picture(folder / "COVID" / "images" / f"{i}_mask.png", i)
    data = load(folder)
    assert len(data.table) == 16 and "masks (16)" in data.patient_source
    assert data.patient_source.startswith("No patient is named")  # `images` is nobody


def test_masks_under_another_name_are_refused(folder):
    for i in range(3):
        Image.fromarray(np.tri(40, 50, i, dtype=np.uint8) * 255).save(folder / "COVID" / f"x{i}.png")
    refuses("'COVID/x0.png' .* only two grey.*, as masks do", folder)
    assert not list((folder.parent / "data" / "cache").glob("*"))


def test_every_file_and_folder_counts_once(folder, tmp_path):
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


def test_a_link_that_leads_nowhere_and_a_pipe_that_would_hang(folder):
    (folder / "COVID" / "gone.png").symlink_to(folder / "nothing.png")
    refuses(r"gone\.png is a link that leads nowhere, or a pipe: delete it", folder, FileNotFoundError)
    (folder / "COVID" / "gone.png").unlink()
    os.mkfifo(folder / "COVID" / "pipe.png")
    refuses(r"pipe\.png is a link that leads nowhere, or a pipe: delete it", folder, FileNotFoundError)


def test_files_that_are_not_read_are_counted(folder):
    for name in ("a.gif", "b.GIF", "scan.mha.gz", ".hidden.png", "notes.txt", ".DS_Store"):
        (folder / "COVID" / name).write_bytes(b"x")
    assert load(folder).patient_source.endswith(
        "Left out: .gif files, which are not read (2), .gz files, which are not read (1), hidden files (1). "
        "The random split ignores patients."
    )


def test_endings_in_any_case_and_dots_in_names(folder):
    """As in https://github.com/cleanlab/cleanvision/issues/141, where such files came twice."""
    for name in ("0.PNG", "a.JPEG", "my.scan.1.Tif", "b.webp"):
        picture(folder / "COVID" / name, len(name), mode="RGB")
    data = load(folder)
    assert (data.table.label == 1).sum() == 12 and "Left out" not in data.patient_source


def test_names_that_are_not_utf8(folder):
    try:
        os.rename(folder / "COVID" / "0.png", os.fsencode(folder / "COVID") + b"/M\xfcller.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    refuses(r"M.ller.png' is not UTF-8 .*: rename it", folder)


# ---------------------------------------------------------------------------------------------------- layouts


def test_the_other_class_inside_a_class_folder(folder):
    picture(folder / "COVID" / "normal" / "1.png")
    refuses("lies a folder 'normal', which names the other class: move it out", folder)


def test_the_same_class_inside_its_folder_is_nobody(tmp_path):
    for name in ("CT_COVID", "CT_NonCOVID"):
        for i in range(8):
            picture(tmp_path / "set" / name / name / f"{i}.png", i)
    assert load(tmp_path / "set").patient_source.startswith("No patient is named")


def test_class_folders_further_down(tmp_path):
    classes(tmp_path / "set" / "export" / "data")
    classes(tmp_path / "set" / "export" / "__MACOSX")
    refuses("'export' names neither class: give .*set/export/data, in which the class folders lie", tmp_path / "set")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "Testing")])
@pytest.mark.parametrize("order", ["split first", "class first"])
def test_split_folders(tmp_path, names, order):
    for number, split in enumerate(names):
        for label, name in enumerate(("Normal", "COVID")):
            place = (split, name) if order == "split first" else (name, split)
            for i in range(4 + number):
                picture(tmp_path.joinpath("set", *place, f"{i}.png"), 100 * number + 10 * label + i)
    data = load(tmp_path / "set")
    assert data.table.split.value_counts().to_dict() == {"train": 8, "val": 10, "test": 12}
    assert data.patient_source.endswith("The split comes with the data.") and guessed(data.table.patient).all()
    assert (data.table.groupby("patient").split.nunique() == 1).all()  # a guess is not cut


def test_split_folders_that_do_not_make_a_split(tmp_path):
    folder = tmp_path / "set"
    for split in ("train", "validation"):
        classes(folder / split, count=2, inside=f"{split}-someone")
    refuses("The test split of .* holds no slices: put slices of both classes in it", folder)
    classes(folder / "test", count=2, inside="train-someone")
    refuses("Patient 'train-someone' stands in .* and again in .* one split only", folder)
    picture(folder / "extra" / "1.png")
    refuses("'extra' names neither class", folder)
    classes(tmp_path / "other", count=2, inside="train")
    picture(tmp_path / "other" / "COVID" / "5.png")
    refuses("1 slices in .* lie in no split folder, 'COVID/5.png' for one: move them", tmp_path / "other")


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


def test_commas_at_the_end_shift_nothing(csv_folder):
    plain = load(csv_folder)
    edit_rows(csv_folder, lambda line, _: line + ",")
    assert load(csv_folder).table.equals(plain.table)


def test_numbers_as_tables_write_them(csv_folder):
    names = {"p0": "1.0", "p1": "001", "p2": "2 "}
    edit_rows(csv_folder, lambda line, _: line[:-2] + names.get(line[-2:], line[-2:]))
    table = load(csv_folder).table
    assert table.patient.nunique() == 5 and canonical(table.patient).equals(table.patient.astype(object))


def test_columns_that_are_not_read(csv_folder):  # field case: patient_column_of_another_name
    edit_rows(csv_folder, lambda line, header: line + (",age,note" if header else ",40,"))
    assert load(csv_folder).patient_source.endswith("Left out: column 'age' (12).")
    for name in ("Patient_ID", "participant_id", "pid", "Case", "MRN"):
        edit_rows(csv_folder, lambda line, header, name=name: f"filename,label,{name},age,note" if header else line)
        refuses(f"has a column '{name.lower()}': call it patient, or leave it out", csv_folder)


def test_a_rare_class_is_named(tmp_path):
    classes(tmp_path / "set")
    for i in range(40):
        picture(tmp_path / "set" / "Normal" / f"{i}.png", 500 + i)
    assert "Only 14% of the slices are COVID: accuracy says little." in load(tmp_path / "set").patient_source


def test_a_window_from_the_csv_file(csv_folder, capsys):
    for i in range(12):
        values = np.arange(2000, dtype=np.uint16).reshape(40, 50) + np.uint16(100 * i)
        Image.fromarray(values).save(csv_folder / "images" / f"{i}.png")
    own = load(csv_folder)
    assert "12 of 12 slices" in capsys.readouterr().out
    load(csv_folder)
    edit_rows(csv_folder, lambda line, header: line + (",low,high" if header else ",0,4000"))
    wide = load(csv_folder)
    assert "slices" not in capsys.readouterr().out  # it is said once, and not where a window is given
    assert torch.equal(own.images[0], own.images[11]) and not torch.equal(wide.images[0], wide.images[11])
    assert wide.images[11].float().mean() - wide.images[0].float().mean() == pytest.approx(1100 / 4000 * 255, abs=1)
    assert "low" not in wide.table and (own.window, wide.window) == (None, (0, 4000))
    edit_rows(csv_folder, lambda line, _: re.sub(r"(images/1\..*)4000", r"\g<1>3000", line))
    varied = load(csv_folder)
    assert varied.window is None and "Windows (low, high) differ" in varied.patient_source


def one_table(folder, split=""):
    """24 pictures of six people in `images`, and one CSV file for all of them."""
    (folder / "images").mkdir(parents=True)
    rows = ["filename,label,patient" + (",split" if split else "")]
    for i in range(24):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40), np.uint8)).save(folder / f"images/{i}.png")
        rows.append(f"images/{i}.png,{i // 4 % 2},p{i // 4}" + (f",{split.split()[i // 8]}" if split else ""))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "other.csv").write_text("age,sex\n3,f\n")
    return folder


def test_one_table_for_all_slices(tmp_path):
    data = load(one_table(tmp_path / "a"), split="patient")
    assert data.table.patient.nunique() == 6 and (data.table.groupby("patient").split.nunique() == 1).all()
    data = load(one_table(tmp_path / "b", "Training validation test"))
    assert data.table.split.value_counts().to_dict() == {"train": 8, "val": 8, "test": 8}
    refuses(
        r"labels.csv row \d+ has split 'here', which is unknown: give train",
        one_table(tmp_path / "c", "train here test"),
    )
    (tmp_path / "a" / "labels.csv").rename(tmp_path / "a" / "train_COVIDx.txt")  # field case: labels_in_one_file
    refuses("names neither class: if other.csv or train_COVIDx.txt holds the labels, make it one CSV", tmp_path / "a")


# ------------------------------------------------------------------------------------------- who is a patient


def test_patients_below_a_folder_that_says_what_they_are(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(5):
            case = tmp_path / "set" / name / "Patients" / f"Case-{name}{i}"
            picture(case / "images" / "1.png", 10 * label + i)
            picture(case / "labels" / "1.png", 50 + 10 * label + i)
    data = load(tmp_path / "set")
    assert len(data.table) == 10 and data.table.patient.nunique() == 10 and "masks (10)" in data.patient_source


@pytest.mark.parametrize("name", ["{}", "scan_{}", "CT Scan {}", "p0{}"])
def test_numbers_that_begin_anew_in_each_class(tmp_path, name):
    for label in ("COVID", "Normal"):
        for i in range(6):
            picture(tmp_path / "set" / label / name.format(i) / "1.png", i + 10 * len(label))
    data = load(tmp_path / "set", split="patient")
    assert data.table.patient.nunique() == 12
    assert "The same number in several folders is taken for several people." in data.patient_source


def test_names_that_stand_in_both_classes_are_one_person(tmp_path):
    for label in ("COVID", "Normal"):
        for name in ("anna", "bert", "carl", "dora", "emil", "fritz"):
            picture(tmp_path / "set" / label / name / "1.png", len(label) + len(name))
            picture(tmp_path / "set" / label / f"{name}{label}" / "1.png", 50 + len(label) + len(name))
    data = load(tmp_path / "set", split="patient")
    assert data.table.patient.nunique() == 18 and "6 of 18 patients have slices of both classes." in data.patient_source
    assert (data.table.groupby("patient").split.nunique() == 1).all()


def test_one_patient_who_is_most_of_a_class(tmp_path):
    for i in range(8):
        picture(tmp_path / "set" / "COVID" / ("export" if i < 6 else f"a{i}") / f"{i}.png", 100 + i)
        picture(tmp_path / "set" / "Normal" / f"b{i}" / f"{i}.png", 200 + i)
    assert "'export' holds 75% of a class: check that this is one patient." in load(tmp_path / "set").patient_source


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


def test_patients_from_dicom_headers(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(12):  # six people with two slices each, of whom two share a folder: who knows who is who there
            place = f"both-{name}" if i < 4 else "images"
            dicom(tmp_path / "set" / name / place / f"{i}.dcm", 100 * label + i, f"SECRET-{label}-{i // 2}")
    data = load(tmp_path / "set", split="patient")
    assert data.table.patient.nunique() == 10 and (data.table.groupby("patient").split.nunique() == 1).all()
    assert data.patient_source.startswith(
        "Patients are named by the DICOM headers, whose ids are replaced by numbers of ours."
    )
    assert "SECRET" not in data.table.to_csv() + data.patient_source


def test_an_id_that_all_files_have_is_no_id(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(4):
            dicom(tmp_path / "set" / name / f"{i}.dcm", 100 * label + i, "ANONYMOUS")
    said = load(tmp_path / "set").patient_source
    assert said.startswith("No patient is named") and "100% of the slices share one PatientID" in said


def test_one_patient_with_most_slices_hides_no_other(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(10):
            patient = "large" if label and i < 7 else f"{label}-{i // 2}"
            dicom(tmp_path / "set" / name / f"{i}.dcm", 100 * label + i, patient)
    data = load(tmp_path / "set", split="patient")
    assert data.table.patient.nunique() == 8 and "holds 70% of a class" in data.patient_source


def test_headers_join_folders(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(10):  # each person has two scan folders, and in each a slice without an id
            for j in range(2):
                patient = f"{name}-{i // 2}" if j else ""
                dicom(tmp_path / "set" / name / f"{name}{i}" / f"{j}.dcm", 100 * label + 2 * i + j, patient)
    assert load(tmp_path / "set").table.patient.nunique() == 10


def test_dicom_without_an_ending_and_without_pydicom(tmp_path, monkeypatch):
    dicom(tmp_path / "IM000001", 1, "x")
    (tmp_path / "README").write_text("nothing")
    assert is_slice(tmp_path / "IM000001") and not is_slice(tmp_path / "README")
    assert slices_below(tmp_path) == ([tmp_path / "IM000001"], {})
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match="DICOM.*pip install pydicom"):
        read_slice(tmp_path / "IM000001", 32)


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
