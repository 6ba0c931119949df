"""The demo: a page in the browser that applies a trained model to slices, on this machine only, by Voilà."""

from __future__ import annotations

import html
import io
import logging
import os
import secrets
import webbrowser
from datetime import UTC, datetime
from pathlib import Path

import ipywidgets as widgets
from IPython.display import HTML, display
from PIL import Image

from covid_utils.core.files import display_path, resolve
from covid_utils.io.folders import CLASSES
from covid_utils.labs.predictor import read_run
from ct_phantom.patients import draw_patient

from .predict import upload

NOTEBOOK = Path(__file__).with_suffix(".ipynb")
RUN = "COVID_UTILS_DEMO"  # environment variable: the run whose model the page applies
LARGEST = 200 * 2**20  # bytes of all files of one upload; Voilà's own limit is 10 MB
# The browser refuses requests to other hosts: Voilà's page links to a font on a CDN (its icons are installed anyway).
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"


def serve(run_dir: str | Path) -> None:
    """Open the page in a browser and serve it until Ctrl-C, on this machine only, protected by a token.

    Raises ImportError if Voilà is not installed, and as `predictor.read_run`.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise ImportError(
            f"The demo needs Voilà, which is not installed ({error}): run "
            "'python -m pip install -c constraints.txt -e \".[demo]\"' in the project's folder."
        ) from None

    class Demo(Voila):
        def launch_browser(self) -> None:  # Voilà opens the page without its token
            address = f"{self.connection_url}?token={self.identity_provider.token}"
            print(f"The demo: {address}\nThe page needs some seconds to load the model. Ctrl-C ends it.", flush=True)
            webbrowser.open(address)

    read_run(run_dir)  # an unusable run is reported here, and what takes long is computed
    os.environ[RUN] = str(resolve(run_dir))
    Demo.launch_instance(
        [str(NOTEBOOK)],
        ip="127.0.0.1",
        auto_token=True,
        config_file_paths=[],  # no settings of the user's own open it to others
        log_level=logging.WARNING,
        tornado_settings={"headers": {"Content-Security-Policy": POLICY}, "websocket_max_message_size": LARGEST},
    )


def page() -> dict[str, widgets.Widget]:
    """Show which model is applied, `predict.upload`, and a button for a phantom slice; returns all controls."""
    run_dir = os.environ.get(RUN, "runs/default")
    predictor = read_run(run_dir)
    settings = predictor.settings
    dataset, folder = (html.escape(name) for name in (Path(settings.dataset).name, display_path(run_dir)))
    text = (
        f"<p>The model is a {settings.backbone}, trained on <code>{dataset}</code> slices (<code>{folder}</code>). "
        "Choose slices (PNG, JPEG, TIFF or DICOM), or generate one.</p>"
    )
    button = widgets.Button(description="a phantom slice", tooltip="Generate a synthetic CT slice", icon="pencil")
    display(HTML(text), button)
    controls = upload(predictor)

    def generate(_button) -> None:
        number = secrets.randbelow(10_000)
        patient = draw_patient(number, settings.seed + 1, image_size=min(max(settings.image_size, 64), 224), n_slices=1)
        png = io.BytesIO()
        Image.fromarray(patient.images[0]).save(png, "PNG")
        name = f"phantom patient {number}, drawn as {CLASSES[patient.label]}.png"
        file = {"name": name, "type": "image/png", "size": png.tell(), "content": png.getvalue()}
        controls["files"].value = (file | {"last_modified": datetime.now(UTC)},)

    button.on_click(generate)
    return controls | {"phantom": button}
