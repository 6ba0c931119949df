"""kill -9 at random moments of each kind of work, and two at once: the same command finishes, with the same bits."""

import os
import subprocess
import sys

import pytest

from covid_utils.core.files import PROJECT

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux may a process with PyTorch fork")


def assert_whole(kind, folder, times):
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "COVID_UTILS_HOME": str(folder)}
    call = [sys.executable, str(PROJECT / "tests" / "kills.py"), kind, str(folder), str(times)]
    found = subprocess.run(call, env=os.environ | own, capture_output=True, text=True, timeout=600)
    assert (found.returncode, found.stdout) == (0, "[]\n"), found.stdout + found.stderr[-2000:]


@LINUX
def test_killed_while_writing(tmp_path):
    assert_whole("writing", tmp_path, 6)


@LINUX
@pytest.mark.weekly
@pytest.mark.parametrize("kind", ["pixels", "features", "writing", "drawing", "decoding"])
def test_killed_twenty_times(tmp_path, kind):
    assert_whole(kind, tmp_path, 20)
