"""Clients whose data is a file, a generator, or larger than the memory that they may take."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedutils import runtime

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


def test_an_error_in_the_data_names_the_client():
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
