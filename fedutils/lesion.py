"""How large a segmented region is across, and on which side of the brain it lies.

The longest diameter is taken in one axial slice, as the RANO criteria [1]_ take it on axial images. They go
further: two diameters at right angles, of enhancing lesions that show on two slices at least, compared over
time. Nothing here is such an assessment.

References
----------
.. [1] P. Y. Wen et al., "Updated Response Assessment Criteria for High-Grade Gliomas: Response Assessment in
   Neuro-Oncology Working Group", Journal of Clinical Oncology 28(11), 2010.
.. [2] J. J. M. van Griethuysen et al., "Computational Radiomics System to Decode the Radiographic Phenotype",
   Cancer Research 77(21), 2017: there the largest distance in a slice runs between vertices of a surface
   mesh, halfway between voxels, as here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from fedutils.errors import InputError

MIDLINE = 1 / 28  # share of the head's width: 5 mm of 140
STEEPEST = 20.0  # degrees by which the plane between the halves may lean; beyond, no side is told
_TOUCHING = np.ones((3, 3))


@dataclass(frozen=True)
class Diameter:
    """The longest diameter of a region in an axial slice.

    Attributes
    ----------
    length : float
        In mm; in voxels where the spacing is unknown.
    position : int
        The slice, from 0 at the bottom.
    """

    length: float
    position: int


@dataclass(frozen=True)
class Side:
    """On which side of the brain a region lies.

    Attributes
    ----------
    name : {"left", "right", "midline"}
        Of the patient.
    distance : float
        Of the region's centre of mass from the plane between the halves, positive towards the right; in mm,
        in voxels where the spacing is unknown.
    beyond : float
        Share of the region's volume that lies on the other side than most of it, in [0, 0.5].
    """

    name: str
    distance: float
    beyond: float


def measure_diameter(region: np.ndarray, spacing: Sequence[float] | None = None) -> Diameter | None:
    """Measure the longest diameter of a region over its axial slices.

    In each slice, parts that touch at an edge or a corner of a voxel are one lesion, and others are measured
    apart: two lesions far from each other are not one long one. The ends are the middles of outer faces of
    voxels, so that a row of n voxels is n voxels long.

    Parameters
    ----------
    region : bool (X, Y, Z)
        Axes towards right, front and top.
    spacing : (3,) mm, optional
        Sides of a voxel.

    Returns
    -------
    Diameter or None
        Of several that are equal, the lowest slice; None of an empty region.

    Raises
    ------
    InputError
        If the region has not three axes, or the spacing not three sides above 0.
    """
    region, (width, height, _) = _check(region, spacing)
    best = None
    for z in np.flatnonzero(region.any(axis=(0, 1))):
        parts, _ = ndimage.label(region[:, :, z], _TOUCHING)
        for number, box in enumerate(ndimage.find_objects(parts), 1):
            part = parts[box] == number
            most = np.hypot(part.shape[0] * width, part.shape[1] * height)
            if best is None or most > best.length:
                length = _measure_part(part, width, height)
                if best is None or length > best.length * (1 + 1e-9):  # not by rounding alone
                    best = Diameter(length, int(z))
    return best


def locate(region: np.ndarray, head: np.ndarray, spacing: Sequence[float] | None = None) -> Side | None:
    """Tell on which side of the brain's middle a region's centre of mass lies.

    The plane between the halves runs through the middles of the head's rows from left to right, by least
    squares over rows at least half as wide as the widest, once more without the worst of them. It may lean as
    a head does that was not straight in the scanner.

    Parameters
    ----------
    region, head : bool (X, Y, Z)
        Axes towards right, front and top.
    spacing : (3,) mm, optional
        Sides of a voxel.

    Returns
    -------
    Side or None
        ``midline`` within 1/28 of the head's width (5 mm of 140). None if the region is empty, the head shows
        too little to find its middle, or its plane leans by more than 20 degrees (within the slices, where
        the spacing is unknown).

    Raises
    ------
    InputError
        If the arrays have other shapes than each other, or the spacing has not three sides above 0.
    """
    region, sides = _check(region, spacing)
    head, _ = _check(head, spacing)
    if head.shape != region.shape:
        raise InputError(
            f"head: expected the region's shape {region.shape}, found {head.shape}; give both on one grid"
        )
    plane = _fit_plane(head)
    if plane is None or not region.any():
        return None
    (start, per_y, per_z), widest = plane
    lean = abs(per_y * sides[0] / sides[1])
    if spacing is not None:  # how far apart slices are is unknown otherwise
        lean = np.hypot(lean, per_z * sides[0] / sides[2])
    if lean > np.tan(np.radians(STEEPEST)):
        return None
    x, y, z = np.nonzero(region)
    from_plane = (x - start - per_y * y - per_z * z) * sides[0] / np.hypot(1, lean)
    distance = float(from_plane.mean())
    right = float((from_plane > 0).mean())
    near = abs(distance) <= MIDLINE * widest * sides[0]
    name = "midline" if near else "right" if distance > 0 else "left"
    return Side(name, distance, min(right, 1 - right))


def _check(region, spacing):
    """Return the region as bool, and the sides of its voxels."""
    region = np.asarray(region, bool)
    sides = (1.0, 1.0, 1.0) if spacing is None else tuple(map(float, spacing))
    if region.ndim != 3 or len(sides) != 3 or not all(0 < side < np.inf for side in sides):
        raise InputError(
            f"region: expected axes (X, Y, Z) and three sides of a voxel in mm, found shape {region.shape} "
            f"and sides {sides}"
        )
    return region, sides


def _measure_part(part, width, height):
    """Return the greatest distance between outer faces of a connected part, bool (X, Y)."""
    padded = np.pad(part, 1)
    ends = []
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        places = np.argwhere(padded & ~np.roll(padded, -step, axis)).astype(float)
        places[:, axis] += step / 2
        ends.append(places)
    ends = np.concatenate(ends) * (width, height)
    return float(pdist(ends[ConvexHull(ends).vertices]).max())


def _fit_plane(head):
    """Return (a, b, c) of the middle x = a + b y + c z in voxels and the head's width, or None."""
    across = head.sum(axis=0)  # (Y, Z)
    first = head.argmax(axis=0)
    last = len(head) - 1 - head[::-1].argmax(axis=0)
    widths = np.where(across > 0, last - first + 1, 0)
    y, z = np.nonzero(widths >= max(widths.max() / 2, 1))
    if len(y) < 12:
        return None
    middles = (first + last)[y, z] / 2
    terms = np.stack([np.ones(len(y)), y, z], axis=1)
    for _ in range(2):
        plane, _, rank, _ = np.linalg.lstsq(terms, middles, rcond=None)
        errors = np.abs(middles - terms @ plane)
        kept = errors <= max(3 * np.median(errors), 0.5)  # half a voxel is rounding
        terms, middles = terms[kept], middles[kept]
    return (plane, int(widths.max())) if rank == 3 else None
