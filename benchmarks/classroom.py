"""What does a class take that shares one computer? Memory and time of several kernels at once, against one alone.

    .venv/bin/python benchmarks/classroom.py --kernels 8

Executes a notebook with its own slices and few epochs, first alone and then as often as asked at the same moment, each
with a folder of its own, and looks every half second at the kernels' memory (on Linux). `resident` is what one of them
has in memory; pages that several share (libraries) are counted in each. `together` counts them once: it is the largest
sum of the proportional set sizes at one moment. The results go to benchmarks/results/classroom.json, a row for each
notebook and number of kernels; benchmarks/tables.py writes docs/teaching.md from them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import joblib
import psutil

from covid_course.machine import GIB
from covid_course.notebooks import find_notebooks
from covid_utils.core.files import PROJECT, read_json, write_json
from covid_utils.core.memory import free_memory
from covid_utils.core.settings import Settings
from covid_utils.data import load_data

RESULTS = PROJECT / "benchmarks" / "results" / "classroom.json"
NEED = 1.2  # GiB: beside what it shares with others, a kernel takes less


def kernels_of(process: psutil.Process) -> list[psutil.Process]:
    """The kernels that a `covid_utils run` has started."""
    return [each for each in process.children(recursive=True) if "ipykernel_launcher" in each.cmdline()]


def watch(commands: list[list[str]], environment: dict[str, str]) -> dict[str, list[float] | float]:
    """Run commands at once and look at their kernels' memory.

    Returns: peak resident memory of each kernel and of all together, GiB, and each command's seconds.

    Raises RuntimeError if one of them fails, MemoryError, before the machine has none left, if others take it away.
    """
    started = time.perf_counter()
    runs = [
        psutil.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for command in commands
    ]
    resident, seconds, together = [0.0] * len(runs), [0.0] * len(runs), 0.0
    while any(run.poll() is None for run in runs):
        now = 0.0
        for number, run in enumerate(runs):
            if run.poll() is not None:
                seconds[number] = seconds[number] or time.perf_counter() - started
                continue
            try:
                for kernel in kernels_of(run):
                    found = kernel.memory_full_info()
                    resident[number] = max(resident[number], found.rss / GIB)
                    now += found.pss / GIB
            except psutil.Error:  # it has ended in between
                pass
        together = max(together, now)
        if free_memory() < GIB:
            for run in runs:
                for each in [*run.children(recursive=True), run]:
                    each.kill()
            raise MemoryError("Less than 1 GiB of memory was left, so all were stopped: take fewer kernels.")
        time.sleep(0.5)
    seconds = [each or time.perf_counter() - started for each in seconds]
    for run in runs:
        if run.returncode:
            raise RuntimeError(f"A kernel failed:\n{run.stdout.read().decode(errors='replace')}")
    return {"resident": resident, "together": together, "seconds": seconds}


def measure(notebook: Path, kernels: int, epochs: int) -> dict:
    """A row of the results. Raises MemoryError if the kernels may not fit."""
    if free_memory() < kernels * NEED * GIB:
        raise MemoryError(f"{kernels} kernels want {kernels * NEED:.0f} GiB of free memory: take fewer.")
    others = psutil.cpu_percent(interval=2)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"COVID_UTILS_HOME": folder}
        data = Settings(data_dir=f"{folder}/data")
        load_data(data, progress=False)
        command = [sys.executable, "-m", "covid_utils", "run", str(notebook), "-p", "epochs", str(epochs)]
        commands = [[*command, "-p", "run_dir", f"runs/{number}"] for number in range(kernels)]
        found = watch(commands, environment)
    return {
        "notebook": notebook.stem,
        "kernels": kernels,
        "epochs": epochs,
        "cores": joblib.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", joblib.cpu_count())),
        "taken by other programs, %": round(others),
        "resident, GiB": round(median(found["resident"]), 2),
        "largest, GiB": round(max(found["resident"]), 2),
        "together, GiB": round(found["together"], 2),
        "seconds": round(median(found["seconds"])),
        "slowest, seconds": round(max(found["seconds"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, nargs="+", default=[1, 8], help="how many at once")
    parser.add_argument("--notebooks", nargs="+", default=["02"], help="which, by the start of their names")
    parser.add_argument("--epochs", type=int, default=2, help="of each training; memory does not grow with them")
    options = parser.parse_args()
    for notebook in find_notebooks(options.notebooks):
        for kernels in options.kernels:
            row = measure(notebook, kernels, options.epochs)
            print(row, flush=True)
            rows = read_json(RESULTS) if RESULTS.exists() else []
            key = ("notebook", "kernels")
            rows = [each for each in rows if any(each[name] != row[name] for name in key)] + [row]
            write_json(RESULTS, sorted(rows, key=lambda each: [each[name] for name in key]))


if __name__ == "__main__":
    main()
