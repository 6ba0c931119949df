"""Damaged and odd input of every kind: a right result, or one clear sentence; never a hang, and nothing lost.

`make test` tries 200 mutations; FUZZ=2000 tries as many.
"""

import gzip
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
from covid_utils.io.images import read_slice
from covid_utils.io.scans import find_scans, read_stack
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.runs.checkpoints import read_last

TRIES = int(os.environ.get("FUZZ", 200)) // 8
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
        before, after = content[:place], content[place:]
        content = {
            "flip": before + bytes(each ^ 7 for each in after[:1]) + after[1:],
            "cut": before,
            "insert": before + new + after,
            "double": before + after[:40] + after,
            "drop": before + after[len(new) :],
        }[kind]
    return content


# ------------------------------------------------------------------------------------------------------ files

GREYS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
HOUNSFIELD = np.random.default_rng(0).integers(-1340, 140, (24, 20, 3)).astype(np.int16)
PROFILE = b"epochs: 3\nbatch_size: 16\nlearning_rate: 1e-3\nsplit: random\nrun_dir: runs/x\nresume: true\n"
STATE = {"a": torch.arange(50.0), "b": torch.ones(3, 4)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What a small file of each kind holds, by its name."""
    home = tmp_path_factory.mktemp("whole")
    images = {"slice.png": GREYS[..., 0].astype(np.uint16) * 200}
    images |= dict.fromkeys([f"slice.{kind}" for kind in ("PNG", "jpg", "tif", "bmp", "webp")], GREYS)
    for name, values in images.items():
        Image.fromarray(values).save(home / name)
    volume = nibabel.Nifti1Image(HOUNSFIELD, np.diag([-1, -1, 2, 1])).to_bytes()
    (home / "scan.nii").write_bytes(volume)
    (home / "scan.nii.gz").write_bytes(gzip.compress(volume))
    (home / "profile.yaml").write_bytes(PROFILE)
    save_weights(home / "best.safetensors", STATE, {"epoch": 3})
    last = {"parameters": {"trainable": "all", "epochs": 2}, "history": [{"epoch": 1}], "model": STATE}
    torch.save(last, home / "last.pt")
    dicom(home / "slice.dcm", 0, "p")
    return {path.name: path.read_bytes() for path in home.iterdir()}


def check(path):
    """Read a file; what is found is whole."""
    if path.stem == "slice":
        image = read_slice(path, 32)
        assert image.shape == (32, 32) and image.dtype == np.uint8
    elif path.name.startswith("scan"):
        scans, loose, _ = find_scans([path])
        images = read_stack(scans[0], 32).images if scans else read_slice(loose[0], 32)[None]
        assert images.shape[1:] == (32, 32) and len(images)
    elif path.name == "profile.yaml":
        Settings(**read_profile(path))
    else:  # only what does not matter was changed
        found = read_last(path)["model"] if path.name == "last.pt" else read_weights(path)[0]
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)


@settings(**FAST | {"max_examples": 5 * TRIES})
@given(data=st.data(), ending=st.sampled_from([None, ".png", ".tif", ".dcm"]), changes=edits)
def test_damaged_files(files, tmp_path_factory, data, ending, changes):
    name = data.draw(st.sampled_from(sorted(files)))
    path = tmp_path_factory.mktemp("x") / (f"slice{ending}" if ending and name.startswith("slice") else name)
    path.write_bytes(content := edited(files[name], changes))
    answer(lambda: check(path))
    assert path.read_bytes() == content
    shutil.rmtree(path.parent)
