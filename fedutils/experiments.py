"""Experiments run from their files: each algorithm and seed trained, tested once, and written down.

``run_experiment("brain_mri_iid")`` trains every algorithm of the file with every seed, and writes one JSON an
algorithm after each seed. A run that is killed goes on from its last round; what is finished is read.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import functools
import json
from collections.abc import Sequence
from pathlib import Path

from fedutils import paths, runtime
from fedutils.errors import DivergenceError, InputError
from fedutils.experiment_checks import check_algorithm
from fedutils.experiment_file import ALONE, STARTED, load_experiment
from fedutils.experiment_interface import Task
from fedutils.experiment_prepare import prepare
from fedutils.experiment_task import load_task
from fedutils.locks import hold
from fedutils.results import git_commit, machine, to_json, versions, write_atomic
from fedutils.runs import fingerprint_scores, run_folder
from fedutils.study import load_study

# isort: split
import numpy as np


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
        it (``git``), a hash of the code that scored it (``scores``), ``rounds_done``, ``best_round``,
        ``validation`` by round, ``test`` and ``hospitals``, after ``report_rounds`` too, ``partition``,
        ``bytes``, ``simulated_s``; and ``summary`` over seeds.

    Raises
    ------
    InputError
        If the file, the data or an argument is wrong.
    DivergenceError
        If runs diverged, after all others are done and written.
    """
    experiment = load_experiment(source)
    algorithms = _pick("algorithm", algorithms, experiment.algorithms)
    seeds = _pick("seed", seeds, experiment.seeds)
    for name in algorithms:
        check_algorithm(experiment, name)
    folder = paths.results_dir() / "experiments" if folder is None else Path(folder)
    runtime.use("in_process")
    task = load_task(experiment)
    diverged = []
    told = {name: _run_family(experiment, task, name, seeds, folder, diverged) for name in algorithms}
    if diverged:
        raise DivergenceError(
            f"{experiment.where}: expected trainings that stay finite, found {len(diverged)} that did not "
            f"and left no result, while all others are written: {' / '.join(diverged)}"
        )
    return told


def collect(source: Path | str | dict, *, train_missing: bool = True) -> list[dict]:
    """Return the results of an experiment, local first and central last, run or only read.

    Parameters
    ----------
    source : Path, str or dict
        See `fedutils.experiment_file.load_experiment`.
    train_missing : bool
        Whether to run what the results of the current run do not hold; else they are returned as they are,
        however many.

    Raises
    ------
    InputError
        As `run_experiment`, or if a result is damaged.
    """
    if train_missing:
        run_experiment(source)
    wanted = load_experiment(source)
    records = load_study(paths.results_dir() / "experiments")
    return [r for r in records if r["experiment"] == wanted.name and r["algorithm"] in wanted.algorithms]


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


def _run_family(experiment, task, algorithm, seeds, folder, diverged) -> dict | None:
    """Run every seed of one algorithm that its result does not hold; write the result after each.

    What diverges is added to `diverged` in words; with no seed done there is nothing to write.
    """
    name = f"{experiment.name}-{algorithm}"
    kept = {seed: _find_folder(experiment, task, algorithm, seed) for seed in experiment.seeds}
    names = {str(seed): run.name for seed, run in kept.items()}
    path, scores = folder / f"{name}.json", fingerprint_scores(task.CODE, task.SCORES)
    runs = _read_finished(path, names, scores)
    missing, told, trainer = [seed for seed in seeds if str(seed) not in runs], None, None
    if missing:
        find_start = functools.partial(_find_folder, experiment, task)
        trainer = prepare(experiment, task, experiment.algorithms[algorithm], find_start)
    for seed in missing:
        with hold(kept[seed]):
            # Another process may have finished this seed while it was waited for, or others.
            runs = _read_finished(path, names, scores) | runs
            if str(seed) in runs:
                told = None
                continue
            try:
                measured = trainer(seed, kept[seed], f"{name}, seed {seed}")
                _check_validation(measured)
            except DivergenceError as error:
                diverged.append(f"{name}, seed {seed}, {_name_rates(experiment, algorithm)}: {error}")
                continue
            made = {"run": kept[seed].name, "scores": scores, "git": git_commit(), "machine": machine()}
            runs = _read_finished(path, names, scores) | runs | {str(seed): made | measured}
            told = _write(path, experiment, task, algorithm, runs)
    if not runs:
        return None
    return told or _write(path, experiment, task, algorithm, runs)


def _check_validation(measured) -> None:
    """Refuse a run of which a round was measured to be no number, though its weights are: they overflow."""
    for key, curve in measured["validation"].items():
        wrong = np.flatnonzero(~np.isfinite(np.asarray(curve, np.float64)))
        if len(wrong):
            raise DivergenceError(
                f"{measured['unit']} {wrong[0] + 1}: expected a finite validation {key}, found "
                f"{curve[wrong[0]]}; lower the learning rate"
            )


def _name_rates(experiment, algorithm) -> str:
    """Return the learning rates of an algorithm, and those of what it starts from."""
    own = experiment.algorithms[algorithm]
    told = f"client_learning_rate {own['client_learning_rate']}"
    if own["algorithm"] not in (*ALONE, *STARTED):
        told += f", server_learning_rate {own['server_learning_rate']}"
    start = own["start_from"]
    return told + (f" from {start} with {_name_rates(experiment, start)}" if start else "")


def _write(path, experiment, task, algorithm, runs) -> dict:
    """Write the result of those seeds that were run, and return it as it will be read."""
    record = {
        "name": path.stem,
        "title": experiment.title,
        "experiment": experiment.name,
        "algorithm": algorithm,
        "settings": experiment.describe(algorithm),
        "seeds": sorted(map(int, runs)),
        "seeds_planned": list(experiment.seeds),
        "rounds_planned": experiment.algorithms[algorithm]["num_rounds"],
        "data": task.provenance,
        "runs": runs,
        "summary": summarise_runs(task, [runs[key] for key in sorted(runs, key=int)]),
        "versions": versions(),
    }
    told = to_json(record)
    write_atomic(path, told.encode())
    return json.loads(told)


def _find_folder(experiment, task, algorithm, seed) -> Path:
    """Return where a run is kept: of other settings, data or code it is another place."""
    settings = {**experiment.describe(algorithm), "seed": seed, "provenance": task.provenance}
    return run_folder(f"experiment-{experiment.name}-{algorithm}", settings, task.CODE)


def _read_finished(path, names, scores) -> dict[str, dict]:
    """Return the runs of an earlier result, by seed, that are what would be run and said today.

    Others are prepared again: from their checkpoints where only the scores are others, so that nothing is
    trained. Results never mix two ways to score.
    """
    try:
        found = json.loads(path.read_text())["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {
        seed: run
        for seed, run in found.items()
        if run["run"] == names.get(seed) and run.get("scores") == scores
    }


def summarise_runs(task: Task, runs: Sequence[dict]) -> dict:
    """Return mean, standard deviation and values over seeds, by part of the test and metric.

    Under ``after``, by round, are those of the best round until then. What is summarised, the task says.
    """
    told = task.summarise(runs)
    rounds = runs[0].get("after", {})
    told["after"] = {r: task.summarise([run["after"][r] for run in runs]) for r in rounds}
    return told
