"""kill -9 at random moments. `test_kills.py` starts it; a task a line comes in, what was found goes out.

This process imports PyTorch once and computes nothing itself, so that it has one thread and may fork. Each child does
a piece of work as a command of the course does it, on toy data, in a folder of its own, and is killed at a random
moment. Then the same work is done again, and what lies in the folder is compared with what an undisturbed child left.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
import types
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors import safe_open
from toy import ToyNetwork, tiny_data

from covid_course import sweep
from covid_course.plans import Run
from covid_utils import models, training
from covid_utils.core import memory
from covid_utils.core.files import replace_file, write_json
from covid_utils.core.settings import Settings
from covid_utils.io import downloads, images
from covid_utils.io.weights import save_weights
from covid_utils.models import RESNET, Backbone
from covid_utils.runs import checkpoints
from ct_phantom.patients import phantom

SECONDS = 240  # for one task; then this process ends, and the test fails
CHANGING = ("seconds",)  # what no two runs have in common


# ------------------------------------------------------------------------------------------- the work


def train(folder: Path, **changes) -> None:
    settings = Settings(image_size=32, epochs=3, batch_size=8, backbone="toy", device="cpu", run_dir=folder, **changes)
    training.fit(training.new_model(settings), tiny_data(), settings, folder / "scratch")


def pixels(folder: Path, given: str) -> None:
    train(folder)


def features(folder: Path, given: str) -> None:
    """On features of the frozen stages, kept in a file, as if they were too many for the memory."""
    memory.MEMORY = 0
    train(folder, weights=given, trainable="last", copies=2)


def saving(folder: Path, given: str) -> None:
    """What an epoch of a real network saves, twice."""
    torch.manual_seed(0)
    model = models.Net("resnet18")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in (1, 2):
        parameters = {"epochs": 2, "trainable": "all"}
        files = checkpoints.Checkpoints(folder, parameters, model, optimizer, None)
        files.save([{"epoch": n, "val_accuracy": n / 10, "val_loss": 1.0} for n in range(1, epoch + 1)], best=True)
        write_json(folder / "metrics.json", {"scratch": {"epoch": epoch}})


def drawing(folder: Path, given: str) -> None:
    phantom(patients=8, n_slices=2, image_size=64, cache_dir=folder, progress=False)


def decoding(folder: Path, given: str) -> None:
    names = sorted(path.name for path in Path(given).iterdir())
    images.decode(Path(given), names, 48, folder, progress=False)


def download(folder: Path, given: str) -> None:
    """Two archives and six lists, from a slow server; unpacked, and made into tables."""
    downloads.COVID_CT = given
    downloads.covid_ct(folder / "covid-ct", progress=False)


def many_runs(folder: Path, given: str) -> None:
    """A sweep as it is, but that its runs are executed here, one after the other, and are no notebooks."""

    def execute(notebook: Path, output: Path, parameters: dict) -> Path:
        def write(temporary: Path) -> None:
            for line in range(5):
                with temporary.open("a") as file:
                    file.write(f"{parameters['seed']} {line}\n")
                time.sleep(0.005)  # a notebook takes its time, too

        replace_file(output, write)
        write_json(output.with_name("metrics.json"), {"scratch": {"auc": {"value": parameters["seed"] / 10}}})
        return output

    os.environ["COVID_UTILS_HOME"] = str(folder)  # tables name files from here on
    runs = [Run(f"seed={seed}", str(folder / f"seed={seed}"), {"seed": seed}, {"toy.ipynb": "0"}) for seed in range(6)]
    sweep.read_plan = lambda plan: (folder, runs)
    sweep.cluster_of = lambda *_: contextlib.nullcontext()
    sweep.each_done = lambda client, work, missing: map(work, missing)
    sweep.execute, sweep.digest = execute, lambda path: "0"
    assert sweep.sweep({}).status.eq("finished").all()


WORK = {each.__name__: each for each in (pixels, features, saving, drawing, decoding, download, many_runs)}


def prepared(kind: str, folder: Path, given: str) -> str:
    """What the work needs besides its folder."""
    if kind == "features":
        torch.manual_seed(0)
        save_weights(folder / "toy.safetensors", models.Net("toy").state_dict(), {})
        return str(folder / "toy.safetensors")
    if kind == "decoding":
        (folder / "slices").mkdir()
        rng = np.random.default_rng(0)
        for number in range(60):
            greys = rng.integers(0, 256, (256, 256), dtype=np.uint8)
            Image.fromarray(greys).save(folder / "slices" / f"{number:02d}.png", compress_level=1)
        return str(folder / "slices")
    return given


# -------------------------------------------------------------------------------------- what is left


def content(path: Path) -> str:
    """A file's content as text that is the same for the same bits; seconds are left out."""
    if path.suffix == ".pt":  # torch.save notes the temporary file's name inside
        return plain(torch.load(path, weights_only=True))
    if path.suffix == ".safetensors":  # whose notes come in any order
        with safe_open(path, "pt") as file:
            return plain({name: file.get_tensor(name) for name in file.keys()} | {"about": file.metadata()})
    if path.suffix == ".json":
        found = json.loads(path.read_text())
        return plain({name: value for name, value in found.items() if name not in CHANGING})
    if path.suffix == ".csv":
        return pd.read_csv(path).drop(columns=list(CHANGING), errors="ignore").to_csv()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plain(value) -> str:
    """Dicts by name, tensors by their bytes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {plain(value[name])}" for name in sorted(value, key=str)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().flatten().view(torch.uint8).numpy()).hexdigest()
    return repr(value)


def left(folder: Path) -> dict[str, str]:
    """All that lies in a folder, temporary files and locks too."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {name: "folder" if path.is_dir() else content(path) for name, path in files.items()}


