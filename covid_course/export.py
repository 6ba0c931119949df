"""A trained network as one ONNX file, which needs neither this course nor PyTorch, and its model card."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path

import PIL
import torch
from scipy.special import expit
from torch import Tensor, nn
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

from covid_utils.core.files import replace_file, resolve, shown
from covid_utils.io.folders import CLASSES
from covid_utils.labs.predictor import Predictor, read_run

from .model_card import OUTPUTS, licences, model_card, trained

OPSET = 18  # the lowest that PyTorch's exporter writes, so that old runtimes can read it
NEEDED = ("onnx", "onnxscript")
FIXED = 2**22  # Pillow's weights are whole numbers, times this
LOBES = 3  # of the Lanczos kernel
BATCH_NORM_WRITTEN_OUT = torch.__version__ < "2.7"
COLUMNS_FIRST = int(PIL.__version__.split(".")[0]) >= 13


class Portable(nn.Module):
    """All that lies between a picture and an answer, in float32 but for the resizing: what goes into the file."""

    def __init__(self, reader: Predictor):
        super().__init__()
        self.model, self.size = reader.model, reader.settings.image_size
        self.temperature, self.limit = reader.temperature, reader.limit
        preprocess = reader.model.preprocess
        self.wide, self.mode = round(self.size / preprocess.crop_fraction), InterpolationMode(preprocess.interpolation)
        for name in ("mean", "std"):
            self.register_buffer(f"grey_{name}", torch.as_tensor(getattr(preprocess, name)).view(-1, 1, 1))
        self.register_buffer("centre", reader.centre)
        self.register_buffer("spread", reader.spread)

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slices, uint8 (N, H, W), grey, of any height and width: logit, probability, strangeness, float32 (N,) each.

        They are those of `predictor.predict_slices`; `strangeness` is `predictor.ood_score`.
        """
        images = resized(slices, self.size)[:, None]
        if self.wide > self.size:  # as `models.Preprocessing`, whose len(images) an exporter takes for a constant
            images = center_crop(resize(images, [self.wide], self.mode), [self.size])
        features = self.model.trunk(((images.float() / 255 - self.grey_mean) / self.grey_std).expand(-1, 3, -1, -1))
        logit = self.model.tail(features)
        beyond = features.mean((2, 3)) - self.centre
        distance = ((beyond @ self.spread) * beyond).sum(1).clamp_min(0).sqrt()
        return logit, torch.sigmoid(logit / self.temperature), distance / self.limit


def resized(slices: Tensor, size: int) -> Tensor:
    """Slices, uint8 (N, H, W), as uint8 (N, size, size): to the last bit as `io.images.read_slice` does it.

    Pillow's Lanczos resizing (`Image.resize`, its file Resample.c): along the rows, then along the columns, with
    whole-number weights, rounded to grey values after each. Since Pillow 13 the columns come first where the height
    loses more than twice as many pixels as the width.
    """
    pixels, height, width = slices.double(), slices[0, :, 0], slices[0, 0]
    rows, columns = (lanczos(line, size).expand(slices.shape[0], -1, -1) for line in (height, width))
    columns = columns.mT
    usual = _greys(rows.bmm(_greys(pixels.bmm(columns))))
    if not COLUMNS_FIRST:
        return usual.to(torch.uint8)
    lost_rows, lost_columns = (torch.ones_like(line).sum() - size for line in (height, width))
    tall = (lost_rows > 0) & (lost_rows > 2 * lost_columns)
    return torch.where(tall, _greys(_greys(rows.bmm(pixels)).bmm(columns)), usual).to(torch.uint8)


def lanczos(line: Tensor, size: int) -> Tensor:
    """How much each of the pixels of a line, (old,), counts in each of `size` new ones: whole, float64 (size, old)."""
    place = torch.ones_like(line, dtype=torch.float64).cumsum(0) - 1  # not arange: exporters follow tensors, not sizes
    scale = (place[-1] + 1) / size
    wide = scale.clamp_min(1)
    centre = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    first, last = (torch.floor(centre + end * LOBES * wide + 0.5) for end in (-1, 1))
    away = (place - centre + 0.5) / wide
    inside = (place >= first) & (place < last) & (away.abs() < LOBES)
    weights = torch.sinc(away) * torch.sinc(away / LOBES) * inside
    return torch.floor(weights / weights.sum(1, keepdim=True) * FIXED + 0.5)


