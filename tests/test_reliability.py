"""Faults, really brought about: full and read-only disks, no memory, two at once, odd places, hostile files.

Kills are in `test_kills.py`; docs/reliability.md lists every fault with the test that shows it.
"""

import ast
import dataclasses
import html
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pandas as pd
import papermill
import psutil
import pytest
import torch
from PIL import Image
from test_training import Bomb, assert_same_bits, outcome
from toy import ToyNetwork, tiny_data

from covid_course import demo, predict, sweep
from covid_course.commands import main
from covid_course.notebooks import NOTEBOOKS
from covid_utils import models, training
from covid_utils.core import memory
from covid_utils.core.files import PROJECT, beside, clear_leftovers, replace_file, write_json
from covid_utils.core.settings import Settings, read_profile
from covid_utils.data import load_data
from covid_utils.io.downloads import unpack
from covid_utils.io.images import decode
from covid_utils.io.weights import read_weights
from covid_utils.labs import predictor
from covid_utils.runs import feature_cache
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.load_or_train import find_or_train
from ct_phantom.patients import phantom

ROOT = getattr(os, "geteuid", lambda: -1)() == 0
WINDOWS = sys.platform == "win32"
ODD = "Ärzte & Söhne, 胸部 CT 'neu' [1]"  # spaces, accents, another script, quotes, brackets


@pytest.fixture(autouse=True)
def toy_network(monkeypatch):
    monkeypatch.setitem(models.BACKBONES, "toy", models.Backbone(ToyNetwork, *models.RESNET))


def settings_in(folder, **changes):
    wanted = {"image_size": 32, "epochs": 2, "batch_size": 8, "backbone": "toy", "device": "cpu", "run_dir": folder}
    return Settings(**wanted | changes)


def fitted(folder, on_epoch=None, **changes):
    settings = settings_in(folder, **changes)
    training.fit(training.new_model(settings), tiny_data(), settings, folder, on_epoch)


def pictures(folder, count=6):
    """A folder with noisy slices, and their names."""
    folder.mkdir(parents=True)
    rng, names = np.random.default_rng(0), [f"{n}.png" for n in range(count)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / name)
    return folder, names


def hidden(folder):
    """What a write that failed may have left."""
    return [path.name for path in folder.rglob(".*")]


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
        pytest.skip(f"no disk can be mounted here ({made.stderr.strip()}); as root, or with user namespaces, it can")

    def remount(mode):
        subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True, timeout=30)

    yield folder, remount
    subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)


