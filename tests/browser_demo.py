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

COURSE = [sys.executable, "-m", "covid_utils"]
NOTEBOOKS = PROJECT / "notebooks"


def check_demo(context: BrowserContext, folder: Path) -> str:
    """Serve the demo of the run in `folder`, give it a file of 14 MB, and look at it. Returns what was seen."""
    run, start = folder / "run", time.monotonic()
    if not list(run.glob("*/checkpoints/best.safetensors")):
        small = ["-f", NOTEBOOKS / "profiles" / "smoke.yaml", "-p", "run_dir", run]
        subprocess.run([*COURSE, "run", NOTEBOOKS / "02_scratch.ipynb", *small], check=True)
    noise = np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    subprocess.run([*COURSE, "predict", run, folder / "noise.png", "--out", folder / "predicted"], check=True)
    (wanted,) = pd.read_csv(folder / "predicted" / "answers.csv").itertuples()

    nobody = os.environ | {"BROWSER": f"{sys.executable} -c pass %s"}  # a browser that does nothing
    demo = subprocess.Popen([*COURSE, "demo", run], stdout=subprocess.PIPE, text=True, env=nobody)
    page, away, errors = context.new_page(), [], []

    def keep(request) -> None:
        # "csp": the page's own policy has kept the browser from asking
        if urlparse(request.url).hostname not in (None, "127.0.0.1") and request.failure != "csp":
            away.append((request.url, request.failure))

    try:
        page.on("requestfinished", keep)
        page.on("requestfailed", keep)
        page.on("pageerror", lambda error: errors.append(error))  # Playwright wants a function of Python
        page.goto(re.search(r"http://127\.0\.0\.1:\d+/\?token=\w+", demo.stdout.readline())[0])
        with page.expect_file_chooser() as chooser:
            page.locator("button.widget-upload").click()
        chooser.value.set_files(folder / "noise.png")
        row = page.locator("tr", has=page.get_by_role("cell", name="noise.png", exact=True))
        row.wait_for()
        cells = row.locator("td").all_inner_texts()
        assert abs(float(cells[1]) - wanted.probability) < 6e-4 and cells[3] == wanted.decision, (cells, wanted)
        page.locator("img:visible").first.wait_for()
        assert "do not believe the answer" in page.inner_text("body")
        page.screenshot(path=folder / "demo.png")
        page.get_by_role("button", name="a phantom slice").click()
        page.locator("td", has_text=re.compile("phantom patient .* drawn as")).wait_for()
        assert not away and not errors, (away, errors)
        page.close()
    finally:
        demo.terminate()
        demo.wait(60)
    return f"no request to another host, {time.monotonic() - start:.0f} s"
