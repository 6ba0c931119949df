"""Answers for files: a picture of each with its heat map, and a table; from the command line or in a widget."""

from __future__ import annotations

import dataclasses
import html
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from covid_utils.core.files import display_path, replace_file, resolve, write_json
from covid_utils.core.progress import progress
from covid_utils.io.dicom import file_of
from covid_utils.io.discovery import ending
from covid_utils.io.discovery import sentence as left_out_sentence
from covid_utils.io.images import read_slice
from covid_utils.io.scans import Scan, Stack, find_scans, read_stack, unique_names
from covid_utils.labs.cam_figures import overlay, panels
from covid_utils.labs.predictor import (
    OUT_OF_DISTRIBUTION,
    WARNING,
    Predictor,
    headline,
    heat_maps,
    predict_patient,
    predict_slices,
    read_run,
    slice_logits,
)
from covid_utils.plotting import compact, styled

NOT_CLINICAL = "For learning only: not fit for clinical use."
BATCH = 16
SHOWN = 3  # slices in the picture of a patient


@dataclasses.dataclass(frozen=True)
class Patient:
    """What a network says of a patient.

    Attributes:
        answer: `slices`, how many; `probability`, `threshold`, `decision`; `out_of_distribution`, how many slices are
            unlike the training's; `note`.
        slices: the answer for each slice, with its `file`, `slice` (number from the feet) and `position` in mm.
        telling: which slices have the highest logits, in order along the body.
        images, heats: those slices, uint8 (n, H, H), and their heat maps, float32 (n, H, H) in 0…1.
    """

    answer: dict
    slices: list[dict]
    telling: list[int]
    images: np.ndarray
    heats: np.ndarray


def predict_scan(predictor: Predictor, stack: Stack) -> Patient:
    """All slices of a stack answered, and the patient; heat maps of the slices that look most like COVID only."""
    images = torch.from_numpy(stack.images)
    logits = slice_logits(predictor, images)
    found = predict_slices(predictor, images, logits)
    outside = sum(each["ood_score"] > 1 for each in found)
    notes = [OUT_OF_DISTRIBUTION] if 2 * outside > len(found) else []
    answer = {"slices": len(found)} | predict_patient(predictor, logits)
    answer |= {"out_of_distribution": outside, "note": "; ".join(note for note in [*notes, stack.note] if note)}
    telling = sorted(np.argsort(-logits, kind="stable")[:SHOWN].tolist())
    heats = heat_maps(predictor, images[telling], [found[i] for i in telling])
    places = [None] * len(found) if stack.positions is None else stack.positions.tolist()
    which = zip(stack.files, stack.numbers, places, found, strict=True)
    slices = [{"file": str(file), "slice": n, "position": place} | each for file, n, place, each in which]
    return Patient(answer, slices, telling, stack.images[telling], heats)


@styled
def draw_patient(patient: Patient, name: str) -> Figure:
    """The most telling slices, their heat maps (`name`d) below them, and the patient's answer as title."""
    answer, count = patient.answer, len(patient.telling)
    figure, axes = plt.subplots(2, count, figsize=(max(2.9 * count, 6.2), 7), squeeze=False)
    plt.close(figure)
    for (top, below), row, image, heat in zip(axes.T, patient.telling, patient.images, patient.heats, strict=True):
        each = patient.slices[row]
        place = "" if each["position"] is None else f", {each['position']:.0f} mm".replace("-", "−")
        strange = "\nout of distribution" if each["note"] else ""
        overlay(top, image, title=f"slice {each['slice']}{place}: {each['probability']:.2f}{strange}")
        overlay(below, image, heat)
    axes[1][0].set_ylabel(name, fontsize=9)
    title = headline(answer)
    if count < answer["slices"]:
        title += f"\n{count} of {answer['slices']} slices: those that look most like COVID to the network"
    if OUT_OF_DISTRIBUTION in answer["note"]:
        title += WARNING
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout()
    return figure


def predict_files(run_dir: str | Path, paths: list[Path], out: Path | None = None) -> int:
    """Answer for slice files, and for the patients and slices in folders.

    Writes a PNG of each slice and each patient, `answers.csv` and `answers.json` with a row for each slice, and
    `patients.csv` and `patients.json` with one for each patient. Files and patients that can't be read are named, and
    the others answered all the same.

    Returns:
        an exit code: 0, or 1 if something could not be read.

    Raises:
        FileNotFoundError: no trained network, no such file, or a folder without slices.
        ValueError, OSError: as `answers.read_run`; the pictures can't be written.
    """
    scans, files, left_out = find_scans(paths)
    predictor, out = read_run(run_dir), resolve(out or Path(run_dir) / "answers")
    plain = [re.sub("[/:]+", "-", scan.name).strip("-")[-100:] for scan in scans]
    names = unique_names([*(file.stem for file in files), *plain])
    names = dict(zip([*files, *(scan.name for scan in scans)], names, strict=True))
    loose, slices, patients, unread = [], [], [], []
    for what, answer, inside, figure in answered(predictor, scans, files, unread, bar=True):
        picture = names[what.name if isinstance(what, Scan) else what] + ".png"
        replace_file(out / picture, partial(figure().savefig, dpi=100))
        if isinstance(what, Scan):
            patients.append({"patient": what.name} | answer | {"picture": picture})
            slices += [{"file": each.pop("file"), "patient": what.name} | each for each in inside]
        else:
            loose.append({"file": str(what)} | answer | {"picture": picture})
    if slices or loose:
        _write(out / "answers", slices + loose)
        _write(out / "patients", patients)
    _print(loose, ["file", "probability", "decision", "ood_score", "note"])
    _print(patients, ["patient", "slices", "probability", "decision", "out_of_distribution"])
    notes = [f"{row['patient']}: {row['note']}." for row in patients if row["note"]]
    if notes:
        print("\n".join(notes) + "\n")
    if loose or patients:
        tables = "answers.csv and patients.csv" if patients else "answers.csv"
        print(f"Pictures, {tables}: {display_path(out)}.{left_out_sentence(left_out)} {NOT_CLINICAL}")
    for complaint in unread:
        print(complaint, file=sys.stderr)
    return int(bool(unread))


