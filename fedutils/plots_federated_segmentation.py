"""Pictures of federated segmentation: what each hospital's slices look like, and what each gains."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fedutils.plots import PLANE_LETTERS
from fedutils.plots_models import (
    _TRUTH,
    _WIDTH,
    _measure_extent,
    _outline,
    _show,
    _write_legend,
    _write_letters,
    _zoom,
    plot_cases,
    turn_slice,
)
from fedutils.plots_study import choose_line
from fedutils.segmentation_study import find_unit, list_own
from fedutils.study import NAMES

if TYPE_CHECKING:
    from fedutils.experiment_segmentation import Segmentation

_COLUMNS = 6  # hospitals side by side
_MARGIN = 15  # mm, or pixels, around what is outlined
_STYLES = {"local": ("0.6", "s"), "central": ("0.15", "D")}  # what is no federation is grey


def find_level(truth: np.ndarray) -> int:
    """Return the axial slice with most tumour, of a truth (X, Y, Z, K)."""
    return int(np.argmax(truth[..., 0].sum(axis=(0, 1))))


def plot_hospitals(task: "Segmentation", seed: int) -> Figure:
    """Draw a training patient of each hospital: FLAIR, the slice with most tumour, and the outline.

    Parameters
    ----------
    task : Segmentation
    seed : int
        Of the partition.
    """
    names, parts = task.name_hospitals(seed), task.deal(seed)
    columns = min(len(names), _COLUMNS)
    rows = -(-len(names) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(_WIDTH, 0.5 + rows * (0.55 + (_WIDTH - 0.4) / columns)), squeeze=False
    )
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for ax, name, part in zip(axes.flat, names, parts, strict=False):
        case = int(part[0])
        image, truth = task.pool.cases[case].load(("flair",)).images["flair"], task.pool.load_truth(case)
        level, spacing = find_level(truth), task.pool.get_spacing(case)
        picture = turn_slice(image[:, :, level])
        extent, unit = _measure_extent(picture.shape, spacing and spacing[1::-1])
        head = picture[picture > 0]
        low, high = np.percentile(head if head.size else picture, (1, 99.8))
        _show(ax, picture, extent, vmin=min(low, 0), vmax=high)
        _outline(ax, turn_slice(truth[:, :, level, 0]), extent, _TRUTH)
        _write_letters(ax, PLANE_LETTERS[2])
        _zoom(ax, picture > 0, extent, 16)  # room for the letters
        cases = f"{len(part)} patient{'s' if len(part) > 1 else ''}"
        ax.set_title(f"{name.replace('_', ' ')}\n{cases} to train", fontsize=8)
        ax.set_xlabel(unit, fontsize=7)
    _write_legend(fig, truth=_TRUTH)
    return fig


def plot_institutions(records: Sequence[dict]) -> Figure:
    """Draw Dice and HD95 on the patients of each institution: a small dot a seed, a large one the mean.

    Parameters
    ----------
    records : sequence of dict
        Of one experiment, one an algorithm; from `fedutils.experiments.run_experiment`.
    """
    by_record = [list_own(record) for record in records]
    names = list(dict.fromkeys(name for own in by_record for name in own))
    unit = find_unit(records[0])
    fig, axes = plt.subplots(1, 2, figsize=(_WIDTH, 3.1))
    width = 0.7 / len(records)
    for ax, key in zip(axes, ("dice", f"hd95_{unit}"), strict=True):
        highest = 0.0
        for i, (record, own) in enumerate(zip(records, by_record, strict=True)):
            colour, marker = _STYLES.get(record["algorithm"], (choose_line(record["algorithm"])[0], "o"))
            label = NAMES.get(record["algorithm"], record["algorithm"]).split(",")[0]
            for at, name in enumerate(names):
                values = [scores[key] for scores in own.get(name, [])]
                if values:
                    x, highest = at + (i - (len(records) - 1) / 2) * width, max(highest, *values)
                    ax.scatter([x] * len(values), values, s=9, color=colour, alpha=0.5, lw=0)
                    style = {"s": 34, "marker": marker, "facecolor": colour, "edgecolor": "white", "lw": 0.6}
                    ax.scatter(x, np.mean(values), label=label, zorder=3, **style)
                    label = None
        ax.set_xticks(range(len(names)), [name.removeprefix("site ").replace("_", "\n") for name in names])
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_ylim(0, 1 if key == "dice" else 1.08 * highest or 1)
    axes[0].set_ylabel("Dice, mean over regions")
    axes[1].set_ylabel(f"HD95, {unit}")
    fig.suptitle(records[0]["title"], fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(records))
    return fig


def plot_predictions(
    task: "Segmentation", case: int, found: dict[str, np.ndarray], titles: dict[str, str]
) -> Figure:
    """Draw what several networks find in one patient beside the truth: FLAIR, the slice with most tumour.

    All panels show the same square, around the truth and whatever any of the networks found.

    Parameters
    ----------
    task : Segmentation
    case : int
        In the pool of `task`.
    found : dict of str to bool (X, Y, Z, K)
        By the name of the network.
    titles : dict of str to str
        Of each column.
    """
    image, truth = task.pool.cases[case].load(("flair",)).images["flair"], task.pool.load_truth(case)
    level, spacing = find_level(truth), task.pool.get_spacing(case)
    marked = np.any([truth, *found.values()], axis=0)[:, :, level].any(axis=-1)
    window = _cut_square(marked, round(_MARGIN / (spacing[0] if spacing else 1)))

    def turn(regions):
        planes = regions[:, :, level][window]
        return np.stack([turn_slice(planes[..., k]) for k in range(planes.shape[-1])], axis=-1)

    return plot_cases(
        [turn_slice(image[:, :, level][window])] * len(found),
        [turn(truth)] * len(found),
        [turn(one) for one in found.values()],
        [titles[name] for name in found],
        regions=task.pool.regions,
        spacing=spacing and spacing[1::-1],
        letters=PLANE_LETTERS[2],
    )


def _cut_square(marked, margin):
    """Return the slices of a square, as far as the plane has room, around what is marked, bool (X, Y)."""
    ends = [np.flatnonzero(marked.any(axis=1 - axis))[[0, -1]] for axis in range(2)]
    half = max(high - low for low, high in ends) / 2 + margin
    cuts = []
    for (low, high), side in zip(ends, marked.shape, strict=True):
        start = int(max(0, (low + high) / 2 - half))
        cuts.append(slice(start, int(min(side, (low + high) / 2 + half + 1))))
    return tuple(cuts)
