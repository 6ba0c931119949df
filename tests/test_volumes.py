"""Series of DICOM files and NIfTI volumes: the slices of one patient, in order, the same by both ways."""

import gzip
import html
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import test_answers
import test_folders
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from scipy.special import expit
from test_folders import dicom

from covid_course import predict as prediction
from covid_course.commands import main
from covid_utils.io.images import read_slice, resized, window_to_uint8
from covid_utils.io.scans import Stack, find_scans, read_stack, usable_slices
from covid_utils.labs import predictor

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


def nifti(path, volume, axes="LPS", affine=None, **header):
    """Write (Z, Y, X), from the feet to the head, as a volume whose axes run as the letters say."""
    affine = np.diag([-0.7, -0.7, STEP, 1.0]) if affine is None else affine
    affine[:3, 3] = 30, 20, -100
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes))
    stored = apply_orientation(volume.transpose(2, 1, 0), turn)
    image = nibabel.Nifti1Image(stored, affine @ inv_ornt_aff(turn, volume.transpose(2, 1, 0).shape))
    for name, value in header.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def stack(path, size=32):
    scans, loose, _ = find_scans([path])
    assert len(scans) == 1 and not loose
    return read_stack(scans[0], size)


def wanted(volume, size=32):
    return np.stack([resized(window_to_uint8(each.astype(np.float32), -1350, 150), size) for each in volume])


# ---------------------------------------------------------------------------------------------- DICOM series


def test_slices_lie_in_the_order_of_their_positions(tmp_path):
    series(tmp_path / "p1", chest())
    found = stack(tmp_path)
    assert np.array_equal(found.images, wanted(chest())) and not found.note and not found.unread
    assert found.positions.tolist() == [-100 + STEP * i for i in range(6)] and found.numbers == [1, 2, 3, 4, 5, 6]
    assert [np.array_equal(read_slice(file, 32), image) for file, image in zip(found.files, found.images, strict=True)]


def test_each_slice_has_a_slope_of_its_own(tmp_path):
    even = chest() // 2 * 2
    series(tmp_path / "p1", even, slopes=(1, 2))
    assert np.array_equal(stack(tmp_path).images, wanted(even))


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
    found = stack(tmp_path / "numbers")
    assert np.array_equal(found.images, wanted(chest())[::-1]) and found.positions is None
    assert found.note == "no positions in the headers: in the order of InstanceNumber"
    series(tmp_path / "names", chest(12), ImagePositionPatient=None, InstanceNumber=None)
    found = stack(tmp_path / "names")
    assert [file.name for file in found.files] == [f"IM{i:04d}.dcm" for i in range(12)]
    assert "in the order of the file names" in found.note


def test_what_is_odd_is_said_and_answered_all_the_same(tmp_path):
    shared = series(tmp_path / "gap", chest()[:3])
    series(tmp_path / "gap" / "more", chest()[3:], first=-100 + 5 * STEP, **shared)
    found = stack(tmp_path / "gap")
    assert len(found.images) == 6 and found.note == "a gap: about 2 slices are missing between -95 and -87.5 mm"
    shared = series(tmp_path / "twice", chest(), AcquisitionNumber=1)
    series(tmp_path / "twice" / "again", chest(4, 1), **(shared | {"AcquisitionNumber": 2}))
    found = stack(tmp_path / "twice")
    assert np.array_equal(found.images, wanted(chest()))
    assert found.note == "4 slices lie where another one does: the first of each place is taken"
    series(tmp_path / "one", chest(1))
    assert stack(tmp_path / "one").note == "one slice only, no stack"
    series(tmp_path / "coronal", chest(), CORONAL)
    found = stack(tmp_path / "coronal")
    assert found.note == "scanned in coronal slices: the network has learned axial ones"
    series(tmp_path / "raw", chest(), RescaleSlope=None, WindowCenter=750, WindowWidth=1500)
    found = stack(tmp_path / "raw")
    assert found.note == "no Hounsfield units: each slice is shown in its own window"
    assert np.array_equal(found.images, wanted(chest()))


