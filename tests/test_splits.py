from pathlib import Path

import numpy as np
import pytest

from fedutils.data.case import Case
from fedutils.data.splits import bin_by_size, fold_groups, join_pairs, split_cases, split_groups
from fedutils.errors import InputError


def draw(seed, num_groups=90):
    """Draw groups of 1 to 6 examples with three labels of unequal frequency."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 7, num_groups)
    groups = np.repeat(rng.permutation(num_groups), sizes)
    labels = np.repeat(rng.choice(3, num_groups, p=(0.6, 0.3, 0.1)), sizes)
    return labels, groups


@pytest.mark.parametrize("seed", range(10))
def test_parts_are_disjoint_whole_balanced_and_never_part_a_group(seed):
    labels, groups = draw(seed)
    parts = split_groups(labels, groups, fractions={"a": 0.7, "b": 0.2, "c": 0.1}, seed=seed)
    assert list(parts) == ["a", "b", "c"]
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(labels)))
    for name, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert all(np.isin(np.flatnonzero(groups == g), parts[name]).all() for g in set(groups[parts[name]]))
        for label in range(3):
            whole = np.sum(labels == label)
            assert abs(np.sum(labels[parts[name]] == label) - share * whole) <= 6  # a group at most


def test_the_seed_decides_and_nothing_else():
    labels, groups = draw(0)
    first, again, other = (split_groups(labels, groups, seed=seed)["testing"] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    renamed = split_groups(labels.astype(str), [f"p{g:03}" for g in groups], seed=1)["testing"]
    assert np.array_equal(first, renamed)


def test_without_groups_each_share_is_kept_to_one_example():
    labels = np.repeat([0, 1], [41, 20])
    parts = split_groups(labels, fractions={"training": 0.75, "validation": 0.25}, seed=3)
    assert [abs(np.sum(labels[parts["validation"]] == c) - n / 4) < 1 for c, n in ((0, 41), (1, 20))] == [
        True,
        True,
    ]


def test_every_part_gets_the_rarest_label():
    labels = np.repeat(["rare", "common"], [3, 60])
    for seed in range(20):
        parts = split_groups(labels, fractions={"a": 0.8, "b": 0.1, "c": 0.1}, seed=seed)
        assert all(np.sum(labels[part] == "rare") == 1 for part in parts.values())


def test_too_few_groups_of_a_label():
    with pytest.raises(InputError, match=r"label EZ: expected at least 3 groups.*found 1"):
        split_groups(["EZ", "EZ", "CS", "CS", "CS"], [1, 1, 2, 3, 4], seed=0)


def test_groups_of_several_labels_may_not_go_everywhere():
    # Two groups hold both labels x and y, the third only z, but z has to be in both parts.
    with pytest.raises(InputError, match=r"label .*: expected"):
        split_groups(["x", "y", "x", "y", "z"], [1, 1, 2, 2, 3], fractions={"a": 0.5, "b": 0.5}, seed=0)


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5, "b": 0.4}, {"a": 1.2, "b": -0.2}])
def test_bad_fractions(fractions):
    with pytest.raises(InputError, match="add up to 1"):
        split_groups([0, 1], fractions=fractions, seed=0)


def test_nothing_to_split():
    with pytest.raises(InputError, match="found none"):
        split_groups([], seed=0)
    with pytest.raises(InputError, match="one group for each of 3"):
        split_groups([0, 0, 0], [1, 2], seed=0)


def test_folds_hold_everything_out_once_and_are_as_even_as_those_of_scikit_learn():
    from sklearn.model_selection import StratifiedGroupKFold

    def unevenness(labels, folds):
        shares = np.asarray([[np.sum(labels[held] == c) for c in range(3)] for _, held in folds])
        return (np.ptp(shares, axis=0) / shares.mean(axis=0)).mean()

    ours, theirs = [], []
    for seed in range(5):
        labels, groups = draw(seed)
        folds = fold_groups(labels, groups, num_folds=4, seed=seed)
        assert np.array_equal(np.sort(np.concatenate([held for _, held in folds])), np.arange(len(labels)))
        for train, held in folds:
            assert not set(groups[train]) & set(groups[held]) and len(train) + len(held) == len(labels)
        ours.append(unevenness(labels, folds))
        other = StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(labels, labels, groups)
        theirs.append(unevenness(labels, list(other)))
    assert np.mean(ours) <= np.mean(theirs) + 0.02
    with pytest.raises(InputError, match="at least 2"):
        fold_groups([0, 1], num_folds=1, seed=0)


def test_pairs_join_into_groups():
    assert join_pairs(7, [(5, 1), (1, 3), (6, 4)]).tolist() == [0, 1, 2, 1, 3, 1, 3]
    assert join_pairs(3, np.empty((0, 2))).tolist() == [0, 1, 2]
    assert join_pairs(2, [(0, 1)] * 256).tolist() == [0, 0]


def test_tumour_sizes_become_bins_of_equal_count():
    sizes = [0, 50, 10, 0, 40, 20, 60, 30]
    assert bin_by_size(sizes, 3).tolist() == [0, 3, 1, 0, 2, 1, 3, 2]
    assert bin_by_size([0, 0], 3).tolist() == [0, 0]
    with pytest.raises(InputError, match="tumour size"):
        bin_by_size([-1, 2])


def test_cases_are_split_by_patient():
    def case(number, patient):
        return Case(
            f"case_{number:02}", f"patient_{patient}", ("flair",), {"flair": (Path("x"),)}, reader=None
        )

    cases = [case(i, i // 2) for i in range(40)]
    parts = split_cases(cases, seed=5)
    patients = [{c.patient for c in part} for part in parts.values()]
    assert [len(part) for part in parts.values()] == [28, 6, 6]
    assert not patients[0] & patients[1] and not patients[1] & patients[2] and not patients[0] & patients[2]
    by_size = split_cases(cases, labels=bin_by_size(np.arange(40) // 2 + 1), seed=5)
    assert all(any(int(c.name[-2:]) > 26 for c in part) for part in by_size.values())
