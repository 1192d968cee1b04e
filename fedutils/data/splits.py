"""Honest splits: groups (a patient, or pictures that are near copies) are never parted, labels are balanced.

scikit-learn's StratifiedGroupKFold makes folds of equal size only, and merely warns when a class has too few
groups; a 70/15/15 split of 21 patients needs more. One rule here serves fractions and folds: the largest
group first, each to the part that still lacks most of its labels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fedutils.data.case import Case
from fedutils.errors import InputError

FRACTIONS = {"training": 0.7, "validation": 0.15, "testing": 0.15}


def join_pairs(number: int, pairs: np.ndarray) -> np.ndarray:
    """Join what is linked by pairs, in however many steps, into numbered groups.

    Parameters
    ----------
    number : int
        How many things there are.
    pairs : int (M, 2)
        Positions, e.g. of near copies.

    Returns
    -------
    int64 (number,)
        From 0, in order of the first member.
    """
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(pairs), np.int64), (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    found = connected_components(links, directed=False)[1]
    _, first, groups = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[groups].astype(np.int64)


def bin_by_size(sizes: np.ndarray, num_bins: int = 3) -> np.ndarray:
    """Turn tumour sizes into labels to stratify by: 0 for none, then bins of equal count, small to large.

    Parameters
    ----------
    sizes : float (N,)
        Voxels, mm3 or ml; not negative.
    num_bins : int
        Bins of those above zero. Equal sizes share a bin.

    Returns
    -------
    int64 (N,)
        0 to `num_bins`.
    """
    sizes = np.asarray(sizes, np.float64)
    if num_bins < 1 or not np.all(sizes >= 0):
        raise InputError(
            f"tumour size: expected sizes of at least 0 in at least 1 bin, found a smallest of {sizes.min()} "
            f"and {num_bins} bins; mend the table or the number"
        )
    labels = np.zeros(len(sizes), np.int64)
    if np.any(sizes > 0):
        edges = np.quantile(sizes[sizes > 0], np.arange(1, num_bins) / num_bins)
        labels[sizes > 0] = 1 + np.searchsorted(edges, sizes[sizes > 0], side="right")
    return labels


def split_groups(
    labels: Sequence, groups: Sequence | None = None, *, fractions: Mapping[str, float] = FRACTIONS, seed: int
) -> dict[str, np.ndarray]:
    """Split into named parts, stratified, whole groups only.

    Parameters
    ----------
    labels : (N,)
        What to balance, e.g. classes or `bin_by_size`; all equal for no stratification.
    groups : (N,), optional
        Whoever shares a value stays together; everyone alone by default.
    fractions : dict of str to float
        Share of the examples in each part; together 1.
    seed : int

    Returns
    -------
    dict of str to int64 (n,)
        Sorted positions; disjoint, and together all.

    Raises
    ------
    InputError
        If the fractions are no shares of 1, or a label has too few groups for every part to get one.
    """
    shares = np.asarray(list(fractions.values()), np.float64)
    if len(shares) == 0 or np.any(shares <= 0) or abs(shares.sum() - 1) > 1e-6:
        raise InputError(
            f"fractions: expected numbers above 0 that add up to 1, found {dict(fractions)}; mend them"
        )
    part = _assign(labels, groups, shares, tuple(fractions), np.random.default_rng([seed, 21]))
    return {name: np.flatnonzero(part == p) for p, name in enumerate(fractions)}


def fold_groups(
    labels: Sequence, groups: Sequence | None = None, *, num_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split for cross-validation, stratified, whole groups only.

    Parameters
    ----------
    labels, groups, seed
        As in `split_groups`.
    num_folds : int
        At least 2.

    Returns
    -------
    list of (int64 (n,), int64 (m,))
        Sorted positions to train on and those held out, a fold each; every position is held out once.
    """
    if num_folds < 2:
        raise InputError(f"folds: expected at least 2, found {num_folds}")
    shares = np.full(num_folds, 1 / num_folds)
    names = tuple(f"fold {k + 1}" for k in range(num_folds))
    part = _assign(labels, groups, shares, names, np.random.default_rng([seed, 22]))
    return [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(num_folds)]


def split_cases(
    cases: Sequence[Case],
    *,
    seed: int,
    labels: Sequence | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
) -> dict[str, tuple[Case, ...]]:
    """Split cases by patient.

    Parameters
    ----------
    cases : list of Case
    seed : int
    labels : (N,), optional
        What to balance, e.g. `bin_by_size` or the institution of each case.
    fractions : dict of str to float
        Share of the cases in each part.
    """
    labels = np.zeros(len(cases), np.int64) if labels is None else labels
    parts = split_groups(labels, [case.patient for case in cases], fractions=fractions, seed=seed)
    return {name: tuple(cases[i] for i in part) for name, part in parts.items()}


def _assign(labels, groups, shares, names, rng) -> np.ndarray:
    """Return int64 (N,): the part of every example."""
    label_names, y = np.unique(np.asarray(labels), return_inverse=True)
    if len(y) == 0:
        raise InputError("split: expected at least one example, found none; check the folder")
    if groups is not None and len(groups) != len(y):
        raise InputError(f"split: expected one group for each of {len(y)} labels, found {len(groups)}")
    of_group = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.zeros((of_group.max() + 1, len(label_names)), np.int64)
    np.add.at(counts, (of_group, y), 1)

    holders = (counts > 0).sum(axis=0)  # groups that hold each label
    if holders.min() < len(shares):
        label = label_names[holders.argmin()]
        raise InputError(
            f"label {label}: expected at least {len(shares)} groups, one for each of {', '.join(names)}, "
            f"found {holders.min()}; join it with another label, or ask for fewer parts"
        )
    total = counts.sum(axis=0)
    lacking = shares[:, None] * total  # (parts, labels): examples still to come
    empty = np.ones(lacking.shape, bool)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    chosen = np.empty(len(counts), np.int64)
    for g in order:
        own = counts[g]
        need = lacking @ (own / total**2)  # how much the squared error of the shares falls
        held = own > 0
        # The last groups of a rare label go to the parts that have none of it yet.
        last = held & (holders <= empty.sum(axis=0))
        due = empty[:, last].any(axis=1)
        if due.any():
            need = np.where(due, need, -np.inf)
        p = int(need.argmax())
        chosen[g] = p
        lacking[p] -= own
        empty[p, held] = False
        holders[held] -= 1
    if empty.any():
        p, label = np.argwhere(empty)[0]
        raise InputError(
            f"label {label_names[label]}: expected a group in every part, found none for {names[p]}, because "
            "groups hold several labels; stratify by fewer labels, or ask for fewer parts"
        )
    return chosen[of_group]