def fill(folder, spare=0):
    """Fill a disk up to some spare bytes; returns the file that does."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    os.truncate(filler, filler.stat().st_size - spare)
    return filler


FULL = "No space left on device. Free some space or choose another"


@pytest.mark.skipif(ROOT or not shutil.which("unshare"), reason="root mounts disks without a namespace")
def test_disks_in_a_namespace_where_nobody_is_root():
    inside = ["unshare", "--map-root-user", "--mount", sys.executable]
    if subprocess.run([*inside, "-c", ""], capture_output=True).returncode:
        pytest.skip("this machine allows no user namespaces")
    call = [*inside, "-m", "pytest", "-q", __file__, "-k", "disk and not namespace"]
    ended = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0 and "skipped" not in ended.stdout.splitlines()[-1], ended.stdout[-2000:]


def test_a_full_disk_stops_training_after_its_last_whole_epoch(disk, tmp_path):
    fitted(tmp_path / "whole")
    folder, filler = disk[0] / "run", []

    def full(history):
        if len(history) == 1:
            filler.append(fill(disk[0]))

    with pytest.raises(OSError, match=rf"Cannot write .*: {FULL} folder with run_dir") as caught:
        fitted(folder, full)
    assert "\n" not in str(caught.value)
    assert len(read_last(folder / "checkpoints" / "last.pt")["history"]) == 1 and not hidden(disk[0])
    filler[0].unlink()
    fitted(folder)
    assert_same_bits(outcome(folder), outcome(tmp_path / "whole"))


def test_a_full_disk_while_drawing_decoding_and_writing_a_table(disk, tmp_path):
    source, names = pictures(tmp_path / "slices")
    results = disk[0] / "results.csv"
    replace_file(results, lambda path: path.write_text("earlier\n"))
    table = pd.DataFrame({"name": ["x" * 50_000]})

    def draw(folder):
        return phantom(4, 2, 64, cache_dir=folder, progress=False)["images"].tobytes()

    def read(folder):
        return decode(source, names, 48, folder, progress=False)[0].numpy().tobytes()

    def write(folder):
        replace_file(folder / "results.csv", lambda path: table.to_csv(path))
        return (folder / "results.csv").read_bytes()

    filler = fill(disk[0], spare=4096)
    for work in (draw, read, write):
        with pytest.raises(OSError, match=rf"Cannot write .*: {FULL} folder with run_dir or data_dir"):
            work(disk[0])
    assert sorted(path.name for path in disk[0].iterdir()) == ["filler", "results.csv"]
    assert results.read_text() == "earlier\n"
    filler.unlink()
    for work in (draw, read, write):
        assert work(disk[0]) == work(tmp_path / "roomy"), "and it is as if nothing had happened"


def test_a_full_disk_has_no_room_for_features(disk, monkeypatch):
    """Their file is as large as it will get from the start: a disk that fills later would kill the process mutely."""
    filler = fill(disk[0], spare=8192)
    with pytest.raises(
        OSError, match=r"Cannot keep features in .* MiB: No space left on device\): free some space, lower"
    ):
        feature_cache.on_disk(disk[0], (1000, 8, 4, 4))
    filler.unlink()
    kept = feature_cache.on_disk(disk[0], (1000, 8, 4, 4))
    kept[:] = 1
    assert kept.sum() == kept.numel() and not list(disk[0].iterdir())
    before = shutil.disk_usage(disk[0]).free
    del kept
    assert shutil.disk_usage(disk[0]).free >= before + 2 * 1000 * 8 * 4 * 4, "and its room is free again"


def test_a_full_and_a_read_only_disk_for_a_notebook(disk, toy, capsys):
    notebook, folder = toy("01_toy", "'x' * 1000"), disk[0] / "run"
    call = ["run", str(notebook), "-p", "run_dir", str(folder)]
    assert main(call) == 0
    before = (folder / notebook.name).read_bytes()
    capsys.readouterr()
    filler = fill(disk[0])
    assert main(call) == 1
    said = capsys.readouterr().err.strip()
    assert "No space left on device. Free some space or choose another run_dir" in said and "\n" not in said
    filler.unlink()
    disk[1]("ro")
    assert main(call) == 1
    said = capsys.readouterr().err.strip()
    assert "Read-only file system. Free some space or choose another run_dir" in said and "\n" not in said
    assert (folder / notebook.name).read_bytes() == before and not hidden(disk[0])
    disk[1]("rw")
    assert main(call) == 0


def test_a_read_only_disk_is_one_sentence_everywhere(disk, tmp_path):
    source, names = pictures(disk[0] / "slices")
    disk[1]("ro")
    read_only = "Cannot write .*: Read-only file system"
    for work in (
        lambda: fitted(disk[0] / "run"),
        lambda: phantom(2, 1, 64, cache_dir=disk[0] / "phantom", progress=False),
        lambda: decode(source, names, 48, disk[0] / "cache", progress=False),
        lambda: write_json(disk[0] / "metrics.json", {}),
        lambda: sweep.sweep({"notebooks": ["02"], "folder": disk[0] / "all", "seeds": [1]}),
    ):
        with pytest.raises(OSError, match=read_only) as caught:
            work()
        assert "\n" not in str(caught.value)
    images, _ = decode(source, names, 48, tmp_path / "cache", progress=False)
    assert len(images) == 6, "slices on a read-only disk are read all the same"


# --------------------------------------------------------------------------------------- no memory

NO_MEMORY = """
import io, os, resource, sys
sys.path.insert(0, os.environ["TESTS"])
from pathlib import Path
import numpy as np, psutil, torch
from toy import ToyNetwork, tiny_data
from covid_utils import models, training
from covid_utils.data import load_data
from covid_utils.core.settings import Settings
from covid_utils.io.images import read_slice

models.BACKBONES["toy"] = models.Backbone(ToyNetwork, *models.RESNET)
folder, result = Path(sys.argv[1]), {}
wanted = dict(image_size=32, epochs=2, batch_size=8, backbone="toy", device="cpu", run_dir=folder / "run")

