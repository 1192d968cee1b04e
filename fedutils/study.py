"""The federated study from its result files: what was planned, what was done, and how it compares.

The files are those of `fedutils.experiments.run_experiment`. A study may be half done: what is planned and
not there stays in every list, without seeds.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedutils.errors import InputError
from fedutils.experiment_bounds import add_bounds
from fedutils.experiment_file import ALONE, load_experiment
from fedutils.metrics import summarise

# In the order of tables and colours.
NAMES = {
    "local": "local, mean of hospitals",
    "fedavg": "FedAvg",
    "fedavg_unweighted": "FedAvg, unweighted",
    "fedprox": "FedProx",
    "fedlc": "FedLC",
    "fedyogi": "FedYogi",
    "scaffold": "SCAFFOLD",
    "fednova": "FedNova",
    "fedavg_sgd": "FedAvg, SGD",
    "fedadam": "FedAdam",
    "fedavgm": "FedAvgM",
    "mimelite": "MimeLite",
    "central": "central",
}
PHANTOM_NOTE = "The phantom is a drawing: no clinical statement follows from its numbers."
SHOWN = ("accuracy", "recall", "f1", "auc", "worst", "own_mixture")


def load_study(folder: Path) -> list[dict]:
    """Read the results of experiments: by experiment, local first and central last.

    Parameters
    ----------
    folder : Path
        Where `fedutils.experiments.run_experiment` wrote; there may be nothing yet.

    Raises
    ------
    InputError
        If a file is not one.
    """
    records = []
    for file in sorted(Path(folder).glob("*.json")):
        try:
            record = json.loads(file.read_text())
            records.append((record["experiment"], rank(record["algorithm"]), record))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: expected the result of an experiment, found another or a damaged file ({error!r}); "
                "delete it and run the experiment again"
            ) from error
    return [record for *_, record in sorted(records, key=lambda item: item[:2])]


def rank(algorithm: str, names: Iterable[str] = NAMES) -> tuple[float, str]:
    """Return what sorts algorithms in the order of `names`, those unknown before the last, central."""
    names = list(names)
    return names.index(algorithm) if algorithm in names else len(names) - 1.5, algorithm


def list_with_bounds(rows: Sequence[dict], experiment: str) -> list[dict]:
    """Return the rows of an experiment and those of others that are its bounds, in the order of `rank`.

    Parameters
    ----------
    rows : sequence of dict
        Of a study, each with ``experiment``, ``algorithm`` and ``bounds``; some are of this experiment.
    experiment : str
    """
    own = next(row for row in rows if row["experiment"] == experiment)
    return sorted(add_bounds(rows, experiment, own["bounds"]), key=lambda row: rank(row["algorithm"]))


def list_runs(record: dict) -> list[dict]:
    """Return the runs of a result, by seed."""
    return [record["runs"][str(seed)] for seed in record["seeds"]]


def list_partitions(records: Sequence[dict]) -> dict[str, list[dict]]:
    """Return by experiment who held what, a dict a seed; algorithms of an experiment share it."""
    first = {}
    for record in records:
        first.setdefault(record["experiment"], record)
    return {name: [run["partition"] for run in list_runs(record)] for name, record in first.items()}


def list_commits(records: Sequence[dict]) -> list[str]:
    """Return the commits that made the runs, sorted."""
    return sorted({run["git"]["commit"] for record in records for run in list_runs(record)})


def format_spread(value: dict, digits: int = 1, *, scale: float = 100, sign: str = "") -> str:
    """Return mean ± standard deviation of `fedutils.metrics.summarise`; one seed has no deviation.

    Parameters
    ----------
    value : dict
    digits : int
        After the point.
    scale : float
        100 shows per cent.
    sign : str
        "+" shows the sign of a positive mean.
    """
    spread = f" ± {scale * value['std']:.{digits}f}" if len(value["values"]) > 1 else ""
    return f"{scale * value['mean']:{sign}.{digits}f}{spread}"


def note_missing(done: Sequence, planned: Sequence) -> str:
    """Return what a number is followed by where seeds are missing, such as " (1 of 3 seeds)"."""
    return "" if len(done) == len(planned) else f" ({len(done)} of {len(planned)} seeds)"


def shorten_title(title: str) -> str:
    """Leave out of a title what all columns share: "Brain tumour MRI, IID" is called IID."""
    return title.partition(", ")[2] or title


def is_federated(record: dict) -> bool:
    """Say whether a result has rounds, rather than epochs in one place."""
    return record["settings"]["training"]["algorithm"] not in ALONE


def summarise_study(experiments: Sequence[str | Path | dict], records: Sequence[dict]) -> list[dict]:
    """Put what was planned beside what was done.

    Parameters
    ----------
    experiments : sequence
        The study, in order; see `fedutils.experiment_file.load_experiment`.
    records : sequence of dict
        From `load_study` or `fedutils.experiments.run_experiment`; those of other experiments are left out.

    Returns
    -------
    list of dict
        One for each algorithm of each file: ``experiment``, its ``title`` and ``partition``; ``algorithm``
        and its ``name`` in words; ``federated``, whether it has rounds; ``bounds``, by bound (local,
        central) the experiment that trains it; ``seeds`` done and ``seeds_planned``; ``rounds_planned``
        (epochs without a federation). Where a seed was done also ``rounds_done`` and ``best_round`` by
        seed; the ``unit`` of both; ``validation``, mean and standard deviation of the accuracy on
        validation images then (None where each hospital has a model of its own); ``summary``, mean and
        standard deviation over seeds by part of the test, and ``after``, the same at the reported rounds;
        ``against_central``, see `compare_with_central`; ``bytes``, of a hospital and round; otherwise all
        of these are None.
    """
    found = {(record["experiment"], record["algorithm"]): record for record in records}
    rows = []
    for experiment in map(load_experiment, experiments):
        central = found.get((experiment.bounds["central"], "central"))
        for algorithm in sorted(experiment.algorithms, key=rank):
            training = experiment.algorithms[algorithm]
            record = found.get((experiment.name, algorithm))
            rows.append(
                {
                    "experiment": experiment.name,
                    "title": experiment.title,
                    "partition": {k: v for k, v in experiment.partition.items() if v is not None},
                    "algorithm": algorithm,
                    "name": NAMES.get(algorithm, algorithm),
                    "federated": training["algorithm"] not in ALONE,
                    "bounds": experiment.bounds,
                    "seeds": [],
                    "seeds_planned": list(experiment.seeds),
                    "rounds_planned": count_steps(training),
                    **_tell(record, central),
                }
            )
    return rows


def count_steps(training) -> int:
    """Return the rounds, or without a federation the epochs, that are planned."""
    alone = training["algorithm"] in ALONE
    return training["num_rounds"] * (training["local_epochs"] if alone else 1)


def _tell(record, central) -> dict:
    """Return what a row says of a result that may not be there."""
    if record is None:
        keys = ("rounds_done", "best_round", "unit", "validation", "summary", "after")
        return dict.fromkeys((*keys, "against_central", "bytes"))
    runs, told = list_runs(record), record["summary"]
    sent = runs[0].get("bytes")
    return {
        "seeds": record["seeds"],
        "rounds_done": [run["rounds_done"] for run in runs],
        "best_round": [run["best_round"] for run in runs],
        "unit": runs[0]["unit"],
        "validation": _validate(runs),
        "summary": _shorten(told),
        "after": {stop: _shorten(value) for stop, value in told["after"].items()},
        "against_central": compare_with_central(record, central),
        "bytes": sent and {key: sent[f"{key}_per_client"] for key in ("down", "up")},
    }


def _validate(runs) -> dict | None:
    if any(isinstance(run["best_round"], list) for run in runs):
        return None  # a round of its own for each hospital, and curves of their mean
    return summarise([run["validation"]["accuracy"][run["best_round"] - 1] for run in runs])


def _shorten(told) -> dict:
    return {part: {key: told[part][key] for key in SHOWN} for part in told if part != "after"}


def compare_with_central(
    record: dict, central: dict | None, *, part: str = "deduplicated", metric: str = "accuracy"
) -> dict | None:
    """Return a result's distance from central training, seed by seed: below 0, it is worse.

    With a seed go the initial weights, the validation images and the partition, so that seeds are paired.

    Parameters
    ----------
    record, central : dict
        Results of one experiment.
    part : str
        Of the test images.
    metric : str
        Of ``test`` in the result.

    Returns
    -------
    dict or None
        Mean, standard deviation and values (`fedutils.metrics.summarise`) of the differences, and the
        ``seeds`` that both did; None without a common seed, or of central training itself.
    """
    if central is None or record["algorithm"] == central["algorithm"]:
        return None
    return compare_seeds(record, central, part=part, metric=metric)


def compare_seeds(
    record: dict, other: dict, *, part: str = "deduplicated", metric: str = "accuracy"
) -> dict | None:
    """Return a result less another one, seed by seed, as `compare_with_central` does; None without a pair."""
    seeds = sorted(set(record["seeds"]) & set(other["seeds"]))
    if not seeds:
        return None

    def measured(result, seed):
        return result["runs"][str(seed)]["test"][part][metric]

    return {"seeds": seeds, **summarise([measured(record, s) - measured(other, s) for s in seeds])}
