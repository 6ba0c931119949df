"""Each check has a green and a red case, the minutes are computed, and the command ends with an exit code."""

import os
import subprocess
import sys
import types
from importlib import metadata

import pytest
import torch

from covid_course import machine, speed
from covid_course.commands import main
from covid_course.machine import Check
from covid_course.notebooks import find_notebooks
from covid_utils.core import device as devices
from covid_utils.core import memory
from covid_utils.core.files import PROJECT, read_json, write_json

GIB = 2**30


def red(check: Check, *words: str) -> bool:
    """Whether a check asks for something, in words."""
    line = machine.text(check)
    return not check.ok and bool(check.what_to_do) and all(word in line for word in words)


# ------------------------------------------------------------------------------------------------- what is there


def test_an_old_python_is_red(monkeypatch):
    assert machine.python().ok
    monkeypatch.setattr(machine, "sys", types.SimpleNamespace(version_info=(3, 10, 14)))
    assert red(machine.python(), "3.10.14", "make PYTHON=")


@pytest.mark.parametrize(
    ("check", "installed", "words"),
    [
        (machine.packages, {"numpy": "1.26.4", "timm": None}, ["numpy is 1.26.4, not >=2.0", "; timm is missing: run"]),
        (machine.packages, {"torch": "2.8.0"}, ["torch is 2.8.0, not ", "pip install", "make tutorial"]),
        (machine.widgets, {"jupyterlab_widgets": "1.1.0"}, ["jupyterlab_widgets is 1.1.0", "restart JupyterLab"]),
        (machine.widgets, {"jupyterlab_widgets": None}, ["jupyterlab_widgets is missing"]),
    ],
)
def test_packages_that_are_missing_or_do_not_fit_are_named(monkeypatch, check, installed, words):
    assert check().ok
    real = metadata.version

    def version(name):
        found = installed[name] if name in installed else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(machine.metadata, "version", version)
    assert red(check(), *words)


def test_a_marker_that_does_not_hold_requires_nothing():
    assert machine.unmet(['nothing-of-this-name; sys_platform == "plan9"', 'nor-this; extra == "test"']) == []


# ------------------------------------------------------------------------------------------------------- is there room


def test_a_containers_limit_counts_and_not_only_the_machine(monkeypatch, tmp_path):
    """What Linux says of control groups, in GiB; 64 GiB are free on the machine."""

    def free(limit: str, used: float = 0, cache: float = 0) -> float:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text(str(int(used * GIB)))
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {int(cache * GIB)}\n")
        return memory.free_memory() / GIB

    monkeypatch.setattr("psutil.virtual_memory", lambda: types.SimpleNamespace(available=64 * GIB))
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory() / GIB == free("max") == 64
    assert free(str(4 * GIB), used=3, cache=0.5) == 1.5 and free(str(GIB), used=2) == 0


def test_too_little_memory_is_red(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: int(machine.MEMORY * GIB))
    assert machine.memory().ok
    monkeypatch.setattr(memory, "free_memory", lambda: int(0.5 * GIB))
    assert red(machine.memory(), "0.5 GB free", "close other programs")


def test_a_full_disk_is_red(monkeypatch, tmp_path):
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    asked = []
    usage = types.SimpleNamespace(free=0.2 * GIB)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    assert red(machine.disk("runs/of/mine"), "0.2 GB free", "delete", "COVID_UTILS_HOME")
    assert asked == [tmp_path]  # the nearest folder there is
    usage.free = 2 * GIB
    assert machine.disk("runs/of/mine").ok


def test_a_folder_that_cannot_be_written_to_is_red(monkeypatch, tmp_path):
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    assert machine.folders().ok and list(tmp_path.iterdir()) == []
    (tmp_path / "runs").write_text("a file in its place")
    assert red(machine.folders(), "runs cannot be written to", "Not a directory", str(tmp_path))
    assert machine.folders(["data"]).ok


# ------------------------------------------------------------------------------------------------------- what computes


def test_a_busy_processor_is_red(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 16)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 3.0)
    assert machine.processor().ok
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 90.0)
    assert red(machine.processor(), "1 of 16 cores", "starts: 1;", "90 %", "close other programs")


