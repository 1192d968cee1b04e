"""What `build_process` makes of its arguments: aggregators, and weights."""

import pytest
from quadratics import build_parabola

from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.tff import tff

RATE = 0.1


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
