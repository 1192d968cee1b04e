"""The prose of a report, and the rules that write it from the facts alone."""

from dataclasses import dataclass

from fedutils.errors import InputError
from fedutils.report_facts import Facts

SECTIONS = ("finding", "confidence", "measurements", "quality", "next_steps", "limits")
_CROSSES = 0.1  # share of the volume beyond the midline from which the finding names it


@dataclass(frozen=True)
class Prose:
    """The words of a report.

    Attributes
    ----------
    sections : dict of str to str
        One text each of `SECTIONS`; a line is a paragraph.
    author : str
        ``rules``, or ``language model NAME``.
    reason : str, optional
        Why the rules wrote it although a language model was asked.
    """

    sections: dict[str, str]
    author: str = "rules"
    reason: str | None = None

    def __post_init__(self):
        """Check that there is a text for every section."""
        texts = self.sections if isinstance(self.sections, dict) else {}
        if set(texts) != set(SECTIONS) or not all(isinstance(t, str) and t.strip() for t in texts.values()):
            raise InputError(
                f"prose: expected a text for each of {', '.join(SECTIONS)}, found "
                f"{', '.join(map(str, texts)) or 'none'}; use fedutils.report.compose"
            )


def compose(facts: Facts) -> Prose:
    """Write the prose of a report by rules, from the facts alone."""
    measured = "; ".join(f"{measure.label}: {measure.text}" for measure in facts.measures)
    quality = "\n".join(facts.warnings) or "The checks of what went in gave no warning."
    model = f"The model: {facts.model['title']} ({facts.model['architecture']})."
    texts = {
        "finding": _FINDINGS[facts.kind](facts),
        "confidence": f"Confidence is {facts.confidence}. {facts.confidence_meaning}".strip(),
        "measurements": f"{measured[:1].upper()}{measured[1:]}." if measured else "Nothing was measured.",
        "quality": quality,
        "next_steps": "\n".join(step.text for step in facts.next_steps) or "None beyond those of the limits.",
        "limits": "\n".join([model, *facts.limits, facts.not_clinical]),
    }
    return Prose(texts)


def _find_in_image(facts: Facts) -> str:
    probability = facts.get(f"p_{facts.prediction}")
    told = f", with a probability of {probability.text}" if probability else ""
    if facts.prediction is None:
        return "The model assigns this image to none of its classes."
    if facts.prediction == "notumor":
        return f"The model assigns this image to the class notumor, no tumour{told}. This rules none out."
    return f"The model assigns this image to the class {facts.prediction}{told}. This is no diagnosis."


def _find_in_case(facts: Facts) -> str:
    whole = facts.get("volume_wt")
    if whole is None or not whole.value:
        return "The model outlined no tumour. This rules none out."
    places = {"midline": "at the midline", **{s: f"in the {s} hemisphere" for s in ("left", "right")}}
    place = ", ".join(places[side] for side in facts.sides)
    text = f"The model outlined {whole.text} as tumour"
    text += f", {place} by its centre of mass" if place else ""
    beyond = facts.get("share_beyond")
    if beyond and beyond.value >= _CROSSES and "midline" not in facts.sides:
        text += f"; {beyond.text} of it lies on the other side of the midline"
    return f"{text}. This is no diagnosis."


def _find_in_test(facts: Facts) -> str:
    return f"The model was tested on {_count_tested(facts)}: {_name_quality(facts)}."


def _find_in_training(facts: Facts) -> str:
    unit = "round" if facts.get("rounds_done") else "epoch"
    planned, done, chosen = (facts.get(f"{unit}{end}") for end in ("s_planned", "s_done", "_chosen"))
    if not (planned and done and chosen):
        return "Training is over."
    text = f"{done.text} of {planned.text} planned {unit}s were done; {unit} {chosen.text} was chosen"
    text += f" by {facts.model['chosen_by']}" if "chosen_by" in facts.model else ""
    validated = [m for m in facts.measures if m.name.startswith("validation_")]
    return ". ".join([text, *(f"{m.label[:1].upper()}{m.label[1:]}: {m.text}" for m in validated)]) + "."


def _find_in_hospital(facts: Facts) -> str:
    images, share, difference = map(facts.get, ("images_trained", "share", "difference"))
    text = f"This hospital trains on {images.text} images, {share.text} of all. " if images and share else ""
    text += f"On {_count_tested(facts)} of its own, the global model shows: {_name_quality(facts)}"
    text += f"; on those of all hospitals: {_name_quality(facts, 'global_')}"
    return text + (f"; the difference is {difference.text}." if difference else ".")


def _count_tested(facts: Facts) -> str:
    count, many = facts.get("images"), "image"
    if count is None:
        count, many = facts.get("cases"), "case"
    if count is None:
        return "images that it did not count"
    return f"{count.text} {many}" + ("" if count.value == 1 else "s")


def _name_quality(facts: Facts, prefix: str = "") -> str:
    for name, label in (("accuracy", "accuracy"), ("dice", "Dice")):
        if measure := facts.get(prefix + name):
            return f"{label} {measure.text}"
    return "no accuracy that could be measured"


_FINDINGS = {
    "image": _find_in_image,
    "case": _find_in_case,
    "test run": _find_in_test,
    "training": _find_in_training,
    "hospital": _find_in_hospital,
}
