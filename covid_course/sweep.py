"""Many runs of notebooks on Dask workers: missing runs are executed, finished ones are kept."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import filelock
import joblib
import pandas as pd

from covid_utils.core.files import delete, display_path, lock_folder, read_json, replace_file, write_json
from covid_utils.core.progress import progress

from .notebooks import NotebookError, execute
from .plans import Run, digest, read_plan

LOCAL = "127.0.0.1"
IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # the sweep's own process ends workers
MEMORY = 2 * 2**30  # bytes that a run needs at least: it limits how many run at once
ONE = threading.Lock()  # a process executes one run at a time, however many threads its worker has


def sweep(plan: dict | str | Path, scheduler: str | None = None) -> pd.DataFrame:
    """Execute the runs of a plan (see `plans.read_plan`) that are missing or failed, each in a folder of its own.

    `scheduler`: address of a Dask scheduler, such as "tcp://10.0.0.1:8786"; by default workers are started here.

    Returns a row per run, as in `results.csv` in the sweep's folder: name, parameters, status ("finished", "failed" or
    "missing"), seconds, error, notebook (the executed file), and the numbers of the run's metrics.json.

    Raises ValueError if the plan cannot be run; OSError if the folder cannot be written, another process is at this
    sweep, or the scheduler is not there.
    """
    folder, runs = read_plan(plan)
    with lock_folder(folder):
        rows = {run.name: _recorded(run) for run in runs}
        missing = [run for run in runs if rows[run.name].get("status") != "finished"]
        table = _write_results(folder, runs, rows)
        if missing:
            try:
                with start_client(scheduler, len(runs)) as client:
                    for row in progress(_execute_all(client, missing), "runs", len(missing), delay=0):
                        rows[row["name"]] = row
                        _write_results(folder, runs, rows)
            finally:  # after Ctrl-C a run may have finished whose row was still on the way
                rows |= {run.name: row for run in missing if (row := _recorded(run)).get("status") == "finished"}
                table = _write_results(folder, runs, rows)
    return table


def summary(table: pd.DataFrame) -> str:
    """How a sweep ended: how many runs finished, and for each other one the error and the notebook that shows it."""
    finished = table.status == "finished"
    lines = [f"{finished.sum()} of {len(table)} runs finished."]
    lines += [f"{row.status}: {row.name}: {row.error} {row.notebook}".strip() for row in table[~finished].itertuples()]
    return "\n".join(lines)


def _write_results(folder: Path, runs: list[Run], rows: dict[str, dict]) -> pd.DataFrame:
    """The table of all runs in the plan's order, after writing it to `results.csv`."""
    lines = []
    for run in runs:
        line = {"name": run.name} | run.parameters | {"status": "missing", "seconds": None, "error": "", "notebook": ""}
        line |= {name: value for name, value in rows[run.name].items() if name in line}
        lines.append(line | rows[run.name].get("metrics", {}))
    table = pd.DataFrame(lines)
    replace_file(folder / "results.csv", lambda temporary: table.to_csv(temporary, index=False))
    return table


def execute_run(run: Run) -> dict:
    """Execute the notebooks of a run, in a worker. Returns its row; a failure is a row that says so.

    A lock keeps other processes from the same run, such as a worker that still executes it for an interrupted sweep.
    """
    # Dask sets this for its workers. In a kernel it returns the memory of every large tensor to the system at once,
    # and fetching it anew takes as long as the training itself.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    folder = Path(run.folder)
    row = {"name": run.name, "parameters": run.parameters, "notebooks": run.notebooks, "status": "failed"}
    if not folder.parent.is_dir():
        return row | {"error": f"The worker does not see {folder.parent}: runs need a folder that all machines share."}
    with ONE, filelock.FileLock(folder.with_name(f".{folder.name}.lock")):
        recorded = _recorded(run)
        if recorded.get("status") == "finished":
            return recorded
        if not recorded:  # what lies there is another run's, or was made by another version of a notebook
            delete(folder)
        write_json(folder / "run.json", row | {"status": "missing"})
        started = time.perf_counter()
        try:
            for notebook, before in run.notebooks.items():
                output = folder / Path(notebook).name
                if digest(Path(notebook)) != before:
                    raise ValueError(f"{output.name} was changed while this sweep ran: start it again.")
                given = {"keep_network": False} | run.parameters | {"run_dir": run.folder}
                execute(Path(notebook), output, given)
            row |= {"status": "finished", "notebook": display_path(output)}
            row |= {"metrics": _numbers(folder / "metrics.json")}
        except Exception as error:  # whatever it is, the other runs go on
            kind = "" if isinstance(error, NotebookError | ValueError | OSError) else f"{type(error).__name__}: "
            row |= {"error": kind + " ".join(str(error).split())}
        row |= {"seconds": round(time.perf_counter() - started, 1)}
        write_json(folder / "run.json", row)
    return row


