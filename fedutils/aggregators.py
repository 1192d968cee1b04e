"""What becomes of the messages of a round: aggregators by name, and metrics of all clients and of each."""

from collections import OrderedDict

from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.learning import tensor_utils

_learning = tff.learning
# From (weighted,) to an aggregator. Where no client is finite the weighted mean is 0 / 0. That is meant: the
# server's step refuses it, and model and momentum stay; a mean of 0 would let the momentum go on alone.
AGGREGATORS = {
    "mean": lambda weighted: (
        tff.aggregators.MeanFactory() if weighted else tff.aggregators.UnweightedMeanFactory()
    ),
    "robust": lambda weighted: _learning.robust_aggregator(weighted=weighted),
    "compressed": lambda weighted: _learning.compression_aggregator(weighted=weighted),
    "secure": lambda weighted: _learning.secure_aggregator(weighted=weighted),
}


class FiniteFactory(tff.aggregators.WeightedAggregationFactory):
    """An aggregator that takes what is not finite as zeros: at a client before it is sent, and as its result.

    For what goes into a state without a check, as gradients do into that of MimeLite's optimizer: one client
    that diverged would stay in it for ever, though its weight is 0, since 0 times NaN is NaN.

    Parameters
    ----------
    factory : WeightedAggregationFactory
        What aggregates.
    """

    def __init__(self, factory: tff.aggregators.WeightedAggregationFactory):
        self._factory = factory

    def create(self, value_type, weight_type):
        """Build the aggregation of values of a type, with weights of another."""
        inner = self._factory.create(value_type, weight_type)

        @tff.tensorflow.computation(value_type)
        def zero(value):
            return tensor_utils.zero_all_if_any_non_finite(value)[0]

        @tff.federated_computation(
            inner.initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def aggregate(state, value, weight):
            output = inner.next(state, tff.federated_map(zero, value), weight)
            return tff.templates.MeasuredProcessOutput(
                output.state, tff.federated_map(zero, output.result), output.measurements
            )

        return tff.templates.AggregationProcess(inner.initialize, aggregate)


def sum_and_keep(metric_finalizers, local_unfinalized_metrics_type=None):
    """Aggregate metrics as TFF does, by their sums, and keep each client's own beside them.

    For the ``metrics_aggregator`` of TFF's builders, with functional models; some builders pass a type,
    which is not needed.
    """
    add_up = tff.learning.metrics.sum_then_finalize(metric_finalizers)

    @tff.federated_computation
    def aggregate(unfinalized):
        finalize = tff.tensorflow.computation(metric_finalizers, unfinalized.type_signature.member)
        numbers = OrderedDict(structure.iter_elements(finalize.type_signature.result))
        columns = tff.to_type(
            OrderedDict((name, tff.TensorType(t.dtype, (None,))) for name, t in numbers.items())
        )

        @tff.tensorflow.computation
        def begin():
            return OrderedDict((name, tf.zeros((0,), t.dtype.type)) for name, t in numbers.items())

        @tff.tensorflow.computation(columns, numbers)
        def append(table, values):
            return OrderedDict((name, tf.concat([table[name], [values[name]]], 0)) for name in numbers)

        @tff.tensorflow.computation(columns, columns)
        def merge(first, second):
            return OrderedDict((name, tf.concat([first[name], second[name]], 0)) for name in numbers)

        report = tff.tensorflow.computation(lambda table: table, columns)
        each = tff.federated_aggregate(
            tff.federated_map(finalize, unfinalized), begin(), append, merge, report
        )

        @tff.tensorflow.computation
        def join(together, apart):
            return OrderedDict(**together, per_client=apart)

        return tff.federated_map(join, (add_up(unfinalized), each))

    return aggregate
