"""Every kind of partition: disjoint, complete, never parting a patient, with its minimum, reproducible."""

import functools

import numpy as np
import pytest

from fedutils.errors import InputError
from fedutils.heterogeneity import count_parted
from fedutils.partition import (
    count_labels,
    measure_heterogeneity,
    partition_classes,
    partition_combined,
    partition_dirichlet,
    partition_iid,
    partition_quantity,
    partition_shards,
)
from fedutils.partition_attributes import partition_tumour_size

LABELS = np.random.default_rng(5).permutation(np.repeat([0, 1, 2, 3], [70, 80, 90, 61]))
# Patients of 1 to 6 images, in no order.
PATIENTS = np.random.default_rng(6).permutation(np.repeat(np.arange(97), 1 + np.arange(97) % 6))[:301]
KINDS = {
    "iid": partition_iid,
    "dirichlet 0.05": functools.partial(partition_dirichlet, alpha=0.05),
    "dirichlet 100": functools.partial(partition_dirichlet, alpha=100.0),
    "shards": functools.partial(partition_shards, shards_per_client=2),
    "classes": functools.partial(partition_classes, classes_per_client=2),
    "power law": functools.partial(partition_quantity, exponent=1.5),
    "dirichlet sizes": functools.partial(partition_quantity, alpha=0.3),
    "given sizes": functools.partial(partition_quantity, sizes=[101, 90, 80, 20, 10]),
    "combined": functools.partial(partition_combined, alpha=0.1, exponent=1.2),
    "tumour size": partition_tumour_size,
    "tumour size, skewed": functools.partial(partition_tumour_size, alpha=0.2),
}
every_kind = pytest.mark.parametrize("deal", KINDS.values(), ids=KINDS)


def assert_disjoint_complete_sorted(clients, num_clients):
    assert len(clients) == num_clients
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in clients)
    assert np.array_equal(np.sort(np.concatenate(clients)), np.arange(len(LABELS)))


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@every_kind
@pytest.mark.parametrize("groups", [None, PATIENTS], ids=["images", "patients"])
def test_disjoint_complete_sorted_with_the_minimum_and_by_patient(deal, groups):
    for seed in range(5):
        clients = deal(LABELS, 5, seed=seed, minimum=9, groups=groups)
        assert_disjoint_complete_sorted(clients, 5)
        assert min(map(len, clients)) >= 9
        if groups is not None:
            assert count_parted(groups, clients) == 0


