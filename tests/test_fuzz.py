"""Damaged and odd input of every kind: a right result, or one clear sentence; never a hang, and nothing lost.

`make test` tries 300 mutations; FUZZ=2000 tries as many.
"""

import gzip
import io
import os
import shutil

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_folders import dicom

from covid_utils.core.settings import Settings, read_profile
from covid_utils.data import load_data
from covid_utils.io.folders import folder_table
from covid_utils.io.images import read_slice
from covid_utils.io.scans import find_scans, read_stack
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.runs.checkpoints import read_last

TRIES = int(os.environ.get("FUZZ", 300)) // 5
FAST = {
    "max_examples": TRIES, "deadline": 20_000, "derandomize": "FUZZ" not in os.environ,
    "suppress_health_check": list(HealthCheck), "database": None,
}  # fmt: skip
SENTENCE = (ValueError, FileNotFoundError, ConnectionError, OSError)


def answer(call):
    """What `call` gives; or None if it refuses, in one sentence that says something."""
    try:
        return call()
    except SENTENCE as error:
        text = str(error)
        assert "\n" not in text and len(text) > 20, f"no sentence: {text!r}"
        assert not text.startswith("[Errno"), f"the system's words: {text!r}"
        return None


edits = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "double", "drop"]), st.floats(0, 1), st.binary(max_size=6)),
    min_size=1, max_size=4,
)  # fmt: skip


def edited(content: bytes, changes) -> bytes:
    """Bytes with some flipped, cut off, put in, doubled or dropped."""
    for kind, where, new in changes:
        place = int(where * len(content))
        if kind == "flip" and content:
            place = min(place, len(content) - 1)
            content = (
                content[:place] + bytes([content[place] ^ (1 + (new[0] if new else 7) % 255)]) + content[place + 1 :]
            )
        elif kind == "cut":
            content = content[:place]
        elif kind == "insert":
            content = content[:place] + new + content[place:]
        elif kind == "double":
            content = content[:place] + content[place : place + 40] + content[place:]
        else:
            content = content[:place] + content[place + len(new) :]
    return content


# --------------------------------------------------------------------------------------------------- pictures

GREYS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(GREYS[..., 0].astype(np.uint16) * 200 if kind == "png16" else GREYS)
    image.save(file, format=kind.removesuffix("16"))
    return file.getvalue()


PICTURES = {kind: encoded(kind) for kind in ("png", "png16", "jpeg", "tiff", "bmp", "webp")}
ENDINGS = {"png16": "png", "jpeg": "jpg", "tiff": "tif"}


@settings(**FAST)
@given(
    kind=st.sampled_from(sorted(PICTURES)), changes=edits, ending=st.sampled_from([None, "png", "jpg", "tif", "dcm"])
)
def test_pictures(tmp_path_factory, kind, changes, ending):
    path = tmp_path_factory.mktemp("x") / f"slice.{ending or ENDINGS.get(kind, kind)}"
    path.write_bytes(content := edited(PICTURES[kind], changes))
    found = answer(lambda: read_slice(path, 32))
    assert path.read_bytes() == content
    assert found is None or (found.shape == (32, 32) and found.dtype == np.uint8)
    shutil.rmtree(path.parent)


# ------------------------------------------------------------------------------------------------------ stacks

HOUNSFIELD = np.random.default_rng(0).integers(-1340, 140, (24, 20, 3)).astype(np.int16)
VOLUMES = {"nii": nibabel.Nifti1Image(HOUNSFIELD, np.diag([-1, -1, 2, 1])).to_bytes()}
VOLUMES["nii.gz"] = gzip.compress(VOLUMES["nii"])


@settings(**FAST)
@given(kind=st.sampled_from(sorted(VOLUMES)), changes=edits)
def test_volumes(tmp_path_factory, kind, changes):
    path = tmp_path_factory.mktemp("x") / f"scan.{kind}"
    path.write_bytes(content := edited(VOLUMES[kind], changes))
    scans, loose, _ = find_scans([path])
    found = answer(lambda: read_stack(scans[0], 32) if scans else read_slice(loose[0], 32))
    assert path.read_bytes() == content
    if found is not None:
        assert found.images.shape[1:] == (32, 32) and len(found.slices) == len(found.images)
    shutil.rmtree(path.parent)


@settings(**FAST)
@given(changes=edits, which=st.integers(0, 3))
def test_series(tmp_path_factory, changes, which):
    """Of four files one is damaged: the others are a stack still, or one sentence says why not."""
    home = tmp_path_factory.mktemp("x") / "p1"
    shared = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    for number in range(4):
        dicom(home / f"{number}.dcm", number, "p", **shared, ImagePositionPatient=[0, 0, number])
    (home / f"{which}.dcm").write_bytes(edited((home / f"{which}.dcm").read_bytes(), changes))
    scans, loose, _ = find_scans([home])
    assert all(file.name == f"{which}.dcm" for file in loose)
    for scan in scans:
        found = answer(lambda scan=scan: read_stack(scan, 32))
        if found is not None:
            assert len(found.images) == len(found.slices) <= 4 and "\n" not in found.unread
            assert len(found.images) + bool(loose) + bool(found.unread) >= 3 or len(scans) > 1 or found.note
    shutil.rmtree(home.parent)


# ---------------------------------------------------------------------------------------------------- folders

