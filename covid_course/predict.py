"""Predictions for files: a picture of each with its heat map, and a table; from the command line or in a widget."""

from __future__ import annotations

import html
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from covid_utils.core.files import display_path, replace_file, resolve
from covid_utils.core.progress import progress
from covid_utils.io.discovery import ending
from covid_utils.io.discovery import sentence as left_out_sentence
from covid_utils.io.images import read_file
from covid_utils.io.nifti import file_of
from covid_utils.io.scans import Scan, find_scans, read_stack, unique_names
from covid_utils.labs.cam_figures import overlay, panels
from covid_utils.labs.predictor import (
    OUT_OF_DISTRIBUTION,
    Predictor,
    headline,
    heat_maps,
    predict_patient,
    predict_slices,
    read_run,
)
from covid_utils.plotting import compact, styled

NOT_CLINICAL = "For learning only: not fit for clinical use."
SHOWN = 3  # slices in the picture of a patient


class Answer(NamedTuple):
    """What a network says of a slice (as `predict_slices`) or of a patient; the row is empty if it can't be read."""

    row: dict  # of a patient: slices (how many), probability, threshold, decision, out_of_distribution (how many), note
    slices: list[dict]  # of a patient, each with its file, slice (number from the feet), position in mm
    draw: Callable[[], Figure] | None  # makes the picture
    unread: str  # a sentence on what could not be read; may be empty


def answers(predictor: Predictor, what: Iterable[Path | Scan]) -> Iterator[Answer]:
    """The answer for each slice file and each scan; one that can't be read has a sentence for it and no row."""
    for each in what:
        try:
            yield predict_scan(predictor, each) if isinstance(each, Scan) else predict_file(predictor, each)
        except (ValueError, OSError, ImportError) as error:
            yield Answer({}, [], None, str(error))


def predict_file(predictor: Predictor, path: Path) -> Answer:
    """A slice file's answer. Raises as `images.read_file`."""
    read = read_file(path, predictor.settings.image_size, predictor.window)
    images = torch.from_numpy(read.image)[None]
    found = predict_slices(predictor, images)
    found[0]["note"] = "; ".join(filter(None, [found[0]["note"], read.note]))
    heats = heat_maps(predictor, images, found)
    return Answer(found[0], [], partial(draw_slice, images[0].numpy(), heats[0], found[0], predictor.map), "")


def predict_scan(predictor: Predictor, scan: Scan) -> Answer:
    """A patient's answer, and those of all slices; heat maps of the slices that look most like COVID only.

    Raises as `scans.read_stack`, and ValueError if the predictor has no rule for patients.
    """
    stack = read_stack(scan, predictor.settings.image_size, predictor.window)
    images = torch.from_numpy(stack.images)
    found = predict_slices(predictor, images)
    logits = np.array([each["logit"] for each in found])
    outside = sum(each["ood_score"] > 1 for each in found)
    notes = [OUT_OF_DISTRIBUTION] if 2 * outside > len(found) else []
    row = {"slices": len(found)} | predict_patient(predictor, logits)
    row |= {"out_of_distribution": outside, "note": "; ".join(filter(None, [*notes, stack.note]))}
    slices = [place | each for place, each in zip(stack.slices, found, strict=True)]
    highest = sorted(np.argsort(-logits, kind="stable")[:SHOWN].tolist())
    shown, pictures = [slices[i] for i in highest], stack.images[highest]
    heats = heat_maps(predictor, images[highest], shown)
    return Answer(row, slices, partial(draw_patient, row, shown, pictures, heats, predictor.map), stack.unread)


@styled
def draw_slice(image: np.ndarray, heat: np.ndarray, row: dict, name: str) -> Figure:
    """A slice, uint8 (H, W), beside its heat map, float (H, H), with the answer as title."""
    figure = panels(image, {name: heat})
    figure.suptitle(headline(row), fontsize=10, y=0.99)
    figure.tight_layout()
    return figure


@styled
def draw_patient(row: dict, slices: list[dict], images: np.ndarray, heats: np.ndarray, name: str) -> Figure:
    """Some slices of a patient, uint8 (n, H, H), their heat maps (`name`d) below them, and the answer as title."""
    count = len(slices)
    figure, axes = plt.subplots(2, count, figsize=(max(2.9 * count, 6.2), 7), squeeze=False)
    plt.close(figure)
    for (top, below), each, image, heat in zip(axes.T, slices, images, heats, strict=True):
        place = "" if each["position"] is None else f", {each['position']:.0f} mm".replace("-", "−")
        strange = "\nout of distribution" if each["ood_score"] > 1 else ""
        overlay(top, image, title=f"slice {each['slice']}{place}: {each['probability']:.2f}{strange}")
        overlay(below, image, heat)
    axes[1][0].set_ylabel(name, fontsize=9)
    title = headline(row)
    if count < row["slices"]:
        title += f"\n{count} of {row['slices']} slices: those that look most like COVID to the network"
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout()
    return figure


