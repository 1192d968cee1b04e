"""Inference over whole images and volumes: sliding windows, mirroring, and regions on the voxels of the case.

A volume that a network cannot take at once is predicted window by window, as in nnU-Net [1]_ and MONAI [2]_:
windows overlap, and a Gaussian lets each count most at its middle, where the network sees most around a
voxel. Both add up and divide by the sum of the Gaussians, a second volume. Here each axis is divided by its
own sum before anything is predicted: the weights of a voxel add up to 1, and only the result is kept.

Every average, over windows and over mirrorings, is of probabilities, not of logits. A logit has no bound, so
that one view that is sure, and wrong, outvotes all others; of probabilities each view has one vote.

References
----------
.. [1] F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
   segmentation", Nature Methods 18, 2021.
.. [2] M. J. Cardoso et al., "MONAI: An open-source framework for deep learning in healthcare", 2022.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import itertools
from collections.abc import Sequence

import keras
import numpy as np
from scipy import ndimage, special
from tqdm.auto import tqdm

from fedutils.data.case import Case
from fedutils.data.regions import REGIONS, regions_to_labels
from fedutils.data.volume_prepare import prepare_case
from fedutils.data.volume_recipes import Recipe
from fedutils.errors import InputError
from fedutils.models.blocks import check_at_least, check_choice
from fedutils.windows import check_input, choose_window, pad_sides, place_windows

_ACTIVATIONS = {
    "sigmoid": special.expit,
    "softmax": lambda logits: special.softmax(logits, axis=-1),
    "none": np.array,  # a copy: what the model gave is not written to
}


def predict_volume(
    model: keras.Model,
    x: np.ndarray,
    *,
    window: Sequence[int] | None = None,
    overlap: float = 0.5,
    batch_size: int = 1,
    activation: str = "sigmoid",
    flips: Sequence[int] = (),
    progress: bool = True,
) -> np.ndarray:
    """Predict a volume, or an image, of any size by overlapping windows.

    Windows are spread evenly, the first at the start of each axis and the last at its end. An axis shorter
    than the window is padded with 0, which is background, on both sides; the padding is cut off the result.

    Parameters
    ----------
    model : keras.Model
        One input (B, *sides, C); its first output, (B, *sides, K), is the prediction, others (deep
        supervision) are ignored.
    x : float (*sides, C)
        Two or three sides, as the model takes.
    window : sequence of int, optional
        Sides of a window in voxels, divisible by what `fedutils.windows.find_divisor` finds. By default the
        sides that the model was built for; where they are None, the whole axis, padded until divisible.
    overlap : float
        Share of a window that its neighbour covers at least, in [0, 1).
    batch_size : int
        Windows predicted at once.
    activation : {"sigmoid", "softmax", "none"}
        Of the model's output, before anything is averaged; "none" if it gives probabilities itself.
    flips : sequence of int
        Test-time augmentation: sides, counted from 0, along which every window is mirrored too, alone and
        together; n of them give the mean of ``2 ** n`` predictions, in as many times the seconds.
    progress : bool
        Show a progress bar if it takes longer than two seconds.

    Returns
    -------
    float32 (*sides, K)
        Probabilities in [0, 1]; with "none", what the model gives.

    Raises
    ------
    InputError
        If an argument is not as described, or a value of `x` is not finite.

    Notes
    -----
    Memory beside the model's own: 4 K bytes a voxel (107 MB for 3 regions of 240 x 240 x 155), 4 (C + 3 K)
    a voxel of a batch, and a float32 copy of `x` if it is padded or of another type.
    """
    check_at_least("batch_size", batch_size, 1)
    x = check_input(model, x, flips, batched=False)
    if not 0 <= overlap < 1:
        raise InputError(f"overlap: expected a number in [0, 1), found {overlap!r}")
    window = choose_window(model, x.shape[:-1], window)
    x, inner = pad_sides(x, window)
    axes = [place_windows(side, w, overlap) for side, w in zip(x.shape, window, strict=False)]
    jobs, result = list(itertools.product(*axes)), None
    with _build_bar(len(jobs), "window", progress) as bar:
        for first in range(0, len(jobs), batch_size):
            chosen = jobs[first : first + batch_size]
            places = [tuple(slice(start, start + len(w)) for start, w in job) for job in chosen]
            batch = _predict(model, np.stack([x[place] for place in places]), activation, flips)
            if result is None:
                result = np.zeros((*x.shape[:-1], batch.shape[-1]), np.float32)
            for values, place, job in zip(batch, places, chosen, strict=True):
                for axis, (_, weights) in enumerate(job):
                    values *= weights.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
                result[place] += values
            bar.update(len(chosen))
    if activation != "none":
        np.clip(result, 0, 1, out=result)  # rounding: 1 + 1e-7
    return result[inner]


def predict_slices(
    model: keras.Model,
    x: np.ndarray,
    *,
    batch_size: int = 16,
    activation: str = "sigmoid",
    flips: Sequence[int] = (),
    progress: bool = True,
) -> np.ndarray:
    """Predict each image of a stack whole, padded with 0 where the model asks for divisible sides.

    Parameters
    ----------
    model, activation, flips, progress
        As of `predict_volume`; `flips` are of 0, from top to bottom, and 1, from left to right.
    x : float (N, H, W, C)
    batch_size : int
        Images predicted at once.

    Returns
    -------
    float32 (N, H, W, K)
        As of `predict_volume`.

    Raises
    ------
    InputError
        As of `predict_volume`; or if the images are too large for a model built for one size.
    """
    check_at_least("batch_size", batch_size, 1)
    x = check_input(model, x, flips, batched=True)
    window = choose_window(model, sides := x.shape[1:-1], None)
    if any(side > w for side, w in zip(sides, window, strict=True)):
        raise InputError(f"x: expected images of at most {window} pixels, found {sides}; use predict_volume")
    result = None
    with _build_bar(len(x), "slice", progress) as bar:
        for first in range(0, len(x), batch_size):
            padded, inner = pad_sides(x[first : first + batch_size], window, batched=True)
            batch = _predict(model, padded, activation, flips)[inner]
            if result is None:
                result = np.empty((len(x), *batch.shape[1:]), np.float32)
            result[first : first + len(batch)] = batch
            bar.update(len(batch))
    return result


def predict_classes(
    model: keras.Model,
    x: np.ndarray,
    *,
    batch_size: int = 128,
    activation: str = "softmax",
    flips: Sequence[int] = (),
) -> np.ndarray:
    """Return a classifier's probabilities, float32 (N, classes), for images (N, H, W, C).

    `flips` as of `predict_slices`: (1,) is the mean over each image and its mirror image.
    """
    check_at_least("batch_size", batch_size, 1)
    x = check_input(model, x, flips, batched=True, exact=True)
    starts = range(0, len(x), batch_size)
    return np.concatenate([_predict(model, x[i : i + batch_size], activation, flips) for i in starts])


def segment(
    probabilities: np.ndarray,
    *,
    threshold: float | Sequence[float] = 0.5,
    smallest: float | Sequence[float] = 0.0,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Turn probabilities into regions, and drop components too small to be believed.

    Parameters
    ----------
    probabilities : float (*sides, K)
        In [0, 1]. The slices of one patient, (N, H, W, K), are a volume too.
    threshold : float or K float
        A voxel above it belongs to the region.
    smallest : float or K float
        Components of a smaller volume are removed, in mm³; in voxels without `spacing`. Voxels that touch at
        a face, an edge or a corner are of one component. ``(0, 0, v)`` does so in ET alone: in BraTS, a case
        without ET scores 0 there for a single voxel. What is removed stays in TC, as necrosis. nnU-Net
        empties an ET whose components are below v together; this does so too.
    spacing : sequence of float, optional
        Sides of a voxel, in mm.

    Returns
    -------
    bool (*sides, K)

    Raises
    ------
    InputError
        If values are outside [0, 1], or thresholds, volumes or sides are not as many as they should be.
    """
    probabilities = np.asarray(probabilities, np.float32)
    rank, count = probabilities.ndim - 1, probabilities.shape[-1]
    if probabilities.size and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise InputError(
            f"probabilities: expected values in [0, 1], found {probabilities.min():g} to "
            f"{probabilities.max():g}; apply a sigmoid to logits"
        )
    if spacing is not None and len(spacing) != rank:
        raise InputError(f"spacing: expected {rank} sides in mm, found {tuple(spacing)}")
    for name, value in (("threshold", threshold), ("smallest", smallest)):
        if np.ndim(value) and len(value) != count:
            raise InputError(f"{name}: expected one number or {count}, found {tuple(value)}")
    regions = probabilities > np.float32(threshold)
    voxel = 1.0 if spacing is None else float(np.prod(spacing))
    for k, least in enumerate(np.broadcast_to(smallest, count)):
        if least > 0:
            components, _ = ndimage.label(regions[..., k], np.ones((3,) * rank))
            kept = np.bincount(components.ravel()) * voxel >= least
            regions[..., k] &= kept[components]
    return regions


