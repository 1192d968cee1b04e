"""Figures of how well models do: error by size of the tumour, and whether probabilities are honest."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import stats

from fedutils.errors import InputError
from fedutils.plots import COLOURS, _axis


def plot_error_by_size(
    sizes: np.ndarray, scores: np.ndarray, ax: Axes | None = None, *, unit: str = "ml", quantity: str = "Dice"
) -> Axes:
    """Draw a score of each case over the size of its tumour, with a running median and Spearman's rho.

    Parameters
    ----------
    sizes : float (N,)
        In `unit`. Cases without a tumour have no place on a logarithmic axis; a line says how many they are.
    scores : float (N,)
        NaN: no score; left out.
    ax : Axes, optional
    unit : str
        Of the sizes.
    quantity : str
        Of the scores; one called Dice is drawn from 0 to 1.

    Raises
    ------
    InputError
        If there are not as many sizes as scores, or no case has both.
    """
    sizes, scores = np.asarray(sizes, np.float64), np.asarray(scores, np.float64)
    if sizes.shape != scores.shape:
        raise InputError(f"sizes: expected as many as scores, found {sizes.size} and {scores.size}")
    drawn = (sizes > 0) & np.isfinite(scores)
    if not drawn.any():
        raise InputError(f"sizes: expected a case with a tumour and a score, found none of {sizes.size}")
    ax = _axis(ax, figsize=(4.6, 3.2))
    order = np.argsort(sizes[drawn], kind="stable")
    x, y = sizes[drawn][order], scores[drawn][order]
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.plot(x, y, "o", color=COLOURS[0], markersize=4, alpha=0.7, markeredgewidth=0)
    width = max(5, len(x) // 5)  # of the running median: a fifth of the cases
    if len(x) >= 2 * width:
        middles = [np.exp(np.log(x[i : i + width]).mean()) for i in range(len(x) - width + 1)]
        medians = [np.median(y[i : i + width]) for i in range(len(x) - width + 1)]
        ax.plot(middles, medians, color=COLOURS[5], label=f"running median of {width}")
        ax.legend(loc="lower right")
    words = [f"n = {len(x)}"]
    if len(x) >= 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
        rho, p = stats.spearmanr(x, y)
        words.append(f"Spearman's ρ = {rho:.2f}, p " + (f"= {p:.3f}" if p >= 0.001 else "< 0.001"))
    if (empty := int((sizes == 0).sum())) > 0:
        words.append(f"without tumour, not drawn: {empty}")
    ax.set_title("; ".join(words), fontsize=8)
    ax.set_xlabel(f"size of the tumour, {unit}")
    ax.set_ylabel(quantity)
    if quantity.startswith("Dice"):
        ax.set_ylim(-0.03, 1.03)
    return ax


def plot_reliability(
    reliability: Sequence[dict[str, float | None]], ax: Axes | None = None, *, label: str = "images"
) -> Axes:
    """Draw how often a classifier is right over how sure it is; areas are numbers of images.

    Parameters
    ----------
    reliability : sequence of dict
        One a bin of confidence: ``n``, ``confidence`` and ``accuracy`` (its means, in [0, 1]; None
        in a bin without any). Below the diagonal the classifier is too sure of itself.
    ax : Axes, optional
    label : str
        What is counted.

    Raises
    ------
    InputError
        If all bins are empty.
    """
    filled = [b for b in reliability if b["n"]]
    if not filled:
        raise InputError(
            f"reliability: expected a bin that is not empty, found {len(reliability)} empty ones"
        )
    ax = _axis(ax, figsize=(3.6, 3.4))
    counts = np.array([b["n"] for b in filled], float)
    confidence = np.array([b["confidence"] for b in filled], float)
    accuracy = np.array([b["accuracy"] for b in filled], float)
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls="--")
    ax.vlines(
        confidence, np.minimum(confidence, accuracy), np.maximum(confidence, accuracy), color="0.75", lw=1
    )
    ax.plot(confidence, accuracy, color=COLOURS[0], lw=1)
    area = 12 + 250 * counts / counts.sum()
    ax.scatter(confidence, accuracy, s=area, color=COLOURS[0], alpha=0.7, lw=0, zorder=3)
    error = (counts * np.abs(confidence - accuracy)).sum() / counts.sum()
    ax.set_title(f"{int(counts.sum())} {label}, expected calibration error {error:.3f}", fontsize=8)
    ax.set_xlim(0, 1.03)
    ax.set_ylim(0, 1.03)
    ax.set_aspect("equal")
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
    return ax


def plot_changes(
    changes: dict[str, dict], ax: Axes | None = None, *, quantity: str = "accuracy", reference: str = ""
) -> Axes:
    """Draw what each change of a training brings: the mean, its interval over images, and each seed.

    Parameters
    ----------
    changes : dict of str to dict
        From `fedutils.metrics.compare_accuracy`: ``difference``, ``interval`` and ``by_seed``, as fractions.
    ax : Axes, optional
    quantity : str
        What is compared.
    reference : str
        What it is compared with.

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    if not changes:
        raise InputError("changes: expected at least one, found none; train something else to compare with")
    ax = _axis(ax, figsize=(5.6, 0.9 + 0.32 * len(changes)))
    ax.axvline(0, color="0.6", lw=0.8, ls="--")
    for row, change in enumerate(changes.values()):
        low, high = (100 * value for value in change["interval"])
        ax.plot([low, high], [row, row], color=COLOURS[0], lw=2, alpha=0.5, solid_capstyle="butt")
        ax.plot(100 * change["difference"], row, "o", color=COLOURS[0], markersize=6)
        seeds = 100 * np.asarray(change["by_seed"])
        ax.plot(seeds, np.full(len(seeds), row), "|", color=COLOURS[5], markersize=9, markeredgewidth=1.2)
    ax.set_yticks(range(len(changes)), changes)
    ax.set_ylim(len(changes) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    words = f"\nagainst {reference}" if reference else ""
    ax.set_xlabel(f"change of {quantity}, percentage points{words}")
    return ax
