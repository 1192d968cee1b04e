import numpy as np
import pytest

from fedutils.errors import InputError
from fedutils.partition import count_labels, measure_heterogeneity, partition_dirichlet, partition_iid

LABELS = np.repeat([0, 1, 2, 3], [70, 80, 90, 61])


def partitions():
    yield partition_iid(LABELS, 5, seed=3)
    for alpha in (0.05, 0.3, 100.0):
        yield partition_dirichlet(LABELS, 5, alpha=alpha, seed=3, minimum=9)


def test_partitions_are_disjoint_complete_and_sorted():
    for parts in partitions():
        assert len(parts) == 5
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
        assert all(np.all(np.diff(part) > 0) for part in parts)


def test_iid_sizes_differ_by_one_at_most():
    sizes = [len(part) for part in partition_iid(LABELS, 7, seed=0)]
    assert max(sizes) - min(sizes) <= 1


def test_every_client_has_the_minimum():
    for seed in range(30):
        parts = partition_dirichlet(LABELS, 6, alpha=0.05, seed=seed, minimum=9)
        assert min(map(len, parts)) >= 9


def test_same_seed_same_partition_other_seed_another():
    first = partition_dirichlet(LABELS, 5, alpha=0.3, seed=1)
    again = partition_dirichlet(LABELS, 5, alpha=0.3, seed=1)
    other = partition_dirichlet(LABELS, 5, alpha=0.3, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_label_distance_by_hand():
    # Client 1 holds only class 0, client 2 only class 1, of equal size: each is 1/2 away from (1/2, 1/2).
    assert measure_heterogeneity(np.array([[4, 0], [0, 4]])) == {"label_distance": 0.5, "size_imbalance": 1.0}
    # Sizes 6 and 2, mean 4; both mixtures equal the global one.
    assert measure_heterogeneity(np.array([[3, 3], [1, 1]])) == {"label_distance": 0.0, "size_imbalance": 1.5}


def test_less_alpha_is_farther_from_iid():
    def mean_distance(alpha):
        counts = [
            count_labels(LABELS, partition_dirichlet(LABELS, 5, alpha=alpha, seed=s), 4) for s in range(20)
        ]
        return np.mean([measure_heterogeneity(c)["label_distance"] for c in counts])

    assert mean_distance(0.1) > mean_distance(1.0) + 0.1 > mean_distance(100.0) + 0.2


def test_counts_add_up_by_class():
    counts = count_labels(LABELS, partition_dirichlet(LABELS, 5, alpha=0.3, seed=0), 4)
    assert counts.shape == (5, 4)
    assert counts.sum(axis=0).tolist() == [70, 80, 90, 61]


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: partition_iid(LABELS, 0, seed=0), "at least 1 client"),
        (lambda: partition_iid(LABELS[:3], 4, seed=0), "fewer clients"),
        (lambda: partition_dirichlet(LABELS, 5, alpha=0.0, seed=0), "alpha"),
        (lambda: partition_dirichlet(LABELS, 5, alpha=1.0, seed=0, minimum=100), "expected at least 500"),
    ],
)
def test_bad_requests_are_refused(call, word):
    with pytest.raises(InputError, match=word):
        call()
