"""Boxes of voxels: what is cut out of a volume or padded around it, and how predictions are put back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedutils.errors import InputError


@dataclass(frozen=True)
class Box:
    """A box of voxels, from `start` up to but without `stop`; what lies beyond the volume is padding.

    Attributes
    ----------
    start, stop : tuple of 3 int
        In voxels of the volume; `start` may be negative.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def overlap(self, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the part that a volume of this shape and the box share: slices of the volume, of the box."""
        low = [max(a, 0) for a in self.start]
        high = [min(b, n) for b, n in zip(self.stop, shape, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise InputError(
                f"box: expected one that meets a volume of {tuple(shape)} voxels, "
                f"found {self.start} to {self.stop}"
            )
        inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        outer = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, self.start, strict=True))
        return inner, outer

    def shift(self, origin: tuple[int, int, int]) -> "Box":
        """Return the same box in voxels counted from `origin`."""
        start, stop = (
            tuple(a - b for a, b in zip(end, origin, strict=True)) for end in (self.start, self.stop)
        )
        return Box(start, stop)


def find_foreground(image: np.ndarray) -> Box:
    """Return the smallest box that holds every voxel that is not 0, in any modality.

    Parameters
    ----------
    image : (X, Y, Z) or (X, Y, Z, C)
        Of any type; a bool foreground will do.

    Raises
    ------
    InputError
        If every voxel is 0.
    """
    inside = image.any(axis=3) if image.ndim == 4 else image
    inside = inside if inside.dtype.kind in "iub" else inside != 0
    # NIfTI files are contiguous along X; walking up through memory, bits are searched as fast as it is read.
    is_flipped = [step < 0 for step in inside.strides]
    ascending = inside[tuple(slice(None, None, -1 if flipped else 1) for flipped in is_flipped)].T
    words = ascending
    if inside.itemsize < 8 and abs(inside.strides[0]) == inside.itemsize:
        words = ascending.view(np.uint64) if inside.shape[0] * inside.itemsize % 8 == 0 else ascending
    rows = np.bitwise_or.reduce(words, axis=2)  # (Z, Y)
    spans = [np.flatnonzero(rows.any(axis=1)), np.flatnonzero(rows.any(axis=0))]
    if not len(spans[0]):
        raise InputError("expected an image of a brain, found no voxel other than 0")
    z, y = (slice(span[0], span[-1] + 1) for span in spans)
    spans.append(np.flatnonzero(np.bitwise_or.reduce(words[z, y], axis=(0, 1)).view(inside.dtype)))
    start, stop = [], []
    for span, size, flipped in zip(spans[::-1], inside.shape, is_flipped, strict=True):
        low, high = int(span[0]), int(span[-1]) + 1
        start.append(size - high if flipped else low)
        stop.append(size - low if flipped else high)
    return Box(tuple(start), tuple(stop))


def join_boxes(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of the given ones."""
    starts, stops = zip(*((box.start, box.stop) for box in boxes), strict=True)
    return Box(tuple(map(min, *starts, starts[0])), tuple(map(max, *stops, stops[0])))


def center_box(box: Box, shape: tuple[int, int, int]) -> Box:
    """Return the box of the given shape about the middle of another; an odd voxel is cut or put at the end.

    About the middle of 240 x 240 x 155 voxels, 128 x 128 x 128 begin at (56, 56, 13), as in public code.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape: expected three sides of at least 1 voxel, found {tuple(shape)}")
    moved = ((b - a - n, n) for a, b, n in zip(box.start, box.stop, shape, strict=True))
    shifts = [d // 2 if d >= 0 else -(-d // 2) for d, _ in moved]
    start = tuple(a + d for a, d in zip(box.start, shifts, strict=True))
    return Box(start, tuple(a + n for a, n in zip(start, shape, strict=True)))


def crop(array: np.ndarray, box: Box, fill: float = 0) -> np.ndarray:
    """Cut a box out of a volume, a mask or a stack; beyond the volume it is `fill`.

    Parameters
    ----------
    array : (X, Y, Z) or (X, Y, Z, C)
    box : Box

    Returns
    -------
    (box.shape) or (box.shape, C)
        A view if the box lies within the volume.
    """
    inner, outer = box.overlap(array.shape[:3])
    if tuple(s.stop - s.start for s in inner) == box.shape:
        return array[inner]
    result = np.full((*box.shape, *array.shape[3:]), fill, array.dtype)
    result[outer] = array[inner]
    return result


def restore(array: np.ndarray, box: Box, shape: tuple[int, int, int], fill: float = 0) -> np.ndarray:
    """Put what was cropped back where it was: the inverse of `crop`, for masks and predictions.

    Parameters
    ----------
    array : (box.shape) or (box.shape, C)
    box : Box
    shape : tuple of 3 int
        Of the volume that was cropped.

    Returns
    -------
    (X, Y, Z) or (X, Y, Z, C)
        `fill` outside the box; what was padding is left out.
    """
    if array.shape[:3] != box.shape:
        raise InputError(f"restore: expected an array of the box's shape {box.shape}, found {array.shape}")
    inner, outer = box.overlap(shape)
    result = np.full((*shape, *array.shape[3:]), fill, array.dtype)
    result[inner] = array[outer]
    return result


def crop_or_pad(array: np.ndarray, shape: tuple[int, int, int], fill: float = 0) -> np.ndarray:
    """Crop or pad each axis to the given shape about the middle (`center_box`, `crop`)."""
    return crop(array, center_box(Box((0, 0, 0), array.shape[:3]), shape), fill)