def answered(
    predictor: Predictor, scans: list[Scan], files: list[Path], unread: list[str], bar: bool = False
) -> Iterator[tuple[Path | Scan, dict, list[dict], Callable[[], Figure]]]:
    """Each file and each scan that can be read, its answer, the answers for a scan's slices, and what draws a picture.

    Args:
        unread: gets a sentence for each file and scan that can't be read, or not all of it.
        bar: show progress.
    """
    batches = range(0, len(files), BATCH)
    for start in progress(batches, "answering") if bar else batches:
        read, complaints = _read(files[start : start + BATCH], predictor.settings.image_size)
        unread += complaints
        if read:
            images = torch.from_numpy(np.stack(list(read.values())))
            found = predict_slices(predictor, images)
            for file, image, heat, answer in zip(read, images, heat_maps(predictor, images, found), found, strict=True):
                yield file, answer, [], partial(draw, image, heat, answer, predictor.map)
    for number, scan in enumerate(scans, start=1):
        try:
            stack = read_stack(scan, predictor.settings.image_size, f"patient {number} of {len(scans)}" if bar else "")
            patient = predict_scan(predictor, stack)
        except (ValueError, OSError, ImportError) as error:
            unread.append(str(error))
            continue
        unread += [stack.unread] if stack.unread else []
        yield scan, patient.answer, patient.slices, partial(draw_patient, patient, predictor.map)


def _write(path: Path, rows: list[dict]) -> None:
    """The rows as CSV and JSON; if there are none, those of an earlier call go."""
    if not rows:
        for kind in (".csv", ".json"):
            path.with_suffix(kind).unlink(missing_ok=True)
    else:
        table = pd.DataFrame(rows).astype({"slice": "Int64"} if "slice" in rows[0] else {})
        replace_file(path.with_suffix(".csv"), lambda temporary: table.to_csv(temporary, index=False))
        write_json(path.with_suffix(".json"), rows)


def _print(rows: list[dict], columns: list[str]) -> None:
    if rows:
        print(pd.DataFrame(rows)[columns].round(3).to_string(index=False) + "\n")


def draw(image: torch.Tensor, heat: np.ndarray, answer: dict, name: str) -> Figure:
    """A slice, uint8 (H, W), beside its heat map, float (H, H), with the answer as title."""
    figure = panels(image.numpy(), {name: heat})
    figure.suptitle(headline(answer) + (WARNING if answer["note"] else ""), fontsize=10, y=0.99)
    figure.tight_layout()
    return figure


def upload(predictor: Predictor) -> dict[str, widgets.Widget]:
    """A button for files of one's own; answers and heat map appear below it.

    A NIfTI volume is a patient, and so are DICOM files of one series that are given together.

    Returns:
        "files" (the button), "number" (which of several files is shown), "picture" and "answers" (tables in HTML), so
        that a program can move and read them too.
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

    def answer_all(_change) -> None:
        figures.clear()
        rows, complaints = {"file": [], "patient": []}, []
        with tempfile.TemporaryDirectory() as folder:
            names = _uploaded(button.value, Path(folder))
            scans, files, _ = find_scans(list(names)) if names else ([], [], Counter())
            scans = [dataclasses.replace(scan, name=_called(scan, names)) for scan in scans]
            for each, answer, _, figure in answered(predictor, scans, files, complaints):
                kind, name = ("patient", each.name) if isinstance(each, Scan) else ("file", names[each])
                rows[kind].append({kind: name} | answer)
                figures[name] = figure
            for file, name in names.items():  # where they lay for a moment is of no use to anybody
                complaints = [said.replace(display_path(file), name) for said in complaints]
            complaints = [said.replace(f" in {display_path(folder)} ", " ") for said in complaints]
        words = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in complaints)
        tables = [pd.DataFrame(each).round(3).to_html(index=False) for each in rows.values() if each]
        table.value = words + "".join(tables)
        number.options = list(figures)
        number.value = next(iter(figures), None)  # a list that was empty chooses nothing by itself
        show()

    button.observe(answer_all, "value")
    number.observe(show, "value")
    display(Markdown(NOT_CLINICAL), box)
    return {"files": button, "number": number, "picture": picture, "answers": table}


def _uploaded(uploads, folder: Path) -> dict[Path, str]:
    """The uploaded files, written to a folder, and what each is called; a number tells equal names apart."""
    files = [folder / f"{i:06d}{ending(Path(each['name']))}" for i, each in enumerate(uploads)]
    for file, each in zip(files, uploads, strict=True):
        file.write_bytes(bytes(each["content"]))
    return dict(zip(files, unique_names([each["name"] for each in uploads]), strict=True))


def _called(scan: Scan, names: dict[Path, str]) -> str:
    """What to call a patient whose files were uploaded one by one, out of any folder."""
    files = list(dict.fromkeys(file_of(each.path) for each in scan.headers if not each.problem)) or [scan.path]
    return names[files[0]] + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _read(files: list[Path], image_size: int) -> tuple[dict[Path, np.ndarray], list[str]]:
    """The slices that can be read, and a sentence for each that can't."""
    read, complaints = {}, []
    for file in files:
        try:
            read[file] = read_slice(file, image_size)
        except (ValueError, OSError, ImportError) as error:
            complaints.append(str(error))
    return read, complaints
