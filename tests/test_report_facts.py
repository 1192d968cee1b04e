"""The facts of reports: checked, and as JSON both ways; how numbers are printed."""

import dataclasses
import json

import pytest

from fedutils.errors import InputError
from fedutils.model_info import NOT_CLINICAL
from fedutils.report_facts import Facts, Measure, NextStep, Picture, clean_text, parse_facts
from fedutils.report_rules import format_share, format_size

MODEL = {"title": "Classes", "architecture": "CNN"}


def make_facts(**changes):
    values = {
        "kind": "image",
        "subject": "scan.png",
        "model": MODEL,
        "prediction": "glioma",
        "classes": ("glioma", "notumor"),
        "measures": (Measure("p_glioma", 0.97, "", "97.0 %"), Measure("p_notumor", 0.03, "", "3.0 %")),
        "confidence": "high",
        "confidence_meaning": "By the probability.",
        "warnings": ("Small.",),
        "next_steps": (NextStep("Read it.", "A guideline"),),
        "pictures": (Picture("scan.png", "The scan"),),
        "limits": ("Few images.",),
    }
    return Facts(**(values | changes))


def test_facts_as_json_and_back():
    facts = make_facts(sides=("left",), model=MODEL | {"round": 7, "trained_on": {"images": 12}})
    text = facts.to_json()
    assert parse_facts(text) == facts and parse_facts(text).to_json() == text
    assert json.loads(text)["measures"][0] == {
        "name": "p_glioma",
        "value": 0.97,
        "unit": "",
        "text": "97.0 %",
        "label": "p glioma",
    }
    assert facts.get("p_notumor").value == 0.03 and facts.get("accuracy") is None
    assert facts.not_clinical == NOT_CLINICAL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "letter"}, "kind: expected image, case, test run, training, hospital, found 'letter'"),
        ({"confidence": "sure"}, "confidence: expected low, moderate, high, found 'sure'"),
        ({"subject": "two\nlines"}, "subject: expected one line of printable text"),
        ({"subject": ""}, "subject: expected one line"),
        ({"sides": ("top",)}, "sides: expected left, right, midline, found 'top'"),
        ({"sides": "left"}, "sides: expected a list of str"),
        ({"prediction": "pituitary"}, "prediction: expected one of the classes (glioma, notumor)"),
        ({"measures": (Measure("a", 1, "", "1"), Measure("a", 2, "", "2"))}, "each name once, found 'a'"),
        ({"measures": ({"name": "a"},)}, "measures: expected a list of Measure"),
        ({"warnings": ("\u202etricky",)}, "warnings: expected one line of printable text"),
        ({"model": {"title": "x"}}, "model: expected at least a title and an architecture"),
        ({"model": MODEL | {"loss": float("nan")}}, "model: expected plain, finite values"),
    ],
)
def test_facts_that_are_refused(changes, words):
    with pytest.raises(InputError) as caught:
        make_facts(**changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Measure("Dice", 1, "", "1"), "a name of lower-case letters"),
        (lambda: Measure("dice", float("inf"), "", "1"), "measure dice: expected a finite number"),
        (lambda: Measure("dice", True, "", "1"), "measure dice: expected a finite number"),
        (lambda: Measure("dice", 1, "", ""), "text of dice: expected one line"),
        (lambda: NextStep("Read it.", " "), "source of a next step: expected one line"),
        (lambda: Picture("scan.jpg", "The scan"), "path of a picture: expected a PNG file"),
        (lambda: parse_facts("[]"), "facts, facts: expected names with values"),
        (lambda: parse_facts("{"), "facts: expected JSON, found: "),
        (lambda: parse_facts('{"kind": "image"}'), "found 'model, subject'"),
        (
            lambda: parse_facts(make_facts().to_json().replace('"unit"', '"units"')),
            "facts, measure: expected the fields name, value, unit, text, label, found 'unit, units'",
        ),
        (
            lambda: parse_facts(json.dumps(dataclasses.asdict(make_facts()) | {"pictures": 3})),
            "pictures: expected a list",
        ),
    ],
)
def test_records_that_are_refused(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_names_from_outside_become_one_printable_line():
    assert clean_text("a\nb\x1b[31m\u202etxt.exe") == "a\ufffdb\ufffd[31m\ufffdtxt.exe"
    assert clean_text("\udcff.png") == "\ufffd.png"  # a file name that is no UTF-8
    assert clean_text("x" * 300, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0 %"),
        (0.0004, "less than 0.1 %"),
        (0.0005, "0.1 %"),
        (0.931, "93.1 %"),
        (0.99949, "99.9 %"),
        (0.9995, "more than 99.9 %"),
        (1, "100.0 %"),
    ],
)
def test_a_share_is_never_printed_as_all_or_nothing_if_it_is_not(value, text):
    assert format_share(value) == text


def test_sizes_in_words():
    assert format_size(12.44, "ml") == "12.4 ml" and format_size(0.02, "ml") == "less than 0.1 ml"
    assert format_size(1234.0, "voxels") == "1,234 voxels" and format_size(1, "voxels") == "1 voxel"
    assert format_size(0, "ml") == "0.0 ml" and format_size(7.2, "mm") == "7.2 mm"
