"""What happened in a federation and when: the hospitals' journals and the server's log on one clock."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Something that took time: what, whose, and from when to when, in seconds from the begin."""

    lane: str
    what: str
    begin: float
    end: float
    good: bool = True


@dataclass(frozen=True)
class Mark:
    """Something that happened at a moment, in seconds from the begin; `version` of the server's model."""

    lane: str
    what: str
    time: float
    version: int = 0


def read_spans(journals: dict[str, Iterable[dict]], begin: str) -> list[Span]:
    """Return what hospitals have done.

    Parameters
    ----------
    journals : dict of str to list of dict
        By hospital, see `fedutils.hospital.workspace.Workspace.read_journal`.
    begin : str
        Time 0, as in the journals.
    """
    return [
        Span(lane, e["action"], _since(begin, e["begin"]), _since(begin, e["end"]), e["good"])
        for lane, entries in journals.items()
        for e in entries
    ]


def read_marks(log: Iterable[dict], begin: str) -> list[Mark]:
    """Return what a server has logged: submissions, means, refusals, and connections that were turned away.

    Parameters
    ----------
    log : list of dict
        See `fedutils.hospital.state.read_log`.
    begin : str
        Time 0, as in the log.
    """
    events = ("submitted", "aggregated", "refused", "turned away")
    return [
        Mark(e["who"], e["event"], _since(begin, e["time"]), e["version"])
        for e in log
        if e["event"] in events
    ]


def _since(begin: str, time: str) -> float:
    parse = datetime.datetime.fromisoformat
    return (parse(time) - parse(begin)).total_seconds()
