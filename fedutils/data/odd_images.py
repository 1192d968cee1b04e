"""Odd images: colour, extreme shape, nearly constant, too bright or dark for their class, or unlike it.

They are for a person to look at. Nothing here decides that an image is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedutils.data.hashes import describe_pictures
from fedutils.data.image_record import ImageRecord

COLOURED = 0.01  # share of the picture
LONG = 2.0  # long side over short side
FLAT = 5.0  # deviation of grey values, of 255
FAR = 5.0  # robust deviations from the median of the class
_NEIGHBOURS = 5  # a few wrong pictures may be alike
_MIN_CLASS = 20


@dataclass(frozen=True)
class OddImage:
    """One reason to look at an image.

    Attributes
    ----------
    kind : str
        ``colour``, ``extreme shape``, ``nearly constant``, ``brightness`` or ``unlike its class``.
    index : int
        Position of the image.
    detail : str
        The measured value, in words.
    """

    kind: str
    index: int
    detail: str


def compute_robust_score(values: np.ndarray) -> np.ndarray:
    """Return the distance of each value from the median in robust deviations (1.4826 MAD); 0 if MAD is 0."""
    values = np.asarray(values, np.float64)
    from_median = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(from_median))
    return from_median / spread if spread > 0 else np.zeros_like(values)


def compute_isolation(thumbnails: np.ndarray) -> np.ndarray:
    """Return float (N,): 1 minus the correlation of each picture with the fifth most similar of the others.

    Parameters
    ----------
    thumbnails : uint8 (N, 72, 72)
        Of one class; more than 5.
    """
    vectors = describe_pictures(thumbnails)
    isolation = np.empty(len(vectors))
    for start in range(0, len(vectors), 512):
        likeness = vectors[start : start + 512] @ vectors.T
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = -np.inf  # itself
        isolation[start : start + 512] = 1 - np.partition(likeness, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS]
    return isolation


def find_odd_images(
    records: Sequence[ImageRecord], labels: np.ndarray, groups: np.ndarray
) -> tuple[OddImage, ...]:
    """Find the images that a person should look at, the oddest of each kind first.

    Parameters
    ----------
    records : list of ImageRecord, N of them
    labels : int (N,)
        Outliers are sought within a class, if it has at least 20 groups.
    groups : int (N,)
        Near copies share one. Its first image stands for it among the neighbours: a class of many copies is
        not the measure of how alike pictures are.
    """
    colour = np.asarray([r.colour for r in records])
    ratio = np.asarray([max(r.width, r.height) / min(r.width, r.height) for r in records])
    deviation = np.asarray([r.deviation for r in records])
    mean = np.asarray([r.mean for r in records])
    bright, apart = np.zeros(len(records)), np.zeros(len(records))
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        own = of_label[np.unique(groups[of_label], return_index=True)[1]]
        if len(own) >= _MIN_CLASS:
            bright[own] = compute_robust_score(mean[own])
            apart[own] = compute_robust_score(
                compute_isolation(np.stack([records[i].thumbnail for i in own]))
            )

    kinds = (
        ("colour", colour, COLOURED, lambda i: f"{colour[i]:.0%} of the picture is coloured"),
        ("extreme shape", ratio, LONG, lambda i: f"{records[i].width} x {records[i].height} pixels"),
        ("nearly constant", -deviation, -FLAT, lambda i: f"grey values deviate by {deviation[i]:.1f} of 255"),
        (
            "brightness",
            np.abs(bright),
            FAR,
            lambda i: f"mean grey value {mean[i]:.0f}, {bright[i]:+.1f} robust deviations from its class",
        ),
        (
            "unlike its class",
            apart,
            FAR,
            lambda i: f"{apart[i]:.1f} robust deviations from the nearest others",
        ),
    )
    found = []
    for kind, values, limit, describe in kinds:
        worst = np.argsort(-values, kind="stable")
        found += [OddImage(kind, int(i), describe(i)) for i in worst[values[worst] > limit]]
    return tuple(found)
