"""A progress bar that leaves nothing behind, and outputs drawn in place."""

import io
import sys

import nbformat
from nbclient import NotebookClient

from covid_utils.core.files import PROJECT
from covid_utils.core.progress import progress


def test_items_come_through_and_a_pipe_stays_silent(capsys):
    assert list(progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert list(progress((i for i in range(5)), "counting", total=5, delay=0)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_the_bar_before_the_first_item_and_is_clean_afterwards(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in progress(iter("ab"), "runs", 2, delay=0):
        assert "runs:   0%" in terminal.getvalue() and "0/2" in terminal.getvalue()
    assert terminal.getvalue().split("\r")[-2].strip() == ""


def test_a_notebook_keeps_one_output_of_what_is_drawn_in_place():
    slow = "import time\nfrom covid_utils.core.progress import progress\n"
    slow += "for k in range(2):\n    for i in progress(range(16), 'slow'):\n        time.sleep(0.06)\n"
    slow += "print('done')"
    place = "from covid_utils.core.progress import InPlace\nplace = InPlace()\nplace.draw('first')\nprint('between')\n"
    place += "place.draw({'text/plain': 'second'}, {'text/plain': {'alt': 'b'}}, raw=True)"
    codes = (slow, "for i in progress(range(9), 'quick'): pass", place, "place.draw([3], {'text/plain': {'alt': 'c'}})")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    drawn = []

    class Client(NotebookClient):
        def process_message(self, message, cell, index):
            if "text/plain" in message["content"].get("data", {}):
                drawn.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, cell, index)

    Client(notebook, kernel_name="python3", resources={"metadata": {"path": str(PROJECT)}}).execute()
    line, text = notebook.cells[0].outputs
    assert dict(line.data) == {"text/plain": ""} and text.text == "done\n"
    assert any("slow: " in line and "/16 [00:0" in line for line in drawn)
    assert notebook.cells[1].outputs == []
    picture, text = notebook.cells[2].outputs
    assert picture.data == {"text/plain": "[3]"} and picture.metadata == {"text/plain": {"alt": "c"}}
    assert text.text == "between\n" and drawn[-3:] == ["'first'", "second", "[3]"]
    assert notebook.cells[3].outputs == []
