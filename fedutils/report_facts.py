"""The facts of a report: plain values with a unit and the text that is printed, as JSON in both directions.

Whoever writes the prose, rules or a language model, takes every number, class and side from here.
"""

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field

from fedutils.errors import InputError
from fedutils.model_info import NOT_CLINICAL
from fedutils.results import to_json

KINDS = ("image", "case", "test run", "training", "hospital")
LEVELS = ("low", "moderate", "high")
SIDES = ("left", "right", "midline")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def clean_text(text: str, limit: int = 200) -> str:
    """Return a name that came with the data as one line of printable characters.

    Control characters, line breaks and marks that turn the direction of writing become U+FFFD.

    Parameters
    ----------
    text : str
        A file name, a tag: anything.
    limit : int
        Characters kept; what is cut is marked by an ellipsis.
    """
    kept = "".join(c if c.isprintable() else "\ufffd" for c in str(text))
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


@dataclass(frozen=True)
class Measure:
    """One measured number.

    Attributes
    ----------
    name : str
        Lower-case letters, digits and underscores, such as ``volume_wt``; once in a report.
    value : float
        Finite.
    unit : str
        ``""`` for a share in [0, 1] or a count, else ``ml``, ``mm``, ``voxels``.
    text : str
        How it is printed, such as ``93.1 %``, with its interval where there is one; made by code.
    label : str
        What it is called, such as "volume of the whole tumour"; without it, the name.
    """

    name: str
    value: float
    unit: str
    text: str
    label: str = ""

    def __post_init__(self):
        """Check the values."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            _refuse("measure", "a name of lower-case letters, digits and _", self.name)
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number or not math.isfinite(self.value):
            _refuse(f"measure {self.name}", "a finite number", self.value)
        for key in ("unit", "text", "label"):
            _check_line(f"{key} of {self.name}", getattr(self, key), empty=key != "text")
        if not self.label:
            object.__setattr__(self, "label", self.name.replace("_", " "))


@dataclass(frozen=True)
class NextStep:
    """What to do next, and the document that says so."""

    text: str
    source: str

    def __post_init__(self):
        """Check the values."""
        _check_line("text of a next step", self.text)
        _check_line("source of a next step", self.source)


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the report, and what it shows: the caption, and the text for those who see none."""

    path: str
    caption: str

    def __post_init__(self):
        """Check the values."""
        _check_line("path of a picture", self.path)
        _check_line("caption of a picture", self.caption)
        if not self.path.lower().endswith(".png"):
            _refuse("path of a picture", "a PNG file", self.path)


@dataclass(frozen=True)
class Facts:
    """All that a report may say.

    Attributes
    ----------
    kind : {"image", "case", "test run", "training", "hospital"}
    subject : str
        What it is about: a file name, a case, a run, a hospital. Shown as it is, never believed.
    model : dict
        ``title``, ``architecture``, and further plain values by name: round or epoch, what it was trained on.
    prediction : str or None
        The class of an image, one of `classes`.
    classes : tuple of str
    sides : tuple of {"left", "right", "midline"}
        Those that are facts; empty where none is.
    measures : tuple of Measure
        In the order in which they are shown.
    confidence : {"low", "moderate", "high"}
    confidence_meaning : str
        By which rule, and what follows from it and what not.
    warnings : tuple of str
        Of the quality of what went in.
    next_steps : tuple of NextStep
    pictures : tuple of Picture
    limits : tuple of str
    not_clinical : str

    Raises
    ------
    InputError
        If a value is not as described.
    """

    kind: str
    subject: str
    model: dict
    prediction: str | None = None
    classes: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    confidence: str = "low"
    confidence_meaning: str = ""
    warnings: tuple[str, ...] = ()
    next_steps: tuple[NextStep, ...] = ()
    pictures: tuple[Picture, ...] = ()
    limits: tuple[str, ...] = ()
    not_clinical: str = field(default=NOT_CLINICAL)

    def __post_init__(self):
        """Turn lists into tuples, and check the values."""
        for name, member in _MEMBERS.items():
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(isinstance(v, member) for v in value):
                _refuse(name, f"a list of {member.__name__}", value)
            object.__setattr__(self, name, tuple(value))
            if member is str:
                for line in value:
                    _check_line(name, line)
        for name, allowed in (("kind", KINDS), ("confidence", LEVELS)):
            if getattr(self, name) not in allowed:
                _refuse(name, ", ".join(allowed), getattr(self, name))
        for name in ("subject", "confidence_meaning", "not_clinical"):
            _check_line(name, getattr(self, name), empty=name == "confidence_meaning")
        if odd := set(self.sides) - set(SIDES):
            _refuse("sides", ", ".join(SIDES), min(odd))
        if self.prediction is not None and self.prediction not in self.classes:
            _refuse("prediction", f"one of the classes ({', '.join(self.classes)})", self.prediction)
        names = [measure.name for measure in self.measures]
        if len(set(names)) < len(names):
            _refuse("measures", "each name once", ", ".join(sorted({n for n in names if names.count(n) > 1})))
        if not isinstance(self.model, dict) or not {"title", "architecture"} <= set(self.model):
            _refuse("model", "at least a title and an architecture", self.model)
        try:  # as a file would give it back: plain values, sorted
            object.__setattr__(self, "model", json.loads(to_json(self.model)))
        except (TypeError, ValueError) as error:
            _refuse("model", f"plain, finite values ({error})", self.model)

    def get(self, name: str) -> Measure | None:
        """Return the measure of this name, or None."""
        return next((measure for measure in self.measures if measure.name == name), None)

    def to_json(self) -> str:
        """Return the facts as JSON; the same facts give the same text."""
        return to_json(dataclasses.asdict(self))


_MEMBERS = {
    "classes": str,
    "sides": str,
    "measures": Measure,
    "warnings": str,
    "next_steps": NextStep,
    "pictures": Picture,
    "limits": str,
}
_RECORDS = {name: member for name, member in _MEMBERS.items() if member is not str}


def parse_facts(text: str) -> Facts:
    """Return the facts that `Facts.to_json` wrote.

    Raises
    ------
    InputError
        If it is no such record.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"facts: expected JSON, found: {error}; write them with Facts.to_json") from error
    values = _read(Facts, record)
    for name, member in _RECORDS.items():
        if not isinstance(values.get(name, []), list):
            _refuse(name, "a list", values[name])
        values[name] = tuple(member(**_read(member, entry)) for entry in values.get(name, []))
    return Facts(**values)


def _read(member, record):
    """Return a record that has the fields of a class, those without a default at least."""
    known = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(member)}
    if not isinstance(record, dict):
        _refuse(member.__name__.lower(), "names with values", record)
    required = {name for name, needed in known.items() if needed}
    if odd := (set(record) - set(known)) | (required - set(record)):
        _refuse(member.__name__.lower(), f"the fields {', '.join(known)}", ", ".join(sorted(odd)))
    return dict(record)


def _check_line(name, value, *, empty=False):
    """Refuse what is not one line of printable text."""
    if not isinstance(value, str) or not (value.isprintable() and (value.strip() or empty)):
        _refuse(name, "one line of printable text", value)


def _refuse(name, expected, found):
    shown = repr(found)
    shown = shown if len(shown) <= 200 else shown[:199] + "…"
    raise InputError(f"facts, {name}: expected {expected}, found {shown}; mend the facts")
