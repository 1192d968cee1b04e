"""Layers of the models: none of them keeps a state, so that they work inside a TFF training loop.

TFF carries only a model's trainable weights from one step to the next. Keras 3's own Dropout
counts its steps in a variable, which TFF discards: it would draw the same mask at every step.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras
import tensorflow as tf

from fedutils.errors import InputError


@keras.saving.register_keras_serializable(package="fedutils")
class StatelessDropout(keras.layers.Layer):
    """Dropout whose mask follows from a seed and from the values that it drops.

    The mask is drawn from (`seed`, hash of the input). The input of the layer depends on the batch
    and on the weights, which each step changes, so each step has a fresh mask, with no counter to
    keep; and a run repeats bit for bit where the input does, which is so on a CPU with the same
    number of threads. ``tf.nn.dropout`` without a seed would not repeat, and with a seed would
    draw the same masks in each client, since each client's graph starts its generator anew.

    Parameters
    ----------
    rate : float
        Fraction of the input set to zero in training, in [0, 1); the rest is scaled by
        ``1 / (1 - rate)``.
    seed : int
        Chooses among the sequences of masks.

    Raises
    ------
    InputError
        If `rate` is outside [0, 1).

    Notes
    -----
    The hash is the sum of the bit patterns of the float32 input as 64-bit integers. Integer sums
    do not depend on the order of summation, unlike float sums, so that threads cannot change it.
    Two steps share a mask only if their inputs share the hash: equal inputs, or chance.

    References
    ----------
    .. [1] N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
       Overfitting", JMLR 15, 2014.
    .. [2] J. K. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 (Philox).
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise InputError(f"rate: expected a number in [0, 1), found {rate!r}; lower it")
        self.rate = rate
        self.seed = seed
        self.supports_masking = True
        self.built = True

    def call(self, inputs, training=False):
        """Return `inputs` unchanged, or with elements dropped if `training`."""
        if not training or self.rate == 0:
            return inputs
        bits = tf.bitcast(tf.cast(tf.stop_gradient(inputs), tf.float32), tf.int32)
        # int64, because TensorFlow sums int32 on the host even where the input is on a GPU.
        digest = tf.reduce_sum(tf.cast(bits, tf.int64))
        return tf.nn.experimental.stateless_dropout(
            inputs, self.rate, tf.stack([tf.constant(self.seed, tf.int64), digest]), "philox"
        )

    def compute_output_shape(self, input_shape):
        """Return `input_shape`."""
        return input_shape

    def get_config(self):
        """Return the configuration that rebuilds the layer."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(package="fedutils")
class GroupNormalization(keras.layers.GroupNormalization):
    """Keras's GroupNormalization [1]_ over the last axis: same function and weights, less time on a CPU.

    Keras takes the moments of a tensor of one more axis, which TensorFlow does slowly on a CPU; with small
    convolutions that is most of a training step. Here the moments are taken of each channel and then, of a
    few numbers, of each group, by the law of total variance.

    Takes float (B, *sides, channels) and gives the same shape; the arguments are those of Keras's layer,
    without ``axis``.

    References
    ----------
    .. [1] Y. Wu and K. He, "Group Normalization", ECCV 2018.
    """

    def call(self, inputs):
        """Return `inputs` with every group of channels normalised, then scaled and shifted."""
        ops, channels = keras.ops, inputs.shape[-1]
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        sides = tuple(range(1, len(inputs.shape) - 1))
        mean = ops.mean(x, axis=sides, keepdims=True)
        # The gradient by way of the mean is zero here, since deviations from it add up to zero.
        variance = ops.mean(ops.square(x - ops.stop_gradient(mean)), axis=sides, keepdims=True)

        def average(values):
            grouped = ops.reshape(values, (-1, *(1 for _ in sides), self.groups, channels // self.groups))
            return ops.reshape(
                ops.repeat(ops.mean(grouped, axis=-1), channels // self.groups, axis=-1), ops.shape(values)
            )

        centre = average(mean)
        scale = ops.rsqrt(average(variance + ops.square(mean - centre)) + self.epsilon)
        if self.scale:
            scale = scale * ops.cast(self.gamma, x.dtype)
        shift = -centre * scale
        if self.center:
            shift = shift + ops.cast(self.beta, x.dtype)
        return ops.cast(x * scale + shift, self.compute_dtype)
