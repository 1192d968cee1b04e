"""Partitions of a data set over hospitals (clients), by label and by size.

Every function returns a list with one sorted int64 array of indices a client; together they are disjoint and
complete. Every client gets at least `minimum` images. With `groups`, the images of one patient are never
parted; shares are then as near as whole patients allow, and a patient counts as its most frequent label.
Partitions by what is known of a case (institution, size of the tumour): `fedutils.partition_attributes`.
"""

from collections.abc import Sequence

import numpy as np

from fedutils.errors import InputError
from fedutils.heterogeneity import count_labels, measure_heterogeneity
from fedutils.partition_quantity import partition_combined, partition_quantity
from fedutils.partition_units import (
    check_positive,
    cut,
    deal_by_label,
    deal_pieces,
    even_targets,
    gather_units,
)

__all__ = [
    "count_labels",
    "measure_heterogeneity",
    "partition_classes",
    "partition_combined",
    "partition_dirichlet",
    "partition_iid",
    "partition_quantity",
    "partition_shards",
]


def partition_iid(
    labels: np.ndarray, num_clients: int, *, seed: int, minimum: int = 1, groups: Sequence | None = None
) -> list[np.ndarray]:
    """Deal the images out at random, in shares that differ by one image at most.

    Parameters
    ----------
    labels : int (N,)
        Only their number matters.
    num_clients : int
    seed : int
    minimum : int
        Images that each client gets at least.
    groups : sequence of N, optional
        The patient of each image: never parted.

    Raises
    ------
    InputError
        If there are fewer images or patients than this needs.
    """
    units = gather_units(labels, num_clients, minimum, groups)
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(units.sizes))
    pieces = cut(order, units.sizes, even_targets(len(labels), num_clients))
    return deal_pieces(units, pieces, minimum, rng)


def partition_dirichlet(
    labels: np.ndarray,
    num_clients: int,
    *,
    alpha: float,
    seed: int,
    minimum: int = 8,
    groups: Sequence | None = None,
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
        Clients below this many images take some, at random, from the largest client.
    groups : sequence of N, optional
        The patient of each image: never parted.

    Raises
    ------
    InputError
        If `alpha` is not positive, or there are fewer images or patients than this needs.

    References
    ----------
    .. [1] T.-M. H. Hsu, H. Qi and M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
       Federated Visual Classification", 2019.
    """
    units = gather_units(labels, num_clients, minimum, groups)
    check_positive("alpha", alpha)
    rng = np.random.default_rng([seed, 3])
    return deal_by_label(
        units, num_clients, lambda label: rng.dirichlet(np.full(num_clients, alpha)), minimum, rng
    )


def partition_shards(
    labels: np.ndarray,
    num_clients: int,
    *,
    shards_per_client: int = 2,
    seed: int,
    minimum: int = 1,
    groups: Sequence | None = None,
) -> list[np.ndarray]:
    """Sort by label, cut into equal shards, deal the shards out [1]_: equal sizes, few classes each.

    A shard may lie across the border of two classes, so that a client can hold more classes than shards.

    Parameters
    ----------
    labels : int (N,)
    num_clients : int
    shards_per_client : int
    seed : int
    minimum : int
        Images that each client gets at least.
    groups : sequence of N, optional
        The patient of each image: never parted.

    Raises
    ------
    InputError
        If there are fewer images than shards, or fewer patients than clients.

    References
    ----------
    .. [1] B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
       AISTATS 2017.
    """
    units = gather_units(labels, num_clients, minimum, groups)
    num_shards = num_clients * shards_per_client
    if not 0 < num_shards <= len(labels):
        raise InputError(
            f"shards: expected 1 to {len(labels) // num_clients} a client, since there are {len(labels)} "
            f"images for {num_clients} clients, found {shards_per_client}"
        )
    rng = np.random.default_rng([seed, 5])
    order = rng.permutation(len(units.sizes))
    order = order[np.argsort(units.labels[order], kind="stable")]
    shards = cut(order, units.sizes, even_targets(len(labels), num_shards))
    dealt = rng.permutation(num_shards).reshape(num_clients, shards_per_client)
    return deal_pieces(units, [np.concatenate([shards[s] for s in hand]) for hand in dealt], minimum, rng)


def partition_classes(
    labels: np.ndarray,
    num_clients: int,
    *,
    classes_per_client: int,
    seed: int,
    minimum: int = 1,
    groups: Sequence | None = None,
) -> list[np.ndarray]:
    """Give each client exactly k classes, and share each class evenly among those that have it [1]_.

    Unlike there, the classes that fewest clients have so far are given first: no class is left without a
    client, and none of its images is lost.

    Parameters
    ----------
    labels : int (N,)
    num_clients : int
    classes_per_client : int
        k, from 1 to the number of classes; k times the clients must reach the number of classes.
    seed : int
    minimum : int
        Clients below this many images take some of their own classes from a larger one.
    groups : sequence of N, optional
        The patient of each image: never parted.

    Raises
    ------
    InputError
        If k does not fit, or there are fewer images or patients than this needs.

    References
    ----------
    .. [1] Q. Li, Y. Diao, Q. Chen and B. He, "Federated Learning on Non-IID Data Silos: An Experimental
       Study", ICDE 2022.
    """
    units = gather_units(labels, num_clients, minimum, groups)
    names, coded = np.unique(units.labels, return_inverse=True)
    if not 1 <= classes_per_client <= len(names) or classes_per_client * num_clients < len(names):
        least = -(-len(names) // num_clients)
        raise InputError(
            f"classes per client: expected {least} to {len(names)}, so that {num_clients} clients cover "
            f"{len(names)} classes, found {classes_per_client}"
        )
    rng = np.random.default_rng([seed, 6])
    holds = np.zeros((num_clients, len(names)), bool)
    for row in holds:
        rarest = np.lexsort((rng.random(len(names)), holds.sum(axis=0)))  # ties: at random
        row[rarest[:classes_per_client]] = True
    shares = holds / holds.sum(axis=0)
    return deal_by_label(
        units,
        num_clients,
        lambda label: shares[:, np.searchsorted(names, label)],
        minimum,
        rng,
        holds[:, coded],
    )
