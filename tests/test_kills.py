"""kill -9 at twenty random moments of each kind of work: the same command finishes, with the same bits."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import psutil
import pytest
from PIL import Image
from test_data import make_zip
from test_sweep import RECORD, finished, started, until, written

from covid_utils.core.files import PROJECT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux may a process with PyTorch fork")
KILLS, SEED = 20, 20261127
PAUSE = 0.02  # seconds between two parts of a file that a slow server sends


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    """Function that has a kind of work killed, by `kills.py`, which imports PyTorch once for all."""
    home = tmp_path_factory.mktemp("home")
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "COVID_UTILS_HOME": str(home)}
    call = [sys.executable, str(PROJECT / "tests" / "kills.py")]
    process = subprocess.Popen(call, env=os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill(kind, folder, given="", times=KILLS, seed=SEED):
        process.stdin.write(json.dumps([kind, str(folder), times, seed, given]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline() or '{"error": "it took too long"}')

    yield kill
    process.stdin.close()
    process.wait(30)


def assert_whole(found):
    assert "error" not in found, found["error"]
    assert found["hit"] == KILLS, f"the work was over before its moment came, {found['missed']} times"
    assert found["finished"] >= KILLS // 2 and found["files"] > 0
    assert not found["wrong"], "the same command leaves other files than one that nobody disturbed"


@pytest.mark.parametrize("kind", ["pixels", "features", "saving", "drawing", "decoding", "many_runs"])
def test_killed_twenty_times(killer, tmp_path, kind):
    assert_whole(killer(kind, tmp_path))


# -------------------------------------------------------------------------------------------- downloads


class Slow(BaseHTTPRequestHandler):
    """Sends a file in eight parts with pauses, or the rest of it."""

    def do_GET(self):
        content = self.server.files[self.path]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        part = len(content) // 8 + 1
        try:
            for place in range(start, len(content), part):
                self.wfile.write(content[place : place + part])
                time.sleep(PAUSE)
        except OSError:
            pass  # who asked was killed

    def log_message(self, *arguments):
        pass


@pytest.fixture
def slow_server():
    """The address of COVID-CT as a toy: two archives and six lists, sent slowly."""
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(picture, "PNG")
    files = {}
    for name in ("COVID", "NonCOVID"):
        buffer = io.BytesIO()
        make_zip(buffer, {f"CT_{name}/{n}.png": picture.getvalue() for n in range(6)})
        files[f"/Images-processed/CT_{name}.zip"] = buffer.getvalue()
        for split in ("train", "val", "test"):
            files[f"/Data-split/{name}/{split}CT_{name}.txt"] = b"0.png\n1.png\n"
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.files, server.daemon_threads = files, True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_killed_twenty_times(killer, slow_server, tmp_path):
    assert_whole(killer("download", tmp_path, slow_server))


# ------------------------------------------------------------------------------------------ two at once


@pytest.mark.parametrize("kind", ["pixels", "features", "saving", "drawing", "decoding", "many_runs", "download"])
def test_two_at_once(killer, slow_server, tmp_path, kind):
    """The same command twice at the same moment: both finish, or one says in a sentence that another is at it."""
    rounds = 3
    found = killer(kind, tmp_path, slow_server, rounds, None)
    assert "error" not in found, found["error"]
    assert found["fine"] >= rounds and found["files"] > 0 and not found["wrong"]
    assert len(found["said"]) == 2 * rounds - found["fine"]
    refused = {"pixels", "features", "saving", "many_runs"}  # the others need not know of one another
    assert all(re.match("OSError: Another process (trains in|is at the sweep)", said) for said in found["said"]), found
    assert kind in refused or not found["said"]


# ------------------------------------------------------------------------------------ a sweep as it is


def at_work(number, folder, done):
    """All processes that a sweep has started, if there is a kernel among them, and so many of its runs are done."""
    tree = psutil.Process(number).children(recursive=True)
    with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
        if any("ipykernel_launcher" in each.cmdline() for each in tree) and finished(folder) >= done:
            return tree


def test_a_sweep_of_notebooks_killed(toy, tmp_path):
    """Three times, with kernels at work, once none, one and two of its runs are done: all that it started ends, too."""
    notebook = toy("01_toy", "import time\n\ntime.sleep(1)", RECORD)
    grid = {"epochs": [1, 2, 3, 4, 5, 6]}
    path, temporary = (
        written(tmp_path, notebooks=[str(notebook)], folder=str(tmp_path / "all"), grid=grid),
        tmp_path / "tmp",
    )
    temporary.mkdir()
    for done in range(3):
        running = started("covid_utils", "sweep", path, env=os.environ | {"TMPDIR": str(temporary)})
        tree = until(lambda done=done, running=running: at_work(running.pid, tmp_path / "all", done), seconds=300)
        running.kill()
        running.communicate(timeout=60)
        assert not psutil.wait_procs(tree, timeout=120)[1], "no worker and no kernel stays behind"
    call = [sys.executable, "-m", "covid_utils", "sweep", str(path)]
    done = subprocess.run(call, env=os.environ | {"TMPDIR": str(temporary)}, cwd=PROJECT, timeout=300)
    assert done.returncode == 0
    table = pd.read_csv(tmp_path / "all" / "results.csv")
    assert table.status.eq("finished").all() and table["toy.auc"].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert {each.name for each in tmp_path.glob("all/*/*")} == {"01_toy.ipynb", "metrics.json", "run.json"}
    assert not list(temporary.glob("*covid-utils*"))
