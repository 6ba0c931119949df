"""Sweeps: plans that are checked, and runs on real Dask schedulers and workers that fail, are killed, and go on."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from distributed.system import memory_limit

from covid_course import sweep
from covid_course.commands import GOES_ON, main
from covid_course.plans import Run, read_plan
from covid_utils.core.files import PROJECT, read_json
from covid_utils.core.settings import read_profile

PYTHON = [sys.executable, "-m"]
RECORD = """
import os

from covid_utils.core.files import resolve, write_json

auc = {"value": epochs / 10, "low": 0.05, "high": 0.95}
where = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
where["trimmed"] = "MALLOC_TRIM_THRESHOLD_" in os.environ
toy = {"auc": auc, "confusion": [[1, 2]], "worker": os.getppid()} | where
write_json(resolve(run_dir) / "metrics.json", {"toy": toy})
"""
KILL = """
import os, signal, time

if epochs == 9:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""


def until(true, seconds=60):
    """Wait until a function says something true, and return that."""
    for _ in range(10 * seconds):
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not true after {seconds} s")


def finished(folder):
    """How many runs of the sweep in this folder are finished."""
    return sum(read_json(path)["status"] == "finished" for path in folder.glob("*/run.json"))


def written(tmp_path, **plan):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def started(*arguments, **options):
    """A process in a session of its own, as a terminal's command is; SIGINT reaches it however this one was started."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*PYTHON, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, cwd=PROJECT, **options,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, old)


def scheduler_and_worker(folder):
    """A Dask scheduler and a worker in processes of their own, and the scheduler's address."""
    file = folder / "scheduler.json"
    here = ["--host=127.0.0.1", "--no-dashboard"]
    scheduler = started("dask", "scheduler", *here, "--port=0", f"--scheduler-file={file}",
                        "--dashboard-address=127.0.0.1:0")  # fmt: skip
    address = until(lambda: file.exists() and read_json(file)["address"])
    worker = started("dask", "worker", address, *here, "--nthreads=1", f"--local-directory={folder}")
    return scheduler, worker, address


# ------------------------------------------------------------------------------------------- plans


def test_a_plan_becomes_checked_runs_in_folders_of_their_own(toy, tmp_path):
    notebook = toy("01_toy")
    plan = {"notebooks": [notebook], "folder": tmp_path / "all", "grid": {"epochs": np.arange(10, 12)}}
    folder, runs = read_plan(plan)
    assert folder == tmp_path / "all"
    assert [run.parameters for run in runs] == [{"epochs": 10}, {"epochs": 11}]
    assert [run.name[:-13] for run in runs] == ["epochs=10", "epochs=11"] and len({run.folder for run in runs}) == 2
    fixed = {"notebooks": [notebook], "folder": "x", "parameters": {"image_size": 64}, "list": [{"epochs": 10}]}
    (other,) = read_plan(fixed)[1]
    assert other.name.startswith("epochs=10-") and other.name != runs[0].name, "other parameters, another run"
    path = written(tmp_path, notebooks=[str(notebook)], grid={"epochs": ["10", "11"]})
    folder, texts = read_plan(path)
    assert folder.name == path.stem and [run.name for run in texts] == [run.name for run in runs]


