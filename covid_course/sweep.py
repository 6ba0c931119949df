"""Many runs of notebooks on a Dask cluster: what is missing is made, and nothing that is finished is lost."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import pandas as pd
import psutil

from covid_utils.core.files import NEW, delete, display_path, read_json, replace_file, write_json
from covid_utils.core.progress import progress

from .cluster import KILLED, cluster_of, each_done
from .notebooks import NotebookError, execute
from .plans import Run, digest, read_plan

COLUMNS = ("status", "seconds", "memory_mib", "error", "notebook")
TEXTS = ("error", "notebook")
TRIES, RUNNING = ".tries", ".running"  # in a run's folder while it runs: how often it was begun; a lock
ONE = threading.Lock()  # a process executes one run at a time, however many threads its worker has


def sweep(plan: dict | str | Path, scheduler: str | None = None) -> pd.DataFrame:
    """Execute the runs of a plan that are missing or failed, each in a folder of its own.

    Args:
        plan: see `plans.read_plan`.
        scheduler: address of a Dask scheduler, such as "tcp://10.0.0.1:8786"; by default workers are started here.

    Returns:
        A row a run, as in `results.csv` in the sweep's folder: name, parameters, status ("finished", "failed" or
        "missing"), seconds, memory_mib (largest sum of its processes' resident memory, looked at twice a second),
        error (last line), notebook (the executed file), and the numbers of the run's metrics.json.

    Raises:
        ValueError: the plan cannot be run.
        OSError: the folder cannot be written, or another process is at this sweep, or the scheduler is not there.
        SweepError: the scheduler went away.
    """
    folder, runs = read_plan(plan)
    with _locked(folder):
        table = _Table(folder / "results.csv", runs)
        table.write()
        missing = table.missing()
        if missing:
            try:
                with cluster_of(scheduler, len(runs)) as client:
                    for row in progress(each_done(client, execute_run, missing), "runs", len(missing), at_once=True):
                        table.add(row)
            finally:
                table.look()
                table.write()
    return table.frame()


def execute_run(run: Run, token: str = "") -> dict:
    """Execute the notebooks of a run, in a worker; a failure is no exception but a row that says so.

    One process at a time is at a run, and what is finished is not made again: a worker may have ended it unheard, or
    still be at it for a sweep that was stopped. `token` names the sweep: if two workers were killed while they executed
    this run for it, that is its failure.
    """
    # Dask's workers set it. In a kernel it makes every large tensor's memory go back to the system and be fetched anew,
    # which takes as long as the training itself.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    folder = Path(run.folder)
    row = {"name": run.name, "status": "failed"}
    if not folder.parent.is_dir():
        return row | {"error": f"The worker does not see {folder.parent}: runs need a folder that all machines share."}
    folder.mkdir(exist_ok=True)
    with ONE, filelock.FileLock(folder / RUNNING):
        if (found := _known(run))["status"] == "finished":
            row = found
        else:
            started = time.perf_counter()
            with _watched() as memory:
                killed = _tries(folder, token) > 2
                row |= {"error": KILLED, "notebook": _kept(folder)} if killed else _executed(run, folder)
            row |= {"seconds": round(time.perf_counter() - started, 1), "memory_mib": round(memory["peak"] / 2**20)}
            write_json(folder / "run.json", run.identity() | row)
        _tidy(folder)
    _trim()
    return row


def _tidy(folder: Path) -> None:
    """Delete what lies there only while a run is executed; a kill in the last moment leaves it behind."""
    for name in (TRIES, RUNNING):
        (folder / name).unlink(missing_ok=True)


def _trim() -> None:
    """Give freed memory back to the system where that can be asked for (glibc): a worker stays small over many runs."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _tries(folder: Path, token: str) -> int:
    """How often this run was begun for this sweep, counting this time: a killed worker leaves a line in its folder."""
    path = folder / TRIES
    earlier = path.read_text().split() if path.exists() else []
    lines = [line for line in earlier if line == token] + [token]
    replace_file(path, lambda temporary: temporary.write_text("\n".join(lines)))
    return len(lines)


def _kept(folder: Path) -> str:
    """The partly executed notebook of a killed worker, under the name that those of failed runs have; "" if none."""
    partial = sorted(folder.glob(".*.ipynb"), key=lambda path: path.stat().st_mtime)
    if not partial or not partial[-1].stat().st_size:  # killed before its first line was written
        for empty in partial:
            empty.unlink()
        return ""
    name = partial[-1].name[1:].rpartition(f".{NEW}")[0].removesuffix(".ipynb")
    failed = folder / f"{name}.failed.ipynb"
    os.replace(partial[-1], failed)
    return display_path(failed)


def _executed(run: Run, folder: Path) -> dict:
    """The part of a run's row that its notebooks make, after what an earlier try has left is cleared away."""
    old = [folder / name for name in ("metrics.json", "manifest.json")]
    for leftover in [*old, *folder.glob(".*.ipynb"), *folder.glob("*.failed.ipynb")]:
        leftover.unlink(missing_ok=True)
    if not _said(run):  # another run's checkpoints, of a notebook that was changed since
        for leftover in folder.iterdir():
            if leftover.name not in (TRIES, RUNNING):
                delete(leftover)
    write_json(folder / "run.json", run.identity() | {"name": run.name, "status": "begun"})
    try:
        for notebook in map(Path, run.notebooks):
            if digest(notebook) != run.notebooks[str(notebook)]:
                raise ValueError(f"{notebook.name} was changed after this sweep was started: start it again.")
            with contextlib.redirect_stdout(io.StringIO()):  # its progress line: a sweep has one for all runs
                output = execute(notebook, folder / notebook.name, run.parameters | {"run_dir": run.folder})
        return {"status": "finished", "notebook": display_path(output), "metrics": _flat(folder / "metrics.json")}
    except Exception as error:  # whatever it is, the other runs go on
        kept = folder / f"{notebook.stem}.failed.ipynb"
        text = str(error).partition("\nThe notebook up to there")[0].splitlines() or [type(error).__name__]
        if not isinstance(error, NotebookError | ValueError | OSError):
            text = [f"{type(error).__name__}: {text[-1]}"]
        return {"status": "failed", "error": text[-1], "notebook": display_path(kept) if kept.exists() else ""}


def _flat(path: Path) -> dict:
    """The numbers of a `metrics.json` by dotted names: `scratch.test.auc`, its interval's ends `….low` and `….high`."""
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict) or not content:
        return {}
    row = pd.json_normalize(content).to_dict("records")[0]
    return {name.removesuffix(".value"): value for name, value in row.items() if not isinstance(value, list | dict)}


