"""Execute the course's notebooks, ask a trained network or about this machine: `python -m covid_utils tutorial` …"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from covid_utils.core.files import display_path, read_json
from covid_utils.core.settings import FIELDS, read_profile, typed

from .clean import refresh
from .cluster import SweepError
from .handout import write_handouts
from .notebooks import NotebookError, declared, find_notebooks, run
from .sweep import summary, sweep

GOES_ON = (
    "A training that was under way goes on after its last finished epoch.",
    "Finished runs and their results.csv stay: start the same sweep again, and it goes on.",
)


def main(arguments: list[str] | None = None, **labs: Callable[..., int]) -> int:
    """Do what the command line asks.

    Args:
        arguments: those after `python -m covid_utils`; by default the process's own.
        labs: what the commands "predict", "export", "demo" and "check" call, which stands above this module: see
            `__main__`.

    Returns:
        The exit code: 0, 1 after an error (one sentence on stderr), 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console that lacks a character shows "?"
    try:
        if options.command == "notebooks":
            refresh()
            return 0
        if options.command == "check":
            return labs["check"]()
        if options.command == "handout":
            print(f"Copies for learners and teachers: {display_path(write_handouts())}")
            return 0
        if options.command == "predict":
            return labs["predict"](options.run_dir, options.files, options.out)
        if options.command == "export":
            return labs["export"](options.run_dir, options.out)
        if options.command == "demo":
            return labs["demo"](options.run_dir)
        if options.command == "sweep":
            table = sweep(options.plan, options.scheduler)
            print(summary(table))
            return int((table.status != "finished").any())
        notebooks = find_notebooks(options.notebooks) if options.command == "tutorial" else options.notebooks
        folder = run(notebooks, _parameters(options, notebooks))
    except (NotebookError, SweepError, ValueError, OSError, ImportError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. {GOES_ON[options.command == 'sweep']}", file=sys.stderr)
        return 130
    if options.command == "tutorial":
        print(f"\n{results(folder)}")
    print(f"\nExecuted notebooks: {display_path(folder)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m covid_utils", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tutorial = commands.add_parser("tutorial", help="execute the notebooks in order and show the results")
    tutorial.add_argument("--notebooks", nargs="+", default=[], metavar="01", help="only these")
    single = commands.add_parser("run", help="execute notebook files")
    single.add_argument("notebooks", nargs="+", type=Path, metavar="notebooks/02_scratch.ipynb")
    takes = f"a parameter, may be repeated: {', '.join(FIELDS)}"
    for command in (tutorial, single):
        command.add_argument(
            "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="pairs", help=takes
        )
        command.add_argument("-f", metavar="FILE", dest="profile", help="a YAML file of parameters; -p goes first")
    many = commands.add_parser("sweep", help="execute notebooks many times with other parameters, in parallel")
    many.add_argument("plan", metavar="FILE", help="a YAML file: notebooks, folder, parameters, grid or list, seeds")
    many.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster; by default workers start here")
    asked = commands.add_parser("predict", help="ask the trained network of a run about slices and scans of your own")
    asked.add_argument("run_dir", help="runs/default after `make tutorial`")
    asked.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="slices, volumes, or folders of them, DICOM series too"
    )
    asked.add_argument("--out", type=Path, help="a folder for the pictures and answers.csv (RUN_DIR/answers)")
    commands.add_parser("check", help="is this machine ready? (exit code 1 if something is to be fixed)")
    exported = commands.add_parser("export", help="write a run's network as ONNX, with a model card")
    exported.add_argument("run_dir", help="runs/default after `make tutorial`")
    exported.add_argument("--out", type=Path, help="a folder for model.onnx and README.md (RUN_DIR/export)")
    page = commands.add_parser("demo", help="ask a run's network on a page in the browser, on this machine only")
    page.add_argument("run_dir", nargs="?", default="runs/default", help="runs/default after `make tutorial`")
    commands.add_parser("handout", help="write copies for learners (no solutions) and teachers into build/handout/")
    commands.add_parser("notebooks", help="execute the committed notebooks anew and clean them for git")
    return parser


def _parameters(options: argparse.Namespace, notebooks: list[Path]) -> dict:
    """The parameters of profile and command line, checked before anything starts."""
    for notebook in notebooks:
        if not notebook.is_file():
            raise ValueError(f"No notebook {notebook}.")
    given = typed(dict(options.pairs))
    known = set().union(*map(declared, notebooks))
    for name in given:
        if name not in known:
            names = ", ".join(notebook.name for notebook in notebooks)
            raise ValueError(f"Parameter {name} has no effect on {names}: leave it out.")
    return (read_profile(options.profile) if options.profile else {}) | given


def results(folder: Path) -> str:
    """The table of a run's `metrics.json`: a row per model with its scores on the test slices.

    Raises ValueError, naming the file, if it is damaged.
    """
    path = folder / "metrics.json"
    metrics = read_json(path) if path.exists() else {}
    heads = ("sensitivity", "specificity", "AUC", "best epoch", "seconds")
    rows = [f"{'':<10}{'test accuracy (95 %)':>24}" + "".join(f"{head:>13}" for head in heads)]
    for name in ("scratch", "transfer"):
        if "test" not in metrics.get(name, {}):
            continue
        model = metrics[name]
        accuracy, *others, auc = (model["test"][score] for score in ("accuracy", "sensitivity", "specificity", "auc"))
        low, high = (_share(accuracy[end]) for end in ("low", "high"))
        interval = f"{_share(accuracy['value'])} ({low} to {high})"
        scores = "".join(f"{_share(score['value']):>13}" for score in others)
        scores += f"{'–' if auc['value'] is None else format(auc['value'], '.3f'):>13}"
        rows.append(f"{name:<10}{interval:>24}{scores}{model['best_epoch']:>13}{model['seconds']:>13.0f}")
    return "\n".join(rows) if len(rows) > 1 else f"No test results in {display_path(path)} yet."


def _share(value: float | None) -> str:
    """A share in percent; JSON has null where a score is no number, as a class without slices has none."""
    return "–" if value is None else f"{value:.1%}"