def test_seeds_vary_fastest_and_names_are_fit_for_files(monkeypatch, tmp_path):
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    (tmp_path / "a b.safetensors").touch()
    plan = {"notebooks": ["03"], "folder": "x", "seeds": range(2), "grid": {"weights": ("scratch", "a b.safetensors")}}
    names = [run.name[:-13] for run in read_plan(plan)[1]]
    assert names == [f"weights={weights},seed={seed}" for weights in ("scratch", "a-b") for seed in (0, 1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"notebook": "02"}, "Unknown key 'notebook': did you mean 'notebooks'"),
        ({"notebooks": ["77_none"]}, "No notebook 77_none: give a file, or one of"),
        ({"notebooks": []}, "`notebooks` must be a list of at least one entry"),
        ({"notebooks": ["notebooks/02_scratch.ipynb", "02"]}, "Two notebooks have the same name"),
        ({"folder": None}, "needs a `folder`"),
        ({"parameters": {"epoch": 3}}, "Unknown parameter 'epoch': did you mean 'epochs'"),
        ({"parameters": {"epochs": 1.5}}, "epochs: .* integer, not 1.5"),
        ({"parameters": {"weights": "bundled"}}, "weights has no effect on 02_scratch.ipynb"),
        ({"parameters": {"run_dir": "runs/x"}}, "name their common folder with `folder`"),
        ({"parameters": [3]}, "`parameters` must hold `name: value`"),
        ({"list": [3]}, "`list` must hold `name: value`"),
        ({"grid": {"epochs": []}}, "`epochs` must be a list of at least one entry"),
        ({"grid": {"epochs": 3}}, "`epochs` must be a list"),
        ({"grid": {"epochs": [3, "1e1"]}}, "epochs: .* integer.*, not '1e1'"),
        ({"grid": {"epochs": [3, "3"]}}, "Two runs are the same"),
        ({"list": [{"seed": 3}], "seeds": [1]}, "seed is given twice"),
        ({"parameters": {"seed": 3}, "seeds": [1]}, "seed is given twice"),
        ({"seeds": 5}, "`seeds` must be a list"),
        ({"parameters": {"dataset": "phantom-c"}}, "Unknown dataset 'phantom-c', and nothing at .*: did you mean"),
        ({"notebooks": ["03"], "grid": {"weights": ["scratch", "bundeld"]}}, "Unknown weights 'bundeld'.*'bundled'"),
    ],
)
def test_a_wrong_plan_is_one_sentence_before_anything_starts(change, words, tmp_path):
    plan = {"notebooks": ["02"], "folder": str(tmp_path / "all")} | change
    with pytest.raises(ValueError, match=words) as caught:
        sweep.sweep(plan)
    assert "\n" not in str(caught.value) and not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [("{}", "can't be read as a notebook"), ("no JSON", "can't be read as a notebook"), (None, "is no plain Python")],
)
def test_a_notebook_that_is_none(toy, tmp_path, content, words):
    path = toy("01_toy")
    path.write_text(content or path.read_text().replace("epochs = ", "%epochs = "))
    with pytest.raises(ValueError, match=words) as caught:
        read_plan({"notebooks": [path], "folder": tmp_path / "all"})
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_and_a_file_that_cannot_be_read(toy, tmp_path, capsys):
    (tmp_path / "file").touch()
    plan = {"notebooks": [str(toy("01_toy"))], "folder": str(tmp_path / "file" / "all")}
    assert main(["sweep", str(written(tmp_path, **plan))]) == 1
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert "Cannot write" in told[0] and "choose another folder" in told[0] and "Cannot read" in told[-1]


@pytest.mark.parametrize("path", sorted(PROJECT.glob("notebooks/profiles/*.yaml")), ids=lambda path: path.stem)
def test_profiles_hold_parameters(path):
    profile = read_profile(path)
    assert profile and (path.stem == "smoke" or profile["run_dir"] == f"runs/{path.stem}")
    assert {path.stem for path in path.parent.iterdir()} == {"quick", "smoke", "article", "best"}


@pytest.mark.parametrize("path", sorted(PROJECT.glob("benchmarks/sweeps/*.yaml")), ids=lambda path: path.stem)
def test_plans_of_the_benchmarks_can_be_run(path):
    folder, runs = read_plan(path)
    assert folder.name == path.stem and len(runs) > 1


# ------------------------------------------------------------------------------------------ workers


