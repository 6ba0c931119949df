"""Faults, really brought about: full and read-only disks, no memory, two at once, odd places, hostile files.

Kills are in `test_kills.py`; docs/reliability.md lists every fault with the test that shows it.
"""

import ast
import html
import io
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from PIL import Image
from test_training import Bomb, assert_same_bits, outcome
from toy import ToyNetwork, tiny_data

from covid_course import predict
from covid_course.notebooks import NOTEBOOKS
from covid_utils.core import backbones, memory
from covid_utils.core.files import PROJECT, clear_leftovers, replace_file, write_json
from covid_utils.core.settings import Settings, read_profile
from covid_utils.data import load_data
from covid_utils.io.datasets import cached_phantom
from covid_utils.io.images import decode
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.labs import predictor
from covid_utils.runs import feature_cache
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.load_or_train import load_or_train, new_model, train

ROOT = getattr(os, "geteuid", lambda: -1)() == 0
WINDOWS = sys.platform == "win32"
ODD = "Ärzte & Söhne, 胸部 CT 'neu' [1]"  # spaces, accents, another script, quotes, brackets


@pytest.fixture(autouse=True)
def toy_network(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "toy", backbones.Backbone(ToyNetwork, *backbones.RESNET))


def settings_in(folder, **changes):
    wanted = {"image_size": 32, "epochs": 2, "batch_size": 8, "backbone": "toy", "device": "cpu", "run_dir": folder}
    return Settings(**wanted | changes)


def fitted(folder, on_epoch=None, **changes):
    settings = settings_in(folder, **changes)
    train(new_model(settings), tiny_data(), settings, folder, on_epoch and SimpleNamespace(update=on_epoch))


def pictures(folder, count=6):
    """A folder with noisy slices, and their names."""
    folder.mkdir(parents=True, exist_ok=True)
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


def draw(folder):
    return cached_phantom(4, 2, 64, 0, "A", folder)["images"].tobytes()


def read(folder):
    return decode(*pictures(folder.parent / "slices"), 48, folder, progress=False)[0].numpy().tobytes()


def write(folder):
    replace_file(folder / "results.csv", lambda path: path.write_text("x" * 50_000))
    return (folder / "results.csv").read_bytes()


@pytest.mark.parametrize("work", [draw, read, write])
def test_a_full_or_read_only_disk_while_drawing_decoding_and_writing(disk, tmp_path, work):
    filler = fill(disk[0], spare=4096)
    with pytest.raises(OSError, match=rf"Cannot write .*: {FULL} folder with run_dir or data_dir"):
        work(disk[0])
    assert [path.name for path in disk[0].iterdir()] == ["filler"]
    filler.unlink()
    disk[1]("ro")
    with pytest.raises(OSError, match="Cannot write .*: Read-only file system"):
        work(disk[0])
    disk[1]("rw")
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


# --------------------------------------------------------------------------------------- no memory

NO_MEMORY = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
import psutil
from toy import ToyNetwork, tiny_data
from covid_utils.core import backbones
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.runs.load_or_train import new_model, train

backbones.BACKBONES["toy"] = backbones.Backbone(ToyNetwork, *backbones.RESNET)
folder = Path(sys.argv[1])

def fit(**changes):
    wanted = dict(image_size=32, epochs=2, batch_size=8, backbone="toy", device="cpu", run_dir=folder / "run")
    settings = Settings(**wanted | changes)
    train(new_model(settings), tiny_data(size=settings.image_size), settings, folder / "run")

def said(work):
    try:
        work()
    except MemoryError as error:
        print(error, flush=True)

