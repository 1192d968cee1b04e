"""Partitions in which clients differ in size: quantity skew alone, and together with label skew."""

from collections.abc import Sequence

import numpy as np

from fedutils.errors import InputError
from fedutils.partition_units import (
    check_positive,
    cut,
    deal_by_label,
    deal_pieces,
    gather_units,
    share_targets,
)


def partition_quantity(
    labels: np.ndarray,
    num_clients: int,
    *,
    exponent: float | None = None,
    alpha: float | None = None,
    sizes: Sequence[int] | None = None,
    seed: int,
    minimum: int = 1,
    groups: Sequence | None = None,
) -> list[np.ndarray]:
    """Deal the images out at random in unequal shares (quantity skew), given in one of three ways.

    Parameters
    ----------
    labels : int (N,)
        Only their number matters.
    num_clients : int
    exponent : float, optional
        Power law: client k (from 1) gets a share proportional to ``k ** -exponent``; 0 is equal shares.
    alpha : float, optional
        Shares drawn from a symmetric Dirichlet distribution of this concentration [1]_.
    sizes : sequence of int, optional
        Images of each client; they add up to N.
    seed : int
    minimum : int
        Images that each client gets at least.
    groups : sequence of N, optional
        The patient of each image: never parted.

    Raises
    ------
    InputError
        If not exactly one of the three is given, it does not fit, or there are too few images or patients.

    References
    ----------
    .. [1] Q. Li, Y. Diao, Q. Chen and B. He, "Federated Learning on Non-IID Data Silos: An Experimental
       Study", ICDE 2022.
    """
    units = gather_units(labels, num_clients, minimum, groups)
    if sum(way is not None for way in (exponent, alpha, sizes)) != 1:
        raise InputError(
            "quantity skew: expected one of exponent, alpha and sizes, found "
            f"exponent={exponent}, alpha={alpha}, sizes={sizes}"
        )
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(units.sizes))
    if sizes is not None:
        _check_sizes(sizes, len(labels), num_clients, minimum)
        targets = np.cumsum(sizes)[:-1]
    elif alpha is not None:
        check_positive("alpha", alpha)
        targets = share_targets(rng.dirichlet(np.full(num_clients, alpha)), len(labels))
    else:
        targets = share_targets(_power_law(num_clients, exponent), len(labels))
    return deal_pieces(units, cut(order, units.sizes, targets), minimum, rng)


def partition_combined(
    labels: np.ndarray,
    num_clients: int,
    *,
    alpha: float,
    exponent: float,
    seed: int,
    minimum: int = 1,
    groups: Sequence | None = None,
) -> list[np.ndarray]:
    """Skew labels and quantity at once: sizes by a power law, mixtures by a Dirichlet distribution.

    Each client's mixture of classes is drawn around the global one, as in [1]_. The table of clients by
    classes is then scaled by rows and by columns in turn (iterative proportional fitting [2]_) until the rows
    add up to the sizes and the columns to the classes, so that one skew does not change the other.

    Parameters
    ----------
    labels : int (N,)
    num_clients : int
    alpha : float
        Concentration of the mixtures: small ones differ, large ones equal the global mixture.
    exponent : float
        Of the power law of sizes; 0 is equal sizes.
    seed : int
    minimum : int
        Images that each client gets at least.
    groups : sequence of N, optional
        The patient of each image: never parted.

    Raises
    ------
    InputError
        If `alpha` is not positive, `exponent` is negative, or there are too few images or patients.

    References
    ----------
    .. [1] T.-M. H. Hsu, H. Qi and M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
       Federated Visual Classification", 2019.
    .. [2] W. E. Deming and F. F. Stephan, "On a Least Squares Adjustment of a Sampled Frequency Table When
       the Expected Marginal Totals are Known", Annals of Mathematical Statistics, 1940.
    """
    units = gather_units(labels, num_clients, minimum, groups)
    check_positive("alpha", alpha)
    rng = np.random.default_rng([seed, 8])
    names, coded = np.unique(units.labels, return_inverse=True)
    overall = np.bincount(coded, weights=units.sizes) / len(labels)
    by_client = _power_law(num_clients, exponent)
    mixtures = rng.dirichlet(alpha * len(names) * overall, num_clients)
    # A share of exactly nothing could not be scaled up where the totals need it.
    table = np.maximum(mixtures, 1e-9) * by_client[:, None]
    for _ in range(1000):
        table *= (by_client / table.sum(axis=1))[:, None]
        table *= overall / table.sum(axis=0)
    shares = table / table.sum(axis=0)
    return deal_by_label(
        units, num_clients, lambda label: shares[:, np.searchsorted(names, label)], minimum, rng
    )


def _power_law(num_clients, exponent):
    if not exponent >= 0:
        raise InputError(f"exponent: expected a number from 0, found {exponent}; try 1")
    shares = np.arange(1.0, num_clients + 1) ** -exponent
    return shares / shares.sum()


def _check_sizes(sizes, num_examples, num_clients, minimum):
    if len(sizes) != num_clients or sum(sizes) != num_examples or min(sizes) < minimum:
        raise InputError(
            f"sizes: expected {num_clients} of at least {minimum} that add up to {num_examples}, found "
            f"{len(sizes)} from {min(sizes)} that add up to {sum(sizes)}; mend the list"
        )
