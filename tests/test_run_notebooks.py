"""Notebooks executed from the command line, and cleaned for git."""

import copy
import sys

import nbformat
import pytest

from covid_course import clean, notebooks
from covid_course.commands import main
from covid_utils.core.files import write_json


def test_run_gives_each_notebook_the_parameters_it_declares_in_both_cells(toy, tmp_path, capfd):
    notebook = toy("01_toy", "[settings.epochs, settings.image_size]")
    written = nbformat.read(notebook, 4)
    first, written.cells[1].source = written.cells[1].source.split("\n", 1)
    written.cells.insert(1, nbformat.v4.new_code_cell(first, metadata={"tags": ["more-parameters"]}))
    nbformat.write(written, notebook)
    assert notebooks.declared(notebook) == {"image_size", "epochs", "run_dir"}
    folder, profile = tmp_path / "run", tmp_path / "small.yaml"
    profile.write_text("epochs: 2\nimage_size: 64\nbatch_size: 16\n")
    asked = ["run", str(notebook), "-f", str(profile), "-p", "epochs", "3", "-p", "run_dir", str(folder)]
    assert main(asked) == 0
    assert nbformat.read(folder / notebook.name, 4).cells[-1].outputs[0].data["text/plain"] == "[3, 64]"
    assert [path.name for path in folder.iterdir()] == [notebook.name]
    told = capfd.readouterr()
    assert "In all" in told.out and str(folder) in told.out and told.err == ""


def test_a_series_says_what_runs_and_how_long_it_still_takes(toy, tmp_path, monkeypatch, capfd):
    """As recorded, then as notebook 0 forecast here; with parameters that change it, no time."""
    write_json(tmp_path / "minutes.json", [{"seconds": {"01_toy": 240}}])
    monkeypatch.setattr(notebooks, "RECORD", tmp_path / "minutes.json")
    forecast = "from covid_utils.core.files import write_json\n\nforecast = {'machine': {'minutes': {'01_toy': 1.5}}}\n"
    files = [toy("00_start", f"{forecast}write_json(settings.run_dir + '/metrics.json', forecast)"), toy("01_toy")]
    for given, left in ({}, [", about 5 min left", ", about 2 min left"]), ({"epochs": 2}, ["", ""]):
        notebooks.run(files, {"run_dir": str(tmp_path / "run")} | given)
        told = capfd.readouterr()
        *lines, _, total = told.out.splitlines()
        first = ("starts", "cell 2 of 5", "starts", "cell 2 of 4")  # papermill adds a cell of parameters
        names = ["00_start", "00_start", "01_toy", "01_toy"]
        assert lines == [f"{name}: {what}{left[name == '01_toy']}" for name, what in zip(names, first, strict=True)]
        assert total.startswith("In all ") and total.count(" s") == 3 and "01_toy" in total and told.err == ""


def test_a_kernel_that_does_not_answer_and_a_machine_without_loopback_are_one_sentence(
    toy, tmp_path, monkeypatch, capsys
):
    deaf = {"argv": [sys.executable, "-c", "import time; time.sleep(60)"], "display_name": "", "language": "python"}
    write_json(tmp_path / "kernels" / "deaf" / "kernel.json", deaf)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setattr(notebooks, "KERNEL", "deaf")
    monkeypatch.setattr(notebooks, "PATIENCE", 2)
    assert main(["run", str(toy("01_toy")), "-p", "run_dir", str(tmp_path / "run")]) == 1
    words = "stopped at the start of its kernel (Kernel didn't respond in 2 seconds): close other programs"
    assert words in capsys.readouterr().err

    def refused(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(notebooks.socket, "create_connection", refused)
    assert main(["run", str(toy("01_toy")), "-p", "run_dir", str(tmp_path / "other")]) == 1
    assert "127.0.0.1, which does not answer" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("raise OSError('x is missing: make it.')", "In [4]: OSError: x is missing: make it."),
        ("import os\n\nos.kill(os.getpid(), 9)", "In [4]: its kernel died"),
    ],
)
def test_a_failing_cell_is_named_and_the_notebook_up_to_there_kept(toy, tmp_path, capfd, cell, words):
    assert main(["run", str(toy("02_toy", cell)), "-p", "run_dir", str(tmp_path / "run")]) == 1
    err = capfd.readouterr().err
    assert f"02_toy.ipynb stopped at cell {words}" in err and "Traceback" not in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["02_toy.failed.ipynb"]


def test_a_parameter_without_effect_stops_before_the_start(toy, tmp_path, capsys):
    assert main(["run", str(toy("01_toy")), "-p", "split", "random", "-p", "run_dir", str(tmp_path / "run")]) == 1
    assert "split has no effect on 01_toy.ipynb" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_clean_notebook_holds_nothing_of_the_machine_or_the_moment(toy, tmp_path):
    notebook = toy("01_toy", "print(1)\nimport sys\nsys.stdout.flush()\nprint(2)", "{'a': settings.epochs}")
    output = notebooks.execute(notebook, tmp_path / "run" / notebook.name, {"epochs": 3})
    dirty = nbformat.read(output, 4)
    again = nbformat.read(notebooks.execute(notebook, output, {"epochs": 3}), 4)
    assert nbformat.writes(clean.clean_notebook(copy.deepcopy(dirty))) == nbformat.writes(clean.clean_notebook(again))
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "FloatSlider()"}
    dirty.cells[-1].outputs.append(nbformat.v4.new_output("display_data", view))
    dirty.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    first, second = (nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("1\n", "2\n"))
    progress = nbformat.v4.new_output("display_data", {"text/plain": ""})
    starter = nbformat.v4.new_output("display_data", {"text/plain": "Exercise:"}, metadata={"waiting": True})
    dirty.cells[-2].outputs = [first, progress, second, starter]
    tidy = clean.clean_notebook(dirty)
    text = nbformat.writes(tidy)
    for word in ("papermill", "widget", "injected", "3.1", "start_time", "execution.iopub"):
        assert word not in text
    assert [cell.execution_count for cell in tidy.cells[1:]] == [1, 2, 3, 4]
    assert [output.text for output in tidy.cells[-2].outputs] == ["1\n2\n"]


def test_refresh_writes_all_notebooks_or_none(toy, tmp_path, monkeypatch):
    first, second = toy("01_toy", "x = {  'a':1 }\nx"), toy("02_toy", "1 / 0")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", first.parent)
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path / "mine"))  # the runs are made in a home of their own
    old = [path.read_bytes() for path in (first, second)]
    with pytest.raises(notebooks.NotebookError, match="ZeroDivisionError"):
        clean.refresh()
    assert [path.read_bytes() for path in (first, second)] == old

    second.write_bytes(old[0])
    assert clean.refresh() == [first, second]
    assert not (tmp_path / "mine").exists()
    cell = nbformat.read(first, 4).cells[-1]
    assert cell.source == 'x = {"a": 1}\nx' and cell.outputs[0].data["text/plain"] == "{'a': 1}"
