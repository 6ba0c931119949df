"""One reader: what a network is trained on is, to the bit, what it is asked with, for every format and by every way."""

import os
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
import test_volumes as volumes
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from test_data import classes, load
from test_folders import dicom
from test_pictures import NO_RESCALE, saved, scan, turned, white_is_zero
from toy import TOY, fitted, tiny_data

from covid_course import demo, export
from covid_course import predict as prediction
from covid_course.commands import main
from covid_course.model_card import model_card
from covid_utils.core import backbones
from covid_utils.core.files import write_json
from covid_utils.io.images import read_file, read_slice
from covid_utils.labs import predictor

FACTS = {"type": "", "size": 1, "last_modified": pd.Timestamp(0, tz="UTC")}


def stored(values, signed=False):
    """Pixels of a DICOM slice, and how they are to be read."""
    return {"PixelData": values.astype(np.int16).tobytes(), "PixelRepresentation": int(signed)}


BIG_ENDIAN = pydicom.dataset.FileMetaDataset()
BIG_ENDIAN.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
RNG = np.random.default_rng(0)
GREY, COLOUR = RNG.integers(0, 256, (40, 50), np.uint8), RNG.integers(0, 256, (40, 50, 4), np.uint8)
TWELVE = RNG.integers(0, 4096, (40, 50)).astype(np.uint16)
UNITS = RNG.integers(-1340, 140, (40, 50))  # Hounsfield
FLOAT = TWELVE.astype(np.float32)
FLOAT[:2, :2], FLOAT[2:4] = [[np.nan, np.inf], [-np.inf, 5000.5]], -0.25
PADDED = np.where(np.arange(50) < 5, -2000, UNITS)
SIMPLE = {  # what the lines in the model card read
    "grey.png": saved(GREY),
    "grey.jpg": saved(GREY, quality=90),
    "grey.bmp": saved(GREY),
    "colour.png": saved(COLOUR[..., :3]),
    "colour.webp": saved(COLOUR[..., :3]),
    "alpha.png": saved(COLOUR),
    "grey_alpha.png": saved(COLOUR, "LA"),
    "palette.png": saved(COLOUR[..., :3], "P"),
    "clear.png": saved(GREY, transparency=7),
    "cmyk.jpg": saved(COLOUR[..., :3], "CMYK"),
    "turned.jpg": saved(COLOUR[..., :3], **turned(6)),
    "twelve.png": saved(TWELVE),
    "twelve.tif": saved(TWELVE),
    "turned.tif": saved(TWELVE, **turned(8)),
    "packed.tif": saved(TWELVE.astype(np.int32), compression="tiff_lzw"),
    "float.tif": saved(FLOAT),
    "units.tif": saved(UNITS.astype(np.int32)),
    "big_endian.tif": lambda path: Image.frombytes("I;16B", (50, 40), TWELVE.astype(">u2").tobytes()).save(path),
}
OTHERS = {
    "colour16.png": lambda path: cv2.imwrite(str(path), COLOUR[..., :3].astype(np.uint16) * 16),
    "alpha16.png": lambda path: cv2.imwrite(str(path), COLOUR.astype(np.uint16) * 257),
    "white_is_zero.tif": lambda path: white_is_zero(path, TWELVE),
    "ct.dcm": scan(),
    "CT.1.2.840.113619": scan(),
    "no_offset.ima": scan(RescaleIntercept=0),
    "no_slope.dcm": scan(RescaleSlope=None),
    "unscaled.dcm": scan(**NO_RESCALE, **stored(UNITS, signed=True)),
    "padded.dcm": scan(RescaleIntercept=0, PixelPaddingValue=-2000, **stored(PADDED, signed=True)),
    "prone.dcm": scan(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]),
    "inverted.dcm": scan(Modality="DX", PhotometricInterpretation="MONOCHROME1", **NO_RESCALE),
    "own_window.dcm": scan(Modality="DX", WindowCenter=700, WindowWidth=900, **NO_RESCALE),
    "rle.dcm": scan(lambda data: data.compress(pydicom.uid.RLELossless)),
    "big_endian.dcm": scan(file_meta=BIG_ENDIAN, PixelData=TWELVE.astype(">u2").tobytes()),
}
FORMATS = SIMPLE | OTHERS


@pytest.fixture
def asked(toy_run, monkeypatch):
    """A predictor, and the slices that its network gets, in order; their number is the `logit` of each."""
    seen = []

    def note(_, images):
        rows = [{"probability": 0.5, "threshold": 0.5, "decision": "non-COVID", "ood_score": 0.0, "note": ""}] * len(
            images
        )
        rows = [row | {"logit": float(len(seen) + i)} for i, row in enumerate(rows)]
        seen.extend(images.numpy())
        return rows

    reader = predictor.read_run(toy_run[0])
    monkeypatch.setattr(prediction, "predict_slices", note)
    monkeypatch.setattr(prediction, "heat_maps", lambda _, images, __: np.zeros(images.shape, np.float32))
    for name in ("draw_slice", "draw_patient"):
        monkeypatch.setattr(prediction, name, lambda *_: Figure())
    return reader, seen


