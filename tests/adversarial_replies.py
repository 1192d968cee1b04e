"""Replies of a language model that must not pass, and some that must: data for the tests of the checker.

The sentences are in ``adversarial_replies.json``. Each family of ``bad`` is one way to say what the facts do
not hold, with the kind of fault it is: a bad reply is a good one with one section replaced. Those of
``seeded`` put their word at a random place of a good one.
"""

import json
from pathlib import Path

import numpy as np

from fedutils.report_facts import Facts, Measure, NextStep
from fedutils.report_prose import SECTIONS

_DATA = json.loads(Path(__file__).with_suffix(".json").read_text())
GOOD, BAD, SEEDED = _DATA["good"], _DATA["bad"], _DATA["seeded"]
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
_COMMON = {
    "model": {"title": "Separable CNN on brain MRI", "architecture": "separable CNN"},
    "confidence": "low",
    "confidence_meaning": "The calibrated probability is below 60 %.",
    "warnings": ("The picture is small: 90 x 80 pixels.",),
    "next_steps": (NextStep("A radiologist reads the images.", "a guideline"),),
    "limits": ("Trained on one public data set.",),
    "not_clinical": "Not for clinical use: nothing here has been validated on patients.",
    "pictures": (),
}


def make_facts(name, **changes):
    """Return the facts of an image with a glioma, one without a tumour, a case, a run or a hospital."""
    of = {
        "image": {
            "kind": "image",
            "subject": "scan_7.png",
            "prediction": "glioma",
            "classes": CLASSES,
            "sides": (),
            "measures": _measures(p_glioma="48.2 %", p_meningioma="31.0 %"),
        },
        "healthy": {
            "kind": "image",
            "subject": "scan_8.png",
            "prediction": "notumor",
            "classes": CLASSES,
            "sides": (),
            "measures": _measures(p_notumor="57.0 %"),
        },
        "case": {
            "kind": "case",
            "subject": "BraTS20_Training_133",
            "prediction": None,
            "classes": ("WT", "TC", "ET"),
            "sides": ("left",),
            "confidence": "high",
            "warnings": (),
            "measures": _measures(
                volume_wt="61.5 ml",
                volume_tc="20.0 ml",
                volume_et="9.1 ml",
                diameter_wt="71 mm",
                diameter_tc="40 mm",
            ),
        },
        "test run": {
            "kind": "test run",
            "subject": "Testing",
            "prediction": None,
            "classes": CLASSES,
            "sides": (),
            "measures": _measures(
                accuracy="95.3 %", recall_glioma="91.2 %", recall_pituitary="98.0 %", images="773"
            ),
        },
        "training": {
            "kind": "training",
            "subject": "FedAvg over 5 hospitals, seed 0",
            "measures": _measures(
                rounds_planned="20",
                rounds_done="18",
                round_chosen="17",
                validation_accuracy="88.4 %",
                validation_loss="0.31",
            ),
        },
        "hospital": {
            "kind": "hospital",
            "subject": "Hospital B",
            "measures": _measures(
                images_trained="812",
                share="21.3 %",
                accuracy="81.0 %",
                global_accuracy="84.5 %",
                difference="-3.5 points",
            ),
        },
    }[name]
    return Facts(**(_COMMON | of | changes))


def _measures(**texts):
    return tuple(
        Measure(name, float(text.split()[0]), text.partition(" ")[2], text) for name, text in texts.items()
    )


def make_good(name, index=0):
    """Return a good reply: the variant `index` of each section, counted round."""
    return {section: GOOD[name][section][index % len(GOOD[name][section])] for section in SECTIONS}


def make_bad():
    """Return (family, kind of fault, facts' name, reply) of every reply that must not pass."""
    rows = []
    for family, of in BAD.items():
        for i, text in enumerate(of["texts"]):
            reply = make_good(of["facts"], i) | {of["section"]: text}
            rows.append((family, of["kind"], of["facts"], reply))
    rng = np.random.default_rng(7)
    for family, of in SEEDED.items():
        for i, word in enumerate(of["words"]):
            name = list(GOOD)[i % len(GOOD)]
            reply = make_good(name, i)
            section = SECTIONS[rng.integers(len(SECTIONS))]
            parts = reply[section].split(" ")
            parts.insert(rng.integers(len(parts)), word)
            rows.append((f"seeded {family}", of["kind"], name, reply | {section: " ".join(parts)}))
    return rows + [("structure", "structure", "image", reply) for reply in _make_misshapen()]


def _make_misshapen():
    good = make_good("image")
    for section in SECTIONS:
        yield {key: text for key, text in good.items() if key != section}
        yield good | {section: [good[section]]}
        yield good | {section: {"text": good[section]}}
        yield good | {section: None}
    yield from (
        good | {"diagnosis": "Glioma."},
        good | {"": ""},
        good | {"Finding": "x"},
        {},
        [],
        None,
        "text",
        7,
    )
