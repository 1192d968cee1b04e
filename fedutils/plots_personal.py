"""Figures of what each hospital gets: on its own test images, by its size, and what a personal model forgets.

All are drawn from `fedutils.experiment_personal_tables.list_hospitals`, without training anything.
"""

import textwrap
from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from fedutils.data.brain_mri import CLASSES
from fedutils.experiment_personal_tables import NAMES
from fedutils.figure_box import FigureBox
from fedutils.plots import COLOURS, _axis

_PERCENT = PercentFormatter(1.0, decimals=0)
_LOOKS = {  # colour and marker, the same in every figure
    "local": ("0.55", "v"),
    "fedavg": (COLOURS[0], "o"),
    "fine_tune": (COLOURS[1], "o"),
    "fedbn": (COLOURS[2], "s"),
    "fedper": (COLOURS[3], "s"),
    "ditto": (COLOURS[5], "P"),
    "fedlc": (COLOURS[4], "o"),
    "own_mixture": (COLOURS[4], "X"),
    "central": ("0.2", "D"),
}


def _look(algorithm) -> dict:
    colour, marker = _LOOKS.get(algorithm, (COLOURS[4], "X"))
    return {"color": colour, "marker": marker}


def _list_algorithms(entries) -> list[str]:
    return list(dict.fromkeys(entry["algorithm"] for entry in entries))


