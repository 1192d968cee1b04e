"""From arrays to batches: the one input pipeline that central and federated training share.

Indices are shuffled, not images, and a batch is gathered and augmented at once, so that the pipeline costs
little beside the training step. Every random choice follows from the seed.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf


def make_batches(
    x: tf.Tensor,
    y: tf.Tensor,
    *,
    batch_size: int,
    seed: int,
    epochs: int = 1,
    augment: bool = False,
) -> tf.data.Dataset:
    """Build the shuffled batches of a client, or of the whole training set.

    Parameters
    ----------
    x : float32 (N, H, W, C)
        Images in [0, 1]. Pass a tensor to share one copy among many pipelines.
    y : int32 (N,)
        Labels.
    batch_size : int
        The last batch of an epoch may be smaller.
    seed : int
        Two pipelines with one seed give the same batches.
    epochs : int
        Passes over the data, each in its own order.
    augment : bool
        Apply `augment_batch`.

    Returns
    -------
    tf.data.Dataset
        Of (float32 (B, H, W, C), int32 (B,)).
    """
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)

    def gather(step, indices):
        images = tf.gather(x, indices)
        if augment:
            images = augment_batch(images, tf.stack([tf.constant(seed, tf.int64), step]))
        return images, tf.gather(y, indices)

    def one_epoch(epoch):
        # Stateless: reading the pipeline again, or in another process, gives the same batches.
        seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(y)), seed=seeds)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    batches = tf.data.Dataset.range(epochs).flat_map(one_epoch).enumerate().map(gather)
    return finish_batches(batches, epochs * -(-len(y) // batch_size))


def finish_batches(batches: tf.data.Dataset, num_batches: int) -> tf.data.Dataset:
    """Say how many batches there are, and make them beside the training step."""
    options = tf.data.Options()
    # One thread keeps up with a training step, and TensorFlow's determinism would undo more, noisily.
    options.experimental_optimization.map_parallelization = False
    counted = tf.data.experimental.assert_cardinality(num_batches)
    return batches.with_options(options).apply(counted).prefetch(2)


def seed_client(seed: int, round_number: int, client: int) -> int:
    """Return the seed of a client's batches in a round (both from 0), simulated or on a real network.

    No two share one while there are fewer than 1,000 clients and 10,000 rounds.
    """
    return (seed * 10_000 + round_number) * 1_000 + client


def augment_batch(
    images: tf.Tensor,
    seed: tf.Tensor,
    *,
    rotation: float = 10.0,
    scale: float = 0.1,
    shift: float = 0.06,
    contrast: float = 0.15,
) -> tf.Tensor:
    """Flip, rotate, scale, shift and re-contrast each image of a batch at random.

    Parameters
    ----------
    images : float32 (B, H, W, C)
        In [0, 1].
    seed : int (2,)
        The same seed gives the same result.
    rotation : float
        Largest angle, in degrees.
    scale : float
        Largest change of size, as a fraction.
    shift : float
        Largest shift, as a fraction of the side.
    contrast : float
        Largest change of contrast, as a fraction.

    Returns
    -------
    float32 (B, H, W, C)
        In [0, 1]; what comes from outside the image is black.
    """
    count = tf.shape(images)[0]
    side = tf.cast(tf.shape(images)[1:3], tf.float32)
    u = tf.random.stateless_uniform([6, count], seed, -1.0, 1.0)
    angle = u[0] * (rotation * np.pi / 180)
    zoom = 1.0 + scale * u[1]
    mirror = tf.sign(u[2])  # left and right change places
    transforms = build_transforms(angle, zoom, mirror, shift * u[4], shift * u[3], side)
    moved = move_pictures(images, transforms, "BILINEAR")
    gain = (1.0 + contrast * u[5])[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return tf.clip_by_value(moved * gain, 0.0, 1.0)


def build_transforms(
    angle: tf.Tensor, zoom: tf.Tensor, mirror: tf.Tensor, down: tf.Tensor, right: tf.Tensor, sides: tf.Tensor
) -> tf.Tensor:
    """Build maps from output to input pixel, about the pictures' middle, for `move_pictures`.

    Parameters
    ----------
    angle : float32 (B,)
        In radians.
    zoom : float32 (B,)
        Pixels of the input for one of the output.
    mirror : float32 (B,)
        -1 where left and right change places, else 1.
    down, right : float32 (B,)
        Shift of the input, as a fraction of its height and width.
    sides : float32 (2,)
        Height and width, in pixels.

    Returns
    -------
    float32 (B, 8)
    """
    a, b = mirror * (tf.cos(angle) * zoom), -(tf.sin(angle) * zoom)
    c, d = mirror * (tf.sin(angle) * zoom), tf.cos(angle) * zoom
    row, column = (sides[0] - 1) / 2, (sides[1] - 1) / 2
    dx = column - a * column - b * row + right * sides[1]
    dy = row - c * column - d * row + down * sides[0]
    zero = tf.zeros_like(a)
    return tf.stack([a, b, dx, c, d, dy, zero, zero], axis=1)


def move_pictures(pictures: tf.Tensor, transforms: tf.Tensor, interpolation: str) -> tf.Tensor:
    """Return pictures (B, H, W, C) moved by `build_transforms`; 0 outside. ``BILINEAR`` or ``NEAREST``."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=transforms,
        output_shape=tf.shape(pictures)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
