"""The sub-command for experiments: ``fedutils experiment``."""

import argparse
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the sub-command to those of ``fedutils``."""
    experiment = commands.add_parser(
        "experiment", help="run the experiments of some YAML files, or list those of the thesis"
    )
    experiment.add_argument(
        "files", nargs="*", metavar="FILE", help="a YAML file, or the name of one in profiles/experiments"
    )
    experiment.add_argument("--list", action="store_true", help="say what the files would run, and stop")
    experiment.add_argument("--algorithm", nargs="+", metavar="NAME", help="only these of the file")
    experiment.add_argument("--seed", type=int, nargs="+", metavar="N", help="only these of the file")
    experiment.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the results; build/lab/results/experiments"
    )
    experiment.set_defaults(call=_experiment)


def _experiment(options: argparse.Namespace) -> int:
    from fedutils.errors import DivergenceError, InputError
    from fedutils.experiment_file import list_experiments, load_experiment

    files = options.files or (list_experiments() if options.list else [])
    if not files:
        raise InputError("FILE: expected an experiment, found none; fedutils experiment --list names some")
    experiments = [load_experiment(file) for file in files]  # all are checked before anything runs
    if options.list:
        for experiment in experiments:
            print(f"{experiment.name}: {experiment.title}")
            for name, training in experiment.algorithms.items():
                seeds = ", ".join(map(str, experiment.seeds))
                print(f"  {name}: {training['num_rounds']} rounds, seeds {seeds}")
        return 0

    from fedutils import notebook

    # Operations that are deterministic, and a core for each hospital.
    notebook.start(0, tensorflow=True, threads_per_operation=1)
    from fedutils.experiments import run_experiment

    diverged = []
    for file in files:
        try:
            records = run_experiment(
                file, algorithms=options.algorithm, seeds=options.seed, folder=options.out
            )
        except DivergenceError as error:  # the other files run all the same
            diverged.append(str(error))
            continue
        for record in records.values():
            print(_describe(record))
    if diverged:
        raise DivergenceError(" / ".join(diverged))
    return 0


def _describe(record: dict) -> str:
    """Return one line of a result: the first number that its task is judged by."""
    summary = record["summary"]
    name, told = next(
        (name, summary[part][name])
        for part, name in (("deduplicated", "accuracy"), ("all", "dice"))
        if part in summary
    )
    return (
        f"{record['name']}: test {name} {told['mean']:.3f} ± {told['std']:.3f}, "
        f"{len(record['seeds'])} of {len(record['seeds_planned'])} seeds"
    )
