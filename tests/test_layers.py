import itertools

import numpy as np
import pytest

from fedutils import runtime
from fedutils.errors import InputError
from fedutils.keras_tff import build_functional_model
from fedutils.models.layers import GroupNormalization, StatelessDropout
from fedutils.tff import tff

# isort: split
import keras
import tensorflow as tf


def draw(seed=0, rate=0.25, scale=1.0, shape=(40, 50)):
    x = scale * np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(np.float32)
    return x, StatelessDropout(rate, seed=seed)(x, training=True).numpy()


def test_drops_the_rate_and_scales_the_rest():
    x, y = draw()
    kept = y != 0
    # 2000 draws at 0.25: five standard deviations are 0.05
    assert abs((~kept).mean() - 0.25) < 0.05
    np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-6)


def test_same_seed_and_input_give_the_same_mask():
    np.testing.assert_array_equal(draw()[1], draw()[1])


@pytest.mark.parametrize("change", [{"seed": 1}, {"scale": 1.0 + 1e-6}])
def test_another_seed_or_input_gives_another_mask(change):
    same = (draw()[1] == 0) == (draw(**change)[1] == 0)
    # Independent masks agree where both keep or both drop: 0.75^2 + 0.25^2 = 0.625.
    assert 0.55 < same.mean() < 0.7


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtype_is_kept(dtype):
    x = tf.cast(tf.random.stateless_uniform((7, 8, 9), seed=(0, 0)) + 0.5, dtype)
    y = StatelessDropout(0.5, dtype=dtype)(x, training=True)
    assert y.dtype == x.dtype
    assert 0.3 < np.mean(tf.cast(y, tf.float32).numpy() == 0) < 0.7


def test_does_nothing_outside_training_or_at_rate_zero():
    x = tf.ones((7, 8))
    np.testing.assert_array_equal(StatelessDropout(0.5)(x), x)
    np.testing.assert_array_equal(StatelessDropout(0.5)(x, training=False), x)
    np.testing.assert_array_equal(StatelessDropout(0.0)(x, training=True), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 20])
def test_wrong_rate(rate):
    with pytest.raises(InputError, match=r"expected a number in \[0, 1\)"):
        StatelessDropout(rate)


def test_gradient_flows_through_what_is_kept():
    x = tf.random.stateless_uniform((7, 8), seed=(0, 1))
    layer = StatelessDropout(0.5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    np.testing.assert_array_equal(tape.gradient(y, x), np.where(y == 0, 0.0, 2.0))


def test_saves_and_loads(tmp_path):
    model = keras.Sequential([keras.Input((5,)), StatelessDropout(0.25, seed=7)])
    model.save(tmp_path / "model.keras")
    layer = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert (layer.rate, layer.seed) == (0.25, 7)
    assert layer.variables == []


def build_mask_recorder():
    """A model that learns which of its inputs were dropped.

    Each of its 64 weights w has output w * x and loss -sum(output) for one example x = 1, hence
    after an SGD step of rate 1 w has grown by 2 where it was kept (dropout of 0.5 scales by 2).
    """

    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, x):
            return x * self.w

    return keras.Sequential([keras.Input((64,)), Scale(), StatelessDropout(0.5)])


def train_recorder(num_steps):
    model = build_mask_recorder()
    spec = (tf.TensorSpec((None, 64)), tf.TensorSpec((None,)))
    functional = build_functional_model(
        model, lambda y_true, y_pred: -tf.reduce_sum(y_pred, axis=-1), input_spec=spec
    )
    sgd = tff.learning.optimizers.build_sgdm(1.0)
    process = tff.learning.algorithms.build_weighted_fed_avg(functional, sgd, sgd)
    data = tf.data.Dataset.from_tensor_slices((np.ones((num_steps, 64), "f"), np.ones(num_steps)))
    data = data.map(lambda x, y: (x, tf.cast(y, tf.float32))).batch(1)
    state = process.next(process.initialize(), [data]).state
    return process.get_model_weights(state).trainable[0]


def test_each_step_of_a_tff_round_has_a_mask_of_its_own():
    runtime.use("in_process")
    after = [np.ones(64), *(train_recorder(num_steps) for num_steps in (1, 2, 3))]
    masks = [np.diff(pair, axis=0)[0] / 2 for pair in itertools.pairwise(after)]
    for mask in masks:
        assert set(np.unique(mask)) == {0.0, 1.0}
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert 15 < (masks[first] == masks[second]).sum() < 49  # 32 of 64 expected by chance


def test_two_runs_are_bit_equal():
    runtime.use("in_process")
    np.testing.assert_array_equal(train_recorder(3), train_recorder(3))


def run_group_norm(layer, x, dtype="float32"):
    """Return the layer's output for `x`, and the gradients of a fixed sum of it by `x`, gamma and beta."""
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(1.0, 0.5, variable.shape))
    x = tf.cast(x, dtype)
    mix = tf.constant(rng.normal(size=x.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        total = tf.reduce_sum(mix * tf.cast(y, tf.float32))
    return y, tape.gradient(total, [x, *(v.value for v in layer.trainable_variables)])


@pytest.mark.parametrize("sides", [(), (1,), (5, 4), (3, 4, 2)])
@pytest.mark.parametrize("options", [{}, {"groups": 6}, {"groups": 1}, {"center": False}, {"scale": False}])
def test_group_normalization_is_that_of_keras(sides, options):
    options = {"groups": 3} | options
    # A mean far above the deviation: what a variance from squares alone would lose.
    x = np.random.default_rng(0).normal(30.0, 2.0, (3, *sides, 6)).astype(np.float32)
    own, expected = (
        run_group_norm(kind(**options), x) for kind in (GroupNormalization, keras.layers.GroupNormalization)
    )
    for one, other in zip(tf.nest.flatten(own), tf.nest.flatten(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


@pytest.mark.parametrize("policy", ["float16", "mixed_bfloat16", "float64"])
def test_group_normalization_keeps_the_dtype_of_keras(policy):
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 4, 6))
    dtype = keras.DTypePolicy(policy).compute_dtype
    own, expected = (
        run_group_norm(kind(3, dtype=policy), x, dtype)[0]
        for kind in (GroupNormalization, keras.layers.GroupNormalization)
    )
    assert own.dtype == expected.dtype == dtype
    np.testing.assert_allclose(tf.cast(own, "float64"), tf.cast(expected, "float64"), rtol=0.02, atol=0.02)


def test_group_normalization_takes_any_size_and_is_loaded(tmp_path):
    inputs = keras.Input((None, None, 6))
    model = keras.Model(inputs, GroupNormalization(2)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is GroupNormalization
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 6)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
