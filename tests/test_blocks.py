import itertools

import numpy as np
import pytest
from scipy.special import expit

from fedutils.models.attention import attention_gate, cbam, round_width, squeeze_excite
from fedutils.models.blocks import Blocks, LinearUpsampling, count_groups, normalise

# isort: split
import keras
import tensorflow as tf


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def upsample(x, axis):
    """Double an axis by linear interpolation between pixel centres."""
    size = x.shape[axis]
    centres = (np.arange(2 * size) + 0.5) / 2 - 0.5
    return np.apply_along_axis(lambda line: np.interp(centres, np.arange(size), line), axis, x)


@pytest.mark.parametrize("shape", [(2, 3, 5, 2), (2, 1, 3, 2), (2, 3, 4, 5, 2)])
def test_linear_upsampling(shape):
    x = draw(*shape)
    expected = x
    for axis in range(1, len(shape) - 1):
        expected = upsample(expected, axis)
    layer = LinearUpsampling()
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape((None, *shape[1:])) == (None, *expected.shape[1:])
    if len(shape) == 4:
        resized = tf.image.resize(x, expected.shape[1:3])
        np.testing.assert_allclose(layer(x), resized, rtol=1e-5, atol=1e-6)


def test_other_upsamplings():
    x = draw(2, 3, 5, 2)
    nearest = Blocks(2, "none", "nearest").upsample(x, 7, "up")
    np.testing.assert_array_equal(nearest, x.repeat(2, axis=1).repeat(2, axis=2))
    linear = Blocks(2, "none", "linear").upsample(x, 7, "up")
    np.testing.assert_array_equal(linear, LinearUpsampling()(x))
    assert Blocks(2, "none", "transpose").upsample(x, 7, "up").shape == (2, 6, 10, 7)


def test_groups_divide_every_width():
    for channels in range(1, 130):
        groups = count_groups(channels)
        assert channels % groups == 0 and 1 <= groups <= 8
    assert [count_groups(n) for n in (8, 16, 24, 12, 6, 7)] == [8, 8, 8, 4, 2, 1]


@pytest.mark.parametrize(("kind", "groups"), [("group", 4), ("instance", 12)])
def test_normalises_in_groups(kind, groups):
    x = 5 + 3 * draw(2, 4, 6, 12)
    inputs = keras.Input((4, 6, 12))
    y = keras.Model(inputs, normalise(inputs, kind, "norm"))(x).numpy()
    parts = x.reshape(2, 24, groups, -1)
    mean, variance = (f(parts, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((parts - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


# Attention


def test_an_attention_gate_by_hand():
    rng = np.random.default_rng(3)
    skip, gating = keras.Input((4, 6, 2)), keras.Input((2, 3, 5))
    model = keras.Model([skip, gating], attention_gate(skip, gating, Blocks(2, "none"), "gate"))
    values = {w.path: rng.normal(size=w.shape) for w in model.weights}
    for w in model.weights:
        w.assign(values[w.path])
    x, g = rng.normal(size=(1, 4, 6, 2)), rng.normal(size=(1, 2, 3, 5))
    hidden = g @ values["gate_signal/kernel"][0, 0] + values["gate_signal/bias"]
    for dy, dx in itertools.product((0, 1), (0, 1)):  # the strided 2x2 convolution
        hidden = hidden + x[:, dy::2, dx::2] @ values["gate_skip/kernel"][dy, dx]
    score = np.maximum(hidden, 0) @ values["gate_weights/kernel"][0, 0] + values["gate_weights/bias"]
    expected = x * upsample(upsample(expit(score), 1), 2)
    np.testing.assert_allclose(model([x.astype("f"), g.astype("f")]), expected, rtol=1e-4, atol=1e-6)


def build_block(block, channels):
    """A model of one attention block with random weights, and these by their paths."""
    inputs = keras.Input((5, 7, channels))
    model = keras.Model(inputs, block(inputs, Blocks(2, "none"), "x"))
    rng = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(rng.normal(scale=0.2, size=weight.shape))
    return model, {w.path: w.numpy() for w in model.weights}


def test_squeeze_and_excitation_by_hand():
    model, w = build_block(squeeze_excite, 40)
    x = draw(2, 5, 7, 40)
    hidden = x.mean(axis=(1, 2)) @ w["x_excite_squeeze/kernel"][0, 0] + w["x_excite_squeeze/bias"]
    assert hidden.shape == (2, 16)  # a quarter is 10, rounded to 8, which is 20 % less: so 16
    z = np.maximum(hidden, 0) @ w["x_excite_weights/kernel"][0, 0] + w["x_excite_weights/bias"]
    expected = x * np.clip(z / 6 + 0.5, 0, 1)[:, None, None]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_cbam_by_hand():
    model, w = build_block(cbam, 160)
    x = draw(2, 5, 7, 160)
    first, second = w["x_cbam_hidden/kernel"][0, 0], w["x_cbam_channels/kernel"][0, 0]
    assert first.shape == (160, 16)  # a sixteenth is 10, rounded to 8, which is 20 % less: so 16
    z = sum(np.maximum(pooled @ first, 0) @ second for pooled in (x.mean(axis=(1, 2)), x.max(axis=(1, 2))))
    y = x * expit(z)[:, None, None]
    statistics = np.pad(np.stack([y.mean(-1), y.max(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(statistics, (7, 7), (1, 2))  # (2, 5, 7, 2, 7, 7)
    z = np.einsum("bhwcij,ijc->bhw", windows, w["x_cbam_pixels/kernel"][..., 0])
    np.testing.assert_allclose(model(x), y * expit(z)[..., None], rtol=1e-3, atol=1e-5)


def test_widths_are_multiples_of_eight():
    for channels in np.linspace(1, 300, 600):
        width = round_width(channels)
        assert width % 8 == 0 and width >= 8
        assert 0.9 * channels <= width <= max(8, channels + 8)
    assert [round_width(n) for n in (3, 10, 12, 18, 20, 24)] == [8, 16, 16, 24, 24, 24]