def _numbers(path: Path) -> dict:
    """The numbers of a `metrics.json` by dotted names: `scratch.test.auc`, its interval's ends `….low` and `….high`."""
    rows = pd.json_normalize(read_json(path)).to_dict("records") if path.exists() else []
    numbers = {name.removesuffix(".value"): value for row in rows for name, value in row.items()}
    return {name: value for name, value in numbers.items() if not isinstance(value, list)}


def _recorded(run: Run) -> dict:
    """The `run.json` in the run's folder; empty if there is none, it is damaged, or of another run."""
    try:
        record = read_json(Path(run.folder) / "run.json")
        digests = [*record["notebooks"].values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return record if record.get("parameters") == run.parameters and digests == [*run.notebooks.values()] else {}


def _execute_all(client, runs: list[Run]) -> Iterator[dict]:
    """Give all runs to Dask and yield the row of each when it is done. Raises OSError if the scheduler goes away."""
    from distributed import as_completed

    futures = dict(zip(client.map(execute_run, runs, pure=False), runs, strict=True))
    for future in as_completed(list(futures)):
        try:
            yield future.result()
        except CancelledError:
            raise OSError("Dask's scheduler went away. Finished runs stay: start the same sweep again.") from None
        except Exception as error:  # its worker died, perhaps
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield {"name": futures[future].name, "status": "failed", "error": text}


@contextlib.contextmanager
def start_client(scheduler: str | None, runs: int) -> Iterator:
    """A Dask client: of the scheduler at an address, or of workers on this machine, which end with it."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    with contextlib.ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.ERROR)  # each error of Dask's is a sentence of ours
        if not scheduler:
            here = {"host": LOCAL, "dashboard_address": f"{LOCAL}:0", "dashboard": False}  # for this machine only
            worker = here | {"nthreads": 1, "memory_limit": 0, "local_directory": tempfile.gettempdir()}
            worker |= {"silence_logs": logging.CRITICAL, "preload": [IGNORE_CTRL_C], "preload_argv": [[]]}
            every = {
                number: {"cls": Nanny, "options": worker | {"env": environment}}
                for number, environment in enumerate(environments(runs))
            }
            options = {"cls": Scheduler, "options": here | {"port": 0, "allowed_failures": 1}}
            config = {"logging": {"distributed": "critical"}, "distributed.scheduler.worker-saturation": 1.0}
            stack.enter_context(dask.config.set(config))
            scheduler = stack.enter_context(SpecCluster(every, options, silence_logs=logging.CRITICAL))
        try:
            client = stack.enter_context(Client(scheduler, timeout=10))
        except (OSError, ValueError) as error:
            raise OSError(f"No scheduler answers at {scheduler} ({error}): start `dask scheduler` there.") from None
        yield client


def environments(runs: int) -> list[dict[str, str]]:
    """Environment variables of each worker on this machine: one worker per GPU, else as cores and memory allow.

    The cores are divided among the workers as threads, by the number of all runs, not of the missing ones: a sweep
    that is continued computes with the same threads and gets the same bits.
    """
    import torch
    from distributed.system import memory_limit

    cores = joblib.cpu_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    gpus = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    count = max(1, min(len(gpus) or min(cores, memory_limit() // MEMORY), runs))
    allowed = (os.environ.get("OMP_NUM_THREADS") or str(cores)).split(",")[0]  # a list is for nested loops
    threads = str(min(max(1, cores // count), int(allowed)))
    shares = [dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads) for _ in range(count)]
    return [share | ({"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}) for number, share in enumerate(shares)]
