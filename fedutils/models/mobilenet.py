"""MobileNetV3 [1]_ with squeeze-and-excitation, CBAM, both or neither. Models return logits.

GroupNorm takes the place of BatchNorm, whose running statistics a federation would lose. With BatchNorm and
squeeze-and-excitation the models compute what those of keras.applications do, weight by weight;
`fedutils.models.imagenet` loads their weights.

References
----------
.. [1] A. Howard et al., "Searching for MobileNetV3", ICCV 2019.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import math
from typing import NamedTuple

import keras

from fedutils.errors import InputError
from fedutils.models.attention import cbam, round_width, squeeze_excite
from fedutils.models.blocks import Blocks, check_at_least, check_choice, normalise
from fedutils.models.layers import StatelessDropout

ATTENTIONS = ("none", "se", "cbam", "se+cbam")
_STEM = 16  # channels of the first convolution, whatever the width multiplier, as in keras.applications


class _Row(NamedTuple):
    """One row of the paper's tables."""

    kernel: int
    expanded: int
    channels: int
    attends: bool
    activation: str
    strides: int


_LARGE = (  # table 1
    _Row(3, 16, 16, False, "relu", 1),
    _Row(3, 64, 24, False, "relu", 2),
    _Row(3, 72, 24, False, "relu", 1),
    _Row(5, 72, 40, True, "relu", 2),
    _Row(5, 120, 40, True, "relu", 1),
    _Row(5, 120, 40, True, "relu", 1),
    _Row(3, 240, 80, False, "hard_swish", 2),
    _Row(3, 200, 80, False, "hard_swish", 1),
    _Row(3, 184, 80, False, "hard_swish", 1),
    _Row(3, 184, 80, False, "hard_swish", 1),
    _Row(3, 480, 112, True, "hard_swish", 1),
    _Row(3, 672, 112, True, "hard_swish", 1),
    _Row(5, 672, 160, True, "hard_swish", 2),
    _Row(5, 960, 160, True, "hard_swish", 1),
    _Row(5, 960, 160, True, "hard_swish", 1),
)
_SMALL = (  # table 2; its tick for the last 1x1 convolution is not in the authors' code, nor here
    _Row(3, 16, 16, True, "relu", 2),
    _Row(3, 72, 24, False, "relu", 2),
    _Row(3, 88, 24, False, "relu", 1),
    _Row(5, 96, 40, True, "hard_swish", 2),
    _Row(5, 240, 40, True, "hard_swish", 1),
    _Row(5, 240, 40, True, "hard_swish", 1),
    _Row(5, 120, 48, True, "hard_swish", 1),
    _Row(5, 144, 48, True, "hard_swish", 1),
    _Row(5, 288, 96, True, "hard_swish", 2),
    _Row(5, 576, 96, True, "hard_swish", 1),
    _Row(5, 576, 96, True, "hard_swish", 1),
)
_SIZES = {"small": (_SMALL, 1024), "large": (_LARGE, 1280)}  # the rows, and the width of the head


