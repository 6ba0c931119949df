"""What the benchmarks share: each configuration is measured once, and its rows are kept in a CSV file.

An interrupted benchmark goes on where it stopped: configurations that the file has are not measured again. Whoever
changes a recipe deletes its rows first.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from covid_course.sweep import summary, sweep
from covid_utils.core.files import PROJECT, read_json, replace_file, resolve
from covid_utils.core.settings import typed

RESULTS = PROJECT / "benchmarks" / "results"


def parser(doc: str, seeds: int = 5) -> argparse.ArgumentParser:
    """A command's parser: described by its docstring, with `--seeds` (by default the first few)."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--seeds", type=int, nargs="+", default=list(range(seeds)))
    return found


def grid(**axes: Iterable) -> list[dict]:
    """All combinations, the last name changing fastest: `grid(seed=[0, 1], way=["a"])`."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a results file, numbers exactly as they were written; an empty table if there is no file."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write a results file, whole or not at all; whole numbers stay whole where a column has gaps."""
    rows = rows.convert_dtypes()
    replace_file(path, lambda temporary: rows.to_csv(temporary, index=False))


def is_recorded(rows: pd.DataFrame, configuration: dict) -> bool:
    """Whether the table has a row of this configuration."""
    if not set(configuration) <= set(rows):
        return False
    return bool((rows[list(configuration)].fillna("") == pd.Series(configuration)).all(axis=1).any())


def append(path: Path, configuration: dict, found: list[dict]) -> None:
    """Add the rows that were found for a configuration, and print them."""
    new = [configuration | flat(row) for row in found]
    write_rows(path, pd.concat([read_rows(path), pd.DataFrame(new)], ignore_index=True))
    for row in new:
        print({name: value for name, value in row.items() if len(str(value)) < 100}, flush=True)


def run(path: Path, configurations: list[dict], measure: Callable[..., list[dict]]) -> pd.DataFrame:
    """Measure every configuration that the file lacks, `measure(**configuration)`; returns all rows of the file."""
    for configuration in configurations:
        if not is_recorded(read_rows(path), configuration):
            append(path, configuration, measure(**configuration))
    return read_rows(path)


def run_sweep(path: Path, plan: dict, runs: list[tuple[dict, dict]], scheduler: str | None) -> int:
    """The same where a run is a notebook of a sweep (which can be stopped, and run on a cluster).

    Args:
        plan: of the sweep, without its list of runs.
        runs: configuration and the notebook's parameters of each run.

    Returns: 0 if all runs have finished, else 1.
    """
    runs = [(configuration, each) for configuration, each in runs if not is_recorded(read_rows(path), configuration)]
    if not runs:
        return 0
    table = sweep(plan | {"list": [parameters for _, parameters in runs]}, scheduler)
    for (configuration, _), done in zip(runs, table.to_dict("records"), strict=True):
        if done["status"] == "finished":
            append(path, configuration, [_scores_of(done)])
    print(summary(table))
    return int((table.status != "finished").any())


def _scores_of(done: dict) -> dict:
    """What a finished run of a sweep has recorded of its network: scores, best epoch, seconds, and logits if kept."""
    folder = resolve(done["notebook"]).parent
    network = read_json(folder / "metrics.json")["network"]
    row = {name: network[name] for name in ("best_epoch", "val_accuracy") if name in network}
    row |= {"seconds": round(done["seconds"], 1)} | network["test"]
    if (folder / "test.csv").exists():
        row["logits"] = as_text(pd.read_csv(folder / "test.csv").logit)
    return row


def flat(row: dict) -> dict:
    """A score with its interval as three columns: `accuracy`, `accuracy low`, `accuracy high`."""
    columns = {}
    for name, value in row.items():
        ends = value if isinstance(value, dict) else {"value": value}
        columns |= {name if end == "value" else f"{name} {end}": ends[end] for end in ends}
    return columns


def as_text(numbers: Iterable[float]) -> str:
    """Several numbers in one cell."""
    return " ".join(f"{number:.4g}" for number in numbers)


def recipe_text(recipe: dict) -> str:
    """What a recipe changes of the default settings, sorted: "trainable=layer2 weights=bundled"."""
    return " ".join(f"{name}={value}" for name, value in sorted(recipe.items()))


def recipe_of(text: str | float) -> dict:
    """The settings that `recipe_text` wrote; none where a table's cell is empty."""
    return {} if pd.isna(text) else typed(dict(each.split("=") for each in text.split()))
