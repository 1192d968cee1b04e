"""How heterogeneous a partition is: in labels, in size, and in anything measured of an image or a case.

A small client differs from the whole by chance alone. A number here means something beside the same number
for random partitions of the same sizes (`shuffle_clients`).
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import rel_entr


def count_labels(labels: np.ndarray, clients: list[np.ndarray], num_classes: int) -> np.ndarray:
    """Return int64 (clients, classes): how many images of each class each client holds."""
    return np.stack([np.bincount(labels[part], minlength=num_classes) for part in clients])


def count_bins(values: np.ndarray, clients: list[np.ndarray], edges: Sequence[float]) -> np.ndarray:
    """Return int64 (clients, bins): how many images of each client lie between the edges.

    Parameters
    ----------
    values : float (N,)
    clients : list of int (n,)
    edges : sequence of float
        Ascending; an edge belongs to the bin above it. There is one bin more than edges.
    """
    return count_labels(np.digitize(values, edges), clients, len(edges) + 1)


def measure_heterogeneity(counts: np.ndarray) -> dict[str, float]:
    """Say how far a partition is from IID.

    Parameters
    ----------
    counts : int (clients, classes)

    Returns
    -------
    dict
        ``label_distance``: total variation distance (0 to 1) between a client's label distribution and the
        global one, averaged over clients by size. ``size_imbalance``: largest client over the mean size (1 is
        balanced).
    """
    sizes = counts.sum(axis=1)
    overall = counts.sum(axis=0) / counts.sum()
    distances = 0.5 * np.abs(counts / sizes[:, None] - overall).sum(axis=1)
    return {
        "label_distance": float((distances * sizes).sum() / sizes.sum()),
        "size_imbalance": float(sizes.max() / sizes.mean()),
    }


def measure_divergence(counts: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of the clients' label distributions from the global one.

    Averaged over clients by size, in bits: 0 for identical mixtures, 1 at most. Unlike the label distance, it
    weighs a class that a client lacks altogether more than one that it only has less of.

    Parameters
    ----------
    counts : int (clients, classes)
    """
    overall = counts.sum(axis=0) / counts.sum()
    local = counts / counts.sum(axis=1, keepdims=True)
    middle = (local + overall) / 2
    divergences = (rel_entr(local, middle) + rel_entr(overall, middle)).sum(axis=1) / (2 * np.log(2))
    return max(0.0, float(np.average(divergences, weights=counts.sum(axis=1))))  # rounding can give -1e-17


def measure_shift(values: np.ndarray, clients: list[np.ndarray]) -> dict[str, float | list[float]]:
    """Say how far the clients' distributions of a number are from the global one.

    Parameters
    ----------
    values : float (N,)
        What was measured: volume of the tumour, brightness, age.
    clients : list of int (n,)

    Returns
    -------
    dict
        ``by_client``: earth mover's distance (1-Wasserstein) of each client's values to all values, in their
        unit. ``mean``: their mean over clients by size. ``relative``: the mean over the standard deviation of
        all values, to compare quantities of different units; 0 if they are all the same.
    """
    from scipy.stats import wasserstein_distance  # here, since few need it and it is slow to import

    values = np.asarray(values, float)
    distances = [float(wasserstein_distance(values[part], values)) for part in clients]
    mean = float(np.average(distances, weights=[len(part) for part in clients]))
    spread = float(values.std())
    return {"mean": mean, "relative": mean / spread if spread else 0.0, "by_client": distances}


def shuffle_clients(clients: list[np.ndarray], *, seed: int) -> list[np.ndarray]:
    """Deal all images out anew at random and keep the clients' sizes: what chance alone does.

    Parameters
    ----------
    clients : list of int (n,)
    seed : int
    """
    order = np.random.default_rng([seed, 10]).permutation(np.concatenate(clients))
    return [np.sort(part) for part in np.split(order, np.cumsum([len(part) for part in clients])[:-1])]


def count_parted(groups: Sequence, clients: list[np.ndarray]) -> int:
    """Return the number of patients whose images stand with more than one client.

    Parameters
    ----------
    groups : sequence of N
        The patient of each image.
    clients : list of int (n,)
    """
    names = np.concatenate([np.unique(np.asarray(groups)[part]) for part in clients])
    return int((np.unique(names, return_counts=True)[1] > 1).sum())
