"""Notebook 14's writers, on facts that one run of it does not meet: each side, and no tumour."""

import nbformat
import pytest
from adversarial_replies import CLASSES, make_facts

from fedutils import paths
from fedutils.prose_check import find_faults


def run_cells(scope, *names):
    """Run cells of the notebook by their ids."""
    book = nbformat.read(paths.NOTEBOOKS / "14_reports.ipynb", as_version=4)
    sources = {cell.id: cell.source for cell in book.cells}
    for name in names:
        exec(compile(sources[name], f"14_reports, {name}", "exec"), scope)
    return scope


@pytest.fixture(
    params=[(), ("left",), ("right",), ("midline",)], ids=lambda sides: " ".join(sides) or "unknown"
)
def sides(request):
    return request.param


@pytest.mark.parametrize("image", ["image", "healthy"])
def test_the_good_writer_passes_and_the_others_do_not(image, sides):
    moments = {name: make_facts(name) for name in ("test run", "training", "hospital")}
    moments |= {"image": make_facts(image), "case": make_facts("case", sides=sides)}
    scope = {"CLASSES": CLASSES, "image_facts": moments["image"], "case_facts": moments["case"]}
    scope = run_cells(scope, "14-18", "14-21")
    for facts in moments.values():
        assert find_faults(scope["write_well"](facts), facts) == []
    assert len(scope["BAD"]) > 15
    for writer, moment, section, text in scope["BAD"]:
        facts = moments[moment]
        good = scope["write_well"](facts)
        assert section in good and moment in moments
        faults = find_faults(good | {section: text}, facts)
        assert bool(faults) == (writer != "babbler"), text


def test_the_solution_holds(capsys):
    facts = make_facts("image")
    scope = {"CLASSES": CLASSES, "image_facts": facts, "find_faults": find_faults}
    scope["good"] = run_cells(scope, "14-18")["write_well"](facts)
    run_cells(scope, "14-29")
    assert "the word healthy" in capsys.readouterr().out
