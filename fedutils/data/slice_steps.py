"""Steps from a case to axial slices of one size, and back; `fedutils.data.segmentation` takes them.

A slice is a picture as radiologists look at it: rows from the front to the back, columns from the patient's
right to the left. Its channels are z-scored per case and modality within the head, as
`fedutils.data.volume_recipes.FIELD` does: clipped to the percentiles 0.5 and 99.5 of the head, then mean 0
and standard deviation 1 there, and 0 elsewhere. What is the head depends on the layout:

- BraTS, whose skulls are stripped: where any modality is not 0, as nnU-Net takes it.
- kaggle_3m, where the air around the head is noise and in most cases nowhere 0: where any modality is above
  its mean, with specks removed and holes filled slice by slice.

A sequence that a case of kaggle_3m lacks is fed as zeros, the mean of the head: its authors put a copy of
FLAIR there, in which oedema is bright where that sequence would show it dark.
"""

import numpy as np
from scipy import ndimage

from fedutils.data.case import Volume
from fedutils.data.volume_steps import clip_percentiles, resample, scale_z_score, stack_modalities
from fedutils.errors import InputError

MIN_HEAD = 0.01  # share of a slice; what holds less of the head is left out
CLIP = (0.5, 99.5)  # percentiles
_SPECK = 128  # pixels of a side for one step of erosion: two in a picture of 256


def cut_slices(
    volume: Volume, modalities: tuple[str, ...], size: int, *, stripped: bool, name: str = "volume"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slices of a volume that show the head, scaled and resized.

    Parameters
    ----------
    volume : Volume
    modalities : tuple of str
        The channels; those that the volume lacks are 0.
    size : int
        Side of a slice, in pixels.
    stripped : bool
        See `find_head`.
    name : str
        For errors.

    Returns
    -------
    pictures : float32 (n, size, size, C)
    kept : int64 (n,)
        Which slices of the volume they are.

    Raises
    ------
    InputError
        If no slice shows a head, or a modality does not differ within it or is not finite.
    """
    stack = stack_modalities(volume.images, modalities)
    head = find_head(stack, stripped=stripped)
    scaled = np.zeros(stack.shape, np.float32)
    for c, modality in enumerate(modalities):
        if modality in volume.missing:
            continue
        try:
            scaled[..., c] = scale_z_score(clip_percentiles(stack[..., c], *CLIP, foreground=head), head)
        except InputError as error:
            raise InputError(
                f"{name}, {modality}: {error}; leave the case out, or set skip_bad: true"
            ) from error
    # Of the square that a slice is padded to, so that oblong slices are judged alike.
    kept = np.flatnonzero(head.sum(axis=(0, 1)) >= MIN_HEAD * max(head.shape[:2]) ** 2)
    if not len(kept):
        raise InputError(f"{name}: expected slices that show a head, found none; leave the case out")
    return to_pictures(resize_slices(scaled, size))[kept], kept


def find_head(images: np.ndarray, *, stripped: bool) -> np.ndarray:
    """Return which voxels show the head.

    Parameters
    ----------
    images : (X, Y, Z, C)
        As stored.
    stripped : bool
        Skulls are stripped and all else is 0 (BraTS). Else the air is noise (kaggle_3m).

    Returns
    -------
    bool (X, Y, Z)
    """
    if stripped:
        return (images != 0).any(axis=-1)
    above = (images > images.mean(axis=(0, 1, 2))).any(axis=-1)
    steps = round(max(above.shape[:2]) / _SPECK)
    in_plane = ndimage.generate_binary_structure(2, 1)[..., np.newaxis]
    if steps:
        above = ndimage.binary_opening(above, in_plane, iterations=steps)
    return ndimage.binary_fill_holes(above, in_plane)


def to_pictures(volume: np.ndarray) -> np.ndarray:
    """Turn (X, Y, Z, ...) towards right, front, top into pictures (Z, rows, columns, ...). A view."""
    return np.moveaxis(volume[::-1, ::-1].swapaxes(0, 1), 2, 0)


def from_pictures(pictures: np.ndarray) -> np.ndarray:
    """Undo `to_pictures`. A view."""
    return np.moveaxis(pictures, 0, 2).swapaxes(0, 1)[::-1, ::-1]


def resize_slices(volume: np.ndarray, size: int, *, labels: bool = False) -> np.ndarray:
    """Pad the axial slices of a volume to squares and resize them.

    Parameters
    ----------
    volume : (X, Y, Z, C)
        Padded by 0 at both sides.
    size : int
    labels : bool
        Take the nearest value; else linear, blurred first where it shrinks.

    Returns
    -------
    (size, size, Z, C)
        Of the same type if labels, else float32.
    """
    width, height, depth = volume.shape[:3]
    side = max(width, height)
    before = [(side - width) // 2, (side - height) // 2]
    after = [side - width - before[0], side - height - before[1]]
    square = np.pad(volume, [*zip(before, after, strict=True), (0, 0), (0, 0)])
    return square if side == size else resample(square, (size, size, depth), labels=labels)


def restore_slices(volume: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Undo `resize_slices`.

    Parameters
    ----------
    volume : (size, size, Z) or (size, size, Z, K)
        Floats are interpolated linearly; bools and integers take the nearest value.
    shape : (int, int, int)
        Of the case.

    Returns
    -------
    (shape) or (shape, K), of the same type
    """
    width, height, depth = shape
    side = max(width, height)
    square = volume
    if len(volume) != side:
        labels = volume.dtype.kind in "iub"
        stored = volume.astype(np.uint8) if volume.dtype == bool else volume
        square = resample(stored, (side, side, depth), labels=labels).astype(volume.dtype)
    left, front = (side - width) // 2, (side - height) // 2
    return square[left : left + width, front : front + height]
