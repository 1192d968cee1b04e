"""Figures of a federation over a network, in the manner of `fedutils.plots`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from fedutils.hospital.timeline import Mark, Span
from fedutils.plots import COLOURS, _axis

_ACTIONS = {"get": COLOURS[4], "train": COLOURS[0], "send": COLOURS[2], "wait": "0.85", "up": "0.7"}
# Shape, colour and size; those of a failure are large.
_MARKS = {
    "submitted": ("^", COLOURS[2], 36),
    "refused": ("X", COLOURS[5], 44),
    "turned away": ("P", COLOURS[3], 64),
    "killed": ("*", "black", 110),
}
_WORDS = {"up": "server is up", "submitted": "stored by the server", "killed": "killed (SIGKILL)"}


def plot_timeline(
    spans: Sequence[Span],
    marks: Sequence[Mark],
    lanes: Sequence[str],
    ax: Axes | None = None,
    *,
    between: tuple[float, float] | None = None,
    legend: bool = True,
) -> Axes:
    """Draw who did what when: a lane each, bars for what took time, marks for what happened.

    Parameters
    ----------
    spans : sequence of Span
        Whose ``what`` is get, train, send, wait or up.
    marks : sequence of Mark
        Of the lanes; ``aggregated`` is a line through all of them, with the new version on top.
    lanes : sequence of str
        From top to bottom.
    ax : Axes, optional
    between : (float, float), optional
        The seconds that are shown; all by default.
    legend : bool
    """
    ax = _axis(ax, figsize=(7.2, 0.9 + 0.45 * len(lanes)))
    rows = {lane: row for row, lane in enumerate(lanes)}
    ends = [span.end for span in spans] + [mark.time for mark in marks]
    first, last = between or (0.0, 1.03 * max(ends, default=1.0))
    for span in spans:
        ax.barh(
            rows[span.lane],
            span.end - span.begin,
            left=span.begin,
            height=0.5,
            color=_ACTIONS[span.what],
            edgecolor="white",
            linewidth=0.4,
            zorder=2,
        )
    for mark in (mark for mark in marks if first <= mark.time <= last):
        if mark.what == "aggregated":
            ax.axvline(mark.time, color="0.3", lw=0.9, ls="--", zorder=1)
            place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "fontsize": 7}
            ax.annotate(f"version {mark.version}", (mark.time, 1.01), **place)
        elif mark.lane in rows:
            shape, colour, size = _MARKS[mark.what]
            style = {"marker": shape, "color": colour, "edgecolor": "white", "linewidth": 0.6, "zorder": 4}
            ax.scatter(mark.time, rows[mark.lane], s=size, **style)
    ax.set_yticks(range(len(lanes)), lanes)
    ax.set_ylim(len(lanes) - 0.5, -0.5)
    ax.set_xlim(first, last)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("seconds since the server was up")
    if legend:
        handles = _explain(spans, marks, rows)
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=7)
    return ax


def _explain(spans, marks, rows) -> list:
    """Return an entry of the legend for each kind that is drawn."""
    done, seen = {span.what for span in spans}, {mark.what for mark in marks if mark.lane in rows}
    bars = [Patch(color=c, label=_WORDS.get(name, name)) for name, c in _ACTIONS.items() if name in done]
    points = [
        Line2D([], [], ls="", marker=shape, color=colour, markersize=7, label=_WORDS.get(name, name))
        for name, (shape, colour, _) in _MARKS.items()
        if name in seen
    ]
    return bars + points


def plot_round_seconds(seconds: dict[str, np.ndarray], lanes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw what a round's time goes into: a dot for each hospital and action, on a logarithmic axis.

    Parameters
    ----------
    seconds : dict of str to float (hospitals,)
        By action; median over rounds.
    lanes : sequence of str
        The hospitals, from top to bottom.
    ax : Axes, optional
    """
    ax = _axis(ax, figsize=(7.2, 0.9 + 0.35 * len(lanes)))
    for action, values in seconds.items():
        ax.scatter(values, range(len(lanes)), s=60, color=_ACTIONS[action], label=action, zorder=3)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_yticks(range(len(lanes)), lanes)
    ax.set_ylim(len(lanes) - 0.5, -0.5)
    ax.set_xlabel("seconds a round (median)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=7)
    return ax
