"""How long does each notebook compute, and how fast does a network learn on that machine?

    COVID_UTILS_HOME=$(mktemp -d) .venv/bin/python -m covid_utils tutorial
    .venv/bin/python benchmarks/minutes.py that-folder/runs/default --where "two cores, bfloat16"

Reads a finished run of the default recipe, made in an empty home while nothing else computed, and puts it into
benchmarks/results/minutes.json in the place of an older one of the same name. `covid_course/speed.py` expects a
notebook to take as many times as long as a training slice does. (Where other programs did compute, as for the rows
of this repository: run everything on one thread, with `time.perf_counter = time.process_time` in a `sitecustomize.py`
on PYTHONPATH, so that all seconds are of the processor's time.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib

from covid_course.speed import RECORD
from covid_utils.core.files import read_json, write_json
from covid_utils.core.settings import Settings

SECTIONS = {  # what each notebook calls its part of a run's manifest
    "data": "01_data",
    "scratch": "02_scratch",
    "transfer": "03_transfer",
    "cam": "04_cam",
    "evaluation": "05_evaluation",
    "sweep": "06_sweeps",
}


def record(run: Path, where: str) -> dict:
    """Seconds of each notebook, and training slices a second as notebook 0 measured them.

    Raises ValueError if the run is not whole, or not one of the default recipe.
    """
    manifest = read_json(run / "manifest.json")
    for section in ("machine", *SECTIONS):
        if section not in manifest:
            raise ValueError(f"{run} has no section {section!r}: run all notebooks.")
    parameters, default = manifest["scratch"]["parameters"], Settings()
    for name in ("dataset", "image_size", "patients", "epochs", "batch_size"):
        if parameters[name] != getattr(default, name):
            raise ValueError(f"{run} was made with {name}={parameters[name]!r}: the default is needed.")
    measured = read_json(run / "metrics.json")["machine"]["slices/s"]
    return {
        "where": where,
        "cores": joblib.cpu_count(),
        "torch": manifest["scratch"]["versions"]["torch"],
        "slices/s": {name: round(value, 1) for name, value in measured.items()},
        "seconds": {notebook: manifest[section]["seconds"] for section, notebook in SECTIONS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--where", required=True, help="what it computed on, in words; no name of a machine")
    options = parser.parse_args()
    rows = read_json(RECORD) if RECORD.exists() else []
    rows = [row for row in rows if row["where"] != options.where] + [record(options.run, options.where)]
    write_json(RECORD, rows)


if __name__ == "__main__":
    main()
