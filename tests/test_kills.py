"""kill -9 at twenty random moments of each kind of work: the same command finishes, with the same bits."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from test_data import make_zip

from covid_utils.runs.files import PROJECT

KILLS, SEED = 20, 20261127
PAUSE = 0.02  # seconds between two parts of a file that a slow server sends


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    """Function that has a kind of work killed, by `kills.py`, which imports PyTorch once for all."""
    home = tmp_path_factory.mktemp("home")
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "COVID_UTILS_HOME": str(home)}
    call = [sys.executable, str(PROJECT / "tests" / "kills.py")]
    process = subprocess.Popen(call, env=os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill(kind, folder, given=""):
        process.stdin.write(json.dumps([kind, str(folder), KILLS, SEED, given]) + "\n")
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
