"""Blocks of the models: normalisation, and the convolutions of a U-Net in 2-D and 3-D from one description.

The rank of the input decides between the layers of Keras for images and for volumes, so that an architecture
is written once. Convolutions draw their initial weights as U-Net's paper asks [1]_ [2]_, from one stream of
seeds per model.

References
----------
.. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
   MICCAI 2015.
.. [2] K. He et al., "Delving Deep into Rectifiers", ICCV 2015.
.. [3] Y. Wu and K. He, "Group Normalization", ECCV 2018.
.. [4] D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization", arXiv:1607.08022, 2016.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import itertools
import math

import keras

from fedutils.errors import InputError
from fedutils.models.layers import GroupNormalization

NORMALISATIONS = ("group", "instance", "batch", "none")
UPSAMPLINGS = ("transpose", "nearest", "linear")


def check_choice(name, value, choices):
    """Raise InputError unless `value` is among `choices`."""
    if value not in choices:
        expected = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise InputError(f"{name}: expected {expected}, found {value!r}")


def check_at_least(name, value, least):
    """Raise InputError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}: expected an integer of at least {least}, found {value!r}")


def count_groups(channels: int, most: int = 8) -> int:
    """Return the number of groups for GroupNorm: the greatest common divisor of `channels` and `most`."""
    return math.gcd(channels, most)


def normalise(x, kind: str, name: str):
    """Normalise the channels of `x`.

    Parameters
    ----------
    x : KerasTensor (B, ..., channels)
    kind : {"group", "instance", "batch", "none"}
        GroupNorm [3]_ in `count_groups` groups; InstanceNorm [4]_, which is a group a channel; BatchNorm,
        whose running statistics a federation would lose; or `x` as it is.
    name : str
        Of the layer.

    Raises
    ------
    InputError
        If a group of GroupNorm or InstanceNorm holds a single value, which becomes zero whatever it was.
    """
    check_choice("normalisation", kind, NORMALISATIONS)
    if kind == "none":
        return x
    if kind == "batch":
        return keras.layers.BatchNormalization(name=name)(x)
    channels = x.shape[-1]
    groups = count_groups(channels) if kind == "group" else channels
    sides = x.shape[1:-1]
    if None not in sides and math.prod(sides) * channels == groups:
        raise InputError(
            f"layer {name}: expected at least 2 values to normalise together, found 1 ({kind} normalisation, "
            f"{channels} channels of size {'x'.join(map(str, sides))}); use larger images or fewer levels"
        )
    return GroupNormalization(groups, name=name)(x)


@keras.saving.register_keras_serializable(package="fedutils")
class LinearUpsampling(keras.layers.Layer):
    """Double every side of an image or a volume by linear interpolation; keeps no weights.

    Samples sit at the centres of pixels and the border is extended, as in ``tf.image.resize``, which knows no
    volumes: float (B, *sides, channels) to (B, *(2 * sides), channels) of the same dtype.
    """

    def call(self, inputs):
        """Return `inputs` with every side doubled."""
        x = inputs
        for axis in range(1, len(x.shape) - 1):
            before = keras.ops.concatenate([_cut(x, axis, 0, 1), _cut(x, axis, 0, -1)], axis)
            after = keras.ops.concatenate([_cut(x, axis, 1, None), _cut(x, axis, -1, None)], axis)
            # The new pixels' centres lie a quarter of an old pixel to either side of its own centre.
            pair = [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
            shape = list(keras.ops.shape(x))
            shape[axis] *= 2
            shape[0] = -1  # so that one unknown side, the batch, leaves the shape static
            x = keras.ops.reshape(keras.ops.stack(pair, axis + 1), shape)
        return x

    def compute_output_shape(self, input_shape):
        """Return `input_shape` with every side doubled."""
        sides = [side and 2 * side for side in input_shape[1:-1]]
        return (input_shape[0], *sides, input_shape[-1])


def _cut(x, axis, start, stop):
    """Return ``x[start:stop]`` along an axis."""
    return x[(*(slice(None),) * axis, slice(start, stop))]


class Blocks:
    """Makes the layers of one model: one rank, one normalisation, one upsampling, one stream of seeds.

    Parameters
    ----------
    rank : int
        2 for images, 3 for volumes.
    normalisation : {"group", "instance", "batch", "none"}
        After each 3x3 convolution, which has a bias only with "none": otherwise the normalisation has one.
    upsampling : {"transpose", "nearest", "linear"}
        Transposed 2x2 convolution that halves the channels, or interpolation that keeps them.
    seed : int
        Seeds the initial weights.
    """

    def __init__(self, rank: int, normalisation: str, upsampling: str = "transpose", seed: int = 0):
        check_choice("normalisation", normalisation, NORMALISATIONS)
        check_choice("upsampling", upsampling, UPSAMPLINGS)
        self.rank = rank
        self.normalisation = normalisation
        self.upsampling = upsampling
        self._seeds = itertools.count(1000 * seed)

    def next_seed(self) -> int:
        """Return the next seed of the stream."""
        return next(self._seeds)

    def he_normal(self):
        """Return the next initializer of the stream."""
        return keras.initializers.HeNormal(seed=self.next_seed())

    def glorot_uniform(self):
        """Return the next initializer of the stream, for layers that no ReLU follows."""
        return keras.initializers.GlorotUniform(seed=self.next_seed())

    def layer(self, name: str):
        """Return the class of Keras' layer `name` for this rank: Conv, MaxPooling, UpSampling and so on."""
        return getattr(keras.layers, f"{name}{self.rank}D")

    def convolve_twice(self, x, channels: int, name: str):
        """Convolve, normalise and rectify, twice: (B, *sides, any) to (B, *sides, channels)."""
        for part in ("1", "2"):
            x = self.layer("Conv")(
                channels,
                3,
                padding="same",
                use_bias=self.normalisation == "none",
                kernel_initializer=self.he_normal(),
                name=f"{name}_conv_{part}",
            )(x)
            x = normalise(x, self.normalisation, f"{name}_norm_{part}")
            x = keras.layers.ReLU(name=f"{name}_relu_{part}")(x)
        return x

    def pool(self, x, name: str):
        """Keep the greatest of every 2x2 or 2x2x2 values, which halves every side."""
        return self.layer("MaxPooling")(2, name=name)(x)

    def upsample(self, x, channels: int, name: str):
        """Double every side; to `channels` channels if the upsampling is learned, else with those of `x`."""
        if self.upsampling == "transpose":
            transpose = getattr(keras.layers, f"Conv{self.rank}DTranspose")
            return transpose(channels, 2, strides=2, kernel_initializer=self.he_normal(), name=name)(x)
        if self.upsampling == "nearest":
            return self.layer("UpSampling")(2, name=name)(x)
        return LinearUpsampling(name=name)(x)

    def classify(self, x, num_outputs: int, name: str, doublings: int = 0):
        """Give float32 logits of each pixel by a 1x1 convolution, then double the sides `doublings` times.

        The last layer has the name `name`, which is the name of the model's output.
        """
        # float32 whatever the policy: a softmax in bfloat16 has two significant digits.
        x = self.layer("Conv")(
            num_outputs,
            1,
            kernel_initializer=self.glorot_uniform(),
            dtype="float32",
            name=f"{name}_conv" if doublings else name,
        )(x)
        for remaining in reversed(range(doublings)):
            x = LinearUpsampling(dtype="float32", name=f"{name}_up_{remaining}" if remaining else name)(x)
        return x
