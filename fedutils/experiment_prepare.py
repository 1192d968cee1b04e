"""From the settings of an algorithm to what trains it: the process, and the way through its rounds.

The code of this file names the finished runs, as that of the training itself does: what a setting means is
decided here.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import functools
from collections.abc import Callable
from pathlib import Path

from fedutils.algorithms import build_process
from fedutils.communication import measure_messages
from fedutils.experiment_file import ALONE, Experiment
from fedutils.experiment_interface import Task
from fedutils.experiment_personal_runs import choose_at_home, run_own, run_started
from fedutils.experiment_rounds import choose_asked
from fedutils.experiment_runs import Federation, run_central, run_local, run_rounds
from fedutils.stateful import has_personal_weights

_STRENGTHS = ("proximal_strength", "calibration_strength")


def prepare(
    experiment: Experiment, task: Task, training: dict, find_start: Callable[[str, int], Path]
) -> Callable[[int, Path, str], dict]:
    """Return a function from (seed, folder, label) to what the run measured.

    Parameters
    ----------
    experiment : Experiment
    task : Task
    training : dict
        Of one algorithm of the experiment.
    find_start : callable
        From the name of an algorithm and a seed to the folder of that run, for what starts from it.
    """
    if training["algorithm"] in ALONE:
        alone = {"local": run_local, "central": run_central}[training["algorithm"]]
        return functools.partial(alone, task, training)
    start = training["start_from"]
    federated = experiment.algorithms[start] if start else training
    model = task.build_model(experiment.seeds[0])
    for seed in experiment.seeds:  # what does not fit is found now, not after hours
        choose_asked(experiment, task.count_examples(seed), seed)
    process = build_process(
        task.build_learner(model),
        algorithm=federated["algorithm"],
        client_optimizer=federated["client_optimizer"],
        client_learning_rate=federated["client_learning_rate"],
        decay_rounds=federated["num_rounds"] if federated["cosine"] else None,
        server_optimizer=federated["server_optimizer"],
        server_learning_rate=federated["server_learning_rate"],
        **{key: federated[key] for key in _STRENGTHS if federated[key] is not None},
        aggregator=federated["aggregator"],
        weighted=federated["weighted"],
        num_clients=len(task.count_examples(experiment.seeds[0])),
        at_home=choose_at_home(model, federated),
    )
    federation = Federation(experiment, task, federated, process, measure_messages(process))
    if start:
        return lambda seed, folder, label: run_started(
            federation,
            training,
            seed,
            folder,
            label,
            start_folder=find_start(start, seed),
        )
    return functools.partial(run_own if has_personal_weights(process) else run_rounds, federation)
