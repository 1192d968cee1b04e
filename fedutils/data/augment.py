"""Augmentation of slices and volumes by one description: flip, rotate, scale, bend, and change intensities.

On NumPy arrays (X, Y, C) or (X, Y, Z, C) with their masks, a case at a time: for segmentation, for 3-D, for
pictures of each effect. Batches of 2-D images without masks are augmented inside TensorFlow's input pipeline,
whole batches at a time: `fedutils.data.pipeline.augment_batch`.

All that moves voxels is one map, so that images are interpolated, and blurred, once. What comes from outside
is 0. Intensities change in the foreground alone (where any channel is not 0): the background stays 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from fedutils.data.augment_effects import (
    build_matrix,
    change_intensities,
    make_bias_field,
    make_elastic_field,
    warp,
)
from fedutils.errors import InputError

OFF = (0.0, 0.0)


@dataclass(frozen=True)
class Augmentation:
    """How far each effect may go, and how often it happens: (largest, probability); nothing by default.

    A strength is drawn evenly from minus to plus the largest.

    Attributes
    ----------
    flip : tuple of float
        Probability of a mirror image along each axis, from the first. Axis 0 is left-right in (X, Y) and
        (X, Y, Z); in pictures (rows, columns) it is axis 1: ``(0, 0.5)``.
    rotation : (degrees, probability)
        In 3-D about each axis, by angles of their own.
    scaling : (fraction, probability)
        0.1: from 0.9 to 1.1 times as large.
    elastic : (voxels, probability)
        Displacement by random noise, smoothed; the largest of any voxel along any axis [1]_.
    smoothness : float
        Standard deviation of that smoothing, in voxels. Below about three times the displacement, the image
        may fold.
    gain, gamma : (fraction, probability)
        Intensities u, 0 to 1 between the least and the greatest of the channel's foreground, become
        ``(1 + gain) * u ** exp(gamma)``; channels differ.
    noise : (fraction, probability)
        Standard deviation of Gaussian noise, as a fraction of that range.
    bias : (fraction, probability)
        u is multiplied by a smooth field from ``exp(-bias)`` to ``exp(bias)``, one for all channels: what
        a coil's uneven sensitivity does.

    Raises
    ------
    InputError
        If a value is out of range.

    References
    ----------
    .. [1] P. Y. Simard, D. Steinkraus and J. C. Platt, "Best Practices for Convolutional Neural Networks
       Applied to Visual Document Analysis", ICDAR 2003.
    """

    flip: tuple[float, ...] = ()
    rotation: tuple[float, float] = OFF
    scaling: tuple[float, float] = OFF
    elastic: tuple[float, float] = OFF
    smoothness: float = 10.0
    gain: tuple[float, float] = OFF
    gamma: tuple[float, float] = OFF
    noise: tuple[float, float] = OFF
    bias: tuple[float, float] = OFF

    def __post_init__(self):
        """Check the values; lists of a profile become tuples."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "smoothness":
                is_right, expected = value > 0, "a number of voxels above 0"
            elif field.name == "flip":
                is_right, expected = all(0 <= p <= 1 for p in value), "probabilities, 0 to 1"
            else:
                most = 1.0 if field.name in ("scaling", "gain") else np.inf
                is_right = len(value) == 2 and 0 <= value[0] < most and 0 <= value[1] <= 1
                expected = f"(largest, probability), from 0 up to {most:g} and 1"
            if not is_right:
                raise InputError(f"augmentation: expected {field.name} to be {expected}, found {value}")
            if field.name != "smoothness":
                object.__setattr__(self, field.name, tuple(map(float, value)))


# Close to nnU-Net's (Isensee et al., 2021), with less of what costs quality in few rounds.
STANDARD = Augmentation(
    flip=(0.5,),
    rotation=(15.0, 0.3),
    scaling=(0.15, 0.3),
    elastic=(3.0, 0.2),
    gain=(0.2, 0.3),
    gamma=(0.3, 0.3),
    noise=(0.03, 0.15),
    bias=(0.3, 0.3),
)


def augment(
    images: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    augmentation: Augmentation,
    seed: int | Sequence[int],
    spacing: Sequence[float] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Augment one slice or volume and its mask alike.

    Parameters
    ----------
    images : float32 (X, Y, C) or (X, Y, Z, C)
        Never changed; returned itself where no effect comes up.
    mask : integer (X, Y) or (X, Y, Z), optional
    augmentation : Augmentation
    seed : int or sequence of int
        One seed gives one result, e.g. ``(seed, epoch, case)``. Effects have generators of their own:
        switching one off leaves the others as they were.
    spacing : sequence of float, optional
        Sides of a voxel in mm, so that rotations of oblong voxels keep shapes; all equal by default.

    Returns
    -------
    images : float32, of the same shape
    mask : of the same type and shape, or None
        Values are those of the nearest voxel.

    Raises
    ------
    InputError
        If the shapes do not fit, or an intensity to be changed is not finite.
    """
    if images.ndim not in (3, 4):
        raise InputError(f"augment: expected images (X, Y, C) or (X, Y, Z, C), found shape {images.shape}")
    shape = images.shape[:-1]
    if mask is not None and mask.shape != shape:
        raise InputError(f"augment: expected a mask of shape {shape}, found {mask.shape}")
    if len(augmentation.flip) > len(shape):
        raise InputError(f"augment: expected flips of {len(shape)} axes, found {len(augmentation.flip)}")
    seeds = np.atleast_1d(seed).tolist()
    rngs = [np.random.default_rng([*seeds, 60, number]) for number in range(8)]

    axes = tuple(a for a, p in enumerate(augmentation.flip) if rngs[0].random() < p)
    if axes:  # exact: no voxel is interpolated
        images, mask = np.flip(images, axes), None if mask is None else np.flip(mask, axes)
    angles = _draw(rngs[1], augmentation.rotation, 3 if len(shape) == 3 else 1)
    (scaling,) = _draw(rngs[2], augmentation.scaling, 1)
    (amplitude,) = _draw(rngs[3], augmentation.elastic, 1)
    displacement = None
    if amplitude:
        displacement = make_elastic_field(shape, amplitude, augmentation.smoothness, rngs[3])
    if angles.any() or scaling or amplitude:
        images, mask = warp(images, mask, build_matrix(angles, 1 + scaling, spacing), displacement)

    num_channels = images.shape[-1]
    gains = 1 + _draw(rngs[4], augmentation.gain, num_channels)
    gammas = np.exp(_draw(rngs[5], augmentation.gamma, num_channels))
    (noise,) = np.abs(_draw(rngs[6], augmentation.noise, 1))
    (strength,) = _draw(rngs[7], augmentation.bias, 1)
    field = make_bias_field(shape, strength, rngs[7]) if strength else None
    if (gains != 1).any() or (gammas != 1).any() or noise or field is not None:
        images = change_intensities(images, gains, gammas, field, noise, rngs[6])
    return images, mask


def _draw(rng, setting, count):
    """Return the strengths of an effect, float64 (count,): zeros where it does not come up."""
    largest, probability = setting
    happens = rng.random() < probability
    return rng.uniform(-largest, largest, count) * happens
