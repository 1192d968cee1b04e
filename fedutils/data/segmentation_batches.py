"""From slices and volumes to batches of images with their masks: shuffled, augmented, repeatable.

Each function returns ``batches``, whose call ``batches(epoch)`` gives the pipeline of one epoch. Every random
choice follows from the seed and the epoch, so that an epoch is the same whether it is reached in one run or
after a resume, in this process or in another.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from fedutils.data.augment import Augmentation
from fedutils.data.augment import augment as augment_volume
from fedutils.data.boxes import Box, crop
from fedutils.data.pipeline import build_transforms, finish_batches, move_pictures
from fedutils.data.segmentation import compute_regions
from fedutils.data.volume_recipes import Prepared
from fedutils.errors import InputError

Batches = Callable[[int], tf.data.Dataset]

_MOST_PLACES = 10_000  # of a region, kept to choose patches from


def make_slice_batches(
    x: tf.Tensor,
    y: tf.Tensor,
    indices: Sequence[int] | None = None,
    *,
    batch_size: int,
    seed: int,
    augment: bool = False,
) -> Batches:
    """Build the shuffled batches of slices and their masks, of all or of some.

    Parameters
    ----------
    x : float32 (N, H, W, C)
        Of a `fedutils.data.segmentation.SliceSet`. Pass a tensor to share one copy among many pipelines.
    y : uint8 (N, H, W, K)
    indices : int (n,), optional
        Which slices; by default all.
    batch_size : int
        The last batch of an epoch may be smaller.
    seed : int
    augment : bool
        Apply `augment_slices`.

    Returns
    -------
    callable
        From epoch to tf.data.Dataset of (float32 (B, H, W, C), uint8 (B, H, W, K)).

    Raises
    ------
    InputError
        If there is no slice, or images and masks do not fit.
    """
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    if len(x.shape) != 4 or len(y.shape) != 4 or x.shape[:3] != y.shape[:3]:
        raise InputError(
            "batches: expected images (N, H, W, C) and masks (N, H, W, K) of equal N, H and W, found "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    chosen = np.arange(len(x)) if indices is None else np.asarray(indices, np.int64)
    if not len(chosen) or batch_size < 1:
        raise InputError(
            f"batches: expected at least 1 slice and 1 a batch, found {len(chosen)} and {batch_size}"
        )
    num_batches = -(-len(chosen) // batch_size)

    @tf.function  # traced once, not once an epoch
    def gather(rows, step):
        images, masks = tf.gather(x, rows), tf.gather(y, rows)
        if augment:
            images, masks = augment_slices(images, masks, tf.stack([tf.constant(seed, tf.int64), step]))
        return images, masks

    def batches(epoch: int) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.constant(chosen), seed=[seed, epoch])
        rows = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        steps = tf.data.Dataset.range(epoch * num_batches, (epoch + 1) * num_batches)
        return finish_batches(tf.data.Dataset.zip(rows, steps).map(gather), num_batches)

    return batches


def augment_slices(
    images: tf.Tensor,
    masks: tf.Tensor,
    seed: tf.Tensor,
    *,
    rotation: float = 15.0,
    scale: float = 0.15,
    shift: float = 0.06,
    gain: float = 0.2,
    offset: float = 0.2,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Flip, rotate, scale and shift the slices of a batch with their masks, and change intensities.

    Parameters
    ----------
    images : float32 (B, H, W, C)
        z-scored; 0 is background and stays 0.
    masks : uint8 (B, H, W, K)
    seed : int64 (2,)
        The same seed gives the same result.
    rotation : float
        Largest angle, in degrees.
    scale : float
        Largest change of size, as a fraction.
    shift : float
        Largest shift, as a fraction of the side.
    gain : float
        Largest change of contrast, as a fraction; channels differ.
    offset : float
        Largest change of brightness, in standard deviations; channels differ.

    Returns
    -------
    images : float32 (B, H, W, C)
        Linear between pixels, 0 outside.
    masks : uint8 (B, H, W, K)
        The nearest pixel's, 0 outside.
    """
    shape = tf.shape(images)
    seeds = tf.random.split(seed, 2)
    v = tf.random.stateless_uniform(tf.stack([5, shape[0]]), seeds[0], -1.0, 1.0)
    transforms = build_transforms(
        angle=v[0] * (rotation * np.pi / 180),
        zoom=1.0 / (1.0 + scale * v[1]),
        mirror=tf.where(v[2] < 0, -1.0, 1.0),
        down=shift * v[4],
        right=shift * v[3],
        sides=tf.cast(shape[1:3], tf.float32),
    )
    images = move_pictures(images, transforms, "BILINEAR")
    u = tf.random.stateless_uniform(tf.stack([2, shape[0], 1, 1, shape[3]]), seeds[1], -1.0, 1.0)
    inside = tf.reduce_any(images != 0, axis=-1, keepdims=True)
    images = tf.where(inside, images * (1 + gain * u[0]) + offset * u[1], 0.0)
    return images, move_pictures(masks, transforms, "NEAREST")


