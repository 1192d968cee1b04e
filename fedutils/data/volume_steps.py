"""Preprocessing steps of volumes: each a pure function from array to array, pictured in notebook 02.

Volumes are (X, Y, Z) or (X, Y, Z, C), one channel a modality; 0 outside the brain, as BraTS has it. Steps
that look at intensities treat each modality by itself. Boxes are in `fedutils.data.boxes`;
`fedutils.data.volume_prepare` strings all together, faster.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fedutils.errors import InputError

_FEW_LEVELS = 2**20  # integers of a smaller range than this are counted, others are sorted


@dataclass(frozen=True)
class Histogram:
    """How often each intensity occurs in a volume: enough for exact percentiles, mean and deviation.

    Attributes
    ----------
    levels : (K,)
        Intensities, ascending.
    counts : int64 (K,)
        Voxels of each.
    """

    levels: np.ndarray
    counts: np.ndarray

    def percentile(self, q: float) -> float:
        """Return what `numpy.percentile` (linear) gives for the voxels, 0 <= q <= 100."""
        ends = self.counts.cumsum()  # how many voxels lie at or below each level
        position = q / 100 * (ends[-1] - 1)
        ranks = np.array([np.floor(position), np.ceil(position)])
        below, above = self.levels[np.searchsorted(ends, ranks, side="right")].astype(np.float64)
        return float(below + (above - below) * (position - ranks[0]))

    def moments(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """Return mean and standard deviation of the voxels once clipped to [low, high]."""
        levels = np.clip(self.levels.astype(np.float64), low, high)
        total = self.counts.sum()
        mean = (self.counts * levels).sum() / total
        return float(mean), float(np.sqrt((self.counts * (levels - mean) ** 2).sum() / total))


def count_intensities(image: np.ndarray, foreground: np.ndarray | None = None) -> Histogram:
    """Count the intensities of a volume's foreground.

    Parameters
    ----------
    image : (X, Y, Z)
        Any integers or floats. Integers are counted, which is several times faster than sorting them.
    foreground : bool (X, Y, Z), optional
        Which voxels; by default those that are not 0.

    Raises
    ------
    InputError
        If there is no such voxel, or one of them is NaN or infinite.
    """
    foreground = image != 0 if foreground is None else foreground
    values = image.T[foreground.T]  # NIfTI files are in Fortran order: the transpose walks along memory
    if not values.size:
        raise InputError("expected an image of a brain, found no voxel other than 0")
    if values.dtype.kind in "iub":
        low, high = int(values.min()), int(values.max())
        if high - low < _FEW_LEVELS:
            start = min(low, 0)
            counts = np.bincount(values.astype(np.intp) - start)
            return Histogram(np.arange(start, start + len(counts)), counts)
    values.sort()
    if not (np.isfinite(values[0]) and np.isfinite(values[-1])):  # NaN is sorted to the end
        raise InputError("expected finite intensities, found NaN or infinity")
    return Histogram(values, np.ones(len(values), np.int64))


def _for_each_modality(step):
    """Let a step for (X, Y, Z) take (X, Y, Z, C) as well."""

    @functools.wraps(step)
    def apply(image, *arguments, **options):
        if image.ndim == 3:
            return step(image, *arguments, **options)
        if image.ndim != 4:
            raise InputError(f"volume: expected (X, Y, Z) or (X, Y, Z, C), found shape {image.shape}")
        channels = [step(image[..., c], *arguments, **options) for c in range(image.shape[3])]
        return np.stack(channels, axis=-1)

    return apply


@_for_each_modality
def scale_min_max(image: np.ndarray, foreground: np.ndarray | None = None) -> np.ndarray:
    """Map the least intensity of a modality to 0 and the greatest to 1.

    Public code that reshapes to (-1, Z) and calls scikit-learn's ``MinMaxScaler`` scales every axial slice by
    itself instead, which brightens slices with little in them; this does not.

    Parameters
    ----------
    image : (X, Y, Z) or (X, Y, Z, C)
    foreground : bool (X, Y, Z), optional
        Scale over these voxels, and let others be 0; by default over the whole volume.

    Returns
    -------
    float32, of the same shape
        In [0, 1].

    Raises
    ------
    InputError
        If the intensities do not differ, or one is NaN or infinite.
    """
    values = image if foreground is None else image[foreground]
    if not values.size:
        raise InputError("expected an image of a brain, found no voxel other than 0")
    low, high = float(values.min()), float(values.max())
    check_range(low, high)
    scaled = ((image - np.float32(low)) / np.float32(high - low)).astype(np.float32)
    return scaled if foreground is None else np.where(foreground, scaled, np.float32(0))


def check_range(low: float, high: float) -> None:
    """Raise InputError unless the least and greatest intensity are finite and differ."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("expected finite intensities, found NaN or infinity")
    if not high > low:
        raise InputError(f"expected intensities that differ, found {high:g} throughout")


