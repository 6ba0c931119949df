"""The demo: the predictions of `predict` on a page of its own, for this machine only."""

import contextlib
import os
import re
import signal
import socket
import sys
import urllib.request

import psutil
from toy import started


def test_it_serves_this_machine_only_and_ends_with_ctrl_c(toy_run):
    """With a token, on a free port, with a policy that keeps the browser from other hosts; no kernel stays."""
    browser = os.environ | {"BROWSER": f"{sys.executable} -c pass %s"}  # one that does nothing
    taken = socket.socket()
    with contextlib.suppress(OSError):  # another program's, then
        taken.bind(("127.0.0.1", 8866))  # Voilà's own choice
    with taken, started("demo", str(toy_run[0]), env=browser) as served:
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
