"""The check of a language model's prose: hundreds of replies that must not pass, and some that must."""

import re
import unicodedata

import numpy as np
import pytest
from adversarial_replies import GOOD, make_bad, make_facts, make_good

from fedutils import prose_words
from fedutils.prose_check import FAULTS, MAX_SECTION, check_prose, find_faults
from fedutils.prose_inserts import fill_prose, make_placeholders, quote_name, words_of
from fedutils.prose_words import KEYWORDS, OF_TRAINING, VOCABULARY, name_refusal
from fedutils.report_facts import Measure
from fedutils.report_prose import SECTIONS
from fedutils.report_runs import build_hospital_facts, build_test_facts

BAD_REPLIES = make_bad()
GOOD_REPLIES = [(name, i) for name in GOOD for i in range(max(map(len, GOOD[name].values())) * 2)]


def check(text, section="finding", facts=None, name="image"):
    """Return the kinds of fault of a good reply in which one section is `text`."""
    faults = find_faults(make_good(name) | {section: text}, facts or make_facts(name))
    return {fault.kind for fault in faults}


# ---- replies by the hundred


def test_there_are_enough_replies_and_no_two_are_alike():
    distinct = {(name, repr(reply)) for _, _, name, reply in BAD_REPLIES}
    assert len(distinct) >= 350
    assert len({family for family, *_ in BAD_REPLIES}) >= 30
    assert {kind for _, kind, *_ in BAD_REPLIES} == set(FAULTS)
    assert len({repr(make_good(name, i)) for name, i in GOOD_REPLIES}) >= 30


@pytest.mark.parametrize(("name", "index"), GOOD_REPLIES)
def test_a_good_reply_passes(name, index):
    assert check_prose(make_good(name, index), make_facts(name)) == []


def test_no_bad_reply_passes_and_each_is_refused_for_what_it_is():
    passed, otherwise = [], []
    for family, kind, name, reply in BAD_REPLIES:
        kinds = {fault.kind for fault in find_faults(reply, make_facts(name))}
        passed += [] if kinds else [(family, reply)]
        otherwise += [] if kind in kinds else [(family, kind, kinds, reply)]
    assert passed == [] and otherwise == []


def test_a_word_that_no_list_names_is_refused_all_the_same(monkeypatch):
    """Nothing rests on the lists of numbers, diseases and so on: they only give a reason a name."""
    monkeypatch.setattr(prose_words, "_LISTS", {})
    assert all(check_prose(reply, make_facts(name)) for _, _, name, reply in BAD_REPLIES)


def test_random_sentences_of_foreign_words_and_signs_never_pass():
    """Any word or sign that the facts do not allow, put anywhere in any good reply."""
    rng = np.random.default_rng(3)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    tried = 0
    for name, index in GOOD_REPLIES * 4:
        facts, reply = make_facts(name), make_good(name, index)
        allowed = VOCABULARY | OF_TRAINING | {w for words in KEYWORDS.values() for w in words}
        word = "".join(rng.choice(letters, rng.integers(2, 9)))
        sign = chr(rng.integers(0x21, 0x2FFF))
        for odd in (word, sign):
            if odd in allowed | {"tumour", "tumor", *facts.classes} or odd in "().,:;-'":
                continue
            section = SECTIONS[rng.integers(len(SECTIONS))]
            text = reply[section]
            at = rng.choice([i for i, c in enumerate(text) if c == " "] or [len(text)])
            assert check_prose(reply | {section: f"{text[:at]} {odd}{text[at:]}"}, facts), (
                odd,
                section,
                text,
            )
            tried += 1
    assert tried > 300


def test_every_digit_of_a_filled_reply_stands_in_the_facts():
    """Independent of the checker: what is printed holds no numeral but those that the facts hold."""
    for name, index in GOOD_REPLIES:
        facts = make_facts(name)
        known = facts.to_json()
        for text in fill_prose(make_good(name, index), facts).values():
            assert "{" not in text
            for number in re.findall(r"\d[\d.,]*\d|\d", text):
                assert number in known


# ---- one rule after another


def test_the_lists_of_refused_words_share_none_with_the_vocabulary():
    for kind, words in prose_words._LISTS.items():
        assert not words & (VOCABULARY | OF_TRAINING), kind
        assert {name_refusal(word) for word in words - {"cm"}} <= set(prose_words._LISTS)
    assert {name_refusal(word) for word in VOCABULARY} == {"word"}


