"""Every figure of the thesis: `plot_*(data, ..., ax=None)` draws on an axis, returns it, and never shows.

Colours are the Okabe-Ito palette of ``fedutils.mplstyle``, told apart by colour-blind readers.
"""

import io
from importlib import resources

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_curve

from fedutils import paths
from fedutils.metrics import softmax
from fedutils.results import write_atomic

PLANES = ("sagittal", "coronal", "axial")  # by the axis that the plane cuts
# What stands at the left, right, bottom and top of each plane: the patient's left is on the left.
PLANE_LETTERS = (("P", "A", "I", "S"), ("L", "R", "I", "S"), ("L", "R", "P", "A"))
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
LABEL_COLOURS = {1: COLOURS[5], 2: COLOURS[4], 3: COLOURS[4], 4: COLOURS[6]}  # of a mask of BraTS


def use_style() -> None:
    """Apply the project's matplotlib style."""
    plt.style.use(str(resources.files("fedutils") / "fedutils.mplstyle"))


def save_figure(fig: Figure, name: str) -> None:
    """Write ``<name>.svg`` and ``.png`` into the run's figures; the same figure gives the same bytes.

    Parameters
    ----------
    fig : Figure
    name : str
        Starts with the notebook's number, e.g. ``03_dirichlet``.
    """
    for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        fig.savefig(buffer, format=suffix, metadata=metadata)
        write_atomic(paths.figures_dir() / f"{name}.{suffix}", buffer.getvalue())


def _axis(ax: Axes | None, **size) -> Axes:
    return ax if ax is not None else plt.subplots(**size)[1]


def plot_images(images: np.ndarray, titles: list[str], *, columns: int = 4, note: str = "") -> Figure:
    """Draw a grid of images.

    Parameters
    ----------
    images : float (N, H, W) or (N, H, W, 1)
        In [0, 1].
    titles : list of str
        One an image.
    columns : int
    note : str
        Under the grid: what the reader must know of orientation and units.
    """
    rows = -(-len(images) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(1.7 * columns, 1.9 * rows + 0.2), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(np.squeeze(image), vmin=0, vmax=1)
        ax.set_title(title, fontsize=8)
    if note:
        fig.supxlabel(note, fontsize=7, color="0.35")
    return fig


def plot_planes(volume: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float]) -> Figure:
    """Draw the axial, coronal and sagittal slice through the tumour's middle, with the mask over it.

    Parameters
    ----------
    volume : float (X, Y, Z)
        One modality, axes in RAS order: towards the patient's right, front and top.
    labels : int (X, Y, Z)
        0 background, 1 necrosis and non-enhancing core, 2 oedema, 4 enhancing tumour.
    spacing : (3,) mm

    Returns
    -------
    Figure
        The patient's left is on the left of the picture; the letters say so.
    """
    where = np.argwhere(labels > 0) if labels.any() else np.argwhere(volume > volume.mean())
    middle = np.round(where.mean(axis=0)).astype(int)
    top = np.percentile(volume, 99.8)
    fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.9))
    mask = np.ma.masked_equal(labels, 0)
    for axis in (2, 1, 0):
        ax = axes[2 - axis]
        across, up = [a for a in range(3) if a != axis]
        extent = (0, volume.shape[across] * spacing[across], 0, volume.shape[up] * spacing[up])
        for array, options in (
            (volume, {"vmin": 0, "vmax": top}),
            (mask, {"cmap": _label_colours(), "vmin": 0, "vmax": 4, "alpha": 0.55}),
        ):
            picture = np.take(array, middle[axis], axis=axis).T
            ax.imshow(picture, origin="lower", extent=extent, **options)
        position = middle[axis] * spacing[axis]
        ax.set_title(f"{PLANES[axis]}, {position:.0f} mm")
        ax.set_xlabel("mm")
        ax.grid(False)
        for x, y, letter in zip(
            (0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.04, 0.96), PLANE_LETTERS[axis], strict=True
        ):
            ax.text(x, y, letter, transform=ax.transAxes, color="w", ha="center", va="center", fontsize=8)
    return fig


def _label_colours():
    return matplotlib.colors.ListedColormap(["#000000", *(LABEL_COLOURS[label] for label in range(1, 5))])


