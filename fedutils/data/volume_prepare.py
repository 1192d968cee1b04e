"""Prepare a case by a recipe, in little more than the time of decompressing its files.

The result is that of the steps in `fedutils.data.volume_steps` and `fedutils.data.boxes`, one by one. Here
each file is reduced to what counts before the next is read, so that memory is used again, not asked for;
statistics come from a count of the integers as stored; and only what is kept becomes float32, by planes.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedutils.data.boxes import Box, center_box, crop, find_foreground, join_boxes
from fedutils.data.case import Case, Volume
from fedutils.data.volume_recipes import Prepared, Recipe
from fedutils.data.volume_steps import (
    check_range,
    compute_labelled,
    compute_resampled_shape,
    count_intensities,
    resample,
)
from fedutils.errors import InputError

_AFFINE_TOLERANCE = 1e-3  # mm; writers round to float32


@dataclass(frozen=True)
class _Part:
    """What is kept of a modality: the voxels of a box, where its foreground lies, and its extremes."""

    voxels: np.ndarray
    box: Box
    foreground: Box | None
    extremes: tuple[float, float] | None


@dataclass(frozen=True)
class _Grid:
    """Where the voxels of a case lie."""

    shape: tuple[int, int, int]
    affine: np.ndarray | None
    spacing: tuple[float, float, float] | None


def prepare_case(case: Case, recipe: Recipe) -> Prepared:
    """Read a case and prepare it.

    Parameters
    ----------
    case : Case
    recipe : Recipe
        `fedutils.data.volume_recipes.SEED`, ``FIELD`` or another.

    Raises
    ------
    InputError
        If the case cannot be read, a modality has no foreground, is constant or not finite there, or lies on
        another grid. The one line names the case and the modality.
    """
    if not all(modality in case.files for modality in recipe.modalities):  # a file holds several
        return prepare_volume(case.load(recipe.modalities), recipe, case.name)
    kinds = (*recipe.modalities, "mask") if case.has_mask else recipe.modalities
    loads = ((k, case.load((), mask=True) if k == "mask" else case.load((k,), mask=False)) for k in kinds)
    return _prepare(loads, recipe, case.name)


def prepare_volume(volume: Volume, recipe: Recipe, name: str = "volume") -> Prepared:
    """Prepare a volume that was read; `name` is for errors. See `prepare_case`."""
    kinds = recipe.modalities if volume.mask is None else (*recipe.modalities, "mask")
    return _prepare(((kind, volume) for kind in kinds), recipe, name)


def _prepare(loads: Iterable[tuple[str, Volume]], recipe: Recipe, name: str) -> Prepared:
    """Prepare a case whose modalities, and then mask, come one after another."""
    parts, missing, mask, first = [], [], None, None
    for kind, volume in loads:
        array = volume.mask if kind == "mask" else volume.images[kind]
        first = first or _Grid(array.shape, volume.affine, volume.spacing)
        with _naming(f"{name}, {kind}"):
            _check_grid(array.shape, volume.affine, first)
            if kind == "mask":
                mask = array
            else:
                parts.append(_reduce(array, first, recipe))
        missing += [kind] if kind in volume.missing else []
        del volume, array  # before the next is read, into the same memory
    with _naming(name):
        brain = join_boxes([part.foreground for part in parts]) if parts[0].foreground else None
        box, shape = _choose_box(first, brain, recipe)
        where = brain if recipe.uses_foreground else parts[0].box
        overlap = box.shift(where.start).overlap(where.shape)
    images = [crop(part.voxels, where.shift(part.box.start)) for part in parts]
    inside = None
    if recipe.uses_foreground:
        inside = images[0] != 0
        for image in images[1:]:
            inside |= image != 0
    scales = []
    for image, part, modality in zip(images, parts, recipe.modalities, strict=True):
        with _naming(f"{name}, {modality}"):
            scales.append(_compute_scale(image, inside, part.extremes, recipe))
    result = np.zeros((*box.shape, len(images)), np.float32)
    _write_scaled(result, images, scales, inside, *overlap)
    mask = None if mask is None else _copy_mask(mask, box)
    if shape != box.shape:
        result = resample(result, shape)
        mask = None if mask is None else resample(mask, shape, labels=True)
    return Prepared(
        name=name,
        images=result,
        mask=mask,
        affine=_move_affine(first.affine, box, shape),
        box=box,
        full_shape=first.shape,
        missing=tuple(missing),
        labelled=float("nan") if mask is None else compute_labelled(mask),
    )


@contextlib.contextmanager
def _naming(what):
    """Say of which case, or modality of it, an error tells, and what to do."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}; leave the case out, or set skip_bad: true") from error


