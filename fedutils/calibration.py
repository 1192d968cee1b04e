"""Temperature scaling: one number that makes a classifier as sure as it is right, and changes no prediction.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from fedutils.errors import InputError

COLDEST, HOTTEST = 1e-3, 1e3  # temperatures between which is searched


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T that makes softmax(logits / T) most likely [1]_; fit it on validation images.

    Parameters
    ----------
    logits : float (N, C)
        Of images that the network was not trained on, and that nothing is reported on.
    labels : int (N,)
        Of at least two classes.

    Returns
    -------
    float
        Above 1: the network was too sure. From 0.001 to 1,000; 1 where every image is classified rightly,
        since then the likelihood grows without end as T falls; 1,000 where the logits are no better than
        chance.

    Raises
    ------
    InputError
        If there is no image, only one class, a number that is not finite, or the arrays do not fit.

    Notes
    -----
    The mean negative log-likelihood is convex in b = 1 / T; its slope, mean(E_p[z] - z_y), grows with b, and
    the minimum is where the slope is zero.
    """
    z, labels = _check(logits, labels)
    true = z[np.arange(len(z)), labels]
    if np.all(true == z.max(axis=1)):
        return 1.0

    def slope(b):
        return float(((softmax(b * z, axis=1) * z).sum(axis=1) - true).mean())

    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    if slope(1 / COLDEST) <= 0:
        return COLDEST
    return 1.0 / brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-12, rtol=1e-12)


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return logits / temperature in float64, so that distinct float32 logits stay distinct.

    Raises
    ------
    InputError
        If `temperature` is not a positive finite number.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(
            f"temperature: expected a positive number, found {temperature!r}; fit it by fit_temperature"
        )
    return np.asarray(logits, np.float64) / temperature


def _check(logits, labels):
    """Return both as arrays, the logits less each row's largest, in float64."""
    z, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if z.ndim != 2 or not len(z) or labels.shape != z.shape[:1]:
        raise InputError(
            f"logits and labels: expected shapes (N, C) and (N,) of at least one image, found {z.shape} and "
            f"{labels.shape}; give the validation images' logits and classes"
        )
    if not np.isfinite(z).all():
        raise InputError(
            f"logits: expected finite numbers, found {int((~np.isfinite(z)).sum())} that are not; "
            "look for a training run that diverged"
        )
    found = np.unique(labels)
    if not np.issubdtype(labels.dtype, np.integer) or found[0] < 0 or found[-1] >= z.shape[1]:
        raise InputError(
            f"labels: expected integers from 0 to {z.shape[1] - 1}, found {labels.dtype} from {found[0]} to "
            f"{found[-1]}; give the index of each image's class"
        )
    if len(found) < 2:
        raise InputError(
            f"labels: expected at least two classes, found only class {found[0]}; "
            "fit the temperature on validation images of every class"
        )
    return z - z.max(axis=1, keepdims=True), labels
