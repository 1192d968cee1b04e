"""Figures of what a validation accuracy costs, of rates that were searched, and of hospitals that diverge."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from fedutils.plots import COLOURS, _axis
from fedutils.plots_study import choose_line
from fedutils.study import NAMES, is_federated, list_runs, shorten_title
from fedutils.study_costs import CLOCKS, compute_costs
from fedutils.study_rates import FAMILIES

_PERCENT = PercentFormatter(1.0, decimals=0)


def plot_costs(records: Sequence[dict], ax: Axes | None = None, *, clock: str, lines=None) -> Axes:
    """Draw the best validation accuracy so far over what it cost: one thin line a seed.

    Parameters
    ----------
    records : sequence of dict
        Of one experiment; those without rounds are left out.
    ax : Axes, optional
    clock : str
        One of `fedutils.study_costs.CLOCKS`.
    lines : fedutils.communication.Lines, optional
        See `fedutils.study_costs.compute_costs`. Runs of which the clock is not known are left out.
    """
    ax = _axis(ax)
    for record in filter(is_federated, records):
        colour, style = choose_line(record["algorithm"])
        label = NAMES.get(record["algorithm"], record["algorithm"])
        for run in list_runs(record):
            cost = compute_costs(run, lines)[clock]
            if cost is not None:
                best = np.maximum.accumulate(run["validation"]["accuracy"])
                ax.plot(cost, best, style, color=colour, label=label, lw=0.9, drawstyle="steps-post")
                label = None
    ax.yaxis.set_major_formatter(_PERCENT)
    ax.set_xlim(left=0)
    ax.set_xlabel(CLOCKS[clock])
    ax.set_ylabel("best validation accuracy so far")
    return ax


def plot_cost_grid(records: Sequence[dict], *, lines=None, target: float | None = None) -> Figure:
    """Draw `plot_costs` of every experiment (a row each) by every clock (a column each).

    Each panel has a horizontal axis of its own: experiments differ in length, some fourfold.

    Parameters
    ----------
    records : sequence of dict
    lines : fedutils.communication.Lines, optional
    target : float, optional
        A validation accuracy to mark.
    """
    names = list(dict.fromkeys(record["experiment"] for record in records if is_federated(record)))
    fig, axes = plt.subplots(len(names), 3, figsize=(7.2, 0.7 + 1.7 * len(names)), sharey=True, squeeze=False)
    drawn = {}
    for row, name in zip(axes, names, strict=True):
        own = [record for record in records if record["experiment"] == name]
        for ax, clock in zip(row, CLOCKS, strict=True):
            plot_costs(own, ax, clock=clock, lines=lines)
            if target is not None:
                ax.axhline(target, color="0.6", lw=0.8, ls=":")
            ax.set_ylabel("")
            if name != names[-1]:
                ax.set_xlabel("")
            drawn |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        row[0].set_title(shorten_title(own[0]["title"]), fontsize=8, loc="left")
    fig.supylabel("best validation accuracy so far", fontsize=9)
    legend = fig.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=5)
    for line in legend.get_lines():
        line.set_linewidth(2)
    return fig


def plot_time_to(told: Sequence[dict], ax: Axes | None = None, *, clock: str = "rounds") -> Axes:
    """Draw what it took to reach an accuracy: one dot a seed, and how many seeds did not reach it.

    Parameters
    ----------
    told : sequence of dict
        Of one target, from `fedutils.study_costs.measure_time_to`.
    ax : Axes, optional
    clock : str
        One of `fedutils.study_costs.CLOCKS`.
    """
    ax = _axis(ax, figsize=(5.6, 0.8 + 0.22 * len(told)))
    for place, entry in enumerate(told):
        colour = choose_line(entry["algorithm"])[0]
        values = [v for v in entry[clock] if v is not None]
        ax.plot(values, [place] * len(values), "o", color=colour, ms=4.5, alpha=0.8)
        if missed := len(entry["seeds"]) - entry["reached"]:
            words = "not reached" if not entry["reached"] else f"{missed} of {len(entry['seeds'])} not"
            ax.annotate(
                words,
                (1, place),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="center",
                fontsize=6.5,
                color="0.45",
            )
    starts = [i for i, entry in enumerate(told) if i and entry["experiment"] != told[i - 1]["experiment"]]
    for start in starts:
        ax.axhline(start - 0.5, color="0.8", lw=0.8)
    ax.set_yticks(range(len(told)), [entry["name"] for entry in told])
    ax.set_ylim(len(told) - 0.5, -0.5)
    most = max((v for entry in told for v in entry[clock] if v is not None), default=1)
    ax.set_xlim(0, 1.75 * most)  # room for words at the right
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(CLOCKS[clock])
    return ax


def plot_time_grid(told: Sequence[dict]) -> Figure:
    """Draw `plot_time_to` by every clock, side by side.

    Parameters
    ----------
    told : sequence of dict
        Of one target.
    """
    fig, axes = plt.subplots(1, 3, figsize=(7.2, 0.9 + 0.2 * len(told)), sharey=True)
    for ax, clock in zip(axes, CLOCKS, strict=True):
        plot_time_to(told, ax, clock=clock)
    names = list(dict.fromkeys(entry["experiment"] for entry in told))
    for name in names:
        places = [i for i, entry in enumerate(told) if entry["experiment"] == name]
        title = shorten_title(told[places[0]]["title"])
        axes[2].text(
            1.03, np.mean(places), title, transform=axes[2].get_yaxis_transform(), va="center", fontsize=7
        )
    return fig


def plot_rates(families: dict[str, list[dict]], names: dict[str, str] = FAMILIES) -> Figure:
    """Draw the search of rates: the best validation accuracy by value, a panel a family.

    Parameters
    ----------
    families : dict of str to list of dict
        From `fedutils.study_rates.group_rates`: of each value tried, ``value``, the accuracy that it
        ``reached`` (None: not run) and whether it was ``chosen``.
    names : dict of str to str
        Of families, in words; others have their own.
    """
    lines = -(-len(families) // 5)
    columns = -(-len(families) // lines)
    fig, axes = plt.subplots(
        lines, columns, figsize=(max(7.2, 1.5 * columns), 2.5 * lines), sharey=True, squeeze=False
    )
    for ax in axes.flat[len(families) :]:
        ax.axis("off")
    for ax, (name, tried) in zip(axes.flat, families.items(), strict=False):
        done = [one for one in tried if one["reached"] is not None]
        ax.plot(
            [one["value"] for one in done], [one["reached"] for one in done], "-o", color=COLOURS[0], ms=4
        )
        for one in tried:
            if one["chosen"]:
                ax.axvline(one["value"], color=COLOURS[5], lw=5, alpha=0.2, zorder=0)
            if one["reached"] is None:
                ax.annotate(
                    "not run",
                    (one["value"], 0.02),
                    xycoords=("data", "axes fraction"),
                    rotation=90,
                    fontsize=7,
                    color="0.45",
                    ha="center",
                    va="bottom",
                )
        values = [one["value"] for one in tried]
        ax.set_xscale("log")
        ax.set_xlim(min(values) / 2.2, max(values) * 2.2)
        ax.xaxis.set_major_locator(FixedLocator(values))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.tick_params(axis="x", labelsize=7, labelrotation=45 if len(values) > 3 else 0)
        ax.set_title(names.get(name, name.replace("_", " ")).replace(", ", ",\n"), fontsize=8)
        ax.set_xlabel(tried[0]["setting"].replace("_", " "), fontsize=7)
        ax.yaxis.set_major_formatter(_PERCENT)
    for ax in axes[:, 0]:
        ax.set_ylabel("best validation accuracy")
    return fig


def plot_divergence(measured: dict[str, list[dict]], ax: Axes | None = None) -> Axes:
    """Draw where each hospital's update points, over how far its mixture of classes is from that of all.

    Parameters
    ----------
    measured : dict of str to list of dict
        By partition, one entry a hospital: ``label_distance`` (0 to 1), ``cosine`` (of its update with the
        mean update) and ``share`` (of the images; the area of its dot).
    ax : Axes, optional
    """
    ax = _axis(ax, figsize=(5.6, 3.2))
    for (name, hospitals), colour in zip(measured.items(), COLOURS, strict=False):
        ax.scatter(
            [h["label_distance"] for h in hospitals],
            [h["cosine"] for h in hospitals],
            s=[15 + 250 * h["share"] for h in hospitals],
            color=colour,
            alpha=0.7,
            lw=0,
            label=name,
        )
    ax.axhline(0, color="0.6", lw=0.8, ls="--")
    ax.set_xlabel("label distance of the hospital from all images (0 to 1)")
    ax.set_ylabel("cosine of its update\nwith the mean update")
    for handle in ax.legend(loc="center left", bbox_to_anchor=(1, 0.5)).legend_handles:
        handle.set_sizes([30])
    return ax
