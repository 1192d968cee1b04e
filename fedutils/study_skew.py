"""How skewed the hospitals of a study are, what that costs, and how the test images differ from theirs."""

from collections.abc import Sequence

import numpy as np

from fedutils.experiment_file import Experiment
from fedutils.study import compare_seeds, list_partitions, list_runs


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


def measure_price_of_skew(plans: Sequence[Experiment], records: Sequence[dict]) -> dict[str, dict]:
    """Return FedAvg's accuracy under each partition less that under IID with the same rounds, seed by seed.

    Parameters
    ----------
    plans : sequence of Experiment
        The study.
    records : sequence of dict
        Its results, from `fedutils.study.load_study`.

    Returns
    -------
    dict of str to dict
        By experiment that is not IID: mean, standard deviation and values (`fedutils.metrics.summarise`) over
        the ``seeds`` that both did, de-duplicated test images. Only where the study has FedAvg under IID with
        as many rounds and local epochs.
    """
    fedavg = {record["experiment"]: record for record in records if record["algorithm"] == "fedavg"}
    begun = [plan for plan in plans if plan.name in fedavg]
    even = {_count_work(plan): fedavg[plan.name] for plan in begun if _is_even(plan)}
    told = {
        plan.name: compare_seeds(fedavg[plan.name], even[_count_work(plan)])
        for plan in begun
        if not _is_even(plan) and _count_work(plan) in even
    }
    return {name: apart for name, apart in told.items() if apart}


def _count_work(plan) -> tuple[int, int]:
    training = plan.algorithms["fedavg"]
    return training["num_rounds"], training["local_epochs"]


def _is_even(plan) -> bool:
    return plan.partition["kind"] == "iid"
