"""The demo: the same answers on a page of its own, for this machine alone."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import nbformat
import psutil
import pytest
import torch
from PIL import Image

from covid_course import demo
from covid_course.commands import main
from covid_utils.__main__ import demo as demo_command
from covid_utils.io.images import read_slice
from covid_utils.labs import predictor


def test_a_phantom_slice_is_answered_as_any_other(toy_run, monkeypatch, tmp_path):
    monkeypatch.setenv(demo.RUN, str(toy_run[0]))
    controls = demo.page()
    controls["phantom"].click()
    (given,) = controls["files"].value
    content = bytes(given["content"])
    assert Image.open(io.BytesIO(content)).size == (64, 64)  # the smallest that is drawn
    (tmp_path / "slice.png").write_bytes(content)
    image = torch.from_numpy(read_slice(tmp_path / "slice.png", 32))
    wanted = predictor.predict_slices(predictor.read_run(toy_run[0]), image[None])[0]
    cells = re.findall(r"<td>(.*?)</td>", controls["answers"].value)
    number, drawn = re.fullmatch(r"imaginary patient (\d+), drawn as (COVID|non-COVID)\.png", cells[0]).groups()
    assert drawn == ("COVID" if int(number) % 2 else "non-COVID")  # every other patient of the hospital has it
    assert float(cells[1]) == pytest.approx(wanted["probability"], abs=1e-3) and cells[3] == wanted["decision"]
    controls["files"].error = "a folder"
    assert "give single files, no folder" in controls["answers"].value


def test_it_serves_this_machine_alone_and_ends_with_ctrl_c(toy_run, tmp_path):
    """With a token, with a policy that keeps the browser from asking other hosts, and with no process left behind."""
    opened = tmp_path / "opened"
    browser = f"""{sys.executable} -c "import sys; open('{opened}', 'w').write(sys.argv[1])" %s"""
    command = [sys.executable, "-m", "covid_utils", "demo", str(toy_run[0])]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C reaches it, however this one was started
    served = subprocess.Popen(command, env=os.environ | {"BROWSER": browser}, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\w{40,}", served.stdout.readline())[0]
        for _ in range(300):
            if opened.exists() and opened.read_text():
                break
            time.sleep(0.1)
        assert opened.read_text() == address
        port = int(re.search(r":(\d+)", address)[1])
        (voila,) = (each for each in psutil.Process(served.pid).children() if "voila" in each.cmdline())
        open_to = [each for each in psutil.net_connections("inet") if each.pid == voila.pid and each.status == "LISTEN"]
        assert port in {each.laddr.port for each in open_to} and {each.laddr.ip for each in open_to} == {"127.0.0.1"}
        assert address.split("=")[1] not in " ".join(voila.cmdline()), "every user of the machine could read it"
        with urllib.request.urlopen(address.split("?")[0], timeout=60) as answer:
            assert "/login" in answer.url
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        served.send_signal(signal.SIGINT)
        assert served.wait(60) == 0 and not voila.is_running()
    finally:
        served.terminate()  # not kill: it ends Voilà, too
        served.wait(60)


def test_what_is_missing_is_said_in_one_sentence(toy_run, tmp_path, monkeypatch, capsys):
    assert main(["demo", str(tmp_path)], demo=demo_command) == 1
    assert re.fullmatch(
        r"There is no trained network in .*make tutorial fills runs/default\)\.", capsys.readouterr().err.strip()
    )
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo", str(toy_run[0])], demo=demo_command) == 1
    said = capsys.readouterr().err.strip()
    assert 'pip install -c constraints.txt -e ".[demo]"' in said and "\n" not in said


def test_a_demo_that_cannot_start_says_where_to_look(toy_run, monkeypatch, capsys):
    monkeypatch.setattr(demo, "NOTEBOOK", toy_run[0] / "none.ipynb")
    assert main(["demo", str(toy_run[0])], demo=demo_command) == 1
    assert re.search(r"The demo did not start: .*demo\.log says why", capsys.readouterr().err)
    assert "none.ipynb" in (toy_run[0] / "demo.log").read_text()


def test_the_page_is_no_lesson_and_kept_clean():
    page = nbformat.read(demo.NOTEBOOK, 4)
    nbformat.validate(page)
    assert demo.NOTEBOOK.stat().st_size < 2000 and not any(cell.get("outputs") for cell in page.cells)
    assert "not fit for clinical use" in page.cells[0].source and page.metadata.kernelspec.name == "python3"
