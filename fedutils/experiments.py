"""Experiments run from their files: each algorithm and seed trained, tested once, and written down.

``run_experiment("brain_mri_iid")`` trains every algorithm of the file with every seed, and writes one JSON an
algorithm after each seed. A run that is killed goes on from its last round; what is finished is read.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedutils import paths, runtime
from fedutils.algorithms import ALGORITHMS, build_process
from fedutils.centralized import set_weights
from fedutils.communication import Messages, measure_messages
from fedutils.errors import InputError
from fedutils.experiment_file import ALONE, Experiment, load_experiment
from fedutils.experiment_rounds import choose_asked, plan_rounds
from fedutils.experiment_task import Classification, load_task
from fedutils.federated import train_federated
from fedutils.metrics import summarise
from fedutils.results import git_commit, machine, to_json, versions, write_atomic
from fedutils.runs import Run, load_run, run_folder, save_run

# What an experiment may name: whatever ends in one model for all. Models of each hospital's own are measured
# on its own images, which is another question.
NAMED = (*(name for name in ALGORITHMS if name not in ("fedper", "fedbn", "ditto")), *ALONE)
SUMMARISED = ("accuracy", "precision", "recall", "f1", "auc", "ece")


def run_experiment(
    source: Path | str | dict,
    *,
    algorithms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    folder: Path | None = None,
) -> dict[str, dict]:
    """Run an experiment, in process; `fedutils.notebook.start` before it makes TensorFlow deterministic.

    Parameters
    ----------
    source : Path, str or dict
        See `fedutils.experiment_file.load_experiment`.
    algorithms : sequence of str, optional
        Those of the file by default.
    seeds : sequence of int, optional
        Those of the file by default. What the result already holds, of these and of others, is not run again
        as long as data, settings and code are the same.
    folder : Path, optional
        Of the results; ``experiments`` among the results of the current run by default.

    Returns
    -------
    dict of str to dict
        By algorithm, what ``<name>-<algorithm>.json`` holds: ``settings``; ``seeds`` done and
        ``seeds_planned``; ``rounds_planned``; ``data``; ``runs`` by seed, each with the commit that made
        it (``git``), ``rounds_done``, ``best_round``, ``validation`` by round, ``test`` and ``hospitals``,
        after ``report_rounds`` too, ``partition``, ``bytes``, ``simulated_s``; and ``summary`` over seeds.

    Raises
    ------
    InputError
        If the file, the data or an argument is wrong.
    """
    experiment = load_experiment(source)
    algorithms = _pick("algorithm", algorithms, experiment.algorithms)
    seeds = _pick("seed", seeds, experiment.seeds)
    for name in algorithms:
        algorithm = experiment.algorithms[name]["algorithm"]
        if algorithm not in NAMED:
            raise InputError(
                f"{experiment.where}: {name}: expected an algorithm of {', '.join(NAMED)}, found "
                f"{algorithm!r}; mend it"
            )
    folder = paths.results_dir() / "experiments" if folder is None else Path(folder)
    runtime.use("in_process")
    task = load_task(experiment)
    return {name: _run_family(experiment, task, name, seeds, folder) for name in algorithms}


def _pick(what, asked, known):
    if asked is None:
        return tuple(known)
    for one in asked:
        if one not in known:
            raise InputError(
                f"{what}: expected one of the file's {', '.join(map(str, known))}, found {one!r}; add it to "
                "the file, or choose another"
            )
    return tuple(asked)


def _run_family(experiment, task, algorithm, seeds, folder) -> dict:
    """Run every seed of one algorithm; write the result after each."""
    name = f"{experiment.name}-{algorithm}"
    settings, training = experiment.describe(algorithm), experiment.algorithms[algorithm]
    kept = {
        seed: run_folder(
            f"experiment-{name}", {**settings, "seed": seed, "provenance": task.provenance}, task.CODE
        )
        for seed in experiment.seeds
    }
    path = folder / f"{name}.json"
    runs = _read_finished(path, {str(seed): run.name for seed, run in kept.items()})
    trainer, record = None, None
    for seed in seeds:
        if str(seed) not in runs:
            trainer = trainer or _prepare(experiment, task, training)
            measured = trainer(seed, kept[seed], f"{name}, seed {seed}")
            runs[str(seed)] = {
                "run": kept[seed].name,
                "git": git_commit(),
                "machine": machine(),
                **measured,
            }
        record = {
            "name": name,
            "title": experiment.title,
            "experiment": experiment.name,
            "algorithm": algorithm,
            "settings": settings,
            "seeds": sorted(map(int, runs)),
            "seeds_planned": list(experiment.seeds),
            "rounds_planned": training["num_rounds"],
            "data": task.provenance,
            "runs": runs,
            "summary": summarise_runs([runs[key] for key in sorted(runs, key=int)]),
            "versions": versions(),
        }
        write_atomic(path, to_json(record).encode())
    return json.loads(to_json(record))


def _read_finished(path, names) -> dict[str, dict]:
    """Return the runs of an earlier result, by seed, that are what would be run today."""
    try:
        found = json.loads(path.read_text())["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {seed: run for seed, run in found.items() if run["run"] == names.get(seed)}


def _prepare(experiment: Experiment, task: Classification, training: dict):
    """Return a function from (seed, folder, label) to what the run measured."""
    if training["algorithm"] == "local":
        return lambda seed, folder, label: _run_local(task, training, seed, folder, label)
    if training["algorithm"] == "central":
        return lambda seed, folder, label: _run_central(task, training, seed, folder, label)
    model = task.build_model(experiment.seeds[0])
    for seed in experiment.seeds:  # what does not fit is found now, not after hours
        choose_asked(experiment, _count_images(task, seed), seed)
    process = build_process(
        model,
        algorithm=training["algorithm"],
        client_optimizer=training["client_optimizer"],
        client_learning_rate=training["client_learning_rate"],
        decay_rounds=training["num_rounds"] if training["cosine"] else None,
        server_optimizer=training["server_optimizer"],
        server_learning_rate=training["server_learning_rate"],
        proximal_strength=training["proximal_strength"],
        aggregator=training["aggregator"],
        weighted=training["weighted"],
        num_clients=experiment.partition["num_clients"],
    )
    messages = measure_messages(process)
    return lambda seed, folder, label: _run_rounds(
        experiment, task, training, process, messages, seed, folder, label
    )


def _count_images(task: Classification, seed: int) -> list[int]:
    """Return the number of training images of each hospital."""
    return task.count(seed).sum(axis=1).tolist()


def _run_rounds(experiment, task, training, process, messages: Messages, seed, folder, label) -> dict:
    """Run one seed of a federated algorithm.

    The best round up to a reported one is found by stopping there, and going on: a run that is stopped and
    resumed is the run that never was.
    """
    plan = plan_rounds(experiment, training, _count_images(task, seed), seed, messages)
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
        reported[stop] = {"best_round": run.best + 1, **_measure(task, network, seed)}
    last = reported.pop(training["num_rounds"])
    return {
        **_describe(task, run, seed, "round", training["local_epochs"]),
        **last,
        "after": {str(stop): value for stop, value in reported.items()},
        "participants": [entry["clients"] for entry in run.history],
        **plan.measure(run),
    }


def _run_central(task, training, seed, folder, label) -> dict:
    """Train on the images of all hospitals in one place."""
    network = task.build_model(seed)
    chosen = np.sort(np.concatenate(task.deal(seed)))
    run = task.train_alone(network, chosen, seed, training, folder, label)
    return {
        **_describe(task, run, seed, "epoch", 1),
        "best_round": run.best + 1,
        **_measure(task, network, seed),
    }


def _run_local(task, training, seed, folder, label) -> dict:
    """Train each hospital alone; the test is the mean over hospitals, each with its own best epoch.

    That epoch is chosen on the validation images of all, as everywhere: a hospital that holds one class could
    choose nothing by its own. So what is called local here is, if anything, too good.
    """
    trained, tests = [], []
    for k, chosen in enumerate(task.deal(seed)):
        network, place = task.build_model(seed), folder / f"hospital_{k + 1}"
        run = task.train_alone(network, chosen, seed, training, place, f"{label}, hospital {k + 1}")
        trained.append(run)
        tests.append(task.test(network, seed))
    parts = {part: [test[part] for test in tests] for part in tests[0]}
    own = {
        part: [task.weigh_by_mixture(one, seed)[k] for k, one in enumerate(ones)]
        for part, ones in parts.items()
    }
    means = {
        part: {key: _mean([one[key] for one in ones]) for key in SUMMARISED} for part, ones in parts.items()
    }
    validation = [_list_validation(run) for run in trained]
    return {
        **_describe(task, trained[0], seed, "epoch", 1),
        "rounds_done": min(len(run.history) for run in trained),
        "seconds": sum(run.curve("seconds").sum() for run in trained),
        "validation": {key: np.mean([one[key] for one in validation], axis=0) for key in validation[0]},
        "best_round": [run.best + 1 for run in trained],
        "test": means,
        "hospitals": {"own_mixture": own, "tests": tests, "validation": validation},
        "worst": {
            part: {
                "accuracy": min(one["accuracy"] for one in ones),
                "own_mixture": min(own[part]),
            }
            for part, ones in parts.items()
        },
    }


def _measure(task, network, seed) -> dict:
    """Test a model that all hospitals share."""
    test = task.test(network, seed)
    own = {part: task.weigh_by_mixture(measured, seed) for part, measured in test.items()}
    worst = {
        part: {"accuracy": measured["accuracy"], "own_mixture": min(own[part])}
        for part, measured in test.items()
    }
    return {"test": test, "hospitals": {"own_mixture": own}, "worst": worst}


def _describe(task, run: Run, seed, unit, passes) -> dict:
    return {
        "seed": seed,
        "unit": unit,
        "passes_per_step": passes,  # over the images, a round or an epoch
        "rounds_planned": run.planned,
        "rounds_done": len(run.history),
        "validation": _list_validation(run),
        "seconds": run.curve("seconds").sum(),
        "partition": task.describe_partition(seed),
    }


def _list_validation(run) -> dict[str, list[float]]:
    prefix = "validation_"
    names = [name for name in run.history[0] if name.startswith(prefix)]
    return {name.removeprefix(prefix): run.curve(name).tolist() for name in names}


def _mean(values):
    """Return the mean; None where one is not defined, such as the AUC of a missing class."""
    return None if None in values else float(np.mean(values))


def summarise_runs(runs: Sequence[dict]) -> dict:
    """Return mean, standard deviation and values over seeds, by part of the test and metric.

    Besides the metrics there are ``worst`` (the hospital whose model is worst on the test images) and
    ``own_mixture`` (the worst hospital on its own mixture of classes); under ``after``, by round, those of
    the best round until then.
    """
    told = _summarise_tests(runs)
    rounds = runs[0].get("after", {})
    told["after"] = {r: _summarise_tests([run["after"][r] for run in runs]) for r in rounds}
    return told


def _summarise_tests(measured) -> dict:
    summary = {}
    for part in measured[0]["test"]:
        values = {key: [one["test"][part][key] for one in measured] for key in SUMMARISED}
        values["worst"] = [one["worst"][part]["accuracy"] for one in measured]
        values["own_mixture"] = [one["worst"][part]["own_mixture"] for one in measured]
        summary[part] = {key: None if None in v else summarise(v) for key, v in values.items()}
    return summary
