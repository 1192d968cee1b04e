"""Metrics of a classifier, each from scikit-learn, in one flat record with an interval for the accuracy."""

import numpy as np
from sklearn import metrics as sk


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 probabilities (N, C) of logits (N, C), stable for large values."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return shifted / shifted.sum(axis=1, keepdims=True)


def bootstrap_accuracy(
    labels: np.ndarray, predicted: np.ndarray, *, seed: int, draws: int = 2000
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the accuracy over resampled images."""
    correct = (labels == predicted).astype(np.float64)
    rng = np.random.default_rng([seed, 4])
    # Resampling N images with k correct: the number correct is binomial(N, k / N).
    means = rng.binomial(len(correct), correct.mean(), size=draws) / len(correct)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def compute_classification_metrics(
    labels: np.ndarray, logits: np.ndarray, class_names: tuple[str, ...], *, seed: int = 0
) -> dict:
    """Measure a classifier.

    Parameters
    ----------
    labels : int (N,)
        Index into `class_names`.
    logits : float (N, C)
    class_names : tuple of str
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``n``, ``accuracy``, ``accuracy_interval`` (95 %, bootstrap over images), macro ``precision``,
        ``recall``, ``f1`` and ``auc`` (one class against the rest), the same under ``per_class``, and
        ``confusion`` (rows: truth, columns: prediction). A class that is never predicted has precision 0; a
        class without images has no recall, F1 or AUC (null) and does not count in the macro means.
    """
    probabilities = softmax(np.asarray(logits))
    predicted = probabilities.argmax(axis=1)
    indices = np.arange(len(class_names))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0
    )
    per_class = {}
    for i, name in enumerate(class_names):
        truth = labels == i
        seen = bool(support[i])
        both = seen and not truth.all()
        per_class[name] = {
            "n": int(support[i]),
            "precision": float(precision[i]),
            "recall": float(recall[i]) if seen else None,
            "f1": float(f1[i]) if seen else None,
            "auc": float(sk.roc_auc_score(truth, probabilities[:, i])) if both else None,
        }

    def macro(key):
        values = [c[key] for c in per_class.values() if c["n"] and c[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "n": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "accuracy_interval": bootstrap_accuracy(labels, predicted, seed=seed),
        **{key: macro(key) for key in ("precision", "recall", "f1", "auc")},
        "per_class": per_class,
        "confusion": sk.confusion_matrix(labels, predicted, labels=indices).tolist(),
    }


def summarise(values: list[float]) -> dict[str, float]:
    """Return mean, standard deviation (n - 1; 0 for one value) and the values over seeds."""
    array = np.asarray(values, np.float64)
    return {
        "mean": float(array.mean()),
        "std": float(array.std(ddof=1)) if len(array) > 1 else 0.0,
        "values": array.tolist(),
    }
