"""Figures hold what they say: positions, widths, labels of what is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from covid_utils import plotting


@pytest.fixture
def shown(monkeypatch):
    """The figures that are shown, as they were when shown."""
    figures = []
    monkeypatch.setattr(plotting, "show", lambda figure, alt, photo=False, small=False: figures.append(figure))
    return figures


def ends(line) -> tuple[list, list]:
    return [np.round(each, 6).tolist() for each in line.get_data()]


def test_a_confusion_matrix_has_the_truth_in_rows(shown):
    plotting.show_confusion({"a": [[1, 2], [3, 4]]}, "counts")
    (axis,) = shown[0].axes
    places = {text.get_text(): text.get_position() for text in axis.texts}  # (column, row)
    assert places == {"1\n33%": (0, 0), "2\n67%": (1, 0), "3\n43%": (0, 1), "4\n57%": (1, 1)}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["non-COVID", "COVID"]
    assert axis.images[0].get_array().sum(1).tolist() == [1, 1] and axis.images[0].get_clim() == (0, 1)


def test_curves_show_training_and_validation_each_in_its_colour():
    history = pd.DataFrame({"epoch": [1, 2], "seconds": 1.0})
    for part, start in (("train", 0.5), ("val", 0.6)):
        history[f"{part}_loss"], history[f"{part}_accuracy"] = [start, start - 0.1], [1 - start, 1.1 - start]
    loss, accuracy = plotting.draw_curves(history, epochs=4).axes
    for axis, name in ((loss, "loss"), (accuracy, "accuracy")):
        train, val = axis.lines[:2]
        assert (train.get_label(), val.get_label()) == ("training", "validation")
        assert ends(train) == [[1, 2], history[f"train_{name}"].round(6).tolist()]
        assert ends(val) == [[1, 2], history[f"val_{name}"].round(6).tolist()]
        assert (train.get_color(), val.get_color()) == (plotting.BLUE, plotting.RED)
    assert ends(accuracy.lines[2]) == [[2], [0.5]]  # the star


def test_a_readers_own_figures_stay_as_they_are(shown):
    before = dict(plt.rcParams)
    plotting.show_confusion({"a": [[1, 2], [3, 4]]}, "counts")
    assert not shown[0].axes[0].spines["top"].get_visible() and dict(plt.rcParams) == before
    figure, axis = plt.subplots()
    assert axis.spines["top"].get_visible()
    plt.close(figure)
