"""Exercises: starters miss, solutions pass, each usual mistake gets its own hint; progress and handouts stay whole."""

import ast
import re
import sys

import nbformat
import numpy as np
import pytest
from exercise_answers import RIGHT, WRONG

from covid_course import handout
from covid_course.exercises import checks
from covid_course.exercises.grading import grade as grade_by
from covid_course.notebooks import find_notebooks
from covid_utils.core.files import PROJECT, read_json

NOTEBOOKS = {path.stem[:2]: nbformat.read(path, 4) for path in find_notebooks()}
CALL = re.compile(r'^check\("([^"]+)", (\w+)\)$', re.MULTILINE)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


STARTERS = {
    CALL.search(cell.source)[1]: (number, cell.source)
    for number, notebook in NOTEBOOKS.items()
    for cell in tagged(notebook, "exercise")
}


def grade(name: str, answer, misses: int = 0) -> tuple[str, str]:
    return grade_by(checks.GRADERS[name], checks.COMMON | checks.EXERCISES[name]["hints"], answer, misses)


def answer(number: str, source: str):
    """What a starter or solution cell hands to its check, with nothing of the notebook but its imports before it."""
    names, handed = {}, []
    for cell in NOTEBOOKS[number].cells:
        if cell.cell_type == "code":
            imports = [line for line in ast.parse(cell.source).body if isinstance(line, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), "imports", "exec"), names)
    names["check"] = lambda name, value: handed.append(value)
    exec(source, names)
    return handed[0]


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What was displayed, (plain text, HTML), in a home of its own."""
    boxes = []
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))
    monkeypatch.setattr(checks, "display", lambda data, **_: boxes.append((data["text/plain"], data["text/html"])))
    return boxes


def test_every_exercise_has_texts_for_all_its_mistakes_and_three_wrong_answers():
    folder = PROJECT / "covid_course" / "exercises"
    assert set(checks.GRADERS) == set(checks.EXERCISES) == set(RIGHT) == set(WRONG) == set(STARTERS)
    assert all(len(kinds) >= 3 for kinds in WRONG.values())
    for number, said in checks.TEXTS.items():
        (code,) = folder.glob(f"nb{number}_*.py")
        kinds = {kind for exercise in said["exercises"].values() for kind in exercise["hints"]}
        assert all(f'"{kind}"' in code.read_text(encoding="utf-8") for kind in kinds - {"untried", "wrong"}), number
        titles = [*said["predictions"].values(), *(exercise["title"] for exercise in said["exercises"].values())]
        assert max(map(len, titles)) <= 40  # with "predict: " before it what a table shows in full
        for exercise in said["exercises"].values():
            assert all(len(hints) == 2 and all(hints) for hints in exercise["hints"].values())


@pytest.mark.parametrize("name", STARTERS)
def test_a_starter_misses_its_solution_and_another_right_answer_pass(name):
    number, starter = STARTERS[name]
    kind, hint = grade(name, answer(number, starter))
    assert kind == "untried" and len(hint) > 40, (kind, hint)
    solved = tagged(handout.teachers_copy(NOTEBOOKS[number]), "exercise")
    (cell,) = [each for each in solved if f'"{name}"' in each.source]
    for right in (answer(number, cell.source), RIGHT[name]):
        kind, text = grade(name, right)
        assert kind == "" and text, text


@pytest.mark.parametrize("name,kind", [(name, kind) for name, kinds in WRONG.items() for kind in kinds])
def test_a_usual_mistake_gets_the_hint_meant_for_it(name, kind):
    found, hint = grade(name, WRONG[name][kind], misses=1)
    assert found == kind and "{" not in hint.replace("{{", ""), hint


@pytest.mark.parametrize("number", sorted(set(NOTEBOOKS) - {"00"}))
def test_each_notebook_asks_its_own_exercises_in_their_order(number):
    asked = [name for name, (where, _) in STARTERS.items() if where == number]
    assert asked == list(checks.TEXTS[number]["exercises"])
    code = "\n".join(cell.source for cell in NOTEBOOKS[number].cells if cell.cell_type == "code")
    for name in checks.TEXTS[number]["predictions"]:
        assert code.index(f'predict_first("{name}"') < code.index(f'you_said("{name}"')


def test_what_goes_wrong_in_an_answer_is_a_sentence():
    def broken(table, seed):
        return table["patients"]

    def interrupted(table, seed):
        raise KeyboardInterrupt

    kind, text = grade("split", broken)
    assert kind == "stopped" and "KeyError" in text and 'table["patients"]' in text and "\n" not in text
    assert "`.astype(float)` before" in grade("paired", lambda right_a, right_b, _: right_b - right_a)[1]
    for wrong, kind in ((3, "function"), (lambda *_: None, "nothing"), (..., "untried"), (interrupted, "endless")):
        assert grade("split", wrong)[0] == kind
    assert "SystemExit" in grade("split", lambda table, seed: sys.exit(3))[1]
    for odd in (lambda *given: object(), lambda *given: "text", lambda *given: [[1], [1, 2]], lambda *given: np.nan):
        for name in checks.EXERCISES:
            kind, text = grade(name, odd)
            assert kind and text, name


def test_check_says_in_words_what_its_colour_says_and_remembers(shown, tmp_path):
    def stored():
        return read_json(tmp_path / checks.FILE)["exercises"]["hits"]

    answers = [WRONG["hits"]["energy"], WRONG["hits"]["threshold"], lambda maps, lesions: ..., RIGHT["hits"]]
    for each in answers:  # the third is the starter again: no wrong answer
        checks.check("hits", each)
    (first, red), (second, code), (untried, _), (right, green) = shown
    assert first.startswith("Not yet:") and "argmax" not in first and "<code>argmax</code>" in code
    assert untried.startswith("Exercise:") and right.startswith("Right.")
    assert checks.ORANGE in red and "<strong>Not yet:" in red and checks.GREEN in green and "<strong>Right." in green
    row = stored()
    assert row["misses"] == 0 and len(row["passed"]) == 10
    checks.check("hits", answers[0])
    assert stored() == {"misses": 1, "passed": row["passed"]}  # what was passed stays so
    checks.show("Not yet:", "a < b", checks.ORANGE)
    assert "a &lt; b" in shown[-1][1]
    with pytest.raises(ValueError, match="did you mean 'hits'"):
        checks.check("hit", 1)


def test_a_starter_leaves_no_trace(shown, tmp_path):
    checks.check("hits", lambda maps, lesions: ...)
    checks.predict_first("nearest neighbour, random split", ...)
    assert checks.my_progress("01") is None
    assert [plain.split()[0] for plain, _ in shown] == ["Exercise:", "Predict:", "Progress:"]
    assert not (tmp_path / checks.FILE).exists()


@pytest.mark.parametrize(
    ("name", "guess", "value", "unit", "words"),
    [
        ("nearest neighbour, random split", ..., 62.0, " %", ["Measured:", "62 %"]),
        ("COVID slices", [1, 2, 7], np.array([2, 7, 9, 11]), "", ["1, 2, 7", "2, 7, 9, 11"]),
        ("slices for two points", 200, 1960, "", ["200", "1960"]),
    ],
)
def test_a_prediction_is_shown_next_to_the_result(shown, name, guess, value, unit, words):
    checks.predict_first(name, guess)
    checks.you_said(name, value, unit)
    assert all(word in shown[-1][0] for word in words), shown[-1][0]
    with pytest.raises(ValueError, match="nearest neighbour, random split"):
        checks.predict_first("nearest neighbour random split", 1)


def test_my_progress_lists_what_was_done(shown):
    checks.check("hits", WRONG["hits"]["energy"])
    checks.check("sign", RIGHT["sign"])
    checks.predict_first("sum of cells", "logit")
    table = checks.my_progress("04").set_index("exercise").done
    assert table[checks.EXERCISES["hits"]["title"]] == "missed 1 times so far"
    assert table[checks.EXERCISES["sign"]["title"]].startswith("passed, 20")
    assert table["predict: what locations and bias add up to"] == "you said logit"
    assert (table == "open").sum() == len(table) - 3
    assert set(checks.my_progress().index) == set(checks.TEXTS)
    with pytest.raises(ValueError, match="no notebook '4'"):
        checks.my_progress("4")


@pytest.mark.parametrize("content", ["{", "[]", '{"exercises": {"hits": 3}, "predictions": {}}', "\x00\x80", "{}"])
def test_a_damaged_file_of_progress_is_put_aside(shown, tmp_path, content):
    path = tmp_path / checks.FILE
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    checks.check("sign", RIGHT["sign"])
    assert "damaged" in shown[-1][0] and shown[-1][0].startswith("Right.")
    assert path.with_name("progress.damaged.json").read_text(encoding="latin-1") == content
    assert read_json(path)["exercises"]["sign"]["passed"]


def test_handouts_for_learners_and_teachers(tmp_path):
    handout.write_handouts(tmp_path)
    for path in find_notebooks():
        source = nbformat.read(path, 4)
        learner, teacher = (nbformat.read(tmp_path / who / path.name, 4) for who in ("learner", "teacher"))
        hidden = [handout.CODE.search(cell.source) for cell in tagged(source, "solution")]
        lines = {line for cell in learner.cells for line in cell.source.splitlines()}
        given = {line for cell in tagged(source, "exercise") for line in cell.source.splitlines()}
        assert not tagged(learner, "solution")
        for code in filter(None, hidden):
            written = set(code[1].splitlines()) - given
            assert written and not written & lines
        assert not any(cell.get("outputs") for cell in [*learner.cells, *teacher.cells])
        assert len(tagged(learner, "exercise")) == len(tagged(teacher, "exercise")) == sum(map(bool, hidden))
        for cell in tagged(teacher, "exercise"):
            assert "..." not in cell.source and len(CALL.findall(cell.source)) == 1
        for target in re.findall(r"\]\((\.\./[^)#]+)", "\n".join(lines)):
            assert (PROJECT / "build" / "handout" / "learner" / target).resolve().exists(), target
