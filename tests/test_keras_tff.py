import numpy as np
import pytest

from fedutils import runtime
from fedutils.errors import InputError
from fedutils.keras_tff import assign_weights, build_functional_model
from fedutils.models.layers import StatelessDropout
from fedutils.tff import tff

# isort: split
import keras
import tensorflow as tf

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SPEC = (tf.TensorSpec((None, 7, 8, 1)), tf.TensorSpec((None,), tf.int32))


@pytest.fixture(autouse=True)
def in_process():
    runtime.use("in_process")


def build_model(*extra):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((7, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            *extra,
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


def make_client(size, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 7, 8, 1)).astype(np.float32)
    return x, rng.integers(0, 3, size).astype(np.int32)


def make_dataset(client, batch_size=4):
    return tf.data.Dataset.from_tensor_slices(client).batch(batch_size)


def build_accuracy():
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def build_process(model, metrics=(build_accuracy,), learning_rate=0.1):
    functional = build_functional_model(model, LOSS, metrics, input_spec=SPEC)
    optimizers = tff.learning.optimizers
    return tff.learning.algorithms.build_weighted_fed_avg(
        functional, optimizers.build_sgdm(learning_rate), optimizers.build_sgdm(1.0)
    )


def test_a_round_with_one_client_is_a_keras_epoch():
    client = make_client(10)
    model = build_model(layers.GroupNormalization(2))
    before = model.get_weights()
    process = build_process(model)
    output = process.next(process.initialize(), [make_dataset(client)])
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)  # the model itself is left alone

    model.compile(keras.optimizers.SGD(0.1), LOSS, metrics=[build_accuracy()])
    history = model.fit(*client, batch_size=4, shuffle=False, verbose=0).history
    for found, expected in zip(
        process.get_model_weights(output.state).trainable, model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    trained = output.metrics["client_work"]["train"]
    assert list(trained) == ["loss", "num_examples", "accuracy"]
    np.testing.assert_allclose(trained["loss"], history["loss"][0], rtol=1e-5)
    np.testing.assert_allclose(trained["accuracy"], history["accuracy"][0], rtol=1e-6)
    assert trained["num_examples"] == 10


def test_metrics_are_summed_over_clients():
    clients = [make_client(size, seed) for seed, size in enumerate((5, 9, 1))]
    model = build_model()
    process = build_process(model, learning_rate=0.0)
    state = process.initialize()
    metrics = process.next(state, [make_dataset(c) for c in clients]).metrics
    x, y = (np.concatenate(parts) for parts in zip(*clients, strict=True))
    logits = model(x).numpy()
    trained = metrics["client_work"]["train"]
    np.testing.assert_allclose(trained["accuracy"], np.mean(logits.argmax(1) == y), rtol=1e-6)
    np.testing.assert_allclose(trained["loss"], LOSS(y, logits), rtol=1e-5)
    assert trained["num_examples"] == 15


def test_auc_over_clients_is_the_auc_of_all():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    y = (x[:, :1] + rng.normal(size=(40, 1)) > 0).astype(np.float32)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="sigmoid")])
    functional = build_functional_model(
        model,
        keras.losses.BinaryCrossentropy(),
        [lambda: keras.metrics.AUC(name="auc")],
        input_spec=(tf.TensorSpec((None, 6)), tf.TensorSpec((None, 1))),
    )
    evaluation = tff.learning.algorithms.build_fed_eval(functional)
    clients = [make_dataset((x[a:b], y[a:b])) for a, b in ((0, 7), (7, 40))]
    output = evaluation.next(evaluation.initialize(), clients)
    expected = keras.metrics.AUC()
    expected.update_state(y, model(x))
    measured = output.metrics["client_work"]["eval"]["current_round_metrics"]
    np.testing.assert_allclose(measured["auc"], expected.result(), rtol=1e-6)


def test_no_examples_give_nan():
    process = build_process(build_model())
    empty = make_dataset(make_client(2)).take(0)
    output = process.next(process.initialize(), [empty])
    trained = output.metrics["client_work"]["train"]
    assert np.isnan(trained["loss"])
    assert trained["num_examples"] == 0


def per_example(y_true, y_pred):
    return (y_true - y_pred) ** 2


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.MeanSquaredError(),
        keras.losses.MeanSquaredError(reduction=None),
        lambda y_true, y_pred: tf.reduce_mean(per_example(y_true, y_pred), axis=-1),
        per_example,
    ],
    ids=["keras", "keras unreduced", "per example", "per element"],
)
def test_loss_and_sample_weights(loss):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False)])
    spec = (tf.TensorSpec((None, 2)), tf.TensorSpec((None, 2)))
    functional = build_functional_model(model, loss, input_spec=spec)
    label = tf.zeros((2, 2))
    output = tf.constant([[1.0, 3.0], [2.0, 4.0]])
    # examples: (1 + 9) / 2 = 5 and (4 + 16) / 2 = 10
    np.testing.assert_allclose(functional.loss(output, label), 7.5)
    weighted = functional.loss(output, label, tf.constant([3.0, 0.5]))
    np.testing.assert_allclose(weighted, (3 * 5 + 0.5 * 10) / 2)


