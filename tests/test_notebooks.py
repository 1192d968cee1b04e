"""The rules of the course: what every notebook must and must not hold."""

import ast
import re

import nbformat
import pytest

from fedutils.profiles import list_notebooks, read_parameters

NOTEBOOKS = list_notebooks()


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_the_course_is_there():
    numbers = [p.stem[:2] for p in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)  # later chapters may be there before those between
    assert numbers[:7] == [f"{i:02d}" for i in range(7)]


def test_no_outputs_are_kept(notebook):
    for cell in code(notebook[1]):
        assert not cell.outputs and cell.execution_count is None


def test_it_opens_with_a_title_a_question_goals_and_the_time(notebook):
    path, book = notebook
    first = book.cells[0].source
    assert first.startswith(f"# {path.stem[:2]} · ")
    assert "**Question.**" in first and re.search(r"\n\*.*two cores.*\*", first)
    assert 3 <= len(re.findall(r"^\d\. ", first, re.MULTILINE)) <= 5


def test_parameters_are_typed_literals_with_a_comment(notebook):
    path, book = notebook
    assert "profile" in read_parameters(path)
    cell = next(c for c in code(book) if "parameters" in c.metadata.get("tags", []))
    assert cell is code(book)[0]
    for line, node in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
        ast.literal_eval(node.value)
        assert re.search(r"  # \S", line), line


def test_it_is_short_enough_to_read(notebook):
    _, book = notebook
    assert len(book.cells) <= 40
    for cell in code(book)[:-1]:
        assert len(cell.source.splitlines()) <= 30


def test_it_has_an_exercise_with_a_solution_and_saves_its_result_last(notebook):
    path, book = notebook
    assert any("Exercise" in cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert any(cell.source.startswith("# Solution") for cell in code(book))
    assert f'save_result(\n    "{path.stem}"' in code(book)[-1].source


def test_no_shell_no_path_no_network(notebook):
    for cell in code(notebook[1]):
        assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE)
        assert not re.search(r"""["'](/|~)\w|https?://""", cell.source)