def plot_hospitals(hospitals: Sequence[dict], seed: int, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of every algorithm at every hospital of one seed, on its own test images.

    Parameters
    ----------
    hospitals : sequence of dict
        From `fedutils.experiment_personal_tables.list_hospitals`. A line is the 95 % interval of as many test
        images as the hospital has; the dotted one across is its most frequent class, always said.
    seed : int
    ax : Axes, optional
    """
    own = [one for one in hospitals if one["seed"] == seed]
    names, algorithms = sorted({one["hospital"] for one in own}), _list_algorithms(own)
    ax = _axis(ax, figsize=(7.2, 0.9 + 0.17 * len(names) * (len(algorithms) + 1)))
    step = 0.84 / max(len(algorithms), 1)
    for one in own:
        place = names.index(one["hospital"]) + (algorithms.index(one["algorithm"]) + 0.5) * step - 0.42
        look = _look(one["algorithm"])
        ax.plot(one["interval"], [place, place], color=look["color"], lw=1.1, alpha=0.6)
        label = NAMES.get(one["algorithm"], one["algorithm"]) if one["hospital"] == names[0] else None
        ax.plot(one["accuracy"], place, **look, ms=4.5, ls="", label=label)
    first = [next(one for one in own if one["hospital"] == name) for name in names]
    for place, one in enumerate(first):
        label = "its most frequent class" if place == 0 else None
        ax.plot([one["majority"]] * 2, [place - 0.45, place + 0.45], color="k", lw=1, ls=":", label=label)
    labels = [
        f"hospital {one['hospital']}\ntrains on {one['trains_on']}\ntested on {one['n']}" for one in first
    ]
    ax.set_yticks(range(len(names)), labels)
    for edge in range(1, len(names)):
        ax.axhline(edge - 0.5, color="0.85", lw=0.8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(-0.02, 1.02)
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.set_xlabel("accuracy on the hospital's own test images, with 95 % interval")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return ax


def plot_summary(rows: Sequence[dict]) -> Figure:
    """Draw what sums hospitals up: mean, worst, gap on their own test images, and the pooled test.

    Parameters
    ----------
    rows : sequence of dict
        From `fedutils.experiment_personal_tables.summarise_personal`. A tick is a seed, a marker their mean.
    """
    panels = {
        "mean of hospitals,\nown test": lambda row: row["own"]["mean"],
        "worst hospital,\nown test": lambda row: row["own"]["worst"],
        "gap, best to worst,\nown test": lambda row: row["own"]["gap"],
        "pooled test\n(all hospitals' patients)": lambda row: row["pool"],
    }
    fig, axes = plt.subplots(1, len(panels), figsize=(7.2, 0.9 + 0.24 * len(rows)), sharey=True)
    for ax, (title, read) in zip(axes, panels.items(), strict=True):
        for place, row in enumerate(rows):
            look, told = _look(row["algorithm"]), read(row)
            if len(told["values"]) > 1:
                ax.plot(
                    told["values"], [place] * len(told["values"]), "|", color=look["color"], ms=8, alpha=0.8
                )
            ax.plot(told["mean"], place, **look, ms=5)
        ax.set_title(title, fontsize=8)
        ax.xaxis.set_major_formatter(_PERCENT)
        ax.tick_params(axis="x", labelsize=7)
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    fig.supxlabel("accuracy, or difference of accuracies", fontsize=8)
    return fig


def plot_by_size(hospitals: Sequence[dict], *, against: str = "fedavg") -> Figure:
    """Draw accuracy on own test images over the size of the hospital, and the way from another algorithm.

    Parameters
    ----------
    hospitals : sequence of dict
        From `fedutils.experiment_personal_tables.list_hospitals`, of all seeds.
    against : str
        Where each line begins, at the same hospital of the same seed.
    """
    algorithms = _list_algorithms(hospitals)
    base = {(o["seed"], o["hospital"]): o["accuracy"] for o in hospitals if o["algorithm"] == against}
    columns = 4
    rows = -(-len(algorithms) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(7.2, 0.4 + 1.7 * rows), sharex=True, sharey=True, squeeze=False
    )
    for ax in axes.flat[len(algorithms) :]:
        ax.axis("off")
    for ax, algorithm in zip(axes.flat, algorithms, strict=False):
        look = _look(algorithm)
        for one in hospitals:
            start = base.get((one["seed"], one["hospital"]))
            if one["algorithm"] == algorithm:
                if start is not None and algorithm != against:
                    ends = [start, one["accuracy"]]
                    ax.plot([one["trains_on"]] * 2, ends, color=look["color"], lw=1.2, alpha=0.6)
                ax.plot(one["trains_on"], one["accuracy"], **look, ms=4.5)
        ax.set_title(NAMES.get(algorithm, algorithm), fontsize=8)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator([10, 30, 100, 300, 1000, 3000]))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(_PERCENT)
        ax.tick_params(labelsize=7)
    for ax in axes.flat[len(algorithms) - columns : len(algorithms)]:  # those with nothing below
        ax.tick_params(labelbottom=True)
    fig.supxlabel(f"images that the hospital trains on; lines begin at {NAMES[against]}", fontsize=8)
    fig.supylabel("accuracy on own test images", fontsize=8)
    return fig


def plot_forgetting(rows: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Draw the accuracy on the patients of all over that on a hospital's own: what a personal model forgets.

    Parameters
    ----------
    rows : sequence of dict
        From `fedutils.experiment_personal_tables.summarise_personal`. A pale marker is a seed.
    ax : Axes, optional
    """
    ax = _axis(ax, figsize=(4.6, 3.4))
    for row in rows:
        own, pool, look = row["own"]["mean"], row["pool"], _look(row["algorithm"])
        if len(own["values"]) > 1:
            ax.plot(own["values"], pool["values"], **look, ls="", ms=4, alpha=0.35)
        ax.plot(own["mean"], pool["mean"], **look, ls="", ms=7, label=row["name"])
    values = [value for line in ax.lines for data in line.get_data() for value in data]
    low, high = max(min(values) - 0.05, 0), min(max(values) + 0.05, 1.02)
    ax.plot([low, high], [low, high], color="0.7", lw=0.8, ls=":", zorder=1)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal")
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.yaxis.set_major_formatter(_PERCENT)
    ax.set_xlabel("own test, mean of hospitals")
    ax.set_ylabel("pooled test")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return ax


def plot_elsewhere(matrices: dict[str, Sequence[Sequence[float]]]) -> Figure:
    """Draw what each hospital's model does at the others: a row a model, a column a hospital.

    Parameters
    ----------
    matrices : dict of str to float (hospitals, hospitals)
        By title: accuracies from 0 to 1.
    """
    fig, axes = plt.subplots(1, len(matrices), figsize=(7.2, 2.1), sharex=True, sharey=True, squeeze=False)
    for ax, (title, values) in zip(axes.flat, matrices.items(), strict=True):
        values = np.asarray(values, np.float64)
        ax.imshow(values, cmap="Blues", vmin=0, vmax=1)
        for (k, j), value in np.ndenumerate(values):
            ink = {"color": "w" if value > 0.6 else "k", "fontweight": "bold" if k == j else "normal"}
            ax.text(j, k, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, **ink)
        ax.set_title(textwrap.fill(title, 14), fontsize=8)
        ax.set_xticks(range(len(values)), range(1, len(values) + 1))
        ax.set_yticks(range(len(values)), range(1, len(values) + 1))
        ax.grid(False)
        ax.tick_params(length=0)
    axes[0, 0].set_ylabel("model of hospital")
    fig.supxlabel("accuracy, %, on the test images of hospital", fontsize=8)
    return fig


class HospitalViewer(FigureBox):
    """A widget: choose a seed and a hospital; see what it holds, and what every algorithm gives it.

    Parameters
    ----------
    hospitals : sequence of dict
        From `fedutils.experiment_personal_tables.list_hospitals`.
    counts : dict of int to int (hospitals, classes)
        By seed, the images that each hospital trains on.
    """

    def __init__(self, hospitals: Sequence[dict], counts: dict[int, Sequence]) -> None:
        self._hospitals, self._counts = hospitals, {s: np.asarray(c) for s, c in counts.items()}
        seeds = sorted({one["seed"] for one in hospitals})
        names = [(f"hospital {k}", k) for k in sorted({one["hospital"] for one in hospitals})]
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        super().__init__(
            figure,
            {
                "hospital": ipywidgets.Dropdown(options=names, description="hospital"),
                "seed": ipywidgets.Dropdown(options=seeds, description="seed"),
            },
        )

    def draw(self) -> None:
        """Draw the classes that the chosen hospital trains on, and the accuracy of each algorithm there."""
        hospital, seed = self.controls["hospital"].value, self.controls["seed"].value
        own = [one for one in self._hospitals if (one["hospital"], one["seed"]) == (hospital, seed)]
        self.figure.clear()
        left, right = self.figure.subplots(1, 2, width_ratios=(1, 1.6))
        left.barh(range(len(CLASSES)), self._counts[seed][hospital - 1], color=COLOURS[4])
        left.set_yticks(range(len(CLASSES)), CLASSES)
        left.invert_yaxis()
        left.set_xlabel("images to train on")
        for place, one in enumerate(own):
            look = _look(one["algorithm"])
            right.plot(one["interval"], [place, place], color=look["color"], lw=1.4, alpha=0.6)
            right.plot(one["accuracy"], place, **look, ms=6)
        right.set_yticks(range(len(own)), [NAMES.get(one["algorithm"], one["algorithm"]) for one in own])
        right.set_ylim(len(own) - 0.5, -0.5)
        right.set_xlim(-0.02, 1.02)
        right.xaxis.set_major_formatter(_PERCENT)
        right.axvline(own[0]["majority"], color="k", lw=1, ls=":")  # its most frequent class, always said
        words = f"accuracy on its {own[0]['n']} test images, 95 % interval"
        right.set_xlabel(f"{words}\ndotted: its most frequent class, always said", fontsize=8)
        for ax in (left, right):
            ax.grid(axis="y", visible=False)