@_for_each_modality
def clip_percentiles(
    image: np.ndarray, low: float = 0.5, high: float = 99.5, foreground: np.ndarray | None = None
) -> np.ndarray:
    """Clip the intensities of the foreground to its percentiles; other voxels become 0.

    Parameters
    ----------
    image : (X, Y, Z) or (X, Y, Z, C)
    low, high : float
        Percentiles, 0 <= low < high <= 100.
    foreground : bool (X, Y, Z), optional
        By default the voxels of the modality that are not 0.

    Returns
    -------
    float32, of the same shape

    Raises
    ------
    InputError
        If the percentiles are no range, the foreground is empty, or an intensity is not finite.
    """
    check_percentiles(low, high)
    foreground = image != 0 if foreground is None else foreground
    counts = count_intensities(image, foreground)
    clipped = np.clip(image.astype(np.float32), counts.percentile(low), counts.percentile(high))
    return np.where(foreground, clipped, np.float32(0))


def check_percentiles(low: float, high: float) -> None:
    """Raise InputError unless 0 <= low < high <= 100."""
    if not 0 <= low < high <= 100:
        raise InputError(
            f"percentiles: expected 0 <= low < high <= 100, found {low} and {high}; mend the recipe"
        )


@_for_each_modality
def scale_z_score(image: np.ndarray, foreground: np.ndarray | None = None) -> np.ndarray:
    """Give the foreground mean 0 and standard deviation 1; other voxels become 0 [1]_.

    Parameters
    ----------
    image : (X, Y, Z) or (X, Y, Z, C)
    foreground : bool (X, Y, Z), optional
        By default the voxels of the modality that are not 0. nnU-Net takes those where any modality is not 0.

    Returns
    -------
    float32, of the same shape

    Raises
    ------
    InputError
        If the foreground is empty or constant, or an intensity is not finite.

    References
    ----------
    .. [1] F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
       segmentation", Nature Methods 18, 2021.
    """
    foreground = image != 0 if foreground is None else foreground
    counts = count_intensities(image, foreground)
    mean, deviation = counts.moments()
    if not deviation > 0:
        raise InputError(f"expected intensities that differ, found {mean:g} throughout the foreground")
    scaled = (image - np.float32(mean)) / np.float32(deviation)
    return np.where(foreground, scaled, np.float32(0)).astype(np.float32)


@_for_each_modality
def resample(image: np.ndarray, shape: tuple[int, int, int], *, labels: bool = False) -> np.ndarray:
    """Resample a volume to another shape; the corners of the field of view stay where they are.

    Parameters
    ----------
    image : (X, Y, Z) or (X, Y, Z, C)
    shape : tuple of 3 int
        See `compute_resampled_shape` for that of a spacing.
    labels : bool
        Take the nearest voxel's value, so that no new label appears. Else linear, after a Gaussian filter
        along axes that shrink, against aliasing.

    Returns
    -------
    (shape) or (shape, C)
        Of the same type if labels, else float32.
    """
    factors = [n / old for n, old in zip(shape, image.shape, strict=True)]
    if labels:
        return ndimage.zoom(image, factors, order=0, mode="nearest", grid_mode=True)
    blur = [max(0.0, (1 / factor - 1) / 2) for factor in factors]  # as in scikit-image's resize
    image = image.astype(np.float32, copy=False)
    image = ndimage.gaussian_filter(image, blur, mode="nearest") if any(blur) else image
    return ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True, output=np.float32)


def compute_resampled_shape(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], target: tuple[float, float, float]
) -> tuple[int, int, int]:
    """Return the shape, at least 1, that covers the same field of view at the target spacing (both in mm)."""
    return tuple(max(1, round(n * a / b)) for n, a, b in zip(shape, spacing, target, strict=True))


def stack_modalities(images: Mapping[str, np.ndarray], modalities: tuple[str, ...]) -> np.ndarray:
    """Stack the images of some modalities, in the given order, as channels of one (X, Y, Z, C).

    ``("t1ce", "t2", "flair")`` leaves T1 out, as the project's forerunners do.
    """
    if missing := [m for m in modalities if m not in images]:
        raise InputError(f"modalities: expected {', '.join(modalities)}, found no {', '.join(missing)}")
    shapes = {images[m].shape for m in modalities}
    if len(shapes) != 1:
        raise InputError(f"modalities: expected images of one shape, found {sorted(shapes)}")
    return np.stack([images[m] for m in modalities], axis=-1)


def compute_labelled(mask: np.ndarray) -> float:
    """Return the share of voxels, in [0, 1], whose label is not 0."""
    return float(np.count_nonzero(mask) / mask.size)


def has_labels(mask: np.ndarray, minimum: float = 0.01) -> bool:
    """Return whether at least this share of voxels is labelled: public BraTS code drops cases below 1 %."""
    return compute_labelled(mask) >= minimum
