"""The training loop: steps by hand, what is chosen, when it stops, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from halves import make_halves
from sklearn.utils.class_weight import compute_class_weight

from fedutils import runs
from fedutils.centralized import compute_class_weights, predict_logits, train_central
from fedutils.data.pipeline import make_batches
from fedutils.epochs import train_epochs, use_mixed_precision
from fedutils.errors import InputError
from fedutils.models.layers import StatelessDropout
from fedutils.models.unet import build_unet

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_task(count, seed=0):
    return make_halves(count, seed, (8, 10))


def build_network():
    """Build a network with every kind of state: statistics, a counter of Keras's, and dropout without one."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 10, 1)),
            keras.layers.Conv2D(3, 3, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.7),
            StatelessDropout(0.2, seed=1),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.3, seed=2),
            keras.layers.Dense(2),
        ]
    )


def build_linear(bias=True):
    layers = [keras.Input((3,)), keras.layers.Dense(2, use_bias=bias, kernel_initializer="zeros")]
    return keras.Sequential(layers)


def repeat_batch(x, y, *more, steps=1):
    x = np.asarray(x, np.float32)
    return lambda epoch: tf.data.Dataset.from_tensors((x, np.asarray(y, np.int32), *more)).repeat(steps)


def train(model, batches, measure=lambda model: {"accuracy": 0.5}, **options):
    settings = {"loss": CROSS_ENTROPY, "num_epochs": 1, "learning_rate": 0.1, "weight_decay": 0.0}
    return train_epochs(model, batches, measure, **(settings | options))


def train_on_task(folder=None, num_epochs=4, measure=None, **options):
    training, validation, model = make_task(24), make_task(20, 9), build_network()

    def batches(epoch):
        return make_batches(*training, batch_size=5, seed=epoch, augment=True)

    measure = measure or (lambda network: score(network, validation))
    options = {"loss": CROSS_ENTROPY, "learning_rate": 0.05, "folder": folder, "patience": 50} | options
    return model, train_epochs(model, batches, measure, num_epochs=num_epochs, **options)


def score(model, data):
    """Measure without the seconds that Keras takes to trace its `predict`."""
    logits = model(data[0], training=False).numpy()
    return {
        "loss": float(CROSS_ENTROPY(data[1], logits)),
        "accuracy": (logits.argmax(axis=1) == data[1]).mean(),
    }


def read_all(model):
    return [v.numpy() for v in (*model.trainable_variables, *model.non_trainable_variables)]


def assert_equal(first, second):
    assert len(first) == len(second)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# ---- the steps


def test_the_learning_rate_warms_up_and_falls_along_the_cosine():
    # Adam's first steps with one gradient are as long as the learning rate: so they show it.
    model, lengths = build_linear(bias=False), []
    loss = keras.losses.MeanAbsoluteError()  # of constant gradient while predictions stay below the target
    before = np.zeros((3, 2))

    def measure(network):
        nonlocal before
        after = network.get_weights()[0]
        lengths.append(float(np.abs(after - before).mean()))
        before = after
        return {"accuracy": 0.0}

    target = np.full((4, 2), 1000, np.int32)
    train(model, repeat_batch(np.ones((4, 3)), target), measure, loss=loss, num_epochs=8, warmup_steps=3)
    # Step t: t/3 of .1 in the warm-up; then half of (1 + cos(pi (t - 3) / 5)) of it.
    cosine = [0.05 * (1 + np.cos(np.pi * t / 5)) for t in range(5)]
    assert lengths == pytest.approx([0, 0.1 / 3, 0.2 / 3, *cosine], abs=1e-5)


def test_a_step_is_adamw_by_hand():
    x, y = np.array([[1.0, 2, 0], [0, 1, 3]]), [0, 1]
    model = build_linear(bias=False)
    model.set_weights([np.full((3, 2), 2.0)])
    train(model, repeat_batch(x, y), num_epochs=1, learning_rate=0.1, weight_decay=0.25)
    # Both classes are as likely: d loss / d kernel = x^T (1/2 - onehot) / 2. Adam's first step has length 0.1
    # wherever the gradient is not 0, and the decay takes 0.1 * 0.25 of each weight.
    gradient = x.T @ np.array([[-0.5, 0.5], [0.5, -0.5]]) / 2
    expected = 2.0 - 0.1 * np.sign(gradient) - 0.1 * 0.25 * 2.0
    np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-5)


def test_the_gradients_norm_is_clipped():
    x, y = 100 * np.ones((4, 3)), [0, 0, 0, 1]
    model = build_linear()
    train(model, repeat_batch(x, y), clip_norm=1e-9)
    # A gradient of norm 1e-9 is below Adam's epsilon of 1e-7: the step is about a hundredth of the rate.
    assert 0 < np.abs(model.get_weights()[0]).max() < 0.0011
    free = build_linear()
    train(free, repeat_batch(x, y))
    assert np.abs(free.get_weights()[0]).max() == pytest.approx(0.1, rel=1e-3)


