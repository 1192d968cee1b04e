"""Image classifiers that can be trained centrally and by federated averaging alike.

Every model normalises with GroupNorm [1]_: it keeps no running statistics, so that nothing is lost when
TensorFlow Federated carries only the trainable weights between hospitals. Models return logits.

References
----------
.. [1] Y. Wu and K. He, "Group Normalization", ECCV 2018.
.. [2] F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras


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
    from fedutils.models.layers import StatelessDropout

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
        return keras.layers.GroupNormalization(groups)(x)

    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(2.0, offset=-1.0)(inputs)  # [0, 1] to [-1, 1]
    x = conv(widths[0], 3, strides=2)(x)
    x = keras.layers.ReLU()(keras.layers.GroupNormalization(groups)(x))
    for width in widths[1:]:
        shortcut = keras.layers.GroupNormalization(groups)(conv(width, 1, strides=2)(x))
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