def predict_files(run_dir: str | Path, paths: list[Path], out: Path | None = None) -> int:
    """Predict slice files, and the patients and slices in folders.

    Writes a PNG of each slice and each patient, `answers.csv` with a row for each slice, and `patients.csv` with one
    for each patient. What can't be read is named, and the rest predicted all the same. Returns an exit code: 1 if
    something could not be read. Raises as `predictor.read_run`, FileNotFoundError if there is no such file or slice.
    """
    scans, files, left_out = find_scans(paths)
    out = resolve(out or Path(run_dir) / "answers")
    read = [*files, *(file_of(header.path) for scan in scans for header in scan.headers)]
    if out.resolve() in {file.resolve().parent for file in read}:
        raise ValueError(f"{display_path(out)} holds slices, which pictures could replace: give another --out.")
    predictor = read_run(run_dir)
    what, plain = [*files, *scans], [re.sub("[/:]+", "-", scan.name).strip("-")[-100:] for scan in scans]
    pictures = [f"{name}.png" for name in unique_names([*(file.stem for file in files), *plain])]
    loose, slices, patients, unread = [], [], [], []
    found = progress(answers(predictor, what), "predicting", len(what))
    for each, picture, answer in zip(what, pictures, found, strict=True):
        unread += filter(None, [answer.unread])
        if not answer.row:
            continue
        replace_file(out / picture, partial(answer.draw().savefig, dpi=100))
        if isinstance(each, Scan):
            patients.append({"patient": each.name} | answer.row | {"picture": picture})
            slices += [{"file": row.pop("file"), "patient": each.name} | row for row in answer.slices]
        else:
            loose.append({"file": str(each)} | answer.row | {"picture": picture})
    if slices or loose:
        _write(out / "answers.csv", slices + loose)
        _write(out / "patients.csv", patients)
        columns = ["file", "patient", "slices", "probability", "decision", "ood_score", "out_of_distribution", "note"]
        for table in map(pd.DataFrame, filter(None, (loose, patients))):
            print(table[[name for name in columns if name in table]].round(3).to_string(index=False) + "\n")
        print(f"Pictures and tables: {display_path(out)}.{left_out_sentence(left_out)} {NOT_CLINICAL}")
    print("".join(f"{sentence}\n" for sentence in unread), end="", file=sys.stderr)
    return int(bool(unread))


def _write(path: Path, rows: list[dict]) -> None:
    """The rows as a CSV file; if there are none, that of an earlier call goes."""
    table = pd.DataFrame(rows)
    if "slice" in table:
        table["slice"] = table["slice"].astype("Int64")
    replace_file(path, lambda temporary: table.to_csv(temporary, index=False)) if rows else path.unlink(missing_ok=True)


def upload(predictor: Predictor) -> dict[str, widgets.Widget]:
    """A button for files of one's own; answers and heat map appear below it.

    A NIfTI volume is a patient, and so are DICOM files of one series that are given together. Returns the widgets:
    "files" (the button), "number" (which of several files is shown), "picture" and "answers" (tables in HTML).
    """
    what = "Pictures, all DICOM files of a series, NIfTI volumes"
    button = widgets.FileUpload(multiple=True, description="slices", tooltip=what)
    number = widgets.Dropdown(options=[], description="show")
    picture = widgets.Image(format="jpeg", layout={"max_width": "640px"})
    table, figures = widgets.HTML(), {}
    top = widgets.HBox([button, number])
    box = widgets.VBox([top, table])

    def show(_change=None) -> None:
        box.children = [top, table, picture] if number.value else [top, table]  # no empty picture
        if number.value:
            picture.value = compact(figures[number.value](), photo=True)

    def predict_all(_change) -> None:
        figures.clear()
        tables, unread, scans, files = {"file": [], "patient": []}, [], [], []
        with tempfile.TemporaryDirectory() as folder:
            names = _uploaded(button.value, Path(folder))
            try:
                scans, files, _ = find_scans(list(names)) if names else ([], [], None)
            except ImportError as error:  # DICOM, and no pydicom: an error in a widget is shown nowhere
                unread.append(f"<p>{html.escape(str(error))}</p>")
            what = [*files, *(scan._replace(name=names[file_of(scan.headers[0].path)]) for scan in scans)]
            for each, answer in zip(what, answers(predictor, what), strict=True):
                kind, name = ("patient", each.name) if isinstance(each, Scan) else ("file", names[each])
                if answer.row:
                    tables[kind].append({kind: name} | answer.row)
                    figures[name] = answer.draw
                if answer.unread:  # where the files lay for a moment is of no use to anybody
                    shown = re.sub(re.escape(folder) + r"\S*", lambda at: names.get(Path(at[0]), "it"), answer.unread)
                    unread.append(f"<p>{html.escape(shown)}</p>")
        tables = [pd.DataFrame(rows).round(3).to_html(index=False) for rows in tables.values() if rows]
        table.value = "".join([*unread, *tables])
        number.options = list(figures)
        number.value = next(iter(figures), None)  # a list that was empty chooses nothing by itself
        show()

    button.observe(predict_all, "value")
    number.observe(show, "value")
    display(Markdown(NOT_CLINICAL), box)
    return {"files": button, "number": number, "picture": picture, "answers": table}


def _uploaded(uploads, folder: Path) -> dict[Path, str]:
    """The uploaded files, written to a folder, and what each is called; a number tells equal names apart."""
    if isinstance(uploads, dict):  # as ipywidgets 7 has them, which Colab still has
        uploads = [{"name": name, "content": each["content"]} for name, each in uploads.items()]
    files = [folder / f"{i:06d}{ending(Path(each['name']))}" for i, each in enumerate(uploads)]
    for file, each in zip(files, uploads, strict=True):
        file.write_bytes(bytes(each["content"]))
    return dict(zip(files, unique_names(each["name"] for each in uploads), strict=True))
