"""U-Net++ [1]_ [2]_ for images and volumes, whole, pruned or in a federation. Models return logits.

Node (i, j) lies at level i of resolution and is the j-th on its skip connection. It joins all nodes before it
on its level with the upsampled node (i + 1, j - 1). Nodes (0, 1), (0, 2), ... give predictions of growing
depth: a U-Net++ trained with deep supervision can be cut back to any of them.

References
----------
.. [1] Z. Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", DLMIA 2018.
.. [2] Z. Zhou et al., "UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image
   Segmentation", IEEE TMI 39(6), 2020.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras

from fedutils.errors import InputError
from fedutils.models.blocks import Blocks
from fedutils.models.unet import check_sides


def build_unet_plus_plus(
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
    """Build a U-Net++ [2]_; ``depth=5, width=32, normalisation="none"`` is the model of [1]_.

    Parameters
    ----------
    input_shape, num_outputs, depth, width, normalisation, upsampling, seed
        As of `fedutils.models.unet.build_unet`.
    deep_supervision : bool
        Whether to return the logits of all nodes (0, j), so that the model can be pruned.

    Returns
    -------
    keras.Model
        float32 (B, *sides, channels), for example z-scored per modality, to float32 logits
        (B, *sides, num_outputs). With `deep_supervision` and a depth of at least 3, a list of such: the
        prediction of node (0, depth - 1) first, that of node (0, 1) last.

    Raises
    ------
    InputError
        If an argument is not as described, or the coarsest level is too small to be normalised.
    """
    blocks = Blocks(check_sides(input_shape, depth, width, num_outputs), normalisation, upsampling, seed)
    inputs = keras.Input(input_shape)
    nodes = {}
    for i in range(depth):
        x = blocks.pool(nodes[i - 1, 0], f"node_{i}_0_pool") if i else inputs
        nodes[i, 0] = blocks.convolve_twice(x, width * 2**i, f"node_{i}_0")
    for j in range(1, depth):
        for i in range(depth - j):
            up = blocks.upsample(nodes[i + 1, j - 1], width * 2**i, f"node_{i}_{j}_up")
            before = [nodes[i, k] for k in range(j)]
            x = keras.layers.Concatenate(name=f"node_{i}_{j}_join")([*before, up])
            nodes[i, j] = blocks.convolve_twice(x, width * 2**i, f"node_{i}_{j}")
    outputs = [
        blocks.classify(nodes[0, j], num_outputs, f"logits_{j}")
        for j in range(depth - 1, 0, -1)
        if deep_supervision or j == depth - 1
    ]
    name = f"unet_plus_plus_{blocks.rank}d"
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=name)


def prune_unet_plus_plus(model: keras.Model, level: int) -> keras.Model:
    """Cut a U-Net++ back to its node (0, level), without the nodes that this one does not use [2]_.

    Parameters
    ----------
    model : keras.Model
        From `build_unet_plus_plus` with `deep_supervision`, or loaded from a file that holds one.
    level : int
        From 1 to the model's depth less 1, which is the whole model with one output.

    Returns
    -------
    keras.Model
        float32 (B, *sides, channels) to float32 logits (B, *sides, num_outputs), the same as those of the
        whole model at that node. It shares the weights of `model`.

    Raises
    ------
    InputError
        If `model` has no output at that node.
    """
    if not model.name.startswith("unet_plus_plus") or f"logits_{level}" not in model.output_names:
        raise InputError(
            f"model {model.name!r}: expected a U-Net++ with an output logits_{level}, found outputs "
            f"{', '.join(model.output_names)}; build it with deep_supervision=True"
        )
    output = model.get_layer(f"logits_{level}").output
    return keras.Model(model.input, output, name=f"{model.name}_l{level}")
