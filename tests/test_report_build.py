"""Facts built from what was measured: probabilities, volumes, metrics, runs; and what confidence means."""

import dataclasses

import numpy as np
import pytest

from fedutils.data.brain_mri import CLASSES
from fedutils.data.regions import REGIONS
from fedutils.errors import InputError
from fedutils.metrics import compute_classification_metrics
from fedutils.model_info import ModelInfo
from fedutils.report_build import build_case_facts, build_image_facts
from fedutils.report_facts import Measure, parse_facts
from fedutils.report_rules import judge_interval, judge_overlap, list_next_steps
from fedutils.report_runs import build_hospital_facts, build_test_facts, build_training_facts
from fedutils.runs import Run

MODEL = {"title": "Classes", "architecture": "CNN"}


def make_info(task="classification", **changes):
    values = {
        "title": "Classes of slices",
        "task": task,
        "architecture": "CNN",
        "outputs": CLASSES if task == "classification" else REGIONS,
        "modalities": ("grey",) if task == "classification" else ("flair",),
        "size": (16, 16),
        "preprocessing": "grey" if task == "classification" else "slices",
        "temperature": 1.5,
        "limits": ("Few images.",),
    }
    return ModelInfo(**(values | changes))


@pytest.mark.parametrize(
    ("largest", "temperature", "warnings", "level"),
    [
        (0.95, 1.5, (), "high"),
        (0.9499, 1.5, (), "moderate"),
        (0.80, 1.5, (), "moderate"),
        (0.7999, 1.5, (), "low"),
        (0.99, 1.0, (), "moderate"),  # not calibrated
        (0.99, 1.5, ("Small.",), "moderate"),
        (0.85, 1.5, ("Small.",), "low"),
    ],
)
def test_confidence_of_an_image(largest, temperature, warnings, level):
    rest = (1 - largest) / 3
    facts = build_image_facts(
        make_info(temperature=temperature), "a.png", [rest, rest, rest, largest], warnings=warnings
    )
    assert facts.confidence == level and facts.prediction == CLASSES[3]
    assert "high from 95 %, moderate from 80 %" in facts.confidence_meaning
    assert ("not calibrated" in facts.confidence_meaning) == (temperature == 1)
    assert ("a step lower" in facts.confidence_meaning) == bool(warnings)


def test_facts_of_an_image_by_hand():
    facts = build_image_facts(make_info(), "x\n.png", [0.1, 0.2, 0.65, 0.05], model={"file": "m.keras"})
    assert [m.name for m in facts.measures] == [f"p_{CLASSES[i]}" for i in (2, 1, 0, 3)]
    assert facts.measures[0] == Measure(f"p_{CLASSES[2]}", 0.65, "", "65.0 %", f"probability of {CLASSES[2]}")
    assert facts.subject == "x\ufffd.png" and facts.sides == () and facts.kind == "image"
    assert facts.model["file"] == "m.keras" and facts.model["temperature"] == 1.5
    assert facts.limits[0].startswith("The model knows 4 classes") and facts.limits[-1] == "Few images."
    assert parse_facts(facts.to_json()) == facts


def test_next_steps_name_their_sources():
    for prediction, words in (("glioma", "NG99"), ("meningioma", "noab150"), ("pituitary", "jc.2010-1048")):
        steps = list_next_steps("image", prediction)
        assert "radiologist" in steps[0].text and any(words in step.source for step in steps)
    assert len(list_next_steps("image", "notumor")) == 1
    for kind in ("case", "test run", "training", "hospital"):
        assert all(step.source for step in list_next_steps(kind))


