"""Grad-CAM at the article's size: a ResNet-18 trained on slices of 224 pixels, whose layer4 has 7 x 7 locations.

    .venv/bin/python benchmarks/article_size.py

Draws docs/heat-map-224.jpg, shown in notebook 4, and writes benchmarks/results/article_size.json: the accuracy on the
test slices, and the pointing game of Grad-CAM at three layers on those with a lesion. About five minutes.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from experiment import RESULTS

from covid_utils.core.files import PROJECT, write_json
from covid_utils.core.settings import Settings
from covid_utils.data import load_data
from covid_utils.explain import cam
from covid_utils.labs import cam_figures, localization
from covid_utils.runs.load_or_train import load_or_train
from covid_utils.training import predict

SETTINGS = Settings(patients=120, image_size=224, weights="bundled", copies=1, epochs=5, run_dir="runs/article-size")
LAYERS = {"layer4": "7 × 7", "layer3": "14 × 14", "layer2": "28 × 28"}


def main() -> None:
    data = load_data(SETTINGS)
    model = load_or_train(data, SETTINGS, "transfer")[0]
    test = data.table[data.table.split == "test"]
    correct = (predict(model, data.images[test.index]).numpy() > 0) == (test.label == 1)
    table, images, lesions, lungs = localization.with_lesions(data, "test")
    maps = {layer: cam(model, images, "GradCAM", layer, [1] * len(images)) for layer in LAYERS}
    hits = {layer: localization.pointing_game(heat, lesions & lungs, lungs) for layer, heat in maps.items()}
    scores = {layer: localization.mean_with_interval(each, table.patient, share=True) for layer, each in hits.items()}
    found = {"patients": SETTINGS.patients, "slices": len(table), "accuracy": correct.mean(), "pointing game": scores}
    write_json(RESULTS / "article_size.json", found)
    logits = predict(model, images).numpy()
    logits[table.findings.str.contains("emphysema|nodules|effusion|atelectasis").to_numpy()] = -1e9
    i = int(logits.argmax())
    panels = {f"Grad-CAM, {layer}: {locations}": maps[layer][i] for layer, locations in LAYERS.items()}
    figure = cam_figures.panels(images[i].numpy(), panels, lesions[i], title="slice, 224 × 224 pixels")
    plt.close(figure)
    figure.savefig(PROJECT / "docs" / "heat-map-224.jpg", dpi=75, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main()
