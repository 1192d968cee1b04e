"""Clients whose data is a file, a generator, or larger than the memory that they may take."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fedutils import runtime
from fedutils.errors import InputError
from fedutils.tff import tff

# isort: split
import tensorflow as tf
from test_runtime import build_sgd_process, make_client, run_rounds


@pytest.fixture(autouse=True)
def in_process():
    runtime.use("in_process")


def from_generator(client):
    rows = list(client.unbatch().as_numpy_iterator())
    spec = (tf.TensorSpec((3,), tf.float32), tf.TensorSpec((), tf.float32))
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec).batch(2)


def from_records(client, path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for x, y in client.unbatch().as_numpy_iterator():
            writer.write(np.append(x, y).astype(np.float32).tobytes())

    def parse(record):
        row = tf.ensure_shape(tf.io.decode_raw(record, tf.float32), (4,))
        return row[:3], row[3]

    return tf.data.TFRecordDataset(str(path)).map(parse).batch(2)


def test_memory_files_and_generators_give_the_same_weights(tmp_path):
    clients = [make_client(size, seed) for seed, size in enumerate((7, 2, 4))]
    process = build_sgd_process(clients[0].element_spec)
    expected = run_rounds(process, clients, num_rounds=2)
    mixed = [clients[0], from_records(clients[1], tmp_path / "client.tfrecord"), from_generator(clients[2])]
    np.testing.assert_array_equal(run_rounds(process, mixed, num_rounds=2), expected)


@pytest.mark.parametrize("prefetch", [False, True])
def test_an_error_in_the_data_names_the_client(prefetch):
    runtime.use("in_process", prefetch=prefetch)

    def fail():
        yield np.zeros(3, np.float32), np.float32(0)
        raise OSError("the disk of this hospital is gone")

    spec = (tf.TensorSpec((3,), tf.float32), tf.TensorSpec((), tf.float32))
    broken = tf.data.Dataset.from_generator(fail, output_signature=spec).batch(1)
    good = make_client(4, seed=0, batch_size=1)
    process = build_sgd_process(broken.element_spec)
    with pytest.raises(tf.errors.OpError, match="the disk of this hospital is gone") as error:
        run_rounds(process, [good, broken])
    assert "client 1 of 2" in error.value.__notes__[0]


# ---- the next batch, while this one trains


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core does one thing at a time")
def test_the_next_batch_is_read_while_this_one_trains(prefetch):
    read, ahead = [threading.Event() for _ in range(4)], []

    def produce():
        for event in read:
            event.set()
            yield np.int32(1)

    def wait(total):
        if total < 3:  # the step of batch `total`
            ahead.append(read[int(total) + 1].wait(10 if prefetch else 0.2))
        return total

    def step(total, x):
        waited = tf.py_function(wait, [total], tf.int32)
        return tf.ensure_shape(waited, ()) + x

    add_up = tff.tensorflow.computation(lambda d: d.reduce(0, step), tff.SequenceType(np.int32))
    data = tf.data.Dataset.from_generator(produce, output_signature=tf.TensorSpec((), tf.int32))
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # tf.data's own, on the host
    data = data.with_options(options)
    runtime.use("in_process", prefetch=prefetch)
    assert add_up(data) == 4
    assert ahead == [prefetch] * 3


def test_reading_ahead_changes_no_weight():
    clients = [make_client(7, seed=0), make_client(3, seed=1).take(0), from_generator(make_client(4, seed=2))]
    process = build_sgd_process(clients[0].element_spec)
    expected = run_rounds(process, clients, num_rounds=2)
    runtime.use("in_process", prefetch=True)
    np.testing.assert_array_equal(run_rounds(process, clients, num_rounds=2), expected)


def test_batches_are_read_ahead_on_gpus_unless_told_otherwise(monkeypatch):
    class Device:
        def __init__(self, kind):
            self.name, self.device_type = f"/device:{kind}:0", kind

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [Device("CPU"), Device("GPU")])
    chosen = [
        runtime._choose_settings(devices, None, False, prefetch).loops.prefetch
        for devices, prefetch in ((None, None), (["GPU:0"], False), (["CPU:0"], None), (["CPU:0"], True))
    ]
    assert chosen == [True, False, False, True]


def test_wrong_values_of_prefetch():
    with pytest.raises(InputError, match="prefetch: expected True or False, found 2; leave it out"):
        runtime.use("in_process", prefetch=2)
    with pytest.raises(InputError, match="prefetch: expected none of them with the worker"):
        runtime.use("worker", prefetch=True)


LARGE = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np
from fedutils import runtime
from fedutils.tff import tff
import tensorflow as tf
from test_runtime import build_sgd_process, make_client, run_rounds

runtime.use("in_process", concurrent_clients=2)
spec = (tf.TensorSpec((None, 3), tf.float32), tf.TensorSpec((None,), tf.float32))
process = build_sgd_process(spec, learning_rate=1e-3)
run_rounds(process, [make_client(4, seed=0)])  # imports, tracing

def stream(seed):
    # 40 batches of 4 MB: 160 MB that are never there at once.
    rng = np.random.default_rng(seed)
    for _ in range(40):
        x = rng.random((2**18, 3), np.float32)
        yield x, x.sum(axis=1)

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clients = [
    tf.data.Dataset.from_generator(lambda seed=seed: stream(seed), output_signature=spec).prefetch(1)
    for seed in range(5)
]
run_rounds(process, clients)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_federation_larger_than_its_memory_trains():
    code = LARGE.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout) < 160, "megabytes more than before, for 800 MB of data"