def _greys(sums: Tensor) -> Tensor:
    """Weighted sums, rounded and cut to grey values: whole, float64."""
    return torch.floor((sums + FIXED / 2) / FIXED).clamp(0, 255)


def export_run(run_dir: str | Path, out: Path | None = None) -> int:
    """Write a run's network as `model.onnx`, and what is known of it as `README.md`, both whole or not at all.

    Args:
        run_dir: of a trained run.
        out: the folder; by default `export` in the run's.

    Returns:
        an exit code, 0.

    Raises:
        ImportError: the packages are not installed.
        FileNotFoundError, ValueError, OSError: as `answers.read_run`; the files can't be written.
    """
    _check_installed()
    reader, out = read_run(run_dir), resolve(out or Path(run_dir) / "export")
    about, card = described(reader, run_dir), model_card(reader, run_dir)
    print("Writing the network as ONNX takes about half a minute …", flush=True)
    model = to_onnx(reader, about)
    replace_file(out / "model.onnx", lambda path: path.write_bytes(model))
    replace_file(out / "README.md", partial(Path.write_text, data=card, encoding="utf-8"))
    print(f"{shown(out / 'model.onnx')} ({len(model) / 1e6:.0f} MB) and its model card, {shown(out / 'README.md')}.")
    return 0


def described(reader: Predictor, run_dir: str | Path) -> dict[str, str]:
    """What the ONNX file says of itself (its metadata_props): names and texts."""
    parameters, size = trained(run_dir)[1]["parameters"], reader.settings.image_size
    return {
        "purpose": "For learning only: not fit for clinical use.",
        "input": "slices: uint8 (N, H, W), grey, 0 black to 255 white, of any height and width; made "
        f"{size} x {size} pixels inside, as Pillow {PIL.__version__} does with LANCZOS",
        "output": "; ".join(f"{name}: float32 (N,), {what}" for name, what in OUTPUTS.items()),
        "classes": json.dumps(CLASSES),
        "threshold_logit": repr(reader.threshold),
        "threshold_probability": repr(float(expit(reader.threshold / reader.temperature))),
        "temperature": repr(reader.temperature),
        "backbone": parameters["backbone"],
        "weights": Path(parameters["weights"]).name,  # a file's or folder's place is nobody's business
        "dataset": Path(parameters["dataset"]).name,
        "data_fingerprint": parameters["data"],
        "licence": licences(parameters),
        "version": f"covid-utils {metadata.version('covid-utils')}",
    }


def to_onnx(reader: Predictor, about: dict[str, str]) -> bytes:
    """The file's content: `Portable` with the names slices → logit, probability, strangeness; N, H and W are free.

    `dynamo=True` is the exporter that PyTorch keeps (its default since 2.9); the other one warns that it is old.
    """
    import onnx

    free = {axis: torch.export.Dim(name, min=1, max=2**20) for axis, name in enumerate("NHW")}
    example = torch.randint(0, 256, (2, 90, 110), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with _translatable():
        program = torch.onnx.export(
            Portable(reader).eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["slices"], output_names=list(OUTPUTS), dynamic_shapes={"slices": free},
        )  # fmt: skip
    model = program.model_proto
    for each in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        each.ClearField("metadata_props")  # the code's lines, with the names of this machine's folders
    onnx.helper.set_model_props(model, about)
    model.doc_string = about["purpose"]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _check_installed() -> None:
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"Writing ONNX needs packages that are not installed ({error}): run "
                "'python -m pip install -c constraints.txt -e \".[export]\"' in the project's folder."
            ) from None


@contextmanager
def _translatable() -> Iterator[None]:
    """What the exporter needs: no remarks on its own parts, and in PyTorch 2.6 batch norm written out.

    (Today's onnxscript has a batch norm that PyTorch 2.6 can't translate.)
    """
    disabled, norm = logging.root.manager.disable, torch.nn.functional.batch_norm
    try:
        logging.disable(logging.ERROR)
        if BATCH_NORM_WRITTEN_OUT:
            torch.nn.functional.batch_norm = _batch_norm
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.nn.functional.batch_norm = norm
        logging.disable(disabled)


def _batch_norm(x, mean, var, weight, bias, training=False, momentum=0.1, eps=1e-5) -> Tensor:
    """`torch.nn.functional.batch_norm` of a trained network, from simpler operations."""
    scale = weight / (var + eps).sqrt()
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]
