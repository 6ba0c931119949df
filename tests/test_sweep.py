"""Sweeps: plans that are checked, and runs on real Dask schedulers and workers that fail, are killed, and go on."""

import dataclasses
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import CancelledError, ProcessPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import learning_curve
import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from covid_course import cluster, sweep
from covid_course.plans import Run, read_plan
from covid_utils.core.files import PROJECT, read_json
from covid_utils.core.settings import Settings, read_profile
from covid_utils.data import load_data

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
import os, pathlib, signal, time

from covid_utils.core.files import resolve

mark = resolve(run_dir) / "killed"
if epochs == 9 or (epochs == 2 and not mark.exists()):
    with mark.open("a") as file:
        file.write("x")
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


def scheduler_in(folder):
    """A Dask scheduler in a process of its own, and its address."""
    file = folder / "scheduler.json"
    options = ["--host=127.0.0.1", "--port=0", "--no-dashboard", "--dashboard-address=127.0.0.1:0"]
    process = started("dask", "scheduler", *options, f"--scheduler-file={file}")
    return process, until(lambda: file.exists() and read_json(file)["address"])


def worker_of(address, folder):
    return started("dask", "worker", address, "--host=127.0.0.1", "--nthreads=1", "--no-dashboard",
                   f"--local-directory={folder}")  # fmt: skip


def end(*processes):
    for process in processes:
        process.terminate()
    for process in processes:
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """The address of a scheduler with two workers, each in a process of its own."""
    folder = tmp_path_factory.mktemp("dask")
    scheduler, address = scheduler_in(folder)
    workers = [worker_of(address, folder) for _ in range(2)]
    yield address
    end(*workers, scheduler)


# ------------------------------------------------------------------------------------------- plans


def test_a_plan_becomes_checked_runs_in_folders_of_their_own(toy, tmp_path):
    notebook = toy("01_toy")
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(tmp_path / "all"), parameters={"image_size": 64},
                   grid={"epochs": ["1e1", 20]})  # fmt: skip
    with pytest.raises(ValueError, match=r"Sweep .*plan\.yaml: Parameter epochs must be a whole number, not '1e1'"):
        read_plan(plan)
    folder, runs = read_plan({"notebooks": [notebook], "folder": tmp_path / "all", "grid": {"epochs": [10, 20]}})
    assert folder == tmp_path / "all"
    assert [run.parameters for run in runs] == [{"epochs": 10}, {"epochs": 20}]
    assert [run.name[:-13] for run in runs] == ["epochs=10", "epochs=20"] and len({run.folder for run in runs}) == 2
    other = read_plan(
        {"notebooks": [notebook], "folder": "x", "parameters": {"image_size": 64}, "list": [{"epochs": 10}]}
    )
    assert other[1][0].name.startswith("epochs=10-") and other[1][0].name != runs[0].name, (
        "other parameters, another run"
    )


