"""What people's folders look like: which files are slices, who is a patient, and what is said of the rest."""

import os
import unicodedata

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from test_data import csv_folder as csv_folder  # a fixture
from test_data import load, picture, refuses

from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.io.discovery import is_slice, slices_below
from covid_utils.io.folders import class_of
from covid_utils.io.patients import canonical, guessed


def classes(folder, count=8, inside="", first=0):
    """Class folders with `count` slices each, in sub-folders `inside`."""
    for label, name in enumerate(("non-COVID", "COVID")):
        for i in range(count):
            picture(folder / name / inside / f"{i}.png", 1000 * label + first + i)
    return folder


# --------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "name", ["-1", "COVID?", "~covid", "1.0", "+1", "−1", "COVID (-)", "SARS-CoV-2 (+)", "0-", "?"]
)
def test_a_label_with_other_signs_is_unknown(name, csv_folder):
    assert class_of(name) is None
    text = (csv_folder / "val.csv").read_text().replace(",1,", f",{name},")
    (csv_folder / "val.csv").write_text(text, encoding="utf-8")
    refuses("has the unknown label", csv_folder)


@pytest.mark.parametrize("name", ["SARS-CoV-2", "covid 19", "COVID_19_positive", "CT_COVID", " 1 "])
def test_spellings_of_covid(name):
    assert class_of(name) == 1


# ------------------------------------------------------------------------------------- which files are slices


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle"])
@pytest.mark.parametrize("place", ["COVID", "COVID/p1", "."])
def test_service_folders_are_passed_over_and_counted(tmp_path, name, place):
    folder = classes(tmp_path / "set")
    for i in range(8):
        picture(folder / place / name / f"{i}.png", i)
    data = load(folder, split="random")
    assert len(data.table) == 16 and guessed(data.table.patient).all()
    assert ("files in hidden or service folders (8)" in data.groups) == (place != ".")


def test_masks_are_left_out_and_counted(tmp_path):
    folder = classes(tmp_path / "set", inside="images")
    for i in range(8):
        picture(folder / "COVID" / "Lung Masks" / f"{i}.png", i)
        picture(folder / "COVID" / "images" / f"{i}_mask.png", i)
    data = load(folder, split="random")
    assert len(data.table) == 16 and "masks (16)" in data.groups
    assert data.groups.startswith("No patient is named")  # `images` is nobody


def test_masks_under_another_name_are_refused(tmp_path):
    folder = classes(tmp_path / "set")
    for i in range(3):
        Image.fromarray(np.tri(40, 50, i, dtype=np.uint8) * 255).save(folder / "COVID" / f"x{i}.png")
    refuses("'COVID/x0.png' has only two grey levels, as masks do", folder, split="random")
    assert not list((tmp_path / "data" / "cache").glob("*"))


def test_every_file_and_folder_counts_once(tmp_path):
    folder = classes(tmp_path / "set")
    (folder / "COVID" / "all").symlink_to(folder)
    (folder / "COVID" / "again").symlink_to(folder / "COVID")
    (folder / "COVID" / "others").symlink_to(folder / "non-COVID")
    (folder / "COVID" / "up").symlink_to(tmp_path)
    (folder / "COVID" / "one more.png").symlink_to(folder / "COVID" / "0.png")
    (folder / "COVID" / "the same.png").symlink_to(folder / "COVID" / "1.png")
    picture(tmp_path / "elsewhere" / "9.png", 9)
    (folder / "COVID" / "outside").symlink_to(tmp_path / "elsewhere")  # what lies elsewhere may be linked in
    data = load(folder, split="random")
    assert data.table.label.value_counts().to_dict() == {1: 9, 0: 8}
    assert "links to folders that are read elsewhere (4)" in data.groups
    assert "links to slices that are read elsewhere (2)" in data.groups


def test_a_link_that_leads_nowhere(tmp_path):
    folder = classes(tmp_path / "set")
    (folder / "COVID" / "gone.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png is a link that leads nowhere: correct"):
        load(folder, split="random")


def test_a_pipe_does_not_hang(tmp_path):
    folder = classes(tmp_path / "set")
    os.mkfifo(folder / "COVID" / "pipe.png")
    assert "devices and pipes (1)" in load(folder, split="random").groups


