"""Explorers to play with: heat maps of any slice, and a lesion that follows the sliders."""

from __future__ import annotations

import cv2
import ipywidgets as widgets
import numpy as np
import torch
from IPython.display import Image, display
from numpy.random import SeedSequence, default_rng

from .anatomy import AIR, MUSCLE, Slice, draw_anatomy, ramp
from .cam_figures import panels
from .explain import LAYERS, METHODS, cam
from .models import Net
from .phantom import HOSPITALS, VISIBLE, choose_frame, choose_habitus, scan
from .plotting import compact
from .score_figures import draw_threshold
from .training import predict


class Picture:
    """A picture that is redrawn in place: live where widgets run, and a saved notebook keeps its last state."""

    def __init__(self, alt: str):
        self.alt, self.handle = alt, None

    def draw(self, figure) -> None:
        """Show a figure where the last one stood."""
        picture = Image(compact(figure, photo=True), format="jpeg", alt=self.alt)
        if self.handle is None:
            self.handle = display(picture, display_id=True)
        else:
            self.handle.update(picture)


def probability(model: Net, images: torch.Tensor) -> np.ndarray:
    """Probability of COVID of each slice, uint8 (N, H, W) -> float32 (N,)."""
    return torch.sigmoid(predict(model, [(images, torch.zeros(len(images)))])[0]).numpy()


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
    """Heat maps of any slice, model, method, layer and class, side by side, redrawn at every change.

    ScoreCAM is left out: it takes seconds.

    Args:
        models: {name: network}.
        images: uint8 (N, H, W), with N texts.
        lesions: bool (N, H, W), or None.

    Returns:
        {name: control}, so that a program can move them too.
    """
    picture = Picture("A slice and its heat maps, for the slice, method, layer and class chosen above.")
    controls = {
        "number": _slider(widgets.IntSlider, "slice", 0, 0, len(images) - 1, 1),
        "model": widgets.Dropdown(options=["all", *models], description="model"),
        "method": widgets.Dropdown(options=[name for name in METHODS if name != "ScoreCAM"], description="method"),
        "layer": widgets.Dropdown(options=LAYERS[::-1], description="layer"),
        "explained": widgets.Dropdown(
            options=[("its own decision", None), ("COVID", 1), ("non-COVID", 0)], description="explain"
        ),
        "opacity": _slider(widgets.FloatSlider, "opacity", 0.55, 0.0, 1.0, 0.05),
    }

    def update(number, model, method, layer, explained, opacity):
        one = images[number : number + 1]
        maps = {}
        for name, network in models.items():
            if model in ("all", name):
                classes = None if explained is None else [explained]
                title = f"{method}, {name}\np(COVID) = {probability(network, one)[0]:.2f}"
                maps[title] = cam(network, one, method, layer, classes)[0]
        lesion = None if lesions is None else lesions[number]
        picture.draw(panels(one[0].numpy(), maps, lesion, opacity, texts[number]))

    _play(controls, update)
    return controls


def draw_with_lesion(
    patient: int, place: float = 0.5, depth: float = 0.05, size: float = 0.0, density: float = 0.4, lungs="left",
    level: float | None = None, seed: int = 0, hospital: str = "A", image_size: int = 96, n_slices: int = 4,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A healthy slice of an imaginary patient with patches of ground glass, drawn and scanned as the phantom's are.

    Args:
        patient, seed, hospital, image_size, n_slices: as for `phantom.draw_patient`; its findings are left out.
        place: where along the chest wall, -1.2 (front) over 0 (side) to 1.4 (back).
        depth: how far inside, 0 (at the pleura) to 0.7 (near the middle of the chest).
        size: half the length of a patch, in halves of the chest's width; 0 draws none.
        density: how much of the air is replaced, 0 to 1.
        lungs: "left" (the right side of the image), "right", or "both".
        level: 0 top of the lungs, 1 their base; None for the patient's first slice.

    Returns:
        image uint8 (H, W), and where the patches can be seen, bool (H, W).
    """
    h = HOSPITALS[hospital]
    body, _, _, grain = (default_rng(child) for child in SeedSequence([seed, h.number, patient]).spawn(4))
    step = body.uniform(*h.step)
    levels = body.uniform(h.levels[0], h.levels[1] - step * (n_slices - 1)) + step * np.arange(n_slices)
    habitus = choose_habitus(body, h, levels)
    anatomy, frame, settings = (int(n) for n in body.integers(2**31, size=3))
    s = draw_anatomy(anatomy, image_size, levels[0] if level is None else level, habitus)
    where = choose_frame(default_rng(frame), h, s, image_size)
    lung, healthy = cv2.remap(s.lung, *where, cv2.INTER_LINEAR) > 0.5, s.hu.copy()
    if size > 0:
        _ground_glass(s, default_rng(patient), place, depth, size, density, lungs)
    change = cv2.remap(np.abs(s.hu - healthy), *where, cv2.INTER_LINEAR)
    image = scan(cv2.remap(s.hu, *where, cv2.INTER_LINEAR, borderValue=AIR), default_rng(settings), grain, h)
    return image, (change > VISIBLE) & lung


def _ground_glass(s: Slice, rng, place: float, depth: float, size: float, density: float, lungs: str) -> None:
    """Blend in patches as `disease.ground_glass` does, at a place that is chosen instead of drawn."""
    wall = np.arctan2(s.outline[:, 1], s.outline[:, 0])
    field = np.full((s.n, s.n), -2.0, np.float32)
    for angle in {"left": [place], "right": [np.pi - place], "both": [place, np.pi - place]}[lungs]:
        angle = (angle + np.pi) % (2 * np.pi) - np.pi
        x, y = s.outline[np.argmin(np.abs(wall - angle))] * (1 - depth)
        field = np.maximum(field, 1 - s.blob(x, y, 0.6 * size, size, angle))
    field = field + 0.6 * s.texture(rng, 0.24, 4)
    s.blend(density * ramp(field, -0.1, 0.8) * (1 + 0.5 * s.texture(rng, 0.12)), MUSCLE)


def lesion_lab(models: dict[str, Net], first_patient: int, image_size: int = 96, seed: int = 0) -> dict:
    """Place and grow ground glass in healthy lungs; probability and GradCAM for COVID follow.

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
            heat = cam(model, one, explained=[1])[0]
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
