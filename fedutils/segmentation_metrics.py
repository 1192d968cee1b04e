"""Metrics of a segmentation, region by region: Dice, 95 % Hausdorff distance, sensitivity, specificity.

A mask may be empty: many cases have no enhancing tumour. What each metric then is, is a choice that moves the
mean over cases. Here it is that of BraTS, which is also that of nnU-Net's BraTS evaluation [3]_:

=====================  ====  =====================  ===========  ===========
mask                   Dice  HD95                   sensitivity  specificity
=====================  ====  =====================  ===========  ===========
both empty             1     0                      None         1
only the truth empty   0     diagonal of the grid   None         as it is
only the prediction    0     diagonal of the grid   0            1
=====================  ====  =====================  ===========  ===========

None means undefined: such a case does not count in the mean. BraTS writes 373.13 mm for the diagonal, which
is that of its grid of 240x240x155 voxels of 1 mm.

References
----------
.. [1] S. Bakas et al., "Identifying the Best Machine Learning Algorithms for Brain Tumor Segmentation,
   Progression Assessment, and Overall Survival Prediction in the BRATS Challenge", 2018.
.. [2] A. A. Taha, A. Hanbury, "Metrics for evaluating 3D medical image segmentation: analysis, selection, and
   tool", BMC Medical Imaging 15(29), 2015.
.. [3] F. Isensee et al., "nnU-Net for Brain Tumor Segmentation", BrainLes 2020.
.. [4] A. Reinke et al., "Understanding metric-related pitfalls in image analysis validation", Nature Methods
   21, 2024.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, stats

from fedutils.errors import InputError

Spacing = tuple[float, ...] | None


def compute_dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice coefficient of two masks, bool (*sides): 1 if both are empty, 0 if only one is."""
    _check_masks(predicted, truth)
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0


def compute_sensitivity(predicted: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the fraction of the truth that was found, or None if the truth, bool (*sides), is empty."""
    _check_masks(predicted, truth)
    positive = int(truth.sum())
    return int((predicted & truth).sum()) / positive if positive else None


def compute_specificity(predicted: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the fraction of the background that was left out, or None if the truth, bool (*sides), is full.

    It counts all the background, so it is near 1 for any small tumour and falls when an image is cropped.
    """
    _check_masks(predicted, truth)
    negative = truth.size - int(truth.sum())
    return int((~predicted & ~truth).sum()) / negative if negative else None


def compute_accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the fraction of equal voxels of two masks, bool (*sides).

    It says nothing about a segmentation [4]_: most voxels are background. Where the tumour takes 4 % of the
    voxels, an empty prediction has accuracy 0.96, and Dice 0.
    """
    _check_masks(predicted, truth)
    return float((predicted == truth).mean())


def compute_hd95(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing: Spacing = None,
    *,
    penalty: float | str | None = "diagonal",
    percentile: float = 95.0,
) -> float | None:
    """Return the 95 % Hausdorff distance of two masks.

    Distances run from every surface voxel of one mask to the nearest surface voxel of the other, centre to
    centre. A surface voxel is one of the mask with a face on the background or on the edge of the grid. The
    larger of the two directed 95th percentiles (linear between ranks) counts, as in MONAI. medpy takes one
    percentile of both directions together, in which a large surface outvotes a small one.

    Parameters
    ----------
    predicted, truth : bool (*sides)
        In 2-D or 3-D.
    spacing : (2,) or (3,) mm, optional
        Sides of a voxel. Without it the distance is in voxels.
    penalty : "diagonal", float or None
        What it is if only one mask is empty. "diagonal" of the grid, the largest distance there is room for,
        is BraTS's rule; a cropped or resampled grid has another, so measure on that of the case. A number, in
        the unit of the result, is returned as it is. With None the case does not count, and it pays to
        predict nothing.
    percentile : float
        100 for the plain Hausdorff distance.

    Returns
    -------
    float or None
        In mm, or in voxels without `spacing`; 0 if both masks are empty; None only by `penalty`.

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    _check_masks(predicted, truth)
    sides = _check_spacing(spacing, predicted.ndim)
    if isinstance(penalty, str) and penalty != "diagonal":
        raise InputError(
            f'penalty: expected "diagonal", a number or None, found {penalty!r}; choose one of them'
        )
    if not 0 <= percentile <= 100:
        raise InputError(f"percentile: expected a number from 0 to 100, found {percentile!r}; 95 is usual")
    empty = (not predicted.any(), not truth.any())
    if all(empty):
        return 0.0
    if any(empty):
        if penalty == "diagonal":
            return float(np.linalg.norm(np.multiply(predicted.shape, sides)))
        return penalty
    # The smallest box that holds both: all surfaces lie in it, so nothing outside it matters.
    box = ndimage.find_objects((predicted | truth).view(np.uint8))[0]
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (predicted, truth)]
    directed = [_measure_distances(start, end, sides) for start, end in (surfaces, surfaces[::-1])]
    return float(max(np.percentile(distances, percentile) for distances in directed))


