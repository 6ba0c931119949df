"""Every command that the pages show is accepted as it stands; other tests do the work that it starts."""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from papermill.cli import papermill
from PIL import Image

from covid_course import commands, machine, plans
from covid_utils.core.files import PROJECT

PAGES = "\n".join(path.read_text("utf-8") for path in [*PROJECT.glob("[!L]*.md"), *PROJECT.glob("docs/*.md")])
BLOCKS = "".join(re.findall(r"^```\n(.*?)^```", PAGES, re.M | re.S))
LINES = {line.split("  #")[0].strip() for line in BLOCKS.splitlines() if "<this" not in line and "tables" not in line}
PIP = f"{sys.executable} -m pip wheel --no-deps"
STICK = [line for line in BLOCKS.splitlines() if "/media/stick" in line]


@pytest.mark.parametrize("line", sorted(LINES - {*STICK}))
def test_a_command_is_accepted(line, toy_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    monkeypatch.setattr(commands, "run", lambda notebooks, parameters: tmp_path)
    done = {"status": ["finished"]}
    monkeypatch.setattr(commands, "sweep", lambda plan, _: plans.read_plan(plan) and pd.DataFrame(done))
    shutil.copytree(PROJECT / "notebooks", "notebooks")
    shutil.copytree(toy_run[0], "runs/default")
    for number, noise in enumerate(np.random.default_rng(0).integers(0, 256, (24, 64, 64), np.uint8)):
        folder = ("COVID", "non-COVID")[number % 2]
        for name in (f"my/folder/{folder}/{number}.png", "a-folder/1.png", "scans/1.png", "my-slice.png"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(name)
    Path("starts.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGES, re.S)[1])
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
