"""What a partition deals out: single images, or patients with all that is theirs.

The partitions of `fedutils.partition` and `fedutils.partition_attributes` put units in a row, cut it, and top
up what came out too small. A unit is one image, or one group of images that must not be parted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedutils.errors import InputError


@dataclass(frozen=True)
class Units:
    """What is dealt out whole.

    Attributes
    ----------
    of_example : int64 (N,)
        The unit of each image.
    sizes : int64 (U,)
        Images of each unit.
    labels : (U,)
        The most frequent label of each unit; of equally frequent ones, the lowest.
    """

    of_example: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def to_clients(self, parts: list[list[int]]) -> list[np.ndarray]:
        """Turn the units of each client into sorted indices of images, int64."""
        owner = np.empty(len(self.sizes), np.int64)
        for k, part in enumerate(parts):
            owner[part] = k
        return [np.flatnonzero(owner[self.of_example] == k) for k in range(len(parts))]

    def average(self, values: np.ndarray) -> np.ndarray:
        """Return float64 (U,): the mean over each unit of a value of each image."""
        return np.bincount(self.of_example, weights=values) / self.sizes


def gather_units(labels: np.ndarray, num_clients: int, minimum: int, groups: Sequence | None = None) -> Units:
    """Check what was asked for, and gather images into units.

    Parameters
    ----------
    labels : (N,)
    num_clients : int
    minimum : int
        Images that each client must get.
    groups : sequence of N, optional
        The patient of each image; without it, every image is a unit.

    Raises
    ------
    InputError
        If there are not enough images or patients, or `groups` does not fit `labels`.
    """
    labels = np.asarray(labels)
    if num_clients < 1 or minimum < 1:
        raise InputError(
            f"partition: expected at least 1 client and 1 image each, found {num_clients} and {minimum}"
        )
    if num_clients * minimum > len(labels):
        raise InputError(
            f"partition: expected at least {num_clients * minimum} images for {num_clients} clients with "
            f"{minimum} each, found {len(labels)}; ask for fewer clients or a smaller minimum"
        )
    if groups is None:
        return Units(np.arange(len(labels)), np.ones(len(labels), np.int64), labels)
    if len(groups) != len(labels):
        raise InputError(
            f"groups: expected the patient of each of {len(labels)} images, found {len(groups)} entries"
        )
    if missing := sum(group is None or group == "" for group in groups):
        raise InputError(
            f"groups: expected the patient of every image, found {missing} without one; name them, or leave "
            "them out"
        )
    names, of_example = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < num_clients:
        raise InputError(
            f"partition: expected at least {num_clients} patients for {num_clients} clients, found "
            f"{len(names)}; ask for fewer clients"
        )
    values, coded = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(values)), np.int64)
    np.add.at(counts, (of_example, coded), 1)
    return Units(of_example, counts.sum(axis=1), values[counts.argmax(axis=1)])


def cut(order: np.ndarray, sizes: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
    """Cut a row of units into pieces, at the borders between units that are nearest to the targets.

    Parameters
    ----------
    order : int (n,)
        The units, in a row.
    sizes : int (U,)
        Images of every unit there is.
    targets : float (pieces - 1,)
        How many images should stand before each cut, ascending.
    """
    sizes = sizes[order]
    return np.split(order, np.searchsorted(np.cumsum(sizes) - sizes / 2, targets))


def even_targets(total: int, pieces: int) -> np.ndarray:
    """Return int64 (pieces - 1,): where to cut `total` images into shares that differ by one at most."""
    return np.cumsum(total // pieces + (np.arange(pieces) < total % pieces))[:-1]


def share_targets(shares: np.ndarray, total: int) -> np.ndarray:
    """Return float (clients - 1,): where to cut `total` images into the given shares, which add up to 1."""
    return (np.cumsum(shares)[:-1] * total).round()


def top_up(
    parts: list[list[int]],
    sizes: np.ndarray,
    minimum: int,
    rng: np.random.Generator,
    allowed: np.ndarray | None = None,
) -> list[list[int]]:
    """Move units at random from the largest client to any that has fewer than `minimum` images.

    Parameters
    ----------
    parts : list of list of int
        The units of each client; changed in place and returned.
    sizes : int (U,)
    minimum : int
    rng : Generator
    allowed : bool (clients, U), optional
        Which unit a client may take.

    Raises
    ------
    InputError
        If no client can spare a unit.
    """
    held = np.asarray([sizes[np.asarray(part, np.int64)].sum() for part in parts])
    for k, part in enumerate(parts):
        while held[k] < minimum:
            for donor in np.argsort(-held, kind="stable"):
                units = np.asarray(parts[donor], np.int64)
                can_go = held[donor] - sizes[units] >= minimum
                spare = np.flatnonzero(can_go if allowed is None else can_go & allowed[k, units])
                if len(spare):
                    break
            else:
                raise InputError(
                    f"partition: expected to give each of {len(parts)} clients {minimum} images, found that "
                    "patients or classes are too large to be shared so; ask for fewer clients, a smaller "
                    "minimum or another seed"
                )
            unit = parts[donor].pop(spare[rng.integers(len(spare))])
            part.append(unit)
            held[donor] -= sizes[unit]
            held[k] += sizes[unit]
    return parts


def deal_pieces(
    units: Units, pieces: list[np.ndarray], minimum: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Give each client a piece of units, top up, and return sorted indices of images."""
    return units.to_clients(top_up([piece.tolist() for piece in pieces], units.sizes, minimum, rng))


def deal_by_label(
    units: Units,
    num_clients: int,
    draw_shares: Callable[[object], np.ndarray],
    minimum: int,
    rng: np.random.Generator,
    allowed: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Shuffle each class, cut it into the clients' shares, top up, and return sorted indices of images.

    Parameters
    ----------
    units : Units
    num_clients : int
    draw_shares : callable
        From a label to float (clients,), which adds up to 1.
    minimum : int
    rng : Generator
    allowed : bool (clients, U), optional
        Which unit a client may take when it is topped up.
    """
    parts: list[list[int]] = [[] for _ in range(num_clients)]
    for label in np.unique(units.labels):
        own = rng.permutation(np.flatnonzero(units.labels == label))
        targets = share_targets(draw_shares(label), units.sizes[own].sum())
        for part, piece in zip(parts, cut(own, units.sizes, targets), strict=True):
            part.extend(piece.tolist())
    return units.to_clients(top_up(parts, units.sizes, minimum, rng, allowed))


def check_positive(name: str, value: float) -> None:
    """Raise `InputError` unless a concentration is above 0."""
    if not value > 0:
        raise InputError(f"{name}: expected a number above 0, found {value}; try 0.3")