def _check_grid(shape, affine, first):
    """Refuse a modality or mask that does not lie on the grid of the first."""
    if shape != first.shape:
        raise InputError(f"expected {first.shape} voxels as in the first modality, found {shape}")
    if first.affine is not None and not np.allclose(affine, first.affine, atol=_AFFINE_TOLERANCE):
        raise InputError("expected the affine of the first modality, found another")


def _reduce(image, first, recipe):
    """Return the part of a modality that the recipe needs."""
    whole = Box((0, 0, 0), first.shape)
    extremes = None
    if not recipe.uses_foreground:
        extremes = float(image.min()), float(image.max())
        check_range(*extremes)
    foreground = find_foreground(image) if recipe.uses_foreground or recipe.foreground else None
    if recipe.uses_foreground:
        box = foreground
    elif recipe.foreground:  # of all modalities: not known yet
        box = whole
    else:
        box, _ = _choose_box(first, None, recipe)
        inner, _ = box.overlap(first.shape)
        box = Box(tuple(s.start for s in inner), tuple(s.stop for s in inner))
    return _Part(crop(image, box).copy(order="K"), box, foreground, extremes)


def _choose_box(first, brain, recipe):
    """Return the box to cut out, in voxels of the volume, and the shape to give it by resampling."""
    box = brain if recipe.foreground else Box((0, 0, 0), first.shape)
    if recipe.spacing is None:
        return (box, box.shape) if recipe.shape is None else (center_box(box, recipe.shape), recipe.shape)
    if first.spacing is None:
        raise InputError("expected files that say how large a voxel is, to resample, found none that does")
    if recipe.shape is None:
        return box, compute_resampled_shape(box.shape, first.spacing, recipe.spacing)
    covered = compute_resampled_shape(recipe.shape, recipe.spacing, first.spacing)
    return center_box(box, covered), recipe.shape


def _compute_scale(image, inside, extremes, recipe):
    """Return (low, high, gain, offset): an intensity x becomes clip(x, low, high) * gain + offset."""
    if inside is None:
        low, high = extremes
        return low, high, 1 / (high - low), -low / (high - low)
    counts = count_intensities(image, inside)
    low, high = (counts.percentile(q) for q in recipe.clip or (0, 100))
    check_range(low, high)
    if recipe.scaling == "min_max":
        return low, high, 1 / (high - low), -low / (high - low)
    mean, deviation = counts.moments(low, high)
    return low, high, 1 / deviation, -mean / deviation


def _write_scaled(result, images, scales, inside, inner, outer):
    """Write `inner` of the images, scaled, to `outer` of the result, a plane of all modalities at a time.

    Files are in Fortran order and networks want the channel last. A plane of X and Z fits the processor's
    cache, so that turning it there costs little; turning the whole volume would miss the cache at each voxel.
    """
    sources = [image[inner].T for image in images]  # (Z, Y, X), X contiguous
    inside = None if inside is None else inside[inner].T
    scales = [tuple(map(np.float32, scale)) for scale in scales]
    target = result[outer]
    plane = np.empty((sources[0].shape[0], sources[0].shape[2]), np.float32)
    weight = np.empty_like(plane)
    for y in range(target.shape[1]):
        if inside is not None:
            weight[...] = inside[:, y]
        for c, (source, (low, high, gain, offset)) in enumerate(zip(sources, scales, strict=True)):
            plane[...] = source[:, y]
            np.clip(plane, low, high, out=plane)
            plane *= gain
            plane += offset
            if inside is not None:
                plane *= weight
            target[:, y, :, c] = plane.T


def _copy_mask(mask, box):
    """Return the part of a mask in a box, uint8 and C-contiguous; only what is labelled is copied."""
    result = np.zeros(box.shape, np.uint8)
    if not mask.any():
        return result
    labelled = find_foreground(mask)
    low = tuple(map(max, labelled.start, box.start))
    high = tuple(map(min, labelled.stop, box.stop))
    if all(a < b for a, b in zip(low, high, strict=True)):
        part = Box(low, high)
        inner, _ = part.overlap(mask.shape)
        outer, _ = part.shift(box.start).overlap(box.shape)
        result[outer] = mask[inner]
    return result


def _move_affine(affine, box, shape):
    """Return the affine of what lies in a box once resampled to a shape."""
    if affine is None:
        return None
    sides = np.divide(box.shape, shape)  # of a new voxel, in old ones
    step = np.diag([*sides, 1.0])
    step[:3, 3] = np.add(box.start, (sides - 1) / 2)  # outer corners stay; the affine is of voxel centres
    return affine @ step
