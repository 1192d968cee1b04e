"""U-Net [1]_ and Attention U-Net [2]_ for images and volumes, whole or in a federation. Models return logits.

Convolutions are padded, unlike the original's, so that the output has the size of the input. Depth, width,
normalisation and upsampling are arguments; ``depth=5, width=64, normalisation="none"`` is the model of [1]_.

References
----------
.. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
   MICCAI 2015; in 3-D: Ö. Çiçek et al., "3D U-Net", MICCAI 2016.
.. [2] O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018.
.. [3] C.-Y. Lee et al., "Deeply-Supervised Nets", AISTATS 2015.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras

from fedutils.errors import InputError
from fedutils.models.attention import attention_gate
from fedutils.models.blocks import Blocks, LinearUpsampling, check_at_least


def build_unet(
    input_shape: tuple[int | None, ...],
    num_outputs: int,
    *,
    depth: int = 5,
    width: int = 32,
    normalisation: str = "group",
    upsampling: str = "transpose",
    deep_supervision: bool = False,
    seed: int = 0,
) -> keras.Model:
    """Build a U-Net [1]_.

    Parameters
    ----------
    input_shape : (height, width, channels) or (depth, height, width, channels)
        Sides divisible by ``2 ** (depth - 1)``, or None where they are known only when the model is called.
    num_outputs : int
        Channels of the output: classes for a softmax, or overlapping regions for sigmoids.
    depth : int
        Levels of resolution, at least 2; each halves the sides of the one above.
    width : int
        Channels of the first level; each level has twice those of the one above.
    normalisation : {"group", "instance", "batch", "none"}
        After each 3x3 convolution. With "batch" the model cannot be federated: it serves comparison.
    upsampling : {"transpose", "nearest", "linear"}
        Transposed 2x2 convolution that halves the channels, or interpolation that keeps them.
    deep_supervision : bool
        Whether to return logits of every level of the decoder [3]_.
    seed : int
        Seeds the initial weights.

    Returns
    -------
    keras.Model
        float32 (B, *sides, channels), for example z-scored per modality, to float32 logits
        (B, *sides, num_outputs). With `deep_supervision` and a depth of at least 3, a list of such: the
        prediction first, then those of coarser levels, linearly upsampled, so that one label map serves all.

    Raises
    ------
    InputError
        If an argument is not as described, or the coarsest level is too small to be normalised.
    """
    blocks = Blocks(check_sides(input_shape, depth, width, num_outputs), normalisation, upsampling, seed)
    return _build(input_shape, num_outputs, depth, width, blocks, deep_supervision, gated=False)


def build_attention_unet(
    input_shape: tuple[int | None, ...],
    num_outputs: int,
    *,
    depth: int = 5,
    width: int = 32,
    normalisation: str = "group",
    upsampling: str = "transpose",
    deep_supervision: bool = False,
    seed: int = 0,
) -> keras.Model:
    """Build an Attention U-Net [2]_: a U-Net whose skip connections pass additive attention gates.

    Parameters
    ----------
    input_shape, num_outputs, width, normalisation, upsampling, deep_supervision, seed
        As of `build_unet`.
    depth : int
        Levels of resolution, at least 3: the finest skip connection has no gate, as in the paper, since its
        features say too little about what they show.

    Returns
    -------
    keras.Model
        As of `build_unet`. `build_attention_maps` gives the coefficients of its gates.

    Raises
    ------
    InputError
        As of `build_unet`.
    """
    check_at_least("depth", depth, 3)
    blocks = Blocks(check_sides(input_shape, depth, width, num_outputs), normalisation, upsampling, seed)
    return _build(input_shape, num_outputs, depth, width, blocks, deep_supervision, gated=True)


def build_attention_maps(model: keras.Model, *, full_resolution: bool = False) -> keras.Model:
    """Give the coefficients of an Attention U-Net's gates as a model that shares its weights.

    Parameters
    ----------
    model : keras.Model
        From `build_attention_unet`, or loaded from a file that holds one.
    full_resolution : bool
        Whether to upsample the maps linearly to the size of the input, for plotting.

    Returns
    -------
    keras.Model
        The input of `model` to a dict of float32 maps in [0, 1]: "level_1" (B, *(sides / 2), 1), "level_2"
        (B, *(sides / 4), 1) and so on; all (B, *sides, 1) with `full_resolution`.

    Raises
    ------
    InputError
        If `model` has no attention gates.
    """
    names = {layer.name for layer in model.layers}
    maps, level = {}, 1
    while f"gate_{level}_map" in names:
        x = model.get_layer(f"gate_{level}_map").output
        x = keras.layers.Activation("linear", dtype="float32")(x)  # bfloat16 cannot be plotted
        for _ in range(level if full_resolution else 0):
            x = LinearUpsampling(dtype="float32")(x)
        maps[f"level_{level}"] = x
        level += 1
    if not maps:
        raise InputError(
            f"model {model.name!r}: expected one with attention gates, found none; "
            "build it with fedutils.models.unet.build_attention_unet"
        )
    return keras.Model(model.input, maps, name=f"{model.name}_maps")


def check_sides(input_shape, depth: int, width: int, num_outputs: int) -> int:
    """Check the size of a U-Net and return its rank, 2 or 3; raise InputError if something does not fit."""
    check_at_least("depth", depth, 2)
    check_at_least("width", width, 1)
    check_at_least("num_outputs", num_outputs, 1)
    if len(input_shape) not in (3, 4):
        raise InputError(
            "input_shape: expected (height, width, channels) or (depth, height, width, channels), "
            f"found {tuple(input_shape)}"
        )
    *sides, channels = input_shape
    check_at_least("channels of input_shape", channels, 1)
    divisor = 2 ** (depth - 1)
    for side in sides:
        if side is not None and (side < divisor or side % divisor):
            raise InputError(
                f"input_shape: expected sides divisible by {divisor} (2 ** (depth - 1), depth {depth}), "
                f"found {tuple(input_shape)}; pad the images or lower depth"
            )
    return len(sides)


def _build(input_shape, num_outputs, depth, width, blocks, deep_supervision, gated):
    """Build either U-Net. Level i has sides / 2 ** i and width * 2 ** i channels."""
    inputs = keras.Input(input_shape)
    x, skips, decoded = inputs, [], {}
    for level in range(depth):
        if level:
            x = blocks.pool(x, f"encoder_{level}_pool")
        x = blocks.convolve_twice(x, width * 2**level, f"encoder_{level}")
        skips.append(x)

    for level in reversed(range(depth - 1)):
        skip = skips[level]
        if gated and level:
            skip = attention_gate(skip, x, blocks, f"gate_{level}")
        x = blocks.upsample(x, width * 2**level, f"decoder_{level}_up")
        x = keras.layers.Concatenate(name=f"decoder_{level}_join")([skip, x])
        x = decoded[level] = blocks.convolve_twice(x, width * 2**level, f"decoder_{level}")

    # After all else, so that deep supervision does not change the other layers' seeds.
    outputs = [
        blocks.classify(decoded[level], num_outputs, f"logits_{level}", doublings=level)
        for level in range(depth - 1 if deep_supervision else 1)
    ]
    name = ("attention_unet" if gated else "unet") + f"_{blocks.rank}d"
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=name)
