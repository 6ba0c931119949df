"""Series of DICOM files and NIfTI volumes: the slices of one patient, in order, the same by both ways."""

import struct
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import test_folders
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from test_folders import dicom

from covid_utils.io.images import read_slice
from covid_utils.io.scans import find_scans, read_stack, usable_slices
from covid_utils.io.slices import windowed

AXIAL, CORONAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1)
STEP = 2.5  # mm from slice to slice


def chest(slices=6, seed=0):
    """Hounsfield units of a patient from the feet to the head, int16 (slices, 40, 50): no two places are alike."""
    return np.random.default_rng(seed).integers(-1340, 140, (slices, 40, 50)).astype(np.int16)


def series(folder, volume, axes=AXIAL, step=STEP, first=-100.0, slopes=(1,), **tags):
    """Write a series in which neither names nor InstanceNumber tell the order; returns the uids it shares."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(), "PatientName": "Doe^Secret"}
    shared |= tags
    names = np.random.default_rng(1).permutation(len(volume))
    normal = np.cross(axes[:3], axes[3:])
    for number, (name, values) in enumerate(zip(names, volume, strict=True)):
        slope = slopes[number % len(slopes)]
        stored = np.rint((values + 1350.0) / slope).astype(np.uint16)
        own = {"InstanceNumber": len(volume) - number, "ImageOrientationPatient": list(axes)}
        own |= {"ImagePositionPatient": (normal * (first + step * number) + [-30, -20, 0] * (normal == 0)).tolist()}
        own |= {"Rows": values.shape[0], "Columns": values.shape[1], "PixelData": stored.tobytes()}
        own |= {"RescaleSlope": slope}
        dicom(folder / f"IM{name:04d}.dcm", 0, "SECRET-ID", **(own | shared))
    return shared


def nifti(path, volume, axes="LPS", affine=None):
    """Write (Z, Y, X), from the feet to the head, as a volume whose axes run as the letters say."""
    affine = np.diag([-0.7, -0.7, STEP, 1.0]) if affine is None else affine
    affine[:3, 3] = 30, 20, -100
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes))
    stored = apply_orientation(volume.transpose(2, 1, 0), turn)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(stored, affine @ inv_ornt_aff(turn, volume.transpose(2, 1, 0).shape)), path)
    return path


def stack(path, size=32):
    (scan,), loose, _ = find_scans([path])
    assert not loose
    return read_stack(scan, size)


def wanted(volume, size=32):
    shown = [Image.fromarray(windowed(np.asarray(each, np.float32), (-1350, 150)).image) for each in volume]
    return np.stack([np.array(each.resize((size, size), Image.Resampling.LANCZOS)) for each in shown])


# ---------------------------------------------------------------------------------------------- DICOM series


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, -1, 0, 0)])
def test_axial_slices_are_turned_as_they_are_usually_shown(tmp_path, axes):
    """The patient's right at the left, the front at the top, from the feet to the head, however they are stored."""
    volume, across, down = chest(), np.array(axes[:3]), np.array(axes[3:])
    stored = volume[:: 1 if np.cross(across, down)[2] > 0 else -1]
    if across[0] == 0:
        stored, across, down = stored.transpose(0, 2, 1), down, across
        stored = stored[:, :: 1 if across[0] > 0 else -1, :: 1 if down[1] > 0 else -1]
    else:
        stored = stored[:, :: 1 if down[1] > 0 else -1, :: 1 if across[0] > 0 else -1]
    series(tmp_path / "p1", stored, axes)
    assert np.array_equal(stack(tmp_path).images, wanted(volume))


