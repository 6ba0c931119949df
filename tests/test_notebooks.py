"""The notebooks as a learner gets them, and as they run from outside, with and without a network."""

import copy
import re
import subprocess
import sys

import nbformat
import papermill
import pytest
from PIL import Image

from covid_course.clean import clean_notebook
from covid_course.notebooks import declared, find_notebooks, run
from covid_utils.core.files import PROJECT, read_json
from covid_utils.core.settings import FIELDS, read_profile
from ct_phantom.patients import draw_patient

NOTEBOOKS = find_notebooks()
OFFLINE = [sys.executable, str(PROJECT / "tests" / "offline.py"), sys.executable]
SMALL = PROJECT / "notebooks" / "profiles" / "smoke.yaml"
CONNECT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=20)"
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" and cell.source]


# ----------------------------------------------------------------------------------------- as committed


def test_the_course_is_whole():
    """A look at the machine and six notebooks, each leading to the next, titled as the README says."""
    assert [path.stem[:2] for path in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "06"]
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    cells = [nbformat.read(path, 4).cells for path in NOTEBOOKS]
    titles = [each[0].source.splitlines()[0].removeprefix("# ") for each in cells]
    for path, title in zip(NOTEBOOKS, titles, strict=True):
        assert len(title.split(" · ")) == 2 and f"[{title.split(': ')[0]}](notebooks/{path.name})" in readme
    for each, path, title in zip(cells, NOTEBOOKS[1:], titles[1:], strict=False):
        assert f"**Next:** [{title}]({path.name})" in each[-1].source


@each
def test_the_code_shown_is_the_code_that_runs(path):
    files = [file for name in ("covid_utils", "ct_phantom", "covid_course") for file in (PROJECT / name).rglob("*.py")]
    package = "".join(file.read_text(encoding="utf-8") for file in files)
    for cell in code_cells(path):
        for output in cell.outputs:
            shown = output.get("data", {}).get("text/markdown", "")
            if shown.startswith("```python"):
                assert shown.removeprefix("```python\n").removesuffix("\n```") in package, "run 'make notebooks'"


@each
def test_outputs_are_clean_and_complete(path):
    notebook = nbformat.read(path, 4)
    assert nbformat.writes(clean_notebook(copy.deepcopy(notebook))) == nbformat.writes(notebook)
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert any({"image/png", "image/jpeg"} & set(output.get("data", {})) for output in outputs)
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
    assert path.stat().st_size < 600_000


@each
def test_pictures_have_a_text_for_those_who_cannot_see_them(path):
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                assert len(output.metadata[kind]["alt"]) > 10, cell.source
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=)", cell.source), cell.source


@each
def test_nothing_names_the_machine_it_ran_on(path):
    machine = re.compile(r"(?<![\w./])/(?:work|tmp|root|home|Users|opt|var)/|[A-Z]:\\\\")
    for cell in nbformat.read(path, 4).cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [
                output.get("text", ""),
                *(v for k, v in output.get("data", {}).items() if k.startswith("text/")),
            ]
        for text in texts:
            assert not machine.search(text), text


@each
def test_cells_are_short_and_the_parameters_are_checked(path):
    cells = code_cells(path)
    (position,) = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert "check_parameters(globals())" in cells[position + 1].source
    assert {"data_dir", "run_dir"} <= declared(path) <= set(FIELDS)
    assert path == NOTEBOOKS[0] or {"dataset", "seed"} <= declared(path)
    for cell in cells:
        lines = cell.source.splitlines()
        assert sum(bool(line.strip()) for line in lines) <= 25, cell.source
        assert max(map(len, lines)) <= 88, cell.source  # JupyterLab cuts longer ones off


# ------------------------------------------------------------------------------------------ from outside


