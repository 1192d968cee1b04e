"""What an audit keeps of an image: hash, size, mode, brightness and a thumbnail, all from one decode."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fedutils.data.hashes import SIDE, hash_pixels
from fedutils.preprocess import to_grey

PERCENTILES = (5, 25, 50, 75, 95)
_COLOUR_STEP = 24  # grey levels between channels: above what JPEG leaves in a grey picture saved as RGB


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image, described.

    Attributes
    ----------
    digest : str
        Hash of the decoded grey pixels (`fedutils.data.hashes.hash_pixels`).
    width, height : int
        Pixels.
    mode : str
        Pillow's: ``L`` is grey, ``RGB`` is colour, of whatever content.
    num_bytes : int
        Size of the file.
    mean, deviation : float
        Of the grey values, 0 to 255.
    percentiles : tuple of float
        Grey values at `PERCENTILES`.
    colour : float
        Share of the picture, 0 to 1, where the channels differ clearly.
    thumbnail : uint8 (72, 72)
        Grey, squeezed into a square.
    """

    digest: str
    width: int
    height: int
    mode: str
    num_bytes: int
    mean: float
    deviation: float
    percentiles: tuple[float, ...]
    colour: float
    thumbnail: np.ndarray


def record_image(path: Path, image: Image.Image) -> ImageRecord:
    """Describe an image that was read from `path`."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits: Pillow would clip them to 8
        grey = Image.fromarray((to_grey(image) * 255).round().astype(np.uint8))
    else:
        grey = image.convert("L")
    counts = np.asarray(grey.histogram(), np.float64)
    share = counts / counts.sum()
    values = np.arange(256)
    mean = float(share @ values)
    below = np.cumsum(share)
    return ImageRecord(
        digest=hash_pixels(np.asarray(grey)),
        width=image.width,
        height=image.height,
        mode=image.mode,
        num_bytes=Path(path).stat().st_size,
        mean=mean,
        deviation=float(np.sqrt(share @ (values - mean) ** 2)),
        percentiles=tuple(float(v) for v in np.searchsorted(below, np.asarray(PERCENTILES) / 100 - 1e-9)),
        colour=_colour_share(image),
        thumbnail=np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX)),
    )


def _colour_share(image: Image.Image) -> float:
    if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
        return 0.0
    small = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))
    spread = small.max(axis=2) - small.min(axis=2)  # uint8: the largest minus the smallest cannot wrap
    return float((spread > _COLOUR_STEP).mean())
