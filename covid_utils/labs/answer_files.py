"""Answers for files: a picture of each with its heat map, and a table; from the command line or in a widget."""

from __future__ import annotations

import html
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from ..plotting import compact
from ..runs.files import replace_file, resolve, shown, write_json
from ..runs.progress import progress
from ..sources.images import read_slice
from ..sources.walk import sentence as left_out_sentence
from ..sources.walk import slices_below
from .answers import Reader, answer_slices, heat_maps, read_run
from .cam_figures import panels

NOT_CLINICAL = "For learning only: not fit for clinical use."
BATCH = 16


def predict_files(run_dir: str | Path, paths: list[Path], out: Path | None = None) -> int:
    """Answer for slice files, and for all slices in folders: a PNG of each, `answers.csv` and `answers.json`.

    Files that can't be read are named, and the others answered all the same.

    Returns:
        an exit code: 0, or 1 if a file could not be read.

    Raises:
        FileNotFoundError: no trained network, no such file, or a folder without slices.
        ValueError, OSError: as `answers.read_run`; the pictures can't be written.
    """
    files = listed(paths)
    reader, out = read_run(run_dir), resolve(out or Path(run_dir) / "answers")
    rows, unread = [], []
    names = _names(files)
    for start in progress(range(0, len(files), BATCH), "answering", -(-len(files) // BATCH)):
        some = files[start : start + BATCH]
        read, complaints = _read(some, reader.settings.image_size)
        unread += complaints
        if not read:
            continue
        images = torch.from_numpy(np.stack(list(read.values())))
        found = answer_slices(reader, images)
        for file, image, heat, answer in zip(read, images, heat_maps(reader, images, found), found, strict=True):
            picture = out / f"{names[file]}.png"
            replace_file(picture, partial(draw(image, heat, answer, reader.map).savefig, dpi=100))
            rows.append({"file": str(file)} | answer | {"picture": picture.name})
    if rows:
        table = pd.DataFrame(rows)
        replace_file(out / "answers.csv", lambda path: table.to_csv(path, index=False))
        write_json(out / "answers.json", rows)
        print(table[["file", "probability", "decision", "strangeness", "note"]].round(3).to_string(index=False))
        print(f"\nPictures and answers.csv: {shown(out)}. {NOT_CLINICAL}")
    for complaint in unread:
        print(complaint, file=sys.stderr)
    return int(bool(unread))


def listed(paths: list[Path]) -> list[Path]:
    """The files, and the slices of folders, each once. Raises FileNotFoundError if something is not there, or empty."""
    files: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path} (looked in {Path.cwd()}): check the path.")
        if path.is_dir():
            left_out: Counter = Counter()
            inside = slices_below(path, path, set(), left_out)
            if not inside:
                raise FileNotFoundError(f"Folder {path} holds no slices.{left_out_sentence(left_out)}")
            files |= dict.fromkeys(inside)
        else:
            files[path] = None
    return list(files)


def draw(image: torch.Tensor, heat: np.ndarray, answer: dict, name: str) -> Figure:
    """A slice, uint8 (H, H), beside its heat map, float (H, H), with the answer as title."""
    title = f"{answer['decision']}, probability of COVID {answer['probability']:.2f} (limit {answer['threshold']:.2f})"
    figure = panels(image.numpy(), {name: heat})
    figure.suptitle(title + ("\nSTRANGER: do not believe the answer" if answer["note"] else ""), fontsize=10, y=0.99)
    figure.tight_layout()
    return figure


def upload(reader: Reader) -> dict[str, widgets.Widget]:
    """A button for files of one's own; answers and heat map appear below it.

    Returns:
        "files" (the button), "number" (which of several files is shown), "picture" and "answers" (a table in HTML), so
        that a program can move and read them too.
    """
    button = widgets.FileUpload(multiple=True, description="slices", tooltip="Pictures or DICOM files of slices")
    number = widgets.Dropdown(options=[], description="file")
    picture = widgets.Image(format="jpeg", layout={"max_width": "640px"})
    table, found = widgets.HTML(), {}
    top = widgets.HBox([button, number])
    box = widgets.VBox([top, table])

    def show(_change=None) -> None:
        box.children = [top, table, picture] if number.value else [top, table]  # no empty picture
        if number.value:
            image, heat, answer = found[number.value]
            picture.value = compact(draw(image, heat, answer, reader.map), photo=True)

    def answer_all(_change) -> None:
        found.clear()
        complaints = []
        with tempfile.TemporaryDirectory() as folder:
            for i, each in enumerate(button.value):
                file = Path(folder) / f"{i}{Path(each['name']).suffix}"
                file.write_bytes(bytes(each["content"]))
                read, said = _read([file], reader.settings.image_size)
                complaints += [sentence.replace(shown(file), each["name"]) for sentence in said]
                for image in map(torch.from_numpy, read.values()):
                    answer = answer_slices(reader, image[None])
                    found[each["name"]] = image, heat_maps(reader, image[None], answer)[0], answer[0]
        rows = pd.DataFrame([{"file": name} | answer for name, (_, _, answer) in found.items()])
        words = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in complaints)
        table.value = words + (rows.round(3).to_html(index=False) if found else "")
        number.options = list(found)
        number.value = next(iter(found), None)  # a list that was empty chooses nothing by itself
        show()

    button.observe(answer_all, "value")
    number.observe(show, "value")
    display(Markdown(NOT_CLINICAL), box)
    return {"files": button, "number": number, "picture": picture, "answers": table}


def _read(files: list[Path], image_size: int) -> tuple[dict[Path, np.ndarray], list[str]]:
    """The slices that can be read, and a sentence for each that can't."""
    read, complaints = {}, []
    for file in files:
        try:
            read[file] = read_slice(file, image_size)
        except (ValueError, OSError, ImportError) as error:
            complaints.append(str(error))
    return read, complaints


def _names(files: list[Path]) -> dict[Path, str]:
    """A name for the picture of each file; a number tells equal ones apart."""
    seen: Counter = Counter()
    names = {}
    for file in files:
        seen[file.stem] += 1
        names[file] = file.stem + (f"-{seen[file.stem]}" if seen[file.stem] > 1 else "")
    return names