def segment_case(
    model: keras.Model,
    case: Case,
    recipe: Recipe,
    *,
    threshold: float | Sequence[float] = 0.5,
    smallest: float | Sequence[float] = 0.0,
    **options,
) -> np.ndarray:
    """Read, prepare and predict a case, and put the labels on its own voxels.

    Parameters
    ----------
    model : keras.Model
        Of volumes; three outputs are WT, TC and ET, one is the whole tumour.
    case : Case
    recipe : Recipe
        That the model was trained with.
    threshold, smallest
        See `segment`, on the voxels of the recipe.
    **options
        See `predict_volume`: window, overlap, batch_size, flips, progress.

    Returns
    -------
    uint8 (X, Y, Z)
        0, 1, 2 and 4 as in BraTS, or 0 and 1; 0 outside of what the recipe keeps.

    Raises
    ------
    InputError
        If the case cannot be prepared or predicted, or the model has another number of outputs.
    """
    prepared = prepare_case(case, recipe)
    probabilities = predict_volume(model, prepared.images, **options)
    if (count := probabilities.shape[-1]) not in (1, len(REGIONS)):
        raise InputError(
            f"model {model.name!r}: expected 1 output or {len(REGIONS)} ({', '.join(REGIONS)}), found {count}"
        )
    found = segment(probabilities, threshold=threshold, smallest=smallest, spacing=prepared.spacing)
    regions = np.moveaxis(found, -1, 0)
    return prepared.restore(regions_to_labels(regions) if count > 1 else regions[0].astype(np.uint8))


def _build_bar(total, unit, progress):
    return tqdm(total=total, desc="predict", unit=unit, delay=2, disable=not progress)  # seconds


def _predict(model, batch, activation, flips):
    """Return the mean probabilities of a batch and its mirror images: a new float32 array."""
    views = [axes for n in range(len(flips) + 1) for axes in itertools.combinations(flips, n)]
    check_choice("activation", activation, tuple(_ACTIVATIONS))
    total = None
    for axes in views:
        axes = tuple(axis + 1 for axis in axes)  # after the axis of the batch
        outputs = model.predict_on_batch(np.flip(batch, axes))
        values = _ACTIVATIONS[activation](np.asarray(keras.tree.flatten(outputs)[0], np.float32))
        if values.ndim == batch.ndim:  # a picture, not classes
            values = np.flip(values, axes)
        total = values if total is None else total + values
    return total if len(views) == 1 else total / np.float32(len(views))