def plot_steps(steps: dict[str, np.ndarray]) -> Figure:
    """Draw the stages of preprocessing over their histograms of grey values.

    Parameters
    ----------
    steps : dict of str to float (H, W)
        In order.
    """
    fig, axes = plt.subplots(2, len(steps), figsize=(1.8 * len(steps), 3.2), height_ratios=(3, 1))
    for (name, image), (top, bottom) in zip(steps.items(), axes.T, strict=True):
        top.imshow(image, vmin=0, vmax=1)
        top.set_title(f"{name}\n{image.shape[0]} × {image.shape[1]} px", fontsize=8)
        top.axis("off")
        bottom.hist(image.ravel(), bins=32, range=(0, 1), color=COLOURS[0], log=True)
        bottom.set_yticks([])
        bottom.set_yticks([], minor=True)
        bottom.set_xlabel("grey value")
    return fig


def plot_curves(
    curves: dict[str, np.ndarray], ax: Axes | None = None, *, unit: str = "round", quantity: str = "accuracy"
) -> Axes:
    """Draw quantities over rounds or epochs: the mean over seeds, and their range as a band.

    Parameters
    ----------
    curves : dict of str to float (steps,) or (seeds, steps)
    ax : Axes, optional
    unit : str
        Of the horizontal axis.
    quantity : str
        Of the vertical axis; an accuracy is drawn in per cent.
    """
    ax = _axis(ax)
    for i, (name, values) in enumerate(curves.items()):
        values = np.atleast_2d(values)
        steps = np.arange(1, values.shape[1] + 1)
        colour, marker = COLOURS[i % len(COLOURS)], "o" if values.shape[1] <= 12 else None
        ax.plot(steps, values.mean(axis=0), label=name, color=colour, marker=marker, markersize=3)
        if len(values) > 1:
            ax.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, lw=0)
    if "accuracy" in quantity:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(unit)
    ax.set_ylabel(quantity)
    ax.legend()
    return ax


def plot_confusion(confusion: np.ndarray, class_names: tuple[str, ...], ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix: counts, shaded by the share of the true class.

    Parameters
    ----------
    confusion : int (C, C)
        Rows: truth; columns: prediction.
    class_names : tuple of str
    ax : Axes, optional
    """
    ax = _axis(ax, figsize=(3.6, 3.4))
    confusion = np.asarray(confusion)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(confusion):
        ax.text(j, i, str(count), ha="center", va="center", color="w" if share[i, j] > 0.55 else "k")
    ticks = range(len(class_names))
    ax.set_xticks(ticks, class_names, rotation=30, ha="right")
    ax.set_yticks(ticks, class_names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.grid(False)
    return ax


def plot_roc(
    labels: np.ndarray, logits: np.ndarray, class_names: tuple[str, ...], ax: Axes | None = None
) -> Axes:
    """Draw one receiver operating characteristic a class, each against the rest.

    Parameters
    ----------
    labels : int (N,)
    logits : float (N, C)
    class_names : tuple of str
    ax : Axes, optional
    """
    ax = _axis(ax, figsize=(3.6, 3.4))
    probabilities = softmax(np.asarray(logits))
    for c, name in enumerate(class_names):
        false_rate, true_rate, _ = roc_curve(labels == c, probabilities[:, c])
        ax.plot(false_rate, true_rate, color=COLOURS[c], label=name)
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls="--")
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    ax.set_aspect("equal")
    ax.legend(loc="lower right")
    return ax


def plot_contributions(records: list[dict], axes: np.ndarray | None = None) -> np.ndarray:
    """Draw what each hospital brings: its weight, its update, and the mean without it.

    Parameters
    ----------
    records : list of dict
        From `fedutils.federated.measure_contributions`.
    axes : ndarray of 3 Axes, optional
    """
    if axes is None:
        axes = plt.subplots(1, 3, figsize=(7.2, 2.5), sharey=True)[1]
    names = [f"hospital {k + 1}" for k in range(len(records))]
    panels = (
        ("share", "weight in the mean"),
        ("cosine", "cosine of its update\nwith the mean update"),
        ("accuracy_without", "validation accuracy\nafter one round without it"),
    )
    for ax, (key, label), colour in zip(axes, panels, COLOURS, strict=False):
        ax.barh(names, [record[key] for record in records], color=colour)
        ax.set_xlabel(label)
        ax.grid(axis="y", visible=False)
        if key != "cosine":
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].invert_yaxis()
    return axes
