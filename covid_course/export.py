"""A trained network as an ONNX file, which needs neither this course nor PyTorch, with its model card."""

from __future__ import annotations

import json
import warnings
from importlib import metadata
from pathlib import Path

import torch
from scipy.special import expit
from torch import Tensor, nn
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

from covid_utils.core.files import display_path, replace_file, resolve
from covid_utils.io.folders import CLASSES
from covid_utils.labs.predictor import Predictor, read_run

from .model_card import OUTPUTS, licences, model_card, trained

OPSET = 18  # the lowest that PyTorch's exporter writes, so that old runtimes can read it


class ExportedNet(nn.Module):
    """What the file computes: preprocessing, network, temperature and out-of-distribution score, in float32."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.model, self.temperature, self.limit = predictor.model, predictor.temperature, predictor.limit
        self.register_buffer("centre", predictor.centre)
        self.register_buffer("spread", predictor.spread)

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slices, uint8 (N, S, S), to logit, probability and out-of-distribution score, float32 (N,) each."""
        preprocess, size = self.model.preprocess, slices.shape[-1]
        images = slices[:, None]  # `Preprocessing` takes len(images), which the exporter would make a constant
        if preprocess.crop_fraction < 1:
            enlarged = round(size / preprocess.crop_fraction)
            images = center_crop(resize(images, [enlarged], InterpolationMode(preprocess.interpolation)), [size])
        mean, std = (torch.as_tensor(each).view(-1, 1, 1) for each in (preprocess.mean, preprocess.std))
        features = self.model.forward_features(((images.float() / 255 - mean) / std).expand(-1, 3, -1, -1))
        logit = self.model.forward_head(features)
        difference = features.mean((2, 3)) - self.centre
        distance = ((difference @ self.spread) * difference).sum(1).clamp_min(0).sqrt()
        return logit, torch.sigmoid(logit / self.temperature), distance / self.limit


def export_run(run_dir: str | Path, out: Path | None = None) -> None:
    """Write a run's network as `model.onnx` and its model card as `README.md` to `out`, by default RUN_DIR/export.

    Raises ImportError if packages are not installed, OSError if the files can't be written, and as
    `predictor.read_run`.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Writing ONNX needs packages that are not installed ({error}): run "
            "'python -m pip install -c constraints.txt -e \".[export]\"' in the project's folder."
        ) from None
    predictor, out = read_run(run_dir), resolve(out or Path(run_dir) / "export")
    card = model_card(predictor, run_dir)
    print("Writing the model as ONNX takes about half a minute …", flush=True)
    model = to_onnx(predictor, described(predictor, run_dir))
    replace_file(out / "model.onnx", lambda path: path.write_bytes(model))
    replace_file(out / "README.md", card.save)
    print(f"{display_path(out)}: model.onnx ({len(model) / 1e6:.0f} MB) and its model card, README.md.")


def described(predictor: Predictor, run_dir: str | Path) -> dict[str, str]:
    """The ONNX file's metadata (metadata_props): names and texts."""
    parameters = trained(run_dir)[1]["parameters"]
    return {
        "purpose": "For learning only: not fit for clinical use.",
        "classes": json.dumps(CLASSES),
        "threshold_logit": repr(predictor.threshold),
        "threshold_probability": repr(float(expit(predictor.threshold / predictor.temperature))),
        "temperature": repr(predictor.temperature),
        "window": json.dumps(predictor.window),
        "data_fingerprint": parameters["data"],
        "licence": licences(parameters),
        "version": f"covid-utils {metadata.version('covid-utils')}",
    }


def to_onnx(predictor: Predictor, about: dict[str, str]) -> bytes:
    """The content of an ONNX file of `ExportedNet`, for any number N of slices, with metadata `about`."""
    import onnx

    size = predictor.settings.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ExportedNet(predictor).eval(),
            (torch.zeros((2, size, size), dtype=torch.uint8),),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["slices"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"slices": {0: torch.export.Dim("N", min=1, max=2**20)}},
        )
    model = program.model_proto
    for each in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        each.ClearField("metadata_props")  # lines of code, with the names of this machine's folders
    onnx.helper.set_model_props(model, about)
    model.doc_string = about["purpose"]
    return model.SerializeToString()
