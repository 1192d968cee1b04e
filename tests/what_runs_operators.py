"""Cases of test_what_runs.py: TFF's operators ("intrinsics"), with results derived by hand, and analytics."""

import numpy as np
from what_runs import case

from fedutils.tff import tff

# isort: split
import tensorflow as tf
from tensorflow_federated.python.core.backends.mapreduce import intrinsics as mapreduce_intrinsics

FEDERATED, SEQUENCES = "Federated operators", "Sequence operators"
INTS = tff.FederatedType(np.int32, tff.CLIENTS)
FLOATS = tff.FederatedType(np.float32, tff.CLIENTS)
KEYS = tff.FederatedType(tff.TensorType(np.int32, (2,)), tff.CLIENTS)
SERVER_INT = tff.FederatedType(np.int32, tff.SERVER)
TABLE = tff.FederatedType(tff.TensorType(np.float32, (5,)), tff.SERVER)
SEQUENCE = tff.SequenceType(np.int32)

_add = tff.tensorflow.computation(lambda a, b: a + b, (np.int32, np.int32))
_double = tff.tensorflow.computation(lambda a: 2 * a, np.int32)
_five = tff.tensorflow.computation(lambda: np.int32(5))
_append_digit = tff.tensorflow.computation(lambda total, x: 10 * total + x, (np.int32, np.int32))
_to_string = tff.tensorflow.computation(lambda total: tf.strings.as_string(total), np.int32)
_gather = tff.tensorflow.computation(lambda table, key: tf.gather(table, key))
_add_up = tff.tensorflow.computation(
    lambda rows: rows.reduce(0.0, lambda a, b: a + b), tff.SequenceType(np.float32)
)


def _select(operator):
    def select(keys, table):
        num_keys = tff.federated_value(np.int32(5), tff.SERVER)
        return tff.federated_map(_add_up, operator(keys, num_keys, table, _gather))

    return select


def _add_case(group, name, function, types, arguments, expect):
    @case(group, name)
    def operator(both):
        return both.equal(tff.federated_computation(function, *types), *arguments, expect=expect)


_add_case(FEDERATED, "sum", tff.federated_sum, [INTS], [[1, 2, 6]], 9)
_add_case(FEDERATED, "mean", lambda x: tff.federated_mean(x), [FLOATS], [[1.0, 2.0, 6.0]], 3.0)
_add_case(
    FEDERATED,
    "weighted mean",
    lambda x, weight: tff.federated_mean(x, weight),
    [FLOATS, FLOATS],
    [[1.0, 2.0, 6.0], [1.0, 0.0, 3.0]],
    19 / 4,
)
_add_case(FEDERATED, "min", tff.federated_min, [INTS], [[4, 2, 6]], 2)
_add_case(FEDERATED, "max", tff.federated_max, [INTS], [[4, 6, 2]], 6)
_add_case(
    FEDERATED,
    "aggregate",
    lambda x: tff.federated_aggregate(x, np.int32(7), _append_digit, _add, _to_string),
    [INTS],
    [[1, 2, 3]],
    b"7123",
)
_add_case(
    FEDERATED,
    "broadcast",
    lambda x, y: tff.federated_map(_add, (x, tff.federated_broadcast(y))),
    [INTS, SERVER_INT],
    [[1, 2, 3], 10],
    [11, 12, 13],
)
_add_case(FEDERATED, "map", lambda x: tff.federated_map(_double, x), [INTS], [[1, 2]], [2, 4])
_add_case(
    FEDERATED,
    "eval",
    lambda x: (
        tff.federated_map(_add, (x, tff.federated_eval(_five, tff.CLIENTS))),
        tff.federated_eval(_five, tff.SERVER),
    ),
    [INTS],
    [[1, 2]],
    [6, 7, 5],
)
_add_case(
    FEDERATED,
    "value",
    lambda x: (
        tff.federated_map(_add, (x, tff.federated_value(np.int32(1), tff.CLIENTS))),
        tff.federated_value(np.int32(3), tff.SERVER),
    ),
    [INTS],
    [[1, 2]],
    [2, 3, 3],
)
_add_case(
    FEDERATED,
    "zip",
    lambda x, y: (tff.federated_zip((x, (x, x))), tff.federated_zip({"a": y, "b": (y,)})),
    [INTS, SERVER_INT],
    [[1, 2], 3],
    [1, 1, 1, 2, 2, 2, 3, 3],
)
for _name in ("select", "secure_select"):
    _add_case(
        FEDERATED,
        _name,
        _select(getattr(tff, f"federated_{_name}")),
        [KEYS, TABLE],
        [[np.array([0, 1], np.int32), np.array([4, 4], np.int32)], np.arange(10, 60, 10, np.float32)],
        [30.0, 100.0],
    )
