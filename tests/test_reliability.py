"""Faults, really brought about: full and read-only disks, no memory, two at once, hostile files.

Kills are in `test_kills.py`; docs/maintainers.md lists every fault with the test that shows it.
"""

import ast
import html
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_data import classes, load, picture
from toy import TOY, Bomb, assert_same_bits, fitted, tiny_data

from covid_utils.core import backbones
from covid_utils.core.files import DAY, PROJECT, replace_file
from covid_utils.core.memory import explain_out_of_memory
from covid_utils.core.settings import Settings
from covid_utils.io.datasets import cached_phantom
from covid_utils.io.images import decode
from covid_utils.runs import feature_cache
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.load_or_train import new_model

WINDOWS = sys.platform == "win32"


@pytest.fixture(autouse=True)
def toy_network(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "toy", TOY)


def trained(folder, on_epoch=None, **changes):
    """Train on the toy data in a folder, and call a function after each epoch."""
    wanted = {"image_size": 32, "epochs": 2, "batch_size": 8, "backbone": "toy", "device": "cpu", "run_dir": folder}
    fitted(Settings(**wanted | changes), tiny_data(), folder, on_epoch and SimpleNamespace(update=on_epoch))


# ----------------------------------------------------------------------------------------- disks


@pytest.fixture
def disk(tmp_path):
    """The folder of a disk of two megabytes, and a function that remounts it: read-only, or not."""
    if sys.platform != "linux":
        pytest.skip("disks are mounted in memory on Linux only")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here ({made.stderr.strip()}); as root it can")

    def remount(mode):
        subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True, timeout=30)

    yield folder, remount
    subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)


def fill(folder, spare=0):
    """Fill a disk up to some spare bytes; returns the file that does."""
    filler, size = folder / "filler", shutil.disk_usage(folder).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size - spare // 4096 * 4096)
    return filler


FULL = "No space left on device. Free some space or choose another folder with run_dir or data_dir"


def test_a_full_disk_stops_training_after_its_last_whole_epoch(disk, tmp_path):
    trained(tmp_path / "whole")
    folder, filler = disk[0] / "run", []
    with pytest.raises(OSError, match=f"Cannot write .*: {FULL}") as caught:
        trained(folder, lambda history: filler.append(fill(disk[0])) if len(history) == 1 else None)
    assert "\n" not in str(caught.value)
    assert len(read_last(folder / "checkpoints" / "last.pt")["history"]) == 1 and not list(folder.rglob("*.new-*"))
    filler[0].unlink()
    trained(folder)
    assert_same_bits(folder, tmp_path / "whole")


def draw(folder):
    return cached_phantom(4, 2, 64, 0, "A", folder)["images"].tobytes()


def read(folder):
    slices = folder.parent / "slices"
    for number in range(0 if slices.exists() else 6):
        picture(slices / f"{number}.png", number)
    return decode(slices, [f"{number}.png" for number in range(6)], 48, folder, progress=False)[0].numpy().tobytes()


def write(folder):
    replace_file(folder / "results.csv", lambda path: path.write_text("x" * 50_000))
    return (folder / "results.csv").read_bytes()


@pytest.mark.parametrize("work", [draw, read, write])
def test_a_full_or_read_only_disk_while_drawing_decoding_and_writing(disk, tmp_path, work):
    filler = fill(disk[0], spare=4096)
    with pytest.raises(OSError, match=f"Cannot write .*: {FULL}"):
        work(disk[0])
    assert [path.name for path in disk[0].iterdir()] == ["filler"]
    filler.unlink()
    disk[1]("ro")
    for refused in (work, trained):
        with pytest.raises(OSError, match="Cannot write .*: Read-only file system"):
            refused(disk[0])
    disk[1]("rw")
    assert work(disk[0]) == work(tmp_path / "roomy"), "and it is as if nothing had happened"


def test_a_full_disk_has_no_room_for_features(disk):
    """Their file is as large as it will get from the start: a disk that fills later would kill the process mutely."""
    filler = fill(disk[0], spare=8192)
    with pytest.raises(OSError, match="No space for 0 MiB of features in .*: lower copies"):
        feature_cache.on_disk(disk[0], (1000, 8, 4, 4))
    filler.unlink()
    kept = feature_cache.on_disk(disk[0], (1000, 8, 4, 4))
    kept[:] = 1
    assert kept.sum() == kept.numel() and not list(disk[0].iterdir())
    before = shutil.disk_usage(disk[0]).free
    del kept
    assert shutil.disk_usage(disk[0]).free >= before + 2 * 1000 * 8 * 4 * 4, "and its room is free again"


# ------------------------------------------------------------------------------- no memory, two at once


