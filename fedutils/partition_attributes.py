"""Partitions by what is known of a case: where it was scanned, or how large its tumour is.

As in `fedutils.partition`, a client is a sorted int64 array of indices; clients are disjoint and complete;
with `groups`, the images of one patient are never parted.
"""

from collections.abc import Sequence

import numpy as np

from fedutils.errors import InputError
from fedutils.partition import partition_dirichlet
from fedutils.partition_units import cut, deal_pieces, even_targets, gather_units


def partition_institution(
    institutions: Sequence[str], *, minimum: int = 1, groups: Sequence | None = None
) -> tuple[list[np.ndarray], list[str]]:
    """Make each institution, hospital or scanner a client; too small ones are merged.

    Parameters
    ----------
    institutions : sequence of N str
        Where each image or case comes from.
    minimum : int
        Institutions with fewer images than this become one client; while that one is still too small, the
        next smallest joins it (of equal ones, the first by name).
    groups : sequence of N, optional
        The patient of each image. One who was seen in two places goes where most of the images are from.

    Returns
    -------
    clients : list of int64 (n,)
        In the order of their names.
    names : list of str
        Of each client; of merged ones, joined by ``+``.

    Raises
    ------
    InputError
        If an institution is not known, or all images together are fewer than `minimum`.
    """
    if missing := [i for i, name in enumerate(institutions) if not isinstance(name, str) or not name]:
        raise InputError(
            f"institutions: expected a name for each of {len(institutions)} images, found {len(missing)} "
            f"without one, the first at {missing[0]}; name them, or leave them out"
        )
    units = gather_units(np.asarray(institutions), 1, minimum, groups)
    homes = units.labels[units.of_example]
    found, sizes = np.unique(homes, return_counts=True)
    by_size = np.argsort(sizes, kind="stable")
    too_small = by_size[: int((sizes < minimum).sum())]
    while 0 < sizes[too_small].sum() < minimum:
        too_small = by_size[: len(too_small) + 1]
    sets = [[str(name)] for name in np.delete(found, too_small)]
    if len(too_small):
        sets.append(sorted(str(name) for name in found[too_small]))
    sets.sort()
    return [np.flatnonzero(np.isin(homes, names)) for names in sets], ["+".join(names) for names in sets]


def partition_tumour_size(
    sizes: np.ndarray,
    num_clients: int,
    *,
    seed: int,
    alpha: float | None = None,
    minimum: int = 1,
    groups: Sequence | None = None,
) -> list[np.ndarray]:
    """Deal cases out by the size of their tumour, or by any other number that is known of each.

    Parameters
    ----------
    sizes : float (N,)
        E.g. in ml. With `groups`, a patient counts as the mean.
    num_clients : int
    seed : int
        Orders equal sizes, and draws the skew.
    alpha : float, optional
        Without it, cases are sorted and cut into equal shares: the first client has the smallest tumours, the
        last the largest. With it, the shares so cut are dealt out like classes, by `partition_dirichlet` with
        this concentration: clients prefer sizes, and overlap.
    minimum : int
        Cases that each client gets at least.
    groups : sequence of N, optional
        The patient of each case: never parted.

    Raises
    ------
    InputError
        If a size is not finite, or there are fewer cases or patients than this needs.
    """
    sizes = np.asarray(sizes, float)
    if not np.isfinite(sizes).all():
        worst = int(np.flatnonzero(~np.isfinite(sizes))[0])
        raise InputError(
            f"tumour sizes: expected finite numbers, found {sizes[worst]} at {worst}; leave that case out"
        )
    units = gather_units(np.zeros(len(sizes), np.int64), num_clients, minimum, groups)
    rng = np.random.default_rng([seed, 9])
    order = rng.permutation(len(units.sizes))
    order = order[np.argsort(units.average(sizes)[order], kind="stable")]
    pieces = cut(order, units.sizes, even_targets(len(sizes), num_clients))
    if alpha is None:
        return deal_pieces(units, pieces, minimum, rng)
    share = np.empty(len(units.sizes), np.int64)
    for k, piece in enumerate(pieces):
        share[piece] = k
    return partition_dirichlet(
        share[units.of_example], num_clients, alpha=alpha, seed=seed, minimum=minimum, groups=groups
    )
