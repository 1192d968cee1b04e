"""Federated training: hospitals train where their images are, a server averages what they send.

The algorithm is TensorFlow Federated's own weighted federated averaging [1]_; this file only feeds it,
watches it and keeps its checkpoints. Call `fedutils.runtime.use` first: it says where TFF's computations run.

References
----------
.. [1] H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
   AISTATS 2017.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from fedutils.centralized import Arrays, evaluate, get_weights, set_weights
from fedutils.data.pipeline import make_batches
from fedutils.keras_tff import assign_weights, build_functional_model
from fedutils.runs import Run, load_run, save_run
from fedutils.tff import tff


def build_fedavg(
    model: keras.Model,
    *,
    client_learning_rate: float,
    weight_decay: float = 1e-4,
    server_learning_rate: float = 1.0,
) -> tff.learning.templates.LearningProcess:
    """Build weighted FedAvg for a classifier: AdamW on the clients, SGD on the server.

    Parameters
    ----------
    model : keras.Model
        Gives logits; its weights are the first global model.
    client_learning_rate, weight_decay : float
        Of AdamW, which starts afresh on every client in every round.
    server_learning_rate : float
        1.0 makes the new global model the mean of the clients', weighted by their numbers of images.

    Returns
    -------
    tff.learning.templates.LearningProcess
        Over batches of (float32 (B, H, W, C), int32 (B,)).
    """
    spec = (tf.TensorSpec((None, *model.input_shape[1:]), tf.float32), tf.TensorSpec((None,), tf.int32))
    functional = build_functional_model(
        model,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[lambda: keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        input_spec=spec,
    )
    optimizers = tff.learning.optimizers
    return tff.learning.algorithms.build_weighted_fed_avg(
        functional,
        client_optimizer_fn=optimizers.build_adamw(client_learning_rate, weight_decay=weight_decay),
        server_optimizer_fn=optimizers.build_sgdm(server_learning_rate),
    )


def make_client_batches(
    clients: list[tuple[tf.Tensor, tf.Tensor]],
    round_number: int,
    *,
    local_epochs: int,
    batch_size: int,
    augment: bool,
    seed: int,
) -> list[tf.data.Dataset]:
    """Build every client's batches of one round; they follow from (seed, round, client) alone."""
    return [
        make_batches(
            x,
            y,
            batch_size=batch_size,
            seed=(seed * 10_000 + round_number) * 1_000 + k,
            epochs=local_epochs,
            augment=augment,
        )
        for k, (x, y) in enumerate(clients)
    ]


