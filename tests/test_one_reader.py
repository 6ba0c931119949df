"""One reader: what a network is trained on is, to the bit, what it is asked with, for every format and by every way."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pydicom
import pytest
import test_volumes as volumes
from matplotlib.figure import Figure
from test_data import classes, load
from test_folders import dicom
from test_pictures import COLOURS, PICTURES, SCANS, STORED, WIDE, ramp_scan, saved, scan
from toy import TOY, fitted, tiny_data

from covid_course import demo, export
from covid_course import predict as prediction
from covid_course.commands import main
from covid_course.model_card import model_card
from covid_utils.core import backbones
from covid_utils.core.files import write_json
from covid_utils.io.images import read_slice
from covid_utils.labs import predictor

FACTS = {"type": "", "size": 1, "last_modified": pd.Timestamp(0, tz="UTC")}
BIG_ENDIAN = pydicom.dataset.FileMetaDataset()
BIG_ENDIAN.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
ODD = WIDE.astype(np.float32)
ODD[:2, :2], ODD[2:4] = [[np.nan, np.inf], [-np.inf, 5000.5]], -0.25
SIMPLE = {"odd.tif", *PICTURES} - {"white is zero of 16 bits.tif", *COLOURS}  # what the card's first lines read
FORMATS = (
    PICTURES
    | {"odd.tif": saved(ODD), "CT.1.2.840.113619": scan(), "ct.ima": scan()}
    | {f"{name}.dcm": write for name, write in SCANS.items()}
    | {
        "prone.dcm": scan(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]),
        "padded.dcm": ramp_scan(PixelPaddingValue=700),
        "big-endian.dcm": ramp_scan(file_meta=BIG_ENDIAN, PixelData=STORED.astype(">u2").tobytes()),
    }
)


@pytest.fixture
def asked(toy_run, monkeypatch):
    """A predictor, and the slices that its network gets, in order; their number is the `logit` of each."""
    seen = []

    def note(_, images):
        row = {"probability": 0.5, "threshold": 0.5, "decision": "non-COVID", "ood_score": 0.0, "note": ""}
        seen.extend(images.numpy())
        return [row | {"logit": float(number)} for number in range(len(seen) - len(images), len(seen))]

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
    """What an exported file gets of pictures from the code in its model card."""
    model = Mock()
    model.get_modelmeta().custom_metadata_map = {"threshold_logit": "0"}
    model.run.return_value = np.zeros((3, 1))
    monkeypatch.setitem(sys.modules, "onnxruntime", Mock(InferenceSession=lambda _: model))
    example = re.search(r"```python\n(.*?)```", str(model_card(reader, run)), re.DOTALL)[1]
    for path in paths:
        exec(example.replace("slice.png", str(path)), {})
        yield model.run.call_args[0][1]["slices"][0]


@pytest.mark.parametrize("window", [None, (-1200.0, 1500.0)])
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
    found = by_command(asked, monkeypatch, tmp_path, trained)
    assert found.keys() == trained.keys()
    notes = pd.read_csv(tmp_path / "out" / "answers.csv", keep_default_na=False).note.str.contains("shown in its own")
    assert notes.sum() == (0 if window else 18), "where nothing says which values are black and white, that is said"
    ways = {"predict": found}
    for way, (images, numbers) in zip(("widget", "demo"), by_upload(asked, monkeypatch, trained), strict=True):
        ways[way] = {path: images[numbers[path.name]] for path in trained}
    simple = [path for path in trained if path.name in SIMPLE]
    ways["export"] = dict(zip(simple, by_export(asked[0], toy_run[0], monkeypatch, simple), strict=True))
    for way, images in ways.items():
        differ = [path.name for path, image in images.items() if (image != trained[path]).any()]
        assert not differ, f"{way} reads {differ} otherwise"


def test_whole_scans_by_every_way(asked, tmp_path, monkeypatch):
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
