"""Where the runs of a sweep are executed: Dask workers on this machine, or a cluster that exists."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from multiprocessing import resource_tracker
from pathlib import Path

import joblib

from covid_utils.core.files import temporary_beside
from covid_utils.core.memory import total_memory

from .plans import Run

LOCAL = "127.0.0.1"
GONE = "The scheduler went away. Finished runs stay: start the same sweep again, and it goes on."
PATIENCE = 20  # seconds in which a scheduler must answer
MEMORY = 2 * 2**30  # bytes that a run wants at least: so many run at once at most
KILLED = "Its worker was killed, twice: out of memory, perhaps. Lower image_size or batch_size, or start fewer workers."


class SweepError(RuntimeError):
    """A sweep that stopped before its end; the message says how it goes on."""


def each_done(client, work: Callable[[Run, str], dict], runs: list[Run]) -> Iterator[dict]:
    """Hand all runs to the cluster and yield the row of each when it is done; one whose workers died has failed.

    Args:
        work: called in a worker with a run and a token, the same for all runs of this call; returns its row.

    Raises SweepError if the scheduler goes away.
    """
    from distributed import KilledWorker, as_completed

    token = uuid.uuid4().hex
    names = {(f"sweep-{token}", run.name): run.name for run in runs}
    futures = client.map(work, runs, key=list(names), token=token)
    waiting = as_completed(futures)
    del futures  # a future that nobody holds is forgotten by the scheduler
    for future in waiting:
        try:
            if future.status == "cancelled":
                raise SweepError(GONE)
            error = None if future.status == "finished" else future.exception()
            row = {} if error else future.result()
        except (CancelledError, OSError):  # it went away while it was asked for the row
            raise SweepError(GONE) from None
        if error:
            text = KILLED if isinstance(error, KilledWorker) else f"{type(error).__name__}: {error}".splitlines()[-1]
            row = {"name": names[future.key], "status": "failed", "error": text}
        yield row


@contextlib.contextmanager
def cluster_of(scheduler: str | None, runs: int) -> Iterator:
    """A Dask client: of the scheduler at an address, or of workers on this machine, which end with it."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    quiet = {"logging": {"distributed": "critical"}, "distributed.scheduler.worker-saturation": 1.0}
    quiet["distributed.worker.profile.enabled"] = False  # what it records of deep calls grew by 70 kB a run
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(quiet))
        stack.enter_context(_silent())
        if scheduler:
            yield stack.enter_context(_connected(scheduler))
            return
        # what a killed sweep left there the next one clears
        scratch = str(
            stack.enter_context(temporary_beside(Path(tempfile.gettempdir()) / "covid-utils-workers", folder=True))
        )
        here = {"host": LOCAL, "dashboard_address": f"{LOCAL}:0", "dashboard": False}
        worker = here | {"nthreads": 1, "memory_limit": 0, "local_directory": scratch, "silence_logs": logging.CRITICAL}
        workers = {
            number: {"cls": Nanny, "options": worker | {"env": environment}}
            for number, environment in enumerate(environments(runs))
        }
        options = here | {"port": 0, "allowed_failures": 1000}  # runs count for themselves: Dask blames those that wait
        try:
            with _deaf():
                cluster = SpecCluster(workers, {"cls": Scheduler, "options": options}, silence_logs=logging.CRITICAL)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise OSError(f"Dask's workers could not be started ({reason}): close other programs, try again.") from None
        yield stack.enter_context(Client(stack.enter_context(cluster)))


def _connected(address: str):
    """A client of the scheduler there. Raises OSError if none answers in time; says so if it has no workers yet."""
    from distributed import Client

    found, errors = [], []

    def connect() -> None:
        try:
            found.append(Client(address, timeout=PATIENCE / 2))
        except Exception as error:  # whatever another program's answer is taken for
            errors.append(error)

    thread = threading.Thread(target=connect, daemon=True)  # Dask's own timeout counts for nothing where others answer
    thread.start()
    thread.join(PATIENCE)
    if not found:
        reason = str(errors[0]).partition("\n")[0] if errors else "what answers is no scheduler"
        raise OSError(f"No scheduler answers at {address} ({reason}): start `dask scheduler` there.")
    try:
        found[0].wait_for_workers(1, timeout=PATIENCE / 2)
    except TimeoutError:
        print(f"The scheduler at {address} has no workers yet; runs start as soon as one comes (`dask worker`).")
    return found[0]


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes started here never hear Ctrl-C: this one does, afterwards, and ends them; no traceback is theirs."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # when it starts it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Dask's loggers say nothing but what is critical; afterwards they are as they were."""
    logs = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.CRITICAL)
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def environments(runs: int) -> list[dict[str, str]]:
    """What each worker on this machine adds to its environment: one a GPU, else as many as cores and memory feed.

    The cores are dealt out as threads, so that runs don't fight for them; by the number of all runs, not of those
    that are missing, so that a sweep that goes on computes with the same threads, and gets the same bits.
    """
    gpus, cores = _gpus(), joblib.cpu_count()
    most = len(gpus) or min(cores, max(1, total_memory() // MEMORY))
    count = max(1, min(most, runs))
    threads = str(min(max(1, cores // count), int((os.environ.get("OMP_NUM_THREADS") or str(cores)).split(",")[0])))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    shares = [dict.fromkeys(names, threads) for _ in range(count)]
    for share, gpu in zip(shares, gpus, strict=False):
        share["CUDA_VISIBLE_DEVICES"] = gpu
    return shares


def _gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
