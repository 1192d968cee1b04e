"""What becomes of the messages of a round: aggregators by name, and metrics of all clients and of each."""

from collections import OrderedDict

from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure

_learning = tff.learning
# From (weighted,) to an aggregator.
AGGREGATORS = {
    "mean": lambda weighted: (
        tff.aggregators.MeanFactory() if weighted else tff.aggregators.UnweightedMeanFactory()
    ),
    "robust": lambda weighted: _learning.robust_aggregator(weighted=weighted),
    "compressed": lambda weighted: _learning.compression_aggregator(weighted=weighted),
    "secure": lambda weighted: _learning.secure_aggregator(weighted=weighted),
}


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
