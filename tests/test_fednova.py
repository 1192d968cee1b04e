"""FedNova: equal to FedAvg where clients take equal steps, and to hand-made arithmetic where they do not."""

import functools

import numpy as np
import pytest
from quadratics import START, build_parabola, make_client, run_rounds, walk, weight_of

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.errors import InputError
from fedutils.fednova import count_effective_steps

RATE = 0.1
# curvature, optimum, steps, batch size
UNEQUAL = [(1.0, 2.0, 1, 3), (2.0, -1.0, 4, 1), (0.5, 1.0, 7, 2)]
SIZES = np.array([3, 4, 14])


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


@functools.cache
def build(algorithm, optimizer, weighted):
    return build_process(
        build_parabola(),
        algorithm=algorithm,
        client_optimizer=optimizer,
        client_learning_rate=RATE,
        weighted=weighted,
    )


def count_by_hand(num_steps, momentum):
    """Add up how much each gradient moves the last weights: its echoes in all later steps."""
    return sum(sum(momentum**echo for echo in range(num_steps - k)) for k in range(num_steps))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_steps", [0, 1, 2, 9])
def test_effective_steps_count_every_echo_of_every_gradient(num_steps, momentum):
    found = float(count_effective_steps(np.int64(num_steps), momentum))
    assert found == pytest.approx(count_by_hand(num_steps, momentum), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "sgdm"])
def test_with_equal_steps_it_is_fedavg(optimizer):
    data = [make_client(1.0, 2.0, 4, 3), make_client(2.0, -1.0, 4, 1)]
    nova, average = build("fednova", optimizer, True), build("fedavg", optimizer, True)
    found = weight_of(nova, run_rounds(nova, data, 2)[0])
    assert found == pytest.approx(weight_of(average, run_rounds(average, data, 2)[0]), abs=1e-6)
    assert abs(found - START) > 0.1


@pytest.mark.parametrize(
    ("optimizer", "momentum", "weighted"), [("sgd", 0.0, True), ("sgdm", 0.9, True), ("sgd", 0.0, False)]
)
def test_with_unequal_steps_it_is_the_arithmetic_of_the_paper(optimizer, momentum, weighted):
    process = build("fednova", optimizer, weighted)
    state, metrics = run_rounds(process, [make_client(*client) for client in UNEQUAL], 1)
    shares = SIZES / SIZES.sum() if weighted else np.full(3, 1 / 3)
    ends = np.array([walk(START, RATE, h, t, k, momentum) for h, t, k, _ in UNEQUAL])
    counts = np.array([count_by_hand(k, momentum) for _, _, k, _ in UNEQUAL])
    effective = (shares * counts).sum()
    expected = START - effective * (shares * (START - ends) / counts).sum()
    assert weight_of(process, state) == pytest.approx(expected, abs=1e-6)
    assert float(metrics["aggregator"]["effective_steps"]) == pytest.approx(effective, rel=1e-6)


def test_clients_with_many_steps_pull_less_than_in_fedavg():
    clients = [(1.0, 2.0, 1), (1.0, -1.0, 16)]
    data = [make_client(h, t, k) for h, t, k in clients]
    moved = np.array([1 - (1 - RATE) ** k for _, _, k in clients])
    # A round moves client i by moved_i (t_i - w), and FedNova divides that by its steps: both rest where
    # these add up to zero. The sum of the losses is least at 0.5.
    rest = {"fedavg": np.average([2.0, -1.0], weights=moved)}
    rest["fednova"] = np.average([2.0, -1.0], weights=moved / [1, 16])
    assert abs(rest["fednova"] - 0.5) < abs(rest["fedavg"] - 0.5)
    for algorithm, weight in rest.items():
        process = build(algorithm, "sgd", False)
        state, _ = run_rounds(process, data, 1, start=weight)
        assert weight_of(process, state) == pytest.approx(weight, abs=1e-6)


def test_a_client_without_batches_counts_for_nothing():
    process = build("fednova", "sgd", True)
    alone = run_rounds(process, [make_client(1.0, 2.0, 3)], 1)[0]
    empty = make_client(1.0, -5.0, 1).take(0)
    together = run_rounds(process, [make_client(1.0, 2.0, 3), empty], 1)[0]
    assert weight_of(process, together) == weight_of(process, alone) != START


@pytest.mark.parametrize("name", ["adamw", "yogi"])
def test_other_optimizers_of_clients_are_refused(name):
    with pytest.raises(InputError, match="expected sgd or sgdm with fednova"):
        build("fednova", name, True)
