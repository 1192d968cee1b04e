"""What augmentation does to images, each a pure function; `fedutils.data.augment` draws how much of each."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fedutils.errors import InputError


def build_matrix(
    angles: Sequence[float], scale: float = 1.0, spacing: Sequence[float] | None = None
) -> np.ndarray:
    """Return the matrix from a voxel of the result to the voxel where it comes from, both from the middle.

    Parameters
    ----------
    angles : sequence of 1 or 3 float
        Degrees: in the plane, from axis 0 to axis 1; or about axes 0, 1 and 2, in this order.
    scale : float
        Above 1, the result is larger.
    spacing : sequence of float, optional
        Sides of a voxel.

    Returns
    -------
    float64 (2, 2) or (3, 3)
    """
    if len(angles) == 1:
        turn = Rotation.from_euler("z", angles[0], degrees=True).as_matrix()[:2, :2]
    else:
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    sides = np.ones(len(turn)) if spacing is None else np.asarray(spacing, np.float64)
    return turn.T * sides / sides[:, np.newaxis] / scale  # the inverse of a rotation is its transpose


def warp(
    images: np.ndarray,
    mask: np.ndarray | None,
    matrix: np.ndarray,
    displacement: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Move voxels by a matrix about the middle and a displacement, in one interpolation.

    Parameters
    ----------
    images : (X, Y, C) or (X, Y, Z, C)
    mask : integer (X, Y) or (X, Y, Z), optional
    matrix : float (D, D)
        From result to source, see `build_matrix`.
    displacement : float32 (D, X, Y) or (D, X, Y, Z), optional
        In voxels, added to where a voxel of the result comes from.

    Returns
    -------
    images : float32, of the same shape
        Linear between voxels, 0 outside.
    mask : of the same type and shape, or None
        The nearest voxel's, 0 outside.
    """
    shape = images.shape[:-1]
    middle = (np.array(shape) - 1) / 2
    offset = middle - matrix @ middle
    if displacement is None:

        def move(array, order, dtype):
            return ndimage.affine_transform(array, matrix, offset, order=order, output=dtype)
    else:
        grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
        places = displacement.astype(np.float32)
        for place, row, start in zip(places, matrix.astype(np.float32), offset, strict=True):
            place += np.float32(start)
            for weight, axis in zip(row, grid, strict=True):
                place += weight * axis

        def move(array, order, dtype):
            return ndimage.map_coordinates(array, places, order=order, output=dtype)

    moved = np.stack([move(images[..., c], 1, np.float32) for c in range(images.shape[-1])], axis=-1)
    return moved, None if mask is None else move(mask, 0, mask.dtype)


def make_smooth_noise(shape: Sequence[int], smoothness: float, rng: np.random.Generator) -> np.ndarray:
    """Return random noise under a Gaussian, scaled so that the largest magnitude is 1.

    The noise lies on a lattice as wide as the Gaussian: finer would not be seen after it, and costs more.

    Parameters
    ----------
    shape : sequence of int
    smoothness : float
        Standard deviation of the Gaussian, in voxels.
    rng : numpy.random.Generator

    Returns
    -------
    float32 (shape)
        In [-1, 1].
    """
    knots = [np.arange(-3, np.ceil(n / smoothness) + 4) * smoothness for n in shape]
    noise = rng.uniform(-1, 1, [len(k) for k in knots]).astype(np.float32)
    for axis, (n, places) in enumerate(zip(shape, knots, strict=True)):
        distances = (np.arange(n)[:, np.newaxis] - places) / smoothness
        kernel = np.exp(-0.5 * distances**2).astype(np.float32)
        noise = np.moveaxis(np.tensordot(kernel, noise, (1, axis)), 0, axis)
    return np.ascontiguousarray(noise / np.abs(noise).max())


def make_elastic_field(
    shape: Sequence[int], amplitude: float, smoothness: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a random displacement, float32 (D, shape), of at most `amplitude` voxels along each axis."""
    fields_of_axes = [make_smooth_noise(shape, smoothness, rng) for _ in shape]
    return np.stack(fields_of_axes) * np.float32(amplitude)


def make_bias_field(shape: Sequence[int], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth positive field, float32 (shape), within exp(-strength) and exp(strength)."""
    return np.exp(np.float32(strength) * make_smooth_noise(shape, max(shape) / 3, rng))


def change_intensities(
    images: np.ndarray,
    gains: Sequence[float],
    gammas: Sequence[float],
    field: np.ndarray | None = None,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Change the intensities of the foreground: u becomes ``gain * field * u ** gamma`` and noise.

    Parameters
    ----------
    images : (X, Y, C) or (X, Y, Z, C)
        u is 0 to 1 between the least and the greatest intensity of a channel's foreground.
    gains, gammas : sequence of C float
    field : float32 (X, Y) or (X, Y, Z), optional
    noise : float
        Standard deviation, as a fraction of that range; needs `rng`.
    rng : numpy.random.Generator, optional

    Returns
    -------
    float32, of the same shape
        Not clipped; channels that are constant in the foreground stay.
    """
    result = np.array(images, np.float32)
    inside = (result != 0).any(axis=-1)
    for c, (gain, gamma) in enumerate(zip(gains, gammas, strict=True)):
        values = result[..., c][inside]
        low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
        if not np.isfinite(low + high):
            raise InputError("augment: expected finite intensities, found NaN or infinity; mend the images")
        if high <= low:
            continue
        values = ((values - low) / (high - low)) ** np.float32(gamma) * np.float32(gain)
        if field is not None:
            values *= field[inside]
        if noise:
            values += np.float32(noise) * rng.standard_normal(values.size, np.float32)
        result[..., c][inside] = low + (high - low) * values
    return result
