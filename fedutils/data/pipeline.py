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
    options = tf.data.Options()
    # One thread keeps up with a training step, and TensorFlow's determinism would undo more, noisily.
    options.experimental_optimization.map_parallelization = False
    batches = batches.with_options(options)
    num_batches = epochs * -(-len(y) // batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(2)


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
    cos, sin = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    a, b, c, d = mirror * cos, -sin, mirror * sin, cos
    middle = (side - 1) / 2
    dx, dy = u[3] * shift * side[1], u[4] * shift * side[0]
    zero = tf.zeros(count)
    # Row vectors of the map from output to input pixel, about the image's middle.
    transforms = tf.stack(
        [
            a,
            b,
            middle[1] - a * middle[1] - b * middle[0] + dx,
            c,
            d,
            middle[0] - c * middle[1] - d * middle[0] + dy,
            zero,
            zero,
        ],
        axis=1,
    )
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    gain = (1.0 + contrast * u[5])[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return tf.clip_by_value(moved * gain, 0.0, 1.0)
