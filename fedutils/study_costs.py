"""Time to accuracy: the rounds, bytes and simulated seconds until a validation accuracy is reached.

A round is cheap or dear: SCAFFOLD sends twice what FedAvg sends, and a hospital that holds most of the images
holds up a synchronous round. So three clocks run beside each other.
"""

from collections.abc import Sequence

import numpy as np

from fedutils.errors import InputError
from fedutils.study import NAMES, is_federated, list_runs

MB = 1e6
# Of each clock: the words for an axis.
CLOCKS = {
    "rounds": "rounds",
    "megabytes": "MB, all hospitals",
    "seconds": "seconds, simulated",
}


def compute_costs(run: dict, lines=None) -> dict[str, np.ndarray | None]:
    """Return what a federated run had cost after each of its rounds.

    Parameters
    ----------
    run : dict
        One seed of a federated result.
    lines : fedutils.communication.Lines, optional
        For the seconds of a run that was not simulated over lines of its own.

    Returns
    -------
    dict of str to float64 (rounds,) or None
        By `CLOCKS`, added up: ``rounds``; ``megabytes``, None where it is not known what hospitals send, as
        of a secure sum (where hospitals failed after they had received the model, what they received is
        spread over the rounds as what was sent is); ``seconds``, None without lines.

    Raises
    ------
    InputError
        If seconds are asked for of a run that is not of a classification.
    """
    took_part = np.asarray([len(clients) for clients in run["participants"]], np.float64)
    sent = run["bytes"]
    megabytes = None
    if sent["up_total"] is not None:
        each = (sent["down_total"] + sent["up_total"]) / took_part.sum()
        megabytes = np.cumsum(took_part) * each / MB
    seconds = _list_seconds(run, lines)
    return {
        "rounds": np.arange(1.0, len(took_part) + 1),
        "megabytes": megabytes,
        "seconds": None if seconds is None else np.cumsum(seconds),
    }


def _list_seconds(run, lines):
    """Return the seconds of each round: the run's own simulation, or one over the given lines."""
    if run["simulated_s"] is not None:
        return np.asarray(run["simulated_s"]["rounds"], np.float64)
    if lines is None or run["bytes"]["up_total"] is None:
        return None
    from fedutils.communication import (  # here: it loads TensorFlow, which a README does not need
        Messages,
        compute_client_seconds,
        simulate_rounds,
    )

    messages = Messages(run["bytes"]["down_per_client"], run["bytes"]["up_per_client"])
    num_images = count_images(run) * run["passes_per_step"]
    return simulate_rounds(compute_client_seconds(messages, num_images, lines), run["participants"])


def count_images(run: dict) -> np.ndarray:
    """Return the training images of each hospital, float64 (clients,).

    Raises
    ------
    InputError
        If the run is of another task than the classification of images.
    """
    if "counts" not in run["partition"]:
        raise InputError(
            "partition: expected images by class, as of a classification, found "
            f"{', '.join(sorted(run['partition']))}; leave out what segments tumours"
        )
    return np.asarray(run["partition"]["counts"], np.float64).sum(axis=1)


def find_round(run: dict, target: float) -> int | None:
    """Return the first round, from 1, whose validation accuracy is at least `target`; None if none is.

    Raises
    ------
    InputError
        If the run has no accuracy.
    """
    if "accuracy" not in run["validation"]:
        raise InputError(
            f"validation: expected accuracy, as of a classification, found {', '.join(run['validation'])}; "
            "leave out what segments tumours"
        )
    reached = np.flatnonzero(np.asarray(run["validation"]["accuracy"], np.float64) >= target)
    return int(reached[0]) + 1 if len(reached) else None


def measure_time_to(records: Sequence[dict], target: float, lines=None) -> list[dict]:
    """Measure the time to a validation accuracy of every federated result.

    Parameters
    ----------
    records : sequence of dict
    target : float
        Validation accuracy, 0 to 1.
    lines : fedutils.communication.Lines, optional

    Returns
    -------
    list of dict
        One a federated result: ``experiment``, ``algorithm``, ``name``, ``target``, the ``seeds`` done, how
        many of them ``reached`` the target, and by clock (`CLOCKS`) a list with one number a seed, None of
        a seed that did not reach it or a clock that is not known; ``rounds_done`` by seed.
    """
    told = []
    for record in filter(is_federated, records):
        runs = list_runs(record)
        rounds = [find_round(run, target) for run in runs]
        costs = [compute_costs(run, lines) for run in runs]
        told.append(
            {
                "experiment": record["experiment"],
                "title": record["title"],
                "algorithm": record["algorithm"],
                "name": NAMES.get(record["algorithm"], record["algorithm"]),
                "target": target,
                "seeds": record["seeds"],
                "rounds_done": [run["rounds_done"] for run in runs],
                "reached": sum(r is not None for r in rounds),
                **{
                    clock: [_at(cost[clock], r) for cost, r in zip(costs, rounds, strict=True)]
                    for clock in CLOCKS
                },
            }
        )
    return told


def _at(values, round_number):
    return None if values is None or round_number is None else float(values[round_number - 1])
