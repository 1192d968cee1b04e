"""SCAFFOLD: FedAvg in its first round and on equal clients, and the optimum where FedAvg misses it."""

import functools

import numpy as np
import pytest
from quadratics import START, build_parabola, make_client, run_rounds, walk, weight_of

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.errors import InputError
from fedutils.stateful import advance, begin_rounds
from fedutils.tff import tff

RATE = 0.1
CLIENTS = [(1.0, 2.0, 5, 3), (3.0, -1.0, 4, 1), (0.5, 1.0, 7, 2)]  # curvature, optimum, steps, batch size
DATA = [make_client(*client) for client in CLIENTS]
SIZES = np.array([15, 4, 14])
LOST = make_client(float("nan"), 0.0, 4)  # as many examples as the second client; no step of it is finite


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


@functools.cache
def build(algorithm, weighted=True, num_clients=3):
    return build_process(
        build_parabola(),
        algorithm=algorithm,
        client_optimizer="sgd",
        client_learning_rate=RATE,
        weighted=weighted,
        num_clients=num_clients,
    )


def read_variates(state):
    """Return the server's control variate, and the clients'."""
    common = float(np.squeeze(state.server.client_work[1][0]))
    return common, np.array([float(np.squeeze(client[0])) for client in state.clients])


def follow(process, rounds):
    """Run rounds, each a dict from the clients that take part to their batches; return all states."""
    weights = tff.learning.models.ModelWeights((np.full((1, 1), START, np.float32),), ())
    states = [begin_rounds(process, weights, len(DATA))]
    for batches in rounds:
        states.append(advance(process, states[-1], list(batches), list(batches.values()))[0])
    return states


def test_its_first_round_is_that_of_fedavg():
    scaffold, average = build("scaffold"), build("fedavg")
    first = run_rounds(scaffold, DATA, 1)[0]
    assert weight_of(scaffold, first) == weight_of(average, run_rounds(average, DATA, 1)[0]) != START


def test_on_equal_clients_it_is_fedavg():
    data = [make_client(1.5, 2.0, 4, 2)] * 3
    scaffold, average = build("scaffold"), build("fedavg")
    state = run_rounds(scaffold, data, 3)[0]
    assert weight_of(scaffold, state) == pytest.approx(
        weight_of(average, run_rounds(average, data, 3)[0]), abs=1e-6
    )
    assert np.abs(read_variates(state)[1]).min() > 0.1


def test_a_control_variate_is_the_mean_gradient_of_the_clients_steps():
    state = run_rounds(build("scaffold"), DATA, 1)[0]
    ends = np.array([walk(START, RATE, h, t, k) for h, t, k, _ in CLIENTS])
    expected = (START - ends) / (RATE * np.array([k for _, _, k, _ in CLIENTS]))
    np.testing.assert_allclose(read_variates(state)[1], expected, rtol=1e-5)


def test_the_second_round_follows_the_corrected_gradients():
    state, process = run_rounds(build("scaffold"), DATA, 1)[0], build("scaffold")
    common, own = read_variates(state)
    weight = weight_of(process, state)
    ends = [
        walk(weight, RATE, h, t, k, offset=common - c) for (h, t, k, _), c in zip(CLIENTS, own, strict=True)
    ]
    second = run_rounds(process, DATA, 2)[0]
    assert weight_of(process, second) == pytest.approx(np.average(ends, weights=SIZES), abs=1e-5)


@pytest.mark.parametrize(("weighted", "shares"), [(True, SIZES), (False, np.ones(3))])
def test_the_servers_variate_is_the_mean_of_the_clients(weighted, shares):
    common, own = read_variates(run_rounds(build("scaffold", weighted), DATA, 3)[0])
    assert common == pytest.approx(np.average(own, weights=shares), abs=1e-5)
    assert np.ptp(own) > 0.1


def test_with_some_of_the_clients_the_others_count_with_what_they_had():
    state = run_rounds(build("scaffold", weighted=False), DATA, 2, chosen=[0, 2])[0]
    common, own = read_variates(state)
    assert own[1] == 0 and (own[[0, 2]] != 0).all()
    assert common == pytest.approx(own.mean(), abs=1e-5)  # over three, not two


@pytest.mark.parametrize(("weighted", "shares"), [(True, SIZES), (False, np.ones(3))])
@pytest.mark.parametrize("second", [DATA[1], LOST], ids=["all finite", "one diverges"])
def test_whoever_takes_part_the_servers_variate_is_the_mean_of_the_clients(second, weighted, shares):
    chosen = [[0, 1], [1, 2], [1], [0, 2], [0, 1, 2], [2]]
    states = follow(
        build("scaffold", weighted), [{k: (DATA[0], second, DATA[2])[k] for k in c} for c in chosen]
    )
    for state in states[2:]:  # after two rounds each has taken part
        common, own = read_variates(state)
        assert common == pytest.approx(np.average(own, weights=shares), abs=1e-5)
        assert np.ptp(own) > 0.1 and (own[1] == 0) == (second is LOST)


def test_a_client_that_is_not_known_yet_counts_with_the_mean_size_of_the_others():
    common, own = read_variates(follow(build("scaffold"), [{0: DATA[0]}, {0: DATA[0], 2: DATA[2]}])[-1])
    sizes = np.array([15, (15 + 14) / 2, 14])
    assert own[1] == 0 and common == pytest.approx(np.average(own, weights=sizes), abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_with_two_of_three_clients_in_a_round_it_ends_at_the_optimum_of_all(seed):
    rng = np.random.default_rng(seed)
    chosen = [sorted(rng.choice(3, 2, replace=False).tolist()) for _ in range(150)]
    process = build("scaffold")
    state = follow(process, [{k: DATA[k] for k in round_} for round_ in chosen])[-1]
    h, t = np.array([client[:2] for client in CLIENTS]).T
    assert weight_of(process, state) == pytest.approx((SIZES * h * t).sum() / (SIZES * h).sum(), abs=1e-3)


def test_it_reaches_the_optimum_that_fedavg_misses():
    clients = [(1.0, 2.0, 20), (4.0, -1.0, 20)]
    data = [make_client(h, t, k) for h, t, k in clients]
    h, t = np.array([1.0, 4.0]), np.array([2.0, -1.0])
    moved = 1 - (1 - RATE * h) ** 20
    wrong, optimum = (moved * t).sum() / moved.sum(), (h * t).sum() / h.sum()
    assert abs(wrong - optimum) > 0.5
    average, scaffold = build("fedavg"), build("scaffold", num_clients=2)
    found = weight_of(average, run_rounds(average, data, 12)[0])
    assert found == pytest.approx(wrong, abs=1e-4)
    assert weight_of(scaffold, run_rounds(scaffold, data, 25)[0]) == pytest.approx(optimum, abs=1e-3)


def test_a_client_without_batches_keeps_its_variate():
    empty = DATA[1].take(0)
    state = run_rounds(build("scaffold"), [DATA[0], empty, DATA[2]], 2)[0]
    common, own = read_variates(state)
    assert own[1] == 0 and np.isfinite([common, *own]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_optimizer": "adamw", "num_clients": 3}, "expected sgd with scaffold"),
        ({"client_optimizer": "sgdm", "num_clients": 3}, "expected sgd with scaffold"),
        ({"client_optimizer": "sgd"}, "num_clients: expected the number of all clients"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_process(build_parabola(), algorithm="scaffold", **options)


def test_a_process_for_another_number_of_clients_is_refused():
    with pytest.raises(InputError, match="build it with num_clients=2"):
        run_rounds(build("scaffold"), DATA[:2], 1)