# ------------------------------------------------------------------------------------------ the kills


def begun(kind: str, folder: Path, given: str, said: Path | None = None) -> int:
    """A child that does the work, by its number; its error goes to stderr or into a file."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        training.time = types.SimpleNamespace(perf_counter=lambda: 0.0)  # no two runs take equally long
        with contextlib.redirect_stdout(None):
            WORK[kind](folder, given)
        code = 0
    except BaseException as error:
        if said:
            said.write_text(f"{type(error).__name__}: {error}")
        else:
            traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """How a child ended: 0, an exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def undisturbed(kind: str, folder: Path, given: str) -> float:
    """Do the work, and how many seconds it took."""
    started = time.perf_counter()
    code = ended(begun(kind, folder, given))
    assert code == 0, f"{kind} ended with {code}: see above"
    return time.perf_counter() - started


def killed(kind: str, folder: Path, kills: int, seed: int, given: str) -> dict:
    """Kill the work `kills` times while it runs. After every other kill it is killed again, before it may finish.

    Returns: kills that hit, children that were done before their moment came, and what differed (should be empty).
    """
    given = prepared(kind, folder, given)
    rng, wrong = np.random.default_rng(seed), []
    seconds = undisturbed(kind, folder / "whole", given)
    wanted = left(folder / "whole")
    hit = missed = place = 0
    while hit < kills and missed < 5 * kills:
        now = folder / f"killed-{place}"
        child = begun(kind, now, given)
        time.sleep(rng.uniform(0, seconds))  # the random moment itself
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        assert code in (0, -signal.SIGKILL), f"{kind} ended with {code}: see above"
        hit, missed = hit + (code != 0), missed + (code == 0)
        if code == 0:
            seconds *= 0.8  # the machine has got faster, or less was left to do
        elif hit % 2 and hit < kills:
            continue
        else:
            seconds = max(seconds, undisturbed(kind, now, given))
        found = left(now)
        wrong += [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        place += 1
        shutil.rmtree(now)
    return {"hit": hit, "missed": missed, "finished": place, "files": len(wanted), "wrong": sorted(set(wrong))}


def together(kind: str, folder: Path, rounds: int, given: str) -> dict:
    """Begin the same work twice at the same moment; if one is refused, do it again.

    Returns: how many children ended well, what the others said, and what differed (should be empty).
    """
    given = prepared(kind, folder, given)
    undisturbed(kind, folder / "whole", given)
    wanted, fine, said, wrong = left(folder / "whole"), 0, [], []
    for number in range(rounds):
        now = folder / f"both-{number}"
        children = [begun(kind, now, given, folder / f"said-{number}-{which}") for which in "ab"]
        codes = [ended(child) for child in children]
        fine += codes.count(0)
        said += [path.read_text() for path in sorted(folder.glob(f"said-{number}-*"))]
        if any(codes):
            undisturbed(kind, now, given)
        found = left(now)
        wrong += [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        shutil.rmtree(now)
    return {"fine": fine, "said": said, "files": len(wanted), "wrong": sorted(set(wrong))}


def main() -> None:
    torch.set_num_threads(1)
    models.BACKBONES["toy"] = Backbone(ToyNetwork, *RESNET)
    for line in sys.stdin:
        signal.alarm(SECONDS)
        kind, folder, times, seed, given = json.loads(line)
        try:
            if seed is None:
                answer = together(kind, Path(folder), times, given)
            else:
                answer = killed(kind, Path(folder), times, seed, given)
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
