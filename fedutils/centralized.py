"""Centralised training: every image in one place, the yardstick of the federated runs."""

from fedutils.quiet import without_harmless_lines  # first: it quietens the import of TensorFlow

# isort: split
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from fedutils.data.pipeline import make_batches
from fedutils.runs import Run, load_run, save_run

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
        return model.predict(x, batch_size=batch_size, verbose=0)


def evaluate(model: keras.Model, data: Arrays) -> dict[str, float]:
    """Return ``loss`` (cross-entropy, nats) and ``accuracy`` on (x, y)."""
    x, y = data
    logits = predict_logits(model, x)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    return {
        "loss": float(tf.reduce_mean(loss)),
        "accuracy": float((logits.argmax(axis=1) == y).mean()),
    }


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
) -> Run:
    """Train with AdamW under a cosine schedule and leave the best epoch's weights in `model`.

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
        Gets ``run.npz`` when the run is finished; one that is there already is read instead of trained.
    label : str
        On the progress bar.

    Returns
    -------
    Run
        With one record an epoch: ``epoch``, ``training_loss``, ``training_accuracy``, ``validation_loss``,
        ``validation_accuracy``, ``seconds``.
    """
    finished = folder / "run.npz" if folder else None
    run = load_run(finished, num_epochs) if finished else Run(num_epochs)
    if len(run.history) < num_epochs:
        run = Run(num_epochs)
        x, y = tf.constant(training[0]), tf.constant(training[1])
        steps = -(-len(y) // batch_size) * num_epochs
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        model.compile(
            keras.optimizers.AdamW(schedule, weight_decay=weight_decay),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,  # XLA on a CPU compiles for long and computes convolutions more slowly
        )
        for epoch in (bar := tqdm(range(num_epochs), desc=label, unit="epoch")):
            start = time.perf_counter()
            batches = make_batches(x, y, batch_size=batch_size, seed=seed * 100_000 + epoch, augment=augment)
            fitted = model.fit(
                batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0
            ).history
            measured = evaluate(model, validation)
            entry = {
                "epoch": epoch + 1,
                "training_loss": fitted["loss"][0],
                "training_accuracy": fitted["accuracy"][0],
                "validation_loss": measured["loss"],
                "validation_accuracy": measured["accuracy"],
                "seconds": time.perf_counter() - start,
            }
            run.record(entry, get_weights(model))
            bar.set_postfix(validation=f"{measured['accuracy']:.3f}")
        if finished:
            save_run(finished, run)
    set_weights(model, run.weights)
    return run