@pytest.mark.parametrize(
    ("word", "kind"),
    [("xiv", "number"), ("seventyfive", "number"), ("fibroma", "diagnosis"), ("lobectomy", "diagnosis"),
     ("encephalitis", "diagnosis"), ("qwertz", "word"), ("mix", "number")],
)  # fmt: skip
def test_a_refused_word_is_named_by_its_shape(word, kind):
    assert name_refusal(word) == kind


def test_every_number_of_unicode_is_refused():
    numerals = [chr(c) for c in range(0x110000) if chr(c).isnumeric()]
    assert len(numerals) > 1500
    assert all(check(f"The model predicted glioma {c}.") == {"number"} for c in numerals[::10])
    assert unicodedata.numeric("½") == 0.5 and check("The model predicted glioma, ½.") == {"number"}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("The model predicted glioma.", set()),
        ("The predicted class of {subject} is glioma (by {model}).", set()),
        ("The tumour is glioma by the model's prediction.", set()),
        ("The model predicted glioma. A tumour is in the brain.", {"diagnosis"}),  # whose claim?
        ("The model predicted a class. The scan shows glioma.", {"diagnosis"}),
        ("The model predicted glioma. {disclaimer} The brain has glioma.", {"diagnosis"}),
        ("The model predicted glioma and {disclaimer}", {"placeholder"}),
        ("The model predicted glioma {subject}{model}.", {"placeholder"}),
        ("The model predicted glioma in the hospital.", {"word"}),  # whose? the facts are of an image
    ],
)
def test_a_class_is_what_the_model_predicted(text, kinds):
    assert check(text) == kinds


def test_a_class_may_be_written_in_capitals():
    facts = make_facts("image", classes=("Glioma", "Other"), prediction="Glioma", measures=())
    assert check("The model predicted glioma.", "finding", facts) == {
        "placeholder"
    }  # of the good reply's value
    reply = make_good("image") | {"measurements": "The probability is here."}
    assert check_prose(reply, facts) == []
    assert check_prose(reply | {"finding": "The model predicted other."}, facts)


def test_without_a_tumour_only_its_absence_may_be_said():
    assert check("The model predicted no tumour.", name="healthy") == set()
    assert check("The model predicted no tumor for {subject}.", name="healthy") == set()
    assert check("The scan shows no tumour.", name="healthy") == {"diagnosis"}  # the model predicted it
    assert check("The model predicted no tumour. The tumour is shown.", name="healthy") == {"diagnosis"}
    assert check("The model predicted no glioma.", name="healthy") == {"negation", "diagnosis"}
    assert check("The model predicted no tumour for this image.") == {"negation"}


@pytest.mark.parametrize("side", ["left", "right", "midline"])
def test_a_side_must_be_a_fact(side):
    text = (
        "The region is at the midline." if side == "midline" else f"The region is in the {side} hemisphere."
    )
    for facts_side in ((), ("left",), ("right",), ("midline",), ("left", "right")):
        kinds = check(text, facts=make_facts("case", sides=facts_side), name="case")
        assert kinds == (set() if side in facts_side else {"side"})


@pytest.mark.parametrize("of_facts", ["low", "moderate", "high"])
@pytest.mark.parametrize("told", ["low", "moderate", "high"])
def test_a_confidence_must_be_that_of_the_facts(of_facts, told):
    facts = make_facts("image", confidence=of_facts)
    for text in (f"The prediction has {told} confidence.", f"The confidence of the model is {told}."):
        faults = find_faults(make_good("image") | {"confidence": text}, facts)
        assert {fault.kind for fault in faults} == (set() if told == of_facts else {"judgement"})


def test_warnings_may_be_denied_only_where_there_are_none():
    text = "No quality warnings were reported."
    assert check(text, "quality") == {"negation"}
    assert check(text, "quality", make_facts("image", warnings=())) == set()


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("The whole tumour has a volume of {volume_wt}, and a diameter of {diameter_wt}.", True),
        ("The volume of the whole tumour is {volume_wt}, that of the core {volume_tc}.", True),
        ("The volume of the whole tumour is {volume_wt}, that of the core {volume_wt}.", False),
        ("The core has a volume of {volume_tc} and a diameter of {diameter_wt}.", False),
        ("The core has a volume of {volume_tc}. Its diameter is {diameter_tc}.", False),  # name it again
        ("The volume is {volume_wt} for the whole tumour.", False),  # names come before values
        ("The whole tumour has a volume of {volume_wt} in the left hemisphere.", True),
        ("The volume of the whole tumour is {volume_wt}, the accuracy.", False),
    ],
)
def test_a_value_stands_behind_its_own_name(text, good):
    assert check(text, "measurements", name="case") == (set() if good else {"measure"})