def test_a_graphics_card_that_does_not_compute_is_red(monkeypatch):
    assert machine.graphics("cpu").ok
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert red(machine.graphics("cuda"), "no device 'cuda'", "device = 'cpu'")
    monkeypatch.setattr(devices, "pick_device", lambda name: torch.device("meta"))  # there, and gives no numbers
    assert red(machine.graphics(), "meta", "update the driver")


def test_what_cannot_be_checked_is_red():
    def absent():
        raise ModuleNotFoundError("No module named 'psutil'")

    first, second = machine.looked([absent, lambda: Check("other", True, "fine")])
    assert red(first, "absent", "psutil", "make tutorial") and second.ok


# ------------------------------------------------------------------------------------------------------------ how fast


@pytest.fixture
def clock(monkeypatch):
    """An epoch takes 1 s in float32 and ½ s in bfloat16, double on one thread; answering a batch takes nothing."""
    now, epochs = [0.0], []

    def train(model, batches, optimizer, scheduler, device):
        sizes = [len(images) for images, _ in batches]
        if len(sizes) > 1:  # the first step is not timed
            epochs.append((sizes, torch.get_num_threads(), model.amp))
            now[0] += (0.5 if model.amp else 1) * (2 if torch.get_num_threads() == 1 else 1)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed, "train_one_epoch", train)
    yield epochs
    torch.set_num_threads(threads)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_slices_a_second_are_counted_in_each_format_and_on_one_thread(monkeypatch, clock, bfloat16):
    monkeypatch.setattr(speed, "has_bfloat16", lambda device: bfloat16)
    found = speed.measure(*speed.draw(), "cpu", seconds=2)
    assert found == ({"bfloat16": 256} if bfloat16 else {}) | {"float32": 128, "one thread": 128 if bfloat16 else 64}
    assert all(sizes == [32] * speed.BATCHES for sizes, _, _ in clock)
    assert torch.get_num_threads() == 2
    assert speed.usual(found) == (256 if bfloat16 else 128)


def test_it_really_trains_and_leaves_the_random_numbers_alone():
    state = torch.random.get_rng_state()
    images, labels = speed.draw()
    assert images.shape == (32, 96, 96) and images.dtype == torch.uint8 and labels.sum() == 16
    assert 1 < speed.measure(images, labels, "cpu", seconds=0.1)["float32"] < 100_000
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_precision_is_named_and_threads_that_disturb_each_other_are_red():
    assert "float32" in speed.number_format({"float32": 50}).what
    assert "2.0 times as fast" in speed.number_format({"float32": 50, "bfloat16": 100}).what
    assert "slower" in speed.number_format({"float32": 50, "bfloat16": 40}).what
    assert speed.threads({"float32": 50, "one thread": 54}).ok  # as good as equal
    assert red(speed.threads({"float32": 50, "one thread": 62}), "50", "62", "OMP_NUM_THREADS=1")


def test_minutes_follow_from_the_speed_here_and_the_recorded_runs(monkeypatch, tmp_path):
    runs = [
        {"cores": 1, "slices/s": {"float32": 100}, "seconds": {"02_scratch": 60, "03_transfer": 6}},
        {"cores": 2, "slices/s": {"float32": 40, "bfloat16": 50}, "seconds": {"02_scratch": 120, "03_transfer": 30}},
    ]
    runs[1]["seconds"]["06_sweeps"] = 240  # 24,000 slices, as two cores learned 50 a second each
    monkeypatch.setattr(speed.joblib, "cpu_count", lambda: 4)
    write_json(tmp_path / "minutes.json", runs)
    monkeypatch.setattr(speed, "RECORD", tmp_path / "minutes.json")
    expected = {"02_scratch": 1.0, "03_transfer": 0.15, "06_sweeps": 1.0}  # 6000 slices; the median of 600 and 1200
    assert speed.minutes({"float32": 100}) == pytest.approx(expected)
    assert speed.minutes({"float32": 100, "bfloat16": 90}) == pytest.approx(expected)
    expected |= {"02_scratch": 0.5, "06_sweeps": 0.5}  # these gain by the other format
    assert speed.minutes({"float32": 100, "bfloat16": 200}) == pytest.approx(expected)
    expected |= {"06_sweeps": 2.0}  # a training on each core: on one thread
    assert speed.minutes({"float32": 100, "bfloat16": 200, "one thread": 50}) == pytest.approx(expected)
    first, second, _ = speed.durations({"float32": 25})
    assert first.ok and first.what == "about 4 min" and second.ok and second.what == "less than a minute"
    first, second, _ = speed.durations({"float32": 5})
    assert second.ok and red(first, "02_scratch", "about 20 min", "make tutorial")