def test_without_memory_it_is_said_what_to_lower(tmp_path):
    """Of PyTorch and NumPy on this machine, really; of a GPU by its words."""
    with pytest.raises(MemoryError, match=r"Out of memory: lower batch_size \(now 8\), image_size \(now 32\)"):
        trained(tmp_path, lambda history: torch.empty(2**60))
    with pytest.raises(MemoryError, match="Out of memory: lower patients"), explain_out_of_memory("patients"):
        np.empty(2**50)
    for said in ("CUDA out of memory. Tried to allocate 2.00 GiB", "MPS backend out of memory (MPS allocated: 9 GB)"):
        with pytest.raises(MemoryError, match="run this again"), explain_out_of_memory("batch_size"):
            raise RuntimeError(f"{said}\nsecond line")
    with pytest.raises(RuntimeError, match="shapes do not fit"), explain_out_of_memory("nothing"):
        raise RuntimeError("shapes do not fit")


def test_two_trainings_in_one_folder_do_not_mix(tmp_path):
    """The second, in the middle of the first, is refused."""
    trained(tmp_path / "whole")
    second = []

    def another(history):
        with pytest.raises(OSError, match="Another process is at work in .*run: wait, or choose another"):
            trained(tmp_path / "run")
        second.append(True)

    trained(tmp_path / "run", another)
    assert len(second) == 2
    assert_same_bits(tmp_path / "run", tmp_path / "whole")


def test_what_a_killed_process_left_is_deleted_a_day_later(tmp_path):
    """What may still be written stays, and so do hidden files of one's own."""
    stay = {".a.csv", ".a.csv.swp", ".b.csv.new-abc.csv", ".a.csv.new-young.csv"}
    for path in [tmp_path / name for name in (*stay, ".a.csv.new-old.csv")]:
        path.touch()
        if "young" not in path.name:
            os.utime(path, (0, path.stat().st_mtime - DAY - 1))
    replace_file(tmp_path / "a.csv", lambda path: path.write_text("1"))
    assert {path.name for path in tmp_path.iterdir()} == stay | {"a.csv"}


# ----------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_with_a_program_inside_are_refused(tmp_path, name):
    torch.save({"net.fc.weight": Bomb(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is damaged or holds no weights of ours"):
        new_model(Settings(backbone="toy", weights=str(tmp_path / name)))
    assert not (tmp_path / "ran").exists()


def test_caches_with_a_program_inside_are_made_anew(tmp_path, capsys):
    bomb = np.array([Bomb(tmp_path / "ran")] * 40, dtype=object)

    def both():
        return draw(tmp_path / "phantom"), read(tmp_path / "cache")

    first = both()
    (npz,), (npy,) = (tmp_path / "phantom").iterdir(), (tmp_path / "cache").iterdir()
    np.savez(npz, images=bomb)
    with npy.open("wb") as file:
        np.save(file, bomb, allow_pickle=True)
    assert both() == first and capsys.readouterr().out.count("is damaged") == 2 and not (tmp_path / "ran").exists()


def test_nothing_unpickles_and_no_tar_is_unpacked():
    """So that no file can run a program, and none can be written beside its folder: zip is all that is unpacked."""
    packages = ("ct_phantom", "covid_utils", "covid_course")
    for path in [path for package in packages for path in (PROJECT / package).rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) (pickle|tarfile|shelve|marshal|dill)", text, re.MULTILINE), path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                called = ast.unparse(node.func)
                assert called != "torch.load" or words.get("weights_only") == "True", path.name
                assert "unpack_archive" not in called and words.get("allow_pickle", "False") == "False", path.name
                assert called != "yaml.load" or words.get("Loader") == "_Texts", path.name  # a BaseLoader


PAYLOAD = "<img src=x onerror=alert(1)>"


@pytest.mark.skipif(WINDOWS, reason="no folder is called so on Windows")
def test_a_payload_in_a_folders_name_is_text_in_tables(tmp_path):
    """Of a patient, and of the data set."""
    data = load(classes(tmp_path / PAYLOAD, inside=PAYLOAD))
    assert "<img" not in data.table._repr_html_() and html.escape(PAYLOAD) in data.table._repr_html_()
    assert "<" not in data.name


def test_make_lab_listens_to_this_machine_alone_and_wants_a_token():
    """The token is JupyterLab's default, which the Makefile does not change."""
    (command,) = re.findall(r"^\t\$\(BIN\)/jupyter lab .*", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert "--ip=127.0.0.1" in command and not re.search("token|password|allow", command, re.IGNORECASE)


def test_every_row_of_the_page_names_tests_that_exist():
    page = (PROJECT / "docs" / "maintainers.md").read_text(encoding="utf-8").partition("\n## Speed")[0]
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 20
    for fault, said, tests in rows:
        named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", tests)
        assert fault.strip() and said.strip() and named, f"no test shows {fault!r}"
        for file, name in named:
            text = (PROJECT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name or 'test'}" in text, f"{file} has no {name}"