def test_class_weights_multiply_the_loss_of_a_class():
    x, y, model = np.eye(3), [0, 0, 1], build_linear()
    model.set_weights([np.zeros((3, 2)), np.array([1.0, 0])])
    run = train(model, repeat_batch(x, y), class_weights=[0.5, 4.0])
    right, wrong = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))
    by_hand = (0.5 * right * 2 + 4 * wrong) / 3
    assert run.history[0]["training_loss"] == pytest.approx(by_hand, rel=1e-6)
    weighted = build_linear()
    weighted.set_weights([np.zeros((3, 2)), np.array([1.0, 0])])
    other = train(weighted, repeat_batch(x, y, np.array([0.5, 0.5, 4], np.float32)))
    assert other.history[0]["training_loss"] == run.history[0]["training_loss"]
    assert_equal(weighted.get_weights(), model.get_weights())


def test_balanced_class_weights_are_scikit_learns():
    labels = np.array([2, 0, 0, 1, 0, 2, 0])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert compute_class_weights(labels, 3) == pytest.approx(expected)
    assert compute_class_weights(labels, 3)[labels].mean() == pytest.approx(1)
    with pytest.raises(InputError, match=r"each of 4 classes and no other, found \[4, 1, 2, 0\] images"):
        compute_class_weights(labels, 4)
    with pytest.raises(InputError, match="each of 2 classes and no other"):
        compute_class_weights(labels, 2)


def test_one_target_serves_all_outputs_each_with_its_weight():
    x, y = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 1, 1, 0, 1])
    inputs = keras.Input((3,))
    heads = [keras.layers.Dense(2, name=name)(inputs) for name in ("fine", "coarse", "unused")]
    model = keras.Model(inputs, heads)
    expected = [float(CROSS_ENTROPY(y, output)) for output in model(x)]
    before = model.get_weights()
    run = train(model, repeat_batch(x, y, steps=1), loss_weights=[1, 0.5, 0])
    losses = [run.history[0][f"training_{name}"] for name in ("loss", "fine_loss", "coarse_loss")]
    assert losses == pytest.approx([expected[0] + 0.5 * expected[1], *expected[:2]], rel=1e-5)
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert moved == [True, True, True, True, False, False]


def test_a_deeply_supervised_network_learns():
    x = np.random.default_rng(0).normal(size=(2, 8, 16, 2))
    model = build_unet((8, 16, 2), 1, depth=3, width=4, normalisation="none", deep_supervision=True, seed=1)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    options = {"loss": loss, "learning_rate": 0.02, "num_epochs": 2}
    history = train(model, repeat_batch(x, x[..., :1] > 0, steps=20), **options).history
    assert len(model.outputs) == 2
    assert history[1]["training_loss"] < 0.7 * history[0]["training_loss"]


def make_counted(steps):
    """Batches whose number TensorFlow does not know."""

    def read():
        for _ in range(steps):
            yield np.ones((1, 3), np.float32), np.zeros(1, np.int32)

    spec = (tf.TensorSpec((None, 3)), tf.TensorSpec((None,), tf.int32))
    return lambda epoch: tf.data.Dataset.from_generator(read, output_signature=spec)


def test_of_longer_data_the_first_steps_are_taken():
    model = build_linear()
    train(model, make_counted(10**9), steps_per_epoch=3, num_epochs=2)
    assert int(model.optimizer.iterations) == 6
    for data in (make_counted(2), repeat_batch(np.eye(3), [0, 1, 0], steps=2)):
        with pytest.raises(InputError, match=r"batches\(0\): expected 3 batches, found fewer; lower steps"):
            train(model, data, steps_per_epoch=3)


# ---- what is chosen, and when it stops


def sequence(values, key="accuracy"):
    values = iter(values)
    return lambda model: {key: next(values), "other": 7}


def test_the_best_epoch_is_kept_with_its_statistics_and_the_first_of_equals():
    states = []

    def measure(model):
        states.append(read_all(model))
        return {"dice": [0.1, 0.6, 0.4, 0.6][len(states) - 1]}

    model, run = train_on_task(num_epochs=4, measure=measure, choose_by="dice")
    assert run.best == 1 and run.planned == len(run.history) == 4
    assert_equal(read_all(model), states[1])
    assert_equal(run.weights, states[1])
    assert not np.array_equal(states[1][3], states[2][3]), "statistics move from epoch to epoch"


def test_a_minus_chooses_the_lowest_and_what_is_no_number_is_worst():
    losses = [np.nan, 0.5, 0.2, np.nan, 0.3]
    run = train(
        build_linear(),
        repeat_batch(np.eye(3), [0, 1, 0]),
        sequence(losses, "loss"),
        num_epochs=5,
        choose_by="-loss",
    )
    assert run.best == 2 and run.choose_by == "-loss"


