"""Sweeps: plans that are checked, and runs on real Dask schedulers and workers that fail, are killed, and go on."""

import dataclasses
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import distributed
import filelock
import pandas as pd
import psutil
import pytest
import yaml
from distributed.system import memory_limit
from toy import started

from covid_course import sweep
from covid_course.commands import GOES_ON, main
from covid_course.plans import read_plan
from covid_utils.core.files import PROJECT, read_json
from covid_utils.core.settings import read_profile

RECORD = """
import os

from covid_utils.core.files import resolve, write_json

auc = {"value": epochs / 10, "low": 0.05, "high": 0.95}
toy = {"auc": auc, "confusion": [[1, 2]], "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
toy["trimmed"] = "MALLOC_TRIM_THRESHOLD_" in os.environ
write_json(resolve(run_dir) / "metrics.json", {"toy": toy})
"""
FAIL = """
import os, signal, time

if epochs == 2 and not os.path.exists({cure!r}):
    raise OSError('two\\nis ill')
if epochs == 3 and not os.path.exists({cure!r}):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""
WAIT = "import os, time\n\nwhile epochs == 2 and not os.path.exists({file!r}):\n    time.sleep(0.1)"


def until(true, seconds=300):
    """Wait until a function says something true, also on a busy machine, and return that."""
    for _ in range(10 * seconds):
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not true after {seconds} s")


def written(tmp_path, **plan):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def one_run(notebook, tmp_path):
    (tmp_path / "all").mkdir(exist_ok=True)
    return read_plan({"notebooks": [notebook], "folder": tmp_path / "all"})[1][0]


# ------------------------------------------------------------------------------------------- plans


def test_a_plan_becomes_checked_runs_in_folders_of_their_own(toy, tmp_path, monkeypatch):
    notebook = toy("01_toy")
    folder, runs = read_plan({"notebooks": [notebook], "folder": tmp_path / "all", "grid": {"epochs": [10, 11]}})
    assert folder == tmp_path / "all" and [run.parameters for run in runs] == [{"epochs": 10}, {"epochs": 11}]
    assert [run.name[:-13] for run in runs] == ["epochs=10", "epochs=11"] and len({run.folder for run in runs}) == 2
    path = written(tmp_path, notebooks=[str(notebook)], grid={"epochs": ["10", "11"]})
    folder, texts = read_plan(path)
    assert folder.name == path.stem and [run.name for run in texts] == [run.name for run in runs]
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
        ({"folder": None}, "`folder` must be the path"),
        ({"parameters": {"epoch": 3}}, "Unknown parameter 'epoch': did you mean 'epochs'"),
        ({"parameters": {"weights": "bundled"}}, "weights has no effect on 02_scratch.ipynb"),
        ({"parameters": {"run_dir": "runs/x"}}, "name their common folder with `folder`"),
        ({"grid": {"epochs": []}}, "`epochs` must be a list of at least one entry"),
        ({"grid": {"epochs": [3, "3"]}}, "Two runs are the same"),
        ({"list": [{"seed": 3}], "seeds": [1]}, "seed is given twice"),
    ],
)
def test_a_wrong_plan_is_one_sentence_before_anything_starts(change, words, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        sweep.sweep({"notebooks": ["02"], "folder": str(tmp_path / "all")} | change)
    assert "\n" not in str(caught.value) and not (tmp_path / "all").exists()


def test_profiles_and_the_plans_of_the_benchmarks_can_be_used():
    profiles = {path.stem: read_profile(path) for path in PROJECT.glob("notebooks/profiles/*.yaml")}
    assert set(profiles) == {"quick", "smoke", "article", "best"}
    assert all(name == "smoke" or profile["run_dir"] == f"runs/{name}" for name, profile in profiles.items())
    for path in PROJECT.glob("benchmarks/sweeps/*.yaml"):
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
    assert [(each["CUDA_VISIBLE_DEVICES"], each["OMP_NUM_THREADS"]) for each in workers] == [("2", "4"), ("GPU-5", "4")]
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")  # OpenMP's list for nested loops: the first one counts
    assert sweep.environments(1) == [dict.fromkeys(workers[0], "1") | {"CUDA_VISIBLE_DEVICES": "2"}]


def test_a_sweep_of_the_command_line_and_its_rerun(toy, tmp_path, monkeypatch, capfd):
    """Two GPUs that are not there, a run that fails, a worker that is killed, and a rerun of only these two."""
    cure, folder = tmp_path / "cure", tmp_path / "all"
    notebook = toy("01_toy", FAIL.format(cure=str(cure)), RECORD)
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(folder), grid={"epochs": [1, 2, 3]})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert main(["sweep", str(plan)]) == 1
    out, err = capfd.readouterr()
    table = pd.read_csv(folder / "results.csv")
    assert err == "" and table.status.tolist() == ["finished", "failed", "failed"]
    assert (table["toy.auc"][0], table["toy.auc.low"][0]) == (0.1, 0.05) and table["toy.auc"].notna().sum() == 1
    assert table["toy.gpu"][0] in (3, 5) and not table["toy.trimmed"][0], "kernels keep their memory: twice as fast"
    assert table.error[1].partition(" The notebook")[0] == "01_toy.ipynb stopped at cell In [4]: OSError: two is ill"
    assert table.error[1].endswith("01_toy.failed.ipynb.") and "died" in table.error[2] and table.seconds[1] > 0
    assert "1 of 3 runs finished" in out and f"failed: {table.name[1]}: {table.error[1]}" in out
    (made,) = folder.glob("*/01_toy.ipynb")
    moment = made.stat().st_mtime_ns

    cure.touch()
    assert main(["sweep", str(plan)]) == 0
    assert made.stat().st_mtime_ns == moment and pd.read_csv(folder / "results.csv").status.eq("finished").all()
    assert {path.name for path in folder.glob("*/*")} == {"01_toy.ipynb", "metrics.json", "run.json"}


def test_ctrl_c_leaves_what_is_finished(toy, tmp_path):
    """While it runs, nobody outside this machine can reach it, and a second process is refused."""
    notebook, folder = toy("01_toy", WAIT.format(file="/none"), RECORD), tmp_path / "all"
    plan = written(tmp_path, notebooks=[str(notebook)], folder=str(folder), grid={"epochs": [1, 2]})
    with started("sweep", str(plan), stderr=subprocess.PIPE) as running:
        until(lambda: {read_json(each)["status"] for each in folder.glob("*/run.json")} == {"finished", "missing"})
        tree = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        pids = {process.pid for process in tree}
        open_to = [each for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.pid in pids]
        assert len(open_to) > 3 and {each.laddr.ip for each in open_to} == {"127.0.0.1"}
        with pytest.raises(OSError, match="Another process is at work in .*all: wait"):
            sweep.sweep(plan)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        out, err = running.communicate(timeout=300)
        assert (running.returncode, out, err.strip()) == (130, "", f"Stopped. {GOES_ON[True]}")
        assert pd.read_csv(folder / "results.csv").status.tolist() == ["finished", "missing"]
        assert not psutil.wait_procs(tree, timeout=60)[1], "no worker and no kernel stays behind"


@pytest.mark.weekly
def test_a_cluster_that_exists(toy, tmp_path):
    """Its address is enough; and a scheduler that goes away."""
    go_on, folder = tmp_path / "go on", tmp_path / "all"
    notebook = toy("01_toy", WAIT.format(file=str(go_on)), RECORD)
    plan = {"notebooks": [notebook], "folder": folder, "grid": {"epochs": [1, 2]}}
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    )
    with ThreadPoolExecutor() as pool:
        running = pool.submit(sweep.sweep, plan, cluster.scheduler_address)
        until(lambda: list(folder.glob("epochs=2*/run.json")))
        pool.submit(cluster.close)
        with pytest.raises(OSError, match="scheduler went away. Finished runs stay: start the same sweep again."):
            running.result(timeout=300)
        assert pd.read_csv(folder / "results.csv").status.tolist() == ["finished", "missing"]
        go_on.touch()
    with pytest.raises(OSError, match="No scheduler answers at tpc://127.0.0.1:9 "):
        sweep.sweep(plan | {"folder": tmp_path / "other"}, "tpc://127.0.0.1:9")


# ------------------------------------------------------------------------------------------ one run


def test_a_run_is_made_once_by_one_process(toy, tmp_path):
    """Another worker is at it, as after Ctrl-C of a sweep on a cluster: this one waits, and takes its result."""
    run = one_run(toy("01_toy", RECORD), tmp_path)
    first, result = sweep.execute_run(run), Path(run.folder) / "metrics.json"
    moment, record = result.stat().st_mtime_ns, Path(run.folder) / "run.json"
    record.rename(tmp_path / "run.json")
    with ThreadPoolExecutor() as pool:
        with filelock.FileLock(Path(run.folder).with_name(f".{Path(run.folder).name}.lock")):
            second = pool.submit(sweep.execute_run, run)
            time.sleep(0.5)
            (tmp_path / "run.json").rename(record)
        assert second.result(timeout=300) == first and first["status"] == "finished"
    assert result.stat().st_mtime_ns == moment
    record.write_text(record.read_text()[:40])  # damaged, it counts for nothing
    assert sweep.execute_run(run)["status"] == "finished" and result.stat().st_mtime_ns != moment


def test_a_changed_notebook_begins_in_an_empty_folder_and_is_noticed_on_the_way(toy, tmp_path, monkeypatch):
    """And an error of any kind is a row."""
    keep = "from covid_utils.core.files import resolve\n(resolve(run_dir) / 'checkpoint').write_text('old')"
    old = one_run(toy("01_toy", keep), tmp_path)
    assert sweep.execute_run(old)["status"] == "finished"
    notebook = toy("01_toy", RECORD)
    row = sweep.execute_run(dataclasses.replace(old, parameters=old.parameters | {"epochs": 5}))
    assert row["status"] == "failed" and "01_toy.ipynb was changed while this sweep ran" in row["error"]
    row = sweep.execute_run(one_run(notebook, tmp_path))
    assert row["status"] == "finished" and not (Path(old.folder) / "checkpoint").exists()
    elsewhere = dataclasses.replace(old, folder=str(tmp_path / "not shared" / "run"))
    assert "The worker does not see" in sweep.execute_run(elsewhere)["error"]
    monkeypatch.setattr(sweep, "execute", None)
    assert sweep.execute_run(one_run(toy("02_toy"), tmp_path))["error"].startswith("TypeError: 'NoneType'")
