"""Anatomy of the phantom: an averaged adult brain turned into brains of single subjects.

The base is the MNI ICBM152 2009a symmetric template (T1, grey matter, white matter) that ships in
nilearn's wheel, so nothing is downloaded. Coordinates are MNI millimetres: x to the right, y to the
front, z to the top.

References
----------
Fonov V. et al. (2011), Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
from scipy import ndimage

_TEMPLATE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_BRAIN_THRESHOLD = 0.04  # T1 (0..1) above which the template is brain or inner CSF
_HULL_MM = 3.0  # voxel size of the distance to the brain's hull
_HULL_LOW = np.array([-96, -144, -156], np.float32)  # mm, first voxel of the hull volume
_HULL_HIGH = np.array([96, 126, 114], np.float32)  # mm
_CLOSING_MM = 14.0  # sulci and fissures narrower than twice this do not dent the hull


@dataclass(frozen=True)
class Atlas:
    """The template in memory.

    Attributes
    ----------
    t1, gm, wm : float32 (197, 233, 189), 0..1, 1 mm
    hull : float32, 3 mm, signed distance in mm to the closed outline of the brain, negative inside
    origin : float32 (3,), voxel of MNI (0, 0, 0) in `t1`
    tumour_sites : float32 (n, 3), MNI mm, deep white matter where a glioma may be centred
    """

    t1: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    hull: np.ndarray
    origin: np.ndarray
    tumour_sites: np.ndarray

    def sample(self, points, name):
        """Interpolate one volume linearly.

        Parameters
        ----------
        points : sequence of three float arrays of one shape, MNI mm
        name : "t1", "gm", "wm" or "hull"

        Returns
        -------
        float32 array of that shape; outside the volume 0, for the hull the nearest distance.
        """
        volume = getattr(self, name)
        if name == "hull":
            voxels = [(p - low) / np.float32(_HULL_MM) for p, low in zip(points, _HULL_LOW, strict=True)]
            mode = "nearest"
        else:
            voxels = [p + o for p, o in zip(points, self.origin, strict=True)]
            mode = "constant"
        return ndimage.map_coordinates(volume, voxels, np.float32, order=1, mode=mode)


@cache
def load_atlas() -> Atlas:
    """Load the template once a process (about two seconds)."""
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    images = [nib.load(folder / _TEMPLATE.format(name)) for name in ("t1", "gm", "wm")]
    t1, gm, wm = (np.asarray(i.dataobj).astype(np.float32) / 255 for i in images)
    origin = -images[0].affine[:3, 3].astype(np.float32)

    brain = t1[::2, ::2, ::2] > _BRAIN_THRESHOLD
    depth = 2 * ndimage.distance_transform_edt(brain)
    deep = np.argwhere((depth > 10) & (wm[::2, ::2, ::2] > 0.6)) * 2 - origin
    sites = deep[deep[:, 2] > -20].astype(np.float32)  # above the pons and the cerebellum's base
    return Atlas(t1, gm, wm, _signed_hull(t1, origin), origin, sites)


def _signed_hull(t1, origin):
    """Return the signed distance (mm) to the brain closed by a ball."""
    axes = [
        np.arange(lo, hi, _HULL_MM, dtype=np.float32) + o
        for lo, hi, o in zip(_HULL_LOW, _HULL_HIGH, origin, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    brain = ndimage.map_coordinates(t1, grid, np.float32, order=1) > _BRAIN_THRESHOLD
    grown = ndimage.distance_transform_edt(~brain) * _HULL_MM < _CLOSING_MM
    closed = ndimage.distance_transform_edt(grown) * _HULL_MM > _CLOSING_MM
    outside = ndimage.distance_transform_edt(~closed)
    distance = (outside - ndimage.distance_transform_edt(closed)) * _HULL_MM
    return ndimage.gaussian_filter(distance.astype(np.float32), 1.0)


class SmoothNoise:
    """Source of smooth random fields of unit variance on one rectangular grid.

    A field is a cubic B-spline over random control points. These depend on the extent in mm alone,
    so the same generator gives the same anatomy at every voxel size.

    Parameters
    ----------
    rng : numpy.random.Generator
    axes : sequence of 1-D float arrays, position in mm of the samples along each axis, 0..extent
    extent : sequence of float, mm, the length of each axis
    """

    def __init__(self, rng, axes, extent):
        self.rng, self.axes, self.extent = rng, axes, extent

    def __call__(self, scale):
        """Return one float32 field with bumps about two `scale` (mm) wide."""
        cells = [max(1, round(e / scale)) for e in self.extent]
        field = self.rng.standard_normal([n + 3 for n in cells], dtype=np.float32)
        # The first axis last: its rows are contiguous. No matrix product, whose threads would
        # compete with other processes and whose rounding depends on the library.
        for axis in reversed(range(len(cells))):
            field = _interpolate(field, self.axes[axis], self.extent[axis], cells[axis], axis)
        # 151/315 is the mean of the squared weights of a uniform cubic B-spline, summed.
        return field / np.float32((151 / 315) ** (len(cells) / 2))


def _interpolate(field, positions, extent, cells, axis):
    """Evaluate a uniform cubic B-spline along one axis.

    Parameters
    ----------
    field : float32, control points, ``cells + 3`` along `axis`
    positions : float (n,), mm, 0..extent
    extent : float, mm
    cells : int, number of spans
    axis : int

    Returns
    -------
    float32, n along `axis`.
    """
    x = np.clip(np.asarray(positions, np.float64) / extent, 0, 1) * cells
    cell = np.minimum(x.astype(int), cells - 1)
    t = x - cell
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = [1] * field.ndim
    shape[axis] = len(x)
    return sum(
        field.take(cell + k, axis) * (w / 6).astype(np.float32).reshape(shape) for k, w in enumerate(weights)
    )


def make_tissues(t1, gm, wm, noise):
    """Turn averaged tissue probabilities into the sharp, folded tissue of one subject.

    Parameters
    ----------
    t1, gm, wm : float32 arrays of one shape, 0..1, sampled from the atlas
    noise : SmoothNoise on the same grid

    Returns
    -------
    fractions : tuple of float32 (CSF, grey matter, white matter), summing to 1 in the brain
    brain : bool, the brain with its inner CSF
    nuclei : float32, factor on a T1 image that brings out the deep nuclei
    """
    brain = t1 > _BRAIN_THRESHOLD
    wm = np.clip(wm + 0.10 * noise(4.0), 0, 1)
    gm = np.clip(gm + 0.16 * noise(3.2) - 0.06, 0, 1)
    csf = np.clip(1 - gm - wm, 0, 1) * brain + 1e-4
    powers = [x**2.2 for x in (csf, gm, wm)]
    total = sum(powers)
    csf, gm, wm = (np.where(brain, p / total, 0).astype(np.float32) for p in powers)
    nuclei = np.clip(t1 / (0.22 * csf + 0.62 * gm + 0.86 * wm + 0.02), 0.8, 1.15)
    return (csf, gm, wm), brain, nuclei


def soft_step(x, width):
    """Return 1 where x is well below 0, 0 where well above, logistic of `width` between."""
    return 1 / (1 + np.exp(np.clip(x / width, -30, 30)))