def train_federated(
    model: keras.Model,
    clients: list[Arrays],
    validation: Arrays,
    *,
    num_rounds: int,
    local_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 1e-4,
    augment: bool = True,
    seed: int = 0,
    checkpoint: Path | None = None,
    label: str = "FedAvg",
) -> Run:
    """Train by weighted FedAvg, all clients in every round, and leave the best round's weights in `model`.

    Parameters
    ----------
    model : keras.Model
        Gives logits; its weights are where round 1 starts. Changed in place.
    clients : list of (float32 (N, H, W, C), int32 (N,))
        One a hospital.
    validation : (float32 (M, H, W, C), int32 (M,))
        The best round is chosen on it; nothing is trained on it.
    num_rounds, local_epochs, batch_size : int
    learning_rate, weight_decay : float
        Of the clients' AdamW.
    augment : bool
        See `fedutils.data.pipeline.augment_batch`.
    seed : int
        Of order and augmentation.
    checkpoint : Path, optional
        Written after every round. If it is there, training goes on after its last round, and ends with the
        same weights as a run that was never stopped.
    label : str
        On the progress bar.

    Returns
    -------
    Run
        With one record a round: ``round``, ``training_loss``, ``training_accuracy`` (of the clients' batches
        while they train), ``validation_loss``, ``validation_accuracy`` (of the new global model),
        ``seconds``.
    """
    process = build_fedavg(model, client_learning_rate=learning_rate, weight_decay=weight_decay)
    state = process.initialize()
    run = load_run(checkpoint, num_rounds) if checkpoint else Run(num_rounds)
    if run.history:
        state = tf.nest.pack_sequence_as(state, run.state)
    tensors = [(tf.constant(x), tf.constant(y)) for x, y in clients]
    done = len(run.history)
    for r in (bar := tqdm(range(done, num_rounds), desc=label, unit="round", initial=done, total=num_rounds)):
        start = time.perf_counter()
        batches = make_client_batches(
            tensors, r, local_epochs=local_epochs, batch_size=batch_size, augment=augment, seed=seed
        )
        output = process.next(state, batches)
        state = output.state
        weights = process.get_model_weights(state)
        assign_weights(model, weights)
        measured = evaluate(model, validation)
        trained = output.metrics["client_work"]["train"]
        entry = {
            "round": r + 1,
            "training_loss": float(trained["loss"]),
            "training_accuracy": float(trained["accuracy"]),
            "validation_loss": measured["loss"],
            "validation_accuracy": measured["accuracy"],
            "seconds": time.perf_counter() - start,
        }
        run.record(entry, get_weights(model))
        run.state = [np.asarray(leaf) for leaf in tf.nest.flatten(state)]
        if checkpoint:
            save_run(checkpoint, run)
        bar.set_postfix(validation=f"{measured['accuracy']:.3f}")
    set_weights(model, run.weights)
    return run


def measure_contributions(
    model: keras.Model,
    clients: list[Arrays],
    validation: Arrays,
    *,
    local_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 1e-4,
    augment: bool = True,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Let every client train alone for one round from `model` and compare what each would send.

    Returns
    -------
    list of dict
        One a client: ``num_images``; ``share`` (its weight in the mean); ``update_norm`` (L2 distance of its
        model from the global one); ``cosine`` (of its update with the weighted mean of all);
        ``accuracy_alone`` and ``accuracy_without`` (on `validation`, of the model after its update alone, and
        after the mean of all others).
    """
    process = build_fedavg(model, client_learning_rate=learning_rate, weight_decay=weight_decay)
    state = process.initialize()
    before = get_weights(model)
    sizes = np.asarray([len(y) for _, y in clients], np.float64)
    batches = make_client_batches(
        [(tf.constant(x), tf.constant(y)) for x, y in clients],
        0,
        local_epochs=local_epochs,
        batch_size=batch_size,
        augment=augment,
        seed=seed,
    )
    updates = []
    for dataset in batches:
        trained = process.get_model_weights(process.next(state, [dataset]).state).trainable
        updates.append([np.asarray(w) - b for w, b in zip(trained, before, strict=True)])
    flat = np.stack([np.concatenate([u.ravel() for u in update]) for update in updates])
    mean = (sizes[:, None] * flat).sum(axis=0) / sizes.sum()

    edges = np.cumsum([w.size for w in before])[:-1]

    def accuracy_of(update: np.ndarray) -> float:
        parts = np.split(update.astype(np.float32), edges)
        set_weights(model, [b + p.reshape(b.shape) for b, p in zip(before, parts, strict=True)])
        return evaluate(model, validation)["accuracy"]

    records = []
    for k, own in enumerate(flat):
        rest = sizes.copy()
        rest[k] = 0
        others = (rest[:, None] * flat).sum(axis=0) / rest.sum() if rest.sum() else np.zeros_like(own)
        records.append(
            {
                "num_images": int(sizes[k]),
                "share": float(sizes[k] / sizes.sum()),
                "update_norm": float(np.linalg.norm(own)),
                "cosine": float(own @ mean / (np.linalg.norm(own) * np.linalg.norm(mean) + 1e-12)),
                "accuracy_alone": accuracy_of(own),
                "accuracy_without": accuracy_of(others),
            }
        )
    set_weights(model, before)
    return records
