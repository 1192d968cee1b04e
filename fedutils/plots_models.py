"""Pictures of what models do: where they look, and where truth and prediction lie; see `fedutils.plots`.

Pictures are (H, W) as they are seen: the first row on top. Which side of the patient that is, the file says
or does not: `letters` name what stands at the left, right, bottom and top of a picture, such as
``PLANE_LETTERS[2]`` of `fedutils.plots` for an axial slice turned by `turn_slice`, or `RADIOLOGICAL` for the
pictures of `fedutils.data.segmentation`.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedutils.errors import InputError
from fedutils.plots import COLOURS

# Green and orange are apart for every reader; where both lines agree, the wider one shows beside the other.
_TRUTH, _PREDICTED = {"color": COLOURS[2], "lw": 2.4}, {"color": COLOURS[1], "lw": 1.0}
RADIOLOGICAL = ("R", "L", "P", "A")  # seen from the feet: the patient's right is on the left
_HEAT = "inferno"
_WIDTH = 7.2  # inches, of a page


def turn_slice(plane: np.ndarray) -> np.ndarray:
    """Turn a slice of a volume (RAS+), (across, up), to the picture (H, W) that `plots.plot_planes` shows."""
    return np.asarray(plane).T[::-1]


def plot_gradcam(
    images: np.ndarray, maps: np.ndarray, titles: Sequence[str], *, columns: int = 6, note: str = ""
) -> Figure:
    """Draw images, and under each the same image with its map of `fedutils.gradcam.compute_gradcam`.

    Parameters
    ----------
    images : float (N, H, W) or (N, H, W, 1)
        In [0, 1].
    maps : float (N, H, W)
        In [0, 1].
    titles : sequence of str
        One an image, such as the true and the predicted class.
    columns : int
        Images side by side.
    note : str
        Under the grid: what the reader must know of orientation and units.
    """
    images, maps = _check_pictures(images, maps, titles)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    fig, axes = plt.subplots(
        2 * rows, columns, figsize=(_WIDTH, 2 * rows * (_WIDTH - 0.6) / columns + 0.25 * rows), squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for i, (image, heat, title) in enumerate(zip(images, maps, titles, strict=True)):
        top, bottom = axes[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        for ax in (top, bottom):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        top.set_title(title, fontsize=8)
        shown = _show_heat(bottom, heat)
    bar = fig.colorbar(shown, ax=axes, shrink=0.5, aspect=30, pad=0.01, ticks=(0, 0.5, 1))
    bar.set_label("Grad-CAM, share of the image's maximum", fontsize=8)
    if note:
        fig.supxlabel(note, fontsize=7, color="0.35")
    return fig


def plot_attention(
    image: np.ndarray,
    maps: dict[str, np.ndarray],
    truth: np.ndarray | None = None,
    *,
    spacing: Sequence[float] | None = None,
    letters: Sequence[str] | None = None,
) -> Figure:
    """Draw an image and what the gates of an Attention U-Net let through at each level.

    Parameters
    ----------
    image : float (H, W)
        One modality; drawn from its 1st to its 99.8th percentile.
    maps : dict of str to float (H, W) or (H, W, 1)
        In [0, 1], from `fedutils.models.unet.build_attention_maps` with ``full_resolution``.
    truth : bool (H, W), optional
        Outlined on the image and on the maps.
    spacing : (2,) mm, optional
        Height and width of a pixel; without it axes are in pixels.
    letters : sequence of 4 str, optional
        At the left, right, bottom and top.
    """
    image = np.asarray(image)
    panels = {"image": image, **{name: np.asarray(m).reshape(image.shape) for name, m in maps.items()}}
    extent, unit = _measure_extent(image.shape, spacing)
    height = _WIDTH / len(panels) * (extent[3] / extent[1])
    fig, axes = plt.subplots(1, len(panels), figsize=(_WIDTH, height + 0.7), sharey=True, squeeze=False)
    for ax, (name, picture) in zip(axes.flat, panels.items(), strict=True):
        if name == "image":
            low, high = np.percentile(picture, (1, 99.8))
            _show(ax, picture, extent, vmin=low, vmax=high)
        else:
            shown = _show(ax, picture, extent, vmin=0, vmax=1, cmap=_HEAT)
        if truth is not None:
            _outline(ax, truth, extent, _TRUTH)
        ax.set_title(name.replace("_", " "), fontsize=8)
        ax.set_xlabel(unit)
        _write_letters(ax, letters)
    fig.colorbar(shown, ax=axes, shrink=0.8, aspect=25, pad=0.01).set_label("attention")
    if truth is not None:
        _write_legend(fig, truth=_TRUTH)
    return fig


def choose_cases(scores: Sequence[float]) -> dict[str, int]:
    """Choose the best, the median and the worst case.

    Parameters
    ----------
    scores : sequence of float
        One a case, greater is better; NaN or None, a case without a score, is not chosen.

    Returns
    -------
    dict of str to int
        Positions in `scores`. Of an even number the median is the lower of the middle two, a case that is
        really there; of equal scores the first comes first.

    Raises
    ------
    InputError
        If no case has a score.
    """
    values = np.array([np.nan if score is None else score for score in scores], np.float64)
    order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]
    if not len(order):
        raise InputError(f"scores: expected at least one number, found none in {len(values)}")
    best = int(np.flatnonzero(values == values[order[-1]])[0])
    return {"best": best, "median": int(order[(len(order) - 1) // 2]), "worst": int(order[0])}


def plot_cases(
    images: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    regions: Sequence[str] = ("tumour",),
    spacing: Sequence[float] | None = None,
    letters: Sequence[str] | None = None,
    margin: float | None = None,
) -> Figure:
    """Draw slices with the outlines of truth and prediction: a column a case, a row a region.

    Parameters
    ----------
    images : sequence of float (H, W)
        One modality; each is drawn from its 1st to its 99.8th percentile.
    truth, predicted : sequence of bool (H, W, K) or (H, W)
    titles : sequence of str
        One a case, such as "best: Dice 0.93" (`choose_cases`).
    regions : sequence of K str
    spacing : (2,) mm, optional
        Height and width of a pixel; without it axes are in pixels.
    letters : sequence of 4 str, optional
        At the left, right, bottom and top.
    margin : float, optional
        Show only this much, in mm or pixels, around truth and prediction; the whole slice by default.

    Raises
    ------
    InputError
        If there are not as many images, masks, titles and regions as there should be.
    """
    if not len(images) == len(truth) == len(predicted) == len(titles) > 0:
        raise InputError(
            "cases: expected as many images, truths, predictions and titles, found "
            f"{len(images)}, {len(truth)}, {len(predicted)} and {len(titles)}"
        )
    masks = []
    for image, *pair in zip(images, truth, predicted, strict=True):
        pair = [np.asarray(mask, bool).reshape(*np.shape(mask)[:2], -1) for mask in pair]
        if any(mask.shape != (*np.shape(image), len(regions)) for mask in pair):
            raise InputError(
                f"cases: expected masks of shape {(*np.shape(image), len(regions))}, found "
                f"{pair[0].shape} and {pair[1].shape}; name each region"
            )
        masks.append(pair)
    fig, axes = plt.subplots(
        len(regions),
        len(images),
        figsize=(_WIDTH, 0.9 + len(regions) * (_WIDTH - 0.6) / len(images)),
        squeeze=False,
    )
    for column, (image, pair, title) in enumerate(zip(images, masks, titles, strict=True)):
        extent, unit = _measure_extent(np.shape(image), spacing)
        low, high = np.percentile(image, (1, 99.8))
        for row in range(len(regions)):
            ax = axes[row, column]
            _show(ax, image, extent, vmin=low, vmax=high)
            _outline(ax, pair[0][..., row], extent, _TRUTH)
            _outline(ax, pair[1][..., row], extent, _PREDICTED)
            ax.tick_params(labelbottom=row == len(regions) - 1)
            if margin is not None:
                _zoom(ax, pair[0].any(axis=-1) | pair[1].any(axis=-1), extent, margin)
            _write_letters(ax, letters)
        axes[0, column].set_title(title, fontsize=9)
        axes[-1, column].set_xlabel(unit)
    for ax, region in zip(axes[:, 0], regions if len(regions) > 1 else (), strict=False):
        ax.set_ylabel(region)
    _write_legend(fig, truth=_TRUTH, prediction=_PREDICTED)
    return fig


def _check_pictures(images, maps, titles):
    """Return images and maps as (N, H, W), once there are as many of each as there are titles."""
    images, maps = np.asarray(images), np.asarray(maps)
    images = images[..., 0] if images.ndim == 4 else images
    if images.ndim != 3 or images.shape != maps.shape or len(images) != len(titles) or not len(images):
        raise InputError(
            f"images: expected images and maps (N, H, W) and N titles, found {images.shape}, {maps.shape} "
            f"and {len(titles)}"
        )
    return images, maps


def _measure_extent(shape, spacing):
    """Return the extent of a picture for imshow, row 0 on top, and its unit."""
    height, width = (n * s for n, s in zip(shape, spacing or (1, 1), strict=True))
    return (0, width, 0, height), "mm" if spacing else "px"


def _show(ax, picture, extent, **options):
    """Draw a picture with a ruler along its sides."""
    shown = ax.imshow(picture, extent=extent, **options)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=2, labelsize=7, pad=1)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    return shown


def _show_heat(ax, heat):
    """Draw a map over an image: see-through where it is low, so that the image stays readable."""
    return ax.imshow(heat, cmap=_HEAT, vmin=0, vmax=1, alpha=0.25 + 0.5 * np.asarray(heat))


def _outline(ax, mask, extent, line):
    """Outline a mask (H, W); nothing is drawn of an empty one."""
    mask = np.asarray(mask, bool).reshape(np.shape(mask)[:2])
    if not mask.any():
        return
    # Half a pixel of background around, so that the outline of a tumour at the border closes too.
    height, width = mask.shape
    x = (np.arange(-1, width + 1) + 0.5) * extent[1] / width
    y = extent[3] - (np.arange(-1, height + 1) + 0.5) * extent[3] / height
    ax.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=[line["color"]], linewidths=line["lw"])
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])


def _zoom(ax, mask, extent, margin):
    """Show the surroundings of a mask, in a square, so that all panels have one shape."""
    if not mask.any():
        return
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y = extent[3] * (1 - np.array([rows[-1] + 1, rows[0]]) / mask.shape[0])
    x = extent[1] * np.array([columns[0], columns[-1] + 1]) / mask.shape[1]
    half = max(np.ptp(x), np.ptp(y)) / 2 + margin
    ax.set_xlim(x.mean() - half, x.mean() + half)
    ax.set_ylim(y.mean() - half, y.mean() + half)


def _write_letters(ax, letters):
    """Name the sides of the patient at the left, right, bottom and top of a picture."""
    # Aligned by their outer sides, so that the whole letter lies within the smallest picture.
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.02, "center", "bottom"),
        (0.5, 0.98, "center", "top"),
    )
    for (x, y, across, up), letter in zip(places, letters or (), strict=bool(letters)):
        ax.text(x, y, letter, transform=ax.transAxes, color="w", ha=across, va=up, fontsize=8)


def _write_legend(fig, **lines):
    handles = [Line2D([], [], label=name, **line) for name, line in lines.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
