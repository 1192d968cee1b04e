"""How the rounds of a federated experiment go: who takes part, with how much work, at what cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedutils.communication import (
    Lines,
    Messages,
    compute_client_seconds,
    compute_transfer_seconds,
    simulate_rounds,
    sum_bytes,
)
from fedutils.errors import InputError
from fedutils.experiment_file import Experiment
from fedutils.participation import (
    PartialClients,
    Participants,
    choose_at_random,
    choose_by_loss,
    choose_by_size,
    count_batches_in_time,
    draw_speeds,
    replay,
    with_deadline,
    with_dropout,
)
from fedutils.runs import Run

# isort: split
import numpy as np


@dataclass(frozen=True)
class Rounds:
    """The plan of a run's rounds.

    Attributes
    ----------
    asked : callable
        Who receives the model in a round: chosen, and not failed.
    participants : callable
        Who sends an update: of those, who is not left out as late.
    messages : Messages
    limits : int (num_clients,), optional
        Batches for which each hospital has time, where late ones do part of their work.
    seconds : float (num_clients,), optional
        Of a round at each hospital; None: no time is simulated.
    deadline : float, optional
        In seconds.
    """

    asked: Participants
    participants: Participants
    messages: Messages
    limits: np.ndarray | None = None
    seconds: np.ndarray | None = None
    deadline: float | None = None

    def wrap(self, clients):
        """Return the clients, with part of their work where they are late."""
        return clients if self.limits is None else PartialClients(clients, self.limits)

    def measure(self, run: Run) -> dict:
        """Return what a run that is done cost: ``bytes``, and ``simulated_s``, None without a network."""
        asked = replay(self.asked, run)
        sent = [entry["clients"] for entry in run.history]
        measured = {"bytes": sum_bytes(self.messages, sent, asked), "simulated_s": None}
        if self.seconds is not None:
            rounds = simulate_rounds(self.seconds, asked, self.deadline)
            measured["simulated_s"] = {"rounds": rounds, "total": rounds.sum(), "clients": self.seconds}
        return measured


def plan_rounds(
    experiment: Experiment, training: dict, sizes: Sequence[int], seed: int, messages: Messages
) -> Rounds:
    """Put together what an experiment says of participation and network.

    Parameters
    ----------
    experiment : Experiment
    training : dict
        Of one algorithm.
    sizes : sequence of int
        Images of each hospital.
    seed : int
        Of choices, failures and speeds.
    messages : Messages

    Raises
    ------
    InputError
        If the settings do not fit each other or the number of hospitals, or a time is asked for where the
        size of the messages is not known.
    """
    if experiment.network is None:
        asked = choose_asked(experiment, sizes, seed)
        return Rounds(asked, asked, messages)
    lines = _draw_lines(experiment.network, len(sizes), seed)
    num_images = np.asarray(sizes) * training["local_epochs"]
    seconds = compute_client_seconds(messages, num_images, lines)
    deadline, late = (experiment.participation[key] for key in ("deadline_s", "late"))
    left_out = deadline is not None and late == "left_out"
    asked = choose_asked(experiment, sizes, seed, on_time=seconds <= deadline if left_out else None)
    if deadline is None:
        return Rounds(asked, asked, messages, seconds=seconds)
    if left_out:
        on_time = with_deadline(asked, seconds, deadline)
        return Rounds(asked, on_time, messages, seconds=seconds, deadline=deadline)
    transfer = compute_transfer_seconds(messages, len(sizes), lines)
    limits = count_batches_in_time(lines.images_per_s, transfer, deadline, training["batch_size"])
    done = np.minimum(num_images, limits * training["batch_size"])
    return Rounds(asked, asked, messages, limits, compute_client_seconds(messages, done, lines))


def choose_asked(
    experiment: Experiment, sizes: Sequence[int], seed: int, *, on_time: Sequence[bool] | None = None
) -> Participants:
    """Return the choice of those who receive the model: by the strategy, less those that fail.

    Parameters
    ----------
    experiment : Experiment
    sizes : sequence of int
        Images of each hospital.
    seed : int
    on_time : sequence of bool, optional
        For the strategy by_loss, which asks others last, see `fedutils.participation.choose_by_loss`.

    Raises
    ------
    InputError
        If the settings do not fit each other or the number of hospitals.
    """
    settings, where = experiment.participation, f"{experiment.where}: participation"
    count, strategy = settings["clients_per_round"], settings["strategy"]
    if settings["num_candidates"] is not None and strategy != "by_loss":
        raise InputError(
            f"{where}: expected num_candidates with the strategy by_loss, found it with {strategy}; remove it"
        )
    if strategy == "by_loss" and count is None:
        raise InputError(f"{where}: expected clients_per_round with the strategy by_loss, found none; add it")
    if strategy == "random":
        chosen = choose_at_random(len(sizes), count, seed=seed)
    elif strategy == "by_size":
        chosen = choose_by_size(sizes, count, seed=seed)
    else:
        candidates = settings["num_candidates"]
        chosen = choose_by_loss(sizes, count, num_candidates=candidates, on_time=on_time, seed=seed)
    return with_dropout(chosen, settings["dropout"], seed=seed) if settings["dropout"] else chosen


def _draw_lines(network, num_clients, seed) -> Lines:
    speeds = draw_speeds(
        num_clients, median=network["images_per_s"], spread=network["speed_spread"], seed=seed
    )
    return Lines(network["down_mbit_s"], network["up_mbit_s"], speeds, network["latency_s"])