def by_command(asked, monkeypatch, tmp_path, paths):
    """What the network got from `predict` for each file or slice of a volume, by its path."""
    reader, seen = asked
    monkeypatch.setattr(prediction, "read_run", lambda _: reader)
    assert main(["predict", "run", *map(str, paths), "--out", str(tmp_path / "out")]) == 0
    rows = pd.read_csv(tmp_path / "out" / "answers.csv").to_dict("records")
    found = {}
    for row in rows:
        path = Path(row["file"])
        found[path / f"{row['slice']:04.0f}" if ".nii" in path.name else path] = seen[int(row["logit"])]
    seen.clear()
    return found


def by_upload(asked, monkeypatch, paths):
    """What it got from the widget, and from the demo's page."""
    reader, seen = asked
    monkeypatch.setattr(demo, "read_run", lambda _: reader)
    for controls in (prediction.upload(reader), demo.page()):
        controls["files"].value = [FACTS | {"name": path.name, "content": path.read_bytes()} for path in paths]
        shown = controls["answers"].value
        assert "cannot be read" not in shown
        rows = [re.findall(r"<td>(.*?)</td>", row) for row in shown.split("<tr>")]
        yield seen.copy(), {row[0]: int(float(row[-1])) for row in rows if re.fullmatch(r"\d+\.0", (row or [""])[-1])}
        seen.clear()


def by_export(reader, run, monkeypatch, paths):
    """What an exported file gets from the code in its model card: one example for pictures, one for the rest."""
    given = []

    def session(_):
        about = types.SimpleNamespace(custom_metadata_map={"threshold_logit": "0"})
        return types.SimpleNamespace(
            get_modelmeta=lambda: about, run=lambda _, feed: given.append(feed["slices"]) or np.zeros((3, 1))
        )

    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=session))
    simple, other = re.findall(r"```python\n(.*?)```", str(model_card(reader, run)), re.DOTALL)
    for path in paths:
        if path.name in SIMPLE:
            exec(simple.replace("slice.png", str(path)), {})
        else:
            exec(other.replace("slice.dcm", str(path)), names := {})
            given.append(names["slices"])
    return [each[0] for each in given]


@pytest.mark.parametrize("window", [None, (-500.0, 1500.0)])
def test_every_format_by_every_way(asked, toy_run, tmp_path, monkeypatch, window):
    folder = tmp_path / "set"
    folder.mkdir()
    for number, (name, write) in enumerate(FORMATS.items()):
        write(folder / name)
        with (folder / f"{('train', 'val', 'test')[number % 3]}.csv").open("a") as file:
            if number < 3:
                file.write("filename,label" + (",low,high" if window else "") + "\n")
            file.write(f"{name},{number // 3 % 2}" + (",{},{}".format(*window) if window else "") + "\n")
    data = load(folder)
    assert data.window == window and len(data.table) == len(FORMATS)
    asked = replace(asked[0], window=data.window), asked[1]
    trained = {folder / path: image.numpy() for path, image in zip(data.table.path, data.images, strict=True)}
    assert all(np.array_equal(image, read_slice(path, 32, window)) for path, image in trained.items())
    assert len({image.tobytes() for image in trained.values()}) > 0.6 * len(trained)  # no reader gives one for all
    found = by_command(asked, monkeypatch, tmp_path, trained)
    assert found.keys() == trained.keys()
    notes = pd.read_csv(tmp_path / "out" / "answers.csv", keep_default_na=False).note.str.contains("shown in its own")
    assert notes.sum() == (0 if window else 12), "where nothing says which values are black and white, that is said"
    ways = {
        "predict": list(found[path] for path in trained),
        "export": by_export(asked[0], toy_run[0], monkeypatch, trained),
    }
    for way, (images, numbers) in zip(("widget", "demo"), by_upload(asked, monkeypatch, trained), strict=True):
        ways[way] = [images[numbers[path.name]] for path in trained]
    for way, images in ways.items():
        differ = [path.name for (path, one), other in zip(trained.items(), images, strict=True) if (one != other).any()]
        assert not differ, f"{way} reads {differ} otherwise"


