"""What a federated round costs beside the bare training loop that does the same steps.

Prints one JSON line. A ratio is CPU seconds (or wall seconds) of a round of weighted FedAvg, those
of TFF's worker included, over those of a TensorFlow loop over the same data with the same steps:
each client's SGD from the global weights, then the weighted mean. Rounds and loops alternate, so
that a change of the machine's load meets both; the median of the pairs counts.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from fedutils.tff import tff  # first: it quietens the import of TensorFlow

# isort: split
import keras
import numpy as np
import tensorflow as tf

from fedutils import runtime
from fedutils.keras_tff import build_functional_model
from fedutils.models.classification import build_separable_cnn

NUM_CLASSES = 4
LEARNING_RATE = 0.01


def make_clients(num_clients, steps, batch_size, image_size):
    """Make each client's batches of random images, of a number that differs by client."""
    rng = np.random.default_rng(0)
    clients = []
    for client in range(num_clients):
        # Around `steps` batches each, the last one incomplete.
        size = batch_size * (steps + client - num_clients // 2) - client - 1
        x = rng.random((size, image_size, image_size, 1), np.float32)
        y = rng.integers(0, NUM_CLASSES, size, np.int32)
        clients.append(tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size))
    return clients


def build_bare_loop(model, loss, clients):
    """Return a function that runs one round without TFF and gives the new weights."""
    global_weights = [v.numpy() for v in model.trainable_variables]

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = [v.value for v in model.trainable_variables]
        for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
            variable.assign_sub(LEARNING_RATE * gradient)
        return tf.shape(y)[0]

    def run_round():
        total, sums = 0, [np.zeros_like(w) for w in global_weights]
        for client in clients:
            for variable, weight in zip(model.trainable_variables, global_weights, strict=True):
                variable.assign(weight)
            size = sum(int(step(x, y)) for x, y in client)
            total += size
            for s, variable in zip(sums, model.trainable_variables, strict=True):
                s += size * variable.numpy()
        return [s / total for s in sums]

    return run_round


def build_federated_round(model, loss, clients):
    """Return a function that runs one round of TFF from the model's present weights."""
    functional = build_functional_model(
        model,
        loss,
        metrics=[lambda: keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        input_spec=clients[0].element_spec,
    )
    optimizers = tff.learning.optimizers
    process = tff.learning.algorithms.build_weighted_fed_avg(
        functional, optimizers.build_sgdm(LEARNING_RATE), optimizers.build_sgdm(1.0)
    )
    state = process.initialize()
    return lambda: process.get_model_weights(process.next(state, clients).state).trainable


def read_cpu_seconds():
    """Return the CPU seconds that this process and the worker have used so far."""
    own = os.times()
    seconds = own.user + own.system
    pid = runtime.worker_pid()
    if pid is not None:
        # utime and stime are fields 14 and 15; the command's name before them may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure(function):
    cpu, wall = read_cpu_seconds(), time.perf_counter()
    function()
    return read_cpu_seconds() - cpu, time.perf_counter() - wall


def compare(federated, bare, num_rounds):
    """Return the median ratios, and the medians in seconds, of alternating runs of both."""
    difference = max(float(np.abs(a - b).max()) for a, b in zip(federated(), bare(), strict=True))
    if difference > 1e-4:
        raise RuntimeError(f"the round and the loop end {difference} apart: not the same steps")
    pairs = [(measure(federated), measure(bare)) for _ in range(num_rounds)]
    median = statistics.median
    return {
        "ratio": median(f[0] / b[0] for f, b in pairs),
        "wall_ratio": median(f[1] / b[1] for f, b in pairs),
        "cpu_seconds": median(f[0] for f, _ in pairs),
        "bare_cpu_seconds": median(b[0] for _, b in pairs),
        "max_weight_difference": difference,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the JSON line to this file as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="mean steps of a client")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=112)
    options = parser.parse_args()

    clients = make_clients(options.clients, options.steps, options.batch, options.image_size)
    # Without dropout, whose masks hang on the last bit of its input: both must take equal steps.
    model = build_separable_cnn((options.image_size, options.image_size, 1), NUM_CLASSES, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    result = {}
    for name in runtime.RUNTIMES:
        runtime.use(name)
        federated = build_federated_round(model, loss, clients)
        bare = build_bare_loop(model, loss, clients)
        measured = compare(federated, bare, options.rounds)
        result |= {
            f"round_ratio_{name}": round(measured["ratio"], 3),
            f"round_wall_ratio_{name}": round(measured["wall_ratio"], 3),
            f"round_cpu_seconds_{name}": round(measured["cpu_seconds"], 2),
            f"round_bare_cpu_seconds_{name}": round(measured["bare_cpu_seconds"], 2),
            f"round_max_weight_difference_{name}": measured["max_weight_difference"],
        }
    runtime.use("in_process")  # ends the worker
    result |= {
        "round_num_parameters": model.count_params(),
        "round_num_clients": options.clients,
        "round_steps": sum(int(c.cardinality()) for c in clients),
        "round_batch_size": options.batch,
        "round_image_size": options.image_size,
        "round_num_measured": options.rounds,
    }
    line = json.dumps(result)
    print(line, flush=True)
    if options.out:
        partial = options.out.with_name(options.out.name + ".partial")
        partial.write_text(line + "\n")
        partial.replace(options.out)


if __name__ == "__main__":
    main()
