"""Measures of heterogeneity, each against numbers worked out by hand."""

import numpy as np
import pytest

from fedutils.heterogeneity import (
    count_bins,
    count_labels,
    count_parted,
    measure_divergence,
    measure_heterogeneity,
    measure_shift,
    shuffle_clients,
)

HALVES = [np.array([0, 1]), np.array([2, 3])]


def test_label_distance_and_imbalance_by_hand():
    # Client 1 holds only class 0, client 2 only class 1, of equal size: each is 1/2 away from (1/2, 1/2).
    assert measure_heterogeneity(np.array([[4, 0], [0, 4]])) == {"label_distance": 0.5, "size_imbalance": 1.0}
    # Sizes 6 and 2, mean 4; both mixtures equal the global one.
    assert measure_heterogeneity(np.array([[3, 3], [1, 1]])) == {"label_distance": 0.0, "size_imbalance": 1.5}


def test_divergence_by_hand():
    assert measure_divergence(np.array([[3, 3], [1, 1]])) == 0.0
    # (1, 0) against (1/2, 1/2), middle (3/4, 1/4): half of log2(4/3), and of the two terms of the other side.
    expected = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2
    assert measure_divergence(np.array([[4, 0], [0, 4]])) == pytest.approx(expected)
    # Two of three clients by weight: sizes 4, 4 and 8, the last as the whole.
    assert measure_divergence(np.array([[4, 0], [0, 4], [4, 4]])) == pytest.approx(expected / 2)


def test_divergence_never_falls_below_nothing_by_rounding():
    rng = np.random.default_rng(0)
    for _ in range(200):
        row = rng.integers(1, 50, 7)
        assert 0.0 <= measure_divergence(np.outer([1, 3, 7], row)) < 1e-12


def test_earth_mover_by_hand():
    # Quarter by quarter, {0, 0, 1, 1} moves to {0, 1, 4, 5}: by 0, 1, 3 and 4, which is 2 on average.
    found = measure_shift(np.array([0.0, 1.0, 4.0, 5.0]), HALVES)
    assert found["by_client"] == pytest.approx([2.0, 2.0])
    assert found["mean"] == pytest.approx(2.0)
    assert found["relative"] == pytest.approx(2.0 / np.sqrt(17 / 4))  # deviations 2.5 and 1.5 from 2.5


def test_the_mean_shift_weighs_clients_by_size():
    # {0, 0, 0} against {0, 0, 0, 4}: a quarter of the mass by 4 is 1. {4}: three quarters by 4 is 3.
    found = measure_shift(np.array([0.0, 0.0, 0.0, 4.0]), [np.array([0, 1, 2]), np.array([3])])
    assert found["by_client"] == pytest.approx([1.0, 3.0])
    assert found["mean"] == pytest.approx((3 * 1 + 1 * 3) / 4)


def test_a_constant_has_no_shift():
    assert measure_shift(np.full(4, 7.0), HALVES) == {"mean": 0.0, "relative": 0.0, "by_client": [0.0, 0.0]}


def test_counts_add_up_by_class_and_by_bin():
    labels = np.array([0, 2, 2, 1])
    assert count_labels(labels, HALVES, 4).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]
    # The edge 2.0 belongs to the bin above it.
    assert count_bins(np.array([1.0, 2.0, 9.0, 3.0]), HALVES, [2.0, 5.0]).tolist() == [[1, 1, 0], [0, 1, 1]]


def test_a_shuffle_keeps_sizes_and_images_and_nothing_else():
    clients = [np.arange(0, 30), np.arange(30, 41), np.arange(41, 100)]
    shuffled = shuffle_clients(clients, seed=1)
    assert [len(part) for part in shuffled] == [30, 11, 59]
    assert np.array_equal(np.sort(np.concatenate(shuffled)), np.arange(100))
    labels = np.repeat([0, 1], 50)
    assert measure_heterogeneity(count_labels(labels, clients, 2))["label_distance"] > 0.4
    assert measure_heterogeneity(count_labels(labels, shuffled, 2))["label_distance"] < 0.15
    assert all(np.array_equal(a, b) for a, b in zip(shuffled, shuffle_clients(clients, seed=1), strict=True))


def test_parted_patients_are_counted():
    assert count_parted(["a", "a", "b", "b"], HALVES) == 0
    assert count_parted(["a", "b", "b", "c"], HALVES) == 1
    assert count_parted(["a", "b", "b", "a"], HALVES) == 2
