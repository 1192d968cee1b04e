"""Image classifiers that can be trained centrally and by federated averaging alike.

A model that normalises does so with GroupNorm [1]_: it keeps no running statistics, so that nothing is lost
when TensorFlow Federated carries only the trainable weights between hospitals. Models return logits.

References
----------
.. [1] Y. Wu and K. He, "Group Normalization", ECCV 2018.
.. [2] F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017.
.. [3] "Decentralized deep learning brain tumor classification tool", whose Thrift service carries the six
   arrays of weights of two convolutions and a dense layer.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras

from fedutils.errors import InputError


def build_cnn(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filters: tuple[int, int] = (32, 64),
    seed: int = 0,
) -> keras.Model:
    """Build the two-convolution network of the first hospital consoles: six arrays of weights in all.

    Two 3x3 convolutions with a ReLU, one 2x2 max-pooling, flatten, dense [3]_. It has no normalisation and no
    global pooling, so most of its weights are in the dense layer and it fits one size of image only: the
    baseline that better architectures are measured against.

    Parameters
    ----------
    input_shape : (height, width, channels)
        Each side at least 2 pixels.
    num_classes : int
        Size of the output.
    filters : (int, int)
        Channels of the two convolutions; the original has (16, 8).
    seed : int
        Seeds the initial weights.

    Returns
    -------
    keras.Model
        float32 (B, height, width, channels) in [0, 1] to float32 logits (B, num_classes). The original ends
        in a softmax; here the loss takes logits, as with `build_separable_cnn`.

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    if len(input_shape) != 3 or any(side is None or side < 2 for side in input_shape[:2]):
        raise InputError(
            "input_shape: expected (height, width, channels) with known sides of at least 2 pixels, "
            f"found {tuple(input_shape)}"
        )
    if len(filters) != 2:
        raise InputError(f"filters: expected two numbers of channels, found {filters!r}")
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(2.0, offset=-1.0)(inputs)  # [0, 1] to [-1, 1]
    for number, width in enumerate(filters):
        init = keras.initializers.HeNormal(seed=seed * 1000 + number)
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer=init)(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(x))
    outputs = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed * 1000 + len(filters)),
        dtype="float32",
    )(x)
    return keras.Model(inputs, outputs, name="cnn")


def build_separable_cnn(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    widths: tuple[int, ...] = (16, 32, 64, 128, 256),
    groups: int = 8,
    dropout: float = 0.2,
    seed: int = 0,
) -> keras.Model:
    """Build a small residual network of depthwise separable convolutions [2]_.

    Parameters
    ----------
    input_shape : (height, width, channels)
        Each side at least ``2 ** len(widths)`` pixels.
    num_classes : int
        Size of the output.
    widths : tuple of int
        Channels of the strided stem and of each residual stage; each stage halves the resolution.
    groups : int
        Groups of GroupNorm; must divide every width.
    dropout : float
        Rate before the classifier, in [0, 1).
    seed : int
        Seeds the initial weights.

    Returns
    -------
    keras.Model
        float32 (B, height, width, channels) in [0, 1] to float32 logits (B, num_classes).
    """
    from fedutils.models.layers import GroupNormalization, StatelessDropout

    seeds = iter(range(seed * 1000, seed * 1000 + 1000))

    def conv(width, size, strides=1):
        init = keras.initializers.HeNormal(seed=next(seeds))
        return keras.layers.Conv2D(
            width, size, strides, padding="same", use_bias=False, kernel_initializer=init
        )

    def separable(x, width):
        x = keras.layers.SeparableConv2D(
            width,
            3,
            padding="same",
            use_bias=False,
            depthwise_initializer=keras.initializers.HeNormal(seed=next(seeds)),
            pointwise_initializer=keras.initializers.HeNormal(seed=next(seeds)),
        )(x)
        return GroupNormalization(groups)(x)

    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(2.0, offset=-1.0)(inputs)  # [0, 1] to [-1, 1]
    x = conv(widths[0], 3, strides=2)(x)
    x = keras.layers.ReLU()(GroupNormalization(groups)(x))
    for width in widths[1:]:
        # Every other pixel, then 1x1: what a strided 1x1 convolution gives. That one's gradient writes past
        # its memory in TensorFlow 2.21 (oneDNN) where 8 channels enter.
        every_other = keras.layers.MaxPooling2D(1, strides=2)(x)
        shortcut = GroupNormalization(groups)(conv(width, 1, strides=1)(every_other))
        x = keras.layers.ReLU()(separable(x, width))
        x = separable(x, width)
        x = keras.layers.MaxPooling2D(3, 2, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = StatelessDropout(dropout, seed=seed)(x)
    outputs = keras.layers.Dense(
        num_classes, kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds))
    )(x)
    return keras.Model(inputs, outputs, name="separable_cnn")