def test_where_positions_are_missing_the_numbers_tell_and_else_the_names(tmp_path):
    series(tmp_path / "numbers", chest(), ImagePositionPatient=None)
    series(tmp_path / "zeros", chest(), ImageOrientationPatient=[0] * 6)
    assert np.array_equal(stack(tmp_path / "zeros").images, wanted(chest())[::-1])
    series(tmp_path / "names", chest(12), ImagePositionPatient=None, InstanceNumber=None)
    numbers, names = stack(tmp_path / "numbers"), stack(tmp_path / "names")
    assert np.array_equal(numbers.images, wanted(chest())[::-1]) and numbers.slices[0]["position"] is None
    assert [Path(row["file"]).name for row in names.slices] == [f"IM{i:04d}.dcm" for i in range(12)]
    assert "no positions" in numbers.note and "no positions" in names.note


def test_what_is_odd_is_said_and_predicted_all_the_same(tmp_path):
    shared = series(tmp_path / "gap", chest()[:3])
    series(tmp_path / "gap" / "more", chest()[3:], first=-100 + 5 * STEP, **shared)
    shared = series(tmp_path / "twice", chest(), AcquisitionNumber=1)
    series(tmp_path / "twice" / "again", chest(4, 1), **(shared | {"AcquisitionNumber": 2}))
    series(tmp_path / "coronal", chest(), CORONAL)
    series(tmp_path / "no offset", chest(), RescaleIntercept=0)  # almost all would be white in the lung window
    said = {
        "gap": "gaps: about 2 slices are missing",
        "twice": "4 slices lie where another one does",
        "coronal": "scanned in coronal slices",
        "no offset": "no Hounsfield units",
    }
    found = {name: stack(tmp_path / name) for name in said}
    assert all(found[name].note.startswith(words) and len(found[name].images) == 6 for name, words in said.items())
    assert np.array_equal(found["twice"].images, wanted(chest()))
    assert found["no offset"].images.mean() < 200