def test_whole_scans_by_every_way(asked, toy_run, tmp_path, monkeypatch):
    """Volumes in several orientations and with blank slices, and series of several kinds."""
    folder, kinds = tmp_path / "set", ("LPS", "RAS", "LAS", "SPL")
    for number, axes in enumerate(kinds):
        place = folder / ("COVID", "normal")[number % 2]
        padded = np.concatenate([volumes.chest(4, number), np.full((2, 40, 50), -1000)])
        volumes.nifti(place / f"{axes}.nii.gz", padded.astype(np.int16), axes)
        axes = ((1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0))[number // 2]
        shared = volumes.series(place / f"series{number}", volumes.chest(4, 10 + number), axes, PatientID=f"p{number}")
        again = shared | {"AcquisitionNumber": 2}
        volumes.series(place / f"series{number}" / "again", volumes.chest(2, 20 + number), axes, **again)
        dicom(place / f"series{number}" / "scout.dcm", 0, "p", **shared, ImageType=["ORIGINAL", "LOCALIZER"])
    data = load(folder, split="patient")
    assert len(data.table) == 32 and "blank slices (8), " not in data.patient_source
    for left_out in ("blank slices (8)", "scouts (4)", "slices where another one lies (8)"):
        assert left_out in data.patient_source
    trained = {folder / path: image.numpy() for path, image in zip(data.table.path, data.images, strict=True)}
    rule = predictor.PatientRule("mean logit", 0.0, 0.0, 1.0, 0.0)
    asked = replace(asked[0], rule=rule), asked[1]
    found = by_command(asked, monkeypatch, tmp_path, [folder])
    assert found.keys() == trained.keys() and all(np.array_equal(found[path], trained[path]) for path in trained)
    notes = pd.read_csv(tmp_path / "out" / "patients.csv").set_index("patient").note
    assert notes["COVID/LPS"] == "2 blank slices are left out"
    wanted = sorted(image.tobytes() for image in trained.values())
    files = [path for path in folder.rglob("*") if path.is_file()]
    for images, _ in by_upload(asked, monkeypatch, files):
        assert sorted(image.tobytes() for image in images) == wanted
    images = by_export(asked[0], toy_run[0], monkeypatch, trained)
    assert all(np.array_equal(one, other) for one, other in zip(images, trained.values(), strict=True))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), level=st.integers(0, 250), specks=st.integers(0, 3), more=st.integers(0, 5))
def test_what_is_accepted_is_never_constant(tmp_path_factory, data, level, specks, more):
    """Also where a few pixels differ a little, which resizing or a window takes away."""
    name = data.draw(st.sampled_from(["x.png", "x.tif", "x.dcm", "x.nii"]))
    window = data.draw(st.sampled_from([None, (0, 40), (500, 900)]))
    values = np.full((64, 64), level, np.uint16)
    values.flat[: specks * 7 : 7] += more
    path = tmp_path_factory.mktemp("x") / name
    match name:
        case "x.dcm":
            dicom(path, 0, "p", Rows=64, Columns=64, PixelData=values.tobytes())
        case "x.nii":
            busy = np.random.default_rng(0).integers(0, 255, (1, 64, 64))
            volumes.nifti(path, np.concatenate([busy, values[None]]).astype(np.int16))
            path = path / "0002"
        case _:
            Image.fromarray(values if name == "x.tif" else values.astype(np.uint8)).save(path)
    try:
        found = read_file(path, 32, window)
    except ValueError as error:
        assert "\n" not in str(error) and ("grey level" in str(error)) and name in str(error)
    else:
        assert found.blank == (np.ptp(found.image) == 0) and (not found.blank or name == "x.nii")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o027, 0o640)])
def test_nothing_written_is_for_more_people_than_the_umask_says(asked, toy_run, tmp_path, monkeypatch, mask, mode):
    """Pictures and tables of patients, caches, a run, and an exported model."""
    monkeypatch.setitem(backbones.BACKBONES, "toy", TOY)
    classes(tmp_path / "set")
    volumes.nifti(tmp_path / "set" / "COVID" / "v.nii", volumes.chest())
    before, known = os.umask(mask), set(tmp_path.rglob("*"))
    try:
        load(tmp_path / "set")
        reader = replace(asked[0], rule=predictor.PatientRule("mean logit", 0.0, 0.0, 1.0, 0.0))
        by_command((reader, asked[1]), monkeypatch, tmp_path, [tmp_path / "set"])
        monkeypatch.setattr(export, "to_onnx", lambda *_: b"model")
        assert main(["export", str(toy_run[0]), "--out", str(tmp_path / "export")]) == 0
        fitted(replace(toy_run[1], backbone="toy", epochs=1), tiny_data(), tmp_path / "run")
        write_json(tmp_path / "metrics.json", {})
    finally:
        os.umask(before)
    new = [path for path in set(tmp_path.rglob("*")) - known if path.is_file() and path.name != ".lock"]
    kinds = {".png", ".csv", ".bin", ".onnx", ".md", ".pt", ".safetensors", ".json"}
    assert {path.suffix for path in new} == kinds and {path.stat().st_mode & 0o777 for path in new} == {mode}
