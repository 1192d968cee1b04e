"""Clients whose loss is a parabola in one weight, ``h / 2 * (w - t)^2``: every step can be taken by hand."""

import functools

import keras
import numpy as np

from fedutils.keras_tff import build_functional_model
from fedutils.stateful import advance, begin_rounds, get_global_weights
from fedutils.tff import tff

# isort: split
import tensorflow as tf

START = 0.5


@functools.cache
def build_parabola():
    """Make the model ``w * x`` under the square error; w begins at START."""
    start = keras.initializers.Constant(START)
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer=start)]
    )
    spec = (tf.TensorSpec((None, 1)), tf.TensorSpec((None, 1)))
    return build_functional_model(model, keras.losses.MeanSquaredError(), input_spec=spec)


def make_client(curvature, optimum, num_steps, batch_size=1):
    """Make batches of each of which the loss is ``curvature / 2 * (w - optimum)^2``."""
    x = np.full((num_steps * batch_size, 1), np.sqrt(curvature / 2), np.float32)
    return tf.data.Dataset.from_tensor_slices((x, (x * optimum).astype(np.float32))).batch(batch_size)


def walk(weight, rate, curvature, optimum, num_steps, momentum=0.0, pull=0.0, anchor=0.0, offset=0.0):
    """Take a client's steps by hand; `offset` is added to each gradient."""
    velocity = 0.0
    for _ in range(num_steps):
        gradient = curvature * (weight - optimum) + pull * (weight - anchor) + offset
        velocity = momentum * velocity + gradient
        weight = weight - rate * velocity
    return weight


def run_rounds(process, data, num_rounds, chosen=None, start=START):
    """Run rounds of `process` over all clients, or those in `chosen`; return the state and the metrics."""
    weights = tff.learning.models.ModelWeights((np.full((1, 1), start, np.float32),), ())
    state, metrics = begin_rounds(process, weights, len(data)), None
    chosen = range(len(data)) if chosen is None else chosen
    for _ in range(num_rounds):
        state, metrics = advance(process, state, chosen, [data[k] for k in chosen])
    return state, metrics


def weight_of(process, state):
    """Return the global weight."""
    return float(np.squeeze(get_global_weights(process, state).trainable[0]))
