"""Figures of data sets and their partitions, in the manner of `fedutils.plots`."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps, colors
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedutils.plots import COLOURS, _axis

_SHADES = "Blues"


def plot_holdings(
    counts: np.ndarray,
    class_names: Sequence[str],
    ax: Axes | None = None,
    *,
    names: Sequence[str] | None = None,
    unit: str = "images",
    ordered: bool = False,
) -> Axes:
    """Draw who holds what: one stacked bar a client.

    Parameters
    ----------
    counts : int (clients, classes)
        Of classes, or of bins of a number such as the tumour's size.
    class_names : sequence of str
    ax : Axes, optional
    names : sequence of str, optional
        Of the clients; numbers by default.
    unit : str
        What is counted.
    ordered : bool
        The classes are steps of one quantity: drawn from light to dark.
    """
    ax = _axis(ax)
    names = _names(names, len(counts))
    shades = colormaps[_SHADES](np.linspace(0.25, 0.95, len(class_names)))
    left = np.zeros(len(counts))
    for c, label in enumerate(class_names):
        colour = shades[c] if ordered else COLOURS[c % len(COLOURS)]
        ax.barh(range(len(counts)), counts[:, c], left=left, color=colour, label=label)
        left += counts[:, c]
    ax.set_yticks(range(len(counts)), names)
    ax.set_ylim(len(counts) - 0.5, -0.5)  # the first client on top, on a shared axis too
    ax.grid(axis="y", visible=False)
    ax.set_xlim(0, max(ax.get_xlim()[1], 1.05 * left.max()))  # panels may share this axis too
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.set_xlabel(unit)
    return ax


def plot_attribute(
    values: np.ndarray,
    clients: list[np.ndarray],
    ax: Axes | None = None,
    *,
    names: Sequence[str] | None = None,
    quantity: str = "tumour, ml",
) -> Axes:
    """Draw how a number is distributed over clients: a dot a case, a box of quartiles, and all of it below.

    Parameters
    ----------
    values : float (N,)
    clients : list of int (n,)
    ax : Axes, optional
    names : sequence of str, optional
        Of the clients; numbers by default.
    quantity : str
        The values' name and unit.
    """
    ax = _axis(ax)
    values = np.asarray(values)
    rows = [values[part] for part in clients] + [values]
    labels = [*_names(names, len(clients)), "all"]
    boxes = ax.boxplot(
        rows, orientation="horizontal", widths=0.6, showfliers=False, patch_artist=True, whis=(0, 100)
    )
    for box in boxes["boxes"]:
        box.set(facecolor="0.92", edgecolor="0.5", linewidth=0.8)
    for line in (*boxes["whiskers"], *boxes["caps"], *boxes["medians"]):
        line.set(color="0.35", linewidth=0.9)
    rng = np.random.default_rng(0)  # the jitter that keeps dots apart is the same in every run
    for k, row in enumerate(rows):
        height = k + 1 + rng.uniform(-0.2, 0.2, len(row))
        colour = "0.3" if k == len(clients) else COLOURS[k % len(COLOURS)]
        ax.plot(row, height, ".", color=colour, markersize=4, alpha=0.8)
    ax.axhline(len(clients) + 0.5, color="0.6", linewidth=0.8)
    ax.set_yticks(range(1, len(rows) + 1), labels)
    ax.set_ylim(len(rows) + 0.6, 0.4)  # the first client on top
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
    ax.set_xlabel(quantity)
    return ax


def plot_summary(
    table: dict[str, dict[str, float]], ax: Axes | None = None, *, digits: int | dict[str, int] = 2
) -> Axes:
    """Draw numbers as a table, each column shaded from its lowest value to its highest.

    Parameters
    ----------
    table : dict of str to dict of str to float
        By row, then by column; every row has the same columns.
    ax : Axes, optional
    digits : int or dict of str to int
        Decimals shown, of all columns or by column.
    """
    rows, columns = list(table), list(next(iter(table.values())))
    ax = _axis(ax, figsize=(1.6 + 1.1 * len(columns), 0.6 + 0.28 * len(rows)))
    values = np.asarray([[table[row][column] for column in columns] for row in rows], float)
    spans = np.maximum(values.max(axis=0) - values.min(axis=0), 1e-12)
    shade = 0.7 * (values - values.min(axis=0)) / spans
    ax.imshow(shade, cmap=_SHADES, norm=colors.Normalize(0, 1), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        places = digits if isinstance(digits, int) else digits[columns[j]]
        ink = "w" if shade[i, j] > 0.55 else "k"
        ax.text(j, i, f"{value:.{places}f}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(False)
    return ax


def _names(names, count):
    return [f"hospital {k + 1}" for k in range(count)] if names is None else list(names)
