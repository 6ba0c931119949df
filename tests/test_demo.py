"""The demo: the predictions of `predict` on a page of its own, for this machine only."""

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import psutil
import pytest
import torch
from PIL import Image

from covid_course import demo
from covid_utils.io.images import read_slice
from covid_utils.labs import predictor


def test_a_phantom_slice_is_predicted_as_any_other(toy_run, monkeypatch, tmp_path):
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
    number, drawn = re.fullmatch(r"phantom patient (\d+), drawn as (COVID|non-COVID)\.png", cells[0]).groups()
    assert drawn == ("COVID" if int(number) % 2 else "non-COVID")  # every other patient of the hospital has it
    assert float(cells[1]) == pytest.approx(wanted["probability"], abs=1e-3) and cells[3] == wanted["decision"]


def test_it_serves_this_machine_only_and_ends_with_ctrl_c(toy_run):
    """With a token, on a free port, with a policy that keeps the browser from other hosts; no kernel stays."""
    command = [sys.executable, "-m", "covid_utils", "demo", str(toy_run[0])]
    browser = os.environ | {"BROWSER": f"{sys.executable} -c pass %s"}  # one that does nothing
    taken = socket.socket()
    with contextlib.suppress(OSError):  # another program's, then
        taken.bind(("127.0.0.1", 8866))  # Voilà's own choice
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C reaches it, however this one was started
    served = subprocess.Popen(command, env=browser, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\w{40,}", served.stdout.readline())[0]
        assert ":8866" not in address
        open_to = [each for each in psutil.net_connections("inet") if each.pid == served.pid]
        assert {each.laddr.ip for each in open_to if each.status == "LISTEN"} == {"127.0.0.1"}
        with urllib.request.urlopen(address.split("?")[0], timeout=60) as response:
            assert "/login" in response.url
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
        with urllib.request.urlopen(address, timeout=120) as response:
            assert b"not fit for clinical use" in response.read()  # the whole page: a kernel has run it
        kernels = psutil.Process(served.pid).children(recursive=True)
        served.send_signal(signal.SIGINT)
        assert served.wait(60) == 0 and kernels and not psutil.wait_procs(kernels, timeout=15)[1]
    finally:
        served.kill()
        taken.close()
