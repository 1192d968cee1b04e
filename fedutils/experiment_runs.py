"""One seed of an experiment: a federation, each hospital alone, or all data in one place; then the test.

What is learned, the task knows (`fedutils.experiment_task`); what is said of it, `fedutils.experiment_told`;
what is written down, `fedutils.experiments`.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from fedutils.centralized import set_weights
from fedutils.communication import Messages
from fedutils.experiment_file import Experiment
from fedutils.experiment_interface import Task
from fedutils.experiment_rounds import Rounds, plan_rounds
from fedutils.experiment_told import describe_alone, describe_rounds, describe_run
from fedutils.federated import Clients, train_federated
from fedutils.runs import Run, load_run, save_run
from fedutils.stateful import StatefulProcess
from fedutils.tff import tff


class Federation(NamedTuple):
    """A federated algorithm of an experiment, built: what the runs of all its seeds share.

    Attributes
    ----------
    experiment : Experiment
    task : Task
    training : dict
        The algorithm's own, see `fedutils.experiment_file.Experiment`.
    process : LearningProcess or StatefulProcess
    messages : Messages
        Of the process.
    """

    experiment: Experiment
    task: Task
    training: dict
    process: tff.learning.templates.LearningProcess | StatefulProcess
    messages: Messages

    def open(self, seed: int) -> tuple[Rounds, Clients]:
        """Return how the rounds of a seed go, and the hospitals that take part in them."""
        sizes = self.task.count_examples(seed)
        rounds = plan_rounds(self.experiment, self.training, sizes, seed, self.messages)
        return rounds, rounds.wrap(self.task.make_clients(seed, self.training))

    def train(
        self,
        rounds: Rounds,
        clients: Clients,
        network: keras.Model,
        validation,
        *,
        seed: int,
        folder: Path,
        label: str,
        num_rounds: int | None = None,
    ) -> Run:
        """Train a network over the clients, all rounds or the first ones; see `train_federated`."""
        return train_federated(
            self.process,
            network,
            clients,
            validation,
            num_rounds=self.training["num_rounds"] if num_rounds is None else num_rounds,
            participants=rounds.participants,
            choose_by=self.training["choose_by"],
            seed=seed,
            folder=folder,
            label=label,
        )


def run_rounds(federation: Federation, seed: int, folder: Path, label: str) -> dict:
    """Run a federated algorithm whose hospitals share one model.

    The best round up to a reported one is found by stopping there, and going on: a run that is stopped and
    resumed is the run that never was.
    """
    task, planned = federation.task, federation.training["num_rounds"]
    rounds, clients = federation.open(seed)
    stops = [r for r in federation.experiment.report_rounds if r < planned]
    reported = {}
    for stop in (*stops, planned):
        network, file = task.build_model(seed), folder / f"report_{stop}.npz"
        if stop in stops and file.exists():
            run = load_run(file, stop)
            set_weights(network, run.weights)
        else:
            run = federation.train(
                rounds,
                clients,
                network,
                lambda model: task.validate(model, seed),
                seed=seed,
                folder=folder,
                label=label,
                num_rounds=stop,
            )
            if stop in stops:
                save_run(file, run)
        reported[stop] = {
            "best_round": run.best + 1,
            **task.describe_shared(task.test(network, seed), seed),
        }
    last = reported.pop(planned)
    return {
        **describe_rounds(task, federation.training, rounds, run, seed),
        **last,
        "after": {str(stop): value for stop, value in reported.items()},
    }


def run_central(task: Task, training: dict, seed: int, folder: Path, label: str) -> dict:
    """Train on the data of all hospitals in one place."""
    network = task.build_model(seed)
    chosen = np.sort(np.concatenate(task.deal(seed)))
    run = task.train_alone(network, chosen, seed, training, folder, label)
    return {
        **describe_run(task, run, seed, "epoch", 1),
        "best_round": run.best + 1,
        **task.describe_shared(task.test(network, seed), seed),
    }


def run_local(task: Task, training: dict, seed: int, folder: Path, label: str) -> dict:
    """Train each hospital alone; the test is the mean over hospitals, each with its own best epoch.

    That epoch is chosen on the validation data of all, as everywhere: a hospital that holds one class, or one
    patient, could choose nothing by its own. So what is called local here is, if anything, too good. Where
    hospitals hold out images of their own (`fedutils.experiment_personal`), each chooses by these.
    """
    trained, tests = [], []
    for k, chosen in enumerate(task.deal(seed)):
        network, place = task.build_model(seed), folder / f"hospital_{k + 1}"
        run = task.train_alone(network, chosen, seed, training, place, f"{label}, hospital {k + 1}")
        trained.append(run)
        tests.append(task.test(network, seed))
    return describe_alone(task, trained, tests, seed)
