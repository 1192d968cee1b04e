import numpy as np
import pytest

from fedutils.errors import InputError
from fedutils.keras_tff import build_functional_model
from fedutils.models.classification import build_cnn, build_separable_cnn

# isort: split
import keras
import tensorflow as tf

SHAPE = (32, 48, 2)
OPTIONS = {build_cnn: {"filters": (3, 5)}, build_separable_cnn: {"widths": (8, 16)}}
both = pytest.mark.parametrize("build", list(OPTIONS), ids=lambda build: build.__name__[6:])


def build_small(build, seed=0):
    return build(SHAPE, 3, **OPTIONS[build], seed=seed)


def make_batch(shape=SHAPE):
    return np.random.default_rng(0).uniform(size=(4, *shape)).astype(np.float32)


def test_parameters_of_the_original():
    # 224 x 224 x 3, convolutions of 16 and 8 channels, one pooling, 4 classes
    model = build_cnn((224, 224, 3), 4, filters=(16, 8))
    shapes = [(3, 3, 3, 16), (16,), (3, 3, 16, 8), (8,), (112 * 112 * 8, 4), (4,)]
    assert [w.shape for w in model.weights] == shapes
    assert model.count_params() == (3 * 9 * 16 + 16) + (16 * 9 * 8 + 8) + (112 * 112 * 8 * 4 + 4)


def test_the_cnn_by_hand():
    model = build_small(build_cnn)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    kernel_1, bias_1, kernel_2, bias_2, dense, bias = model.get_weights()
    x = make_batch((7, 10, 2))  # an odd side, whose last row the pooling drops
    model = build_cnn((7, 10, 2), 3, filters=(3, 5))
    dense = rng.normal(size=(3 * 5 * 5, 3))
    model.set_weights([kernel_1, bias_1, kernel_2, bias_2, dense, bias])
    y = np.maximum(tf.nn.conv2d(2 * x - 1, kernel_1, 1, "SAME") + bias_1, 0)
    y = np.maximum(tf.nn.conv2d(y, kernel_2, 1, "SAME") + bias_2, 0)
    y = y[:, :6].reshape(4, 3, 2, 5, 2, 5).max(axis=(2, 4))
    np.testing.assert_allclose(model(x), y.reshape(4, -1) @ dense + bias, rtol=1e-4, atol=1e-4)


@both
def test_gives_logits(build):
    y = build_small(build)(make_batch()).numpy()
    assert y.shape == (4, 3) and y.dtype == np.float32
    assert y.min() < 0 and abs(y.sum(axis=-1) - 1).max() > 0.1  # no softmax


@both
def test_can_be_federated(build):
    spec = (tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None,), tf.int32))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    functional = build_functional_model(build_small(build), loss, input_spec=spec)
    assert functional.initial_weights[1] == ()


@both
def test_every_variable_learns(build):
    model = build_small(build)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(make_batch(), training=True) - 1.0))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.any(gradient) for gradient in gradients)


@both
def test_the_seed_decides_the_weights(build):
    first, same, other = (build_small(build, seed).get_weights() for seed in (1, 1, 2))
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or np.all(a != c)


@both
def test_saves_and_loads(build, tmp_path):
    model = build_small(build)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(make_batch()), loaded(make_batch()))


def test_float32_logits_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_small(build_cnn)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[2].compute_dtype == "bfloat16"
    assert model(make_batch()).dtype == tf.float32


@pytest.mark.parametrize(
    ("shape", "filters", "words"),
    [
        ((None, 48, 1), (3, 5), r"known sides of at least 2 pixels, found \(None, 48, 1\)"),
        ((32, 1, 1), (3, 5), "known sides of at least 2 pixels"),
        ((32, 48), (3, 5), r"expected \(height, width, channels\)"),
        ((32, 48, 1), (3, 5, 7), r"filters: expected two numbers of channels, found \(3, 5, 7\)"),
    ],
)
def test_refusals(shape, filters, words):
    with pytest.raises(InputError, match=words):
        build_cnn(shape, 3, filters=filters)
