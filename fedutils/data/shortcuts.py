"""Source shortcuts: how well a picture's size, mode, file size or brightness alone tells its class or split.

A small decision tree sees nothing but those few numbers. What it gets right above chance, a network can get
right without looking at a tumour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedutils.data.image_record import ImageRecord
from fedutils.data.splits import fold_groups

NUM_FOLDS = 5
MIN_GROUPS = 10  # of each label: below, an interval says nothing
WARN_ABOVE = 0.1  # of the way from chance to certainty, by the lower end of the interval
_DEPTH = 4
_Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Shortcut:
    """How well one kind of feature alone predicts one target, out of fold.

    Attributes
    ----------
    target : str
        ``class`` or ``split``.
    feature : str
        A key of `make_features`.
    score, low, high : float
        Balanced accuracy (the mean of the labels' recalls) and its 95 % interval.
    chance : float
        Balanced accuracy of guessing: 1 / number of labels.
    accuracy, majority : float
        Share predicted right, and the share of the most frequent label.
    """

    target: str
    feature: str
    score: float
    low: float
    high: float
    chance: float
    accuracy: float
    majority: float

    @property
    def is_found(self) -> bool:
        """Whether the feature tells clearly more than chance."""
        return self.low - self.chance > WARN_ABOVE * (1 - self.chance)


def make_features(records: Sequence[ImageRecord]) -> dict[str, np.ndarray]:
    """Collect what can be known of images without seeing what they show.

    Returns
    -------
    dict of str to float64 (N, F)
        ``size in pixels``, ``mode``, ``size of the file``, ``brightness`` (mean, deviation and
        percentiles of the grey values), and ``all together``.
    """
    modes = sorted({record.mode for record in records})
    features = {
        "size in pixels": [(r.width, r.height, r.width / r.height) for r in records],
        "mode": [[r.mode == mode for mode in modes] for r in records],
        "size of the file": [(r.num_bytes, r.num_bytes / (r.width * r.height)) for r in records],
        "brightness": [(r.mean, r.deviation, *r.percentiles) for r in records],
    }
    arrays = {name: np.asarray(rows, np.float64) for name, rows in features.items()}
    arrays["all together"] = np.concatenate(list(arrays.values()), axis=1)
    return arrays


def measure_shortcut(
    target: str, feature: str, x: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seed: int
) -> Shortcut | None:
    """Measure how well features predict labels, by cross-validation that never parts a group.

    Parameters
    ----------
    target, feature : str
        Names for the result.
    x : float (N, F)
    labels : (N,)
    groups : int (N,)
        Near copies share one, so that a copy cannot vouch for itself.
    seed : int

    Returns
    -------
    Shortcut or None
        None if there is one label only, or a label has fewer than `MIN_GROUPS` groups.

    Notes
    -----
    The interval is normal, with the variance of Agresti and Coull for each recall over its number of groups,
    not of images. Patients are not known in every data set: several slices of one make the true interval
    wider.
    """
    from sklearn.tree import DecisionTreeClassifier

    names, y = np.unique(labels, return_inverse=True)
    sizes = np.asarray([len(np.unique(groups[y == c])) for c in range(len(names))])
    if len(names) < 2 or sizes.min() < MIN_GROUPS:
        return None
    predicted = np.empty_like(y)
    for train, held in fold_groups(y, groups, num_folds=NUM_FOLDS, seed=seed):
        tree = DecisionTreeClassifier(
            max_depth=_DEPTH,
            min_samples_leaf=max(2, len(y) // 500),
            class_weight="balanced",
            random_state=seed,
        )
        predicted[held] = tree.fit(x[train], y[train]).predict(x[held])
    recall = np.asarray([(predicted[y == c] == c).mean() for c in range(len(names))])
    score = float(recall.mean())
    moved = (recall * sizes + 2) / (sizes + 4)  # a recall of 1 of few is not certain
    error = _Z * float(np.sqrt((moved * (1 - moved) / (sizes + 4)).sum())) / len(names)
    return Shortcut(
        target=target,
        feature=feature,
        score=score,
        low=max(0.0, score - error),
        high=min(1.0, score + error),
        chance=1 / len(names),
        accuracy=float((predicted == y).mean()),
        majority=float(np.bincount(y).max() / len(y)),
    )


def measure_shortcuts(
    records: Sequence[ImageRecord], targets: dict[str, np.ndarray], groups: np.ndarray, *, seed: int
) -> tuple[Shortcut, ...]:
    """Measure every kind of feature against every target that has enough images of each label.

    Parameters
    ----------
    records : list of ImageRecord, N of them
    targets : dict of str to (N,)
        For example ``class`` and ``split``.
    groups : int (N,)
    seed : int
    """
    features = make_features(records)
    found = [
        measure_shortcut(target, feature, x, labels, groups, seed=seed)
        for target, labels in targets.items()
        for feature, x in features.items()
    ]
    return tuple(shortcut for shortcut in found if shortcut is not None)
