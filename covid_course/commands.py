"""Run the course's notebooks, apply a trained model or check this machine: `python -m covid_utils tutorial` …"""

from __future__ import annotations

import argparse
import sys
from glob import glob
from pathlib import Path

import pandas as pd

from covid_utils.core.files import display_path, read_json
from covid_utils.core.settings import FIELDS, read_profile, typed

from .clean import refresh
from .handout import write_handouts
from .machine import CHECKS, Check, report
from .notebooks import NotebookError, declared, find_notebooks, loopback, run
from .sweep import summary, sweep

GOES_ON = (
    "A training that was interrupted goes on after its last finished epoch.",
    "Finished runs and their results.csv stay: start the same sweep again, and it goes on.",
)
SERIES = {"tutorial": slice(5), "deeper": slice(5, None)}  # which of the notebooks, in their order
RUN_DIR = "runs/default after `make tutorial`"


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks; returns its exit code: 1 after an error (told on stderr), 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console that lacks a character shows "?"
    try:
        return _done(options)
    except (NotebookError, ValueError, OSError, ImportError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. {GOES_ON[options.command == 'sweep']}", file=sys.stderr)
        return 130


def _done(options: argparse.Namespace) -> int:
    """The exit code of a command. Modules that need PyTorch are imported here: it takes seconds, or is missing."""
    match options.command:
        case "check":
            return report([*CHECKS, speed])
        case "notebooks":
            refresh()
        case "handout":
            print(f"Copies for learners and teachers: {display_path(write_handouts())}")
        case "sweep":
            loopback()
            table = sweep(options.plan, options.scheduler)
            print(summary(table))
            return int((table.status != "finished").any())
        case "predict":
            from .predict import predict_files

            files = [found for path in options.files for found in _matches(path)]
            return predict_files(options.run_dir, files, options.out)
        case "export":
            from .export import export_run

            export_run(options.run_dir, options.out)
        case "demo":
            from .demo import serve

            loopback()
            serve(options.run_dir)
        case "tutorial" | "deeper":
            folder = _run(options, find_notebooks()[SERIES[options.command]])
            print(f"\n{results(folder)}\n\nExecuted notebooks: {display_path(folder)}")
        case "run":
            print(f"\nExecuted notebooks: {display_path(_run(options, options.notebooks))}")
    return 0


def speed() -> list[Check]:
    """The checks that measure this machine; they need PyTorch, which may be missing."""
    from .speed import draw, durations, measure, threads

    found = measure(*draw())
    return [threads(found), *durations(found)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m covid_utils", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tutorial = commands.add_parser("tutorial", help="execute notebooks 00 to 04 and show the results")
    deeper = commands.add_parser("deeper", help="execute notebooks 05 to 09, which go deeper, and show the results")
    single = commands.add_parser("run", help="execute notebook files")
    single.add_argument("notebooks", nargs="+", type=Path, metavar="notebooks/02_scratch.ipynb")
    pairs = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE"), "dest": "pairs"}
    for command in (tutorial, deeper, single):
        command.add_argument("-p", **pairs, help=f"a parameter, may be repeated: {', '.join(FIELDS)}")
        command.add_argument("-f", metavar="FILE", dest="profile", help="a YAML file of parameters; -p goes first")
    many = commands.add_parser("sweep", help="execute notebooks many times with other parameters, in parallel")
    many.add_argument("plan", metavar="FILE", help="a YAML file: notebooks, folder, parameters, grid or list, seeds")
    many.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster; by default workers start here")
    predict = commands.add_parser("predict", help="apply the trained model of a run to slices and scans of your own")
    predict.add_argument("run_dir", help=RUN_DIR)
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE", help="slices, volumes, or folders of them")
    predict.add_argument("--out", type=_here, help="a folder for the pictures and answers.csv (RUN_DIR/answers)")
    commands.add_parser("check", help="is this machine ready? (exit code 1 if there is something to fix)")
    exported = commands.add_parser("export", help="write a run's model as ONNX, with a model card")
    exported.add_argument("run_dir", help=RUN_DIR)
    exported.add_argument("--out", type=_here, help="a folder for model.onnx and README.md (RUN_DIR/export)")
    page = commands.add_parser("demo", help="apply a run's model on a page in the browser, on this machine only")
    page.add_argument("run_dir", nargs="?", default="runs/default", help=RUN_DIR)
    commands.add_parser("handout", help="write copies for learners (no solutions) and teachers into build/handout/")
    commands.add_parser("notebooks", help="execute the committed notebooks anew and clean them for git")
    return parser


def _run(options: argparse.Namespace, notebooks: list[Path]) -> Path:
    """Execute notebooks with the parameters of profile and command line, all checked before anything starts."""
    given = typed(dict(options.pairs))
    known = set().union(*map(declared, notebooks))
    for name in given:
        if name not in known:
            names = ", ".join(notebook.name for notebook in notebooks)
            raise ValueError(f"Parameter {name} has no effect on {names}: leave it out.")
    return run(notebooks, (read_profile(options.profile) if options.profile else {}) | given)


def results(folder: Path) -> str:
    """The scores on the test slices in a run's `metrics.json` as text, a row per model. ValueError if it is damaged."""
    path, rows = folder / "metrics.json", {}
    metrics = read_json(path) if path.exists() else {}
    for name in ("scratch", "transfer"):
        if test := metrics.get(name, {}).get("test"):
            accuracy = test["accuracy"]
            rows[name] = {"accuracy": accuracy["value"], "95 % from": accuracy["low"], "to": accuracy["high"]}
            rows[name] |= {score: test[score]["value"] for score in ("sensitivity", "specificity", "auc")}
            rows[name] |= {"best epoch": metrics[name]["best_epoch"]}
    if not rows:
        return f"No test results in {display_path(path)} yet."
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(float("nan"))  # JSON has null for NaN
    return table.to_string(float_format="{:.3f}".format, na_rep="–")


def _here(text: str) -> Path:
    """A path as a command line means it: from the folder where one stands."""
    return Path(text).expanduser().absolute()


def _matches(path: Path) -> list[Path]:
    """A file or folder; or what a pattern such as `*.png` matches, which Windows' command line leaves as it is."""
    return [path] if path.exists() else [Path(name) for name in sorted(glob(str(path)))] or [path]
