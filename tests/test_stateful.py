"""Clients that keep something: who takes part, what is saved, both runtimes, every algorithm's schedule."""

import functools

import keras
import numpy as np
import pytest
from quadratics import START, build_parabola, make_client, run_rounds, walk, weight_of
from what_runs import Runtimes, assert_same

from fedutils import runtime
from fedutils.algorithms import ALGORITHMS, build_process
from fedutils.errors import InputError
from fedutils.federated import train_federated
from fedutils.tff import tff  # before the import below, which it prepares

# isort: split
import tensorflow as tf

RATE = 0.1
CLIENTS = [(1.0, 2.0, 3, 3), (3.0, -1.0, 2, 1), (0.5, 1.0, 4, 2)]  # curvature, optimum, steps, batch size
DATA = [make_client(*client) for client in CLIENTS]


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


class Parabolas:
    num_clients = 3

    def batches(self, client, round_number):
        return DATA[client]


def build_model():
    start = keras.initializers.Constant(START)
    return keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer=start)]
    )


@functools.cache
def build(algorithm, **options):
    return build_process(
        build_parabola(),
        algorithm=algorithm,
        client_optimizer="sgd",
        client_learning_rate=RATE,
        num_clients=3,
        **options,
    )


def measure(model):
    """Measure the distance from 1, as a loss, and its negative."""
    distance = abs(float(np.squeeze(model.trainable_variables[0])) - 1)
    return {"loss": distance, "score": -distance}


def train(algorithm, num_rounds, folder=None, validation=measure, model=None, **options):
    process = algorithm if not isinstance(algorithm, str) else build(algorithm)
    options = {"choose_by": "-loss", **options}
    model = model or build_model()
    return train_federated(
        process, model, Parabolas(), validation, num_rounds=num_rounds, folder=folder, **options
    )


def read(model):
    return float(np.squeeze(model.trainable_variables[0]))


# ---- states


def test_only_the_states_of_those_that_take_part_change():
    process = build("scaffold")
    before, _ = run_rounds(process, DATA, 1)
    after, metrics = run_rounds(process, DATA, 1, chosen=[0, 2])
    assert np.squeeze(after.clients[1][0]) == 0 != np.squeeze(before.clients[1][0])
    assert_same(after.clients[0], before.clients[0])
    assert metrics["client_work"]["train"]["per_client"]["num_examples"].tolist() == [9, 8]


def test_a_client_trains_once_a_round_though_its_state_is_handed_back():
    reads = []

    def count():
        reads.append(1)
        yield np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)

    spec = DATA[0].element_spec
    data = tf.data.Dataset.from_generator(count, output_signature=spec)
    run_rounds(build("scaffold"), [DATA[0], data, DATA[2]], 2)
    assert len(reads) == 2


@pytest.mark.parametrize("algorithm", ["fednova", "scaffold"])
def test_both_runtimes_agree(algorithm, request):
    both = request.getfixturevalue("both")
    process = build(algorithm)
    both.equal(lambda: tf.nest.flatten(run_rounds(process, DATA, 2, chosen=[0, 2])))


@pytest.fixture(scope="module")
def both():
    yield Runtimes()
    runtime.use("in_process")


# ---- the driver


def test_a_run_that_is_stopped_goes_on_with_the_states_of_its_clients(tmp_path):
    whole = build_model()
    expected = train("scaffold", 5, tmp_path / "whole", model=whole, clients_per_round=2, seed=1)
    assert len({tuple(entry["clients"]) for entry in expected.history}) > 1
    train("scaffold", 2, tmp_path / "parts", clients_per_round=2, seed=1)  # as if killed after round 2
    resumed = build_model()
    run = train("scaffold", 5, tmp_path / "parts", model=resumed, clients_per_round=2, seed=1)
    for key in ("clients", "validation_loss", "training_loss"):
        assert run.curve(key).tolist() == expected.curve(key).tolist()
    assert read(resumed) == read(whole)


def test_the_caller_may_choose_who_takes_part_from_the_run_so_far(tmp_path):
    def choose(round_number, run):
        assert len(run.history) == round_number
        return [round_number % 3] if round_number < 2 else [0, *run.history[-1]["clients"]]

    run = train("fedavg", 3, tmp_path, participants=choose)
    assert [entry["clients"] for entry in run.history] == [[0], [1], [0, 1]]
    assert [len(entry["client_loss"]) for entry in run.history] == [1, 1, 2]
    again = train("fedavg", 4, tmp_path, participants=lambda r, run: [2])
    assert [entry["clients"] for entry in again.history] == [[0], [1], [0, 1], [2]]


