"""Explorers to play with: heat maps of any slice, and a lesion that follows the sliders."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import torch
from IPython.display import Image, display

from ct_phantom.lesion import draw_with_lesion

from ..core.progress import InPlace
from ..explain import METHODS, cam
from ..io.folders import CLASSES
from ..models import LAYERS, Net
from ..plotting import compact
from ..training import predict
from .cam_figures import panels
from .fine_maps import cells
from .score_figures import draw_threshold


class Picture:
    """A figure that is redrawn in place: live where widgets run, and a saved notebook keeps its last state."""

    def __init__(self, alt: str):
        self.alt, self.place = alt, InPlace()

    def draw(self, figure) -> None:
        """Show a figure where the last one stood."""
        self.place.draw(Image(compact(figure, photo=True), format="jpeg", alt=self.alt))


def probability(model: Net, images: torch.Tensor) -> np.ndarray:
    """Probability of COVID of each slice, uint8 (N, H, W) -> float32 (N,)."""
    return torch.sigmoid(predict(model, images)).numpy()


def _slider(kind, name: str, value, low, high, step):
    return kind(value=value, min=low, max=high, step=step, description=name, style={"description_width": "90px"})


def _play(controls: dict[str, widgets.Widget], update) -> widgets.Widget:
    """Show the controls, draw once, and draw again whenever one is moved."""
    box = widgets.VBox([widgets.HBox(list(controls.values())[i : i + 3]) for i in range(0, len(controls), 3)])
    display(box)

    def draw(_change=None):
        update(**{name: control.value for name, control in controls.items()})

    draw()
    for control in controls.values():
        control.observe(draw, "value")
    return box


def cam_explorer(models: dict[str, Net], images: torch.Tensor, texts: list[str], lesions=None) -> dict:
    """Any two heat maps of any slice side by side, each of a model, a method and a layer, redrawn at every change.

    ScoreCAM is left out: it takes seconds.

    Args:
        models: {name: network}.
        images: uint8 (N, H, W), with N texts.
        lesions: bool (N, H, W), or None.

    Returns:
        {name: control}, so that a program can move them too; those of the second map end in " 2".
    """
    picture = Picture("A slice and two heat maps, for the slice, models, methods, layers and class chosen above.")
    names, methods = list(models), [name for name in METHODS if name != "ScoreCAM"]
    controls = {
        "number": _slider(widgets.IntSlider, "slice", 0, 0, len(images) - 1, 1),
        "target": widgets.Dropdown(
            options=[("its own decision", None), (CLASSES[1], 1), (CLASSES[0], 0)], description="explain"
        ),
        "opacity": _slider(widgets.FloatSlider, "opacity", 0.55, 0.0, 1.0, 0.05),
    }
    for second, (model, layer) in {"": (names[-1], "layer3"), " 2": (names[-1], "layer4")}.items():
        controls |= {
            f"model{second}": widgets.Dropdown(options=names, value=model, description=f"model{second}"),
            f"method{second}": widgets.Dropdown(options=methods, value="HiResCAM", description=f"method{second}"),
            f"layer{second}": widgets.Dropdown(options=LAYERS[::-1], value=layer, description=f"layer{second}"),
        }
    controls["grid"] = widgets.Checkbox(value=False, description="draw the cells")

    def update(number, target, opacity, grid, **chosen):
        one = images[number : number + 1]
        maps, counts = {}, []
        for second in ("", " 2"):
            network, layer = models[chosen[f"model{second}"]], chosen[f"layer{second}"]
            title = f"{chosen[f'model{second}']}: {chosen[f'method{second}']}, {layer}"
            title += f"\np(COVID) = {probability(network, one)[0]:.2f}{second and ' '}"  # two alike stay two
            maps[title] = cam(network, one, chosen[f"method{second}"], layer, target if target is None else [target])[0]
            counts.append(cells(network, layer, one.shape[-1]) if grid else 0)
        lesion = None if lesions is None else lesions[number]
        picture.draw(panels(one[0].numpy(), maps, lesion, opacity, texts[number], counts))

    _play(controls, update)
    return controls


def lesion_lab(models: dict[str, Net], first_patient: int, image_size: int = 96, seed: int = 0) -> dict:
    """Place and grow ground glass in healthy lungs; probability and a map of `layer3` for COVID follow.

    Args:
        models: {name: network}.
        first_patient: number of an imaginary patient; this one and the nine after it can be chosen.

    Returns:
        {name: control}, so that a program can move them too.
    """
    picture = Picture("A healthy phantom slice with drawn ground glass, its heat maps and probabilities.")
    controls = {
        "patient": _slider(widgets.IntSlider, "patient", 0, 0, 9, 1),
        "level": _slider(widgets.FloatSlider, "height", 0.55, 0.15, 0.9, 0.05),
        "lungs": widgets.Dropdown(options=["left", "right", "both"], value="both", description="lungs"),
        "place": _slider(widgets.FloatSlider, "front – back", 0.6, -1.2, 1.4, 0.1),
        "depth": _slider(widgets.FloatSlider, "depth", 0.05, 0.0, 0.7, 0.05),
        "size": _slider(widgets.FloatSlider, "size", 0.3, 0.0, 0.6, 0.02),
        "density": _slider(widgets.FloatSlider, "density", 0.45, 0.1, 0.9, 0.05),
    }

    def update(patient, **choices):
        image, lesion = draw_with_lesion(first_patient + patient, seed=seed, image_size=image_size, **choices)
        one = torch.from_numpy(image)[None]
        maps = {}
        for name, model in models.items():
            heat = cam(model, one, "HiResCAM", "layer3", [1])[0]
            nothing = "" if heat.any() else ", no evidence"
            maps[f"{name}\np(COVID) = {probability(model, one)[0]:.2f}{nothing}"] = heat
        picture.draw(panels(image, maps, lesion, title=f"lesion: {lesion.mean():.1%} of the slice"))

    _play(controls, update)
    return controls


def threshold_explorer(logits, labels, threshold: float = 0.5, prevalence: float = 0.5) -> dict:
    """Move the threshold and the share of the ill: decisions, confusion matrix and predictive values follow.

    Args:
        logits: float (N,).
        labels: 0 or 1, (N,).
        threshold: a probability, where the slider starts.
        prevalence: share of COVID where the network would be used, where the slider starts.

    Returns:
        {name: control}, so that a program can move them too.
    """
    picture = Picture("Probabilities on both sides of the threshold, confusion matrix, sensitivity, predictive values.")
    controls = {
        "threshold": _slider(widgets.FloatSlider, "threshold", threshold, 0.0, 1.0, 0.01),
        "prevalence": _slider(widgets.FloatSlider, "share of the ill", prevalence, 0.01, 0.9, 0.01),
    }
    _play(controls, lambda **values: picture.draw(draw_threshold(logits, labels, **values)))
    return controls
