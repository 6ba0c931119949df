"""Each check has a green and a red case, the minutes are computed, and the command ends with an exit code."""

import os
import subprocess
import sys
import types
from importlib import metadata

import pytest
import torch

from covid_course import machine, speed
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


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        ({"numpy": "1.26.4", "timm": None}, ["numpy is 1.26.4, not >=2.0", "; timm is missing: run"]),
        ({"torch": "2.8.0"}, ["torch is 2.8.0, not ", "pip install", "make tutorial"]),  # torchvision asks for another
    ],
)
def test_an_old_python_and_packages_that_are_missing_or_do_not_fit_are_red(monkeypatch, installed, words):
    assert machine.packages().ok and machine.python().ok
    real = metadata.version

    def version(name):
        found = installed[name] if name in installed else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(machine.metadata, "version", version)
    assert red(machine.packages(), *words)
    assert machine.unmet(['nothing-of-this-name; sys_platform == "plan9"', 'nor-this; extra == "test"']) == []
    monkeypatch.setattr(machine, "sys", types.SimpleNamespace(version_info=(3, 10, 14)))
    assert red(machine.python(), "3.10.14", "make PYTHON=")


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


def test_too_little_room_is_red(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free_memory", lambda: int(machine.MEMORY * GIB))
    assert machine.memory().ok
    monkeypatch.setattr(memory, "free_memory", lambda: int(0.5 * GIB))
    assert red(machine.memory(), "0.5 GB free", "close other programs")
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    asked, usage = [], types.SimpleNamespace(free=0.2 * GIB)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    assert red(machine.disk("runs/of/mine"), "0.2 GB free", "delete", "COVID_UTILS_HOME")
    assert asked == [tmp_path]  # the nearest folder there is
    usage.free = 2 * GIB
    assert machine.disk("runs/of/mine").ok
    assert machine.folders().ok and list(tmp_path.iterdir()) == []
    (tmp_path / "runs").write_text("a file in its place")
    assert red(machine.folders(), "runs cannot be written to", "Not a directory", str(tmp_path))
    assert machine.folders(["data"]).ok


# ------------------------------------------------------------------------------------------------------- what computes


def test_what_computes_badly_is_red(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 16)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 3.0)
    assert machine.processor().ok and machine.graphics("cpu").ok
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 90.0)
    assert red(machine.processor(), "1 of 16 cores", "starts: 1;", "90 %", "close other programs")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert red(machine.graphics("cuda"), "no device 'cuda'", "device = 'cpu'")
    monkeypatch.setattr(devices, "pick_device", lambda name: torch.device("meta"))  # there, and gives no numbers
    assert red(machine.graphics(), "meta", "update the driver")


def test_it_really_trains_and_leaves_threads_and_random_numbers_alone():
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    images, labels = speed.draw()
    assert images.shape == (32, 96, 96) and images.dtype == torch.uint8 and labels.sum() == 16
    found = speed.measure(images[::4, ::3, ::3], labels[::4], "cpu", seconds=0.1)
    assert list(found) == ["float32", "one thread"] and 1 < min(found.values()) < max(found.values()) < 1_000_000
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads
    assert speed.threads({"float32": 50, "one thread": 54}).ok  # as good as equal
    assert red(speed.threads({"float32": 50, "one thread": 62}), "50", "62", "OMP_NUM_THREADS=1")


def test_minutes_follow_from_the_speed_here_and_the_recorded_runs(monkeypatch, tmp_path):
    core = {path.stem for path in find_notebooks()[1:5]}
    assert all(core <= set(run["seconds"]) for run in read_json(speed.RECORD)), "record the core's minutes anew"
    runs = [
        {"cores": 1, "slices/s": {"float32": 100}, "seconds": {"02_scratch": 60, "03_transfer": 6, "of_old": 1}},
        {"cores": 2, "slices/s": {"float32": 50}, "seconds": {"02_scratch": 120, "03_transfer": 24, "09_many": 240}},
    ]
    names = ["00_start", "02_scratch", "03_transfer", "04_new", "09_many"]
    monkeypatch.setattr(speed, "find_notebooks", lambda: [PROJECT / f"{name}.ipynb" for name in names])
    monkeypatch.setattr(speed.joblib, "cpu_count", lambda: 4)
    write_json(tmp_path / "minutes.json", runs)
    monkeypatch.setattr(speed, "RECORD", tmp_path / "minutes.json")
    expected = {"02_scratch": 1.0, "03_transfer": 0.15, "09_many": 1.0}  # 6000 slices, a median, 24000 on four cores
    assert speed.minutes({"float32": 100}) == pytest.approx(expected)
    expected |= {"09_many": 2.0}  # a training on each core: on one thread
    assert speed.minutes({"float32": 100, "one thread": 50}) == pytest.approx(expected)
    told = [check.what for check in speed.durations({"float32": 25})]
    assert told == ["about 4 min", "less than a minute", "not measured yet", "about 4 min"]
    assert red(speed.durations({"float32": 5})[0], "02_scratch", "about 20 min", "make tutorial")


# -------------------------------------------------------------------------------------------------------- as it is told


def test_without_packages_the_check_still_answers(tmp_path):
    """A package that cannot be imported is a line before the others, and a line of what needs it; no traceback."""
    for name in ("torch", "papermill"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is broken')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)])}
    command = [sys.executable, "-m", "covid_utils", "check"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and ended.stderr.strip() == "papermill is broken" and "Traceback" not in ended.stdout
    lines = ended.stdout.splitlines()
    assert lines[0].split()[:2] == ["ok", "Python"] and lines[-1].startswith("fix this:   graphics")
    assert any(line.startswith("fix this") and "torch is broken" in line for line in lines)