def test_each_notebook_begins_with_the_cell_that_fetches_the_course_elsewhere():
    """Folded, and as docs/anywhere.md shows it; here it does nothing."""
    text = (PROJECT / "docs" / "anywhere.md").read_text(encoding="utf-8")
    wanted = re.search(r"```python\n(# On Colab.*?)\n```", text, re.DOTALL)[1]
    for path in NOTEBOOKS:
        first = code_cells(path)[0]
        assert first.source == wanted and first.metadata["jupyter"]["source_hidden"] and not first.outputs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small profile, with the data of all tests in one folder and each run in its own."""
    data = tmp_path_factory.mktemp("data")
    return lambda run_dir: read_profile(SMALL) | {"data_dir": str(data), "run_dir": str(run_dir)}


SECTIONS = {  # what each notebook writes into a run's results, and a number in it that lies between 0 and 1
    "00_start": ("machine", lambda found: found["minutes"]["01_data"] / sum(found["minutes"].values())),
    "01_data": ("data", lambda found: found["nearest_neighbour"]["patient"]["value"]),
    "02_scratch": ("scratch", lambda found: found["test"]["accuracy"]["value"]),
    "03_transfer": ("transfer", lambda found: found["test"]["auc"]["value"]),
    "04_cam": ("cam", lambda found: found["localization"]["average precision"]["lung mask"][""]["value"]),
    "05_evaluation": ("evaluation", lambda found: found["test"]["specificity"]["value"]),
    "06_sweeps": ("sweep", lambda found: found["accuracy"]["scratch"]["40"]["value"]),
}


@each
def test_each_notebook_runs_alone_and_without_a_network(path, small, tmp_path):
    """By nbval: every cell, with the results that the notebook is for; and what it lacks of earlier ones it makes."""
    given = {name: value for name, value in small(tmp_path / "run").items() if name in declared(path)}
    copied = tmp_path / path.name
    papermill.execute_notebook(path, copied, given, prepare_only=True)
    nbval = ["-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", str(copied)]
    ended = subprocess.run([*OFFLINE, *nbval], capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    section, number = SECTIONS[path.stem]
    metrics, manifest = (read_json(tmp_path / "run" / f"{name}.json") for name in ("metrics", "manifest"))
    assert 0 <= number(metrics[section]) <= 1
    assert given.items() <= manifest[section]["parameters"].items() and len(manifest[section]["data"]) == 64
    made = {folder.parent.name for folder in (tmp_path / "run").glob("*/checkpoints")}
    few = {"00_start": set(), "01_data": set(), "02_scratch": {"scratch"}, "06_sweeps": set()}
    assert few.get(path.stem, {"scratch", "transfer"}) <= made


@pytest.mark.parametrize("layout", ["class folders", "CSV files"])
def test_the_series_runs_on_a_folder_of_ones_own(layout, small, tmp_path):
    """24 patients, two slices each, no masks, sizes mixed. CSV files differ only up to the table and the split."""
    folder = tmp_path / "slices"
    lines = {split: ["filename,label,patient"] for split in ("train", "val", "test")}
    for number in range(24):
        drawn = draw_patient(number, seed=5, image_size=64 + number % 3 * 16, n_slices=2)
        place = f"{'COVID' if drawn.label else 'non-COVID'}/p{number}"
        (folder / place).mkdir(parents=True)
        for i, image in enumerate(drawn.images):
            Image.fromarray(image).save(folder / place / f"{i}.png")
            lines[["train", "train", "val", "test"][number // 2 % 4]].append(f"{place}/{i}.png,{drawn.label},p{number}")
    if layout == "CSV files":
        for split, rows in lines.items():
            (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    notebooks = NOTEBOOKS[1:2] if layout == "CSV files" else NOTEBOOKS[1:6]  # the sweep runs alone, above
    executed = run(notebooks, small(tmp_path / "run") | {"dataset": str(folder)})
    for path in notebooks:
        for cell in code_cells(executed / path.name):
            assert all(out.get("name") != "stderr" for out in cell.outputs), cell.source
    metrics = read_json(executed / "metrics.json")
    assert metrics["data"]["slices"] == 48
    assert len(notebooks) == 1 or {"scratch", "transfer"} <= set(metrics)


@each
def test_an_unknown_parameter_is_an_error_with_plain_papermill_too(path, tmp_path):
    wrong = {"run_dirr": str(tmp_path)}
    with pytest.raises(papermill.PapermillExecutionError, match="run_dirr.*did you mean 'run_dir'"):
        papermill.execute_notebook(
            path, tmp_path / "out.ipynb", wrong, kernel_name="python3", cwd=path.parent, progress_bar=False
        )


def test_offline_really_cuts_the_network_and_spares_the_own_machine():
    ended = subprocess.run([*OFFLINE, "-c", CONNECT], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "unreachable" in ended.stderr or "cut off" in ended.stderr, ended.stderr
    own = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    assert subprocess.run([*OFFLINE, "-c", own], timeout=60).returncode == 0
