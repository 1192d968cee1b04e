"""What an experiment is bounded by: hospitals alone below it, all data in one place above.

Files of one study often share a bound. It is trained once, and the other files name the one that trains it.
"""

from collections.abc import Mapping, Sequence

from fedutils.errors import InputError

ALONE = ("local", "central")  # trained without a federation: each hospital alone, and all data together


def check_bound(experiment, bound: str, other) -> None:
    """Raise InputError unless the bound that the other file trains is what this one's would be.

    Parameters
    ----------
    experiment : fedutils.experiment_file.Experiment
        Which takes the bound.
    bound : str
        One of `ALONE`. For local the partition must be the same, too.
    other : fedutils.experiment_file.Experiment
        Which trains it.
    """

    def tell(one, training):
        told = {key: training[key] for key in ("batch_size", "augment", "choose_by")}
        told |= {"data": one.data, "model": one.model, "seeds": one.seeds}
        told |= {"partition": one.partition} if bound == "local" else {}
        return told | {"passes": training["num_rounds"] * training["local_epochs"]}

    where = f"{experiment.where}: {bound}_from"
    if bound not in other.algorithms or bound in experiment.algorithms:
        raise InputError(
            f"{where}: expected the algorithm {bound} in {other.name} and not here, found otherwise; "
            f"remove it here, or {bound}_from"
        )
    theirs = tell(other, other.algorithms[bound])
    for name, training in experiment.algorithms.items():
        ours = tell(experiment, training)
        if apart := [key for key in ours if ours[key] != theirs[key]]:
            raise InputError(
                f"{where}: expected {other.name} to train as here, found {apart[0]} {theirs[apart[0]]} there "
                f"and {ours[apart[0]]} of {name} here; name another"
            )
    # Algorithms may have rates of their own; that of a bound is what the section alone gives.
    rate, key = other.algorithms[bound]["client_learning_rate"], "client_learning_rate"
    if rate != experiment.training[key]:
        raise InputError(
            f"{where}: expected {other.name} to train as here, found {key} {rate} there and "
            f"{experiment.training[key]} of the section training here; name another"
        )


def add_bounds(items: Sequence[dict], experiment: str, bounds: Mapping[str, str]) -> list[dict]:
    """Return the items of an experiment, and those of other experiments that are its bounds.

    Parameters
    ----------
    items : sequence of dict
        Results or rows of a study, each with ``experiment`` and ``algorithm``; the order stays.
    experiment : str
    bounds : mapping of str to str
        By bound the experiment that trains it, as `Experiment.bounds`; may be empty.
    """
    taken = {(name, bound) for bound, name in bounds.items()}
    return [
        item
        for item in items
        if item["experiment"] == experiment or (item["experiment"], item["algorithm"]) in taken
    ]
