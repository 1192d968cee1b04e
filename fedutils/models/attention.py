"""Attention blocks: squeeze-and-excitation [1]_, CBAM [2]_ and the additive gate of Attention U-Net [3]_.

Each is a function of tensors that multiplies its input by coefficients in [0, 1] and returns the product.

References
----------
.. [1] J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018; with a hard sigmoid and a quarter
   of the channels as in A. Howard et al., "Searching for MobileNetV3", ICCV 2019.
.. [2] S. Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018.
.. [3] O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras

from fedutils.models.blocks import Blocks, LinearUpsampling

# sigmoid(2) = 0.88: gates begin nearly open, so that training starts from a U-Net whose skips all pass.
_OPEN = 2.0


@keras.saving.register_keras_serializable(package="fedutils")
class ChannelStatistics(keras.layers.Layer):
    """Mean and greatest value over the channels, without weights: (B, *sides, channels) to (B, *sides, 2)."""

    def call(self, inputs):
        """Return the two statistics as two channels."""
        mean = keras.ops.mean(inputs, axis=-1, keepdims=True)
        return keras.ops.concatenate([mean, keras.ops.max(inputs, axis=-1, keepdims=True)], axis=-1)

    def compute_output_shape(self, input_shape):
        """Return `input_shape` with two channels."""
        return (*input_shape[:-1], 2)


def round_width(channels: float, divisor: int = 8) -> int:
    """Round a number of channels to a multiple of `divisor`, not below `divisor`, nor by more than 10 %.

    Every width of MobileNet is rounded so, since that is faster in its authors' runtime.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def squeeze_excite(x, blocks: Blocks, name: str):
    """Weigh the channels of `x` by what their means over the image say [1]_.

    Parameters
    ----------
    x : KerasTensor (B, height, width, channels)
    blocks : Blocks
        Of rank 2; gives the initial weights.
    name : str
        Prefix of the layers' names; those with weights hold "excite".

    Returns
    -------
    KerasTensor like `x`
        ``x * hard_sigmoid(W2 relu(W1 mean(x) + b1) + b2)``, with a quarter of the channels in between.
    """
    channels = x.shape[-1]
    weights = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_excite_mean")(x)
    weights = keras.layers.Conv2D(
        round_width(channels / 4),
        1,
        activation="relu",
        kernel_initializer=blocks.he_normal(),
        name=f"{name}_excite_squeeze",
    )(weights)
    weights = keras.layers.Conv2D(
        channels,
        1,
        activation="hard_sigmoid",
        kernel_initializer=blocks.glorot_uniform(),
        name=f"{name}_excite_weights",
    )(weights)
    return keras.layers.Multiply(name=f"{name}_excite")([x, weights])


def cbam(x, blocks: Blocks, name: str, reduction: int = 16):
    """Weigh the channels of `x`, then its pixels [2]_.

    Parameters
    ----------
    x : KerasTensor (B, height, width, channels)
    blocks : Blocks
        Of rank 2; gives the initial weights.
    name : str
        Prefix of the layers' names; those with weights hold "cbam".
    reduction : int
        The shared perceptron has ``channels / reduction`` hidden units, rounded as MobileNet rounds widths:
        never below 8, since a single rectified unit may be dead from the start.

    Returns
    -------
    KerasTensor like `x`
        ``y = x * sigmoid(W2 relu(W1 mean(x)) + W2 relu(W1 max(x)))`` over the image, then
        ``y * sigmoid(conv7x7([mean(y), max(y)]))`` over the channels; no biases, as in the paper's equations.
    """
    channels = x.shape[-1]
    hidden = keras.layers.Conv2D(
        round_width(channels / reduction),
        1,
        activation="relu",
        use_bias=False,
        kernel_initializer=blocks.he_normal(),
        name=f"{name}_cbam_hidden",
    )
    output = keras.layers.Conv2D(
        channels,
        1,
        use_bias=False,
        kernel_initializer=blocks.glorot_uniform(),
        name=f"{name}_cbam_channels",
    )
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_cbam_mean")(x)
    greatest = keras.layers.GlobalMaxPooling2D(keepdims=True, name=f"{name}_cbam_max")(x)
    weights = keras.layers.Add(name=f"{name}_cbam_sum")([output(hidden(mean)), output(hidden(greatest))])
    weights = keras.layers.Activation("sigmoid", name=f"{name}_cbam_channel_weights")(weights)
    x = keras.layers.Multiply(name=f"{name}_cbam_channel_product")([x, weights])

    weights = ChannelStatistics(name=f"{name}_cbam_statistics")(x)
    weights = keras.layers.Conv2D(
        1,
        7,
        padding="same",
        use_bias=False,
        activation="sigmoid",
        kernel_initializer=blocks.glorot_uniform(),
        name=f"{name}_cbam_pixels",
    )(weights)
    return keras.layers.Multiply(name=f"{name}_cbam")([x, weights])


def attention_gate(skip, gating, blocks: Blocks, name: str):
    """Weigh the pixels of a skip connection by what the next coarser level knows [3]_.

    Parameters
    ----------
    skip : KerasTensor (B, *sides, channels)
        Features of the encoder.
    gating : KerasTensor (B, *(sides / 2), any)
        Features of the decoder, one level coarser.
    blocks : Blocks
        Of the rank of `skip`; gives the initial weights.
    name : str
        Prefix of the layers' names; the coefficients are the output of the layer ``{name}_map``.

    Returns
    -------
    KerasTensor like `skip`
        ``skip * a`` with coefficients ``a = up(sigmoid(psi relu(Wx skip + Wg gating + bg) + b))``, which are
        (B, *sides, 1). Wx is a strided 2x2 convolution without bias, which brings `skip` onto the coarser
        grid; Wg and psi are 1x1; Wx and Wg have as many channels as `skip`; ``up`` is linear. It is the gate
        of the authors' code without its last convolution, which the paper's equations do not have.
    """
    channels = skip.shape[-1]
    conv = blocks.layer("Conv")
    x = conv(
        channels, 2, strides=2, use_bias=False, kernel_initializer=blocks.he_normal(), name=f"{name}_skip"
    )(skip)
    g = conv(channels, 1, kernel_initializer=blocks.he_normal(), name=f"{name}_signal")(gating)
    weights = keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_sum")([x, g]))
    weights = conv(
        1,
        1,
        activation="sigmoid",
        kernel_initializer=blocks.glorot_uniform(),
        bias_initializer=keras.initializers.Constant(_OPEN),
        name=f"{name}_weights",
    )(weights)
    weights = LinearUpsampling(name=f"{name}_map")(weights)
    return keras.layers.Multiply(name=f"{name}_product")([skip, weights])