def test_seeds_vary_fastest_and_names_are_fit_for_files(monkeypatch, tmp_path):
    plan = {
        "notebooks": ["03"],
        "folder": "x",
        "seeds": [0, 1],
        "grid": {"weights": ["scratch", "data/a b.safetensors"]},
    }
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a b.safetensors").touch()
    names = [run.name[:-13] for run in read_plan(plan)[1]]
    assert names == [f"weights={start},seed={seed}" for start in ("scratch", "a-b") for seed in (0, 1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"notebook": "02"}, "Unknown key 'notebook': did you mean 'notebooks'"),
        ({"notebooks": ["77_none"]}, "No notebook 77_none: give a file, or one of"),
        ({"notebooks": []}, "`notebooks` must be a list of at least one entry"),
        ({"folder": None}, "needs a `folder`"),
        ({"parameters": {"epoch": 3}}, "Unknown parameter 'epoch': did you mean 'epochs'"),
        ({"parameters": {"epochs": 1.5}}, "epochs must be a whole number, not 1.5"),
        ({"parameters": {"weights": "bundled"}}, "weights has no effect on 02_scratch.ipynb"),
        ({"parameters": {"run_dir": "runs/x"}}, "name the folder of all of them with `folder`"),
        ({"parameters": [3]}, "`parameters` must hold `parameter: value`"),
        ({"grid": {}}, "The grid is empty"),
        ({"grid": {"epochs": []}}, "`epochs` must be a list of at least one entry"),
        ({"grid": {"epochs": 3}}, "`epochs` must be a list"),
        ({"grid": {"epochs": [3, "three"]}}, "epochs must be a whole number, not 'three'"),
        ({"grid": {"epochs": [3, "3"]}}, "Runs 1 and 2 are the same"),
        ({"list": [{"epochs": 3}, {"epochs": 4}, {"epochs": 3}]}, "Runs 1 and 3 are the same"),
        ({"list": [{"epochs": 3}], "grid": {"epochs": [3]}}, "`grid` or a `list`, not both"),
        ({"list": [{"seed": 3}], "seeds": [1]}, "not both"),
        ({"parameters": {"seed": 3}, "seeds": [1]}, "seed is both fixed and varied"),
        ({"seeds": 5}, "`seeds` must be a list"),
        ({"parameters": {"dataset": "phantom-c"}}, "Unknown dataset 'phantom-c', and nothing at .*: did you mean"),
        ({"notebooks": ["03"], "grid": {"weights": ["scratch", "bundeld"]}}, "Unknown weights 'bundeld'.*'bundled'"),
        ({"notebooks": ["notebooks/02_scratch.ipynb", "02"]}, "Two notebooks have the same name"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_one_sentence_before_anything_starts(change, words, tmp_path):
    plan = {"notebooks": ["02"], "folder": str(tmp_path / "all")} | change
    with pytest.raises(ValueError, match=words) as caught:
        sweep.sweep(plan)
    assert "\n" not in str(caught.value) and not (tmp_path / "all").exists()


def test_plans_from_notebooks_and_files_beside_them(toy, tmp_path, monkeypatch):
    """NumPy's numbers, tuples and ranges; long values, and a notebook by its path from the plan's folder."""
    notebook = toy("01_toy")
    plan = {"notebooks": [notebook], "folder": "x", "grid": {"epochs": np.arange(1, 3), "image_size": range(64, 66)}}
    assert [tuple(run.parameters.values()) for run in read_plan(plan)[1]] == [(1, 64), (1, 65), (2, 64), (2, 65)]
    long = tmp_path / ("long" * 40)
    long.mkdir()
    plan = {"notebooks": ["02"], "folder": "x", "grid": {"dataset": [str(long)], "batch_size": (8, 9)}, "seeds": [7]}
    names = [run.name for run in read_plan(plan)[1]]
    assert len(set(names)) == 2 and all(",seed=7-" in name and len(name) <= 103 for name in names)
    monkeypatch.chdir(PROJECT.parent)
    path = notebook.parent / "plan.yaml"
    path.write_text(yaml.safe_dump({"notebooks": [notebook.name]}))
    assert list(read_plan(path)[1][0].notebooks) == [str(notebook)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "can't be read as a notebook"),
        ("no JSON", "can't be read as a notebook"),
        (None, "its cell of parameters is no plain Python"),
    ],
)
def test_a_notebook_that_is_none(toy, tmp_path, content, words):
    path = toy("01_toy")
    path.write_text(content or path.read_text().replace("epochs = ", "%epochs = "))
    with pytest.raises(ValueError, match=words) as caught:
        read_plan({"notebooks": [path], "folder": tmp_path / "all"})
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_and_a_file_that_cannot_be_read(toy, tmp_path, capsys):
    from covid_course.commands import main

    (tmp_path / "file").touch()
    plan = {"notebooks": [str(toy("01_toy"))], "folder": str(tmp_path / "file" / "all")}
    assert main(["sweep", str(written(tmp_path, **plan))]) == 1
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert (
        "Cannot write" in told[0]
        and "Name another `folder`" in told[0]
        and f"Cannot read {tmp_path / 'none.yaml'}" in told[-1]
    )


@pytest.mark.parametrize("path", sorted(PROJECT.glob("notebooks/profiles/*.yaml")), ids=lambda path: path.stem)
def test_profiles_hold_parameters(path):
    profile = read_profile(path)
    assert profile and (path.stem == "smoke" or profile["run_dir"] == f"runs/{path.stem}")
    assert {path.stem for path in path.parent.iterdir()} == {"quick", "smoke", "article", "best"}


