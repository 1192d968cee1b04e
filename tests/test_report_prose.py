"""What the rules write from facts, word for word."""

import pytest
from test_report import CASE, MODEL, make_facts, measure

from fedutils.errors import InputError
from fedutils.model_info import NOT_CLINICAL
from fedutils.report import SECTIONS, Prose, compose
from fedutils.report_facts import Measure


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        (
            make_facts(),
            "The model assigns this image to the class glioma, with a probability of 87.5 %. "
            "This is no diagnosis.",
        ),
        (
            make_facts(prediction="notumor"),
            "The model assigns this image to the class notumor, no tumour, with a probability of 12.5 %. "
            "This rules none out.",
        ),
        (
            make_facts(prediction=None, measures=()),
            "The model assigns this image to none of its classes.",
        ),
        (
            make_facts("case", measures=CASE, sides=("left",)),
            "The model outlined 34.2 ml as tumour, in the left hemisphere by its centre of mass. "
            "This is no diagnosis.",
        ),
        (
            make_facts(
                "case", measures=(CASE[0], Measure("share_beyond", 0.25, "", "25.0 %")), sides=("right",)
            ),
            "The model outlined 34.2 ml as tumour, in the right hemisphere by its centre of mass; 25.0 % of "
            "it lies on the other side of the midline. This is no diagnosis.",
        ),
        (
            make_facts(
                "case", measures=(CASE[0], Measure("share_beyond", 0.4, "", "40.0 %")), sides=("midline",)
            ),
            "The model outlined 34.2 ml as tumour, at the midline by its centre of mass. "
            "This is no diagnosis.",
        ),
        (
            make_facts("case", measures=measure(("volume_wt", 0, "0.0 ml", "volume"))),
            "The model outlined no tumour. This rules none out.",
        ),
        (
            make_facts(
                "test run", measures=measure(("images", 773, "773", ""), ("accuracy", 0.9, "90.0 %", ""))
            ),
            "The model was tested on 773 images: accuracy 90.0 %.",
        ),
        (
            make_facts("test run", measures=measure(("cases", 1, "1", ""), ("dice", 0.9, "0.900", ""))),
            "The model was tested on 1 case: Dice 0.900.",
        ),
        (
            make_facts(
                "training",
                model=MODEL | {"chosen_by": "validation accuracy"},
                measures=measure(
                    ("rounds_planned", 20, "20", ""),
                    ("rounds_done", 18, "18", ""),
                    ("round_chosen", 17, "17", ""),
                    ("validation_accuracy", 0.8, "80.0 %", "validation accuracy of the chosen round"),
                ),
            ),
            "18 of 20 planned rounds were done; round 17 was chosen by validation accuracy. Validation "
            "accuracy of the chosen round: 80.0 %.",
        ),
        (
            make_facts(
                "hospital",
                measures=measure(
                    ("images_trained", 1304, "1,304", ""),
                    ("share", 0.237, "23.7 %", ""),
                    ("images", 50, "50", ""),
                    ("accuracy", 0.8, "80.0 %", ""),
                    ("global_accuracy", 0.9, "90.0 %", ""),
                    ("difference", -0.1, "-10.0 points", ""),
                ),
            ),
            "This hospital trains on 1,304 images, 23.7 % of all. On 50 images of its own, the global model "
            "shows: accuracy 80.0 %; on those of all hospitals: accuracy 90.0 %; the difference is -10.0 "
            "points.",
        ),
    ],
)
def test_findings_in_words(facts, finding):
    prose = compose(facts)
    assert prose.sections["finding"] == finding and prose.author == "rules" and prose.reason is None
    assert tuple(prose.sections) == SECTIONS


def test_the_other_sections_say_all_that_the_facts_do():
    facts = make_facts(warnings=("Small.", "Dark."))
    told = compose(facts).sections
    assert told["confidence"] == "Confidence is moderate. By the probability."
    assert told["measurements"] == "Probability of glioma: 87.5 %; probability of notumor: 12.5 %."
    assert told["quality"] == "Small.\nDark." and told["next_steps"] == "A radiologist reads it.\nWait."
    assert told["limits"].splitlines() == ["The model: Classes of slices (CNN).", "Few images.", NOT_CLINICAL]
    bare = compose(make_facts(measures=(), next_steps=())).sections
    assert bare["quality"] == "The checks of what went in gave no warning."
    assert bare["measurements"] == "Nothing was measured." and "None" in bare["next_steps"]


@pytest.mark.parametrize("sections", [{}, None, {"finding": "x"}, dict.fromkeys(SECTIONS, " "), "text"])
def test_prose_without_its_sections_is_refused(sections):
    with pytest.raises(InputError, match="prose: expected a text for each of finding, confidence, "):
        Prose(sections)