def test_cores_and_gpus_are_divided_among_the_workers(monkeypatch):
    monkeypatch.setattr(sweep.joblib, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sweep, "MEMORY", 1)
    assert [worker["OMP_NUM_THREADS"] for worker in sweep.environments(100)] == ["1"] * 8
    assert [worker["OMP_NUM_THREADS"] for worker in sweep.environments(3)] == ["2"] * 3
    monkeypatch.setattr(sweep, "MEMORY", memory_limit() // 3)
    assert len(sweep.environments(100)) == 3, "no more runs at once than fit into the memory"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    workers = sweep.environments(100)
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in workers] == ["2", "GPU-5"]
    assert [worker["OMP_NUM_THREADS"] for worker in workers] == ["4", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")  # OpenMP's list for nested loops: the first one counts
    assert sweep.environments(1) == [dict.fromkeys(workers[0], "1") | {"CUDA_VISIBLE_DEVICES": "2"}]


def test_a_sweep_of_the_command_line_and_its_rerun(toy, tmp_path):
    """Two GPUs that are not there, a run that fails, a worker that is killed, and a rerun of only these two."""
    cure = tmp_path / "cure"
    ill = f"import pathlib\nif epochs == 2 and not pathlib.Path({str(cure)!r}).exists():\n    "
    ill += "raise OSError('two\\nis ill')"
    kill = KILL.replace("epochs == 9", f"epochs == 4 and not os.path.exists({str(cure)!r})")
    notebook, folder = toy("01_toy", ill, kill, RECORD), tmp_path / "all"
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(folder), grid={"epochs": [1, 2, 3, 4]})
    call = [*PYTHON, "covid_utils", "sweep", str(plan)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "3,5"}
    first = subprocess.run(call, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert (first.returncode, first.stderr) == (1, "")
    table = pd.read_csv(folder / "results.csv")
    assert table.status.tolist() == ["finished", "failed", "finished", "failed"]
    assert table["toy.auc"].dropna().tolist() == [0.1, 0.3] and table["toy.auc.low"][0] == 0.05
    assert set(table["toy.CUDA_VISIBLE_DEVICES"].dropna()) <= {3, 5}  # a fast worker may take all
    assert set(table["toy.trimmed"].dropna()) == {False}, "kernels keep their memory: twice as fast"
    assert table["toy.auc"].notna().equals(table.status == "finished") and (table.seconds[:3] > 0).all()
    assert table.error[1].partition(" The notebook")[0] == "01_toy.ipynb stopped at cell In [4]: OSError: two is ill"
    assert table.notebook[1].endswith("01_toy.failed.ipynb") and "died" in table.error[3]
    assert "2 of 4 runs finished" in first.stdout and f"failed: {table.name[1]}: {table.error[1]}" in first.stdout
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*/01_toy.ipynb")}
    assert len(made) == 2

    cure.touch()
    assert subprocess.run(call, cwd=PROJECT, env=environment, timeout=120).returncode == 0
    assert all(path.stat().st_mtime_ns == moment for path, moment in made.items())
    assert pd.read_csv(folder / "results.csv").status.eq("finished").all()
    assert {path.name for path in folder.glob("*/*")} == {"01_toy.ipynb", "metrics.json", "run.json"}


def test_ctrl_c_leaves_what_is_finished(toy, tmp_path):
    """While it runs, nobody outside this machine can reach it, and a second process is refused."""
    notebook, folder = toy("01_toy", "import time\ntime.sleep(600 if epochs > 1 else 0)", RECORD), tmp_path / "all"
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(folder), grid={"epochs": [1, 2, 3]})
    running = started("covid_utils", "sweep", plan)
    until(lambda: finished(folder) and len(list(folder.glob("*/run.json"))) > 1)
    tree = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
    listening = [each.laddr.ip for each in psutil.net_connections("tcp") if each.status == "LISTEN" and
                 each.pid in {process.pid for process in tree}]  # fmt: skip
    assert len(listening) > 3 and set(listening) == {"127.0.0.1"}
    with pytest.raises(OSError, match="Another process is at work in .*all: wait"):
        sweep.sweep(plan)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert err.strip() == f"Stopped. {GOES_ON[True]}"
    assert pd.read_csv(folder / "results.csv").status.tolist() == ["finished", "missing", "missing"]
    assert not psutil.wait_procs(tree, timeout=15)[1], "no worker and no kernel stays behind"


