"""A hospital's part of a Flower round: the model that came, trained on the hospital's own images.

The steps are those of a simulated client: `fedutils.local_training.train_locally` on the batches of
`fedutils.federated.ArrayClients`. So the same images give the same weights here, in TFF and in the console.

References
----------
.. [1] D. J. Beutel et al., "Flower: A Friendly Federated Learning Research Framework", arXiv:2007.14390,
   2020.
"""

from fedutils.algorithms import OPTIMIZERS, build_functional_classifier  # first: they prepare TFF
from fedutils.local_training import pull_towards, train_locally
from fedutils.tff import tff

# isort: split
import functools
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fedutils.data.pipeline import make_batches, seed_client
from fedutils.errors import InputError
from fedutils.flower_settings import HospitalPlace
from fedutils.hospital.training import load_cases
from fedutils.model_file import load_model
from fedutils.model_info import ModelInfo


@dataclass(frozen=True)
class Trained:
    """What a hospital sends: its trainable weights, and plain numbers; ``num-examples`` weights the mean."""

    weights: list[np.ndarray]
    metrics: dict[str, float | int]


def train_round(config: Mapping, weights: list[np.ndarray], place: HospitalPlace) -> Trained:
    """Train a round.

    Parameters
    ----------
    config : mapping
        What the server says: ``model`` (the bytes of its ``.keras`` file), ``server-round`` (from 1),
        ``optimizer``, ``learning-rate`` (of this round), ``batch-size``, ``local-epochs``, ``augment``,
        ``seed``, and ``proximal-mu`` if the strategy is FedProx.
    weights : list of ndarray
        The global model's trainable weights.
    place : HospitalPlace
        Whose images.

    Returns
    -------
    Trained
        With ``num-examples`` (images of the hospital), and ``loss`` (nats) and ``accuracy`` of the round's
        batches, each before its step.

    Raises
    ------
    InputError
        If the folder holds no such images, the weights are not the model's, or they end up not finite.
    """
    model, _ = open_model(config["model"])
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    if [w.shape for w in weights] != shapes:
        raise InputError(
            f"weights: expected the {len(shapes)} arrays of the model, found {len(weights)} others; start "
            "the run anew"
        )
    x, y = _load_cases(config["model"], str(place.data))
    batches = make_batches(
        x,
        y,
        batch_size=int(config["batch-size"]),
        seed=seed_client(int(config["seed"]), int(config["server-round"]) - 1, place.client),
        epochs=int(config["local-epochs"]),
        augment=bool(config["augment"]),
    )
    step = _build_training(config["model"], config["optimizer"], "proximal-mu" in config)
    others = tuple(v.numpy() for v in model.non_trainable_variables)
    rate, mu = tf.constant(config["learning-rate"]), tf.constant(config.get("proximal-mu", 0.0))
    trained, is_finite, metrics = step(tuple(map(tf.constant, weights)), others, batches, rate, mu)
    if not is_finite:
        raise InputError(
            f"{place.name}, round {config['server-round']}: expected finite weights after training, found "
            "NaN or infinity; lower client-learning-rate"
        )
    numbers = {"num-examples": len(y), "loss": float(metrics["loss"]), "accuracy": float(metrics["accuracy"])}
    return Trained([w.numpy() for w in trained], numbers)


@functools.lru_cache(maxsize=2)
def open_model(file: bytes) -> tuple[keras.Model, ModelInfo]:
    """Return the model of a ``.keras`` file's bytes; no code in it is run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{hashlib.sha256(file).hexdigest()[:12]}.keras"
        path.write_bytes(file)
        return load_model(path)


@functools.lru_cache(maxsize=4)
def _load_cases(file: bytes, data: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a hospital's images and classes; kept, where a process lives for more than a round."""
    x, y = load_cases(open_model(file)[1], Path(data))
    return tf.constant(x), tf.constant(y)


@functools.lru_cache(maxsize=4)
def _build_training(file: bytes, optimizer: str, proximal: bool):
    """Return the traced training of a client; it is traced once for all rounds and hospitals."""
    functional = build_functional_classifier(open_model(file)[0])

    @tf.function(reduce_retracing=True)
    def train(weights, others, batches, rate, mu):
        correct = pull_towards(weights, mu) if proximal else None
        start = tff.learning.models.ModelWeights(weights, others)
        trained = train_locally(functional, OPTIMIZERS[optimizer](rate), start, batches, correct)
        return trained.weights, trained.is_finite, functional.finalize_metrics(trained.metrics)

    return train
