"""Centralised classification: every image in one place, the yardstick of the federated runs."""

from fedutils.quiet import without_harmless_lines  # first: it quietens the import of TensorFlow

# isort: split
import functools
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fedutils.data.pipeline import make_batches
from fedutils.epochs import train_epochs
from fedutils.errors import InputError
from fedutils.runs import Run

Arrays = tuple[np.ndarray, np.ndarray]


def get_weights(model: keras.Model) -> list[np.ndarray]:
    """Return copies of the trainable weights."""
    return [variable.numpy() for variable in model.trainable_variables]


def set_weights(model: keras.Model, weights: list[np.ndarray]) -> None:
    """Set the trainable weights, in the order of `get_weights`."""
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)


def predict_logits(model: keras.Model, x: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Return the model's logits, float32 (N, C), for images float32 (N, H, W, C)."""
    with without_harmless_lines():
        logits = model.predict(x, batch_size=batch_size, verbose=0)
    return logits.astype(np.float32, copy=False)  # of a model of mixed precision they may be bfloat16


def evaluate(model: keras.Model, data: Arrays) -> dict[str, float]:
    """Return ``loss`` (cross-entropy, nats) and ``accuracy`` on (x, y)."""
    x, y = data
    logits = predict_logits(model, x)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    return {
        "loss": float(tf.reduce_mean(loss)),
        "accuracy": float((logits.argmax(axis=1) == y).mean()),
    }


def compute_class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return weights under which each class counts as much as any other [1]_, float64 (num_classes,).

    That of class c is N / (num_classes * N_c), so that their mean over the images is 1.

    Parameters
    ----------
    labels : int (N,)
    num_classes : int

    Raises
    ------
    InputError
        If a class has no image.

    References
    ----------
    .. [1] G. King and L. Zeng, "Logistic Regression in Rare Events Data", Political Analysis 9(2), 2001.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes or not counts.all():
        raise InputError(
            f"labels: expected images of each of {num_classes} classes and no other, found {counts.tolist()} "
            "images; train without class weights or without the classes that are not there"
        )
    return len(labels) / (num_classes * counts)


def train_central(
    model: keras.Model,
    training: Arrays,
    validation: Arrays,
    *,
    num_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 1e-4,
    augment: bool = True,
    seed: int = 0,
    folder: Path | None = None,
    label: str = "central",
    **options,
) -> Run:
    """Train a classifier on arrays by `fedutils.epochs.train_epochs`; leave the best epoch's weights in it.

    Parameters
    ----------
    model : keras.Model
        Gives logits; changed in place.
    training, validation : (float32 (N, H, W, C), int32 (N,))
        The best epoch is chosen on `validation`; nothing is trained on it.
    num_epochs, batch_size : int
    learning_rate : float
        At the start; it falls to 0 along a cosine.
    weight_decay : float
    augment : bool
        See `fedutils.data.pipeline.augment_batch`.
    seed : int
        Of order and augmentation.
    folder : Path, optional
        Gets a checkpoint after every epoch and ``run.npz`` when the run is finished; one that is there
        already is read instead of trained.
    label : str
        On the progress bar.
    **options
        Of `fedutils.epochs.train_epochs`: ``patience``, ``class_weights``, ``clip_norm``, ``warmup_steps``,
        ``choose_by`` ("accuracy", or "-loss").

    Returns
    -------
    Run
        With one record an epoch: ``epoch``, ``training_loss``, ``training_accuracy``, ``validation_loss``,
        ``validation_accuracy``, ``seconds``.
    """

    @functools.cache  # a finished run needs no copy of the images
    def load_tensors():
        return tuple(tf.constant(part) for part in training)

    def make_epoch(epoch):
        return make_batches(
            *load_tensors(), batch_size=batch_size, seed=seed * 100_000 + epoch, augment=augment
        )

    return train_epochs(
        model,
        make_epoch,
        lambda network: evaluate(network, validation),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        num_epochs=num_epochs,
        steps_per_epoch=-(-len(training[1]) // batch_size),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        metrics=["accuracy"],
        folder=folder,
        label=label,
        **options,
    )