def test_files_that_are_not_read_are_counted(tmp_path):
    folder = classes(tmp_path / "set")
    for name in ("a.gif", "b.GIF", "scan.mha.gz", ".hidden.png", "notes.txt", ".DS_Store"):
        (folder / "COVID" / name).write_bytes(b"x")
    groups = load(folder, split="random").groups
    assert groups.endswith(
        "Left out: .gif files, which are not read (2), .gz files, which are not read (1), hidden files (1). "
        "The random split pays no heed to them."
    )


def test_endings_in_any_case_and_dots_in_names(tmp_path):
    """As in https://github.com/cleanlab/cleanvision/issues/141, where such files came twice."""
    folder = classes(tmp_path / "set")
    for name in ("0.PNG", "a.JPEG", "my.scan.1.Tif", "b.webp"):
        picture(folder / "COVID" / name, len(name), mode="RGB")
    data = load(folder, split="random")
    assert (data.table.label == 1).sum() == 12 and "Left out" not in data.groups


def test_the_other_class_inside_a_class_folder(tmp_path):
    folder = classes(tmp_path / "set")
    picture(folder / "COVID" / "normal" / "1.png")
    refuses("lies a folder 'normal', which names the other class: move it out", folder, split="random")


def test_the_same_class_inside_its_folder_is_nobody(tmp_path):
    folder = tmp_path / "set"
    for name in ("CT_COVID", "CT_NonCOVID"):
        for i in range(70):
            picture(folder / name / name / f"{i}.png", i)
    assert load(folder).groups.startswith("No patient is named")


def test_class_folders_one_level_down(tmp_path):
    classes(tmp_path / "set" / "archive")
    classes(tmp_path / "deep" / "export" / "data")
    classes(tmp_path / "deep" / "export" / "__MACOSX")
    refuses("stand one level down, in 'archive': give .*set/archive", tmp_path / "set", FileNotFoundError)
    refuses("stand some levels down, in 'export/data': give", tmp_path / "deep", FileNotFoundError)


