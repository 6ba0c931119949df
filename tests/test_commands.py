"""Every command that the pages show is accepted as it stands; other tests do the work that it starts."""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from papermill.cli import papermill

from covid_course import commands, machine, plans
from covid_utils.core.files import PROJECT

PAGES = "\n".join(path.read_text("utf-8") for path in [*PROJECT.glob("[!L]*.md"), *PROJECT.glob("docs/*.md")])
BLOCKS = "".join(text for kind, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGES, re.M | re.S) if not kind)
LINES = {line.split("  #")[0].strip() for line in BLOCKS.splitlines() if "<this" not in line and "tables" not in line}
PIP = f"{sys.executable} -m pip wheel --no-deps"
STICK = [line for line in BLOCKS.splitlines() if "/media/stick" in line]


@pytest.mark.parametrize("line", sorted(LINES - {*STICK}))
def test_a_command_is_accepted(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PROJECT / "notebooks", "notebooks", ignore=shutil.ignore_patterns("0[!2]*"))
    (tmp_path / "starts.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGES, re.S)[1])
    for name in ("commands.run", "predict.predict_files", "export.export_run"):
        monkeypatch.setattr(f"covid_course.{name}", lambda *_: 0)
    monkeypatch.setattr("covid_utils.labs.audit.audit_folder", str)
    monkeypatch.setattr(commands, "results", str)
    monkeypatch.setattr(commands, "display_path", str)
    done = {"status": ["finished"]}
    monkeypatch.setattr(commands, "sweep", lambda plan, _: plans.read_plan(plan) and pd.DataFrame(done))
    program, *arguments = [word for word in shlex.split(line) if not re.match("[A-Z_]+=|-m$|covid_utils$", word)]
    first = arguments[0]
    if program == "make":
        assert re.search(f"^{first}:", (PROJECT / "Makefile").read_text("utf-8"), re.M)
    elif program == "dask":
        importlib.import_module(f"distributed.cli.dask_{first}").main.make_context(first, arguments[1:])
    elif program.endswith("papermill"):
        papermill([*arguments, "--prepare-only"], standalone_mode=False)
    elif first == "pip":
        assert set(re.findall(r"\w+", arguments[-1])) <= set(machine.project()["optional-dependencies"])
    elif first == "-c":
        exec(arguments[1], {})
    elif first.startswith("benchmarks/"):  # up to the work
        asked, parse = [], argparse.ArgumentParser.parse_args
        monkeypatch.setattr(sys, "argv", arguments)
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda each: asked.append(parse(each)) or sys.exit())
        with pytest.raises(SystemExit):
            runpy.run_path(str(PROJECT / first), run_name="__main__")
        assert asked
    else:
        assert commands.main(arguments) == 0


@pytest.mark.weekly
def test_a_class_installs_from_a_stick(tmp_path):
    steps = [f"cd {PROJECT}", *STICK[:2], f"cd {tmp_path}", *STICK[2:], "ls Makefile ../packages/covid_utils*.whl"]
    script = " && ".join(steps).replace("/media/stick", str(tmp_path)).replace("python3 -m pip wheel", PIP)
    assert "Makefile" in subprocess.run(script, shell=True, check=True, capture_output=True, text=True).stdout