def test_training_stops_when_validation_does_not_improve():
    scores = [0.5, 0.6, 0.6, 0.1, 0.9]
    options = {"num_epochs": 9, "patience": 2}
    run = train(build_linear(), repeat_batch(np.eye(3), [0, 1, 0]), sequence(scores), **options)
    assert (len(run.history), run.planned, run.best) == (4, 9, 1)
    patient = train(
        build_linear(),
        repeat_batch(np.eye(3), [0, 1, 0]),
        sequence([*scores, 0, 0, 0]),
        **(options | {"patience": 3}),
    )
    assert (len(patient.history), patient.best) == (8, 4)


def test_stopping_early_leaves_the_cosine_as_planned():
    def train_for(patience):
        states = []

        def measure(model):
            states.append(model.get_weights())
            return {"accuracy": -len(states)}  # never better than at first

        batches = repeat_batch(np.eye(3), [0, 1, 0])
        train(build_linear(), batches, measure, num_epochs=6, patience=patience)
        return states

    stopped, whole = train_for(3), train_for(None)
    assert (len(stopped), len(whole)) == (4, 6)
    for first, second in zip(stopped, whole, strict=False):
        assert_equal(first, second)


# ---- precision, and arrays


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    with use_mixed_precision():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    assert keras.config.dtype_policy().name == "float32"
    assert model.layers[0].compute_dtype == "bfloat16" and model(np.eye(3)).dtype == tf.bfloat16
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    run = train(model, repeat_batch(x, x[:, 0] > 0, steps=20), num_epochs=2, folder=tmp_path)
    assert {v.dtype for v in model.optimizer.variables} == {"float32", "int64"}
    assert all(w.dtype == np.float32 for w in runs.load_run(tmp_path / "run.npz", 2).weights)
    assert run.history[1]["training_loss"] < 0.3
    assert predict_logits(model, x).dtype == np.float32
    with pytest.raises(RuntimeError), use_mixed_precision():
        raise RuntimeError
    assert keras.config.dtype_policy().name == "float32"


def test_the_options_of_the_loop_reach_it_from_arrays():
    images = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    dense = keras.layers.Dense(2, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4, 1, 1)), keras.layers.Flatten(), dense])
    data, options = (images, np.array([0, 0, 0, 1], np.int32)), {"patience": 2, "choose_by": "-loss"}
    options |= {"num_epochs": 5, "batch_size": 8, "learning_rate": 1e-3, "augment": False}
    run = train_central(model, data, data, class_weights=[1e-9, 1], **options)
    # Only the last image counts in training: it gets likelier, and the three others, by the bias, less so.
    assert run.choose_by == "-loss" and run.history[0]["training_loss"] == pytest.approx(np.log(2) / 4)
    assert (len(run.history), run.best) == (3, 0)


# ---- what does not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, "num_epochs and steps_per_epoch: expected at least 1 each, found 0 steps"),
        ({"warmup_steps": 1}, "warmup_steps: expected 0 to 0, found 1; lower it, since 1 steps"),
        ({"patience": 0}, "patience: expected at least 1 epoch, found 0; raise it or leave it out"),
        ({"loss_weights": [1, 2]}, "loss_weights: expected 1, one for each output of .*, found 2"),
        ({"steps_per_epoch": 2}, r"batches\(0\): expected 2 batches, found fewer; lower steps"),
        ({"choose_by": "dice"}, "choose_by: expected one of accuracy, which measure gives.*found 'dice'"),
        (
            {"learning_rate": np.nan, "steps_per_epoch": None, "num_epochs": 2},
            "training loss of epoch 2: expected",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        train(build_linear(), repeat_batch(np.eye(3), [0, 1, 0]), **options)


def test_data_that_do_not_fit_are_refused():
    def endless(epoch):
        return repeat_batch(np.eye(3), [0, 1, 0])(epoch).repeat()

    with pytest.raises(
        InputError, match="steps_per_epoch: expected a number, since the data set has no batch"
    ):
        train(build_linear(), endless)
    with pytest.raises(
        InputError, match=r"class_weights: expected integer labels of shape \(B,\), found int32"
    ):
        train(build_linear(), repeat_batch(np.eye(3), np.eye(3, 2)), class_weights=[1, 2])
    model = build_unet((8, 16, 2), 3, depth=3, width=2, normalisation="none", deep_supervision=True)
    with pytest.raises(InputError, match="class_weights: expected a model of one output, found 2; leave"):
        train(model, repeat_batch(np.eye(3), [0, 1, 0]), class_weights=[1, 2])


def test_the_loop_ends_on_the_progress_bar_it_began(capsys):
    train(build_linear(), repeat_batch(np.eye(3), [0, 1, 0]), num_epochs=2, label="a run")
    assert "a run: 100%" in capsys.readouterr().err