def test_a_cluster_that_exists(toy, tmp_path):
    """What counts as finished there, and a scheduler that goes away."""
    notebook, folder = toy("01_toy", "import time\ntime.sleep(600 if epochs == 2 else 0)", RECORD), tmp_path / "all"
    scheduler, worker, address = scheduler_and_worker(tmp_path)

    def again(**fixed):
        """Sweep, and when each run's results were written, by its folder."""
        plan = {"notebooks": [notebook], "folder": folder, "parameters": fixed, "grid": {"epochs": [1]}}
        assert sweep.sweep(plan, address).status.tolist() == ["finished"]
        return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}

    first = again()
    assert again() == first
    wider = again(image_size=64)
    assert len(wider) == 2 and first.items() < wider.items(), "other parameters are another run"
    (name,) = first
    record = folder / name / "run.json"
    record.write_text(record.read_text()[:40])
    assert again()[name] != first[name], "a damaged record counts for nothing"

    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(folder), grid={"epochs": [1, 2]})
    running = started("covid_utils", "sweep", plan, "--scheduler", address)
    until(lambda: len(list(folder.glob("epochs=2*/run.json"))))
    scheduler.kill()
    out, err = running.communicate(timeout=90)
    for process in (worker, scheduler):
        process.terminate()
        process.communicate(timeout=30)
    assert (running.returncode, out) == (1, "")
    assert "Dask's scheduler went away. Finished runs stay: start the same sweep again." in err
    assert "Traceback" not in err
    assert pd.read_csv(folder / "results.csv").status.tolist() == ["finished", "missing"]
    with pytest.raises(OSError, match="No scheduler answers at tcp://127.0.0.1:9 "):
        sweep.sweep(plan, "tcp://127.0.0.1:9")


# ------------------------------------------------------------------------------------------ one run


def test_a_run_is_made_once_by_one_process(toy, tmp_path):
    """Two workers are given the same run, as after Ctrl-C of a sweep whose worker goes on: one waits for the other."""
    notebook = toy("01_toy", "import time\ntime.sleep(2)", RECORD)
    _, (run,) = read_plan({"notebooks": [notebook], "folder": tmp_path / "all"})
    (tmp_path / "all").mkdir()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(sweep.execute_run, [run, run]))
    assert [row["status"] for row in rows] == ["finished"] * 2 and rows[0]["seconds"] == rows[1]["seconds"]
    assert {path.name for path in Path(run.folder).iterdir()} == {"01_toy.ipynb", "metrics.json", "run.json"}


def test_a_changed_notebook_begins_in_an_empty_folder_and_is_noticed_on_the_way(toy, tmp_path):
    keep = "from covid_utils.core.files import resolve\n(resolve(run_dir) / 'checkpoint').write_text('old')"
    notebook = toy("01_toy", keep, RECORD)

    def only() -> Run:
        return read_plan({"notebooks": [notebook], "folder": tmp_path / "all"})[1][0]

    (tmp_path / "all").mkdir()
    old = only()
    assert sweep.execute_run(old)["status"] == "finished"
    toy("01_toy", RECORD)
    row = sweep.execute_run(dataclasses.replace(old, parameters=old.parameters | {"epochs": 5}))
    assert row["status"] == "failed" and "01_toy.ipynb was changed while this sweep ran" in row["error"]
    row = sweep.execute_run(only())
    assert row["status"] == "finished" and not (Path(old.folder) / "checkpoint").exists()


def test_an_error_of_any_kind_is_a_row(toy, tmp_path, monkeypatch):
    def ill(*_):
        raise KeyError("kernel")

    monkeypatch.setattr(sweep, "execute", ill)
    _, (run,) = read_plan({"notebooks": [toy("01_toy")], "folder": tmp_path / "all"})
    (tmp_path / "all").mkdir()
    assert sweep.execute_run(run)["error"] == "KeyError: 'kernel'"
