"""Run every notebook in JupyterLab in a headless Chromium, as a learner does: `python tests/browser.py`.

Uses the profile `smoke.yaml`. Checks that nothing fails, that all pictures are shown, that live curves move while a
network learns, and that pictures follow their sliders, and then the demo (`browser_demo.py`); leaves a screenshot of
each whole notebook and of the demo in runs/browser/. `python tests/browser.py 04 demo`: only these.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from browser_demo import check_demo
from nbconvert.preprocessors import ClearOutputPreprocessor
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from playwright.sync_api import Page, sync_playwright

from covid_course.notebooks import declared, find_notebooks
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import read_profile

FOLDER = PROJECT / "runs" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
LAB = """--no-browser --ip=127.0.0.1 --allow-root --expose-app-in-browser --LabApp.news_url=None
--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate""".split()
EXPLORERS = {"04": 2, "05": 1}  # how many pictures with sliders a notebook has
WATCH = """() => {
    window.pictures = new Map();
    setInterval(() => document.querySelectorAll('.jp-Notebook .jp-Cell').forEach((cell, index) => {
        const image = cell.querySelector('.jp-OutputArea-output img');
        if (image) window.pictures.set(index, (window.pictures.get(index) || new Set()).add(image.src));
    }), 40);
}"""
RUN_ALL = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
    return panel.content.model.toJSON();
}"""
READY = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.isReady"
MOVED = "() => Math.max(...[...window.pictures.values()].map((seen) => seen.size)) - 1"
WIDTHS = (
    "() => [...document.querySelectorAll('.jp-Notebook .jp-OutputArea-output img')].map((each) => each.naturalWidth)"
)
TOP = """() => {
    const panel = document.querySelector('.jp-WindowedPanel-outer');
    panel.scrollTop = 0;
    return panel.scrollHeight;
}"""


def prepare(notebook: Path) -> None:
    """A copy of the notebook without outputs, with the small profile and four epochs."""
    given = read_profile(PROJECT / "notebooks" / "profiles" / "smoke.yaml")
    given |= {"epochs": 4, "run_dir": str(FOLDER / "run")}
    given = {name: value for name, value in given.items() if name in declared(notebook)}
    content = parameterize_notebook(load_notebook_node(str(notebook)), given, kernel_name="python3", language="python")
    nbformat.write(ClearOutputPreprocessor().preprocess(content, {})[0], FOLDER / notebook.name)


def find_browser() -> str:
    """The path of a Chromium. Ends the program if there is none."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    return browser or sys.exit("This needs Chromium: install it (apt-get install chromium) or name one in CHROMIUM.")


def start_lab() -> tuple[subprocess.Popen, str]:
    """JupyterLab on this machine only, with a token: its process, and its address with `{}` for a notebook's name."""
    settings = FOLDER / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))  # all cells in the page: all pictures can be counted
    places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "spaces", "JUPYTER_RUNTIME_DIR": "jp"}
    environment = os.environ | {name: str(FOLDER / place) for name, place in places.items()}
    with (FOLDER / "lab.log").open("w") as log:
        lab = subprocess.Popen([sys.executable, "-m", "jupyterlab", *LAB], env=environment, cwd=FOLDER, stderr=log)
    for _ in range(120):
        time.sleep(0.5)
        for file in FOLDER.glob(f"jp/jpserver-{lab.pid}.json"):
            server = json.loads(file.read_text())
            return lab, f"{server['url']}lab/tree/{{}}?token={server['token']}&reset"
    lab.kill()
    raise AssertionError(f"JupyterLab does not answer: see {FOLDER / 'lab.log'}")


def check(page: Page, address: str, notebook: Path) -> str:
    """Open the notebook, run all of it, and look at it. Returns what was seen."""
    start = time.monotonic()
    page.goto(address.format(notebook.name))
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(READY, timeout=60_000)
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
    widths, moved = page.evaluate(WIDTHS), page.evaluate(MOVED)
    assert len(widths) >= stored > 0, f"{notebook.name}: {stored} pictures in the file, {len(widths)} on the page"
    assert all(widths), f"{notebook.name}: a picture is broken"
    if notebook.stem.startswith(("02", "03")):
        assert moved >= 2, f"{notebook.name}: the live curves changed {moved} times in four epochs"
    played = play(page)
    assert len(played) == EXPLORERS.get(notebook.stem[:2], 0), f"{notebook.name}: {len(played)} explorers"
    page.set_viewport_size({"width": 1200, "height": min(page.evaluate(TOP) + 120, 16_000)})
    page.wait_for_timeout(1000)
    page.screenshot(path=FOLDER / f"{notebook.stem}.png")
    page.set_viewport_size({"width": 1200, "height": 900})
    seen = f"{len(codes)} cells, {len(widths)} pictures, live figure moved {moved} times"
    return ", ".join([seen, f"{time.monotonic() - start:.0f} s", *played])


def play(page: Page) -> list[str]:
    """Move a slider of each explorer and wait for its picture to follow. Returns how long each took."""
    said = []
    cells = page.locator(".jp-Notebook .jp-CodeCell", has=page.locator(".noUi-handle"))
    for cell in cells.filter(has=page.locator(".jp-OutputArea-output img")).all():
        picture, handle = cell.locator(".jp-OutputArea-output img"), cell.locator(".noUi-handle").first
        for _ in range(2):  # the first change pays for what is compiled and imported late
            before, start = picture.get_attribute("src"), time.monotonic()
            handle.press("ArrowRight")
            while picture.get_attribute("src") == before:
                assert time.monotonic() - start < 10, "a slider moved, and its picture did not"
                page.wait_for_timeout(20)
            seconds = time.monotonic() - start
        said.append(f"a picture follows its slider in {seconds:.2f} s")
    return said


def main(names: list[str]) -> int:
    numbers = [name for name in names if name != "demo"]
    wanted = tuple(numbers) if names else ""  # "demo" alone wants no notebook
    notebooks = [path for path in find_notebooks() if path.name.startswith(wanted)]
    browser = find_browser()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for notebook in notebooks:
        prepare(notebook)
    lab, address = start_lab()
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
            context = chromium.new_context(viewport={"width": 1200, "height": 900})
            context.set_default_timeout(600_000)
            for notebook in notebooks:
                page = context.new_page()
                print(f"{notebook.name}: {check(page, address, notebook)}", flush=True)
                page.close()
            if not names or "demo" in names:
                print(f"The demo: {check_demo(context, FOLDER)}", flush=True)
    finally:
        lab.terminate()
        lab.wait(30)
    print(f"Screenshots: {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