@pytest.mark.parametrize("chosen", [[], [1, 0], [0, 0], [0, 3], [-1]])
def test_who_takes_part_must_be_clients_in_order(chosen):
    with pytest.raises(InputError, match=r"participants\(0\): expected one or more of the clients 0 to 2"):
        train("fedavg", 1, participants=lambda r, run: chosen)


@pytest.mark.parametrize("choose_by", ["-loss", "score"])
def test_the_best_round_may_be_that_of_the_lowest_loss(choose_by):
    scores = iter([3.0, 1.0, 2.0])
    seen = []

    def measure(model):
        loss = next(scores)
        seen.append(read(model))
        return {"loss": loss, "score": -loss}

    model = build_model()
    run = train("fedavg", 3, validation=measure, model=model, choose_by=choose_by)
    assert run.best == 1 and read(model) == seen[1]


def test_each_client_may_have_its_own_validation():
    parts = [lambda model, k=k: {"loss": k + abs(read(model))} for k in range(3)]
    run = train("fedavg", 1, validation=parts)
    (entry,) = run.history
    assert np.diff(entry["each_validation_loss"]) == pytest.approx([1, 1])
    assert entry["validation_loss"] == pytest.approx(np.mean(entry["each_validation_loss"]))
    with pytest.raises(InputError, match="expected a list of 3, one entry a client, found 2"):
        train("fedavg", 1, validation=parts[:2])


# ---- schedules


@pytest.mark.parametrize(
    ("algorithm", "weighted"),
    [
        # fedlc is for classes: tests/test_fedlc.py
        *((name, True) for name in ALGORITHMS if name not in ("fedsgd", "fedbn", "fedlc")),
        ("fedavg", False),
        ("mimelite", False),
        ("fedprox", False),
    ],
)
def test_every_algorithm_begins_with_a_gradient_step_and_ends_at_rate_zero(algorithm, weighted):
    options = {"at_home": ()} if algorithm == "fedper" else {}
    process = build(algorithm, weighted=weighted, decay_rounds=2, **options)
    data = [make_client(h, t, 1, size) for h, t, _, size in CLIENTS]  # one step each
    one, two, three = (weight_of(process, run_rounds(process, data, n)[0]) for n in (1, 2, 3))
    shares = [3, 1, 2] if weighted else [1, 1, 1]

    def step(weight, rate):
        return np.average([walk(weight, rate, h, t, 1) for h, t, _, _ in CLIENTS], weights=shares)

    assert one == pytest.approx(step(START, RATE), abs=1e-6)
    if algorithm != "scaffold":
        assert two == pytest.approx(step(one, RATE / 2), abs=1e-6)  # half-way along the cosine
    assert abs(two - one) > 1e-3
    assert three == two


def walk_all(pull):
    """Return the mean of all clients' weights after a round of FedProx by hand."""
    ends = [walk(START, RATE, h, t, k, pull=pull, anchor=START) for h, t, k, _ in CLIENTS]
    return np.average(ends, weights=[9, 2, 8])


def test_fedprox_pulls_clients_towards_the_global_model():
    process = build("fedprox", proximal_strength=0.7, decay_rounds=5)
    found = weight_of(process, run_rounds(process, DATA, 1)[0])
    assert found == pytest.approx(walk_all(0.7), abs=1e-6)
    assert abs(found - START) < abs(walk_all(0.0) - START) - 0.01


def test_fedprox_of_tff_pushes_them_away():
    # If this fails, TFF has mended its sign, and fedutils.fedprox may say so.
    sgd = tff.learning.optimizers.build_sgdm
    process = tff.learning.algorithms.build_weighted_fed_prox(build_parabola(), 0.7, sgd(RATE))
    assert weight_of(process, run_rounds(process, DATA, 1)[0]) == pytest.approx(walk_all(-0.7), abs=1e-6)


def test_fedprox_without_a_pull_is_fedavg():
    first, second = build("fedprox", proximal_strength=0.0), build("fedavg")
    found = weight_of(first, run_rounds(first, DATA, 2)[0])
    assert found == pytest.approx(weight_of(second, run_rounds(second, DATA, 2)[0]), abs=1e-6)


def test_a_schedule_needs_clients_that_step_and_an_optimizer_by_name():
    for options in ({"algorithm": "fedsgd"}, {"client_optimizer": tff.learning.optimizers.build_sgdm(0.1)}):
        with pytest.raises(InputError, match="decay_rounds: expected a client optimizer given by name"):
            build_process(build_parabola(), decay_rounds=3, **options)
