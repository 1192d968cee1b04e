"""How skewed the hospitals of a study are, what that costs, and how the test images differ from theirs."""

from collections.abc import Sequence

import numpy as np

from fedutils.experiment_file import Experiment
from fedutils.metrics import summarise
from fedutils.study import list_partitions, list_runs


def describe_skew(records: Sequence[dict]) -> dict[str, dict]:
    """Return how unlike the hospitals of each experiment are, seed by seed.

    Parameters
    ----------
    records : sequence of dict
        Results of classification, from `fedutils.study.load_study`.

    Returns
    -------
    dict of str to dict
        By experiment, a float a seed: ``label_distance``, see
        `fedutils.heterogeneity.measure_heterogeneity`, and ``largest``, the share of all images that the
        largest hospital holds.
    """
    told = {}
    for name, partitions in list_partitions(records).items():
        sizes = [np.sum(held["counts"], axis=1) for held in partitions]
        told[name] = {
            "label_distance": [held["label_distance"] for held in partitions],
            "largest": [float(held.max() / held.sum()) for held in sizes],
        }
    return told


def describe_mixtures(records: Sequence[dict]) -> dict:
    """Return the shares of the classes among images to train on and among de-duplicated test images.

    Parameters
    ----------
    records : sequence of dict
        Results of classification of one data set; the first seed of the first one tells.

    Returns
    -------
    dict
        ``classes``; ``training`` and ``test``, shares in their order; and ``commonest``, the class that most
        test images are of.
    """
    run = list_runs(records[0])[0]
    held = np.sum(run["partition"]["counts"], axis=0)
    # Hospitals alone have a test each, on the same images.
    test = run["test"] if "confusion" in run["test"]["deduplicated"] else run["hospitals"]["tests"][0]
    tested = np.sum(test["deduplicated"]["confusion"], axis=1)
    classes = list(run["partition"]["classes"])
    return {
        "classes": classes,
        "training": (held / held.sum()).tolist(),
        "test": (tested / tested.sum()).tolist(),
        "commonest": classes[int(tested.argmax())],
    }


def measure_price_of_skew(plans: Sequence[Experiment], rows: Sequence[dict]) -> dict[str, dict]:
    """Return FedAvg's accuracy under each partition less that under IID with the same rounds, seed by seed.

    Parameters
    ----------
    plans : sequence of Experiment
        The study.
    rows : sequence of dict
        From `fedutils.study.summarise_study` of the same.

    Returns
    -------
    dict of str to dict
        By experiment that is not IID: mean, standard deviation and values (`fedutils.metrics.summarise`) over
        the ``seeds`` that both did, de-duplicated test images. Only where the study has FedAvg under IID with
        as many rounds and local epochs.
    """
    kept = ("num_rounds", "local_epochs")
    done = {row["experiment"]: row for row in rows if row["algorithm"] == "fedavg" and row["seeds"]}
    work = {
        plan.name: tuple(plan.algorithms["fedavg"][key] for key in kept)
        for plan in plans
        if plan.name in done
    }
    even = {work[plan.name]: plan.name for plan in plans if plan.name in done and _is_even(plan)}
    told = {}
    for plan in plans:
        if plan.name not in done or _is_even(plan) or work[plan.name] not in even:
            continue
        here, there = (_by_seed(done[name]) for name in (plan.name, even[work[plan.name]]))
        if seeds := sorted(here.keys() & there.keys()):
            told[plan.name] = {"seeds": seeds, **summarise([here[s] - there[s] for s in seeds])}
    return told


def _is_even(plan) -> bool:
    return plan.partition["kind"] == "iid"


def _by_seed(row) -> dict[int, float]:
    values = row["summary"]["deduplicated"]["accuracy"]["values"]
    return dict(zip(row["seeds"], values, strict=True))