def build_mobilenet_v3(
    input_shape: tuple[int | None, int | None, int],
    num_classes: int,
    *,
    size: str = "small",
    attention: str = "se",
    normalisation: str = "group",
    alpha: float = 1.0,
    dropout: float = 0.2,
    seed: int = 0,
) -> keras.Model:
    """Build a MobileNetV3 [1]_.

    Parameters
    ----------
    input_shape : (height, width, channels)
        Each side at least 32 pixels, or None where it is known only when the model is called.
    num_classes : int
        Size of the output.
    size : {"small", "large"}
        1.5 or 4.2 million parameters with squeeze-and-excitation and 4 classes.
    attention : {"none", "se", "cbam", "se+cbam"}
        In the blocks where the paper has squeeze-and-excitation: nothing, that, the convolutional block
        attention module in its place, or the one after the other.
    normalisation : {"group", "batch"}
        After each convolution but those of attention. With "batch" the model cannot be federated: it serves
        comparison.
    alpha : float
        Width multiplier, above 0; widths are rounded to multiples of 8.
    dropout : float
        Rate before the classifier, in [0, 1).
    seed : int
        Seeds the initial weights.

    Returns
    -------
    keras.Model
        float32 (B, height, width, channels) in [0, 1] to float32 logits (B, num_classes).

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    check_choice("size", size, tuple(_SIZES))
    check_choice("attention", attention, ATTENTIONS)
    check_choice("normalisation", normalisation, ("group", "batch"))
    check_at_least("num_classes", num_classes, 1)
    _check_shape(input_shape)
    if not alpha > 0:
        raise InputError(f"alpha: expected a number above 0, found {alpha!r}")
    drop = StatelessDropout(dropout, seed=seed, name="dropout")
    blocks = Blocks(2, normalisation, seed=seed)
    rows, head = _SIZES[size]

    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescaling")(inputs)  # [0, 1] to [-1, 1]
    x = _convolve(x, _STEM, 3, 2, "hard_swish", blocks, "stem")
    narrow = _STEM
    for number, row in enumerate(rows):
        expansion = row.expanded / narrow
        x = _bottleneck(x, row, expansion, alpha, attention, blocks, f"block_{number}")
        narrow = row.channels
    x = _convolve(x, round_width(6 * x.shape[-1]), 1, 1, "hard_swish", blocks, "last")
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    x = keras.layers.Dense(
        round_width(head * max(alpha, 1.0)),
        activation="hard_swish",
        kernel_initializer=blocks.he_normal(),
        name="head",
    )(x)
    x = drop(x)
    # float32 whatever the policy: a softmax in bfloat16 has two significant digits.
    outputs = keras.layers.Dense(
        num_classes, kernel_initializer=blocks.glorot_uniform(), dtype="float32", name="logits"
    )(x)
    return keras.Model(inputs, outputs, name=f"mobilenet_v3_{size}")


def _check_shape(input_shape):
    if len(input_shape) != 3:
        raise InputError(f"input_shape: expected (height, width, channels), found {tuple(input_shape)}")
    *sides, channels = input_shape
    check_at_least("channels of input_shape", channels, 1)
    if any(side is not None and side < 32 for side in sides):
        raise InputError(
            f"input_shape: expected sides of at least 32 pixels, found {tuple(input_shape)}; "
            "enlarge the images"
        )


def _convolve(x, channels, kernel, strides, activation, blocks, name):
    """Convolve without bias, normalise and, unless `activation` is None, activate."""
    x = keras.layers.Conv2D(
        channels,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=blocks.he_normal(),
        name=f"{name}_conv",
    )(x)
    x = normalise(x, blocks.normalisation, f"{name}_norm")
    return x if activation is None else keras.layers.Activation(activation, name=f"{name}_activation")(x)


def _bottleneck(x, row, expansion, alpha, attention, blocks, name):
    """Expand, filter each channel, attend, project; add the input where the shapes agree."""
    shortcut, narrow = x, x.shape[-1]
    channels = round_width(row.channels * alpha)
    if expansion > 1:
        x = _convolve(x, round_width(narrow * expansion), 1, 1, row.activation, blocks, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        row.kernel,
        row.strides,
        padding="same",
        use_bias=False,
        # Keras' HeNormal counts all channels as inputs of each, and would start close to zero.
        depthwise_initializer=keras.initializers.RandomNormal(
            stddev=math.sqrt(2) / row.kernel, seed=blocks.next_seed()
        ),
        name=f"{name}_depthwise_conv",
    )(x)
    x = normalise(x, blocks.normalisation, f"{name}_depthwise_norm")
    x = keras.layers.Activation(row.activation, name=f"{name}_depthwise_activation")(x)
    if row.attends and attention in ("se", "se+cbam"):
        x = squeeze_excite(x, blocks, name)
    if row.attends and attention in ("cbam", "se+cbam"):
        x = cbam(x, blocks, name)
    x = _convolve(x, channels, 1, 1, None, blocks, f"{name}_project")
    if row.strides == 1 and narrow == channels:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x