def test_sample_weights_need_a_loss_for_each_example():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    functional = build_functional_model(
        model,
        lambda y_true, y_pred: tf.reduce_mean(y_pred),
        input_spec=(tf.TensorSpec((None, 2)), tf.TensorSpec((None, 2))),
    )
    with pytest.raises(InputError, match="expected a loss for each example"):
        functional.loss(tf.zeros((3, 2)), tf.zeros((3, 2)), tf.ones(3))


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        (layers.BatchNormalization(name="bn"), r"moving_mean of layer 'bn' \(BatchNormalization\)"),
        (layers.Dropout(0.5, name="drop"), r"seed_generator_state of layer 'drop' \(Dropout\)"),
        (layers.RandomFlip(name="flip"), r"of layer 'flip' \(RandomFlip\)"),
    ],
)
def test_updating_state_is_refused(layer, found):
    with pytest.raises(InputError, match=found) as error:
        build_functional_model(build_model(layer), LOSS, input_spec=SPEC)
    assert "GroupNormalization" in str(error.value)
    assert "StatelessDropout" in str(error.value)
    assert "\n" not in str(error.value)


def test_updating_state_in_a_nested_model_is_refused():
    inner = keras.Sequential([keras.Input((5, 6, 4)), layers.BatchNormalization(name="deep")])
    with pytest.raises(InputError, match="'deep'"):
        build_functional_model(build_model(inner), LOSS, input_spec=SPEC)


@pytest.mark.parametrize(
    "layer",
    [
        layers.GroupNormalization(2),
        layers.LayerNormalization(),
        StatelessDropout(0.5),
        layers.BatchNormalization(trainable=False),  # frozen constants pass
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_constant_state_is_accepted(layer):
    process = build_process(build_model(layer))
    output = process.next(process.initialize(), [make_dataset(make_client(5))])
    assert np.isfinite(output.metrics["client_work"]["train"]["loss"])


def test_regularizers_are_refused():
    dense = layers.Conv2D(4, 1, kernel_regularizer="l2")
    with pytest.raises(InputError, match=r"expected no losses added by layers.*found 1"):
        build_functional_model(build_model(dense), LOSS, input_spec=SPEC)


def test_other_wrong_inputs_are_refused():
    def build(model=None, loss=LOSS, metrics=()):
        model = build_model() if model is None else model
        return build_functional_model(model, loss, metrics, input_spec=SPEC)

    class Maximum(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="maximum")
            self.value = self.add_weight(name="value", initializer="ones")

    with pytest.raises(InputError, match="expected a built model"):
        build(model=keras.Sequential([layers.Dense(3)]))
    with pytest.raises(InputError, match="found reduction='sum'"):
        build(loss=keras.losses.MeanSquaredError(reduction="sum"))
    with pytest.raises(InputError, match="expected different names"):
        build(metrics=[build_accuracy, build_accuracy])
    with pytest.raises(InputError, match="'maximum': expected a state that begins at zero"):
        build(metrics=[Maximum])


def test_weights_come_back_in_order():
    model = build_model(layers.GroupNormalization(2), layers.BatchNormalization(trainable=False))
    process = build_process(model)
    state = process.next(process.initialize(), [make_dataset(make_client(5))]).state
    weights = process.get_model_weights(state)
    assign_weights(model, weights)
    for variable, value in zip(model.trainable_variables, weights.trainable, strict=True):
        np.testing.assert_array_equal(variable, value)
    # the trained model is the initial one of a process built from it
    again = build_process(model)
    restored = again.get_model_weights(again.initialize())
    for value, expected in zip(restored.trainable, weights.trainable, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_wrong_weights_are_refused_and_leave_the_model_as_it_was():
    model = build_model()
    before = model.get_weights()
    with pytest.raises(InputError, match="expected 4 trainable and 0 others, found 3 and 0"):
        assign_weights(model, (before[:3], []))
    wrong = [w + 1 for w in before[:3]] + [np.zeros(4, np.float32)]
    with pytest.raises(InputError, match=r"expected shape \(3,\), found \(4,\)"):
        assign_weights(model, (wrong, []))
    for found, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_random_seeds_do_not_matter():
    def train(seed):
        model = build_model(StatelessDropout(0.5))
        keras.utils.set_random_seed(seed)
        process = build_process(model)
        output = process.next(process.initialize(), [make_dataset(make_client(9))])
        return process.get_model_weights(output.state).trainable

    for first, second in zip(train(1), train(2), strict=True):
        np.testing.assert_array_equal(first, second)