def fit(data, **changes):
    settings = Settings(**wanted | changes)
    training.fit(training.new_model(settings), data, settings, folder / "run")

def said(work):
    try:
        work()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    else:
        print("nothing", flush=True)

fit(tiny_data(), epochs=1)
large = tiny_data(size=1000)
room = psutil.Process().memory_info().vms + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
said(lambda: fit(large, image_size=1000, batch_size=32, resume=False))
said(lambda: load_data(Settings(dataset="phantom", patients=1_000_000, image_size=1024, data_dir=folder), False))
for bomb in sorted((folder / "bombs").iterdir()):
    said(lambda: read_slice(bomb, 32))
"""


def bombs(folder):
    """Pictures of some kilobytes that say that they have thousands of millions of pixels, or some hundred."""
    folder.mkdir(parents=True)
    for ending in ("png", "tif"):
        options = {"compression": "tiff_deflate"} if ending == "tif" else {}
        Image.new("1", (30_000, 30_000)).save(folder / f"huge.{ending}", **options)
        Image.new("L", (9_000, 9_000)).save(folder / f"large.{ending}", **options)  # Pillow would only warn
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process lower its own memory")
def test_without_memory_it_is_said_what_to_lower_and_bombs_are_refused_before(tmp_path, monkeypatch):
    """A process that may take 300 MB more than it has."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    bombs(tmp_path / "bombs")
    own = {"TESTS": str(PROJECT / "tests"), "OMP_NUM_THREADS": "1", "COVID_UTILS_HOME": str(tmp_path)}
    call = [sys.executable, "-W", "error", "-c", NO_MEMORY, str(tmp_path)]
    ended = subprocess.run(call, env=os.environ | own, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    train, draw, *refused = ended.stdout.splitlines()
    assert re.match(
        r"MemoryError: Epoch 1: out of memory: lower batch_size \(now 32\) or image_size \(now 1000\)", train
    )
    assert re.match("MemoryError: Out of memory: lower patients or image_size", draw)
    assert len(refused) == 4
    for line in refused:
        assert re.match(r"ValueError: Slice .* cannot be read \(.*pixels.*\): replace or delete the file", line), line


def test_what_is_out_of_memory_on_other_devices():
    said = "CUDA out of memory. Tried to allocate 2.00 GiB"
    assert memory.out_of_memory(torch.OutOfMemoryError(said)) and memory.out_of_memory(MemoryError())
    assert memory.out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert not memory.out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"), memory.enough_memory("nothing"):
        raise RuntimeError("shapes do not fit")


# --------------------------------------------------------------------------- temporary files, two at once


@pytest.mark.skipif(WINDOWS, reason="Windows has no such locks")
def test_leftovers_are_cleared_and_what_a_living_process_writes_is_not(tmp_path):
    """The owner is another process: it says that it has begun, waits, and ends."""
    script = """
import sys
from pathlib import Path
from covid_utils.core.files import beside
with beside(Path(sys.argv[1])) as file, beside(Path(sys.argv[2]), folder=True) as folder:
    file.write_text("half"), (folder / "part").write_text("half")
    print("begun", flush=True)
    sys.stdin.readline()
    file.rename(sys.argv[1]), folder.rename(sys.argv[2])
"""
    targets = [tmp_path / ODD / "table.csv", tmp_path / ODD / "unpacked"]
    call = [sys.executable, "-c", script, *map(str, targets)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for kill in (True, False):
        with subprocess.Popen(call, env=os.environ | {"PYTHONPATH": str(PROJECT)}, **pipes) as owner:
            assert owner.stdout.readline() == "begun\n"
            for target in targets:
                clear_leftovers(target)
            assert len(hidden(tmp_path)) == 2, "a living process keeps what it writes"
            if kill:
                owner.kill()
                owner.wait(30)
                replace_file(targets[0], lambda path: path.write_text("whole"))
                with beside(targets[1], folder=True):
                    assert len(hidden(tmp_path)) == 1, "its own"
                assert not hidden(tmp_path) and targets[0].read_text() == "whole"
            else:
                owner.communicate("go on\n", timeout=30)
    assert targets[0].read_text() == "half" and (targets[1] / "part").exists() and not hidden(tmp_path)


def test_a_users_own_hidden_files_stay(tmp_path):
    own = [tmp_path / name for name in (".a.csv", ".a.csv.swp", ".a.csv.12345678.csv", ".b.csv.new-abcdefgh.csv")]
    for path in own:
        path.touch()
    (tmp_path / ".a.csv.new-abcdefgh.csv").touch()
    replace_file(tmp_path / "a.csv", lambda path: path.write_text("1"))
    assert sorted(tmp_path.iterdir()) == sorted([*own, tmp_path / "a.csv"])


def test_two_trainings_in_one_folder_do_not_mix(tmp_path):
    """The second starts in the middle of the first, and goes on with its epochs; who saves later stops."""
    fitted(tmp_path / "whole", epochs=3)
    folder, second = tmp_path / "run", []

    def another(history):
        if len(history) == 1 and not second:
            second.append(True)
            fitted(folder, epochs=3)  # the whole of another process's work

    with pytest.raises(OSError, match="Another process trains in .*run, too: wait for it and run this again"):
        fitted(folder, another, epochs=3)
    assert_same_bits(outcome(folder), outcome(tmp_path / "whole"))
    model, history, _ = find_or_train(tiny_data(), settings_in(tmp_path, epochs=3), "run")
    assert len(history) == 3 and torch.equal(
        model.net.fc.weight, read_weights(folder / "checkpoints" / "best.safetensors")[0]["net.fc.weight"]
    )


def test_archives_that_two_unpack_at_once(tmp_path):
    """The one that comes second finds the folder, and takes it."""
    from test_data import make_zip

    make_zip(tmp_path / "a.zip", {"x.png": b"1"})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"1")
    unpack(tmp_path / "a.zip", tmp_path / "a")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "a.zip", "x.png"]