@pytest.mark.parametrize("path", sorted(PROJECT.glob("benchmarks/sweeps/*.yaml")), ids=lambda path: path.stem)
def test_plans_of_the_benchmarks_can_be_run(path):
    folder, runs = read_plan(path)
    assert folder.name == path.stem and len(runs) > 1


# ------------------------------------------------------------------------- workers on this machine


def test_cores_and_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setattr(cluster.joblib, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(cluster, "MEMORY", 1)
    assert [share["OMP_NUM_THREADS"] for share in cluster.environments(100)] == ["1"] * 8
    assert [share["OMP_NUM_THREADS"] for share in cluster.environments(3)] == ["2"] * 3
    monkeypatch.setattr(cluster, "MEMORY", cluster.total_memory() // 3)
    assert len(cluster.environments(100)) == 3, "no more runs at once than fit into the memory"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    shares = cluster.environments(100)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["2", "GPU-5"]
    assert [share["OMP_NUM_THREADS"] for share in shares] == ["4", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")  # OpenMP's list for nested loops: the first one counts
    assert cluster.environments(1) == [dict.fromkeys(shares[0], "1") | {"CUDA_VISIBLE_DEVICES": "2"}]


def test_a_sweep_of_the_command_line_and_its_rerun(toy, tmp_path):
    """Two GPUs that are not there, a run that fails, and a rerun that makes only that one."""
    cure = tmp_path / "cure"
    sick = f"import pathlib\nif epochs == 2 and not pathlib.Path({str(cure)!r}).exists():\n    "
    sick += "raise OSError('two\\nis ill')"
    notebook, folder = toy("01_toy", sick, RECORD), tmp_path / "all"
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(folder), grid={"epochs": [1, 2, 3, 4]})
    call = [*PYTHON, "covid_utils", "sweep", str(plan)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "3,5"}
    first = subprocess.run(call, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert (first.returncode, first.stderr) == (1, "")
    table = pd.read_csv(folder / "results.csv")
    assert table.status.tolist() == ["finished", "failed", "finished", "finished"]
    assert table["toy.auc"].dropna().tolist() == [0.1, 0.3, 0.4] and table["toy.auc.low"][0] == 0.05
    assert set(table["toy.CUDA_VISIBLE_DEVICES"].dropna()) <= {3, 5}  # a fast worker may take all
    assert table["toy.CUDA_VISIBLE_DEVICES"].notna().sum() == 3
    assert set(table["toy.trimmed"].dropna()) == {False}, "kernels keep their memory: twice as fast"
    assert table.groupby("toy.worker")["toy.CUDA_VISIBLE_DEVICES"].nunique().max() == 1
    assert (table.seconds > 0).all() and table.memory_mib.between(20, 4000).all()
    assert table.error[1] == "is ill" and table.notebook[1].endswith("01_toy.failed.ipynb")
    assert (
        "3 of 4 runs finished" in first.stdout
        and f"failed: {table.name[1]}: is ill ({table.notebook[1]})" in first.stdout
    )
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*/01_toy.ipynb")}
    assert len(made) == 3

    cure.touch()
    assert subprocess.run(call, cwd=PROJECT, env=environment, timeout=120).returncode == 0
    assert all(path.stat().st_mtime_ns == moment for path, moment in made.items())
    assert len(list(folder.glob("*/01_toy.ipynb"))) == 4 and not list(folder.glob("*/*.failed.ipynb"))
    assert pd.read_csv(folder / "results.csv").status.eq("finished").all()
    assert {path.name for path in folder.glob("*/*")} == {"01_toy.ipynb", "metrics.json", "run.json"}, (
        "nothing else is left"
    )


def test_ctrl_c_leaves_what_is_finished(toy, tmp_path):
    """While it runs, nobody outside this machine can reach it, and a second process is refused."""
    notebook, folder = toy("01_toy", "import time\ntime.sleep(600 if epochs > 1 else 0)", RECORD), tmp_path / "all"
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(folder), grid={"epochs": [1, 2, 3]})
    running = started("covid_utils", "sweep", plan)
    until(lambda: finished(folder) and list(folder.glob("*/.tries")))
    tree = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
    listening = [each.laddr.ip for each in psutil.net_connections("tcp") if each.status == "LISTEN" and
                 each.pid in {process.pid for process in tree}]  # fmt: skip
    assert len(listening) > 3 and set(listening) == {"127.0.0.1"}
    with pytest.raises(OSError, match="Another process is at the sweep in .*all: wait for it"):
        sweep.sweep(plan)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert (
        err.strip() == "Stopped. Finished runs and their results.csv stay: start the same sweep again, and it goes on."
    )
    assert pd.read_csv(folder / "results.csv").status.tolist() == ["finished", "missing", "missing"]
    assert not psutil.wait_procs(tree, timeout=15)[1], "no worker and no kernel stays behind"


@pytest.mark.parametrize("moment", ["results.csv", "*/.tries"])
def test_ctrl_c_at_once_is_one_sentence(toy, tmp_path, moment):
    """While workers start, or the first kernel does: no worker has anything to say."""
    folder = tmp_path / "all"
    plan = written(tmp_path, notebooks=[str(toy("01_toy", RECORD))], folder=str(folder), grid={"epochs": [1, 2, 3]})
    running = started("covid_utils", "sweep", plan)
    until(lambda: list(folder.glob(moment)))
    tree = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    # Python itself ends by the signal if it came inside an `exec` of an import; a shell says 130 of both
    assert running.returncode in (130, -signal.SIGINT)
    assert (out, err.strip().count("\n"), err.strip()[:8]) == ("", 0, "Stopped."), err
    assert not psutil.wait_procs(tree, timeout=15)[1]


# ----------------------------------------------------- a scheduler and workers in their own processes


def test_a_cluster_that_exists_goes_on_when_its_workers_are_killed(dask, toy, tmp_path):
    plan = {"notebooks": [toy("01_toy", KILL, RECORD)], "folder": tmp_path / "all", "grid": {"epochs": [1, 2, 9]}}
    table = sweep.sweep(plan, dask).set_index("epochs")
    assert table.status.to_dict() == {1: "finished", 2: "finished", 9: "failed"}
    assert table.error.to_dict() == {1: "", 2: "", 9: cluster.KILLED}
    assert table.notebook[9].endswith("01_toy.failed.ipynb") and Path(table.notebook[9]).stat().st_size > 1000
    assert not list((tmp_path / "all").glob("*/.*")), "killed runs leave nothing lying about"
    kills = {epochs: (tmp_path / "all" / name / "killed") for epochs, name in table.name.items()}
    assert [kills[2].stat().st_size, kills[9].stat().st_size] == [1, 2], "tried once more, and not again"
    assert sweep.summary(table.reset_index()).splitlines()[0] == "2 of 3 runs finished."


def test_only_the_same_run_counts_as_done(dask, toy, tmp_path):
    notebook = toy("01_toy", RECORD)

    def again(**fixed):
        """Sweep, and when each run's results were written, by its folder."""
        plan = {"notebooks": [notebook], "folder": tmp_path / "all", "parameters": fixed, "grid": {"epochs": [1]}}
        assert sweep.sweep(plan, dask).status.tolist() == ["finished"]
        return {path.parent.name: path.stat().st_mtime_ns for path in tmp_path.glob("all/*/metrics.json")}

    first = again()
    (left,) = (path.with_name(".running") for path in tmp_path.glob("all/*/run.json"))
    left.touch()  # as a kill in the very last moment leaves it
    assert again() == first and not left.exists()
    wider = again(image_size=64)
    assert len(wider) == 2 and first.items() < wider.items(), "other parameters are another run"
    toy("01_toy", RECORD, "'another last cell'")
    (name,) = first
    assert again()[name] != first[name], "another notebook is another run"
    record = tmp_path / "all" / name / "run.json"
    record.write_text(record.read_text()[:40])
    known = again(image_size=64)
    assert again()[name] != known[name], "a damaged record counts for nothing"


def test_a_run_is_made_once_by_one_process(toy, tmp_path):
    """Two workers are given the same run, as after Ctrl-C of a sweep whose worker goes on: one waits for the other."""
    notebook = toy("01_toy", "import time\ntime.sleep(2)", RECORD)
    _, (run,) = read_plan({"notebooks": [notebook], "folder": tmp_path / "all"})
    (tmp_path / "all").mkdir()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(sweep.execute_run, [run, run], ["one", "another"]))
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
    assert row["status"] == "failed" and "01_toy.ipynb was changed after this sweep was started" in row["error"]
    row = sweep.execute_run(only())
    assert row["status"] == "finished" and not (Path(old.folder) / "checkpoint").exists()


def test_an_error_of_any_kind_is_a_row(toy, tmp_path, monkeypatch):
    def ill(*_):
        raise KeyError("kernel")

    monkeypatch.setattr(sweep, "execute", ill)
    _, (run,) = read_plan({"notebooks": [toy("01_toy")], "folder": tmp_path / "all"})
    (tmp_path / "all").mkdir()
    assert sweep.execute_run(run)["error"] == "KeyError: 'kernel'"
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "whole.json").write_text('{"n": 7, "auc": {"value": 0.5, "low": 0.4}}')
    assert sweep._flat(tmp_path / "list.json") == {}
    assert str(sweep._flat(tmp_path / "whole.json")) == "{'n': 7, 'auc': 0.5, 'auc.low': 0.4}"