def test_values_without_an_offset_are_no_hounsfield_units(tmp_path):
    """Air stored as 0 and an intercept of 0: almost all of the slice would be white in the lung window."""
    series(tmp_path / "p1", chest(), RescaleIntercept=0)
    found = stack(tmp_path)
    assert found.note == "no Hounsfield units: each slice is shown in its own window" and found.images.mean() < 200


def test_training_leaves_out_what_predict_leaves_out(tmp_path):
    shared = series(tmp_path / "axial", chest())
    shared.pop("SeriesInstanceUID")
    series(tmp_path / "coronal", chest(9, 2), CORONAL, **shared)
    dicom(tmp_path / "scout.dcm", 0, "SECRET-ID", **shared, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    nifti(tmp_path / "v.nii", chest(3))
    paths, left_out = usable_slices(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    volume = [tmp_path / "v.nii" / f"{number:04d}" for number in (1, 2, 3)]
    assert paths == sorted((tmp_path / "axial").iterdir()) + volume
    assert left_out == {"slices of other series": 9, "scouts": 1}


def test_what_makes_no_stack_is_refused(tmp_path):
    shared = series(tmp_path / "sizes", chest())
    series(tmp_path / "sizes" / "b", chest()[:2, ::2], first=0, **shared)
    with pytest.raises(ValueError, match=r"Patient 'sizes' .* 2 sizes \(6 of 40 × 50, 2 of 20 × 50 pixels\): put each"):
        stack(tmp_path / "sizes")
    shared = series(tmp_path / "ways", chest())
    series(tmp_path / "ways" / "b", chest()[:2], CORONAL, **shared)
    with pytest.raises(ValueError, match="slices lie in several directions: put each"):
        stack(tmp_path / "ways")
    series(tmp_path / "inverted", chest(), PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(
        ValueError, match=r"Patient 'inverted': 6 of 6 slices cannot be read.*inverted greys, MONOCHROME1"
    ):
        stack(tmp_path / "inverted")


def test_objects_that_are_no_ct_slices_are_left_out_and_counted(tmp_path):
    shared = series(tmp_path / "p1", chest())
    shared.pop("SeriesInstanceUID")
    for kind in ("88.11", "88.59", "11.1"):  # a report, a key object selection, a presentation state
        dicom(tmp_path / "p1" / f"{kind}.dcm", 0, "SECRET-ID", **shared, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}")
        data = pydicom.dcmread(tmp_path / "p1" / f"{kind}.dcm")
        del data.PixelData, data.Rows, data.Columns
        data.save_as(tmp_path / "p1" / f"{kind}.dcm")
    dicom(tmp_path / "p1" / "dose", 0, "SECRET-ID", **shared, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    dicom(tmp_path / "p1" / "scout", 0, "SECRET-ID", **shared, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    dicom(tmp_path / "p1" / "pet", 0, "SECRET-ID", **shared, Modality="PT")
    found = stack(tmp_path)
    assert np.array_equal(found.images, wanted(chest()))
    assert (
        found.note
        == "left out: objects without a picture (3), pictures that are no CT (1), scouts (1), screenshots (1)"
    )


def test_of_several_series_the_largest_axial_one_is_taken(tmp_path):
    shared = series(tmp_path / "p1" / "lung", chest())
    shared.pop("SeriesInstanceUID")
    series(tmp_path / "p1" / "thick", chest(3, 1), **shared)
    series(tmp_path / "p1" / "coronal", chest(9, 2), CORONAL, **shared)
    found = stack(tmp_path)
    assert np.array_equal(found.images, wanted(chest()))
    assert found.note == "the largest axial one of 3 series (6 slices; the others: 9, 3)"


def test_who_is_a_patient(tmp_path):
    """Folders at any depth; the files of one examination are one scan, those of two in one folder are two."""
    shared = series(tmp_path / "a" / "CT" / "1", chest()[:3])
    series(tmp_path / "a" / "CT" / "2", chest()[3:], first=-100 + 3 * STEP, **shared)
    series(tmp_path / "b", chest(6, 1))
    series(tmp_path / "c", chest(6, 2))
    for i, file in enumerate(sorted((tmp_path / "c").iterdir())):
        file.rename(tmp_path / "b" / f"other{i}")  # no ending at all
    (tmp_path / "c").rmdir()
    nifti(tmp_path / "d" / "scan.nii.gz", chest(6, 3))
    nifti(tmp_path / "e" / "scan.nii", chest(6, 4))
    scans, loose, left_out = find_scans([tmp_path])
    assert [scan.name for scan in scans] == ["a/CT", "b", "b-2", "d/scan", "e/scan"] and not loose and not left_out
    assert np.array_equal(read_stack(scans[0], 32).images, wanted(chest()))
    scans, _, _ = find_scans([tmp_path / "a", tmp_path / "d"])  # as a shell writes out scans/*
    assert [scan.name for scan in scans] == ["a/CT", "d/scan"]
    scans, _, _ = find_scans([tmp_path / "d" / "scan.nii.gz", tmp_path / "e" / "scan.nii"])
    assert [scan.name for scan in scans] == [str(tmp_path / "d/scan.nii.gz"), str(tmp_path / "e/scan.nii")]


def test_files_given_one_by_one_are_a_patient_if_they_share_a_series(tmp_path):
    series(tmp_path / "p1", chest())
    series(tmp_path / "p2", chest(6, 1))
    files = sorted((tmp_path / "p1").iterdir())
    scans, loose, _ = find_scans([*files, next((tmp_path / "p2").iterdir())])
    assert [scan.name for scan in scans] == ["p1"] and len(scans[0].headers) == 6 and len(loose) == 1
    assert find_scans(files[:1])[1] == files[:1]


def test_names_that_end_in_digits(tmp_path):
    """As scanners name files by their UIDs."""
    series(tmp_path / "p1", chest())
    for i, file in enumerate(sorted((tmp_path / "p1").iterdir())):
        file.rename(file.with_name(f"CT.1.2.840.113619.{i}"))
    assert np.array_equal(stack(tmp_path).images, wanted(chest()))


def test_one_file_with_many_slices(tmp_path):
    """Enhanced CT: places, directions and the rescale stand in functional groups, here the last slice first."""

    def group(**tags):
        inner = pydicom.Dataset()
        for name, value in tags.items():
            setattr(inner, name, value)
        return Sequence([inner])

    frames = []
    for number in reversed(range(6)):
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[0, 0, -100 + STEP * number])
        frame.PixelValueTransformationSequence = group(RescaleSlope=1 + number % 2, RescaleIntercept=-1350)
        frames.append(frame)
    both = pydicom.Dataset()
    both.PlaneOrientationSequence = group(ImageOrientationPatient=list(AXIAL))
    even = chest() // 2 * 2
    pixels = [((each + 1350) // (1 + number % 2)).astype(np.uint16).tobytes() for number, each in enumerate(even)]
    tags = {"NumberOfFrames": 6, "PixelData": b"".join(reversed(pixels)), "SeriesInstanceUID": generate_uid()}
    tags |= {"SharedFunctionalGroupsSequence": Sequence([both]), "PerFrameFunctionalGroupsSequence": Sequence(frames)}
    dicom(tmp_path / "all.dcm", 0, "p", RescaleSlope=None, RescaleIntercept=None, **tags)
    found = stack(tmp_path / "all.dcm")
    assert np.array_equal(found.images, wanted(even)) and not found.note
    assert find_scans([tmp_path / "all.dcm"])[0][0].name == "all"
    dicom(tmp_path / "cine.dcm", 0, "p", **(tags | {"PerFrameFunctionalGroupsSequence": None}))
    assert find_scans([tmp_path / "cine.dcm"])[1] == [tmp_path / "cine.dcm"]  # and read_slice refuses it


def test_a_damaged_slice_among_many(tmp_path):
    series(tmp_path / "p1", chest())
    file = tmp_path / "p1" / "IM0003.dcm"
    file.write_bytes(file.read_bytes()[:-500])
    found = stack(tmp_path)
    assert len(found.images) == 5 and found.note == "1 of 6 slices cannot be read"
    missing = ({1, 2, 3, 4, 5, 6} - set(found.numbers)).pop()
    assert np.array_equal(found.images, np.delete(wanted(chest()), missing - 1, axis=0))
    assert "Patient 'p1': 1 of 6 slices cannot be read. Slice" in found.unread and "\n" not in found.unread


def test_without_pydicom(tmp_path, monkeypatch):
    series(tmp_path / "p1", chest())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match="DICOM files need .*run 'python -m pip install pydicom'"):
        stack(tmp_path)


def test_pydicoms_own_ct_slice(tmp_path):
    path = Path(get_testdata_file("CT_small.dcm", download=False))
    shutil.copy(path, tmp_path)
    found, data = stack(tmp_path), pydicom.dcmread(path)
    hounsfield = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    assert np.array_equal(found.images, wanted([hounsfield])) and found.positions == pytest.approx(-75.70)
    assert found.note == "one slice only, no stack" and find_scans([path])[1] == [path]


def test_pydicoms_own_cd():
    """Real headers: an index, scouts, other modalities, and two CT series that lack most of their slices."""
    folder = Path(get_testdata_file("DICOMDIR", download=False)).parent
    scans, loose, left_out = find_scans([folder])
    assert not loose and left_out["objects without a picture"] > 50
    found = {scan.name: scan for scan in scans}
    assert read_stack(found["98892001/CT5N"], 32).positions == pytest.approx([-1.24, 1.26, 3.76, 6.26, 8.76])
    assert read_stack(found["98892001/CT5N"], 32).note == "left out: scouts (2)"
    assert read_stack(found["77654033/CT2"], 32).note.startswith("a gap: about 161 slices are missing between -99.48")
    with pytest.raises(ValueError, match=r"'77654033' .*no CT slices; left out: pictures that are no CT \(3\)\)"):
        read_stack(found["77654033"], 32)


# ------------------------------------------------------------------------------------------------------ NIfTI


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAI", "SPL", "ASR", "PIR"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_volume_and_a_series_give_the_same_pixels(tmp_path, axes, name):
    series(tmp_path / "dicom", chest())
    found, same = stack(nifti(tmp_path / name, chest(), axes)), stack(tmp_path / "dicom")
    assert np.array_equal(found.images, wanted(chest())) and np.array_equal(found.images, same.images)
    assert np.allclose(found.positions, same.positions) and not found.note


def test_slope_and_intercept_of_a_volume(tmp_path):
    even = chest() // 2 * 2
    path = nifti(tmp_path / "v.nii", (even + 1350) // 2)
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<2f", 2, -1350)  # scl_slope, scl_inter
    path.write_bytes(content)
    assert np.array_equal(stack(path).images, wanted(even))


@pytest.mark.parametrize(
    ("top", "kind", "said"),
    [
        (
            255,
            np.uint8,
            "its values run from 0 to 255, which are no Hounsfield units: taken as greys from 0, black, to 255",
        ),
        (
            1,
            np.float32,
            "its values run from 0 to 1, which are no Hounsfield units: taken as greys from 0, black, to 1",
        ),
        (4000, np.int16, "its values run from 0 to 4000, which are no Hounsfield units"),
    ],
)
def test_values_that_are_no_hounsfield_units_are_greys(tmp_path, top, kind, said):
    greys = np.random.default_rng(0).uniform(0, top, (6, 40, 50)).astype(kind)
    greys[0, 0, :2] = 0, top
    found = stack(nifti(tmp_path / "v.nii.gz", greys))
    assert found.note.startswith(said)
    assert np.abs(found.images.astype(int) - [resized(window_to_uint8(each, 0, top), 32) for each in greys]).max() <= 1


def test_what_else_is_said_of_a_volume(tmp_path):
    assert stack(nifti(tmp_path / "one.nii", chest(1))).note == "one slice only, no stack"
    path = nifti(tmp_path / "lost.nii", chest(), qform_code=0, sform_code=0)
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code, which nibabel sets when it saves
    path.write_bytes(content)
    assert stack(path).note == "no orientation in its header: it may be mirrored or upside down"
    thick = nifti(tmp_path / "coronal.nii", chest(), affine=np.diag([-0.7, -5, 0.7, 1.0]))
    assert stack(thick).note == "scanned in coronal slices: the network has learned axial ones"


def test_volumes_that_are_refused(tmp_path, monkeypatch):
    volume = chest().transpose(2, 1, 0)
    for name, stored, message in (
        ("4d", np.stack([volume, volume], -1), "it has 4 dimensions and 2 volumes, save one with three"),
        ("mask", (volume > 0).astype(np.uint8), "no more than 2 different whole numbers, as a mask does"),
        ("lobes", (volume // 50).astype(np.float32), "no more than 30 different whole numbers, as a mask does"),
        ("colours", np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours"),
        ("nothing", np.full((4, 4, 4), np.nan, np.float32), "it holds no numbers"),
    ):
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / f"{name}.nii.gz")
        with pytest.raises(ValueError, match=rf"Volume .*{name}\.nii\.gz cannot be read \(.*{message}.*\): replace"):
            stack(tmp_path / f"{name}.nii.gz")
    (tmp_path / "empty.nii").write_bytes(b"")
    (tmp_path / "broken.nii.gz").write_bytes(nifti(tmp_path / "v.nii.gz", chest()).read_bytes()[:5000])
    (tmp_path / "text.nii").write_text("no volume")
    for name, message in (("empty.nii", "empty, 0 bytes"), ("broken.nii.gz", ""), ("text.nii", "")):
        with pytest.raises(ValueError, match=rf"Volume .*{name} cannot be read \(.*{message}.*\): replace") as told:
            stack(tmp_path / name)
        assert "\n" not in str(told.value)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"v\.nii\.gz is NIfTI.*: run 'python -m pip install nibabel'"):
        stack(tmp_path / "v.nii.gz")


def test_files_that_say_that_they_are_huge(tmp_path):
    """Refused by their headers, before anything is unpacked: 50,000 × 50,000 pixels would be 5 GB."""
    for name, shape in (("flat.nii", (50_000, 50_000, 1)), ("deep.nii", (12_000, 12_000, 12_000))):
        header = nibabel.Nifti2Header()
        header.set_data_dtype(np.int16)
        header.set_data_shape(shape)
        header["vox_offset"] = 544
        (tmp_path / name).write_bytes(header.binaryblock + bytes(1000))
    (tmp_path / "deep.nii.gz").write_bytes(gzip.compress((tmp_path / "deep.nii").read_bytes()))
    series(tmp_path / "p1", chest(2), Rows=50_000, Columns=50_000)
    dicom(tmp_path / "rle.dcm", 0, "p")
    data = pydicom.dcmread(tmp_path / "rle.dcm")
    data.compress(pydicom.uid.RLELossless)
    data.Rows = data.Columns = 50_000
    data.save_as(tmp_path / "rle.dcm")
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((15_000, 15_000, 3), np.uint16))
    code = f"""
import resource
from pathlib import Path
from covid_utils.io.images import read_slice
from covid_utils.io.scans import find_scans, read_stack
import cv2, nibabel, pydicom
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
home = Path({str(tmp_path)!r})
for path in (home / "flat.nii", home / "p1", home / "deep.nii.gz", home / "rle.dcm", home / "deep.png"):
    try:
        scans, loose, _ = find_scans([path])
        read_stack(scans[0], 32) if scans else read_slice(loose[0], 32)
    except ValueError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    volume, scan, deep, rle, picture, megabytes = said.stdout.splitlines()
    assert "it says that a slice has 50000 × 50000 pixels, more than 178 million" in volume
    assert "Patient 'p1': 2 of 2 slices cannot be read" in scan and "it says that a slice has 50000 × 50000" in scan
    assert (
        "it says that it has 12000 × 12000 × 12000 values, too many for this memory" in deep
        and "rle.dcm cannot be read (it says that a slice has" in rle
    )
    assert "deep.png cannot be read" in picture and "pixels" in picture
    assert int(megabytes) < 200, said.stdout


# ------------------------------------------------------------------------------ answers, by command and by widget

run, reader = test_answers.run, test_answers.reader  # a trained network


@pytest.fixture
def people(run, tmp_path):
    """Two series, a volume, two pictures and what cannot be read; slices of the phantom in Hounsfield units."""
    _, data, _ = run
    rows = data.images[(data.table.split == "test").to_numpy().nonzero()[0]].numpy()
    volumes = [rows[i : i + 6] / 255 * 1500 - 1350 for i in range(0, 18, 6)]
    home = tmp_path / "people"
    series(home / "anna", volumes[0])
    series(home / "bert" / "CT", volumes[1])
    nifti(home / "<b>carl.nii.gz", volumes[2].astype(np.float32))
    nifti(home / "dora.nii.gz", (volumes[2] > 0).astype(np.uint8))
    shared = series(home / "emil", chest())
    series(home / "emil" / "b", chest()[:, ::2], **shared)
    Image.fromarray(rows[0]).save(home / "loose.png")
    (home / "broken.png").write_bytes(b"no picture")
    return home


def test_from_a_folder_to_a_table_of_patients(run, reader, people, tmp_path, capsys):
    _, data, _ = run
    out = tmp_path / "out"
    code = main(["predict", str(run[0]), str(people), "--out", str(out)])
    said = capsys.readouterr()
    assert code == 1 and len(said.err.strip().splitlines()) == 3
    for words in ("broken.png cannot be read", "dora.nii.gz cannot be read", "Patient 'emil' in", "2 sizes"):
        assert words in said.err
    patients, slices = (pd.read_csv(out / f"{name}.csv") for name in ("patients", "answers"))
    assert patients.patient.tolist() == ["<b>carl", "anna", "bert/CT"] and (patients.slices == 6).all()
    assert (
        slices[slices.patient.notna()].groupby("patient").slice.apply(list).map(lambda n: n == [1, 2, 3, 4, 5, 6]).all()
    )
    assert slices[slices.patient == "anna"].position.tolist() == [-100 + STEP * i for i in range(6)]
    assert slices[slices.patient.isna()].file.tolist() == [str(people / "loose.png")] and len(slices) == 19
    rows = torch.from_numpy(data.images[(data.table.split == "test").to_numpy().nonzero()[0]].numpy()[:6])
    logits = predictor.slice_logits(reader, rows)
    mine = slices[slices.patient == "anna"]
    assert np.allclose(mine.probability, expit(logits / reader.temperature), atol=1e-2)  # greys are rounded twice
    anna = patients[patients.patient == "anna"].iloc[0]
    assert anna.probability == pytest.approx(predictor.predict_patient(reader, logits)["probability"], abs=1e-2)
    assert anna.out_of_distribution == (mine.ood_score > 1).sum() and anna.decision in said.out
    assert sorted(path.name for path in out.glob("*.png")) == sorted([*patients.picture, "loose.png"])
    for picture in patients.picture:
        with Image.open(out / picture) as shown:
            assert shown.width > 700 and shown.height > 500
    everything = said.out + said.err + "".join(path.read_text() for path in out.glob("*.[cj]s*"))
    everything += "".join(path.read_bytes().decode("latin-1") for path in out.glob("*.png"))
    assert "SECRET" not in everything.upper() and "anna" in everything


def test_the_picture_of_a_patient_shows_the_slices_with_the_highest_logits(reader, people):
    found = prediction.predict_scan(reader, stack(people / "anna", reader.settings.image_size))
    highest = sorted(sorted(range(6), key=lambda i: -found.slices[i]["probability"])[:3])
    assert found.telling == highest and found.heats.shape == found.images.shape
    figure = prediction.draw_patient(found, reader.map)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert [int(title.split()[1].strip(",")) - 1 for title in titles] == highest
    assert "3 of 6 slices" in figure._suptitle.get_text()


def test_most_slices_strangers(reader):
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
    told = Stack(noise, [Path("x")] * 4, [1, 2, 3, 4], None, "a gap", "")
    found = prediction.predict_scan(reader, told)
    assert found.answer["out_of_distribution"] == 4
    assert found.answer["note"] == f"{predictor.OUT_OF_DISTRIBUTION}; a gap"
    assert "OUT OF DISTRIBUTION" in prediction.draw_patient(found, "m")._suptitle.get_text()


def test_the_widget_gives_patients_the_same_answers(run, reader, people, tmp_path, capsys):
    controls = prediction.upload(reader)
    files = [
        *sorted((people / "anna").iterdir()),
        people / "<b>carl.nii.gz",
        people / "dora.nii.gz",
        people / "loose.png",
    ]
    facts = {"type": "", "size": 1, "last_modified": pd.Timestamp(0, tz="UTC")}
    controls["files"].value = [facts | {"name": file.name, "content": file.read_bytes()} for file in files]
    main(["predict", str(run[0]), str(people), "--out", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "patients.csv").set_index("patient")
    text = controls["answers"].value
    cells = np.reshape(re.findall(r"<td>(.*?)</td>", text.split("<table")[2]), (2, -1))
    shown = pd.DataFrame(cells, columns=re.findall("<th>(.*?)</th>", text.split("<table")[2])).map(html.unescape)
    shown = shown.set_index("patient").astype({"probability": float, "slices": int, "out_of_distribution": int})
    assert shown.index.tolist() == ["IM0000.dcm and 5 more", "<b>carl.nii.gz"]
    same = table.loc[["anna", "<b>carl"]]
    assert np.allclose(shown.probability, same.probability, atol=1e-3) and (shown.slices == 6).all()
    assert (
        shown.decision.tolist() == same.decision.tolist()
        and shown.out_of_distribution.tolist() == same.out_of_distribution.tolist()
    )
    assert "<b>" not in text and "&lt;b&gt;carl" in text and "SECRET" not in text.upper()
    assert "Volume dora.nii.gz cannot be read" in text and "/tmp" not in text
    assert list(controls["number"].options) == ["loose.png", *shown.index]
    first = controls["picture"].value
    controls["number"].value = "IM0000.dcm and 5 more"
    assert controls["picture"].value != first and len(first) > 1000


def test_no_patient_of_an_earlier_call_is_left(run, reader, people, tmp_path, capsys):
    out = tmp_path / "out"
    main(["predict", str(run[0]), str(people), "--out", str(out)])
    before = (out / "patients.csv").read_bytes()
    (tmp_path / "none.png").write_bytes(b"")
    assert main(["predict", str(run[0]), str(tmp_path / "none.png"), "--out", str(out)]) == 1
    assert (out / "patients.csv").read_bytes() == before  # where nothing is answered nothing is lost
    main(["predict", str(run[0]), str(people / "loose.png"), "--out", str(out)])
    assert len(pd.read_csv(out / "answers.csv")) == 1
    assert not (out / "patients.csv").exists() and not (out / "patients.json").exists()


def test_a_folder_without_an_answer(run, reader, tmp_path, capsys):
    series(tmp_path / "reports", chest(1))
    file = next((tmp_path / "reports").iterdir())
    data = pydicom.dcmread(file)
    del data.PixelData, data.Rows, data.Columns
    data.save_as(file)
    assert main(["predict", str(run[0]), str(tmp_path / "reports")]) == 1
    said = capsys.readouterr().err.strip()
    assert said.endswith("reports hold no slices. Left out: objects without a picture (1).") and "\n" not in said


# --------------------------------------------------------------------------------------------- a data set's folder


def test_volumes_in_class_folders(tmp_path, capsys):
    for label, name in enumerate(("COVID", "normal")):
        for number in range(4):
            nifti(tmp_path / "set" / name / f"{name[0]}{number}.nii.gz", chest(5, 10 * label + number))
        nifti(tmp_path / "set" / name / f"{name[0]}0_mask.nii.gz", (chest(5) > 0).astype(np.uint8))
    greys = (chest(5, 1) + 1350) / 1500
    nifti(tmp_path / "set" / "COVID" / "C1.nii.gz", greys.astype(np.float32))
    data = test_folders.load(tmp_path / "set", split="patient")
    assert len(data.table) == 40 and data.table.patient.nunique() == 8
    assert (data.table.groupby("patient").split.nunique() == 1).all() and "Left out: masks (2)" in data.groups
    row = data.table.index[data.table.path == "COVID/C2.nii.gz/0003"][0]
    assert np.array_equal(data.images[row].numpy(), wanted(chest(5, 2))[2]) and data.table.patient[row] == "C2"
    assert "Scan 'C1.nii.gz': its values run from 0.0" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"C2\.nii\.gz is a volume of many slices: put it into a class folder"):
        read_slice(tmp_path / "set" / "COVID" / "C2.nii.gz", 32)
    before = data.fingerprint
    nifti(tmp_path / "set" / "COVID" / "C2.nii.gz", chest(5, 77))
    assert test_folders.load(tmp_path / "set").fingerprint != before