# ------------------------------------------------------------------------------------------ odd places


def test_a_notebook_from_another_folder_with_spaces_and_other_letters(tmp_path, monkeypatch):
    """Notebook 1, whole, in a kernel that starts elsewhere; data, run and home have such names, too."""
    place = tmp_path / ODD
    place.mkdir()
    monkeypatch.setenv("COVID_UTILS_HOME", str(place))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    parameters = read_profile(NOTEBOOKS / "profiles" / "smoke.yaml") | {"run_dir": "läufe/erster 1"}
    options = {"kernel_name": "python3", "cwd": place, "progress_bar": False}
    known = papermill.inspect_notebook(NOTEBOOKS / "01_data.ipynb")
    parameters = {name: value for name, value in parameters.items() if name in known}
    papermill.execute_notebook(NOTEBOOKS / "01_data.ipynb", place / "01 ö.ipynb", parameters, **options)
    assert (place / "läufe" / "erster 1" / "metrics.json").is_file() and list((place / "data" / "phantom").iterdir())


def test_a_run_in_a_folder_with_spaces_and_other_letters(toy, tmp_path, monkeypatch):
    place = tmp_path / ODD
    source, names = pictures(place / "Schnitte – 肺")
    assert len(decode(source, names, 48, place / "cache", progress=False)[0]) == 6
    fitted(place / "lauf")
    assert len(read_last(place / "lauf" / "checkpoints" / "last.pt")["history"]) == 2
    monkeypatch.chdir(source)
    notebook = toy("01_toy", "import os\nos.getcwd()")
    assert main(["run", str(notebook), "-p", "run_dir", str(place / "aus führung")]) == 0
    assert (place / "aus führung" / "01_toy.ipynb").is_file()
    if not WINDOWS:  # where a whole path has 260 letters at most
        replace_file(place / ("ö" * 120 + ".csv"), lambda path: path.write_text("about as long as a name may be"))


def test_nothing_depends_on_fork():
    """Where the start method is spawn, as on Windows and macOS, nothing changes: the course starts no such process."""
    for path in (PROJECT / "covid_utils").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        words = {word.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords}
        assert not names & {"fork", "get_context"} and "num_workers" not in words, path.name


