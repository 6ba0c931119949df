"""The notebooks as a learner gets them, and as they run from outside, with and without a network."""

import ast
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

TAUGHT = ("data", "models", "training", "evaluation", "explain", "plotting")
IN_A_CELL = {"Net", "freeze", "train_with_frozen_bn", "make_optimizer", "train_one_epoch", "evaluate", "fit"}
STORY = "scratch → transfer → CAM → is it true?"
MOST = {"cells": 70, "words": 2200, "figures": 10, "exercises": 4}  # of a notebook
PICTURES = {"image/png", "image/jpeg"}


def cells_of(path):
    return nbformat.read(path, 4).cells


def code_cells(path):
    return [cell for cell in cells_of(path) if cell.cell_type == "code" and cell.source]


def markdown_of(path):
    return [cell.source for cell in cells_of(path) if cell.cell_type == "markdown"]


def tagged(path, tag):
    return [cell for cell in code_cells(path) if tag in cell.metadata.get("tags", [])]


def said(cell) -> str:
    """What a code cell printed and what its tables hold, as text."""
    outputs = cell.get("outputs", [])
    texts = [text for out in outputs for kind, text in out.get("data", {}).items() if kind.startswith("text/")]
    return re.sub(r"<[^<>]*>", " ", "\n".join([*texts, *(out.get("text", "") for out in outputs)]))


# ----------------------------------------------------------------------------------------- as committed


def test_the_course_is_whole():
    """Ten notebooks, each leading to the next, titled as the README says."""
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(10)]
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    titles = [cells_of(path)[0].source.splitlines()[0].removeprefix("# ") for path in NOTEBOOKS]
    for number, (path, title) in enumerate(zip(NOTEBOOKS, titles, strict=True)):
        assert title.startswith(f"{number} · ") and f"[{title}](notebooks/{path.name})" in readme, path.name
    for path, after, title in zip(NOTEBOOKS, NOTEBOOKS[1:], titles[1:], strict=False):
        assert f"**Next:** [{title}]({after.name})" in markdown_of(path)[-1], path.name


@each
def test_a_notebook_says_where_it_stands(path):
    first = cells_of(path)[0].source
    assert STORY in first.replace("**", ""), f"the first cell lacks the line {STORY!r}"
    assert path == NOTEBOOKS[0] or any(f"**{step}**" in first for step in ("data", *STORY.split(" → "))), "no bold step"


@each
def test_a_notebook_can_be_read_in_an_afternoon(path):
    prose = "\n".join(markdown_of(path))  # with the folded solutions
    shown = sum(bool(PICTURES & set(out.get("data", {}))) for cell in code_cells(path) for out in cell.outputs)
    asked = len(re.findall(r"^#+ Exercise", prose, re.MULTILINE))
    found = {"cells": len(cells_of(path)), "words": len(prose.split()), "figures": shown + prose.count("![")}
    found["exercises"] = max(asked, len(tagged(path, "exercise")))
    too_many = {name: f"{count} of at most {MOST[name]}" for name, count in found.items() if count > MOST[name]}
    assert not too_many, too_many


def plain(node: ast.AST) -> str:
    """The syntax tree of a function or class, without its docstrings."""
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(each) is not None:
            each.body = each.body[1:]
    return ast.dump(node)