RECORDED = read_json(speed.RECORD)


def test_every_notebook_has_its_minutes():
    names = [path.stem for path in find_notebooks()][1:]
    assert {"bfloat16" in run["slices/s"] for run in RECORDED} == {False, True}
    assert set().union(*(run["seconds"] for run in RECORDED)) == set(names), (
        "record a run anew in benchmarks/results/minutes.json"
    )
    for run in RECORDED:
        assert list(run["seconds"]) == names[: len(run["seconds"])] and len(run["seconds"]) >= 5


@pytest.mark.parametrize("run", RECORDED, ids=lambda run: run["where"])
def test_the_estimate_holds_within_a_factor_of_two_on_a_machine_that_was_not_recorded(run, monkeypatch, tmp_path):
    """Each recorded run as if only the other machines' were known."""
    write_json(tmp_path / "minutes.json", [each for each in RECORDED if each != run])
    monkeypatch.setattr(speed, "RECORD", tmp_path / "minutes.json")
    for name, minutes in speed.minutes(run["slices/s"]).items():
        seconds = run["seconds"].get(name, 60 * minutes)
        if max(seconds, 60 * minutes) > 30:  # notebook 1 takes seconds, where a factor of two does not matter
            assert 0.5 < 60 * minutes / seconds < 2, f"{name}: {seconds} s, {60 * minutes:.0f} expected"


# -------------------------------------------------------------------------------------------------------- as it is told


def test_a_line_has_a_word_and_a_colour():
    good, bad = Check("disk", True, "9 GB free"), Check("memory", False, "0.1 GB free", "close other programs")
    assert machine.text(good).split() == ["ok", "disk", "9", "GB", "free"]
    assert machine.text(bad) == "fix this:   memory          0.1 GB free: close other programs"
    *_, first, second = machine.table([good, bad]).splitlines()
    assert first == "| 🟢 ok | disk | 9 GB free |"
    assert second == "| 🔴 **fix this** | memory | 0.1 GB free<br>**To do:** close other programs |"


@pytest.mark.parametrize(("first", "last", "code"), [(True, True, 0), (False, True, 1), (True, False, 1)])
def test_the_command_ends_with_1_if_something_is_red(monkeypatch, capsys, first, last, code):
    monkeypatch.setattr(machine.looked, "__defaults__", ([lambda: Check("first", first, "found", "fix it")],))
    monkeypatch.setattr("covid_course.speed.measured", lambda: [Check("last", last, "found", "fix it")])
    assert main(["check"]) == code
    out = capsys.readouterr().out
    assert [line.split("found")[0].split()[-1] for line in out.splitlines()] == ["first", "last"]


def test_a_measurement_that_fails_is_a_line(monkeypatch, capsys):
    monkeypatch.setattr(machine.looked, "__defaults__", ([],))
    assert machine.report(lambda: torch.ones(2) @ torch.ones(3)) == 1
    assert "cannot be measured: " in capsys.readouterr().out


@pytest.mark.parametrize("broken", [["torch"], ["torch", "papermill"]])
def test_without_a_package_the_check_still_answers(tmp_path, broken):
    """A package that cannot be imported is a line, or a line before the others, and never a traceback."""
    for name in broken:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is broken')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)])}
    command = [sys.executable, "-m", "covid_utils", "check"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "Traceback" not in ended.stdout + ended.stderr
    assert ended.stderr.strip() == ("papermill is broken" if "papermill" in broken else "")
    lines = ended.stdout.splitlines()
    assert lines[0].split()[:2] == ["ok", "Python"]
    assert any(line.startswith("fix this") and "torch is broken" in line for line in lines)
    assert lines[-1].startswith("fix this:   speed")
