"""Grad-CAM [1]_: which part of an image speaks for a class, and whether the map depends on the weights [2]_.

The feature maps of a late layer are added up, each weighted by the mean of its gradient: by how much the
class's logit rises with it. What speaks against the class is cut off. Such a map shows what the network used,
not what is in the picture, and is as coarse as the layer that it comes from.

References
----------
.. [1] R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
   Localization", ICCV 2017.
.. [2] J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from fedutils.errors import InputError
from fedutils.models.blocks import check_at_least
from fedutils.windows import check_input


def compute_gradcam(
    model: keras.Model,
    x: np.ndarray,
    class_index: int | Sequence[int] | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Compute the map of a class for each image.

    Parameters
    ----------
    model : keras.Model
        A functional classifier: images (B, H, W, C) to logits (B, classes).
    x : float (N, H, W, C)
    class_index : int or N int, optional
        The class of all images or of each; by default the one that the model predicts.
    layer : str, optional
        Whose feature maps; see `find_feature_layer`, which chooses without it.
    batch_size : int

    Returns
    -------
    float32 (N, H, W)
        In [0, 1], bilinearly enlarged to the image. Each map is divided by its own greatest value, so that
        maps show where, not how much: they cannot be compared between images. A map without a positive
        value is 0 throughout: at this layer nothing speaks for the class.

    Raises
    ------
    InputError
        If the model is no classifier of images, `x` does not fit it, or there is no such class or layer.
    """
    check_at_least("batch_size", batch_size, 1)
    x = check_input(model, x, (), batched=True, exact=True)
    features = model.get_layer(find_feature_layer(model, layer)).output
    both = keras.Model(model.inputs, [features, model.outputs[0]])
    chosen = _check_classes(class_index, len(x), model.outputs[0].shape[-1])
    maps = np.empty(x.shape[:3], np.float32)
    for first in range(0, len(x), batch_size):
        part = slice(first, first + batch_size)
        maps[part] = _compute_maps(both, x[part], None if chosen is None else chosen[part])
    return maps


def find_feature_layer(model: keras.Model, layer: str | None = None) -> str:
    """Return the name of the layer whose feature maps Grad-CAM takes: the one named, or the last one.

    The last layer that gives images of more than a pixel: in the two-convolution network its pooling, in the
    others what is averaged over the image before the dense layer. For maps less coarse, name an earlier one.

    Raises
    ------
    InputError
        If the model is no classifier with feature maps, or the layer named gives none.
    """
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise InputError(
            f"model {model.name!r}: expected a classifier, one output (B, classes), found "
            f"{[tuple(output.shape) for output in model.outputs]}; U-Nets have build_attention_maps"
        )
    inner = [candidate for candidate in model.layers if not isinstance(candidate, keras.layers.InputLayer)]
    names = [candidate.name for candidate in inner if _gives_maps(candidate)]
    if layer is not None and layer not in names:
        raise InputError(
            f"layer: expected one of model {model.name!r} that gives feature maps, such as "
            f"{', '.join(names[-3:])}, found {layer!r}"
        )
    if not names:
        raise InputError(f"model {model.name!r}: expected a layer that gives feature maps, found none")
    return layer or names[-1]


def compare_randomised(
    model: keras.Model,
    x: np.ndarray,
    class_index: int | Sequence[int] | None = None,
    layer: str | None = None,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Compare maps with those of the same network with its weights shuffled: the sanity check of [2]_.

    A map that stays the same shows the picture's edges, not what the network has learned.

    Parameters
    ----------
    model, x, class_index, layer
        As of `compute_gradcam`. Both maps are of one class.
    seed : int
        Of the shuffling, within each array of weights; the model itself is not changed.

    Returns
    -------
    float64 (N,)
        Spearman's rank correlation of the two maps' pixels, in [-1, 1]; NaN where a map is constant.

    Raises
    ------
    InputError
        As of `compute_gradcam`.
    """
    if class_index is None:
        x = check_input(model, x, (), batched=True, exact=True)
        class_index = model.predict_on_batch(x).argmax(axis=-1)
    trained = compute_gradcam(model, x, class_index, layer)
    rng = np.random.default_rng([seed, 71])
    shuffled = keras.models.clone_model(model)
    shuffled.set_weights([rng.permuted(w.ravel()).reshape(w.shape) for w in model.get_weights()])
    other = compute_gradcam(shuffled, x, class_index, layer)
    return np.array([_correlate(a.ravel(), b.ravel()) for a, b in zip(trained, other, strict=True)])


def _gives_maps(layer):
    """Return whether a layer, used once, gives images of more than one pixel."""
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):  # used several times, as the perceptron that CBAM shares
        return False
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _check_classes(class_index, count, num_classes):
    """Return the class of each image, int (count,), or none if the model is to choose."""
    if class_index is None:
        return None
    chosen = np.asarray(class_index)
    whole = chosen.dtype.kind in "iu" and chosen.shape in ((), (count,))
    if not whole or chosen.min() < 0 or chosen.max() >= num_classes:
        raise InputError(
            f"class_index: expected one or {count} integers from 0 to {num_classes - 1}, "
            f"found {class_index!r}"
        )
    return np.broadcast_to(chosen, (count,))


def _compute_maps(both, x, classes):
    """Return the maps of a batch, float32 (B, H, W)."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)  # a model whose weights are frozen has nothing else to watch
        features, logits = both(x, training=False)
        classes = tf.argmax(logits, axis=-1) if classes is None else tf.constant(classes, tf.int64)
        score = tf.reduce_sum(tf.gather(logits, classes, axis=1, batch_dims=1))
    gradients = tf.cast(tape.gradient(score, features), tf.float32)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)  # (B, 1, 1, channels)
    maps = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1, keepdims=True))
    maps = tf.image.resize(maps, x.shape[1:3])[..., 0].numpy()
    greatest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, greatest, out=np.zeros_like(maps), where=greatest > 0)


def _correlate(a, b):
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return stats.spearmanr(a, b).statistic
