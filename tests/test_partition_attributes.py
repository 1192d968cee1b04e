"""Partitions by institution and by size of the tumour."""

import collections

import numpy as np
import pytest

from fedutils.data.case_table import read_phantom_hospitals
from fedutils.data.lgg import list_lgg
from fedutils.errors import InputError
from fedutils.partition_attributes import partition_institution, partition_tumour_size


def members(clients, names):
    return {name: part.tolist() for name, part in zip(names, clients, strict=True)}


def test_each_institution_is_a_client_in_the_order_of_names():
    found = members(*partition_institution(["FG", "CS", "FG", "EZ", "CS"]))
    assert list(found) == ["CS", "EZ", "FG"]
    assert found == {"CS": [1, 4], "EZ": [3], "FG": [0, 2]}


def test_small_institutions_are_merged_and_named():
    homes = ["A"] * 5 + ["B"] * 2 + ["C"] + ["D"] * 4
    assert members(*partition_institution(homes, minimum=3)) == {
        "A": [0, 1, 2, 3, 4],
        "B+C": [5, 6, 7],  # 2 and 1: together enough
        "D": [8, 9, 10, 11],
    }
    # 2 and 1 are not enough for 4: the next smallest, D, joins them.
    assert members(*partition_institution(homes, minimum=4)) == {
        "A": [0, 1, 2, 3, 4],
        "B+C+D": list(range(5, 12)),
    }
    clients, names = partition_institution(homes, minimum=12)
    assert names == ["A+B+C+D"] and clients[0].tolist() == list(range(12))


def test_of_equally_small_institutions_the_first_by_name_joins():
    assert partition_institution(["X", "Y", "Y", "Z", "Z"], minimum=2)[1] == ["X+Y", "Z"]


def test_a_patient_seen_in_two_places_stays_whole():
    homes, patients = ["A", "A", "B", "B", "B", "A"], [1, 1, 1, 2, 2, 3]
    assert members(*partition_institution(homes, groups=patients)) == {"A": [0, 1, 2, 5], "B": [3, 4]}


def test_names_of_a_numpy_array_are_names():
    clients, names = partition_institution(np.array(["02", "01", "02"]))
    assert names == ["01", "02"] and clients[1].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("homes", "options", "word"),
    [
        (["A", None, ""], {}, "each of 3 images, found 2 without one, the first at 1"),
        (["A", "B"], {"minimum": 3}, "at least 3 images"),
        ([], {}, "found 0"),
    ],
)
def test_unknown_institutions_are_refused(homes, options, word):
    with pytest.raises(InputError, match=word):
        partition_institution(homes, **options)


def test_sorted_sizes_are_cut_in_order():
    sizes = np.array([9.0, 1, 8, 2, 7, 3, 6])
    clients = partition_tumour_size(sizes, 3, seed=0)
    assert [sizes[part].tolist() for part in clients] == [[1, 2, 3], [7, 6], [9, 8]]


def test_a_patient_counts_as_the_mean_of_its_tumours():
    sizes, patients = np.array([1.0, 9.0, 4.0, 4.5]), ["a", "a", "b", "b"]  # means 5 and 4.25
    clients = partition_tumour_size(sizes, 2, seed=0, groups=patients)
    assert [part.tolist() for part in clients] == [[2, 3], [0, 1]]


def test_skewed_sizes_lie_between_sorted_and_iid():
    sizes = np.random.default_rng(0).gamma(2.0, 30.0, 400)

    def spread(alpha):
        means = [
            [sizes[part].mean() for part in partition_tumour_size(sizes, 4, seed=seed, alpha=alpha)]
            for seed in range(20)
        ]
        return np.std(means, axis=1).mean()

    assert spread(None) > spread(0.3) + 5 > spread(100.0) + 10


def test_sizes_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="found nan at 1"):
        partition_tumour_size(np.array([1.0, np.nan]), 1, seed=0)


def test_scanners_of_the_phantom_part_its_slices(tmp_path):
    from fedutils.data.phantom import write_brain_mri

    write_brain_mri(tmp_path / "phantom", 4, 1, size=32, progress=False, num_workers=1)
    hospitals = read_phantom_hospitals(tmp_path / "phantom")
    assert len(hospitals) == 4 * (4 + 1)
    clients, names = partition_institution(list(hospitals.values()))
    assert set(names) <= {f"hospital_{k}" for k in range(1, 6)}
    assert {n: len(c) for n, c in zip(names, clients, strict=True)} == collections.Counter(hospitals.values())


def test_the_institutions_of_the_real_kaggle_3m(real_data):
    if not (real_data / "kaggle_3m").is_dir():
        pytest.skip("no kaggle_3m in FEDUTILS_DATA")
    cases = list_lgg(real_data / "kaggle_3m")
    clients, names = partition_institution(
        [case.institution for case in cases], groups=[case.patient for case in cases]
    )
    sizes = dict(zip(names, map(len, clients), strict=True))
    assert sizes == {"CS": 4, "DU": 6, "EZ": 1, "FG": 4, "HT": 6}
    assert partition_institution([case.institution for case in cases], minimum=2)[1] == [
        "CS+EZ",
        "DU",
        "FG",
        "HT",
    ]


def test_the_sites_of_brats_2020_are_the_sizes_that_notebook_03_names(real_data):
    from fedutils.data.institutions import read_site_mapping

    table = real_data / "partitions" / "BraTS21-17_Mapping.csv"
    if not table.is_file():
        pytest.skip("no table of sites in FEDUTILS_DATA")
    sites = [site for name, site in read_site_mapping(table).items() if name.startswith("BraTS20_Training")]
    sizes = sorted((len(part) for part in partition_institution(sites)[0]), reverse=True)
    assert sizes == [129, 35, 34, 34, 22, 15, 14, 13, 12, 11, 9, 9, 8, 8, 6, 6, 4]