fit(epochs=1)
room = psutil.Process().memory_info().vms + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
said(lambda: fit(image_size=1000, batch_size=32, resume=False))
said(lambda: load_data(Settings(dataset="phantom", patients=1_000_000, image_size=1024, data_dir=folder), False))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process lower its own memory")
def test_without_memory_it_is_said_what_to_lower(tmp_path):
    """A process that may take 300 MB more than it has."""
    own = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'tests'}", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-W", "error", "-c", NO_MEMORY, str(tmp_path)]
    ended = subprocess.run(call, env=os.environ | own, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    train, draw = ended.stdout.splitlines()
    assert re.match(r"Epoch 1: out of memory: lower batch_size \(now 32\) or image_size \(now 1000\)", train)
    assert draw.startswith("Out of memory: lower patients or image_size")


def test_what_is_out_of_memory_on_other_devices():
    said = "CUDA out of memory. Tried to allocate 2.00 GiB"
    assert memory.out_of_memory(torch.OutOfMemoryError(said)) and memory.out_of_memory(MemoryError())
    assert memory.out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert not memory.out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"), memory.enough_memory("nothing"):
        raise RuntimeError("shapes do not fit")


# --------------------------------------------------------------------------- temporary files, two at once


def test_leftovers_are_deleted_and_what_a_living_process_writes_is_not(tmp_path):
    """The owner is another process: it says that it has begun, waits, and ends."""
    script = """
import sys
from pathlib import Path
from covid_utils.core.files import temporary_beside
with temporary_beside(Path(sys.argv[1])) as file, temporary_beside(Path(sys.argv[2]), folder=True) as folder:
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
            replace_file(targets[0], lambda path: path.write_text("whole"))
            assert len(hidden(tmp_path)) == 2, "a living process keeps what it writes"
            owner.kill() if kill else owner.communicate("go on\n", timeout=30)
        for target in targets:
            clear_leftovers(target)
        assert not hidden(tmp_path) and targets[0].read_text() == ("whole" if kill else "half")
    assert (targets[1] / "part").exists()


@pytest.mark.skipif(WINDOWS, reason="Windows has no umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_files_are_as_the_umask_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", {})
        save_weights(tmp_path / "a.safetensors", {"w": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def test_a_users_own_hidden_files_and_another_machines_stay(tmp_path):
    names = (".a.csv", ".a.csv.swp", ".a.csv.12345678.csv", ".b.csv.new-abc.csv", ".a.csv.new-0123abcd-999-abcd.csv")
    own = [tmp_path / name for name in names]
    for path in own:
        path.touch()
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
    model, history, _ = load_or_train(tiny_data(), settings_in(tmp_path, epochs=3), "run")
    assert len(history) == 3 and torch.equal(
        model.net.fc.weight, read_weights(folder / "checkpoints" / "best.safetensors")[0]["net.fc.weight"]
    )


# ------------------------------------------------------------------------------------------ odd places


@pytest.mark.weekly
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


# ----------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize("name", ["best.safetensors", "weights.pt", "weights.safetensors"])
def test_weights_with_a_program_inside_are_refused(tmp_path, name):
    torch.save({"net.fc.weight": Bomb(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is damaged or holds no weights of ours"):
        new_model(settings_in(tmp_path, weights=str(tmp_path / name)))
    assert not (tmp_path / "ran").exists()


def test_caches_with_a_program_inside_are_made_anew(tmp_path, capsys):
    source = pictures(tmp_path / "slices")
    bomb = np.array([Bomb(tmp_path / "ran")] * 40, dtype=object)

    def both():
        drawn = cached_phantom(2, 1, 64, 0, "A", tmp_path / "phantom")["images"]
        return drawn.tobytes(), decode(*source, 48, tmp_path / "cache", progress=False)[0].numpy().tobytes()

    first = both()
    (npz,), (npy,) = (tmp_path / "phantom").iterdir(), (tmp_path / "cache").iterdir()
    np.savez(npz, images=bomb)
    np.save(npy, bomb, allow_pickle=True)
    assert both() == first and capsys.readouterr().out.count("is damaged") == 2 and not (tmp_path / "ran").exists()


def test_nothing_unpickles_and_no_tar_is_unpacked():
    """So that no file can run a program, and none can be written beside its folder: zip is all that is unpacked."""
    packages = ("ct_phantom", "covid_utils", "covid_course")
    for path in [path for package in packages for path in (PROJECT / package).rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"pickle", "tarfile", "shelve", "marshal", "dill", "joblib.numpy_pickle"}, path.name
        for node in filter(lambda node: isinstance(node, ast.Call), ast.walk(tree)):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            called = ast.unparse(node.func)
            assert called != "torch.load" or words.get("weights_only") == "True", path.name
            assert "unpack_archive" not in called and words.get("allow_pickle", "False") == "False", path.name
            assert called != "yaml.load" or words.get("Loader") == "_Texts", path.name  # a BaseLoader


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
def test_a_payload_in_csv_files_is_text_in_tables(tmp_path):
    """A patient's name, and the name of the data set."""
    folder, names = pictures(tmp_path / PAYLOAD, count=12)
    for split, some in zip(("train", "val", "test"), np.array_split(names, 3), strict=True):
        rows = [(name, number % 2, f"{PAYLOAD}{split}{number}") for number, name in enumerate(some)]
        pd.DataFrame(rows, columns=["filename", "label", "patient"]).to_csv(folder / f"{split}.csv", index=False)
    data = load_data(Settings(dataset=str(folder), data_dir=str(tmp_path), image_size=48), progress=False)
    assert "<img" not in data.table._repr_html_() and html.escape(PAYLOAD) in data.table.head(1).to_html()
    assert "<" not in data.name


def test_make_lab_listens_to_this_machine_alone_and_wants_a_token():
    """The token is JupyterLab's default, which the Makefile does not change."""
    (command,) = re.findall(r"^\t\$\(BIN\)/jupyter lab .*", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert "--ip=127.0.0.1" in command and not re.search("token|password|allow", command, re.IGNORECASE)


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
