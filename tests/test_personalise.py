"""Personalisation: what stays at home never leaves it, and the limits of each method are known ones."""

import functools

import keras
import numpy as np
import pytest
from halves import make_halves
from quadratics import START, build_parabola, make_client, run_rounds, walk, weight_of

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.centralized import evaluate, set_weights
from fedutils.client_models import split_weights
from fedutils.errors import InputError
from fedutils.federated import ArrayClients, train_federated
from fedutils.models.classification import build_separable_cnn
from fedutils.personalise import fine_tune, select_head, select_normalisation
from fedutils.stateful import advance, begin_rounds, get_client_weights, get_global_weights
from fedutils.tff import tff

RATE = 0.1
CLIENTS = [(1.0, 2.0, 3), (3.0, -1.0, 5)]  # curvature, optimum, steps
DATA = [make_client(*client) for client in CLIENTS]


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


def make_task(count, seed):
    return make_halves(count, seed, (4, 6))


TASKS = [make_task(n, n) for n in (10, 16, 7)]


@functools.cache
def build_start():
    keras.utils.set_random_seed(3)
    layers = [keras.Input((4, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    layers += [keras.layers.LayerNormalization(), keras.layers.Dense(2)]
    return keras.Sequential(layers)


def build_model():
    model = keras.models.clone_model(build_start())
    model.set_weights(build_start().get_weights())
    return model


@functools.cache
def build(algorithm):
    return build_process(build_model(), algorithm=algorithm, client_optimizer="sgd", client_learning_rate=0.3)


def make_clients():
    return ArrayClients(TASKS, batch_size=4, augment=False, seed=5)


def begin(process):
    weights = tuple(np.asarray(v) for v in build_model().trainable_variables)
    return begin_rounds(process, tff.learning.models.ModelWeights(weights, ()), 3)


# ---- what is chosen


def test_the_head_is_the_last_layers_that_have_weights():
    model = build_separable_cnn((20, 24, 1), 3, widths=(8, 16))
    paths = [variable.path for variable in model.trainable_variables]
    names = [paths[i].split("/") for i in select_head(model)]
    assert {name[0] for name in names} == {model.layers[-1].name}
    assert [name[-1] for name in names] == ["kernel", "bias"]
    assert set(select_head(model)) < set(select_head(model, 2))
    assert select_head(build_model(), 3) == tuple(range(6))
    with pytest.raises(InputError, match="num_layers: expected 1 to 3"):
        select_head(build_model(), 4)


def test_normalisation_is_scale_and_offset_of_its_layers():
    model = build_separable_cnn((20, 24, 1), 3, widths=(8, 16))
    layers = [layer for layer in model.layers if "Normalization" in type(layer).__name__]
    expected = {id(v) for layer in layers for v in layer.trainable_variables}
    chosen = {id(model.trainable_variables[i]) for i in select_normalisation(model)}
    assert chosen == expected and len(chosen) == 2 * len(layers) > 0
    with pytest.raises(InputError, match="expected normalisation layers"):
        select_normalisation(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))


# ---- parts that stay at home


@pytest.mark.parametrize(("algorithm", "home"), [("fedper", {4, 5}), ("fedbn", {2, 3})])
def test_what_stays_at_home_moves_there_and_nowhere_else(algorithm, home):
    process, clients = build(algorithm), make_clients()
    before = begin(process)
    after, _ = advance(process, before, [0, 2], [clients.batches(k, 0) for k in (0, 2)])
    start, end = (get_global_weights(process, state).trainable for state in (before, after))
    own = [get_client_weights(process, after, k).trainable for k in range(3)]
    for i in range(6):
        if i in home:
            assert np.array_equal(start[i], end[i])  # the server's copy stays as it began
            assert np.array_equal(own[1][i], start[i])  # and that of a client which took no part
            assert not np.array_equal(own[0][i], start[i]) and not np.array_equal(own[0][i], own[2][i])
        else:
            assert not np.array_equal(start[i], end[i])
            assert all(np.array_equal(own[k][i], end[i]) for k in range(3))


def test_what_stays_at_home_never_reaches_the_server():
    seen = []

    class Spy(tff.aggregators.WeightedAggregationFactory):
        def create(self, value_type, weight_type):
            seen.extend(tuple(part.shape) for part in value_type)
            return tff.aggregators.MeanFactory().create(value_type, weight_type)

    build_process(build_model(), algorithm="fedper", aggregator=Spy())
    shapes = [tuple(v.shape) for v in build_model().trainable_variables]
    assert seen == shapes[:4]  # of six


def test_with_nothing_at_home_it_is_fedavg():
    options = {"client_optimizer": "sgd", "client_learning_rate": RATE}
    partial = build_process(build_parabola(), algorithm="fedper", at_home=(), **options)
    average = build_process(build_parabola(), **options)
    state, other = (run_rounds(process, DATA, 2)[0] for process in (partial, average))
    assert weight_of(partial, state) == pytest.approx(weight_of(average, other), abs=1e-7)


@pytest.mark.parametrize("at_home", [None, (0,), (1,), (-1,)])
def test_what_cannot_stay_at_home_is_refused(at_home):
    with pytest.raises(InputError, match="at_home: expected positions in 0 to 0, and not all"):
        build_process(build_parabola(), algorithm="fedper", at_home=at_home)


def test_a_run_keeps_the_models_of_its_best_round(tmp_path):
    model = build_model()
    validation = [make_task(20, 100 + k) for k in range(3)]
    run = train_federated(
        build("fedper"), model, make_clients(), validation, num_rounds=3, choose_by="-loss", folder=tmp_path
    )
    shared, own = split_weights(run, model)
    assert len(own) == 3 and all(
        np.array_equal(a, b) for a, b in zip(shared, model.get_weights(), strict=True)
    )
    for weights, part, loss in zip(
        own, validation, run.history[run.best]["each_validation_loss"], strict=True
    ):
        set_weights(model, weights)
        assert evaluate(model, part)["loss"] == pytest.approx(loss, rel=1e-6)
    again = train_federated(
        build("fedper"),
        build_model(),
        make_clients(),
        validation,
        num_rounds=3,
        choose_by="-loss",
        folder=tmp_path,
    )
    assert all(np.array_equal(a, b) for a, b in zip(again.weights, run.weights, strict=True))


def test_a_process_with_models_of_the_clients_needs_their_validation():
    with pytest.raises(InputError, match="expected a list with one entry a client"):
        train_federated(build("fedper"), build_model(), make_clients(), TASKS[0], num_rounds=1)


# ---- Ditto


def run_ditto(strength, num_rounds=2):
    process = build_process(
        build_parabola(),
        algorithm="ditto",
        client_optimizer="sgd",
        client_learning_rate=RATE,
        proximal_strength=strength,
    )
    state = run_rounds(process, DATA, num_rounds)[0]
    own = [float(np.squeeze(get_client_weights(process, state, k).trainable[0])) for k in range(2)]
    return weight_of(process, state), np.array(own)


def test_ditto_goes_from_training_alone_to_the_global_model():
    alone = [walk(START, RATE, h, t, 2 * k) for h, t, k in CLIENTS]
    shares = [3, 5]
    first = np.average([walk(START, RATE, h, t, k) for h, t, k in CLIENTS], weights=shares)
    second = np.average([walk(first, RATE, h, t, k) for h, t, k in CLIENTS], weights=shares)
    distances = []
    for strength in (0.0, 7.0):
        common, own = run_ditto(strength)
        assert common == pytest.approx(second, abs=1e-5)  # whatever the pull, the global model is FedAvg's
        expected = []
        for h, t, k in CLIENTS:
            middle = walk(START, RATE, h, t, k, pull=strength, anchor=START)
            expected.append(walk(middle, RATE, h, t, k, pull=strength, anchor=first))
        np.testing.assert_allclose(own, expected, atol=1e-5)
        if not strength:
            np.testing.assert_allclose(own, alone, atol=1e-5)
        distances.append(np.abs(own - first).max())
    assert distances[0] > 4 * distances[1]


# ---- fine-tuning


def test_no_epoch_of_fine_tuning_returns_the_global_model():
    model = build_model()
    run = fine_tune(model, TASKS[0], TASKS[1], num_epochs=0)
    assert all(
        np.array_equal(a, b) for a, b in zip(model.get_weights(), build_start().get_weights(), strict=True)
    )
    assert [entry["epoch"] for entry in run.history] == [0] and run.best == 0


def test_fine_tuning_keeps_the_best_epoch_and_the_global_model_is_one_of_them():
    options = {"num_epochs": 3, "batch_size": 4, "augment": False, "choose_by": "-loss"}
    model = build_model()
    run = fine_tune(model, TASKS[1], make_task(30, 9), learning_rate=0.03, **options)
    losses = run.curve("validation_loss")
    assert run.best == losses.argmin() > 0 and len(losses) == 4
    assert evaluate(model, make_task(30, 9))["loss"] == pytest.approx(losses.min(), rel=1e-6)
    x, y = TASKS[1]
    tuned = model.get_weights()
    worse = fine_tune(model, (x, 1 - y), make_task(30, 9), learning_rate=0.3, **options)  # wrong labels
    assert worse.best == 0
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), tuned, strict=True))
