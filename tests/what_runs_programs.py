"""Cases of test_what_runs.py: TFF's programs of training and evaluation, and kinds of client data."""

import datetime
import functools
import random

import numpy as np
from what_runs import CLIENTS, assert_same, build_evaluation, build_linear_model, case, flatten

from fedutils.tff import tff

# isort: split
import tensorflow as tf

algorithms, learning = tff.learning.algorithms, tff.learning
sgd = tff.learning.optimizers.build_sgdm


# Programs


class _Draws(tff.program.FederatedDataSourceIterator):
    """Draws clients by a counter, which is all that a checkpoint has to hold (no data set is copied)."""

    def __init__(self, count=0):
        self.count = count

    @property
    def federated_type(self):
        return tff.FederatedType(
            tff.SequenceType(tff.types.tensorflow_to_type(CLIENTS[0].element_spec)), tff.CLIENTS
        )

    def select(self, k=None):
        self.count += 1
        return [CLIENTS[i] for i in random.Random(self.count).sample(range(len(CLIENTS)), k)]

    def to_bytes(self):
        return str(self.count).encode()

    @classmethod
    def from_bytes(cls, data):
        return cls(int(data))

    def __eq__(self, other):
        return isinstance(other, _Draws) and other.count == self.count


class _Source(tff.program.FederatedDataSource):
    federated_type = _Draws().federated_type

    def iterator(self):
        return _Draws()


@functools.cache
def build_fed_avg():
    """Build FedAvg with momentum, a state to be kept, on the server."""
    return algorithms.build_weighted_fed_avg(build_linear_model(), sgd(0.1), sgd(1.0, 0.9))


async def _train_by_program(folder, num_rounds, metrics, evaluation=None):
    released = tff.program.MemoryReleaseManager()
    await learning.programs.train_model(
        train_process=build_fed_avg(),
        train_data_source=_Source(),
        train_per_round_clients=2,
        train_total_rounds=num_rounds,
        program_state_manager=tff.program.FileProgramStateManager(str(folder)),
        model_output_manager=released,
        train_metrics_manager=metrics,
        evaluation_manager=evaluation,
        evaluation_periodicity=1,
    )
    return released.values()[f"training_checkpoint_round_{num_rounds}"].global_model_weights


@case("Programs", "train_model, stopped and resumed")
def training_program(both):
    process = build_fed_avg()

    def train_without_program():
        state, draws = process.initialize(), _Draws()
        for _ in range(3):
            state = process.next(state, draws.select(2)).state
        return state.global_model_weights

    expected = both.in_process(train_without_program)

    async def run(folder):
        metrics = tff.program.MemoryReleaseManager()
        await _train_by_program(folder, 1, metrics)
        weights = await _train_by_program(folder, 3, metrics)  # goes on after round 1
        assert_same(weights, expected)
        assert list(metrics.values()) == [1, 2, 3]
        return weights, metrics.values()

    return both.equal_programs(run)


@case("Programs", "EvaluationManager")
def evaluation_program(both):
    async def run(folder):
        metrics = tff.program.MemoryReleaseManager()
        manager = learning.programs.EvaluationManager(
            data_source=_Source(),
            aggregated_metrics_manager=metrics,
            create_state_manager_fn=lambda name: tff.program.FileProgramStateManager(str(folder / name)),
            create_process_fn=lambda name: (build_evaluation(), None),
            cohort_size=3,
            duration=datetime.timedelta(0),  # one round of evaluation
        )
        await _train_by_program(folder / "training", 2, tff.program.MemoryReleaseManager(), manager)
        found = metrics.values()
        assert sorted(found) == [1, 2]
        return [flatten(found[key]["model_metrics"]) for key in (1, 2)]

    return both.equal_programs(run)


# Client data: any tf.data pipeline in process


_ROWS = [np.arange(12, dtype=np.float32).reshape(4, 3), np.full((2, 3), 2, np.float32)]
_SUM = np.float32(66 + 12)


def _build_sum():
    batches = tff.SequenceType(tff.TensorType(np.float32, (None, 3)))
    add_up = tff.tensorflow.computation(
        lambda data: data.reduce(np.float32(0), lambda total, x: total + tf.reduce_sum(x)), batches
    )

    @tff.federated_computation(tff.FederatedType(batches, tff.CLIENTS))
    def compute(data):
        return tff.federated_sum(tff.federated_map(add_up, data))

    return compute


def _write_records(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in np.concatenate(_ROWS):
            writer.write(row.tobytes())
    return str(path)


def _read_records(path, buffer_size=None):
    records = tf.data.TFRecordDataset(path, buffer_size=buffer_size)
    return records.map(lambda record: tf.reshape(tf.io.decode_raw(record, tf.float32), (1, 3)))


@case("Client data", "data sets in memory")
def data_in_memory(both):
    clients = [tf.data.Dataset.from_tensor_slices(rows).shuffle(4).batch(3) for rows in _ROWS]
    return both.equal(_build_sum(), clients, expect=_SUM)


@case("Client data", "lists of batches")
def data_in_lists(both):
    return both.equal(_build_sum(), [[rows[:1], rows[1:]] for rows in _ROWS], expect=_SUM)


@case("Client data", "a client without data")
def no_data(both):
    clients = [tf.data.Dataset.from_tensor_slices(rows).batch(3) for rows in _ROWS]
    return both.equal(_build_sum(), [*clients, clients[0].take(0)], expect=_SUM)


@case("Client data", "TFRecord with a buffer size")
def data_in_records(both):
    path = _write_records(both.folder / "rows")
    return both.equal(_build_sum(), [_read_records(path, 2**16)], expect=_SUM)


@case("Client data", "TFRecord")
def data_in_records_as_usual(both):
    path = _write_records(both.folder / "rows")
    return both.only_here(
        _build_sum(),
        [_read_records(path)],
        expect=_SUM,
        error="`buffer_size` must be >= 0",
        because="it demands a `buffer_size`",
    )


@case("Client data", "Python generator")
def data_from_generator(both):
    def generate():
        yield from _ROWS

    spec = tf.TensorSpec((None, 3), tf.float32)
    return both.only_here(
        _build_sum(),
        [tf.data.Dataset.from_generator(generate, output_signature=spec)],
        expect=_SUM,
        error="No OpKernel was registered to support Op 'PyFunc'",
        because="it holds no Python",
    )


@case("Client data", "more than 100 MB a client")
def large_data(both):
    rows = np.ones((9_000_000, 3), np.float32)  # 108 MB
    return both.only_here(
        _build_sum(),
        [tf.data.Dataset.from_tensors(rows)],
        expect=np.float32(27_000_000),
        error="exceeds maximum allowed",
        because="it takes 100 MB a client",
    )
