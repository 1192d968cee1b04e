"""The models that clients use, the server's or their own: how they are validated and kept in a run."""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from collections.abc import Callable

import keras
import numpy as np

from fedutils.centralized import Arrays, evaluate
from fedutils.errors import DivergenceError, InputError
from fedutils.keras_tff import assign_weights
from fedutils.runs import Run
from fedutils.stateful import get_client_weights, get_global_weights, has_personal_weights

# Images and labels, or a function from a model to named numbers.
Validation = Arrays | Callable[[keras.Model], dict[str, float]]


def collect_weights(process, state, num_clients: int) -> list[np.ndarray]:
    """List the trainable weights of the global model, then of each client's own if it has one."""
    weights = list(get_global_weights(process, state).trainable)
    if has_personal_weights(process):
        for k in range(num_clients):
            weights += get_client_weights(process, state, k).trainable
    return [np.asarray(w) for w in weights]


def check_finite(weights: list[np.ndarray], model: keras.Model, round_number: int) -> None:
    """Refuse weights that are no numbers: measured, such a model answers one class and has an accuracy.

    Parameters
    ----------
    weights : list of ndarray
        From `collect_weights`.
    model : keras.Model
        One that has them.
    round_number : int
        From 1.

    Raises
    ------
    DivergenceError
        If one is infinite or not a number.
    """
    for i, weight in enumerate(weights):
        if not np.isfinite(weight).all():
            owner = i // len(model.trainable_variables)
            whose = f"client {owner - 1}'s own" if owner else "the global"
            raise DivergenceError(
                f"round {round_number}: expected finite weights of {whose} model, found "
                f"{weight[~np.isfinite(weight)][0]}; lower the learning rate of the clients or of the server"
            )


def build_measure(process, validation: Validation | list[Validation], num_clients: int) -> Callable:
    """Return a function that measures the models of a round.

    Parameters
    ----------
    process : LearningProcess or StatefulProcess
    validation : Validation or list of Validation
        Of the global model; or one a client, for the model that this client would use.
    num_clients : int

    Returns
    -------
    callable
        From (model, state) to ``validation_*``, and with a list to their means over the clients and
        ``each_validation_*``, with one entry a client. It changes the model's weights.

    Raises
    ------
    InputError
        If the list has another length, or there is none though clients have models of their own.
    """

    def measure_one(model, weights, part):
        assign_weights(model, weights)
        measured = part(model) if callable(part) else evaluate(model, part)
        return {f"validation_{name}": float(value) for name, value in measured.items()}

    def measure_global(model, state):
        return measure_one(model, get_global_weights(process, state), validation)

    def measure_each(model, state):
        weights = (get_client_weights(process, state, k) for k in range(num_clients))
        each = [measure_one(model, w, part) for w, part in zip(weights, validation, strict=True)]
        columns = {name: [one[name] for one in each] for name in each[0]}
        means = {name: float(np.mean(values)) for name, values in columns.items()}
        return means | {f"each_{name}": values for name, values in columns.items()}

    if isinstance(validation, list):
        if len(validation) != num_clients:
            raise InputError(
                f"validation: expected a list of {num_clients}, one entry a client, found {len(validation)}; "
                "give as many"
            )
        return measure_each
    if has_personal_weights(process):
        raise InputError(
            "validation: expected a list with one entry a client, since each client has a model of its own, "
            "found one for all; give each client its own"
        )
    return measure_global


def split_weights(run: Run, model: keras.Model) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Return the global model's weights and those of each client, in order, at a run's best round.

    Parameters
    ----------
    run : Run
        From `fedutils.federated.train_federated`. If clients have no models of their own, the second list is
        empty.
    model : keras.Model
        The one that was trained; it is not changed. `fedutils.centralized.set_weights` takes each of the
        results.
    """
    size = len(model.trainable_variables)
    parts = [run.weights[i : i + size] for i in range(0, len(run.weights), size)]
    return parts[0], parts[1:]