def test_something_else_at_the_address_and_a_scheduler_without_workers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE", 4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(OSError, match=f"No scheduler answers at {address} "), cluster.cluster_of(address, 1):
            pass
    scheduler, address = scheduler_in(tmp_path)
    with cluster.cluster_of(address, 1):
        assert "has no workers yet" in capsys.readouterr().out
    end(scheduler)


def test_a_scheduler_that_goes_away_ends_in_one_sentence(toy, tmp_path):
    notebook = toy("01_toy", "import time\ntime.sleep(600 if epochs > 1 else 0)", RECORD)
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(tmp_path / "all"), grid={"epochs": [1, 2]})
    scheduler, address = scheduler_in(tmp_path)
    worker = worker_of(address, tmp_path)
    running = started("covid_utils", "sweep", plan, "--scheduler", address)
    until(lambda: finished(tmp_path / "all"))
    scheduler.kill()
    out, err = running.communicate(timeout=60)
    end(worker, scheduler)
    assert (running.returncode, out) == (1, "")
    assert err.strip() == "The scheduler went away. Finished runs stay: start the same sweep again, and it goes on."
    assert pd.read_csv(tmp_path / "all" / "results.csv").status.tolist() == ["finished", "missing"]
    with pytest.raises(OSError, match="No scheduler answers at tcp://127.0.0.1:9 "):
        sweep.sweep(plan, "tcp://127.0.0.1:9")