def test_a_clock_that_jumps_back_changes_nothing(tmp_path, monkeypatch):
    fitted(tmp_path / "steady")
    back = itertools.count(2_000_000_000, -86_400)  # a day earlier each time that it is looked at
    monkeypatch.setattr(time, "time", lambda: float(next(back)))
    monkeypatch.setattr(time, "time_ns", lambda: next(back) * 10**9)
    fitted(tmp_path / "run", epochs=2)
    assert_same_bits(outcome(tmp_path / "run"), outcome(tmp_path / "steady"))
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history.seconds.between(0, 600).all()
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    os.utime(last, (1, 1))  # as written in 1970
    assert "Loaded the run model" in find_or_train(tiny_data(), settings_in(tmp_path), "run")[2]
    source, names = pictures(tmp_path / "slices")
    first = decode(source, names, 48, tmp_path / "cache", progress=False)[0]
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(source / "0.png")
    os.utime(source / "0.png", (10**9, 10**9))  # newer slices, and an older date
    again = decode(source, names, 48, tmp_path / "cache", progress=False)[0]
    assert not torch.equal(first[0], again[0]) and torch.equal(first[1:], again[1:])
    clocks = {"time.time(", "time.time_ns(", "datetime.now(", "datetime.today("}
    used = {path.name: clocks & set(re.findall(r"\b(?:date)?time\.\w+\(", path.read_text(encoding="utf-8")))
            for path in (PROJECT / "covid_utils").rglob("*.py")}  # fmt: skip
    assert {name for name, some in used.items() if some} == {"demo.py"}, "seconds come from clocks that never jump"


