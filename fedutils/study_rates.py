"""A search of rates, read from its result files: which value of each family was best on validation images."""

from collections.abc import Sequence
from pathlib import Path

from fedutils.errors import InputError
from fedutils.experiment_file import load_experiment
from fedutils.study import NAMES, list_runs

# Families in words: algorithms whose rate is searched, and what else a search varies.
FAMILIES = NAMES | {
    "epochs": "FedAvg, epochs a round",
    "fedlc_epochs": "FedLC, epochs a round",
    "batch": "FedAvg, batch size",
    "momentum": "FedAvg, server momentum",
    "yogi_sgd": "FedYogi, SGD at clients",
}


def group_rates(source: Path | str | dict, records: Sequence[dict], chosen: dict | None = None) -> dict:
    """Group the runs of a search by family, and say what each value reached.

    Parameters
    ----------
    source : Path, str or dict
        The search: an experiment whose runs are named ``<family>_<value>``, the value being that of the one
        setting in which a family's runs differ. It is on validation images; its test is not read.
    records : sequence of dict
        Results; those of other experiments are left out.
    chosen : dict of str to dict, optional
        By family the training settings that the study uses (`fedutils.experiment_file.Experiment`).

    Returns
    -------
    dict of str to list of dict
        By family, in order of the values: the ``setting``'s name, its ``value``, what was ``reached``, the
        best in validation and the mean over seeds (None: not run), in which ``quantity`` ("accuracy", "dice"
        or "-loss"), ``rounds_done``, ``rounds_planned``, the ``seeds`` done, and whether it is the ``chosen``
        one.

    Raises
    ------
    InputError
        If a name has no value, or a family differs in another number of settings than one.
    """
    experiment = load_experiment(source)
    found = {record["algorithm"]: record for record in records if record["experiment"] == experiment.name}
    families = {}
    for name, training in experiment.algorithms.items():
        families.setdefault(name.rpartition("_")[0], {})[name] = training
    return {
        family: _list_values(experiment, family, members, found, (chosen or {}).get(family))
        for family, members in families.items()
    }


def _list_values(experiment, family, members, found, chosen) -> list[dict]:
    first, *others = members.values()
    differ = {key for other in others for key in other if other[key] != first[key]}
    if not family or len(differ) != 1:
        raise InputError(
            f"{experiment.where}: algorithms: expected names <family>_<value> with one setting that differs "
            f"in each family, found {', '.join(members)}, which differ in "
            f"{', '.join(sorted(differ)) or 'none'}; mend it"
        )
    (setting,) = differ
    listed = []
    for name, training in members.items():
        record = found.get(name)
        runs = list_runs(record) if record else []
        quantity = training["choose_by"]
        best = [_reach(run["validation"], quantity) for run in runs]
        listed.append(
            {
                "setting": setting,
                "value": training[setting],
                "reached": sum(best) / len(best) if best else None,
                "quantity": quantity,
                "rounds_done": min((run["rounds_done"] for run in runs), default=0),
                "rounds_planned": training["num_rounds"],
                "seeds": record["seeds"] if record else [],
                "chosen": chosen is not None and chosen[setting] == training[setting],
            }
        )
    return sorted(listed, key=lambda one: one["value"])


def _reach(validation, quantity) -> float:
    """Return the best round of a run; a quantity that begins with a minus is better the lower it is."""
    values = validation[quantity.removeprefix("-")]
    return -min(values) if quantity.startswith("-") else max(values)