@pytest.mark.parametrize("status", ["cancelled", "finished", "error"])
@pytest.mark.parametrize("error", [CancelledError(), OSError("Stream is closed")])
def test_a_scheduler_that_goes_away_at_any_moment(monkeypatch, status, error):
    """Before a run has ended, or while its row, or its error, is on the way."""
    future = Mock(status=status, result=Mock(side_effect=error), exception=Mock(side_effect=error))
    monkeypatch.setattr("distributed.as_completed", lambda futures: [future])
    with pytest.raises(cluster.SweepError, match="The scheduler went away"):
        next(cluster.each_done(Mock(), sweep.execute_run, [Run("a", "a", {}, {})]))


def test_a_run_that_is_finished_while_the_scheduler_goes_away_counts(toy, tmp_path, monkeypatch):
    """Its worker wrote it down, but nobody was there to tell."""

    def gone(client, work, runs):
        work(runs[0])
        raise cluster.SweepError("The scheduler went away.")
        yield

    monkeypatch.setattr(sweep, "each_done", gone)
    plan = {"notebooks": [toy("01_toy", RECORD)], "folder": tmp_path / "all", "grid": {"epochs": [1, 2]}}
    with pytest.raises(cluster.SweepError):
        sweep.sweep(plan)
    table = pd.read_csv(tmp_path / "all" / "results.csv")
    assert table.status.tolist() == ["finished", "missing"] and table["toy.auc"][0] == 0.1


