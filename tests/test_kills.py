"""kill -9 at random moments of each kind of work, and two at once: the same command finishes, with the same bits."""

import os
import subprocess
import sys

import pytest

from covid_utils.core.files import PROJECT

WEEKLY = [pytest.param(kind, 20, marks=pytest.mark.weekly) for kind in ("pixels", "features")]


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux may a process with PyTorch fork")
@pytest.mark.parametrize(("kind", "times"), [("pixels", 4), *WEEKLY])
def test_killed_at_random_moments(tmp_path, kind, times):
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "COVID_UTILS_HOME": str(tmp_path)}
    call = [sys.executable, str(PROJECT / "tests" / "kills.py"), kind, str(tmp_path), str(times)]
    found = subprocess.run(call, env=os.environ | own, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-2000:]