def make_patches(
    volumes: Sequence[Prepared],
    *,
    size: tuple[int, int, int],
    regions: tuple[str, ...],
    batch_size: int,
    num_patches: int,
    seed: int,
    foreground: float = 1 / 3,
    augmentation: Augmentation | None = None,
) -> Batches:
    """Build batches of random patches of volumes, some of them on the tumour [1]_.

    The share `foreground` of patches is spread evenly over the epoch. Such a patch is centred, as far as the
    volume allows, on a random voxel of a random region among those that its case has; of a case without
    tumour, and otherwise, it lies anywhere in the volume. Cases follow each other in a random order until all
    have had their turn.

    Parameters
    ----------
    volumes : sequence of Prepared
        With masks; memory-mapped ones are read where a patch lies only.
    size : (int, int, int)
        Voxels of a patch; beyond a smaller volume it is 0.
    regions : tuple of str
        Of the targets.
    batch_size : int
        The last batch of an epoch may be smaller.
    num_patches : int
        In an epoch.
    seed : int
    foreground : float
        In [0, 1].
    augmentation : Augmentation, optional
        See `fedutils.data.augment.augment`; none by default.

    Returns
    -------
    callable
        From epoch to tf.data.Dataset of (float32 (B, *size, C), uint8 (B, *size, K)).

    Raises
    ------
    InputError
        If there is no volume, one has no mask, or a number is out of range.

    References
    ----------
    .. [1] F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
       segmentation", Nature Methods 18, 2021: a third of the patches.
    """
    volumes = tuple(volumes)
    if bare := [volume.name for volume in volumes if volume.mask is None]:
        raise InputError(f"patches: expected masks, found none of {bare[0]}; leave it out")
    if not volumes or min(*size, batch_size, num_patches) < 1 or not 0 <= foreground <= 1:
        raise InputError(
            "patches: expected volumes, numbers of at least 1 and a share from 0 to 1, found "
            f"{len(volumes)} volumes, size {tuple(size)}, {batch_size} a batch, {num_patches} patches and "
            f"{foreground}"
        )
    places: dict[int, list[np.ndarray]] = {}

    def cut(epoch, number, chosen):
        volume, rng = volumes[chosen], np.random.default_rng([seed, 62, epoch, number])
        shape, center = volume.mask.shape, None
        if int((number + 1) * foreground + 1e-9) > int(number * foreground + 1e-9):
            if chosen not in places:
                places[chosen] = _find_places(volume, regions, np.random.default_rng([seed, 63, chosen]))
            if places[chosen]:
                own = places[chosen][rng.integers(len(places[chosen]))]
                center = np.unravel_index(own[rng.integers(len(own))], shape)
        start = []
        for axis, (side, n) in enumerate(zip(size, shape, strict=True)):
            if n <= side:
                start.append(-((side - n) // 2))
            elif center is None:
                start.append(int(rng.integers(n - side + 1)))
            else:
                start.append(int(np.clip(center[axis] - side // 2, 0, n - side)))
        box = Box(tuple(start), tuple(a + side for a, side in zip(start, size, strict=True)))
        images, mask = crop(volume.images, box), crop(volume.mask, box)
        if augmentation is not None:
            images, mask = augment_volume(
                images,
                mask,
                augmentation=augmentation,
                seed=[seed, epoch, number],
                spacing=volume.spacing,
            )
        return images, compute_regions(mask, regions).view(np.uint8)

    def batches(epoch: int) -> tf.data.Dataset:
        def generate():
            rng = np.random.default_rng([seed, 64, epoch])
            turns = -(-num_patches // len(volumes))
            order = np.concatenate([rng.permutation(len(volumes)) for _ in range(turns)])
            for number in range(num_patches):
                yield cut(epoch, number, int(order[number]))

        signature = (
            tf.TensorSpec((*size, volumes[0].images.shape[-1]), tf.float32),
            tf.TensorSpec((*size, len(regions)), tf.uint8),
        )
        patches = tf.data.Dataset.from_generator(generate, output_signature=signature)
        return finish_batches(patches.batch(batch_size), -(-num_patches // batch_size))

    return batches


def _find_places(volume: Prepared, regions: tuple[str, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Return, for each region that the volume has, the flat indices of up to 10,000 of its voxels."""
    inside = compute_regions(np.asarray(volume.mask), regions)
    found = [np.flatnonzero(inside[..., k]) for k in range(len(regions))]
    return [
        np.sort(rng.choice(own, _MOST_PLACES, replace=False)) if len(own) > _MOST_PLACES else own
        for own in found
        if len(own)
    ]
