"""The demo in a real browser, as a visitor uses it; a part of `browser.py`."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import BrowserContext

from covid_utils.core.files import PROJECT
from ct_phantom.patients import draw_patient

COURSE = [sys.executable, "-m", "covid_utils"]
NOTEBOOKS = PROJECT / "notebooks"


def check_demo(context: BrowserContext, folder: Path) -> str:
    """Serve the demo of the run in `folder`, ask it in every way there is, and look at it. Returns what was seen."""
    run, start = folder / "run", time.monotonic()
    if not list(run.glob("*/checkpoints/best.safetensors")):
        small = ["-f", NOTEBOOKS / "profiles" / "smoke.yaml", "-p", "run_dir", run]
        subprocess.run([*COURSE, "run", NOTEBOOKS / "02_scratch.ipynb", *small], check=True)
    slices = {"slice.png": draw_patient(3, seed=7, image_size=128, n_slices=1).images[0]}
    slices["large.png"] = np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), dtype=np.uint8)  # 14 MB
    for name, image in slices.items():
        Image.fromarray(image).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    files = [folder / name for name in slices]
    subprocess.run([*COURSE, "predict", run, *files, "--out", folder / "predicted"], check=True)
    wanted = pd.read_csv(folder / "predicted" / "answers.csv")
    wanted.index = wanted.file.map(lambda path: Path(path).name)

    nobody = os.environ | {"BROWSER": f"{sys.executable} -c pass %s"}  # a browser that does nothing
    demo = subprocess.Popen([*COURSE, "demo", run], stdout=subprocess.PIPE, text=True, env=nobody)
    page, away, errors = context.new_page(), [], []

    def keep(request) -> None:
        # "csp": the page's own policy has kept the browser from asking
        if urlparse(request.url).hostname not in (None, "127.0.0.1") and request.failure != "csp":
            away.append((request.url, request.failure))

    def upload(*names: str) -> None:
        """Give files to the page, and compare the row of the first with what the command said."""
        with page.expect_file_chooser() as chooser:
            page.locator("button.widget-upload").click()
        chooser.value.set_files([folder / name for name in names])
        row = page.locator("tr", has=page.get_by_role("cell", name=names[0], exact=True))
        row.wait_for()
        cells, told = row.locator("td").all_inner_texts(), wanted.loc[names[0]]
        assert abs(float(cells[1]) - told.probability) < 6e-4 and cells[3] == told.decision, (cells, told)

    try:
        page.on("requestfinished", keep)
        page.on("requestfailed", keep)
        page.on("pageerror", lambda error: errors.append(error))  # Playwright wants a function of Python
        opened = time.monotonic()
        page.goto(re.search(r"http://127\.0\.0\.1:\d+/\?token=\w+", demo.stdout.readline())[0])
        page.locator("button.widget-upload").wait_for()
        shown = time.monotonic() - opened
        upload("slice.png", "broken.png")
        assert "broken.png cannot be read" in page.inner_text("body")
        page.locator("img:visible").first.wait_for()
        page.set_viewport_size({"width": 1000, "height": 1000})
        page.screenshot(path=folder / "demo.png")
        upload("large.png")
        assert "do not believe the answer" in page.inner_text("body")
        page.get_by_role("button", name="a phantom slice").click()
        page.locator("td", has_text=re.compile("phantom patient .* drawn as")).wait_for()
        page.wait_for_timeout(1000)
        assert not away and not errors, (away, errors)
        page.close()
    finally:
        demo.terminate()
        demo.wait(60)
    return f"shown after {shown:.0f} s, no request to another host, {time.monotonic() - start:.0f} s"