def test_facts_of_a_case_by_hand():
    # 10 x 6 x 4 voxels of 1 x 2 x 3 mm: 240 of 6 mm³, at x 40 to 49 in a head whose middle is 29.5.
    found = np.zeros((60, 50, 20, 3), bool)
    found[40:50, 20:26, 8:12, 0] = True
    found[40:44, 20:22, 8:10, 1] = True
    head = np.zeros((60, 50, 20), bool)
    head[5:55, 5:45, 2:18] = True
    info = make_info("segmentation", metrics={"dice_wt": [0.80, 0.7, 0.9]})
    facts = build_case_facts(info, "case 1", found, spacing=(1, 2, 3), head=head)
    values = {m.name: (pytest.approx(m.value), m.unit, m.text) for m in facts.measures}
    # From the front of one corner to the back of the other: 9 columns and 6 rows apart, 9 x 1 and 6 x 2 mm.
    longest = np.hypot(9, 12)
    assert values == {
        "volume_wt": (1.44, "ml", "1.4 ml"),
        "diameter_wt": (longest, "mm", "15.0 mm"),
        "volume_tc": (0.096, "ml", "0.1 ml"),
        "diameter_tc": (np.hypot(3, 4), "mm", "5.0 mm"),
        "volume_et": (0, "ml", "0.0 ml"),
        "share_beyond": (0, "", "0.0 %"),
    }
    assert facts.sides == ("right",) and facts.confidence == "moderate" and facts.prediction is None
    assert "The model's is 0.80." in facts.confidence_meaning
    unplaced = build_case_facts(info, "case 1", found)
    assert unplaced.sides == () and unplaced.get("volume_wt").text == "240 voxels"
    assert unplaced.get("diameter_wt").value == pytest.approx(np.hypot(10, 5))
    empty = build_case_facts(info, "case 1", np.zeros_like(found), head=head)
    assert empty.sides == () and [m.value for m in empty.measures] == [0, 0, 0]


@pytest.mark.parametrize(
    ("dice", "doubts", "level"),
    [
        (0.85, 0, "high"),
        (0.849, 0, "moderate"),
        (0.74, 0, "moderate"),
        (0.73, 0, "low"),
        (None, 0, "low"),
        (0.9, 2, "moderate"),
        (0.8, 1, "low"),
        (0.5, 1, "low"),
    ],
)
def test_confidence_of_a_case(dice, doubts, level):
    assert judge_overlap(dice, doubts)[0] == level


@pytest.mark.parametrize(
    ("interval", "level"),
    [
        ((0.90, 0.95), "high"),
        ((0.9, 0.951), "moderate"),
        ((0.8, 0.9), "moderate"),
        ((0.8, 0.91), "low"),
        (None, "low"),
    ],
)
def test_confidence_of_a_number(interval, level):
    assert judge_interval(interval, "accuracy")[0] == level


def test_facts_of_a_test_run():
    record = {"n": 773, "skipped": 2, "accuracy": 0.95, "accuracy_low": 0.93, "accuracy_high": 0.97}
    record |= {"f1": 0.9, "auc": None, "n_glioma": 3}
    facts = build_test_facts(make_info(), "public test images", record)
    assert facts.get("images").text == "773" and facts.get("auc") is None
    assert facts.get("accuracy").text == "95.0 % (95 % interval 93.0 to 97.0 %)"
    assert facts.get("f1").text == "90.0 %" and facts.confidence == "high" and facts.classes == CLASSES
    assert facts.warnings == ("2 could not be read and are not counted.",)
    cases = {"n": 4, "dice": 0.7, "dice_low": 0.6, "dice_high": 0.8, "dice_wt": 0.75, "hd95_mm": 8.25}
    cases |= {"accuracy": 0.99}  # of voxels: says nothing
    facts = build_test_facts(MODEL, "cases", cases)
    assert facts.get("dice").text == "0.700 (95 % interval 0.600 to 0.800)" and facts.get("accuracy") is None
    assert facts.get("dice_wt").label == "Dice of the whole tumour" and facts.get("cases").value == 4
    assert facts.get("distance").text == "8.2 mm" and facts.confidence == "low" and facts.classes == ()


