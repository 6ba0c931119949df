"""A progress bar that leaves nothing behind."""

import io
import sys

import nbformat
from nbclient import NotebookClient

from covid_utils.runs.files import PROJECT
from covid_utils.runs.progress import _text, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_come_through_and_a_pipe_stays_silent(capsys):
    assert list(progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert list(progress((i for i in range(5)), "counting", total=5)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("covid_utils.runs.progress.PATIENCE", 0)
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert "counting" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().rsplit("\r")[-2].strip() == ""  # cleared when done


def test_text():
    assert _text("reading", 5, 20, 10) == "reading: █████░░░░░░░░░░░░░░░ 5/20, 30 s left"
    assert _text("reading", 0, 20, 10) == "reading: ░░░░░░░░░░░░░░░░░░░░ 0/20"
    assert _text("reading", 7, None, 10) == "reading: 7"


def test_notebook_keeps_one_empty_line_for_slow_work_and_none_for_quick_work():
    slow = "import time\nfrom covid_utils.runs.progress import progress\n"
    slow += "for k in range(2):\n    for i in progress(range(16), 'slow'):\n        time.sleep(0.06)\n"
    slow += "print('done')"
    cells = [nbformat.v4.new_code_cell(code) for code in (slow, "for i in progress(range(9), 'quick'): pass")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    drawn = []

    class Client(NotebookClient):
        def process_message(self, message, cell, index):
            if "text/plain" in message["content"].get("data", {}):
                drawn.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, cell, index)

    Client(notebook, kernel_name="python3", resources={"metadata": {"path": str(PROJECT)}}).execute()
    line, text = notebook.cells[0].outputs
    assert dict(line.data) == {"text/plain": ""} and text.text == "done\n"
    assert any("slow: █" in line and "s left" in line for line in drawn)
    assert notebook.cells[1].outputs == []
