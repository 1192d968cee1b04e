"""What a result says of a run that is done, whatever was learned: its curve, its rounds, what they cost.

Kept apart from what trains, whose code names the finished runs: see `fedutils.runs.fingerprint_scores`.
"""

from fedutils.experiment_interface import Task  # first: TensorFlow

# isort: split
import numpy as np

from fedutils.experiment_rounds import Rounds
from fedutils.runs import Run


def describe_rounds(task: Task, training: dict, rounds: Rounds, run: Run, seed: int) -> dict:
    """Return what a result says of a federation: `describe_run`, who took part, and at what cost."""
    return {
        **describe_run(task, run, seed, "round", training["local_epochs"]),
        "participants": [entry["clients"] for entry in run.history],
        **rounds.measure(run),
    }


def describe_alone(task: Task, trained: list[Run], tests: list[dict], seed: int) -> dict:
    """Return what a result says of hospitals that each trained a network of their own, alone."""
    validation = [list_validation(run) for run in trained]
    told = task.describe_own(tests, seed)
    return {
        **describe_run(task, trained[0], seed, "epoch", 1),
        "rounds_done": min(len(run.history) for run in trained),
        "seconds": sum(run.curve("seconds").sum() for run in trained),
        "validation": {key: np.mean([one[key] for one in validation], axis=0) for key in validation[0]},
        "best_round": [run.best + 1 for run in trained],
        **told,
        "hospitals": {**told["hospitals"], "validation": validation},
    }


def describe_run(task: Task, run: Run, seed: int, unit: str, passes: int) -> dict:
    """Return what a result says of any training: rounds or epochs, validation, seconds, who held what."""
    return {
        "seed": seed,
        "unit": unit,
        "passes_per_step": passes,  # over the data, a round or an epoch
        "rounds_planned": run.planned,
        "rounds_done": len(run.history),
        "validation": list_validation(run),
        "seconds": run.curve("seconds").sum(),
        "partition": task.describe_partition(seed),
    }


def list_validation(run: Run) -> dict[str, list[float]]:
    """Return the validation quantities of a run, a list over its rounds or epochs each."""
    prefix = "validation_"
    names = [name for name in run.history[0] if name.startswith(prefix)]
    return {name.removeprefix(prefix): run.curve(name).tolist() for name in names}
