"""The demo, a single page that asks a run's network about slices, on this machine only: Voilà shows `demo.ipynb`."""

from __future__ import annotations

import io
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import ipywidgets as widgets
from IPython.display import Javascript, Markdown, display
from PIL import Image

from covid_utils.core.files import display_path, resolve, write_json
from covid_utils.io.folders import CLASSES
from covid_utils.labs.predictor import read_run
from ct_phantom.patients import draw_patient

from .predict import upload

NOTEBOOK = Path(__file__).with_suffix(".ipynb")
RUN = "COVID_UTILS_DEMO"  # environment variable: whose network the page asks
LARGEST = 200 * 2**20  # bytes of all files that are given at once; Voilà's own limit is 10 MB
# The browser refuses every request to another host. (Voilà's page asks a CDN for a font; its icons are here anyway.)
HERE_ONLY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
# FileUpload's button takes no files that are dropped, and its input is not in the page: lend the input this click.
DROP = """
document.addEventListener('dragover', event => event.preventDefault());
document.addEventListener('drop', event => {
    event.preventDefault();  // or the browser would leave the page and show the file
    const click = HTMLInputElement.prototype.click;
    HTMLInputElement.prototype.click = function () {
        this.files = event.dataTransfer.files;
        this.dispatchEvent(new Event('change'));
    };
    try { document.querySelector('button.widget-upload').click(); }
    finally { HTMLInputElement.prototype.click = click; }
});
"""


def serve(run_dir: str | Path) -> int:
    """Open the page in a browser, and serve it until Ctrl-C, to this machine alone, behind a token.

    Returns:
        an exit code: 0, or Voilà's own.

    Raises:
        ImportError: Voilà is not installed.
        FileNotFoundError, ValueError: as `answers.read_run`.
        OSError: Voilà did not start.
    """
    if find_spec("voila") is None:
        raise ImportError(
            "The demo needs Voilà, which is not installed: run "
            "'python -m pip install -c constraints.txt -e \".[demo]\"' in the project's folder."
        )
    read_run(run_dir)  # what is wrong with the run is said here, and what takes long is done
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token, log = secrets.token_hex(), resolve(run_dir) / "demo.log"
    options = ["--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}", "--Voila.port_retries=0", "--token"]
    settings = {"headers": {"Content-Security-Policy": HERE_ONLY}, "websocket_max_message_size": LARGEST}
    with tempfile.TemporaryDirectory() as config, log.open("w", encoding="utf-8") as lines:
        write_json(Path(config) / "voila.json", {"Voila": {"tornado_settings": settings}})
        environment = os.environ | {"JUPYTER_TOKEN": token, "JUPYTER_CONFIG_PATH": config, RUN: str(resolve(run_dir))}
        command = [sys.executable, "-m", "voila", str(NOTEBOOK), *options]
        voila = subprocess.Popen(command, env=environment, stdout=lines, stderr=lines)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that Voilà ends, too
        try:
            _wait_for(port, voila, log)
            address = f"http://127.0.0.1:{port}/?token={token}"
            print(f"The demo: {address}\nIt loads the network, some seconds. Ctrl-C ends it.", flush=True)
            webbrowser.open(address)
            return voila.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGTERM, before)
            voila.terminate()
            voila.wait()


def _wait_for(port: int, voila: subprocess.Popen, log: Path) -> None:
    """Until the page can be asked for. Raises OSError if Voilà ends before, or takes more than two minutes."""
    for _ in range(240):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        if voila.poll() is not None:
            break
        time.sleep(0.5)
    raise OSError(f"The demo did not start: {display_path(log)} says why.")


def _code(name: str) -> str:
    """A folder's name for a page in Markdown: whatever it holds, it is no HTML and no Markdown."""
    return "<code>" + "".join(c if c.isalnum() or c in " /.-" else f"&#{ord(c)};" for c in name) + "</code>"


def page() -> dict[str, widgets.Widget]:
    """What the notebook shows: which network answers, `answer_files.upload`, and slices to try.

    Returns:
        what `upload` returns, and "phantom", the button that draws a slice.
    """
    run_dir = os.environ.get(RUN, "runs/default")
    reader = read_run(run_dir)
    trained, size = reader.settings, reader.settings.image_size
    display(
        Markdown(
            f"A network answers, and shows by a heat map why: {trained.backbone}, trained on "
            f"{_code(Path(trained.dataset).name)} slices ({_code(display_path(run_dir))}). Drop "
            "slices anywhere on this page "
            "(PNG, JPEG, TIFF or DICOM), or press a button."
        )
    )
    button = widgets.Button(
        description="a phantom slice", tooltip="Draw a slice of an imaginary patient", icon="pencil"
    )
    display(button)
    controls = upload(reader)

    def draw(_button) -> None:
        number = secrets.randbelow(10_000)
        drawn = draw_patient(number, trained.seed + 1, image_size=min(max(size, 64), 224), n_slices=1)
        png = io.BytesIO()
        Image.fromarray(drawn.images[0]).save(png, "PNG")
        facts = {"type": "image/png", "size": png.tell(), "last_modified": datetime.now(UTC)}
        name = f"imaginary patient {number}, drawn as {CLASSES[drawn.label]}.png"
        controls["files"].value = (facts | {"name": name, "content": png.getvalue()},)

    def complain(_change) -> None:
        if controls["files"].error:
            controls["answers"].value = "<p>This could not be read as files: give single files, no folder.</p>"

    button.on_click(draw)
    controls["files"].observe(complain, "error")
    display(Javascript(DROP))
    return controls | {"phantom": button}
