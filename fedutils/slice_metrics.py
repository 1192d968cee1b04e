"""How well a network segments slices: quickly while it trains, and case by case on their own voxels."""

from collections.abc import Sequence

import keras
import numpy as np
from tqdm.auto import tqdm

from fedutils.data.segmentation import SliceSet
from fedutils.inference import predict_slices, segment
from fedutils.metrics import summarise
from fedutils.segmentation_metrics import compute_dice, compute_segmentation_metrics


def measure_validation(
    model: keras.Model, slices: SliceSet, chosen: Sequence[int], *, threshold: float = 0.5
) -> dict[str, float]:
    """Return the mean Dice of some cases at the size of the slices: enough to choose an epoch by.

    Parameters
    ----------
    model : keras.Model
        Gives logits of the regions.
    slices : SliceSet
    chosen : sequence of int
        Cases.
    threshold : float

    Returns
    -------
    dict
        ``dice``, the mean over cases of the mean over regions, and that of each region (``dice_wt``).
    """
    scores = []
    for case in chosen:
        own = slices.find(case)
        predicted = predict_slices(model, slices.x[own], progress=False) > threshold
        truth = slices.y[own] > 0
        scores.append([compute_dice(predicted[..., k], truth[..., k]) for k in range(truth.shape[-1])])
    means = np.mean(scores, axis=0)
    of_region = {f"dice_{name.lower()}": float(m) for name, m in zip(slices.regions, means, strict=True)}
    return {"dice": float(np.mean(means)), **of_region}


def measure_cases(
    model: keras.Model,
    slices: SliceSet,
    truths: Sequence[np.ndarray],
    chosen: Sequence[int],
    *,
    threshold: float = 0.5,
    flips: Sequence[int] = (),
    progress: bool = True,
) -> tuple[list[dict], list[np.ndarray]]:
    """Measure cases on their own voxels: the prediction is brought back to them, not the truth to slices.

    Parameters
    ----------
    model : keras.Model
        Gives logits of the regions.
    slices : SliceSet
    truths : sequence of bool (X, Y, Z, K)
        By case of `slices`, from `fedutils.data.segmentation.load_truth`.
    chosen : sequence of int
        Cases.
    threshold : float
    flips : sequence of int
        Test-time augmentation, see `fedutils.inference.predict_slices`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    metrics : list of dict
        Of each chosen case, see `fedutils.segmentation_metrics.compute_segmentation_metrics`.
    predicted : list of bool (X, Y, Z, K)
    """
    measured, found = [], []
    for case in tqdm(chosen, desc="measure", unit="case", delay=2, disable=not progress):
        own = slices.find(case)
        probabilities = predict_slices(model, slices.x[own], flips=flips, progress=False)
        predicted = segment(slices.restore(case, probabilities), threshold=threshold)
        spacing = slices.spacings[case]
        measured.append(compute_segmentation_metrics(predicted, truths[case], slices.regions, spacing))
        found.append(predicted)
    return measured, found


def summarise_seeds(summaries: Sequence[dict], metrics: Sequence[str]) -> dict[str, dict[str, dict]]:
    """Put the summaries of several seeds together.

    Parameters
    ----------
    summaries : sequence of dict
        One a seed, from `fedutils.segmentation_metrics.summarise_cases`.
    metrics : sequence of str

    Returns
    -------
    dict of str to dict of str to dict
        By metric and region: ``mean``, ``std`` and ``values`` over seeds of the means over cases
        (`fedutils.metrics.summarise`), the ``median`` of each seed, the ``interval`` of the first, and ``n``.
    """

    def put_together(told):
        over_seeds = summarise([one["mean"] for one in told])
        medians = [one["median"] for one in told]
        return over_seeds | {"median": medians, "interval": told[0]["interval"], "n": told[0]["n"]}

    return {
        metric: {
            region: put_together([summary[metric][region] for summary in summaries])
            for region in summaries[0][metric]
        }
        for metric in metrics
    }
