"""One seed of an experiment: a federation, each hospital alone, or all data in one place; then the test.

What is learned, the task knows (`fedutils.experiment_task`); what is written down, `fedutils.experiments`.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from pathlib import Path

import numpy as np

from fedutils.centralized import set_weights
from fedutils.communication import Messages
from fedutils.experiment_file import Experiment
from fedutils.experiment_rounds import plan_rounds
from fedutils.experiment_task import Task
from fedutils.federated import train_federated
from fedutils.runs import Run, load_run, save_run


def run_rounds(
    experiment: Experiment,
    task: Task,
    training: dict,
    process,
    messages: Messages,
    seed: int,
    folder: Path,
    label: str,
) -> dict:
    """Run a federated algorithm whose hospitals share one model.

    The best round up to a reported one is found by stopping there, and going on: a run that is stopped and
    resumed is the run that never was.
    """
    plan = plan_rounds(experiment, training, task.count_examples(seed), seed, messages)
    clients = plan.wrap(task.make_clients(seed, training))
    stops = [r for r in experiment.report_rounds if r < training["num_rounds"]]
    reported = {}
    for stop in (*stops, training["num_rounds"]):
        network, file = task.build_model(seed), folder / f"report_{stop}.npz"
        if stop in stops and file.exists():
            run = load_run(file, stop)
            set_weights(network, run.weights)
        else:
            run = train_federated(
                process,
                network,
                clients,
                lambda model: task.validate(model, seed),
                num_rounds=stop,
                participants=plan.participants,
                choose_by=training["choose_by"],
                seed=seed,
                folder=folder,
                label=label,
            )
            if stop in stops:
                save_run(file, run)
        reported[stop] = {
            "best_round": run.best + 1,
            **task.describe_shared(task.test(network, seed), seed),
        }
    last = reported.pop(training["num_rounds"])
    return {
        **describe_run(task, run, seed, "round", training["local_epochs"]),
        **last,
        "after": {str(stop): value for stop, value in reported.items()},
        "participants": [entry["clients"] for entry in run.history],
        **plan.measure(run),
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