def test_what_makes_no_stack_is_refused_and_a_damaged_slice_is_left_out(tmp_path):
    shared = series(tmp_path / "sizes", chest())
    series(tmp_path / "sizes" / "b", chest()[:2, ::2], first=0, **shared)
    with pytest.raises(ValueError, match="Patient 'sizes' in .* several sizes or directions: put"):
        stack(tmp_path / "sizes")
    series(tmp_path / "damaged", chest())
    file = tmp_path / "damaged" / "IM0003.dcm"
    file.write_bytes(file.read_bytes()[:-500])
    found = stack(tmp_path / "damaged")
    assert len(found.images) == 5 and found.note == "1 of 6 slices cannot be read"
    assert "Patient 'damaged': 1 of 6 slices cannot be read. Slice" in found.unread and "\n" not in found.unread
    series(tmp_path / "inverted", chest(), PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(ValueError, match=r"Patient 'inverted': 6 of 6 slices cannot be read.*MONOCHROME1"):
        stack(tmp_path / "inverted")


def test_what_is_no_slice_is_left_out_and_counted_by_prediction_and_training(tmp_path):
    """Also all but the largest axial series."""
    home = tmp_path / "p1"
    shared = series(home / "lung", chest())
    shared.pop("SeriesInstanceUID")
    series(home / "thick", chest(3, 1), **shared)
    series(home / "coronal", chest(9, 2), CORONAL, **shared)
    for kind in ("88.11", "88.59", "11.1"):  # a report, a key object selection, a presentation state
        dicom(home / f"{kind}.dcm", 0, "SECRET-ID", **shared, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}")
        without_pixels(home / f"{kind}.dcm")
    dicom(home / "dose", 0, "SECRET-ID", **shared, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    dicom(home / "scout", 0, "SECRET-ID", **shared, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    dicom(home / "pet", 0, "SECRET-ID", **shared, Modality="PT")
    found = stack(tmp_path)
    assert np.array_equal(found.images, wanted(chest()))
    kinds = "objects without a picture (3), pictures that are no CT (1), scouts (1), screenshots (1)"
    assert found.note == f"one of 3 series (6 slices; the others: 3, 9); left out: {kinds}"
    volume = nifti(tmp_path / "v.nii", chest(3))
    paths, left_out = usable_slices(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    assert paths == [*sorted((home / "lung").iterdir()), *(volume / f"000{n}" for n in (1, 2, 3))]
    assert left_out["slices of other series"] == 12 and left_out["scouts"] == 1 and left_out.total() == 18


def without_pixels(file):
    data = pydicom.dcmread(file)
    del data.PixelData, data.Rows, data.Columns
    data.save_as(file)


def test_who_is_a_patient(tmp_path):
    """Folders at any depth; the files of one examination are one scan, those of two in one folder are two."""
    shared = series(tmp_path / "a" / "CT" / "1", chest()[:3])
    series(tmp_path / "a" / "CT" / "2", chest()[3:], first=-100 + 3 * STEP, **shared)
    series(tmp_path / "b", chest(6, 1))
    series(tmp_path / "c", chest(6, 2))
    for i, file in enumerate(sorted((tmp_path / "c").iterdir())):
        file.rename(tmp_path / "b" / f"CT.1.2.840.113619.{i}")  # no ending at all, as scanners name files
    (tmp_path / "c").rmdir()
    (tmp_path / "b" / "README").write_text("no slice")
    volumes = [nifti(tmp_path / "d" / "scan.nii.gz", chest(6, 3)), nifti(tmp_path / "e" / "scan.nii", chest(6, 4))]
    files, other = sorted((tmp_path / "a").rglob("*.dcm")), tmp_path / "b" / "IM0000.dcm"
    for given, names, left in (
        ([tmp_path], ["a/CT", "b", "b-2", "d/scan", "e/scan"], []),
        ([tmp_path / "a", tmp_path / "d"], ["a/CT", "d/scan"], []),  # as a shell writes out scans/*
        (volumes, ["d/scan", "e/scan"], []),
        ([*files, other], ["a/CT"], [other]),  # one by one they are a patient if they share a series
        ([other], [], [other]),
    ):
        scans, loose, left_out = find_scans(given)
        assert [scan.name for scan in scans] == names and loose == left and not left_out
    assert np.array_equal(stack(tmp_path / "a").images, wanted(chest()))


def test_pydicoms_own_cd():
    """Real headers: an index, scouts, other modalities, and two CT series that lack most of their slices."""
    folder = Path(get_testdata_file("DICOMDIR", download=False)).parent
    scans, loose, left_out = find_scans([folder])
    assert not loose and left_out["objects without a picture"] > 50
    found = {scan.name: scan for scan in scans}
    whole = read_stack(found["98892001/CT5N"], 32)
    assert [row["position"] for row in whole.slices] == pytest.approx([-1.24, 1.26, 3.76, 6.26, 8.76])
    assert whole.note == "left out: scouts (2)"
    assert read_stack(found["77654033/CT2"], 32).note.startswith("gaps: about 161 slices are missing")
    with pytest.raises(ValueError, match=r"'77654033' .*no CT slices; left out: pictures that are no CT \(3\)\)"):
        read_stack(found["77654033"], 32)


# ------------------------------------------------------------------------------------------------------ NIfTI


@pytest.mark.parametrize(("axes", "name"), [("LPS", "v.nii"), ("RAS", "v.nii.gz"), ("LAI", "v.nii"), ("ASR", "v.nii")])
def test_a_volume_and_a_series_give_the_same_pixels(tmp_path, axes, name):
    """In the order of their positions, each slice with its own slope, together and alone."""
    even = chest() // 2 * 2
    series(tmp_path / "dicom", even, slopes=(1, 2))
    for found in (stack(nifti(tmp_path / name, even, axes)), stack(tmp_path / "dicom")):
        assert np.array_equal(found.images, wanted(even)) and not found.note and not found.unread
        assert [row["position"] for row in found.slices] == pytest.approx([-100 + STEP * i for i in range(6)])
    for number, (row, image) in enumerate(zip(found.slices, found.images, strict=True), start=1):
        assert row["slice"] == number and np.array_equal(read_slice(Path(row["file"]), 32), image)


def changed(path, place, content):
    """A volume with some bytes of its header replaced, which nibabel sets when it saves."""
    old = path.read_bytes()
    path.write_bytes(old[:place] + content + old[place + len(content) :])
    return path


def test_what_headers_of_volumes_say(tmp_path):
    even = chest() // 2 * 2
    scaled = changed(nifti(tmp_path / "v.nii", (even + 1350) // 2), 112, struct.pack("<2f", 2, -1350))
    assert np.array_equal(stack(scaled).images, wanted(even))  # slope and intercept
    lost = changed(nifti(tmp_path / "lost.nii", chest()), 252, bytes(4))  # qform_code and sform_code
    assert stack(lost).note == "no orientation in its header: it may be mirrored or upside down"
    thick = nifti(tmp_path / "coronal.nii", chest(), affine=np.diag([-0.7, -5, 0.7, 1.0]))
    assert stack(thick).note.startswith("scanned in coronal slices")


def test_volumes_that_are_refused(tmp_path):
    volume = chest().transpose(2, 1, 0)
    for name, stored in {
        "4d": np.stack([volume, volume], -1),
        "mask": (volume > 0).astype(np.uint8),
        "nothing": np.full((4, 4, 4), np.nan, np.float32),
    }.items():
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / f"{name}.nii.gz")
    packed = nifti(tmp_path / "broken.nii.gz", chest())
    packed.write_bytes(packed.read_bytes()[:5000])
    changed(nifti(tmp_path / "flat.nii", chest()), 280, bytes(48))  # srow_x, srow_y, srow_z
    header = nibabel.Nifti2Header()  # refused before anything is unpacked
    header.set_data_dtype(np.int16)
    header.set_data_shape((12_000, 12_000, 12_000))
    header["vox_offset"] = 544
    (tmp_path / "deep.nii").write_bytes(header.binaryblock + bytes(1000))
    (tmp_path / "empty.nii").write_bytes(b"")
    said = {"4d": "three dimensions", "mask": "mask", "nothing": "no numbers"}
    said |= {"flat": "which way is up", "deep": "too many values for this memory"}
    for path in tmp_path.iterdir():
        words = said.get(path.name.split(".")[0], "")
        scans, loose, _ = find_scans([path])
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read \(.*{words}.*\): replace") as told:
            read_stack(scans[0], 32) if scans else read_slice(loose[0], 32)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(("package", "name"), [("pydicom", "p1"), ("nibabel", "v.nii")])
def test_without_the_package_that_reads_it(tmp_path, monkeypatch, package, name):
    series(tmp_path / "p1", chest(1))
    nifti(tmp_path / "v.nii", chest())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"run 'python -m pip install {package}"):
        stack(tmp_path / name)


# --------------------------------------------------------------------------------------------- a data set's folder


def test_volumes_in_class_folders(tmp_path, capsys):
    for label, name in enumerate(("COVID", "normal")):
        for number in range(4):
            nifti(tmp_path / "set" / name / f"{name[0]}{number}.nii.gz", chest(5, 10 * label + number))
        nifti(tmp_path / "set" / name / f"{name[0]}0_mask.nii.gz", (chest(5) > 0).astype(np.uint8))
    greys = (chest(5, 1) + 1350) / 1500
    nifti(tmp_path / "set" / "COVID" / "C1.nii.gz", greys.astype(np.float32))
    data = test_folders.load(tmp_path / "set", split="patient")
    assert data.table.patient.nunique() == 8 and "Left out: masks (2)" in data.patient_source
    assert "5 of 40 slices, the first of them 'COVID/C1.nii.gz/0001': no Hounsfield" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"C2\.nii\.gz is a volume of many slices: put it into a class folder"):
        read_slice(tmp_path / "set" / "COVID" / "C2.nii.gz", 32)
    before = data.fingerprint
    nifti(tmp_path / "set" / "COVID" / "C2.nii.gz", chest(5, 77))
    assert test_folders.load(tmp_path / "set").fingerprint != before
