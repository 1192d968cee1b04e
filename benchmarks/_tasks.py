"""The work that the benchmarks measure: networks, clients, the bare loop and the federated round.

Flower's processes may import this file: TFF itself is imported only where a round of it is built.
"""

import dataclasses

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from fedutils.models.classification import build_cnn, build_separable_cnn
from fedutils.models.mobilenet import build_mobilenet_v3
from fedutils.models.unet import build_unet

NUM_CLASSES = 4
LEARNING_RATE = 0.01
MODELS = ("separable", "cnn", "mobilenet", "unet3d")
RUNTIMES = ("in_process", "worker")


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, how it is trained, and the clients' batches.

    Attributes
    ----------
    model : keras.Model
        Gives logits, of an image or of each voxel.
    clients : list of tf.data.Dataset
    metrics : tuple of callable
        What the federated round measures on the way; the bare loop measures nothing.
    loss : keras.losses.Loss
    """

    model: keras.Model
    clients: list
    metrics: tuple = (lambda: keras.metrics.SparseCategoricalAccuracy(name="accuracy"),)
    loss: keras.losses.Loss = dataclasses.field(
        default_factory=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )


def add_size_arguments(parser):
    """Let the caller of a script choose how large the work is."""
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="mean steps of a client of images")
    parser.add_argument("--batch", type=int, default=32, help="images of a batch")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--volumes", type=int, default=4, help="volumes of a client of unet3d")
    parser.add_argument("--volume-size", type=int, default=128)


def build_task(name, options):
    """Build the work of the name, one of `MODELS`, as large as the options of `add_size_arguments` say."""
    if name == "unet3d":
        clients = make_volume_clients(options.clients, options.volumes, options.volume_size)
        return Task(build_network(name, options.volume_size), clients, metrics=())
    clients = make_clients(options.clients, options.steps, options.batch, options.image_size)
    return Task(build_network(name, options.image_size), clients)


def build_network(name, size):
    """Build the network of the name for images or volumes of this side.

    Without dropout, whose masks hang on the last bit of its input: both sides must take equal steps.
    """
    match name:
        case "separable":
            return build_separable_cnn((size, size, 1), NUM_CLASSES, dropout=0.0)
        case "cnn":
            return build_cnn((size, size, 1), NUM_CLASSES, filters=(16, 8))
        case "mobilenet":
            return build_mobilenet_v3((size, size, 1), NUM_CLASSES, dropout=0.0)
        case "unet3d":
            return build_unet((size, size, size, 3), 2, depth=3, width=4)
    raise ValueError(f"expected a model among {', '.join(MODELS)}, found {name}")


def make_clients(num_clients, steps, batch_size, image_size):
    """Make each client's batches of random images, of a number that differs by client."""
    rng = np.random.default_rng(0)
    # Around `steps` batches each, the last one incomplete.
    batches = [max(steps + client - num_clients // 2, 1) for client in range(num_clients)]
    sizes = [batch_size * count - client - 1 for client, count in enumerate(batches)]
    return [make_images(rng, size, image_size).batch(batch_size) for size in sizes]


def make_images(rng, size, image_size):
    """Make one client's random images with their classes."""
    x = rng.random((size, image_size, image_size, 1), np.float32)
    return tf.data.Dataset.from_tensor_slices((x, rng.integers(0, NUM_CLASSES, size, np.int32)))


def make_volume_clients(num_clients, num_volumes, side):
    """Make each client's random volumes of three channels, with a binary label a voxel, one a batch."""
    rng = np.random.default_rng(0)
    clients = []
    for _ in range(num_clients):
        x = rng.standard_normal((num_volumes, side, side, side, 3), np.float32)
        y = rng.integers(0, 2, (num_volumes, side, side, side), np.int32)
        clients.append(tf.data.Dataset.from_tensor_slices((x, y)).batch(1))
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


def build_federated_round(task):
    """Return a function that runs one round of weighted FedAvg from the model's present weights.

    It may be called with other clients than the task's.
    """
    from fedutils.keras_tff import build_functional_model
    from fedutils.tff import tff

    functional = build_functional_model(
        task.model, task.loss, task.metrics, input_spec=task.clients[0].element_spec
    )
    optimizers = tff.learning.optimizers
    process = tff.learning.algorithms.build_weighted_fed_avg(
        functional, optimizers.build_sgdm(LEARNING_RATE), optimizers.build_sgdm(1.0)
    )
    state = process.initialize()

    def run_round(clients=task.clients):
        return process.get_model_weights(process.next(state, clients).state).trainable

    return run_round


def use_runtime(name, **settings):
    """Run TFF's computations by this runtime, the worker without its limit of 100 MB a client."""
    from fedutils import runtime
    from fedutils.tff import tff  # noqa: F401  (before the import below, which it prepares)

    # isort: split
    from tensorflow_federated.python.core.impl.executors import value_serialization

    if name == "worker":
        # Nothing sets this limit but the function's default; fedutils lifts that of gRPC's messages.
        value_serialization._serialize_dataset.__defaults__ = (2**31 - 1,)
    runtime.use(name, **settings)


def describe(model, task, options):
    """Return what was measured: parameters, clients, steps, and the size of a batch."""
    of_volumes = model == "unet3d"
    return {
        "num_parameters": task.model.count_params(),
        "num_clients": options.clients,
        "steps": sum(int(client.cardinality()) for client in task.clients),
        "batch_size": 1 if of_volumes else options.batch,
        "image_size": options.volume_size if of_volumes else options.image_size,
    }
