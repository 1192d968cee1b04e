"""What is said of models at the hospitals that use them: each on its own test images, the worst, the gap.

Kept apart from `fedutils.experiment_personal`, whose code names its finished runs: what is said of a trained
network may change without training it again. Results keep a hash of this code, and are scored again where it
is another.

References
----------
.. [1] E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
   American Statistical Association 22(158), 1927.
.. [2] T. Li, M. Sanjabi, A. Beirami and V. Smith, "Fair Resource Allocation in Federated Learning", ICLR
   2020: fairness as the spread of accuracy over clients.
"""

from fedutils.experiment_personal import PersonalClassification  # first: TensorFlow

# isort: split
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from fedutils.experiment_scores import ScoredClassification
from fedutils.metrics import summarise

OWN = ("mean", "pooled", "worst", "best", "gap", "spread")


class ScoredPersonal(PersonalClassification, ScoredClassification):
    """The task `PersonalClassification` with those members of an experiment's task that score it."""

    SCORES = ("experiment_personal_scores", "experiment_told")

    def describe_shared(self, test: dict[str, dict], seed: int) -> dict:
        """Return what one model for all does, on the pooled test images and at each hospital."""
        told = super().describe_shared(self._take_pooled(test), seed)
        return _add_own(told, [test] * len(self.hold(seed)))

    def describe_own(self, tests: list[dict[str, dict]], seed: int) -> dict:
        """Return what models of which each hospital has its own do.

        On the pooled test images that is the mean over hospitals, and the worst of them: what a model made
        for one hospital's patients has kept of the others'. Under ``hospitals``, ``elsewhere`` has a row a
        model and a column a hospital whose test images it is measured on.
        """
        told = _add_own(super().describe_own([self._take_pooled(test) for test in tests], seed), tests)
        names = [f"hospital {k + 1}" for k in range(len(tests))]
        told["hospitals"]["elsewhere"] = [
            [test[name]["right"] / test[name]["n"] for name in names] for test in tests
        ]
        return told

    def summarise(self, measured: Sequence[dict]) -> dict[str, dict]:
        """Summarise over seeds, by part of the pooled test; under ``own``, at the hospitals (`score_own`)."""
        own = {key: summarise([one["own"][key] for one in measured]) for key in OWN}
        return {**super().summarise(measured), "own": own}

    def _take_pooled(self, test) -> dict:
        return {part: test[part] for part in self._images.test_parts}


def _add_own(told, tests) -> dict:
    """Add what hospital k gets of the model that was tested as the k-th, on its own test images."""
    own = []
    for k, test in enumerate(tests):
        counted = test[f"hospital {k + 1}"]
        n, right = counted["n"], counted["right"]
        own.append({**counted, "accuracy": right / n, "interval": compute_interval(right, n)})
    return {**told, "hospitals": {**told["hospitals"], "own": own}, "own": score_own(own)}


def compute_interval(right: int, n: int) -> list[float]:
    """Return the 95 % interval of an accuracy [1]_, which is not empty where all images are right.

    The bootstrap of a small hospital whose images are all right would give [1, 1].

    Examples
    --------
    >>> [round(limit, 2) for limit in compute_interval(10, 10)]
    [0.72, 1.0]
    """
    found = binomtest(right, n).proportion_ci(method="wilson")
    return [float(found.low), float(found.high)]


def score_own(own: Sequence[dict]) -> dict[str, float]:
    """Return what hospitals get, each on its own test images.

    Parameters
    ----------
    own : sequence of dict
        One a hospital, with ``n`` test images, ``right`` and ``accuracy``.

    Returns
    -------
    dict
        Accuracies: ``mean`` over hospitals, which count alike; ``pooled`` over images, so that large ones
        count more; ``worst`` and ``best`` hospital. Their distance, ``gap``, and the standard deviation over
        these hospitals, ``spread`` [2]_. Chance is in all of them: of hospitals with few test images even
        equally good models have a gap.
    """
    accuracies = np.asarray([one["accuracy"] for one in own], np.float64)
    return {
        "mean": float(accuracies.mean()),
        "pooled": sum(one["right"] for one in own) / sum(one["n"] for one in own),
        "worst": float(accuracies.min()),
        "best": float(accuracies.max()),
        "gap": float(accuracies.max() - accuracies.min()),
        "spread": float(accuracies.std()),
    }