def test_patients_below_a_folder_that_says_what_they_are(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(5):
            picture(tmp_path / "set" / name / "Patients" / f"Case-{i}" / "images" / "1.png", 10 * label + i)
            picture(tmp_path / "set" / name / "Patients" / f"Case-{i}" / "labels" / "1.png", 50 + 10 * label + i)
    data = load(tmp_path / "set")
    assert len(data.table) == 10 and data.table.patient.nunique() == 10 and "masks (10)" in data.groups


def test_a_link_to_itself(tmp_path):
    folder = classes(tmp_path / "set")
    (folder / "COVID" / "loop").symlink_to(folder / "COVID" / "loop")
    data = load_data(Settings(folder, tmp_path / "data", split="random", image_size=32), progress=False)
    assert len(data.table) == 16


def test_names_that_are_not_utf8(tmp_path):
    folder = classes(tmp_path / "set")
    try:
        os.rename(folder / "COVID" / "0.png", os.fsencode(folder / "COVID") + b"/M\xfcller.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    refuses(r"M\?ller.png' is not UTF-8 .*: rename it", folder)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_names_that_are_composed_otherwise(csv_folder, written):
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    (csv_folder / "images" / "0.png").rename(csv_folder / "images" / unicodedata.normalize(other, "ü.png"))
    text = (
        (csv_folder / "train.csv").read_text().replace("images/0.png", unicodedata.normalize(written, "images/ü.png"))
    )
    (csv_folder / "train.csv").write_text(text, encoding="utf-8")
    assert len(load(csv_folder).table) == 12


# -------------------------------------------------------------------------------------- split folders, CSV files


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
    assert data.groups.endswith("The split is that of the folders.") and guessed(data.table.patient).all()
    assert (data.table.groupby("patient").split.nunique() == 1).all()  # a guess is not cut


def test_split_folders_without_one(tmp_path):
    for split in ("train", "test"):
        classes(tmp_path / "set" / split)
    refuses("split folders test and train, but none for val: move", tmp_path / "set", FileNotFoundError)


def test_two_folders_for_one_split_and_one_for_none(tmp_path):
    for split in ("train", "val", "validation", "test"):
        classes(tmp_path / "set" / split, count=3)
    assert load(tmp_path / "set").table.split.value_counts()["val"] == 12
    classes(tmp_path / "set" / "extra", count=3)
    refuses("holds split folders and 'extra', which is none: move its slices", tmp_path / "set")


def test_split_folders_that_do_not_hold_all_are_passed_over_and_said(tmp_path):
    folder = classes(tmp_path / "set", inside="train")
    for i in range(4):
        picture(folder / "COVID" / "test" / f"{i}.png", 50 + i)
    picture(folder / "loose.png", 7)
    groups = load(folder, split="random").groups
    assert "Folders called train, val or test are passed over, as not all slices lie in one of each." in groups
    assert "slices beside the class folders (1)" in groups and groups.startswith("No patient is named")


def test_a_patient_in_two_split_folders(tmp_path):
    for split in ("train", "val", "test"):
        classes(tmp_path / "set" / split, inside=f"{split}-someone")
    classes(tmp_path / "set" / "val", inside="train-someone")
    refuses("Patient 'train-someone' stands in .* and again in", tmp_path / "set")


def test_commas_at_the_end_shift_nothing(csv_folder):
    plain = load(csv_folder)
    for split in ("train", "val", "test"):
        path = csv_folder / f"{split}.csv"
        path.write_text("\r\n".join(line + "," for line in path.read_text().splitlines()) + "\r\n")
    assert load(csv_folder).table.equals(plain.table)


def test_a_row_that_is_too_long(csv_folder):
    text = (csv_folder / "val.csv").read_text().replace("images/4.png", "images/4, b.png")
    (csv_folder / "val.csv").write_text(text)
    refuses("not a readable CSV file .*quotes around a name that has a comma", csv_folder)


def test_two_columns_of_one_name(csv_folder):
    text = (csv_folder / "val.csv").read_text().replace("filename,label,patient", "filename,label,Label ")
    (csv_folder / "val.csv").write_text(text)
    refuses("several columns called 'label'", csv_folder)


def test_a_patient_column_of_another_name_is_asked_after(csv_folder):
    text = (csv_folder / "val.csv").read_text().replace("label,patient", "label,PatientID")
    (csv_folder / "val.csv").write_text(text)
    refuses("has a column 'patientid': call it patient", csv_folder)


def test_backslashes_are_named(csv_folder):
    text = (csv_folder / "val.csv").read_text().replace("images/4", "images\\4")
    (csv_folder / "val.csv").write_text(text)
    refuses("it has backslashes: write / instead", csv_folder, FileNotFoundError)


def test_numbers_as_tables_write_them(csv_folder):
    for old, new in (("p0", "1.0"), ("p1", "1"), ("p2", " 2 ")):
        for split in ("train", "val", "test"):
            path = csv_folder / f"{split}.csv"
            path.write_text(path.read_text().replace(f",{old}\n", f",{new}\n"))
    assert load(csv_folder).table.patient.nunique() == 5  # six, of which 1.0 and 1 are one
    assert canonical(load(csv_folder).table.patient).tolist() == load(csv_folder).table.patient.tolist()


def test_a_window_from_the_csv_file(csv_folder):
    for i in range(12):
        values = (np.arange(2000, dtype=np.uint16).reshape(40, 50) + 100 * i).astype(np.uint16)
        Image.fromarray(values).save(csv_folder / "images" / f"{i}.png")
    own = load(csv_folder)
    for split in ("train", "val", "test"):
        path = csv_folder / f"{split}.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0] + ",low,high"] + [line + ",0,4000" for line in lines[1:]]) + "\n")
    wide = load(csv_folder)
    assert torch.equal(own.images[0], own.images[11]) and not torch.equal(wide.images[0], wide.images[11])
    assert wide.images[11].float().mean() - wide.images[0].float().mean() == pytest.approx(1100 / 4000 * 255, abs=1)
    assert "low" not in wide.table
    (csv_folder / "val.csv").write_text((csv_folder / "val.csv").read_text().replace(",0,4000", ",9,4", 1))
    refuses("val.csv row 2 .* has low='9' and high='4': give two numbers", csv_folder)


def test_scaling_by_own_extremes_is_said_once(csv_folder, capsys):
    Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50)).save(csv_folder / "images" / "3.png")
    load(csv_folder)
    assert "1 of 12 slices, the first of them 'images/3.png'" in capsys.readouterr().out
    load(csv_folder)
    assert "greys" not in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- who is a patient


