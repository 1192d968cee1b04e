"""Whether a language model's prose says nothing that the facts do not: every word, number, class and side.

The model writes no number: it writes placeholders such as ``{accuracy}``, and code puts the measured text
there (`fedutils.prose_inserts`). What else it writes must be words of `fedutils.prose_words`, the
predicted class, and the side and the confidence that the facts hold, in the few phrases that cannot be
misread. Whatever is not allowed is refused: a true sentence may be refused too, a number never passes.

What is not checked: whether allowed words make sense in their order. "The file is the model" passes.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from fedutils.prose_inserts import Insert, find_keywords, make_placeholders, words_of
from fedutils.prose_words import (
    COUNTS,
    OF_STEPS,
    OF_TRAINING,
    ORDERS,
    QUALITIES,
    REGIONS,
    VOCABULARY,
    name_refusal,
)
from fedutils.report_facts import Facts
from fedutils.report_prose import SECTIONS

MAX_SECTION = 1200  # characters
FAULTS = {  # for the reader: these never quote the reply
    "structure": "its sections were not those asked for",
    "length": "a section was empty or too long",
    "character": "it was not plain text",
    "placeholder": "it asked for a value that is not in the facts",
    "measure": "a value stood beside the name of another quantity",
    "number": "it held a number that was not measured",
    "diagnosis": "it named a disease or class that was not predicted",
    "side": "it named a side or place that is not in the facts",
    "judgement": "it judged beyond the facts",
    "advice": "it gave advice beyond the next steps",
    "negation": "it denied something",
    "instruction": "it held an instruction",
    "word": "it used words outside the vocabulary",
    "missing": "it did not name the predicted class",
}
_TOKEN = re.compile(r"\{[a-z][a-z0-9_]*\}|[A-Za-z]+(?:'s(?![A-Za-z]))?|[.,:;()\n -]")
_TUMOUR = {"tumour", "tumor"}
_NO_TUMOUR = {"notumor", "notumour"}
_OF_THE_MODEL = {
    *("model", "network", "classifier", "prediction", "predicted", "predicts", "class", "classification"),
    *("assigned", "assigns", "probability"),
}

_OPENERS = {",", ":", ";", "(", ")", "and", "then", "to", "also"}


@dataclass(frozen=True)
class Fault:
    """One reason to refuse a reply.

    Attributes
    ----------
    kind : str
        A key of `FAULTS`.
    section : str
        Empty where the reply as a whole is meant.
    detail : str
        What was found, in the reply's own words: for the model that is asked again, not for a reader.
    """

    kind: str
    section: str = ""
    detail: str = ""

    def __str__(self) -> str:
        """Return one line for the model."""
        where = f"{self.section}: " if self.section else ""
        return f"{where}{FAULTS[self.kind]} ({self.detail})"


def check_prose(sections: object, facts: Facts) -> list[str]:
    """Return why a reply is refused, a line each; nothing where it is good.

    Parameters
    ----------
    sections : object
        What the model replied: a dictionary of section to text, if it did as it was asked. Placeholders are
        not yet filled.
    facts : Facts

    Returns
    -------
    list of str
        They quote the reply: show them to the model, not to a reader (`find_faults` and `FAULTS` for that).
    """
    return [str(fault) for fault in find_faults(sections, facts)]


def find_faults(sections: object, facts: Facts) -> list[Fault]:
    """Return the faults of a reply; see `check_prose`."""
    if not isinstance(sections, dict) or set(sections) != set(SECTIONS):
        found = ", ".join(sorted(map(str, sections)))[:200] if isinstance(sections, dict) else "no object"
        return [Fault("structure", detail=f"expected {', '.join(SECTIONS)}, found {found}")]
    inserts = make_placeholders(facts)
    faults = []
    for name in SECTIONS:
        text = sections[name]
        if not isinstance(text, str):
            faults.append(Fault("structure", name, "expected a text"))
            continue
        faults += [
            Fault(kind, name, detail) for kind, detail in _check_section(name, text.strip(), facts, inserts)
        ]
    name_pattern = re.escape((facts.prediction or "").lower())
    predicted = "(?:notumou?r|no tumou?r)" if facts.prediction in _NO_TUMOUR else name_pattern
    if predicted and not faults and not re.search(rf"(?<!\w){predicted}(?!\w)", sections["finding"].lower()):
        faults.append(Fault("missing", "finding", f"expected {facts.prediction}"))
    return faults


def _check_section(name: str, text: str, facts: Facts, inserts: dict[str, Insert]):
    if not text or len(text) > MAX_SECTION:
        yield "length", f"expected 1 to {MAX_SECTION} characters, found {len(text)}"
        return
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            numeric = text[position].isnumeric()
            yield "number" if numeric else "character", f"found {text[position : position + 12]!r}"
            return
        tokens.append(match[0])
        position = match.end()
    if fault := _check_joints(tokens, inserts):
        yield fault
    sentences = [[]]
    for token in tokens:
        known = inserts.get(token[1:-1]) if token[0] == "{" else None
        if token in ".\n" or (known and known.kind == "sentence"):
            sentences.append([])
        elif known or token[0].isalpha() or token in ",:;()":
            sentences[-1].append(token if known else token.lower().removesuffix("'s"))
    if facts.prediction in _NO_TUMOUR:
        sentences = [_join_no_tumour(sentence, facts.prediction) for sentence in sentences]
    for sentence in sentences:
        yield from _check_words(sentence, facts)
        yield from _check_orders(sentence, name)
        yield from _check_measures(sentence, facts, inserts)


def _join_no_tumour(sentence: list[str], name: str) -> list[str]:
    """Return a sentence in which "no tumour" is the name of that class."""
    joined = []
    for token in sentence:
        if token in _TUMOUR and joined[-1:] == ["no"]:
            joined[-1] = name
        else:
            joined.append(token)
    return joined


def _check_joints(tokens: list[str], inserts: dict[str, Insert]):
    """Return a fault of how words, signs and placeholders follow one another."""
    padded = ["\n", *tokens, "\n"]
    words = [token for token in tokens if token[0].isalpha() or token[0] == "{"]
    for before, token, after in zip(padded, tokens, padded[2:], strict=False):
        around = before + token + after
        if token[0] == "{":
            insert = inserts.get(token[1:-1])
            if insert is None:
                return "placeholder", f"no such placeholder: {token}"
            if before[-1] not in " \n(" or after[0] not in " \n.,;:)":
                return "placeholder", f"{token} must stand by itself"
        apart = token == "-" and not (before[0].isalpha() and after[0].isalpha())
        if apart or (token in ".,:;" and after[0] not in " \n)"):
            return "character", f"found {around!r}"
    signs = [token for token in padded if token != " "]
    for before, token, after in zip(signs, signs[1:], signs[2:], strict=False):
        if token[0] == "{" and inserts[token[1:-1]].kind == "sentence":
            ended = before in ".\n:" or (before[0] == "{" and inserts[before[1:-1]].kind == "sentence")
            if not ended or not (after in ".\n" or after[0] == "{" or after[0].isupper()):
                return "placeholder", f"{token} is a sentence of its own: put it after a full stop"
    for first, second in pairwise(words):
        if first.lower() == second.lower():
            return "word", f"{first} {second}"
    return None


def _allowed_phrases(facts: Facts) -> list[str]:
    """Return patterns of the phrases in which guarded words may stand, over lower-case words."""
    phrases = ["not for clinical use", "not a diagnosis", "no diagnosis", "longest (?:axial )?diameters?"]
    phrases += [] if facts.warnings else ["no (?:quality )?warnings?"]
    if facts.confidence:
        of_model = r"(?: (?:of|in) (?:the|this) (?:model|network|prediction|result))?"
        stated = "(?: (?:stated|given|reported|described|expressed) as)?"
        phrases += [
            f"{facts.confidence} confidence(?! interval)",
            f"confidence{of_model} (?:is|was){stated} {facts.confidence}",
        ]
    for side in {"left", "right"} & set(facts.sides):  # the left of a picture is the right of the head
        phrases.append(f"{side} hemisphere(?! (?:of|in|on) (?:the|this|that|an?) (?!brain|head))")
    phrases += ["midline"] if "midline" in facts.sides else []
    return [*phrases, "(?:the|this|its|model) confidence", "^confidence"]  # "with confidence" would judge


def list_words(facts: Facts) -> set[str]:
    """Return the words that the prose of these facts may be made of, but for classes and set phrases."""
    words = VOCABULARY | find_keywords(facts)
    words |= OF_TRAINING if facts.kind not in ("image", "case") else set()
    return words - {name.lower() for name in facts.classes}


def _check_words(sentence: list[str], facts: Facts):
    line = " ".join(sentence)
    predicted = (facts.prediction or "").lower()
    classes = {name.lower() for name in facts.classes} | {predicted}
    for phrase in _allowed_phrases(facts):
        line = re.sub(rf"(?<![\w-]){phrase}(?![\w-])", "|", line)
    words = re.findall(r"(?<![{\w])[a-z]+(?![\w}])", line)
    of_measures = {token for name in re.findall(r"\{(\w+)\}", line) for token in name.split("_")}
    known = list_words(facts)
    tumour = _TUMOUR - (_TUMOUR if predicted in _NO_TUMOUR else set())
    for word in words:
        if word in classes or word in tumour:
            if word in classes and word != predicted and (predicted or word not in of_measures):
                yield "diagnosis", f"the class {word}"
            elif predicted and not _OF_THE_MODEL & set(words):
                yield "diagnosis", f"say of {word} that the model predicted it"
        elif word not in known:
            yield name_refusal(word), f"the word {word}"


def _check_orders(sentence: list[str], section: str):
    """Find what may be read as advice: orders, and next steps in the model's own words."""
    words = [token for token in sentence if token[0].isalpha()]
    if section == "next_steps" or {"step", "steps", "next"} & set(words):
        for word in sorted(set(words) - OF_STEPS):
            yield "advice", f"the word {word} about next steps"
    for before, word in pairwise([",", *sentence]):
        if before in _OPENERS and word in ORDERS:
            yield "advice", f"{word} may be read as an order"