def test_the_code_in_the_lessons_is_the_helpers_own():
    """A function or class of a taught file that a cell defines is the same code; the most important ones are there."""
    helper, from_explain = {}, set()
    for name in TAUGHT:
        tree = ast.parse((PROJECT / "covid_utils" / f"{name}.py").read_text(encoding="utf-8"))
        defined = {node.name: plain(node) for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        helper |= defined
        from_explain = set(defined) if name == "explain" else from_explain
    shown = {}
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in helper:
                    shown.setdefault(node.name, []).append(path.stem)
                    same = plain(node) == helper[node.name]
                    assert same, f"{path.stem}: {node.name} differs from covid_utils' (docstrings do not count)"
    assert set(shown) >= IN_A_CELL, f"no notebook defines {sorted(IN_A_CELL - set(shown))} in a cell"
    assert from_explain & set(shown), "no notebook defines a function of explain.py, such as Grad-CAM, in a cell"


NUMBER = re.compile(r"(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(\s*%|[\s-]points?\b)?")


def numbers(text: str, all_of_them: bool = True) -> set[float]:
    """Numbers in a text, without signs; or only those with decimals, a percent sign or "points"."""
    found = (match.groups() for match in NUMBER.finditer(text.replace("\xa0", " ")))
    return {float(whole.replace(",", "") + (part or "")) for whole, part, unit in found if all_of_them or part or unit}


def findings(text: str) -> list[str]:
    """The sentences that say what happened "in our run", without code and the targets of links."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    return [each for each in re.split(r"(?<=[.!?])\s+|\n\s*\n|\n- ", text) if "in our run" in each.lower()]


@each
def test_every_number_of_our_run_was_computed_above_it(path):
    printed = ""
    for cell in cells_of(path):
        if cell.cell_type == "code":
            printed += said(cell) + "\n"
        else:
            for sentence in findings(cell.source):
                missing = numbers(sentence, all_of_them=False) - numbers(printed)
                assert not missing, f"{sorted(missing)} stands in no output before: {sentence!r}"


def test_numbers_and_sentences_are_told_apart():
    assert numbers("−46.8 points, 1,681 of 99 % in layer4, 0.50") == {46.8, 1681, 99, 0.5}
    assert numbers("46.8 points with 32 slices, 3 points and 99 %", all_of_them=False) == {46.8, 3, 99}
    text = "It is 3.5. In our run it is 92.9 %, `0.1` [more](3.5). So 4.5 %.\n\n- As in our run 7 %."
    assert [numbers(each) for each in findings(text)] == [{92.9}, {7}]


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
    assert any(PICTURES & set(output.get("data", {})) for output in outputs)
    for output in outputs:
        assert output.output_type != "error"
        assert not output.get("metadata", {}).get("waiting") and "Not yet:" not in str(output)
        assert output.get("name") != "stderr", output.text
    assert path.stat().st_size < 600_000


@each
def test_nothing_names_the_machine_it_ran_on(path):
    machine = re.compile(r"(?<![\w./])/(?:work|tmp|root|home|Users|opt|var)/|[A-Z]:\\\\")
    for cell in cells_of(path):
        for text in (cell.source, said(cell)):
            assert not machine.search(text), text


@each
def test_cells_are_short_and_the_parameters_are_checked(path):
    """Folded parameters, parameters, and one cell of imports that checks them; no import after it."""
    cells = code_cells(path)
    kinds = [next(iter({"more-parameters", "parameters"} & set(cell.metadata.get("tags", []))), "") for cell in cells]
    position = kinds.index("parameters")
    assert kinds[1 : position + 1] in (["more-parameters", "parameters"], ["parameters"]), "parameters, then imports"
    assert all(cell.metadata.jupyter.source_hidden for cell in tagged(path, "more-parameters")), "not folded"
    assert "check_parameters(globals())" in cells[position + 1].source
    for cell in cells[position + 2 :]:
        later = any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(cell.source)))
        assert not later, f"imports belong into the one cell after the parameters:\n{cell.source}"
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
    "04_cam": ("cam", lambda found: found["localization"]["average precision"]["lung mask"]["value"]),
    "05_evaluation": ("evaluation", lambda found: found["test"]["specificity"]["value"]),
    "06_generalisation": ("generalisation", lambda found: found["shortcut"]["shortcut"]["own hospital"]["value"]),
    "07_testing_heat_maps": (
        "testing_heat_maps",
        lambda found: found["localization"]["IoU at lesion area"]["lung mask"]["value"],
    ),
    "08_fine_tuning": ("fine_tuning", lambda found: found["linear_probe"]),
    "09_many_runs": ("sweep", lambda found: found["auc"]["scratch"]["value"]),
}
MODELS = dict.fromkeys(("00_start", "01_data", "09_many_runs"), set()) | {"02_scratch": {"scratch"}}
MODELS |= dict.fromkeys(("07_testing_heat_maps", "08_fine_tuning"), {"transfer"})


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
    assert MODELS.get(path.stem, {"scratch", "transfer"}) <= made


@pytest.mark.parametrize("layout", ["class folders", "CSV files"])
def test_the_series_runs_on_a_folder_of_ones_own(layout, small, tmp_path):
    """24 patients, two slices each, no masks, sizes mixed; CSV files, each patient with both classes, in 1, 5 and 6."""
    folder = tmp_path / "slices"
    lines = {split: ["filename,label,patient"] for split in ("train", "val", "test")}
    for number in range(24):
        drawn = draw_patient(number, seed=5, image_size=64 + number % 3 * 16, n_slices=2)
        place = f"{'COVID' if drawn.label else 'non-COVID'}/p{number}"
        (folder / place).mkdir(parents=True)
        for i, image in enumerate(drawn.images):
            Image.fromarray(image).save(folder / place / f"{i}.png")
            lines[["train", "train", "val", "test"][number // 2 % 4]].append(f"{place}/{i}.png,{i},p{number}")
    if layout == "CSV files":
        for split, rows in lines.items():
            (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    notebooks = [NOTEBOOKS[i] for i in ((1, 5, 6) if layout == "CSV files" else (2, 3, 4))]
    executed = run(notebooks, small(tmp_path / "run") | {"dataset": str(folder)})
    for path in notebooks:
        for cell in code_cells(executed / path.name):
            assert all(out.get("name") != "stderr" for out in cell.outputs), cell.source
    metrics = read_json(executed / "metrics.json")
    assert {SECTIONS[path.stem][0] for path in notebooks} <= set(metrics)
    assert layout == "class folders" or metrics["data"]["slices"] == 48


def test_an_unknown_parameter_is_an_error_with_plain_papermill_too(tmp_path):
    path, wrong = NOTEBOOKS[1], {"run_dirr": str(tmp_path)}
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
