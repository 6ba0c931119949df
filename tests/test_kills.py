"""kill -9 at random moments of each kind of work, and two at once: the same command finishes, with the same bits.

The test starts `python tests/test_kills.py KIND FOLDER TIMES`, which imports PyTorch once and computes nothing itself,
so that it has one thread and may fork. Each child does a piece of work on toy data in a folder of its own, and is
killed at a random moment. Then the same work is done again, and compared with what an undisturbed child left.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import TOY, assert_same_bits, fitted, tiny_data

from covid_utils import models
from covid_utils.core import backbones, memory
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from covid_utils.io.weights import save_weights

SEED = 20261127
WEEKLY = [pytest.param(kind, 20, marks=pytest.mark.weekly) for kind in ("pixels", "features")]


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux may a process with PyTorch fork")
@pytest.mark.parametrize(("kind", "times"), [("pixels", 4), *WEEKLY])
def test_killed_at_random_moments(tmp_path, kind, times):
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "COVID_UTILS_HOME": str(tmp_path)}
    call = [sys.executable, __file__, kind, str(tmp_path), str(times)]
    found = subprocess.run(call, env=os.environ | own, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-2000:]


def pixels(folder: Path, **changes) -> None:
    settings = Settings(image_size=32, epochs=3, batch_size=8, backbone="toy", device="cpu", run_dir=folder, **changes)
    fitted(settings, tiny_data(), folder / "scratch")


def features(folder: Path) -> None:
    """On features of the frozen stages, cached in a file, as if they were too many for the memory."""
    memory.MEMORY = 0
    weights = folder.parent / "toy.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        save_weights(weights, models.Net("toy").state_dict(), {})
    pixels(folder, weights=str(weights), trainable="last", copies=2)


WORK = {each.__name__: each for each in (pixels, features)}


def begun(kind: str, folder: Path) -> int:
    """A child that does the work, by its number."""
    if child := os.fork():
        return child
    code = 1
    try:
        with contextlib.redirect_stdout(None):
            WORK[kind](folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """How a child ended: 0, an exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def undisturbed(kind: str, folder: Path) -> float:
    """Do the work, and how many seconds it took."""
    started = time.perf_counter()
    assert ended(begun(kind, folder)) == 0, "see above"
    return time.perf_counter() - started


def names(folder: Path) -> set[str]:
    """The files in a folder, but hidden ones: locks, and temporary files that stay for a day after a kill."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*")}


def assert_same(one: Path, other: Path) -> None:
    assert names(one) == names(other)
    assert_same_bits(one / "scratch", other / "scratch")


def main(kind: str, folder: Path, times: int) -> None:
    """Kill the work so many times, and begin it twice at once: what lies there is what an undisturbed child left."""
    undisturbed(kind, folder / "first")  # makes what the others need
    whole, now, rng, hit = folder / "whole", folder / "now", np.random.default_rng(SEED), 0
    seconds = undisturbed(kind, whole)
    while hit < times:
        child = begun(kind, now)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        hit += ended(child) != 0
        if hit % 2:
            continue  # every other time it is killed once more before it may finish
        undisturbed(kind, now)
        assert_same(now, whole)
        shutil.rmtree(now)
    codes = [ended(child) for child in (begun(kind, now), begun(kind, now))]
    assert not all(codes), "one may be refused, with a sentence"
    undisturbed(kind, now)
    assert_same(now, whole)


if __name__ == "__main__":
    torch.set_num_threads(1)
    backbones.BACKBONES["toy"] = TOY
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