@pytest.mark.parametrize("name", ["{}", "scan_{}", "CT Scan {}", "p0{}"])
def test_numbers_that_begin_anew_in_each_class(tmp_path, name):
    for folder in ("COVID", "Normal"):
        for i in range(6):
            picture(tmp_path / "set" / folder / name.format(i) / "1.png", i + 10 * len(folder))
    data = load(tmp_path / "set")
    assert data.table.patient.nunique() == 12
    assert "The same number in several folders is taken for several people." in data.groups


def test_names_that_stand_in_both_classes_are_one_person(tmp_path):
    for folder in ("COVID", "Normal"):
        for name in ("anna", "bert", "carl", "dora", "emil", "fritz"):
            picture(tmp_path / "set" / folder / name / "1.png", len(folder) + len(name))
            picture(tmp_path / "set" / folder / f"{name}{folder}" / "1.png", 50 + len(folder) + len(name))
    data = load(tmp_path / "set")
    assert data.table.patient.nunique() == 18 and "6 of 18 patients have slices of both classes." in data.groups
    assert (data.table.groupby("patient").split.nunique() == 1).all()


def test_one_patient_who_is_most_of_a_class(tmp_path):
    folder = tmp_path / "set"
    for name, count in (("COVID/export", 20), ("COVID/a", 1), ("COVID/b", 1), ("Normal/c", 2), ("Normal/d", 2)):
        for i in range(count):
            picture(folder / name / f"{i}.png", i + count)
    picture(folder / "Normal" / "e" / "1.png", 99)
    assert "'export' holds 91% of a class: check that this is one patient." in load(folder).groups


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
        for i in range(24):  # two people a scan folder, and one who has two folders
            dicom(tmp_path / "set" / name / f"{i}.dcm", 100 * label + i, f"SECRET-{label}-{i // 4}")
    data = load(tmp_path / "set")
    assert data.table.patient.nunique() == 12 and (data.table.groupby("patient").split.nunique() == 1).all()
    assert data.groups.startswith("Patients are named by the DICOM headers, whose ids are replaced by numbers of ours.")
    assert "SECRET" not in data.table.to_csv() + data.groups


def test_an_id_that_all_files_have_is_no_id(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(70):
            dicom(tmp_path / "set" / name / f"{i}.dcm", 100 * label + i, "ANONYMOUS")
    assert load(tmp_path / "set").groups.startswith("No patient is named")


def test_headers_join_folders(tmp_path):
    for label, name in enumerate(("COVID", "Normal")):
        for i in range(10):  # each person has two scan folders
            for j in range(2):
                dicom(tmp_path / "set" / name / f"{name}{i}" / f"{j}.dcm", 100 * label + 2 * i + j, f"{name}-{i // 2}")
    assert load(tmp_path / "set").table.patient.nunique() == 10


def test_dicom_without_an_ending(tmp_path):
    dicom(tmp_path / "IM000001", 1, "x")
    (tmp_path / "README").write_text("nothing")
    assert is_slice(tmp_path / "IM000001") and not is_slice(tmp_path / "README")
    assert slices_below(tmp_path, tmp_path) == ([tmp_path / "IM000001"], {})


# ------------------------------------------------------------------------------------------------- the cache


def test_folders_that_look_alike_have_a_cache_of_their_own(tmp_path):
    for hospital, first in (("one", 0), ("two", 500)):
        classes(tmp_path / hospital / "ct", first=first)
    for path in (tmp_path / "one").rglob("*.png"):
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        size = max(path.stat().st_size, twin.stat().st_size)
        for file in (path, twin):
            file.write_bytes(file.read_bytes().ljust(size, b"\0"))
            os.utime(file, ns=(10**18, 10**18))
    one, two = (
        load_data(Settings(tmp_path / name / "ct", tmp_path / "data", split="random", image_size=32), progress=False)
        for name in ("one", "two")
    )
    assert not torch.equal(one.images, two.images)


def test_content_that_changes_under_the_same_size_and_time_is_seen(tmp_path):
    folder = classes(tmp_path / "set")
    before, path = load(folder, split="random"), folder / "COVID" / "0.png"
    stat, content = path.stat(), (folder / "COVID" / "1.png").read_bytes()
    size = max(stat.st_size, len(content))
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    load(folder, split="random")
    path.write_bytes(content.ljust(size, b"\0"))
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    row = before.table.index[before.table.path == "COVID/0.png"][0]
    assert not torch.equal(load(folder, split="random").images[row], before.images[row])
