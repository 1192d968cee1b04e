"""Training where the images are: a plain loop in a known order, as a simulated client of FedAvg trains [1]_.

The optimizer begins anew in every round, and the batches follow from seed, version and the hospital's number
as in `fedutils.federated.ArrayClients`: the same images give the same update, on a real network or simulated.

References
----------
.. [1] B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
   AISTATS 2017.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fedutils.data import brain_mri
from fedutils.data.layouts import find_layouts
from fedutils.data.pipeline import make_batches, seed_client
from fedutils.errors import InputError
from fedutils.hospital.settings import Settings
from fedutils.hospital.workspace import Workspace
from fedutils.model_file import load_model
from fedutils.model_info import ModelInfo


def build_model(workspace: Workspace) -> tuple[keras.Model, ModelInfo, int]:
    """Return the model that came from the server, what it is, and its version."""
    received = workspace.load_received()
    model, info = load_model(workspace.model_file)
    shapes = [tuple(weight.shape) for weight in model.weights]
    if shapes != [array.shape for array in received.arrays]:
        raise InputError(
            f"{workspace.model_file}: expected the model of the weights that came, found another; get them "
            "again"
        )
    model.set_weights(received.arrays)
    return model, info, received.version


def load_cases(info: ModelInfo, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a hospital's training images, float32 (N, size, size, 1), and their classes, int32 (N,).

    Raises
    ------
    InputError
        If the model is no classifier of such images, or the folder holds none.
    """
    if info.task != "classification" or info.outputs != brain_mri.CLASSES:
        raise InputError(
            f"model: expected a classifier of {', '.join(brain_mri.CLASSES)}, found {info.title!r} for "
            f"{info.task}; the console trains no other yet, train it by a script and send its weights by "
            "fedutils.hospital.client"
        )
    if not Path(data).is_dir():
        raise InputError(
            f"{data}: expected the hospital's images, found no folder; mend 'data' in the settings"
        )
    root = find_layouts(data).get("brain_mri", Path(data))
    images = brain_mri.load_images(root, "Training", size=info.size[0], progress=False)
    return images.x, images.y


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, version: int, settings: Settings) -> float:
    """Train a model in place for one round.

    Parameters
    ----------
    model : keras.Model
        Gives logits.
    x, y : float32 (N, H, W, C), int32 (N,)
    version : int
        Of the model, which is the number of the round, from 0.
    settings : Settings

    Returns
    -------
    float
        Mean cross-entropy over the round's examples, nats, each before the step that it is part of.

    Raises
    ------
    InputError
        If the loss is no longer finite.
    """
    seed = seed_client(settings.seed, version, settings.client)
    batches = make_batches(
        x, y, batch_size=settings.batch_size, seed=seed, epochs=settings.epochs, augment=settings.augment
    )
    optimizers = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    optimizer = optimizers[settings.optimizer](settings.learning_rate)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses) + tf.add_n([0.0, *model.losses])
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return tf.reduce_sum(losses)

    total = sum(float(step(images, labels)) for images, labels in batches)
    mean = total / (len(y) * settings.epochs)
    if not np.isfinite(mean):
        raise InputError(f"training loss: expected a finite number, found {mean}; lower learning_rate")
    return mean
