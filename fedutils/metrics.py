"""Metrics of a classifier in one flat record, and what calibration needs; every number with its interval.

References
----------
.. [1] B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993: percentile intervals.
.. [2] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
.. [3] G. W. Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review
   78(1), 1950.
"""

import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix

from fedutils.errors import InputError

NUM_BINS = 15  # of the calibration error, as in [2]_
_DRAWS = 2000
_CHUNK = 4_000_000  # draws times images that are in memory at a time


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 probabilities (N, C) of logits (N, C), stable for large values."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return shifted / shifted.sum(axis=1, keepdims=True)


def compute_classification_metrics(
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: tuple[str, ...],
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> dict:
    """Measure a classifier.

    Parameters
    ----------
    labels : int (N,)
        Index into `class_names`.
    logits : float (N, C)
        Finite. Pass ``logits / T`` for probabilities that are calibrated by a temperature.
    class_names : tuple of str
    groups : int (N,), optional
        Which images belong together, for example to one patient: the bootstrap then draws whole groups.
        Images of one patient are alike, so that intervals over images would be too narrow.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``n``; ``accuracy``; macro ``precision``, ``recall``, ``f1`` and ``auc`` (one class against the
        rest), the same under ``per_class``; ``ece``, the expected calibration error over 15 bins of equal
        width [2]_; ``nll``, the mean negative log-likelihood in nats; ``brier``, from 0 to 2 [3]_;
        ``reliability``, see `compute_reliability`; ``confusion`` (rows: truth, columns: prediction).

        ``intervals`` holds under the same names [low, high] of each, and under ``per_class`` those of each
        class: the 2.5 and 97.5 percentiles over 2,000 draws, with replacement, of as many images or groups as
        there are (``num_units``) [1]_. ``accuracy_interval`` is that of the accuracy once more. A draw
        without images of a class does not count for that class. The calibration error of a draw is larger
        than that of the sample in the mean, so that its interval may lie above it.

        A class that is never predicted has precision 0; a class without images has no recall, F1 or AUC
        (null) and does not count in the macro means. Of equally likely classes the first is predicted.

    Raises
    ------
    InputError
        If there is no image, or the arrays do not fit each other or the names.
    """
    labels, logits = np.asarray(labels), np.asarray(logits)
    _check(labels, logits, len(class_names), groups)
    probabilities = softmax(logits)
    features, columns = _list_features(labels, logits, probabilities)
    ones = np.ones((1, len(labels)))
    measured = {k: v[0] for k, v in _measure(ones, features, columns, labels, probabilities).items()}
    draws = {}
    for weights in _draw_weights(groups, len(labels), seed):
        for key, value in _measure(weights, features, columns, labels, probabilities).items():
            draws.setdefault(key, []).append(value)
    draws = {key: np.concatenate(parts) for key, parts in draws.items()}

    macro = [key for key in measured if measured[key].ndim == 0]
    of_class = [key for key in measured if measured[key].ndim == 1]
    support = np.bincount(labels, minlength=len(class_names))
    intervals = {key: _interval(measured[key], draws[key]) for key in macro}
    intervals = {key.removeprefix("macro_"): value for key, value in intervals.items()}
    intervals["per_class"] = {
        name: {key: _interval(measured[key][i], draws[key][:, i]) for key in of_class}
        for i, name in enumerate(class_names)
    }
    return {
        "n": len(labels),
        "accuracy_interval": intervals["accuracy"],
        **{key.removeprefix("macro_"): _number(measured[key]) for key in macro},
        "per_class": {
            name: {"n": int(support[i])} | {key: _number(measured[key][i]) for key in of_class}
            for i, name in enumerate(class_names)
        },
        "confusion": confusion_matrix(
            labels, probabilities.argmax(axis=1), labels=np.arange(len(class_names))
        ).tolist(),
        "reliability": compute_reliability(labels, probabilities),
        "intervals": intervals,
        "num_units": len(labels) if groups is None else len(np.unique(groups)),
    }


def compute_reliability(
    labels: np.ndarray, probabilities: np.ndarray, num_bins: int = NUM_BINS
) -> list[dict]:
    """Compare how sure a classifier is with how often it is right, bin by bin: a reliability diagram [2]_.

    Parameters
    ----------
    labels : int (N,)
    probabilities : float (N, C)
    num_bins : int
        Bin b holds the images whose largest probability is above b / num_bins, up to (b + 1) / num_bins.

    Returns
    -------
    list of dict
        One a bin: ``low``, ``high``, ``n``, and of its images mean ``confidence`` and ``accuracy``, both null
        in an empty bin. The expected calibration error is the mean over images of the bins' distances
        between the two.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = _find_bins(confidence, num_bins)
    records = []
    for b in range(num_bins):
        inside = bins == b
        n = int(inside.sum())
        records.append(
            {
                "low": b / num_bins,
                "high": (b + 1) / num_bins,
                "n": n,
                "confidence": float(confidence[inside].mean()) if n else None,
                "accuracy": float(correct[inside].mean()) if n else None,
            }
        )
    return records


def compare_accuracy(
    right: np.ndarray, reference: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0
) -> dict[str, float | list[float]]:
    """Compare two classifiers on the same images, trained with the same seeds.

    Parameters
    ----------
    right, reference : bool (S, N)
        Which images the network of each seed classified rightly.
    groups : int (N,), optional
        As of `compute_classification_metrics`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``difference`` of the accuracies, mean over seeds; ``by_seed``; ``interval``, the 2.5 and 97.5
        percentiles of the difference over draws of images, the same ones for both: what other test images
        of the same kind would do to it. It holds for these networks: other seeds would add to it.

    Raises
    ------
    InputError
        If the arrays do not fit each other.
    """
    right, reference = np.atleast_2d(right), np.atleast_2d(reference)
    if right.shape != reference.shape or right.ndim != 2 or not right.size:
        raise InputError(
            f"right and reference: expected one shape (seeds, images), found {right.shape} and "
            f"{reference.shape}; give both for the same seeds and images"
        )
    gain = right.astype(np.float64) - reference
    of_image = gain.mean(axis=0)
    chunks = _draw_weights(groups, right.shape[1], seed)
    draws = np.concatenate([(weights @ of_image) / weights.sum(axis=1) for weights in chunks])
    return {
        "difference": float(gain.mean()),
        "by_seed": gain.mean(axis=1).tolist(),
        "interval": np.percentile(draws, [2.5, 97.5]).tolist(),
    }


def summarise(values: list[float]) -> dict[str, float]:
    """Return mean, standard deviation (n - 1; 0 for one value) and the values over seeds."""
    array = np.asarray(values, np.float64)
    return {
        "mean": float(array.mean()),
        "std": float(array.std(ddof=1)) if len(array) > 1 else 0.0,
        "values": array.tolist(),
    }


def _check(labels, logits, num_classes, groups):
    """Raise InputError where the arrays do not fit."""
    if labels.ndim != 1 or not len(labels) or logits.shape != (len(labels), num_classes):
        raise InputError(
            f"labels and logits: expected shapes (N,) and (N, {num_classes}) of at least one image, found "
            f"{labels.shape} and {logits.shape}; give one row of logits an image, one column a class name"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels: expected integers from 0 to {num_classes - 1}, found {labels.dtype} from "
            f"{labels.min()} to {labels.max()}; give the index of each image's class"
        )
    if not np.isfinite(logits).all():
        raise InputError(
            f"logits: expected finite numbers, found {int((~np.isfinite(logits)).sum())} that are not; "
            "look for a training run that diverged"
        )
    if groups is not None and np.shape(groups) != labels.shape:
        raise InputError(
            f"groups: expected one number an image, shape {labels.shape}, found {np.shape(groups)}; "
            "give the index of each image's patient"
        )


def _find_bins(confidence, num_bins):
    return np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)


def _draw_weights(groups, num_images, seed):
    """Yield, a chunk of draws at a time, how often each image was drawn, float64 (draws, N)."""
    units = np.arange(num_images) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_units = units.max() + 1
    rng = np.random.default_rng([seed, 4])
    chunk = max(_CHUNK // num_images, 1)
    for start in range(0, _DRAWS, chunk):
        count = min(chunk, _DRAWS - start)
        drawn = rng.integers(0, num_units, (count, num_units))
        drawn += np.arange(count)[:, np.newaxis] * num_units
        times = np.bincount(drawn.ravel(), minlength=count * num_units).reshape(count, num_units)
        yield times[:, units].astype(np.float64)


def _list_features(labels, logits, probabilities):
    """Return what of each image adds up, float64 (N, F), and which columns are what.

    Every metric but the AUC is a function of sums over images, so that all draws are one matrix product.
    """
    count, num_classes = probabilities.shape
    predicted, rows = probabilities.argmax(axis=1), np.arange(count)
    pairs = np.zeros((count, num_classes**2))
    pairs[rows, labels * num_classes + predicted] = 1
    confidence = probabilities.max(axis=1)
    surplus = np.zeros((count, NUM_BINS))
    surplus[rows, _find_bins(confidence, NUM_BINS)] = (predicted == labels) - confidence
    losses = -log_softmax(logits.astype(np.float64), axis=1)[rows, labels]
    brier = ((probabilities - np.eye(num_classes)[labels]) ** 2).sum(axis=1)
    parts = {"pairs": pairs, "surplus": surplus, "nll": losses[:, None], "brier": brier[:, None]}
    ends = np.cumsum([part.shape[1] for part in parts.values()])
    starts = [0, *ends[:-1]]
    columns = {key: slice(a, b) for key, a, b in zip(parts, starts, ends, strict=True)}
    return np.concatenate(list(parts.values()), axis=1), columns


def _measure(weights, features, columns, labels, probabilities):
    """Measure each draw: weights (D, N) to arrays (D,) and, of classes, (D, C); NaN where undefined."""
    num_classes = probabilities.shape[1]
    total = weights.sum(axis=1)
    sums = {key: (weights @ features)[:, column] for key, column in columns.items()}
    confusion = sums["pairs"].reshape(-1, num_classes, num_classes)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, claimed = confusion.sum(axis=2), confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(claimed > 0, right / claimed, 0.0)
        recall = right / truth  # NaN where the class has no image
        f1 = np.where(truth > 0, 2 * right / (truth + claimed), np.nan)
    of_class = {"precision": precision, "recall": recall, "f1": f1}
    of_class["auc"] = np.stack(
        [_compute_auc(weights, labels == i, probabilities[:, i]) for i in range(num_classes)], axis=1
    )
    macro = {}
    for key, values in of_class.items():
        counts = (truth > 0) & np.isfinite(values)
        added = np.where(counts, values, 0).sum(axis=1)
        with np.errstate(invalid="ignore"):
            macro[f"macro_{key}"] = added / counts.sum(axis=1)
    return {
        "accuracy": right.sum(axis=1) / total,
        **macro,
        "ece": np.abs(sums["surplus"]).sum(axis=1) / total,
        "nll": sums["nll"][:, 0] / total,
        "brier": sums["brier"][:, 0] / total,
        **of_class,
    }


def _compute_auc(weights, positive, score):
    """Return the area under the ROC curve of each draw, (D,): the share of pairs in order, ties half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of each distinct score
    ups = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    downs = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = np.cumsum(downs, axis=1) - downs / 2
    pairs = ups.sum(axis=1) * downs.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (ups * below).sum(axis=1) / pairs


def _number(value):
    return float(value) if np.isfinite(value) else None


def _interval(value, draws):
    """Return [low, high], or None where the metric itself is undefined."""
    if not np.isfinite(value):
        return None
    return np.percentile(draws[np.isfinite(draws)], [2.5, 97.5]).tolist()
