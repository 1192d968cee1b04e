"""Preprocessing steps: each a pure function from array to array, pictured in notebook 02."""

import numpy as np
from PIL import Image

from fedutils.errors import InputError


def to_grey(image: Image.Image) -> np.ndarray:
    """Return an image of any mode as float32 (H, W) in [0, 1]; colour becomes luminance (ITU-R 601)."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float images: scale by their own range
        pixels = np.asarray(image, np.float32)
        low, high = pixels.min(), pixels.max()
        return (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    return np.asarray(image.convert("L"), np.float32) / 255.0


def pad_to_square(image: np.ndarray) -> np.ndarray:
    """Pad the shorter side of (H, W) with black on both sides, so that resizing keeps proportions."""
    height, width = image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(image, ((top, side - height - top), (left, side - width - left)))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (H, W) to float32 (size, size) by area-aware bilinear interpolation, clipped to [0, 1]."""
    if image.shape == (size, size):
        return image.astype(np.float32)
    picture = Image.fromarray(image.astype(np.float32))  # Pillow widens the kernel when it shrinks
    return np.clip(np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)), 0.0, 1.0)


def stretch_contrast(image: np.ndarray, low: float = 0.0, high: float = 99.5) -> np.ndarray:
    """Map the given percentiles of the image to 0 and 1 and clip; a constant image becomes zeros.

    Parameters
    ----------
    image : float32 (H, W)
    low, high : float
        Percentiles, 0 <= low < high <= 100.
    """
    if not 0 <= low < high <= 100:
        raise InputError(
            f"percentiles: expected 0 <= low < high <= 100, found {low} and {high}; mend the profile"
        )
    a, b = np.percentile(image, [low, high])
    if b <= a:
        return np.zeros_like(image, np.float32)
    return np.clip((image - a) / (b - a), 0.0, 1.0).astype(np.float32)


def prepare_slice(image: Image.Image, size: int) -> np.ndarray:
    """Return one image as float32 (size, size, 1) in [0, 1]: grey, contrast, square, resized."""
    return resize(pad_to_square(stretch_contrast(to_grey(image))), size)[..., np.newaxis]
