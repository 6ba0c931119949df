"""Interactive explorers: heat maps of any slice, and a lesion that follows sliders."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import torch
from IPython.display import Image, display
from matplotlib.figure import Figure

from ct_phantom.lesion import draw_with_lesion

from ..core.progress import InPlace
from ..explain import METHODS, cam
from ..io.folders import CLASSES
from ..models import LAYERS, Net
from ..plotting import compact
from ..training import predict
from .cam_figures import panels


def explore(draw: Callable[..., Figure], alt: str, **choices: tuple) -> dict[str, widgets.Widget]:
    """Show controls, and the figure that `draw` makes of their values, redrawn in place at every change.

    Unlike `ipywidgets.interactive` without an `Output` widget: a saved notebook keeps the last picture, and nbclient
    can wait for ever on a cell whose output such a widget catches.

    Args:
        draw: takes the value of each control by its name.
        alt: what the figure shows.
        choices: for each control (text, what `ipywidgets.interactive` takes, first value).

    Returns:
        {name: control}, so that a program can move them too.
    """
    place, controls = InPlace(), {}
    for name, (text, choice, value) in choices.items():
        controls[name] = widgets.interactive.widget_from_abbrev(choice, value)
        controls[name].description, controls[name].style.description_width = text, "90px"
    boxes = list(controls.values())
    display(widgets.VBox([widgets.HBox(boxes[i : i + 3]) for i in range(0, len(boxes), 3)]))

    def redraw(_change=None):
        figure = draw(**{name: control.value for name, control in controls.items()})
        place.draw(Image(compact(figure, photo=True, small=False), format="jpeg", alt=alt))

    redraw()
    for control in boxes:
        control.observe(redraw, "value")
    return controls


def _titled(text: str, model: Net, one: torch.Tensor) -> str:
    return f"{text}\np(COVID) = {torch.sigmoid(predict(model, one)).item():.2f}"


def cam_explorer(models: dict[str, Net], images: torch.Tensor, texts: list[str], lesions=None) -> dict:
    """Any two heat maps of any slice side by side, each of a model, a method and a layer; no ScoreCAM, which is slow.

    `models`: {name: network}; `images`: uint8 (N, H, W), with N texts; `lesions`: bool (N, H, W), or None. The names of
    the second map's controls end in "2".
    """
    names, methods = list(models), [name for name in METHODS if name != "ScoreCAM"]
    choices = {
        "number": ("slice", (0, len(images) - 1, 1), 0),
        "target": ("explain", [("its own decision", None), (CLASSES[1], 1), (CLASSES[0], 0)], None),
        "opacity": ("opacity", (0.0, 1.0, 0.05), 0.55),
    }
    for second, layer in {"": "layer3", "2": "layer4"}.items():
        choices[f"model{second}"] = (f"model {second}", names, names[-1])
        choices[f"method{second}"] = (f"method {second}", methods, "HiResCAM")
        choices[f"layer{second}"] = (f"layer {second}", list(LAYERS[::-1]), layer)

    def draw(number, target, opacity, **chosen) -> Figure:
        one, maps = images[number : number + 1], {}
        for second in ("", "2"):
            name, method, layer = (chosen[f"{what}{second}"] for what in ("model", "method", "layer"))
            title = _titled(f"{name}: {method}, {layer}", models[name], one)
            if title in maps:
                title += " "  # titles are keys: two equal ones must differ
            maps[title] = cam(models[name], one, method, layer, None if target is None else [target])[0]
        return panels(one[0].numpy(), maps, None if lesions is None else lesions[number], opacity, texts[number])

    alt = "A slice and two heat maps, for the slice, models, methods, layers and class chosen above."
    return explore(draw, alt, **choices)


def lesion_lab(models: dict[str, Net], first_patient: int, image_size: int = 96, seed: int = 0) -> dict:
    """Place and grow ground glass in healthy lungs, and see each model's probability and its map of `layer3` for COVID.

    `models`: {name: network}. The synthetic patient `first_patient` and the nine after it can be chosen.
    """

    def draw(patient, **lesion_choices) -> Figure:
        image, lesion = draw_with_lesion(first_patient + patient, seed=seed, image_size=image_size, **lesion_choices)
        one, maps = torch.from_numpy(image)[None], {}
        for name, model in models.items():
            maps[_titled(name, model, one)] = cam(model, one, "HiResCAM", "layer3", [1])[0]
        return panels(image, maps, lesion, title=f"lesion: {lesion.mean():.1%} of the slice")

    return explore(
        draw,
        "A healthy phantom slice with drawn ground glass, its heat maps and probabilities.",
        patient=("patient", (0, 9, 1), 0),
        level=("height", (0.15, 0.9, 0.05), 0.55),
        lungs=("lungs", ["left", "right", "both"], "both"),
        place=("front – back", (-1.2, 1.4, 0.1), 0.6),
        depth=("depth", (0.0, 0.7, 0.05), 0.05),
        size=("size", (0.0, 0.6, 0.02), 0.3),
        density=("density", (0.1, 0.9, 0.05), 0.45),
    )
