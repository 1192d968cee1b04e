"""Patients held out institution by institution, and cases dealt out to sites of given sizes.

References
----------
.. [1] S. Pati et al., "The Federated Tumor Segmentation (FeTS) Challenge", 2021.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedutils.data.institutions import read_site_mapping
from fedutils.errors import InputError

EVERYONE = "all"  # the part of a test that is all of its cases
FEWEST = 3  # patients of an institution that can train, choose the round, and be tested


@dataclass(frozen=True)
class CaseSplit:
    """Which cases are for what, int64 (n,) each, sorted; of no two parts is a patient the same.

    Attributes
    ----------
    training, validation, test : int64 (n,)
    """

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_by_institution(
    institutions: Sequence[str],
    patients: Sequence[str],
    *,
    validation_fraction: float,
    test_fraction: float,
    held_out: str | None = None,
    seed: int,
) -> CaseSplit:
    """Hold patients out in every institution that has three or more; smaller ones only train.

    Parameters
    ----------
    institutions, patients : sequence of N str
        Of each case. The cases of a patient stay together.
    validation_fraction, test_fraction : float
        Of the patients of an institution, rounded, at least one each.
    held_out : str, optional
        An institution that is left out: all its patients are the test, and no other's are.
    seed : int

    Raises
    ------
    InputError
        If there is no such institution, or nothing is left to train, to validate or to test on.
    """
    homes = np.asarray(institutions)
    if held_out is not None and held_out not in homes:
        known = ", ".join(map(str, np.unique(homes)))
        raise InputError(f"held_out: expected one of {known}, found {held_out!r}; choose one")
    roles = np.zeros(len(homes), np.int64)  # 0 training, 1 validation, 2 test
    persons = np.asarray(patients)
    for number, home in enumerate(np.unique(homes)):
        if home == held_out:
            roles[homes == home] = 2
            continue
        own = np.unique(persons[homes == home])
        order = np.random.default_rng([seed, 71, number]).permutation(own)
        if len(own) < FEWEST:
            continue
        num_test = 0 if held_out is not None else _share(test_fraction, len(own))
        num_validation = _share(validation_fraction, len(own))
        for role, chosen in (
            (2, order[:num_test]),
            (1, order[num_test : num_test + num_validation]),
        ):
            roles[(homes == home) & np.isin(persons, chosen)] = role
    split = CaseSplit(*(np.flatnonzero(roles == role) for role in range(3)))
    for name in ("training", "validation", "test"):
        if not len(getattr(split, name)):
            raise InputError(
                f"{name}: expected a patient, found none among {len(np.unique(persons))} of "
                f"{len(np.unique(homes))} institutions, since those of fewer than {FEWEST} only train; give "
                "more cases or change the fractions"
            )
    return split


def _share(fraction, count):
    """Return how many of some patients a fraction is: rounded, at least one."""
    return max(1, int(fraction * count + 0.5))


def read_site_sizes(path: Path) -> np.ndarray:
    """Read how many training cases of BraTS 2020 each site gave, int64 (17,), in the order of their numbers.

    Parameters
    ----------
    path : Path
        ``BraTS21-17_Mapping.csv`` of the organisers [1]_.
    """
    sites = [site for name, site in read_site_mapping(path).items() if name.startswith("BraTS20_Training_")]
    if not sites:
        raise InputError(f"{path}: expected names such as BraTS20_Training_001, found none; give that table")
    return np.unique(sites, return_counts=True)[1].astype(np.int64)


def scale_sizes(sizes: Sequence[int], total: int) -> np.ndarray:
    """Scale the sizes of sites down to a total, int64 (sites,): in proportion, at least one case each.

    What the proportions leave over goes to the largest remainders; what the ones of small sites need is taken
    where the size is furthest above its proportion.

    Raises
    ------
    InputError
        If there are fewer cases than sites.
    """
    sizes = np.asarray(sizes, np.float64)
    if total < len(sizes):
        raise InputError(
            f"sites: expected at least {len(sizes)} training cases, one a site, found {total}; raise "
            "num_cases"
        )
    exact = sizes / sizes.sum() * total
    scaled = np.maximum(np.floor(exact), 1).astype(np.int64)
    while scaled.sum() != total:
        if scaled.sum() < total:
            scaled[np.argmax(exact - scaled)] += 1
        else:
            scaled[np.argmax(np.where(scaled > 1, scaled - exact, -np.inf))] -= 1
    return scaled


def deal_by_size(cases: np.ndarray, sizes: Sequence[int], *, seed: int) -> list[np.ndarray]:
    """Deal cases out at random to sites of given sizes, int64 each, sorted; they add up to all cases."""
    order = np.random.default_rng([seed, 72]).permutation(cases)
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]