@every_kind
def test_same_seed_same_partition_other_seed_another(deal):
    # Sizes that are cut in order leave the seed only the order of equal ones, such as these labels.
    first, again, other = (deal(LABELS, 5, seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


@every_kind
def test_patients_of_one_image_change_nothing(deal):
    assert same(deal(LABELS, 5, seed=3), deal(LABELS, 5, seed=3, groups=np.arange(len(LABELS))))


@every_kind
def test_more_clients_than_images_or_patients_is_refused(deal):
    with pytest.raises(InputError, match=r"at least 5 images for 5 clients .* found 4; ask for"):
        deal(LABELS[:4], 5, seed=0, minimum=1)
    with pytest.raises(InputError, match="at least 5 patients for 5 clients, found 3; ask for fewer clients"):
        deal(LABELS[:9], 5, seed=0, minimum=1, groups=["a", "b", "c"] * 3)


def test_without_patients_dirichlet_gives_what_it_always_gave():
    """The algorithm as it was when the first results were published, written out."""

    def original(labels, num_clients, alpha, seed, minimum):
        rng = np.random.default_rng([seed, 3])
        clients = [[] for _ in range(num_clients)]
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

    for seed in range(40):
        for alpha, minimum in ((0.05, 30), (0.3, 8), (100.0, 1)):
            given = partition_dirichlet(LABELS, 6, alpha=alpha, seed=seed, minimum=minimum)
            assert same(given, original(LABELS, 6, alpha, seed, minimum))


def test_without_patients_iid_gives_what_it_always_gave():
    order = np.random.default_rng([4, 2]).permutation(len(LABELS))
    assert same(partition_iid(LABELS, 7, seed=4), [np.sort(p) for p in np.array_split(order, 7)])


def test_iid_sizes_differ_by_one_or_by_a_patient_at_most():
    sizes = [len(part) for part in partition_iid(LABELS, 7, seed=0)]
    assert max(sizes) - min(sizes) <= 1
    sizes = [len(part) for part in partition_iid(LABELS, 7, seed=0, groups=PATIENTS)]
    assert all(abs(size - 43) <= 6 for size in sizes)  # both borders are off by half a patient of 6 at most


def test_less_alpha_is_farther_from_iid():
    def mean_distance(alpha):
        counts = [
            count_labels(LABELS, partition_dirichlet(LABELS, 5, alpha=alpha, seed=s), 4) for s in range(20)
        ]
        return np.mean([measure_heterogeneity(c)["label_distance"] for c in counts])

    assert mean_distance(0.1) > mean_distance(1.0) + 0.1 > mean_distance(100.0) + 0.2


def test_shards_are_of_one_size_and_at_most_two_classes_each():
    labels = np.repeat([0, 1, 2, 3], 30)  # 10 shards of 12: 2 lie inside each class, and 1 across each border
    clients = partition_shards(labels, 5, shards_per_client=2, seed=0)
    assert [len(part) for part in clients] == [24] * 5
    assert all((row > 0).sum() <= 4 for row in count_labels(labels, clients, 4))
    one = partition_shards(labels, 4, shards_per_client=1, seed=0)  # 4 shards of 30: a class each
    assert sorted(count_labels(labels, one, 4).argmax(axis=1)) == [0, 1, 2, 3]
    assert all((row > 0).sum() == 1 for row in count_labels(labels, one, 4))


def test_classes_per_client_are_exact_and_shared_evenly():
    labels = np.repeat([0, 1, 2, 3], 48)
    for k in (1, 2, 3, 4):
        counts = count_labels(labels, partition_classes(labels, 8, classes_per_client=k, seed=1), 4)
        assert ((counts > 0).sum(axis=1) == k).all()
        # 8k hands over 4 classes, the rarest first: each class has 2k owners, each with 48 / 2k images.
        assert set(counts[counts > 0].tolist()) == {48 // (2 * k)}


def test_a_client_is_topped_up_from_its_own_classes_only():
    labels = np.repeat([0, 1], [100, 12])
    counts = count_labels(labels, partition_classes(labels, 4, classes_per_client=1, seed=0, minimum=6), 2)
    assert sorted(counts.tolist()) == [[0, 6], [0, 6], [50, 0], [50, 0]]
    with pytest.raises(InputError, match="classes are too large to be shared"):
        partition_classes(labels, 4, classes_per_client=1, seed=0, minimum=7)


def test_sizes_by_hand():
    def sizes(**way):
        return [len(part) for part in partition_quantity(np.zeros(110), 3, seed=0, **way)]

    assert sizes(exponent=1.0) == [60, 30, 20]  # 1 : 1/2 : 1/3 of 110
    assert sizes(exponent=0.0) == [37, 36, 37]  # cut at 36.67 and 73.33, rounded
    assert sizes(sizes=[5, 100, 5]) == [5, 100, 5]
    assert sizes(exponent=6.0) == [
        107,
        2,
        1,
    ]  # 1 : 1/64 : 1/729, cut at 108.16 and 109.85: 108, 2, 0; topped up


def test_sizes_are_as_near_as_whole_patients_allow():
    patients = np.repeat(np.arange(30), 4)
    clients = partition_quantity(np.zeros(120), 3, sizes=[61, 39, 20], seed=0, groups=patients)
    assert [len(part) for part in clients] == [60, 40, 20]


def test_combined_skew_keeps_the_sizes_and_differs_in_labels():
    labels = np.repeat([0, 1, 2], [110, 220, 330])
    for alpha in (0.1, 1.0, 1e7):
        clients = partition_combined(labels, 3, alpha=alpha, exponent=1.0, seed=2)
        sizes = np.asarray([len(part) for part in clients])
        assert np.abs(sizes - [360, 180, 120]).max() <= 3  # 660 as 6 : 3 : 2, each class rounded once
    # A large concentration leaves only the skew of quantity: every client holds 1 : 2 : 3.
    assert np.abs(count_labels(labels, clients, 3) - [[60, 120, 180], [30, 60, 90], [20, 40, 60]]).max() <= 1
    skewed = partition_combined(labels, 3, alpha=0.1, exponent=1.0, seed=2)
    assert measure_heterogeneity(count_labels(labels, skewed, 3))["label_distance"] > 0.2


def test_a_patient_counts_as_its_most_frequent_label():
    # Patients a (0, 0, 1), b (1, 1, 0): one class each, so that each client gets one whole patient.
    labels, patients = np.array([0, 1, 0, 1, 1, 0]), ["a", "a", "a", "b", "b", "b"]
    clients = partition_classes(labels, 2, classes_per_client=1, seed=0, groups=patients)
    assert sorted(part.tolist() for part in clients) == [[0, 1, 2], [3, 4, 5]]


def test_no_seed_leaves_a_client_of_large_patients_without_its_minimum():
    patients = np.repeat(np.arange(6), [40, 1, 1, 1, 1, 1])
    for seed in range(20):
        clients = partition_dirichlet(np.zeros(45, int), 6, alpha=0.05, seed=seed, minimum=1, groups=patients)
        assert sorted(len(part) for part in clients) == [1, 1, 1, 1, 1, 40]


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: partition_iid(LABELS, 0, seed=0), "at least 1 client"),
        (lambda: partition_iid(LABELS[:3], 4, seed=0), "fewer clients"),
        (lambda: partition_iid(LABELS, 4, seed=0, groups=[1, 2]), "patient of each of 301 images, found 2"),
        (lambda: partition_iid(LABELS[:3], 2, seed=0, groups=["a", None, ""]), "found 2 without one"),
        (
            lambda: partition_iid(LABELS[:9], 2, seed=0, minimum=4, groups=[0] * 8 + [1]),
            "patients or classes are too large",
        ),
        (lambda: partition_dirichlet(LABELS, 5, alpha=0.0, seed=0), "alpha: expected a number above 0"),
        (lambda: partition_dirichlet(LABELS, 5, alpha=1.0, seed=0, minimum=100), "expected at least 500"),
        (lambda: partition_shards(LABELS, 5, shards_per_client=0, seed=0), "expected 1 to 60 a client"),
        (lambda: partition_shards(LABELS, 5, shards_per_client=61, seed=0), "found 61"),
        (lambda: partition_classes(LABELS, 3, classes_per_client=1, seed=0), "expected 2 to 4.*found 1"),
        (lambda: partition_classes(LABELS, 3, classes_per_client=5, seed=0), "found 5"),
        (lambda: partition_quantity(LABELS, 3, seed=0), "expected one of exponent, alpha and sizes"),
        (lambda: partition_quantity(LABELS, 3, exponent=1, alpha=1, seed=0), "expected one of"),
        (lambda: partition_quantity(LABELS, 3, exponent=-1, seed=0), "exponent: expected a number from 0"),
        (lambda: partition_quantity(LABELS, 3, alpha=-1, seed=0), "alpha"),
        (lambda: partition_quantity(LABELS, 3, sizes=[300, 1], seed=0), "sizes: expected 3 of at least 1"),
        (lambda: partition_quantity(LABELS, 2, sizes=[300, 2], seed=0), "add up to 301.*add up to 302"),
        (lambda: partition_quantity(LABELS, 2, sizes=[301, 0], seed=0), "found 2 from 0"),
        (lambda: partition_combined(LABELS, 3, alpha=0, exponent=1, seed=0), "alpha"),
        (lambda: partition_combined(LABELS, 3, alpha=1, exponent=-2, seed=0), "exponent"),
    ],
)
def test_bad_requests_are_refused_in_one_line(call, word):
    with pytest.raises(InputError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
