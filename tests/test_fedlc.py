"""FedLC: equal to FedAvg at strength 0, to hand-made arithmetic at others, and unmoved by mixtures alone."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.errors import InputError
from fedutils.fedlc import compute_shift, count_classes, put_mixture
from fedutils.keras_tff import build_functional_model

RATE = 0.5
LABELS = [[0, 0, 0, 0, 0, 0, 1], [1, 2, 2]]  # of two clients; nothing in their images tells them apart


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


@functools.cache
def build_blind():
    """Make a classifier of three classes that knows them by its bias alone, from zero."""
    dense = keras.layers.Dense(3, kernel_initializer="zeros")
    return keras.Sequential([keras.Input((2,)), dense])


@functools.cache
def build(algorithm, strength=1.0, weighted=True, decay_rounds=None):
    spec = (tf.TensorSpec((None, 2)), tf.TensorSpec((None,), tf.int32))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return build_process(
        build_functional_model(build_blind(), loss, input_spec=spec),
        algorithm=algorithm,
        client_optimizer="sgd",
        client_learning_rate=RATE,
        calibration_strength=strength,
        weighted=weighted,
        decay_rounds=decay_rounds,
    )


def make_client(labels, batch_size=100):
    x = np.zeros((len(labels), 2), np.float32)
    return tf.data.Dataset.from_tensor_slices((x, np.asarray(labels, np.int32))).batch(batch_size)


def run(process, data, num_rounds=1):
    state = process.initialize()
    for _ in range(num_rounds):
        output = process.next(state, data)
        state = output.state
    return np.asarray(process.get_model_weights(state).trainable[1]), output.metrics


def step(bias, labels, strength, rate=RATE):
    """Take the one step of a client by hand."""
    counts = np.bincount(labels, minlength=3)
    shares = (counts + 1) / (counts + 1).sum()
    odds = np.exp(bias) * shares**strength
    return bias - rate * (odds / odds.sum() - counts / counts.sum())


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_two_rounds_are_the_arithmetic_of_a_shifted_softmax(strength, weighted):
    bias = np.zeros(3)
    for _ in range(2):
        bias = np.average(
            [step(bias, labels, strength) for labels in LABELS], axis=0, weights=[7, 3] if weighted else None
        )
    found, _ = run(build("fedlc", strength, weighted), [make_client(labels) for labels in LABELS], 2)
    np.testing.assert_allclose(found, bias, atol=1e-6)


def test_the_rate_falls_along_a_cosine_to_zero():
    bias, data = np.zeros(3), [make_client(labels) for labels in LABELS]
    for rate in (RATE, RATE / 2):
        bias = np.average([step(bias, labels, 1.0, rate) for labels in LABELS], axis=0, weights=[7, 3])
    two, three = (run(build("fedlc", decay_rounds=2), data, n)[0] for n in (2, 3))
    np.testing.assert_allclose(two, bias, atol=1e-6)
    np.testing.assert_array_equal(two, three)


def test_without_a_shift_it_is_fedavg():
    data = [make_client(labels, batch_size=2) for labels in LABELS]
    found, metrics = run(build("fedlc", 0.0), data, 2)
    expected, known = run(build("fedavg"), data, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    ours, tffs = (m["client_work"]["train"] for m in (metrics, known))
    assert ours["loss"] == pytest.approx(tffs["loss"], rel=1e-5) and ours["num_examples"] == 10
    assert np.abs(found).max() > 0.1


def test_what_a_mixture_alone_would_teach_is_not_learnt():
    # One of a thousand images more of each class, by which the shift is smoothed, is all that is left.
    data = [make_client([0] * 900 + [1] * 90 + [2] * 10, 1000), make_client([2] * 990 + [1] * 10, 1000)]
    found, _ = run(build("fedlc"), data, 3)
    taught, _ = run(build("fedavg"), data, 3)
    assert np.abs(found).max() < 0.005 < 0.1 < np.abs(taught).max()


def test_classes_are_counted_over_all_batches_and_smoothed():
    counts = count_classes(make_client([2, 0, 2, 2, 2, 0, 2], 2), 4)
    assert counts.numpy().tolist() == [2, 0, 5, 0]
    mapped = make_client([1, 1], 1).map(lambda x, y: {"x": x, "y": y})
    assert count_classes(mapped, 2).numpy().tolist() == [0, 2]
    np.testing.assert_allclose(np.exp(compute_shift(counts)), [3 / 11, 1 / 11, 6 / 11, 1 / 11], rtol=1e-6)


def test_a_mixture_is_put_in_by_bayes_rule():
    model, images = build_blind(), np.zeros((1, 2), np.float32)
    before = model.get_weights()
    put_mixture(model, np.array([0, 2, 5]), 1.0)
    found = np.asarray(keras.ops.softmax(model(images)))[0]
    model.set_weights(before)
    np.testing.assert_allclose(found, [0.1, 0.3, 0.6], rtol=1e-5)
    with pytest.raises(InputError, match=r"a bias of 2 classes, found the shape \(3,\)"):
        put_mixture(model, np.array([1, 2]), 1.0)


def test_a_client_without_images_changes_nothing():
    first, _ = run(build("fedlc"), [make_client(LABELS[0])])
    second, _ = run(build("fedlc"), [make_client(LABELS[0]), make_client([])])
    np.testing.assert_array_equal(first, second)


def test_a_model_of_another_kind_is_refused():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 1)])
    spec = (tf.TensorSpec((None, 4, 4, 1)), tf.TensorSpec((None, 4, 4), tf.int32))
    outlines = build_functional_model(
        model, keras.losses.SparseCategoricalCrossentropy(from_logits=True), input_spec=spec
    )
    with pytest.raises(InputError, match=r"logits of shape \(batch, classes\), found the shape"):
        build_process(outlines, algorithm="fedlc")
    spec = (tf.TensorSpec((None, 2)), tf.TensorSpec((None, 3)))
    numbers = build_functional_model(build_blind(), keras.losses.MeanSquaredError(), input_spec=spec)
    with pytest.raises(InputError, match="expected labels that are whole numbers, found float32"):
        build_process(numbers, algorithm="fedlc")
