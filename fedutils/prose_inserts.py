"""What code puts into a language model's prose: measured values, names, and the sentences of the facts."""

import re
from dataclasses import dataclass

from fedutils.prose_words import KEYWORDS, name_refusal
from fedutils.report_facts import Facts, clean_text
from fedutils.report_prose import SECTIONS

MAX_LABEL = 80  # characters of a name that came with the data


@dataclass(frozen=True)
class Insert:
    """What code puts at a placeholder.

    Attributes
    ----------
    text : str
    kind : {"measure", "label", "sentence"}
        A sentence stands alone, between full stops.
    """

    text: str
    kind: str


def quote_name(text: str, limit: int = MAX_LABEL) -> str:
    """Return a name that came with the data, on one line in “quotes”, which it cannot hold itself."""
    bare = "".join(c for c in text if c not in '“”„‟"')
    return f"“{clean_text(bare.strip(), limit)}”"


def make_placeholders(facts: Facts) -> dict[str, Insert]:
    """Return what each placeholder stands for: the measures, the names, and the sentences of the facts."""
    others = {name.lower() for name in facts.classes if facts.prediction and name != facts.prediction}
    inserts = {m.name: Insert(m.text, "measure") for m in facts.measures if _can_be_named(m.name, others)}
    inserts |= {"subject": Insert(quote_name(facts.subject), "label")}
    inserts |= {"model": Insert(quote_name(str(facts.model.get("title", "")), 200), "label")}
    sentences = {
        "warning": facts.warnings,
        "step": [step.text for step in facts.next_steps],
        "limit": facts.limits,
    }
    for name, texts in sentences.items():
        inserts |= {f"{name}_{i}": Insert(_as_sentence(t), "sentence") for i, t in enumerate(texts, 1)}
    inserts["meaning"] = Insert(_as_sentence(facts.confidence_meaning), "sentence")
    inserts["disclaimer"] = Insert(_as_sentence(facts.not_clinical), "sentence")
    return {name: insert for name, insert in inserts.items() if insert.text}


def _as_sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?" else f"{text}."


def _can_be_named(name: str, others: set[str]) -> bool:
    """Return whether prose may say which measure it is, so that its value cannot pass for another's.

    Parameters
    ----------
    name : str
    others : set of str
        Classes that were not predicted, which prose does not name.
    """
    return all(words_of(part) and part not in others for part in name.split("_"))


def words_of(part: str) -> tuple[str, ...]:
    """Return the words that name a part of a measure's name; none where no allowed word does."""
    if part in KEYWORDS:
        return KEYWORDS[part]
    return (part,) if part.isalpha() and name_refusal(part) in ("word", "diagnosis") else ()


def find_keywords(facts: Facts) -> set[str]:
    """Return the words that name the measures of the facts."""
    return {word for m in facts.measures for part in m.name.split("_") for word in words_of(part)}


def fill_prose(sections: dict[str, str], facts: Facts) -> dict[str, str]:
    """Return the sections of a reply that passed, with what each placeholder stands for."""
    inserts = make_placeholders(facts)

    def put(match):
        insert = inserts[match[1]]
        return insert.text + ("" if insert.kind == "sentence" else match[2])

    return {name: re.sub(r"\{(\w+)\}(\.?)", put, sections[name].strip()) for name in SECTIONS}
