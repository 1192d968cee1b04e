"""The images of both splits side by side, and who shows the same as whom: what an audit asks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedutils.data.brain_mri import CLASSES, SPLITS
from fedutils.data.hashes import NearPairs, find_near_copies
from fedutils.data.image_record import ImageRecord
from fedutils.data.splits import join_pairs

TRAIN, TEST = SPLITS


@dataclass(frozen=True, eq=False)
class ImageTable:
    """N images. A *picture* is what files with the same pixels share; there are P of them.

    Attributes
    ----------
    paths : tuple of str
        Relative to the data set.
    records : tuple of ImageRecord
    labels : int (N,)
        Index into `fedutils.data.brain_mri.CLASSES`.
    splits : str (N,)
    picture : int (N,)
        Which picture each image shows.
    images : tuple of tuple of int
        By picture: its images, in order.
    near : NearPairs
        Of pictures.
    partners : dict of int to list of (int, int)
        By picture: its near copies, the nearest first, and the row of `near`.
    groups : int (N,)
        Images linked by copies, exact or near, in however many steps, share one.
    """

    paths: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    labels: np.ndarray
    splits: np.ndarray
    picture: np.ndarray
    images: tuple[tuple[int, ...], ...]
    near: NearPairs
    partners: dict[int, list[tuple[int, int]]]
    groups: np.ndarray

    def first(self, picture: int, split: str | None = None, label: int | None = None) -> int | None:
        """Return the first image of a picture, in a split and of a class if given; None if there is none."""
        for i in self.images[picture]:
            if (split is None or self.splits[i] == split) and (label is None or self.labels[i] == label):
                return i
        return None

    def nearest(self, picture: int, split: str) -> tuple[int, int] | None:
        """Return the first image of the nearest other picture that is in `split`, and the pair's row."""
        for other, row in self.partners.get(picture, ()):
            if (i := self.first(other, split)) is not None:
                return i, row
        return None

    def classes(self, picture: int) -> list[int]:
        """Return the labels that a picture carries; more than one is a contradiction."""
        return sorted({int(self.labels[i]) for i in self.images[picture]})

    def contradiction(self, i: int) -> int | None:
        """Return an image that shows the same as image `i` (or nearly) under another label, if any."""
        picture = int(self.picture[i])
        for same in (picture, *(other for other, _ in self.partners.get(picture, ()))):
            for j in self.images[same]:
                if self.labels[j] != self.labels[i]:
                    return j
        return None

    def sorted_rows(self) -> list[int]:
        """Return the rows of `near`, the nearest first."""
        return np.lexsort((-self.near.correlation, self.near.bits)).tolist()

    def likeness(self, row: int) -> str:
        """Return a few words on a pair of near copies."""
        near = self.near
        turned = "" if near.orientation[row] == "as it is" else f", {near.orientation[row]}"
        return f"{near.bits[row]} of 64 bits apart, correlation {near.correlation[row]:.3f}{turned}"

    def compare_labels(self, i: int, j: int) -> str:
        """Return a few words if two images carry two labels, else nothing."""
        a, b = CLASSES[self.labels[i]], CLASSES[self.labels[j]]
        return "" if a == b else f"two labels: {a} and {b}"


def build_table(
    paths: Sequence[str],
    records: Sequence[ImageRecord],
    labels: np.ndarray,
    splits: np.ndarray,
    *,
    distance: int,
) -> ImageTable:
    """Find who shows the same as whom.

    Parameters
    ----------
    paths, records, labels, splits
        See `ImageTable`; N of each, at least one.
    distance : int
        Bits of 64 by which the hashes of near copies may differ.
    """
    _, picture = np.unique([record.digest for record in records], return_inverse=True)
    images: list[list[int]] = [[] for _ in range(picture.max() + 1)]
    for i, p in enumerate(picture):
        images[p].append(i)
    near = find_near_copies(np.stack([records[own[0]].thumbnail for own in images]), distance=distance)
    table = ImageTable(
        tuple(paths),
        tuple(records),
        np.asarray(labels),
        np.asarray(splits),
        picture,
        tuple(map(tuple, images)),
        near,
        {},
        join_pairs(len(images), near.pairs)[picture],
    )
    for row in table.sorted_rows():
        a, b = near.pairs[row].tolist()
        table.partners.setdefault(a, []).append((b, row))
        table.partners.setdefault(b, []).append((a, row))
    return table
