"""The five hospitals of the phantom: what their scanners do to an image.

All values are within what multi-centre sets show; none makes an image unreadable.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fedutils.data.phantom_atlas import SmoothNoise
from fedutils.errors import InputError

_BIAS_SCALE_MM = 70.0  # about the size of a coil element's field


@dataclass(frozen=True)
class Scanner:
    """One hospital's scanner.

    Attributes
    ----------
    name : the hospital's name, as the index files give it
    bias : standard deviation of the logarithm of the multiplicative bias field
    gamma : exponent on the intensity, 1 for none
    noise : standard deviation of the complex noise, relative to white matter on T1 (about 1)
    blur_mm : standard deviation of the in-plane blur
    thickness_mm : slice thickness
    """

    name: str
    bias: float
    gamma: float
    noise: float
    blur_mm: float
    thickness_mm: float


HOSPITALS = (
    Scanner("hospital_1", bias=0.05, gamma=1.00, noise=0.012, blur_mm=0.0, thickness_mm=1.0),
    Scanner("hospital_2", bias=0.12, gamma=0.85, noise=0.022, blur_mm=0.6, thickness_mm=1.0),
    Scanner("hospital_3", bias=0.09, gamma=1.18, noise=0.018, blur_mm=0.4, thickness_mm=3.0),
    Scanner("hospital_4", bias=0.16, gamma=1.06, noise=0.028, blur_mm=0.8, thickness_mm=5.0),
    Scanner("hospital_5", bias=0.13, gamma=0.93, noise=0.035, blur_mm=0.3, thickness_mm=2.0),
)


def hospital_index(hospital) -> int:
    """Return the position in `HOSPITALS` of a hospital given by position or by name.

    Raises
    ------
    InputError
        If there is no such hospital.
    """
    names = [h.name for h in HOSPITALS]
    if isinstance(hospital, str) and hospital in names:
        return names.index(hospital)
    is_integer = isinstance(hospital, int | np.integer) and not isinstance(hospital, bool)
    if is_integer and 0 <= hospital < len(HOSPITALS):
        return int(hospital)
    raise InputError(
        f"unknown hospital: expected 0 to {len(HOSPITALS) - 1} or one of {', '.join(names)}, "
        f"found {hospital!r}; name one of these"
    )


def apply_scanner(rng, image, scanner, axes, extent, *, mask=None, slice_axis=None):
    """Give an ideal image the bias field, contrast, blur and noise of a scanner.

    Parameters
    ----------
    rng : numpy.random.Generator
    image : float32 (H, W) or (W, D, H), at least 0, white matter about 1 on T1
    scanner : Scanner
    axes, extent : as for `SmoothNoise`; mm
    mask : bool of the same shape or None; outside it the result is 0
    slice_axis : the axis along which slices are thick, None for a single slice

    Returns
    -------
    float32 of the same shape, at least 0.
    """
    spacing = float(axes[0][1] - axes[0][0])
    if scanner.blur_mm:
        image = ndimage.gaussian_filter(image, scanner.blur_mm / spacing, truncate=2.5)
    if slice_axis is not None and scanner.thickness_mm > spacing:
        image = _thicken(image, scanner.thickness_mm / spacing, slice_axis)
    bias = np.float32(scanner.bias) * SmoothNoise(rng, axes, extent)(_BIAS_SCALE_MM)
    image = np.clip(image, 0, None) ** np.float32(scanner.gamma) * np.exp(bias)
    inside = Ellipsis if mask is None else mask
    values = image[inside]
    real, imaginary = scanner.noise * rng.standard_normal((2, *values.shape), dtype=np.float32)
    result = np.zeros_like(image)
    result[inside] = np.sqrt((values + real) ** 2 + imaginary**2)  # magnitude image: Rician noise
    return result


def _thicken(image, voxels, axis):
    """Average into slices `voxels` thick and interpolate back to the grid of the input."""
    step = max(1, round(voxels))
    averaged = ndimage.uniform_filter1d(image, step, axis=axis)
    n = image.shape[axis]
    kept = averaged.take(range(0, n, step), axis)
    position = np.minimum(np.arange(n) / step, kept.shape[axis] - 1)
    low = position.astype(int)
    high = np.minimum(low + 1, kept.shape[axis] - 1)
    shape = [1] * image.ndim
    shape[axis] = n
    t = (position - low).astype(np.float32).reshape(shape)
    return kept.take(low, axis) * (1 - t) + kept.take(high, axis) * t
