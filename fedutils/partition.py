"""Partitions of a data set over hospitals (clients), and how heterogeneous they are.

Every function returns a list with one sorted int64 array of indices a client; together they are disjoint and
complete. Every client gets at least `minimum` images.
"""

import numpy as np

from fedutils.errors import InputError


def _check(num_examples: int, num_clients: int, minimum: int) -> None:
    if num_clients < 1 or minimum < 1:
        raise InputError(
            f"partition: expected at least 1 client and 1 image each, found {num_clients} and {minimum}"
        )
    if num_clients * minimum > num_examples:
        raise InputError(
            f"partition: expected at least {num_clients * minimum} images for {num_clients} clients with "
            f"{minimum} each, found {num_examples}; ask for fewer clients or a smaller minimum"
        )


def partition_iid(labels: np.ndarray, num_clients: int, *, seed: int) -> list[np.ndarray]:
    """Deal the images out at random, in shares that differ by one image at most.

    Parameters
    ----------
    labels : int (N,)
    num_clients : int
    seed : int
    """
    _check(len(labels), num_clients, 1)
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, num_clients)]


def partition_dirichlet(
    labels: np.ndarray, num_clients: int, *, alpha: float, seed: int, minimum: int = 8
) -> list[np.ndarray]:
    """Give each class to the clients in proportions drawn from a Dirichlet distribution [1]_ (label skew).

    Parameters
    ----------
    labels : int (N,)
    num_clients : int
    alpha : float
        Concentration: 0.1 leaves most hospitals with one or two classes, 100 is close to IID.
    seed : int
    minimum : int
        Clients below this many images take some, class by class at random, from the largest client.

    References
    ----------
    .. [1] T.-M. H. Hsu, H. Qi and M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
       Federated Visual Classification", 2019.
    """
    _check(len(labels), num_clients, minimum)
    if not alpha > 0:
        raise InputError(f"alpha: expected a number above 0, found {alpha}; try 0.3")
    rng = np.random.default_rng([seed, 3])
    clients: list[list[int]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(rng.dirichlet(np.full(num_clients, alpha)))[:-1] * len(own)).round()
        for client, part in zip(clients, np.split(own, cuts.astype(int)), strict=True):
            client.extend(part.tolist())
    for client in clients:
        while len(client) < minimum:
            largest = max(clients, key=len)
            client.append(largest.pop(rng.integers(len(largest))))
    return [np.sort(np.asarray(client, np.int64)) for client in clients]


def count_labels(labels: np.ndarray, clients: list[np.ndarray], num_classes: int) -> np.ndarray:
    """Return int64 (clients, classes): how many images of each class each client holds."""
    return np.stack([np.bincount(labels[part], minlength=num_classes) for part in clients])


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