_add_case(
    FEDERATED, "secure_sum", lambda x: tff.federated_secure_sum(x, np.int32(10)), [INTS], [[1, 2, 6]], 9
)
_add_case(
    FEDERATED,
    "secure_sum_bitwidth",
    lambda x: tff.federated_secure_sum_bitwidth(x, 8),
    [INTS],
    [[1, 2, 6]],
    9,
)
_add_case(
    FEDERATED,
    "secure_modular_sum",
    lambda x: mapreduce_intrinsics.federated_secure_modular_sum(x, 8),
    [INTS],
    [[3, 2, 6]],
    3,
)
_add_case(
    FEDERATED,
    "secure_quantized_sum",
    lambda x: tff.aggregators.secure_quantized_sum(x, np.float32(0), np.float32(4)),
    [FLOATS],
    [[1.0, 2.5, 6.0]],
    1 + 2.5 + 4,
)


@case(FEDERATED, "sample")
def sample(both):
    compute = tff.federated_computation(lambda x: tff.aggregators.federated_sample(x), FLOATS)
    return both.equal(lambda: np.sort(compute([1.0, 2.0])), expect=np.array([1, 2], np.float32))


def _build_each(function):
    """Make a computation that applies `function` to the sequence of each client."""
    each = tff.federated_computation(function, SEQUENCE)
    return tff.federated_computation(
        lambda x: tff.federated_map(each, x), tff.FederatedType(SEQUENCE, tff.CLIENTS)
    )


@case(SEQUENCES, "map")
def sequence_map(both):
    compute = _build_each(lambda s: tff.sequence_reduce(tff.sequence_map(_double, s), np.int32(1), _add))
    return both.equal(compute, [[1, 2], [3], []], expect=[7, 7, 1])


@case(SEQUENCES, "reduce")
def sequence_reduce(both):
    compute = _build_each(lambda s: tff.sequence_reduce(s, np.int32(1), _append_digit))
    return both.equal(compute, [[1, 2], [3], []], expect=[112, 13, 1])


@case(SEQUENCES, "sum")
def sequence_sum(both):
    return both.only_here(
        _build_each(tff.sequence_sum),
        [[1, 2], [3], []],
        expect=[3, 3, 0],
        error="does not support intrinsic URI: sequence_sum|Cant embed a Seqeuence",
        because="it lacks the operator",
    )


@case("Analytics", "hierarchical histogram")
def histogram(both):
    process = tff.analytics.build_hierarchical_histogram_process(0.0, 4.0, 4)

    def run():
        state, _ = process.next(process.initialize(), [[0.5, 1.5], [1.6], [3.5]])
        return state.aggregated_hierarchical_histogram["flat_values"]

    return both.equal(run, expect=np.array([4, 3, 1, 1, 2, 0, 1]))  # all; halves; quarters


@case("Analytics", "heavy hitters (IBLT)")
def heavy_hitters(both):
    compute = tff.analytics.heavy_hitters.iblt.build_iblt_computation(capacity=20, string_max_bytes=8)
    clients = [tf.data.Dataset.from_tensor_slices([list(words)]) for words in ("ab", "ac", "ad")]

    def run():
        output = compute(clients)
        return sorted(zip(output.heavy_hitters, output.heavy_hitters_counts, strict=True))

    return both.equal(run, expect=[(b"a", 3), (b"b", 1), (b"c", 1), (b"d", 1)])


@case("Analytics", "number of distinct words (HyperLogLog)")
def distinct(both):
    compute = tff.analytics.count_distinct.create_federated_hyperloglog_computation(use_secagg=True)
    clients = [tf.data.Dataset.from_tensor_slices(list(words)) for words in ("abc", "bcd", "d")]
    return both.equal(compute, clients)