def test_the_only_region_need_not_be_named():
    facts = make_facts("case", measures=(Measure("volume_wt", 61.5, "ml", "61.5 ml"),))
    assert check("The volume of the tumour is {volume_wt}.", "measurements", facts, "case") == set()
    assert check("The accuracy is {volume_wt}.", "measurements", facts, "case") == {"measure"}


def test_a_measure_that_no_word_names_is_not_offered():
    facts = make_facts(
        "image", measures=(Measure("accuracy_low", 0.9, "", "90 %"), Measure("x1", 1, "", "1"))
    )
    assert not {"accuracy_low", "x1"} & set(make_placeholders(facts))
    assert check("The accuracy is {accuracy_low}.", "measurements", facts) == {"placeholder"}


def test_every_measure_that_reports_hold_can_be_named():
    """So that none of them is withheld from the model; the names are those of the builders."""
    record = dict.fromkeys(("accuracy", "precision", "recall", "f1", "auc", "ece"), 0.5) | {"n": 9}
    model = {"title": "A model", "architecture": "CNN"}
    regions = {f"dice_{region}": 0.5 for region in ("wt", "tc", "et")}
    cases = {"n": 9, "dice": 0.5, "sensitivity": 0.5, "specificity": 0.5, "hd95_mm": 4.0} | regions
    of_hospital = build_hospital_facts(model, "B", record, record, num_images=9, share=0.1)
    reply = dict.fromkeys(SECTIONS, "The report is here.")
    for facts in (build_test_facts(model, "x", record), build_test_facts(model, "x", cases), of_hospital):
        inserts = make_placeholders(facts)
        assert [m.name for m in facts.measures if m.name not in inserts] == []
        for m in facts.measures:
            words = " ".join(words_of(part)[0] for part in m.name.split("_"))
            assert check_prose(reply | {"measurements": f"The {words} is {{{m.name}}}."}, facts) == []


def test_a_measure_cannot_take_the_place_of_a_sentence():
    facts = make_facts("image", measures=(Measure("disclaimer", 1, "", "1"),))
    assert make_placeholders(facts)["disclaimer"].text.startswith("Not for clinical use")


@pytest.mark.parametrize("length", [MAX_SECTION, MAX_SECTION + 1])
def test_a_section_has_a_length(length):
    text = ("The model predicted glioma here. " * 99)[:length].strip()
    text = text[:-1].rpartition(" ")[0].ljust(length - 1, " ") + "."
    assert ("length" in check(text)) == (length > MAX_SECTION)


def test_a_section_must_be_there_once_as_a_text():
    good = make_good("image")
    for reply in (good | {"more": "x"}, {}, [], "text", None, {k: good[k] for k in SECTIONS[1:]}):
        (line,) = check_prose(reply, make_facts("image"))
        assert line.startswith("its sections were not those asked for (expected finding")


def test_reasons_quote_for_the_model():
    (line,) = check_prose(
        make_good("image") | {"quality": "{warning_1} The scan is blurred."}, make_facts("image")
    )
    assert line == "quality: it used words outside the vocabulary (the word blurred)"


# ---- what code puts in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png", "“a.png”"),
        ("a\r\nb\tc", "“a\ufffd\ufffdb\ufffdc”"),
        ("a\x1b[31mred\x00\u202egnp", "“a\ufffd[31mred\ufffd\ufffdgnp”"),
        ("“quoted” \"twice\"", "“quoted twice”"),
        ("x" * 200, "“" + "x" * 79 + "…”"),
        ("José", "“José”"),
        ("", "“”"),
    ],
)  # fmt: skip
def test_a_name_is_one_line_in_quotes(text, expected):
    assert quote_name(text) == expected


def test_values_are_put_in_once_and_never_read_as_placeholders():
    facts = make_facts("image", subject="{p_glioma}.png")
    filled = fill_prose(make_good("image") | {"quality": "A warning: {warning_1}."}, facts)
    assert filled["finding"] == "The model predicted glioma for “{p_glioma}.png”."
    assert filled["quality"] == "A warning: The picture is small: 90 x 80 pixels."  # one full stop
    assert tuple(filled) == tuple(SECTIONS)