def compute_segmentation_metrics(
    predicted: np.ndarray,
    truth: np.ndarray,
    regions: Sequence[str],
    spacing: Spacing = None,
    *,
    penalty: float | str | None = "diagonal",
) -> dict[str, dict[str, float | None]]:
    """Measure the segmentation of one case.

    Parameters
    ----------
    predicted, truth : bool (*sides, K)
        Masks of the regions, in 2-D or 3-D, on the last axis.
    regions : sequence of K str
        Their names, such as `fedutils.data.regions.REGIONS`.
    spacing : (2,) or (3,) mm, optional
        Sides of a voxel.
    penalty : "diagonal", float or None
        See `compute_hd95`.

    Returns
    -------
    dict of str to dict
        ``dice``, ``hd95_mm`` (without `spacing` ``hd95_voxels``), ``sensitivity``, ``specificity`` and
        ``accuracy``, each a dict by region; None where undefined (see the head of this module).

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    _check_masks(predicted, truth, with_regions=True)
    if len(regions) != predicted.shape[-1]:
        raise InputError(
            f"regions: expected {predicted.shape[-1]} names, one for each channel of the masks, found "
            f"{', '.join(regions) or 'none'}; name them all, with the regions on the last axis"
        )
    pairs = {name: (predicted[..., i], truth[..., i]) for i, name in enumerate(regions)}
    unit = "voxels" if spacing is None else "mm"
    return {
        "dice": {name: compute_dice(*pair) for name, pair in pairs.items()},
        f"hd95_{unit}": {name: compute_hd95(*pair, spacing, penalty=penalty) for name, pair in pairs.items()},
        "sensitivity": {name: compute_sensitivity(*pair) for name, pair in pairs.items()},
        "specificity": {name: compute_specificity(*pair) for name, pair in pairs.items()},
        "accuracy": {name: compute_accuracy(*pair) for name, pair in pairs.items()},
    }


def summarise_cases(
    cases: Sequence[dict[str, dict[str, float | None]]],
    *,
    patients: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> dict[str, dict[str, dict]]:
    """Summarise a metric over cases, with an interval over patients.

    Parameters
    ----------
    cases : sequence of dict
        From `compute_segmentation_metrics`, of the same regions and the same unit.
    patients : sequence of str, optional
        Whose each case is. The bootstrap draws patients, since the cases of one patient (time points, slices)
        resemble each other. By default every case is a patient.
    seed : int
        Of the bootstrap.
    draws : int
        How often the patients are drawn.

    Returns
    -------
    dict of str to dict of str to dict
        By metric and region: ``mean`` over cases, ``std`` (n - 1; 0 for one case), ``median``, ``n`` cases,
        ``n_defined`` of them that count, and ``interval``, the 95 % percentile interval of the mean over
        resampled patients. None where there is nothing to compute it from: no case that counts, or, for the
        interval, a single patient.

    Raises
    ------
    InputError
        If there are no cases, they do not agree, or `patients` are not as many.
    """
    if not cases:
        raise InputError("cases: expected at least one, found none; measure a case first")
    layouts = [{metric: tuple(values) for metric, values in case.items()} for case in cases]
    for i, layout in enumerate(layouts):
        if layout != layouts[0]:
            raise InputError(
                f"cases: expected the same metrics and regions in all, found {layout} in case {i} and "
                f"{layouts[0]} in case 0; measure all in mm or all in voxels"
            )
    if patients is not None and len(patients) != len(cases):
        raise InputError(
            f"patients: expected {len(cases)}, one for each case, found {len(patients)}; name every patient"
        )
    groups = np.arange(len(cases)) if patients is None else np.unique(patients, return_inverse=True)[1]
    return {
        metric: {
            region: _summarise([case[metric][region] for case in cases], groups, seed, draws)
            for region in regions
        }
        for metric, regions in layouts[0].items()
    }


def _summarise(values, groups, seed, draws):
    """Summarise one metric of one region; `groups` are the indices of the patients."""
    defined = np.array([value is not None for value in values])
    known = np.array([value for value in values if value is not None], np.float64)
    _, patient = np.unique(groups[defined], return_inverse=True)
    sums, counts = np.bincount(patient, weights=known), np.bincount(patient)
    interval = None
    if len(sums) > 1:
        low, high = stats.bootstrap(
            (sums, counts),
            lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=draws,
            method="percentile",
            rng=np.random.default_rng([seed, 6]),
        ).confidence_interval
        interval = (float(low), float(high))
    return {
        "mean": float(known.mean()) if len(known) else None,
        "std": float(known.std(ddof=1)) if len(known) > 1 else (0.0 if len(known) else None),
        "median": float(np.median(known)) if len(known) else None,
        "n": len(values),
        "n_defined": len(known),
        "interval": interval,
    }


def _measure_distances(start, end, sides):
    """Return the distance of each voxel of `start` to the nearest of `end`, float64 (n,)."""
    # The nearest voxels alone: distances everywhere would take three times as long and more memory.
    nearest = ndimage.distance_transform_edt(~end, sides, return_distances=False, return_indices=True)
    points = np.nonzero(start)
    steps = nearest[(slice(None), *points)] - np.array(points)  # (rank, n)
    return np.linalg.norm(steps * np.array(sides)[:, None], axis=0)


def _check_masks(predicted, truth, with_regions=False):
    ranks, axes = ((3, 4), "(*sides, regions)") if with_regions else ((2, 3), "(*sides)")
    for name, mask in (("predicted", predicted), ("truth", truth)):
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            found = getattr(mask, "dtype", type(mask).__name__)
            raise InputError(f"{name}: expected an array of dtype bool, found {found}; set a threshold")
        if mask.ndim not in ranks or not mask.size:
            raise InputError(
                f"{name}: expected {axes} with 2 or 3 sides, found shape {mask.shape}; pass one case"
            )
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted: expected the truth's shape {truth.shape}, found {predicted.shape}; resample it"
        )


def _check_spacing(spacing, rank):
    if spacing is None:
        return (1.0,) * rank
    sides = np.asarray(spacing, np.float64)
    if sides.shape != (rank,) or not np.isfinite(sides).all() or (sides <= 0).any():
        raise InputError(
            f"spacing: expected {rank} positive lengths in mm, found {spacing!r}; see the image's header"
        )
    return tuple(sides.tolist())
