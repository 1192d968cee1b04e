"""One seed of an algorithm that ends in a model of each hospital's own; then the test of each.

Two ways: hospitals keep something at home while the federation goes on (FedPer, FedBN, Ditto), or each goes
on alone from what a federation ended with: by training (fine-tuning), or by putting its own mixture of
classes into a model that was made without one (`fedutils.fedlc`). See `fedutils.personalise`.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from pathlib import Path

import keras
import numpy as np

from fedutils.centralized import get_weights, set_weights
from fedutils.client_models import split_weights
from fedutils.experiment_runs import Federation
from fedutils.experiment_told import describe_alone, describe_rounds
from fedutils.fedlc import STRENGTH
from fedutils.personalise import select_head


def choose_at_home(model: keras.Model, training: dict) -> tuple[int, ...] | None:
    """Return the positions of the weights that stay at home; None leaves it to the algorithm."""
    layers = training["head_layers"]
    if training["algorithm"] != "fedper" or layers is None:
        return None
    return select_head(model, layers) if layers else ()


def run_own(federation: Federation, seed: int, folder: Path, label: str) -> dict:
    """Run a federated algorithm whose hospitals have models of their own.

    The round is one for all, the best mean over hospitals of the accuracy on their own validation images.
    """
    task = federation.task
    network, validations = task.build_model(seed), task.list_validations(seed)
    rounds, clients = federation.open(seed)
    run = federation.train(rounds, clients, network, validations, seed=seed, folder=folder, label=label)
    tests = []
    for weights in split_weights(run, network)[1]:
        set_weights(network, weights)
        tests.append(task.test(network, seed))
    return {
        **describe_rounds(task, federation.training, rounds, run, seed),
        "best_round": run.best + 1,
        **task.describe_own(tests, seed),
    }


def run_started(
    federation: Federation, training: dict, seed: int, folder: Path, label: str, *, start_folder: Path
) -> dict:
    """Go on at every hospital alone, from the best round of a federation; each chooses its own epoch.

    With the algorithm own_mixture there is nothing to train or choose.

    Parameters
    ----------
    federation : Federation
        The one that ``start_from`` names.
    training : dict
        Of what follows the federation.
    seed : int
    folder : Path
        Of what follows the federation.
    label : str
    start_folder : Path
        Of the federation's run: if it is there it is read, else trained, and found there by whoever asks for
        it next. A process that trains it is waited for.

    Returns
    -------
    dict
        As of training alone; ``best_round`` counts epochs, and 0 is the federation's model. ``start`` says
        from which round that is; ``bytes`` are the federation's, since tuning sends nothing.
    """
    task = federation.task
    network = task.build_model(seed)
    rounds, clients = federation.open(seed)
    run = federation.train(
        rounds,
        clients,
        network,
        lambda model: task.validate(model, seed),
        seed=seed,
        folder=start_folder,
        label=f"{label}: {training['start_from']}",
    )
    begun, trained, tests = get_weights(network), [], []
    strength = federation.training["calibration_strength"]
    strength = STRENGTH if strength is None else strength  # as the process has it
    for k in range(len(task.hold(seed))):
        set_weights(network, begun)
        if training["algorithm"] == "own_mixture":
            task.put_mixture(network, k, seed, strength, federation.training["local_epochs"])
        place = folder / f"hospital_{k + 1}"
        trained.append(task.tune(network, k, seed, training, place, f"{label}, hospital {k + 1}"))
        tests.append(task.test(network, seed))
    return {
        **describe_alone(task, trained, tests, seed),
        "rounds_done": min(len(tuned.history) for tuned in trained) - 1,
        "best_round": [tuned.best for tuned in trained],
        "start": {
            "algorithm": training["start_from"],
            "best_round": run.best + 1,
            "rounds_done": len(run.history),
            "seconds": float(np.sum(run.curve("seconds"))),
        },
        **rounds.measure(run),
    }