def _said(run: Run) -> dict:
    """What the run's folder says of the run that was made there; empty if that was another, or it says nothing."""
    try:
        found = read_json(Path(run.folder) / "run.json")
        return found if {name: found[name] for name in run.identity()} == run.identity() else {}
    except (OSError, ValueError, KeyError, TypeError):  # none there, or a damaged one
        return {}


def _known(run: Run) -> dict:
    """The row of a run as an earlier sweep left it; "missing" if it was another run, or was never ended."""
    found = _said(run)
    return found if found.get("status") in ("finished", "failed") else {"name": run.name, "status": "missing"}


class _Table:
    """`results.csv`: the rows of all runs by name, in the plan's order."""

    def __init__(self, path: Path, runs: list[Run]):
        self.path, self.runs = path, runs
        self.rows = {run.name: _known(run) for run in runs}
        self.due = 0.0
        for run in runs:
            if self.rows[run.name]["status"] == "finished":
                _tidy(Path(run.folder))

    def look(self) -> None:
        """Find the rows of runs that were finished while the scheduler went away: what it was told is lost with it."""
        for run in self.missing():
            if (found := _known(run))["status"] == "finished":
                self.rows[run.name] = found

    def missing(self) -> list[Run]:
        return [run for run in self.runs if self.rows[run.name]["status"] != "finished"]

    def add(self, row: dict) -> None:
        """Take the row of a run that is done, and write all of them, with at most a twentieth of the time."""
        self.rows[row["name"]] = row
        started = time.monotonic()
        if started >= self.due:
            self.write()
            self.due = time.monotonic() + 20 * (time.monotonic() - started)

    def write(self) -> None:
        table = self.frame()
        replace_file(self.path, lambda temporary: table.to_csv(temporary, index=False))

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame([self._row(run) for run in self.runs])

    def _row(self, run: Run) -> dict:
        found = self.rows[run.name]
        told = {name: found.get(name, "" if name in TEXTS else None) for name in COLUMNS}
        return {"name": run.name} | run.parameters | told | found.get("metrics", {})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made if it is not there, for this process alone. Raises OSError if it cannot be had."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock").acquire(blocking=False)
    except filelock.Timeout:
        raise OSError(
            f"Another process is at the sweep in {display_path(folder)}: wait for it, or give another folder."
        ) from None
    except OSError as error:
        raise OSError(f"Cannot write {folder}: {error.strerror}. Name another `folder` for the sweep.") from None
    with lock:
        yield


@contextlib.contextmanager
def _watched() -> Iterator[dict]:
    """The largest sum, in bytes, of the resident memory of this process's children, in `["peak"]`."""
    memory, over = {"peak": 0}, threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            with contextlib.suppress(psutil.Error):
                kernels = psutil.Process().children(recursive=True)
                memory["peak"] = max(memory["peak"], sum(each.memory_info().rss for each in kernels))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


def summary(table: pd.DataFrame) -> str:
    """How a sweep ended, in words: how many runs finished, and of each other one why not, and what shows it."""
    ended = table.status == "finished"
    lines = [f"{ended.sum()} of {len(table)} runs finished."]
    for row in table[~ended].itertuples():
        seen = f" ({row.notebook})" if row.notebook else ""
        lines.append(f"{row.status}: {row.name}: {row.error}{seen}")
    return "\n".join(lines)
