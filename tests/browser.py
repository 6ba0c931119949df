"""Run every notebook in JupyterLab in a headless Chromium, as a learner does: `python tests/browser.py`.

Uses the profile `smoke.yaml`. Checks that nothing fails, that all pictures are shown, that the curves of 02
and 03 move while the network learns, and that the pictures of 04 and 05 follow their sliders, and then the demo
(`browser_demo.py`); leaves a screenshot of each whole notebook and of the demo in runs/browser/.
`python tests/browser.py demo notebooks/04_cam.ipynb`: only these.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import papermill
from browser_demo import check_demo
from playwright.sync_api import Page, sync_playwright

from covid_course.notebooks import declared, find_notebooks
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import read_profile

FOLDER = PROJECT / "runs" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
EXPLORERS = {"04": 2, "05": 1}  # how many a notebook has
SETTINGS = {  # all cells in the page, so that all pictures can be counted; no news from the internet
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
WATCH = """() => {
    window.pictures = new Map();
    setInterval(() => {
        document.querySelectorAll('.jp-Notebook .jp-Cell').forEach((cell, index) => {
            const image = cell.querySelector('.jp-OutputArea-output img');
            if (image) {
                if (!window.pictures.has(index)) window.pictures.set(index, new Set());
                window.pictures.get(index).add(image.src);
            }
        });
    }, 40);
}"""
RUN_ALL = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
    return panel.content.model.toJSON();
}"""
IMAGES = """() => Array.from(document.querySelectorAll('.jp-Notebook .jp-OutputArea-output img'),
    image => ({width: image.naturalWidth, alt: image.alt}))"""

TOP = """() => {
    const panel = document.querySelector('.jp-WindowedPanel-outer');
    panel.scrollTop = 0;
    return panel.scrollHeight;
}"""


def prepare(notebook: Path, folder: Path) -> None:
    """A copy of the notebook without outputs, with the small profile and four epochs."""
    parameters = read_profile(PROJECT / "notebooks" / "profiles" / "smoke.yaml")
    parameters |= {"epochs": 4, "run_dir": str(folder / "run")}
    parameters = {name: value for name, value in parameters.items() if name in declared(notebook)}
    copy = folder / notebook.name
    papermill.execute_notebook(notebook, copy, parameters, kernel_name="python3", prepare_only=True)
    content = nbformat.read(copy, 4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(content, copy)


def find_browser() -> str:
    """The path of a Chromium. Ends the program if there is none."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    return browser or sys.exit("This needs Chromium: install it (apt-get install chromium) or name one in CHROMIUM.")


def start_lab(folder: Path) -> tuple[subprocess.Popen, str]:
    """JupyterLab on this machine only, with a token: its process, and its address with `{}` for a notebook's name."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token, lab_settings = secrets.token_hex(), folder / "settings" / "@jupyterlab"
    for name, content in SETTINGS.items():
        path = lab_settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    environment = {"JUPYTER_TOKEN": token, "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    options = "--no-browser --ip=127.0.0.1 --allow-root --expose-app-in-browser --ServerApp.port_retries=0".split()
    command = [sys.executable, "-m", "jupyterlab", *options, f"--port={port}", f"--ServerApp.root_dir={folder}"]
    with (folder / "lab.log").open("w") as log:
        lab = subprocess.Popen(command, env=os.environ | environment, cwd=folder, stdout=log, stderr=log)
    for _ in range(120):
        time.sleep(0.5)
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5):
            return lab, f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"
    raise AssertionError(f"JupyterLab does not answer: see {folder / 'lab.log'}")


def check(page: Page, address: str, notebook: Path) -> str:
    """Open the notebook, run all of it, and look at it. Returns what was seen."""
    start = time.monotonic()
    page.goto(address.format(notebook.name))
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.isReady", timeout=60_000)
    page.evaluate(WATCH)
    model = page.evaluate(RUN_ALL)
    codes = [cell for cell in model["cells"] if cell["cell_type"] == "code" and cell["source"]]
    outputs = [output for cell in codes for output in cell["outputs"]]
    for output in outputs:
        assert output["output_type"] != "error", f"{notebook.name}: {output['ename']}: {output['evalue']}"
        assert output.get("name") != "stderr", f"{notebook.name} prints to stderr: {output['text']}"
    assert all(cell["execution_count"] for cell in codes), f"{notebook.name}: not all cells were run"
    stored = sum(bool({"image/png", "image/jpeg"} & set(output.get("data", {}))) for output in outputs)
    page.wait_for_timeout(500)
    images = page.evaluate(IMAGES)
    assert len(images) >= stored > 0, f"{notebook.name}: {stored} pictures in the file, {len(images)} on the page"
    assert all(image["width"] > 0 for image in images), f"{notebook.name}: a picture is broken"
    moved = page.evaluate("() => Math.max(...Array.from(window.pictures.values(), seen => seen.size)) - 1")
    if notebook.stem.startswith(("02", "03")):
        assert moved >= 2, f"{notebook.name}: the live curves changed {moved} times in four epochs"
    played = play(page, EXPLORERS[notebook.stem[:2]]) if notebook.stem[:2] in EXPLORERS else ""
    height = page.evaluate(TOP)
    page.set_viewport_size({"width": 1200, "height": min(height + 120, 16_000)})
    page.wait_for_timeout(1000)
    page.screenshot(path=FOLDER / f"{notebook.stem}.png")
    page.set_viewport_size({"width": 1200, "height": 900})
    seconds = time.monotonic() - start
    return f"{len(codes)} cells, {len(images)} pictures, live figure moved {moved} times, {seconds:.0f} s{played}"


def play(page: Page, count: int) -> str:
    """Move a slider of each explorer and wait for its picture to follow. Returns how long that took."""
    said = []
    for cell in page.locator(".jp-Notebook .jp-CodeCell", has=page.locator(".noUi-handle")).all():
        picture, handle = cell.locator(".jp-OutputArea-output img"), cell.locator(".noUi-handle").first
        for _ in range(2):  # the first change pays for what is compiled and imported late
            before, start = picture.get_attribute("src"), time.monotonic()
            handle.press("ArrowRight")
            while picture.get_attribute("src") == before:
                assert time.monotonic() - start < 10, "a slider moved, and its picture did not"
                page.wait_for_timeout(20)
            seconds = time.monotonic() - start
        said.append(f"{seconds:.2f} s")
    assert len(said) == count, f"{len(said)} explorers instead of {count}"
    return ", pictures follow their sliders in " + " and ".join(said)


def main(names: list[str]) -> int:
    notebooks = [Path(name).resolve() for name in names if name != "demo"] if names else find_notebooks()
    browser = find_browser()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for notebook in notebooks:
        prepare(notebook, FOLDER)
    lab, address = start_lab(FOLDER)
    try:
        with sync_playwright() as playwright:
            window = {"width": 1200, "height": 900}
            context = playwright.chromium.launch_persistent_context(
                FOLDER / "profile", executable_path=browser, args=FLAGS, viewport=window
            )
            for notebook in notebooks:
                page = context.new_page()
                page.set_default_timeout(600_000)
                print(f"{notebook.name}: {check(page, address, notebook)}", flush=True)
                page.close()
            if not names or "demo" in names:
                print(f"The demo: {check_demo(context, FOLDER)}", flush=True)
            context.close()
    finally:
        lab.terminate()
        lab.wait(30)
    print(f"Screenshots: {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