def test_a_test_run_takes_the_record_of_the_metrics_too():
    labels = np.repeat([0, 1], 10)
    logits = np.eye(2)[np.r_[labels[:-1], 0]] * 5.0  # one of 20 is wrong
    record = compute_classification_metrics(labels, logits, ("a", "b"))
    accuracy = build_test_facts(MODEL, "x", record).get("accuracy")
    low, high = record["intervals"]["accuracy"]
    assert accuracy.value == 0.95 and accuracy.text == (
        f"95.0 % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )
    stored = {"n": 20, "accuracy": 0.95, "accuracy_interval": [0.8, 1.0]}  # of a result file
    text = build_test_facts(MODEL, "x", stored).get("accuracy").text
    assert text == "95.0 % (95 % interval 80.0 to 100.0 %)"


def test_facts_after_training():
    run = Run(planned=5, choose_by="accuracy")
    for accuracy, loss in ((0.5, 1.2), (0.8, 0.61234), (0.7, 0.9)):
        run.record({"validation_accuracy": accuracy, "validation_loss": loss, "loss": 3.0}, [])
    facts = build_training_facts(MODEL, "FedAvg", run)
    assert {m.name: m.text for m in facts.measures} == {
        "rounds_planned": "5",
        "rounds_done": "3",
        "round_chosen": "2",
        "validation_accuracy": "80.0 %",
        "validation_loss": "0.6123",
    }
    assert facts.confidence == "low" and facts.warnings == ("3 of 5 planned rounds were done.",)
    whole = build_training_facts(MODEL, "central", dataclasses.replace(run, planned=3), unit="epoch")
    assert whole.confidence == "moderate" and whole.get("epoch_chosen").value == 2 and not whole.warnings
    assert whole.model["chosen_by"] == "validation accuracy"


def test_facts_of_a_hospital():
    own = {"n": 50, "accuracy": 0.80, "accuracy_low": 0.7, "accuracy_high": 0.9}
    everyone = {"n": 400, "accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.93}
    facts = build_hospital_facts(MODEL, "hospital 2", own, everyone, num_images=1304, share=0.237)
    texts = {m.name: m.text for m in facts.measures}
    assert texts == {
        "images_trained": "1,304",
        "share": "23.7 %",
        "images": "50",
        "accuracy": "80.0 % (95 % interval 70.0 to 90.0 %)",
        "global_images": "400",
        "global_accuracy": "90.0 % (95 % interval 87.0 to 93.0 %)",
        "difference": "-10.0 points",
    }
    assert facts.confidence == "low" and facts.get("difference").value == pytest.approx(-0.1)
    assert parse_facts(facts.to_json()) == facts


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: build_image_facts(make_info(), "a", [1, 0]), "probabilities: expected 4 of a classifier"),
        (lambda: build_image_facts(make_info(), "a", [0.9, 0.2, 0, 0]), "shares that add up to 1"),
        (lambda: build_image_facts(make_info(), "a", [np.nan] * 4), "shares that add up to 1"),
        (lambda: build_case_facts(make_info("segmentation"), "a", np.zeros((2, 3, 4))), "(X, Y, Z, 3)"),
        (lambda: build_case_facts(make_info(), "a", np.zeros((2, 3, 4, 4))), "of a model for classification"),
        (lambda: build_test_facts(MODEL, "a", {"accuracy": 1.0}), "record: expected a count n above 0"),
        (lambda: build_test_facts(MODEL, "a", {"n": 3, "loss": 1.0}), "record: expected one of accuracy"),
        (lambda: build_training_facts(MODEL, "a", Run(3)), "run: expected a round that was done, found none"),
        (
            lambda: build_hospital_facts(MODEL, "a", {"n": 1}, {"n": 1}, num_images=1, share=1.2),
            "share: expected a number from 0 to 1, found 1.2",
        ),
    ],
)
def test_what_cannot_be_reported(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)