def _check_measures(sentence: list[str], facts: Facts, inserts: dict[str, Insert]):
    """Find values beside the name of another quantity, region or class: names come before their values."""
    names = {m.name: set(m.name.split("_")) for m in facts.measures}
    parts = set().union(*names.values()) if names else set()
    regions = parts & REGIONS
    silent = regions if len(regions) == 1 else set()  # the only region need not be named
    group_of = {part: part for part in parts | QUALITIES}  # of a group, the latest word counts
    group_of |= dict.fromkeys(QUALITIES, "quality") | dict.fromkeys(REGIONS, "region")
    group_of |= dict.fromkeys((name.lower() for name in facts.classes), "class")
    latest, recent, own = {}, set(), None  # words by group; those since the last value; parts of its name
    for token in [*sentence, ""]:
        if token and token[0] != "{":
            for part, group in group_of.items():
                if token in words_of(part):
                    latest[group] = token
                    recent.add(token)
            continue
        if token and inserts[token[1:-1]].kind != "measure":
            continue
        own = names[token[1:-1]] if token else own
        if own is None:  # no value in this sentence
            return
        named = {word for part in own | COUNTS for word in words_of(part)}
        for word in sorted(recent - named):
            yield "measure", f"{word} beside {token or 'a value before it'}"
        for part in sorted(own - silent) if token else ():
            if latest.get(group_of[part]) not in words_of(part):
                yield "measure", f"name the {' or '.join(words_of(part)) or part} before {token}"
        recent = set()
