"""What does a sweep cost beside its runs? Overhead, memory, throughput, and threads against processes.

    .venv/bin/python benchmarks/sweep_cost.py overhead throughput threads

`overhead`: 200 runs of a notebook that does nothing, on one worker: the time that is not papermill's own, and the
memory on the way. `throughput`: 1,000 runs that only sleep, on 1, 2, 4 and 8 workers, and the processor time of the
process that holds scheduler and client. `threads`: four trainings, two at a time with one thread each, and one after
the other with two, in turns. Results go to benchmarks/results/sweep_cost.json; benchmarks/tables.py writes them into
docs/scale.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import nbformat
import papermill
import psutil

from covid_course import cluster
from covid_course.plans import read_plan
from covid_course.sweep import _Table, execute_run
from covid_utils.core.files import PROJECT, read_json, write_json

RESULTS = PROJECT / "benchmarks" / "results" / "sweep_cost.json"
SLEEP = 0.1  # seconds of a simulated run
MIB = 2**20


def watched_run(run, token: str = "") -> dict:
    """`execute_run`, with the seconds that are papermill's own and the worker's memory in the row."""
    spent, real = [], papermill.execute_notebook

    def timed(*arguments, **options):
        begun = time.perf_counter()
        try:
            return real(*arguments, **options)
        finally:
            spent.append(time.perf_counter() - begun)

    with patch.object(papermill, "execute_notebook", timed):
        row = execute_run(run, token)
    return row | {"papermill": sum(spent), "worker_mib": psutil.Process().memory_info().rss / MIB}


def sleeping_run(run, token: str = "") -> dict:
    time.sleep(SLEEP)
    return {"name": run.name, "status": "finished"}


def stub_plan(folder: Path, runs: int) -> dict:
    """A plan of runs of a notebook with parameters and an empty cell."""
    cell = nbformat.v4.new_code_cell('seed = 0\nrun_dir = "runs/stub"', metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("seed")])
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, folder / "stub.ipynb")
    return {"notebooks": [folder / "stub.ipynb"], "folder": folder / "runs", "seeds": list(range(runs))}


def made(plan: dict, work, environments: list[dict]) -> dict:
    """Seconds of a plan on workers with these environments, from the first run handed out; rows; processor seconds."""
    folder, runs = read_plan(plan)
    folder.mkdir(parents=True, exist_ok=True)
    table, rows, held = _Table(folder / "results.csv", runs), [], []
    with patch.object(cluster, "environments", lambda _: environments), cluster.cluster_of(None, len(runs)) as client:
        client.wait_for_workers(len(environments))
        begun, busy = time.perf_counter(), time.process_time()
        for row in cluster.each_done(client, work, runs):
            table.add(row)
            rows.append(row)
            held.append(psutil.Process().memory_info().rss / MIB)
        seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    assert all(row["status"] == "finished" for row in rows), rows
    return {"seconds": seconds, "busy": busy, "rows": rows, "main_mib": held}


def overhead(runs: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        found = made(stub_plan(Path(folder), runs), watched_run, [{"OMP_NUM_THREADS": "1"}])
    own = sum(row["papermill"] for row in found["rows"])
    worker, looks = [row["worker_mib"] for row in found["rows"]], (runs // 10 - 1, runs // 2 - 1, runs - 1)
    return {
        "runs": runs,
        "papermill_seconds": own / runs,
        "other_seconds": (found["seconds"] - own) / runs,
        "main_mib": [found["main_mib"][look] for look in looks],  # after a tenth of the runs, half of them, and all
        "worker_mib": [worker[look] for look in looks],
    }


def throughput(runs: int) -> list[dict]:
    rows = []
    for count in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            found = made(stub_plan(Path(folder), runs), sleeping_run, [{"OMP_NUM_THREADS": "1"}] * count)
        row = {"workers": count, "runs": runs, "seconds": found["seconds"], "main_cpu_ms": 1000 * found["busy"] / runs}
        rows.append(row | {"main_mib": found["main_mib"][-1]})
        print(rows[-1], flush=True)
    return rows


def threads(rounds: int) -> list[dict]:
    rows = []
    shares = {"two at a time, one thread each": [1, 1], "one after the other, two threads": [2]}
    for number in range(rounds):
        for name, share in shares.items():
            with tempfile.TemporaryDirectory() as folder:
                fixed = {"patients": 120, "image_size": 64, "epochs": 6, "batch_size": 16}
                plan = {"notebooks": ["train"], "folder": folder, "parameters": fixed, "seeds": [0, 1, 2, 3]}
                found = made(plan, execute_run, [{"OMP_NUM_THREADS": str(each)} for each in share])
            rows.append({"round": number, "how": name, "seconds": found["seconds"]})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"overhead": lambda: overhead(200), "throughput": lambda: throughput(1000), "threads": lambda: threads(2)}
    parser.add_argument("parts", nargs="+", choices=list(parts))
    for part in parser.parse_args().parts:
        load, found = psutil.getloadavg()[0], parts[part]()
        known = read_json(RESULTS) if RESULTS.exists() else {}
        about = {"cores": psutil.cpu_count(), "load_before": load, "load_after": psutil.getloadavg()[0]}
        write_json(RESULTS, known | {part: {"found": found} | about})
        print(part, found, about, flush=True)


if __name__ == "__main__":
    main()
