"""What an experiment may name, and what does not fit: found before anything is read or trained."""

from fedutils.algorithms import ALGORITHMS
from fedutils.errors import InputError
from fedutils.experiment_file import ALONE, PERSONAL, STARTED, Experiment

# Models of each hospital's own are measured on its own images, which is another question: `check_personal`
# refuses them where hospitals hold out none.
NAMED = (*ALGORITHMS, *STARTED, *ALONE)


def check_algorithm(experiment: Experiment, name: str) -> None:
    """Raise `InputError` where a run of the file names no algorithm, or one that does not fit."""
    algorithm = experiment.algorithms[name]["algorithm"]
    if algorithm not in NAMED:
        raise InputError(
            f"{experiment.where}: {name}: expected an algorithm of {', '.join(NAMED)}, found {algorithm!r}; "
            "mend it"
        )
    check_personal(experiment, name)


def check_personal(experiment: Experiment, name: str) -> None:
    """Raise `InputError` where an algorithm does not fit the experiment's hospitals, or names no start."""
    training, where = experiment.algorithms[name], f"{experiment.where}: {name}"
    if experiment.is_personal and experiment.report_rounds:
        raise InputError(f"{experiment.where}: expected no report_rounds with own_test_fraction; remove them")
    if training["start_from"] is not None and training["algorithm"] not in STARTED:
        raise InputError(
            f"{where}: expected start_from with {' or '.join(STARTED)} alone, found it with "
            f"{training['algorithm']}; remove it"
        )
    if training["algorithm"] not in PERSONAL:
        return
    if not experiment.is_personal:
        raise InputError(
            f"{where}: expected data.own_test_fraction, since a model of each hospital's own is measured on "
            "its own images, found none; add it"
        )
    if training["algorithm"] not in STARTED:
        return
    by_mixture = training["algorithm"] == "own_mixture"
    shared = [
        name
        for name, other in experiment.algorithms.items()
        if other["algorithm"] not in (*PERSONAL, *ALONE) and (other["algorithm"] == "fedlc" or not by_mixture)
    ]
    if training["start_from"] not in shared:
        kind = "run of fedlc" if by_mixture else "federated run of one model for all"
        raise InputError(
            f"{where}: start_from: expected a {kind}, of the file's {', '.join(shared) or 'none'}, found "
            f"{training['start_from']!r}; mend it"
        )