NAMES = st.sampled_from(
    ["COVID", "non-COVID", "covid-19", "normal", "COVID?", "-1", "0", "1", "images", "masks", "p1", "7", "scan_2",
     "train", "val", "test", ".hidden", "__MACOSX", "@eaDir", "ü", "a b", "new folder"]
)  # fmt: skip
FILES = st.sampled_from(["1.png", "2.PNG", "1_mask.png", "x.gif", "notes.txt", ".1.png", "Covid (3).png", "no ending"])


@settings(**FAST)
@given(
    places=st.lists(st.tuples(st.lists(NAMES, max_size=3), FILES, st.integers(0, 3)), max_size=12),
    base=st.booleans(),
    links=st.lists(st.tuples(NAMES, st.sampled_from([".", "COVID", "..", "nowhere"])), max_size=2),
)
def test_folders(tmp_path_factory, places, base, links):
    home = tmp_path_factory.mktemp("x") / "set"
    home.mkdir()
    picture = PICTURES["png"]
    for names, file, _ in places + ([(["COVID", f"c{i}"], "1.png", 0) for i in range(4)] if base else []) + (
        [(["non-COVID", f"n{i}"], "1.png", 0) for i in range(4)] if base else []
    ):  # fmt: skip
        path = home.joinpath(*names, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    for name, target in links:
        link = home / "COVID" / name
        if base and not os.path.lexists(link):
            link.symlink_to(home / target)
    before = sorted(str(path) for path in home.rglob("*"))
    found = answer(lambda: folder_table(home))
    assert sorted(str(path) for path in home.rglob("*")) == before
    if found is not None:
        table, _ = found
        assert table.path.is_unique and set(table.label) == {0, 1} and table.patient.notna().all()
        real = {os.path.realpath(home / path) for path in table.path}
        assert len(real) == len(table)
        for path, label in zip(table.path, table.label, strict=True):  # the class folder's own word, nothing else
            own = [name for name in path.split("/")[:-1] if name in ("COVID", "covid-19", "non-COVID", "normal")]
            assert not own or label == int(own[0] in ("COVID", "covid-19")), path
            assert "masks" not in path and "/." not in path and "__MACOSX" not in path and "@eaDir" not in path
    shutil.rmtree(home.parent)


@settings(**FAST)
@given(changes=edits, which=st.sampled_from(["train", "val", "test"]))
def test_csv_files(tmp_path_factory, changes, which):
    home = tmp_path_factory.mktemp("x") / "set"
    (home / "images").mkdir(parents=True)
    number, truth = 0, {}
    for split in ("train", "val", "test"):
        lines = ["filename,label,patient"]
        for label in (0, 1):
            (home / "images" / f"s{number}.png").write_bytes(PICTURES["png"])
            lines.append(f"images/s{number}.png,{label},p{number}")
            truth[f"images/s{number}.png"] = label
            number += 1
        (home / f"{split}.csv").write_text("\n".join(lines) + "\n")
    content = edited((home / f"{which}.csv").read_bytes(), changes)
    (home / f"{which}.csv").write_bytes(content)
    found = answer(lambda: load_data(Settings(home, home.parent / "data", image_size=32), progress=False))
    assert (home / f"{which}.csv").read_bytes() == content
    if found is not None:
        for path, label, split in zip(found.table.path, found.table.label, found.table.split, strict=True):
            assert path in truth
            if split != which:
                assert label == truth[path]
            else:  # a flipped label that is a label is nobody's fault: it must be what the file says
                rows = [line for line in content.decode("utf-8-sig").splitlines() if path in line]
                assert any(line.split(",")[1].strip(' "') == str(label) for line in rows if line.count(",") >= 1)
    shutil.rmtree(home.parent)


# -------------------------------------------------------------------------------------- profiles and checkpoints

PROFILE = b"epochs: 3\nbatch_size: 16\nlearning_rate: 1e-3\nsplit: random\nrun_dir: runs/x\nresume: true\n"


@settings(**FAST)
@given(changes=edits)
def test_profiles(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("x") / "profile.yaml"
    path.write_bytes(content := edited(PROFILE, changes))
    found = answer(lambda: read_profile(path))
    assert path.read_bytes() == content
    assert found is None or Settings(**found)
    shutil.rmtree(path.parent)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A small file of weights and a small `last.pt`, and what they hold."""
    folder, state = tmp_path_factory.mktemp("kept"), {"a": torch.arange(50.0), "b": torch.ones(3, 4)}
    save_weights(folder / "best.safetensors", state, {"epoch": 3})
    last = {"parameters": {"trainable": "all", "epochs": 2}, "history": [{"epoch": 1}], "model": state}
    torch.save(last, folder / "last.pt")
    return folder


@settings(**FAST)
@given(changes=edits, name=st.sampled_from(["best.safetensors", "last.pt"]))
def test_checkpoints(kept, tmp_path_factory, changes, name):
    path = tmp_path_factory.mktemp("x") / name
    path.write_bytes(content := edited((kept / name).read_bytes(), changes))
    if name == "last.pt":
        found, true = answer(lambda: read_last(path)), read_last(kept / name)
    else:
        found, true = answer(lambda: read_weights(path)), read_weights(kept / name)
    assert path.read_bytes() == content
    if found is not None:  # only what does not matter was changed
        state, wanted = (each["model"] if name == "last.pt" else each[0] for each in (found, true))
        assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    shutil.rmtree(path.parent)