def test_the_notebook_of_the_learning_curve_learns_from_as_many_slices_as_it_is_given(dask, tmp_path):
    few = {"slices": 12, "patients": 20, "image_size": 32, "epochs": 2, "batch_size": 8}
    plan = {"notebooks": ["benchmarks/few_slices.ipynb"], "folder": tmp_path / "few"}
    plan["parameters"] = few | {"dataset": "phantom", "data_dir": str(tmp_path)}
    starts = [learning_curve.MODELS[name] for name in ("scratch", "transfer")]  # without and with kept features
    table = sweep.sweep(plan | {"list": starts}, dask)
    assert table.status.tolist() == ["finished"] * 2, sweep.summary(table)
    assert table["network.test.auc"].between(0, 1).all()
    data = load_data(Settings(image_size=32, patients=20, data_dir=str(tmp_path)))
    fewer = learning_curve.fewer(data, 12, 0)
    counts = fewer.table.groupby(["split", "label"]).size()
    assert counts["train"].tolist() == [6, 6] and len(fewer.images) == len(fewer.table)
    assert (counts["test"] == data.table.groupby(["split", "label"]).size()["test"]).all()
    assert learning_curve.fewer(data, 0, 0) is data


# ------------------------------------------------------------------------------------------ two hosts


@pytest.fixture
def hosts():
    """Two network namespaces as two hosts, joined by a cable: a prefix for a command on either, and both addresses."""
    names, addresses = [f"cu{os.getpid() % 10**6}{end}" for end in "ab"], ("10.213.7.1", "10.213.7.2")
    inside = [["ip", "netns", "exec", name] for name in names]
    steps = [["ip", "netns", "add", name] for name in names]
    steps += [["ip", "link", "add", names[0], "netns", names[0], "type", "veth", "peer", names[1], "netns", names[1]]]
    for prefix, name, address in zip(inside, names, addresses, strict=True):
        steps += [[*prefix, "ip", "address", "add", f"{address}/24", "dev", name]]
        steps += [[*prefix, "ip", "link", "set", device, "up"] for device in (name, "lo")]
    try:
        for step in steps:
            try:
                subprocess.run(step, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"this machine allows no network namespaces: {getattr(error, 'stderr', error)}")
        yield inside, addresses
    finally:
        for name in names if shutil.which("ip") else ():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_a_sweep_across_two_hosts(hosts, toy, tmp_path):
    """Scheduler and sweep on one host, the worker on another: what they share is a folder."""
    (near, far), (address, other) = hosts
    addresses = "import psutil\nfrom covid_utils.core.files import resolve, write_json\n"
    addresses += (
        "here = sorted(each.address for each in sum(psutil.net_if_addrs().values(), []) if '10.' in each.address)"
    )
    notebook = toy("01_toy", addresses, 'write_json(resolve(run_dir) / "metrics.json", {"toy": {"host": here[0]}})')
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(tmp_path / "all"), grid={"epochs": [1, 2]})
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": PROJECT}
    file = tmp_path / "scheduler.json"
    call = [*near, *PYTHON, "dask", "scheduler", f"--host={address}", "--port=8786", "--dashboard-address=127.0.0.1:0"]
    scheduler = subprocess.Popen([*call, f"--scheduler-file={file}"], **options)
    until(file.exists)
    call = [
        *far,
        *PYTHON,
        "dask",
        "worker",
        f"tcp://{address}:8786",
        f"--host={other}",
        "--nthreads=1",
        "--no-dashboard",
    ]
    worker = subprocess.Popen([*call, f"--local-directory={tmp_path}"], **options)
    call = [*near, *PYTHON, "covid_utils", "sweep", str(plan), "--scheduler", f"tcp://{address}:8786"]
    try:
        done = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    finally:
        end(worker, scheduler)
    assert (done.returncode, done.stderr) == (0, "")
    assert pd.read_csv(tmp_path / "all" / "results.csv")["toy.host"].tolist() == [other, other]
