"""The keys of one section of a YAML file: their types, defaults and ranges, and the check against them."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from fedutils.errors import InputError


@dataclass(frozen=True)
class Key:
    """One key: its type ([int] is a list of int), the value if it is left out, and its range."""

    kind: object
    default: object = None
    within: Callable = lambda value: True
    words: str = ""
    required: bool = False


def number(kind, default=None, *, least=None, above=None, below=None, required=False) -> Key:
    """Return the rule of a number, or of a list of such ([int]), and of its range."""
    limits = [
        words
        for words, limit in ((f"from {least}", least), (f"above {above}", above), (f"below {below}", below))
        if limit is not None
    ]

    def within(value):
        return all(
            (least is None or v >= least) and (above is None or v > above) and (below is None or v < below)
            for v in (value if isinstance(value, list) else [value])
        )

    return Key(kind, default, within, " ".join(limits), required)


def choice(default, *names, required=False) -> Key:
    """Return the rule of a text that is one of some names."""
    return Key(str, default, lambda value: value in names, f"one of {', '.join(names)}", required)


def fill(content, table: dict[str, Key], where: str) -> dict:
    """Check the keys and values of one section, and fill in what was left out.

    Parameters
    ----------
    content : object
        What was read; expected to be a dict.
    table : dict of str to Key
    where : str
        File and section, for the message.

    Raises
    ------
    InputError
        If a key is unknown (the nearest known one is named) or missing, or a value has the wrong type or is
        out of range.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected keys and values, found {content!r}; mend it")
    for key in content:
        if key not in table:
            near = difflib.get_close_matches(str(key), table, 1, cutoff=0)
            raise InputError(
                f"{where}: expected one of {', '.join(table)}, found the key {key!r}; did you mean "
                f"{near[0]!r}?"
            )
    filled = {}
    for key, rule in table.items():
        value = content.get(key)
        if value is None:
            if rule.required:
                raise InputError(f"{where}: expected the key {key!r}, found none; add it")
            filled[key] = rule.default
            continue
        if not _matches(value, rule.kind) or not rule.within(value):
            words = f"{_name(rule.kind)} {rule.words}".strip()
            raise InputError(
                f"{where}: {key}: expected {words}, found {value!r} ({type(value).__name__}); mend it"
            )
        filled[key] = float(value) if rule.kind is float else value
    return filled


def _matches(value, kind) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(_matches(v, kind[0]) for v in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _name(kind) -> str:
    if isinstance(kind, list):
        return f"a list of {_name(kind[0])}"
    return {dict: "keys and values", str: "a text", bool: "true or false"}.get(kind, kind.__name__)
