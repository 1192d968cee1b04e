"""What `build_process` makes of its arguments: aggregators, weights, and rounds in which clients diverge."""

import numpy as np
import pytest
from quadratics import START, build_parabola, make_client, run_rounds, weight_of

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.errors import InputError
from fedutils.stateful import advance
from fedutils.tff import tff  # before the import below, which it prepares

# isort: split
import tensorflow as tf

RATE = 0.1
DATA = [make_client(1.0, 2.0, 3, 3), make_client(3.0, -1.0, 2)]  # curvature, optimum, steps, batch size
LOST = [make_client(float("nan"), 0.0, 3, 3), make_client(float("nan"), 0.0, 2)]  # no step is finite


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


def build(**options):
    options = {"client_optimizer": "sgd", "client_learning_rate": RATE, **options}
    return build_process(build_parabola(), **options)


# ---- aggregators


class Weighted(tff.aggregators.WeightedAggregationFactory):
    """The weighted mean, which counts for how many messages it was asked."""

    def __init__(self):
        self.types = []

    def create(self, value_type, weight_type):
        self.types.append(value_type)
        return tff.aggregators.MeanFactory().create(value_type, weight_type)


class Unweighted(tff.aggregators.UnweightedAggregationFactory):
    """The same of the unweighted mean."""

    def __init__(self):
        self.types = []

    def create(self, value_type):
        self.types.append(value_type)
        return tff.aggregators.UnweightedMeanFactory().create(value_type)


@pytest.mark.parametrize("decay_rounds", [None, 4])
@pytest.mark.parametrize(("kind", "weighted"), [(Weighted, True), (Unweighted, False)])
@pytest.mark.parametrize(("algorithm", "count"), [("fedavg", 1), ("mimelite", 2)])
def test_all_that_clients_send_goes_through_the_aggregator(algorithm, count, kind, weighted, decay_rounds):
    aggregator = kind()
    build(algorithm=algorithm, aggregator=aggregator, weighted=weighted, decay_rounds=decay_rounds)
    assert [len(message) for message in aggregator.types] == [1] * count  # the one weight of the model


@pytest.mark.parametrize("decay_rounds", [None, 4])
@pytest.mark.parametrize("algorithm", ["fedavg", "mimelite", "fednova"])
@pytest.mark.parametrize(
    ("kind", "weighted", "message"),
    [
        (Weighted, False, "one that takes no weights with weighted=False"),
        (Unweighted, True, "one that takes weights"),
    ],
)
def test_an_aggregator_that_does_not_fit_the_weights_is_refused(
    kind, weighted, message, algorithm, decay_rounds
):
    with pytest.raises(InputError, match=f"aggregator: expected {message}"):
        build(algorithm=algorithm, aggregator=kind(), weighted=weighted, decay_rounds=decay_rounds)


# ---- clients that diverge


@pytest.mark.parametrize(
    ("algorithm", "server_optimizer"),
    [
        *((name, "sgd") for name in ("fedavg", "fednova", "scaffold", "mimelite", "fedsgd", "ditto")),
        ("fedavg", "sgdm"),
        ("fedavg", "yogi"),
    ],
)
def test_a_round_in_which_no_client_is_finite_leaves_the_model_and_training_goes_on(
    algorithm, server_optimizer
):
    process = build(algorithm=algorithm, server_optimizer=server_optimizer, num_clients=2)
    before, _ = run_rounds(process, DATA, 2)
    lost, _ = advance(process, before, [0, 1], LOST)
    after, _ = advance(process, lost, [0, 1], DATA)
    assert weight_of(process, before) != START and weight_of(process, lost) == weight_of(process, before)
    expected = weight_of(process, run_rounds(process, DATA, 3)[0])
    assert weight_of(process, after) == pytest.approx(expected, abs=1e-6) != weight_of(process, before)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("second", [DATA[1], LOST[1]], ids=["one", "both"])
def test_the_optimizer_of_mimelite_forgets_a_client_that_diverged(second, weighted):
    process = build(algorithm="mimelite", client_optimizer="sgdm", weighted=weighted)
    state = run_rounds(process, DATA, 1)[0]
    state, _ = advance(process, state, [0, 1], [LOST[0], second])
    assert all(np.isfinite(part).all() for part in tf.nest.flatten(state.client_work))
    after, _ = advance(process, state, [0, 1], DATA)
    assert weight_of(process, after) != weight_of(process, state)
