"""What a sweep varies in notebooks/train.ipynb."""

import dataclasses

import nbformat
from IPython.display import Markdown

from covid_utils import data as ct
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings


def test_fewer_training_slices_are_whole_patients_and_the_other_splits_stay(tmp_path):
    """Half of the slices of each class; without a number all are there."""
    settings = Settings(patients=40, image_size=32, data_dir=str(tmp_path))
    cells = nbformat.read(PROJECT / "notebooks" / "train.ipynb", 4).cells
    (source,) = [cell.source for cell in cells if "load_data" in cell.source]
    names = {"ct": ct, "dataclasses": dataclasses, "Markdown": Markdown, "settings": settings}
    tables = {}
    for slices in (0, 48):
        given = {"seed": 3, "data_seed": -1, "slices": slices}
        exec(source, names | given, found := names | given)
        tables[slices] = found["data"].table
        assert len(found["data"].images) == len(tables[slices]) and found["learn"].split.eq("train").all()
    whole, fewer = tables[0], tables[48]
    assert whole[whole.split != "train"].path.tolist() == fewer[fewer.split != "train"].path.tolist()
    train = fewer[fewer.split == "train"]
    assert train.label.value_counts().to_dict() == {0: 24, 1: 24}
    assert set(train.groupby("patient").size()) == {4} and len(whole[whole.split == "train"]) > 48