# ----------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize("name", ["best.safetensors", "weights.pt", "weights.safetensors"])
def test_weights_with_a_program_inside_are_refused(tmp_path, name):
    torch.save({"net.fc.weight": Bomb(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is damaged or holds no weights of ours"):
        training.new_model(settings_in(tmp_path, weights=str(tmp_path / name)))
    assert not (tmp_path / "ran").exists()


def test_caches_with_a_program_inside_are_made_anew(tmp_path, capsys):
    drawn = phantom(2, 1, 64, cache_dir=tmp_path / "phantom", progress=False)
    source, names = pictures(tmp_path / "slices")
    images, _ = decode(source, names, 48, tmp_path / "cache", progress=False)
    (npz,), (npy,) = (tmp_path / "phantom").iterdir(), (tmp_path / "cache").iterdir()
    bomb = np.array([Bomb(tmp_path / "ran")] * 40, dtype=object)
    np.savez(npz, images=bomb)
    np.save(npy, bomb, allow_pickle=True)
    assert np.array_equal(phantom(2, 1, 64, cache_dir=tmp_path / "phantom", progress=False)["images"], drawn["images"])
    assert torch.equal(decode(source, names, 48, tmp_path / "cache", progress=False)[0], images)
    assert capsys.readouterr().out.count("is damaged") == 2 and not (tmp_path / "ran").exists()


def test_nothing_unpickles_and_no_tar_is_unpacked():
    """So that no file can run a program, and none can be written beside its folder: zip is all that is unpacked."""
    for path in (PROJECT / "covid_utils").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"pickle", "tarfile", "shelve", "marshal", "dill", "joblib.numpy_pickle"}, path.name
        for node in filter(lambda node: isinstance(node, ast.Call), ast.walk(tree)):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            called = ast.unparse(node.func)
            assert called != "torch.load" or words.get("weights_only") == "True", path.name
            assert "unpack_archive" not in called and words.get("allow_pickle", "False") == "False", path.name
            assert called != "yaml.load" or words.get("Loader") == "yaml.BaseLoader", path.name


PAYLOAD = "<img src=x onerror=alert(1)>"


def test_a_payload_in_a_file_name_is_text_in_the_widget(toy_run, monkeypatch):
    controls = predict.upload(predictor.read_run(toy_run[0]))
    png = io.BytesIO()
    Image.fromarray(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)).save(png, "PNG")
    facts = {"type": "image/png", "size": 1, "last_modified": pd.Timestamp(0, tz="UTC")}
    names = {f"{PAYLOAD}.png": png.getvalue(), f"broken {PAYLOAD}.png": b"none"}
    controls["files"].value = [facts | {"name": name, "content": content} for name, content in names.items()]
    text = controls["answers"].value
    assert "<img" not in text and text.count(html.escape(PAYLOAD)) == 2


@pytest.mark.skipif(WINDOWS, reason="no folder is called so on Windows")
def test_a_payload_in_csv_files_is_text_in_tables(tmp_path, monkeypatch):
    """A patient's name, a class folder's, and the name of the data set."""
    folder, names = pictures(tmp_path / f"{PAYLOAD}", count=12)
    for split, some in zip(("train", "val", "test"), np.array_split(names, 3), strict=True):
        rows = [(name, number % 2, f"{PAYLOAD}{split}{number}") for number, name in enumerate(some)]
        pd.DataFrame(rows, columns=["filename", "label", "patient"]).to_csv(folder / f"{split}.csv", index=False)
    data = load_data(Settings(dataset=str(folder), data_dir=str(tmp_path), image_size=48), progress=False)
    assert "<img" not in data.table._repr_html_() and html.escape(PAYLOAD) in data.table.head(1).to_html()
    assert "<" not in data.name
    (folder / "val.csv").write_text(f"filename,label\n0.png,{PAYLOAD}\n")
    with pytest.raises(ValueError, match="label") as caught:
        load_data(Settings(dataset=str(folder), data_dir=str(tmp_path), image_size=48), progress=False)
    assert "\n" not in str(caught.value)


def test_a_payload_in_a_folders_name_is_text_on_the_demos_page(toy_run, monkeypatch):
    shown = []
    reader = predictor.read_run(toy_run[0])
    hostile = dataclasses.replace(reader, settings=dataclasses.replace(reader.settings, dataset=f"/x/`{PAYLOAD}*a*"))
    monkeypatch.setattr(demo, "read_run", lambda _: hostile)
    monkeypatch.setattr(demo, "display", shown.append)
    monkeypatch.setenv(demo.RUN, str(toy_run[0] / f"`{PAYLOAD}"))
    demo.page()
    said = shown[0].data
    assert "<img" not in said
    assert html.unescape(said).count(PAYLOAD) == 2


# -------------------------------------------------------------------------------------- this machine only


def test_make_lab_listens_to_this_machine_alone_and_wants_a_token(tmp_path):
    """The command of the Makefile, without its browser."""
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    quiet = re.search(r"^QUIET := (.*)", text, re.MULTILINE)[1]
    command = shlex.split(re.search(r"^\t\$\(BIN\)/jupyter (lab .*)", text, re.MULTILINE)[1].replace("$(QUIET)", quiet))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "jupyterlab", *command[1:], "--no-browser", f"--port={port}"]
    call += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={tmp_path}"] + ["--allow-root"] * ROOT
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {name: value for name, value in os.environ.items() if name != "JUPYTER_TOKEN"} | own
    with (tmp_path / "log").open("w") as log:
        lab = subprocess.Popen(call, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while (found := list((tmp_path / "RUNTIME").glob("jpserver-*.json"))) == [] and time.monotonic() < end:
            assert lab.poll() is None, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.2)
        token = json.loads(found[0].read_text())["token"]
        listening = {
            each.laddr.ip for each in psutil.Process(lab.pid).net_connections("inet") if each.status == "LISTEN"
        }
        assert listening == {"127.0.0.1"} and len(token) >= 40
        address = f"http://127.0.0.1:{port}/api/contents"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address, timeout=60)
        asked = urllib.request.Request(address, headers={"Authorization": f"token {token}"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 200
    finally:
        lab.send_signal(signal.SIGTERM)
        try:
            lab.wait(30)
        except subprocess.TimeoutExpired:
            lab.kill()
            lab.wait(30)


# --------------------------------------------------------------------------------------------- the page


def test_every_row_of_the_page_names_tests_that_exist():
    page = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    rows = [cells for cells in rows if not set(cells[0]) <= set(" -") and cells[0].strip() != "fault"]
    assert len(rows) > 20
    for cells in rows:
        assert len(cells) == 4 and all(cell.strip() for cell in cells), cells
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)", cells[3])
        assert named, f"no test shows {cells[0]!r}"
        for file, name in named:
            assert f"def {name}(" in (PROJECT / "tests" / file).read_text(encoding="utf-8"), f"{file} has no {name}"
