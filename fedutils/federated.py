"""Federated training: hospitals train where their images are, a server averages what they send.

The algorithm is a learning process of TensorFlow Federated (`fedutils.algorithms`); this file feeds it,
watches it and keeps its checkpoints. Call `fedutils.runtime.use` first: it says where TFF's computations run.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from fedutils.centralized import Arrays, evaluate, get_weights, set_weights
from fedutils.client_models import Validation, build_measure, check_finite, collect_weights, split_weights
from fedutils.data.pipeline import make_batches, seed_client
from fedutils.errors import InputError
from fedutils.locks import hold
from fedutils.round_store import RoundStore
from fedutils.runs import Run
from fedutils.stateful import StatefulProcess, advance, begin_rounds, get_global_weights
from fedutils.tff import tff


class Clients(Protocol):
    """What the clients of a federation train on: anything with these two."""

    num_clients: int

    def batches(self, client: int, round_number: int) -> tf.data.Dataset:
        """Return the batches of a client in a round (from 0), the same ones whenever it is asked."""


class ArrayClients:
    """Clients whose images are in memory.

    Parameters
    ----------
    arrays : list of (float32 (N, H, W, C), int32 (N,))
        One a client.
    batch_size : int
    local_epochs : int
        Passes of a client over its images in a round.
    augment : bool
        See `fedutils.data.pipeline.augment_batch`.
    seed : int
        Of order and augmentation; with the round and the client it decides every batch.
    """

    def __init__(
        self,
        arrays: list[Arrays],
        *,
        batch_size: int,
        local_epochs: int = 1,
        augment: bool = True,
        seed: int = 0,
    ):
        self._tensors = [(tf.convert_to_tensor(x), tf.convert_to_tensor(y)) for x, y in arrays]
        self._options = {"batch_size": batch_size, "epochs": local_epochs, "augment": augment}
        self._seed = seed

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self._tensors)

    @property
    def sizes(self) -> np.ndarray:
        """Number of images of each client, int64 (num_clients,)."""
        return np.asarray([len(y) for _, y in self._tensors])

    def batches(self, client: int, round_number: int) -> tf.data.Dataset:
        """Return the shuffled, augmented batches of a client in a round."""
        seed = seed_client(self._seed, round_number, client)
        return make_batches(*self._tensors[client], seed=seed, **self._options)


def sample_clients(
    num_clients: int, clients_per_round: int | None, round_number: int, seed: int
) -> list[int]:
    """Return the clients of a round, in order: all, or as many drawn without replacement.

    The draw follows from (seed, round) alone, so that a resumed run draws the same clients.
    """
    if clients_per_round is None or clients_per_round == num_clients:
        return list(range(num_clients))
    if not 1 <= clients_per_round <= num_clients:
        raise InputError(
            f"clients_per_round: expected 1 to {num_clients}, the number of clients, found "
            f"{clients_per_round}"
        )
    drawn = np.random.default_rng([seed, round_number]).choice(num_clients, clients_per_round, replace=False)
    return sorted(int(k) for k in drawn)


def train_federated(
    process: tff.learning.templates.LearningProcess | StatefulProcess,
    model: keras.Model,
    clients: Clients,
    validation: Validation | list[Validation],
    *,
    num_rounds: int,
    clients_per_round: int | None = None,
    participants: Callable[[int, Run], list[int]] | None = None,
    choose_by: str = "accuracy",
    seed: int = 0,
    folder: Path | None = None,
    settings: dict | None = None,
    label: str = "FedAvg",
) -> Run:
    """Run the rounds of a process, and leave the best round's weights in `model`.

    Parameters
    ----------
    process : LearningProcess or StatefulProcess
        From `fedutils.algorithms.build_process`, or any of TFF's own. One process serves many runs.
    model : keras.Model
        The model that the process was built from, or one built alike; its weights are where round 1 starts.
        Changed in place.
    clients : Clients
        `ArrayClients`, or any object with its two members, over any ``tf.data`` pipeline.
    validation : (float32 (M, H, W, C), int32 (M,)), or callable, or a list of such
        Images and labels for `fedutils.centralized.evaluate`, or a function from the model to named numbers.
        The best round is chosen by it; nothing is trained on it. A list has one entry a client: there the
        model that the client would use is measured, its own where it has one, and the means over the clients
        count. A process that gives clients models of their own needs a list.
    num_rounds : int
    clients_per_round : int, optional
        How many clients a round draws; by default all take part.
    participants : callable, optional
        Instead of that draw: from the round, from 0, and the run so far to the clients that take part, in
        ascending order. It must follow from these two, so that a resumed run draws the same.
    choose_by : str
        The validation quantity whose highest value marks the best round, or "-loss" for the lowest loss.
    seed : int
        Of the draw of clients.
    folder : Path, optional
        Gets a checkpoint after every round, ``rounds.csv``, TensorBoard's files, and ``model.keras`` in the
        end. If checkpoints are there, training goes on after the last one, and ends with the same weights as
        a run that was never stopped. Of a process with client states, a checkpoint holds those of all. Those
        of another run are refused, as far as it can be told: the number of clients, how those of a round and
        the best round are chosen, `settings`, and the shapes of weights and state are compared. Another
        process that trains there is waited for.
    settings : dict, optional
        What else defines the run, such as learning rates and the fingerprint of the data: plain values, kept
        with the checkpoints. `fedutils.runs.run_folder` gives each setting its own folder, which needs none.
    label : str
        On the progress bar.

    Returns
    -------
    Run
        With one record a round: ``round``; ``clients``, who took part; ``training_*``, the metrics of their
        batches while they train, of all and, in ``client_*``, of each; ``validation_*`` of the new global
        model, or their means over the clients, and ``each_validation_*``, with one entry a client;
        ``seconds``. Where clients have models of their own, its weights are those of the global model and
        then those of every client: see `fedutils.client_models.split_weights`.

    Raises
    ------
    InputError
        If the arguments do not fit the clients or the process, `participants` gives no round, or the folder
        holds another run, or more rounds than are asked for.
    DivergenceError
        If a round leaves a model that is not finite, the global one or one of a client's own; the rounds
        before it stay in the folder. A client whose update is not finite counts nothing, and stops nothing.
    """
    measure = build_measure(process, validation, clients.num_clients)
    state = begin_rounds(process, _read_weights(model), clients.num_clients)
    run = Run(num_rounds, choose_by, weights=collect_weights(process, state, clients.num_clients))
    identity = {
        "num_clients": clients.num_clients,
        "clients_per_round": clients_per_round,
        "participants": participants is not None,
        "choose_by": choose_by,
        "seed": seed,
        "settings": settings,
    }
    with hold(folder):  # another process may have this run in hand
        store = RoundStore(folder, identity) if folder else None
        if store:
            run, state = store.load(run, state)
        done, shown = len(run.history), f"validation_{choose_by.removeprefix('-')}"
        for r in (
            bar := tqdm(range(done, num_rounds), desc=label, unit="round", initial=done, total=num_rounds)
        ):
            start = time.perf_counter()
            if participants is None:
                chosen = sample_clients(clients.num_clients, clients_per_round, r, seed)
            else:
                chosen = _check_participants(participants(r, run), clients.num_clients, r)
            state, metrics = advance(process, state, chosen, [clients.batches(k, r) for k in chosen])
            weights = collect_weights(process, state, clients.num_clients)
            check_finite(weights, model, r + 1)
            measured = measure(model, state)
            entry = {
                "round": r + 1,
                "clients": chosen,
                **_name_metrics(metrics["client_work"]["train"]),
                **measured,
                "seconds": time.perf_counter() - start,
            }
            run.record(entry, weights)
            if store:
                store.save(run, state)
            bar.set_postfix(validation=f"{entry[shown]:.3f}")
        set_weights(model, split_weights(run, model)[0])
        if store:
            store.export(model)
        return run


def _check_participants(chosen, num_clients, round_number):
    chosen = [int(k) for k in chosen]
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < num_clients:
        raise InputError(
            f"participants({round_number}): expected one or more of the clients 0 to {num_clients - 1}, in "
            f"ascending order, found {chosen}; return such a list"
        )
    return chosen


def _read_weights(model):
    others = tuple(v.numpy() for v in model.non_trainable_variables)
    return tff.learning.models.ModelWeights(tuple(get_weights(model)), others)


def _name_metrics(metrics):
    """Flatten TFF's metrics to ``training_*``, one number each, and ``client_*``, one for each client."""
    entry = {}
    for name, value in metrics.items():
        if name == "per_client":
            entry |= {f"client_{key}": np.asarray(part).tolist() for key, part in value.items()}
        elif np.ndim(value) == 0:
            entry[f"training_{name}"] = np.asarray(value).item()
    return entry


def measure_contributions(
    process: tff.learning.templates.LearningProcess | StatefulProcess,
    model: keras.Model,
    clients: ArrayClients,
    validation: Arrays,
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
    before = get_weights(model)
    state = begin_rounds(process, _read_weights(model), clients.num_clients)
    sizes = clients.sizes.astype(np.float64)
    updates = []
    for k in range(clients.num_clients):
        after, _ = advance(process, state, [k], [clients.batches(k, 0)])
        trained = get_global_weights(process, after).trainable
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
        without = (rest[:, None] * flat).sum(axis=0) / rest.sum() if rest.sum() else np.zeros_like(own)
        records.append(
            {
                "num_images": int(sizes[k]),
                "share": float(sizes[k] / sizes.sum()),
                "update_norm": float(np.linalg.norm(own)),
                "cosine": float(own @ mean / (np.linalg.norm(own) * np.linalg.norm(mean) + 1e-12)),
                "accuracy_alone": accuracy_of(own),
                "accuracy_without": accuracy_of(without),
            }
        )
    set_weights(model, before)
    return records
