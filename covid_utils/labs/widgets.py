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
from .fine_maps import MAPS, named_map


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


def cam_explorer(
    models: dict[str, Net],
    images: torch.Tensor,
    texts: list[str],
    lesions=None,
    number: int = 0,
    map: str = "layer3 GradCAM",
) -> dict:
    """Any two heat maps of any slice side by side, each of a model, a method and a layer.

    `models`: {name: network}; `images`: uint8 (N, H, W), with N texts; `lesions`: bool (N, H, W), or None. The first
    picture is of slice `number`: the last model's `map`, a name in `fine_maps.MAPS`, next to its Grad-CAM at layer4.
    The names of the second map's controls end in "2".
    """
    names, (method_of_map, (layer_of_map, *_), _) = list(models), MAPS[map]
    choices = {
        "number": ("slice", (0, len(images) - 1, 1), number),
        "target": ("explain", [("its own decision", None), (CLASSES[1], 1), (CLASSES[0], 0)], None),
        "opacity": ("opacity", (0.0, 1.0, 0.05), 0.5),
    }
    for second, (layer, method) in {"": (layer_of_map, method_of_map), "2": ("layer4", "GradCAM")}.items():
        choices[f"model{second}"] = (f"model {second}", names, names[-1])
        choices[f"method{second}"] = (f"method {second}", list(METHODS), method)
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


def lesion_lab(
    models: dict[str, Net], maps: dict[str, str], first_patient: int, image_size: int = 96, seed: int = 0
) -> dict:
    """Place and grow ground glass in healthy lungs, and see each model's probability and its heat map for COVID.

    `models`: {name: network}; `maps`: {name: which of its maps, a name in `fine_maps.MAPS`}. The synthetic patient
    `first_patient` and the nine after it can be chosen.
    """

    def draw(patient, **lesion_choices) -> Figure:
        image, lesion = draw_with_lesion(first_patient + patient, seed=seed, image_size=image_size, **lesion_choices)
        one, drawn = torch.from_numpy(image)[None], {}
        for name, model in models.items():
            drawn[_titled(name, model, one)] = named_map(model, one, maps[name], [1])[0]
        return panels(image, drawn, lesion, title=f"lesion: {lesion.mean():.1%} of the slice")

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
