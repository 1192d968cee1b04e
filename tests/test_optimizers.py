"""Adaptive servers and Adafactor against formulas of their papers; and schedules of learning rates."""

import numpy as np
import pytest
from quadratics import START, build_parabola, make_client, run_rounds, walk, weight_of
from what_runs import CLIENTS, build_linear_model

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.optimizers import build_adafactor
from fedutils.tff import tff

RATE = 0.5


def take_step(moment, weight, gradient, step, relative_step):
    """Take a step of Adafactor in NumPy; `moment` is (rows, columns) for a matrix, else (v,)."""
    kept = 1 - step**-0.8
    square = gradient**2 + 1e-30
    if weight.ndim == 2:
        moment = [kept * m + (1 - kept) * square.mean(axis=1 - i) for i, m in enumerate(moment)]
        rows, columns = moment
        variance = np.outer(rows / rows.mean(), columns)
    else:
        moment = [kept * moment[0] + (1 - kept) * square]
        (variance,) = moment
    update = gradient / np.sqrt(variance)
    update = update / max(1, np.sqrt((update**2).mean()))
    rate = min(RATE, step**-0.5) if relative_step else RATE
    return moment, weight - rate * max(1e-3, np.sqrt((weight**2).mean())) * update


@pytest.mark.parametrize("relative_step", [True, False])
def test_adafactor_on_the_server_follows_the_paper(relative_step):
    runtime.use("in_process")
    model = build_linear_model()
    optimizer = build_adafactor(RATE, relative_step=relative_step)
    process = tff.learning.algorithms.build_fed_sgd(model, optimizer)
    state = process.initialize()
    matrix, bias = (np.asarray(w, np.float64) for w in model.initial_weights[0])
    x = np.concatenate([np.concatenate([b[0] for b in c.as_numpy_iterator()]) for c in CLIENTS])
    y = np.concatenate([np.concatenate([b[1] for b in c.as_numpy_iterator()]) for c in CLIENTS])
    moments = [(np.zeros(3), np.zeros(2)), (np.zeros(2),)]
    for step in (1, 2, 3, 4, 5, 6):  # from step 5 on, one over its root is below the rate
        state = process.next(state, CLIENTS).state
        error = x @ matrix + bias - y
        gradients = [2 * x.T @ error / error.size, 2 * error.mean(axis=0) / 2]
        moments[0], matrix = take_step(moments[0], matrix, gradients[0], step, relative_step)
        moments[1], bias = take_step(moments[1], bias, gradients[1], step, relative_step)
        found = process.get_model_weights(state).trainable
        np.testing.assert_allclose(found[0], matrix, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["fedavg", "mimelite"])
@pytest.mark.parametrize("optimizer", ["sgdm", "adafactor"])
def test_a_schedule_ends_at_rate_zero(algorithm, optimizer):
    runtime.use("in_process")
    process = build_process(
        build_linear_model(),
        algorithm=algorithm,
        client_optimizer=optimizer,
        client_learning_rate=0.1,
        decay_rounds=1,
    )
    states = [process.initialize()]
    for _ in range(2):
        states.append(process.next(states[-1], CLIENTS).state)
    weights = [np.asarray(process.get_model_weights(state).trainable[0]) for state in states]
    assert np.abs(weights[1] - weights[0]).max() > 1e-3
    np.testing.assert_array_equal(weights[2], weights[1])


def test_the_learning_rate_can_be_set():
    optimizer = build_adafactor(RATE)
    state = optimizer.initialize(())
    changed = optimizer.set_hparams(state, {"learning_rate": 0.25})
    assert optimizer.get_hparams(changed)["learning_rate"] == 0.25
    assert changed["steps"] == state["steps"]


# Of a server, whose gradient g is the distance from the mean of the clients' weights; the state is (m, v).


def step_adam(state, g, t):
    m, v = 0.9 * state[0] + 0.1 * g, 0.99 * state[1] + 0.01 * g**2
    corrected = np.sqrt(1 - 0.99**t) / (1 - 0.9**t)
    return (m, v), corrected * m / (np.sqrt(v) + 1e-3)


def step_yogi(state, g, t):
    m, v = 0.9 * state[0] + 0.1 * g, state[1] - 0.001 * g**2 * np.sign(state[1] - g**2)
    corrected = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return (m, v), corrected * m / (np.sqrt(v) + 1e-3)


def step_adagrad(state, g, t):
    v = state[1] + g**2
    return (g, v), g / np.sqrt(v + 1e-6)


# Where the optimum is near, tau is about as large as the gradient.
@pytest.mark.parametrize("optimum", [2.0, 0.5005], ids=["far", "near"])
@pytest.mark.parametrize(
    ("name", "step", "first"),
    [("adam", step_adam, 0.0), ("yogi", step_yogi, 1e-6), ("adagrad", step_adagrad, 1e-6)],
)
def test_an_adaptive_server_takes_two_steps_by_hand(name, step, first, optimum):
    runtime.use("in_process")
    clients = [(1.0, optimum, 3), (3.0, optimum, 2)]
    process = build_process(
        build_parabola(),
        client_optimizer="sgd",
        client_learning_rate=0.1,
        server_optimizer=name,
        server_learning_rate=0.01,
    )
    weight, state = START, (0.0, first)
    for t in (1, 2):
        ends = [walk(weight, 0.1, h, o, k) for h, o, k in clients]
        state, direction = step(state, weight - np.average(ends, weights=[3, 2]), t)
        weight = weight - 0.01 * direction
    found = weight_of(process, run_rounds(process, [make_client(*client) for client in clients], 2)[0])
    assert found - START == pytest.approx(weight - START, rel=1e-3)
