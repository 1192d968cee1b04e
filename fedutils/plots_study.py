"""Figures of the federated study: learning curves, who holds what beside the result, and the search of rates.

Local (each hospital alone), federated and central stand side by side, with the spread over seeds.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedutils.experiment_bounds import ALONE, add_bounds
from fedutils.plots import COLOURS, _axis
from fedutils.study import NAMES, list_runs, list_with_bounds, shorten_title
from fedutils.study_tables import title_of


def choose_line(algorithm: str) -> tuple[str, str]:
    """Return the colour and the line style of an algorithm, the same in every figure."""
    names = list(NAMES)
    place = names.index(algorithm) if algorithm in names else len(names)
    style = {"local": ":", "central": "--"}.get(algorithm, "-" if place < len(COLOURS) else "-.")
    return "0.35" if algorithm in ALONE else COLOURS[(place - 1) % len(COLOURS)], style


def plot_study_curves(records: Sequence[dict], ax: Axes | None = None, *, quantity: str = "accuracy") -> Axes:
    """Draw a validation quantity over the passes over the images: mean over seeds, and their range.

    Parameters
    ----------
    records : sequence of dict
        Of one experiment, from `load_study`. Seeds that did fewer rounds than others are cut to what all
        did in the mean and the band.
    ax : Axes, optional
    quantity : str
        As in the result, ``accuracy`` or ``loss``.
    """
    ax = _axis(ax)
    for record in records:
        runs = list_runs(record)
        curves = [run["validation"][quantity] for run in runs]
        length = min(map(len, curves))
        values = np.asarray([curve[:length] for curve in curves], np.float64)
        passes = np.arange(1, length + 1) * runs[0]["passes_per_step"]
        algorithm = record["algorithm"]
        colour, style = choose_line(algorithm)
        label = NAMES.get(algorithm, algorithm)
        ax.plot(passes, values.mean(axis=0), style, color=colour, label=label)
        if len(values) > 1:
            ax.fill_between(passes, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0)
    if quantity == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("passes over the images")
    ax.set_ylabel(f"validation {quantity}")
    return ax


def plot_study(
    records: Sequence[dict],
    *,
    quantity: str = "accuracy",
    bounds: Mapping[str, Mapping[str, str]] | None = None,
) -> Figure:
    """Draw the learning curves of every experiment, side by side on one scale.

    Parameters
    ----------
    records : sequence of dict
        From `load_study`.
    quantity : str
    bounds : mapping of str to mapping, optional
        By experiment its `fedutils.experiment_file.Experiment.bounds`: which experiment's local and central
        training are drawn, if among the records; by default its own.
    """
    bounds = bounds or {}
    experiments = list(dict.fromkeys(record["experiment"] for record in records))
    columns = 2 if len(experiments) == 4 else min(len(experiments), 3)
    rows = -(-len(experiments) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(max(7.2, 2.6 * columns), 2.9 * rows), sharey=True, squeeze=False
    )
    for ax in axes.flat[len(experiments) :]:
        ax.axis("off")
    drawn = {}
    for ax, name in zip(axes.flat, experiments, strict=False):
        plot_study_curves(add_bounds(records, name, bounds.get(name, {})), ax, quantity=quantity)
        own = next(record for record in records if record["experiment"] == name)
        ax.set_title(textwrap.fill(title_of(own), 34), fontsize=8)
        drawn |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    fig.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
    return fig


def plot_counts(
    counts: np.ndarray, class_names: Sequence[str], ax: Axes | None = None, *, most: int | None = None
) -> Axes:
    """Draw who holds what as a heat map: numbers of images, a row a hospital, a column a class.

    Parameters
    ----------
    counts : int (clients, classes)
    class_names : sequence of str
    ax : Axes, optional
    most : int, optional
        The count of the darkest shade, so that several panels can share one; the largest by default.
    """
    ax = _axis(ax, figsize=(3.2, 2.4))
    counts = np.asarray(counts)
    most = max(int(counts.max()) if most is None else most, 1)
    ax.imshow(counts, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    for (k, c), count in np.ndenumerate(counts):
        ink = "w" if count > 0.55 * most else "0.6" if count == 0 else "k"
        ax.text(c, k, str(count), ha="center", va="center", color=ink, fontsize=7)
    ax.set_xticks(range(len(class_names)), class_names, rotation=20, ha="right")
    ax.set_yticks(range(len(counts)), [f"hospital {k + 1}" for k in range(len(counts))])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def plot_results(rows: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Draw the accuracy on de-duplicated test images by algorithm: the mean, and a tick a seed.

    The mean of central training is a dashed line, and what was not run says so.

    Parameters
    ----------
    rows : sequence of dict
        Of one experiment and its bounds, from `fedutils.study.summarise_study`.
    ax : Axes, optional
    """
    ax = _axis(ax, figsize=(4.2, 2.4))
    for central in (row for row in rows if row["algorithm"] == "central" and row["seeds"]):
        mean = central["summary"]["deduplicated"]["accuracy"]["mean"]
        ax.axvline(mean, color=choose_line("central")[0], ls="--", lw=0.9, zorder=1)
    for place, row in enumerate(rows):
        colour = choose_line(row["algorithm"])[0]
        if not row["seeds"]:
            words = {"transform": ax.get_yaxis_transform(), "color": "0.5", "fontsize": 7, "va": "center"}
            ax.text(0.02, place, "not run", **words)
            continue
        told = row["summary"]["deduplicated"]["accuracy"]
        ax.plot(told["values"], [place] * len(told["values"]), "|", color=colour, ms=9, mew=1.2, alpha=0.7)
        ax.plot(told["mean"], place, "o", color=colour, ms=5)
    ax.set_yticks(range(len(rows)), [_name_and_seeds(row) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return ax


def _name_and_seeds(row) -> str:
    name = "local, mean" if row["algorithm"] == "local" else row["name"]
    done, planned = len(row["seeds"]), len(row["seeds_planned"])
    return name if done in (0, planned) else f"{name} ({done} of {planned} seeds)"


def plot_holdings_and_results(rows: Sequence[dict], partitions: dict[str, dict]) -> Figure:
    """Draw every experiment in a row: who holds what, and beside it what came of it.

    Parameters
    ----------
    rows : sequence of dict
        From `fedutils.study.summarise_study`.
    partitions : dict of str to dict
        By experiment: ``counts`` (clients, classes) and ``classes``, of one seed.
    """
    names = list(partitions)
    most = max(int(np.max(partition["counts"])) for partition in partitions.values())
    fig, axes = plt.subplots(
        len(names), 2, figsize=(7.2, 0.5 + 1.75 * len(names)), width_ratios=(1, 1.35), squeeze=False
    )
    for (left, right), name in zip(axes, names, strict=True):
        own = next(row for row in rows if row["experiment"] == name)
        plot_counts(partitions[name]["counts"], partitions[name]["classes"], left, most=most)
        left.set_title(shorten_title(own["title"]), fontsize=8, loc="left")
        plot_results(list_with_bounds(rows, name), right)
    filled = [ax.get_xlim() for ax in axes[:, 1] if ax.lines] or [(0, 1)]
    low, high = min(limits[0] for limits in filled), max(limits[1] for limits in filled)
    for left, right in axes[:-1]:
        left.set_xticklabels([])
        right.set_xticklabels([])
    for ax in axes[:, 1]:
        ax.set_xlim(low, high)
    axes[-1, 1].set_xlabel("test accuracy, de-duplicated")
    axes[-1, 0].set_xlabel("images for training")
    return fig
