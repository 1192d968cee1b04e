"""ImageNet weights of keras.applications' MobileNetV3 [1]_, from a local file into a MobileNetV3 of ours.

Layers are matched by their order and shape, not by name: names differ between versions of Keras. Nothing is
downloaded.

References
----------
.. [1] Keras Applications, MobileNetV3Small and MobileNetV3Large; A. Howard et al., "Searching for
   MobileNetV3", ICCV 2019.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from fedutils.errors import InputError

# Per size: the model of Keras, and the width of the last bottleneck at alpha = 1, which tells alpha.
_REFERENCES = {
    "mobilenet_v3_small": (keras.applications.MobileNetV3Small, 96),
    "mobilenet_v3_large": (keras.applications.MobileNetV3Large, 160),
}
_SUFFIXES = (".h5", ".hdf5", ".keras")  # ".weights.h5" ends so too


def load_imagenet_weights(model: keras.Model, path: str | Path) -> list[str]:
    """Put the weights of a keras.applications MobileNetV3 into a model, in place.

    Convolutions take them; so do squeeze-and-excitation, the head where the file has one, and BatchNorm,
    where the model has these. GroupNorm, CBAM and the classifier keep their initial weights: BatchNorm's
    scales belong to statistics that GroupNorm does not have.

    Parameters
    ----------
    model : keras.Model
        From `fedutils.models.mobilenet.build_mobilenet_v3`, of the size and width (`alpha`) of the file. If
        its images do not have three channels, `adapt_channels` adapts the first convolution.
    path : str or path
        File of weights or whole model, .h5, .weights.h5 or .keras, with or without the classifier of 1000
        classes.

    Returns
    -------
    list of str
        Names of the layers that took weights, in the order of the model.

    Raises
    ------
    InputError
        If `model` is not such a model, or the file is missing, cannot be read or does not fit. Then the model
        is left as it was.
    """
    if model.name not in _REFERENCES:
        raise InputError(
            f"model {model.name!r}: expected a MobileNetV3, found another model; "
            "build it with fedutils.models.mobilenet.build_mobilenet_v3"
        )
    reference, has_head = _read_reference(model, Path(path))
    plain, biased, batch_norms = _sort_layers(reference)
    if has_head:
        *biased, head, _ = biased
    our_plain, our_biased, our_batch_norms = _sort_layers(model)
    pairs = list(zip(our_plain, plain, strict=True))
    if our_biased:
        pairs += zip(our_biased, biased, strict=True)
    if our_batch_norms:
        pairs += zip(our_batch_norms, batch_norms, strict=True)
    if has_head:
        pairs.append((model.get_layer("head"), head))

    values = {}
    for layer, source in pairs:
        arrays = source.get_weights()
        if layer is our_plain[0]:
            arrays = [adapt_channels(arrays[0], layer.kernel.shape[2])]
        if isinstance(layer, keras.layers.Dense):
            arrays[0] = arrays[0][0, 0]  # the 1x1 convolution of a single pixel
        expected, found = [tuple(w.shape) for w in layer.weights], [array.shape for array in arrays]
        if found != expected:
            raise _misfit(path, f"weights {found} for the layer {layer.name}, which has {expected}")
        values[layer.name] = arrays
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
    return [layer.name for layer in model.layers if layer.name in values]


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Make the first convolution's kernel fit images of other channels than red, green and blue.

    Parameters
    ----------
    kernel : array (height, width, 3, filters)
    channels : int
        Of the images. With 3 the kernel stays as it is, whatever they mean.

    Returns
    -------
    array (height, width, channels, filters)
        The sum over red, green and blue, divided by `channels`. The sum, so that a grey image gives the same
        responses as it gave as red, green and blue alike; divided, so that `channels` equal images do so too.
    """
    if channels == kernel.shape[2]:
        return kernel
    return np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)


def _read_reference(model, path):
    """Read `path` into the model of keras.applications that fits; return it and whether it has a head."""
    if not path.is_file():
        raise InputError(f"{path}: expected a file of ImageNet weights, found none; give the path of one")
    if path.suffix not in _SUFFIXES:
        found = path.suffix or "no suffix"
        raise InputError(f"{path}: expected a file .h5, .weights.h5 or .keras, found {found}")
    if not (zipfile.is_zipfile(path) if path.suffix == ".keras" else h5py.is_hdf5(path)):
        raise InputError(
            f"{path}: expected a file of weights, found one damaged or of another format; download it again"
        )
    build, width = _REFERENCES[model.name]
    alpha = model.get_layer("last_conv").kernel.shape[2] / width
    whole = build((None, None, 3), alpha, weights=None)
    pooling = [layer for layer in whole.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)][-1]
    headless = keras.Model(whole.input, pooling.input)
    if _fill(whole, path):
        return whole, True
    if _fill(headless, path):
        return headless, False
    size = model.name.removeprefix("mobilenet_v3_")
    raise _misfit(path, f"other layers than those of a {size} one with alpha = {alpha:g}")


def _fill(reference, path):
    """Read `path` into `reference`; return whether the file has all its weights."""
    with warnings.catch_warnings():
        # Keras warns of each second place where a file might have the layers; it raises if none has them.
        warnings.simplefilter("ignore")
        try:
            reference.load_weights(path)
        except (ValueError, OSError, KeyError):
            return False
    return True


def _sort_layers(model):
    """Return convolutions without a bias, those with one, and BatchNorms, each in the order of the model.

    Convolutions of the backbone have no bias. Those of squeeze-and-excitation have one; in keras.applications
    the head and the classifier, the last two, are such convolutions too.
    """
    convolutions = [
        layer
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)) and "cbam" not in layer.name
    ]
    return (
        [layer for layer in convolutions if not layer.use_bias],
        [layer for layer in convolutions if layer.use_bias],
        [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)],
    )


def _misfit(path, found):
    return InputError(
        f"{path}: expected the weights of a MobileNetV3 like this model, found {found}; "
        "choose the file of the model's size and alpha"
    )
