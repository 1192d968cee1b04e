"""What a study says of classifiers: which scores are summarised, of whom, and of the worst hospital.

Kept apart from `fedutils.experiment_classification`, whose code names its finished runs: what is said of a
trained network may change without training it again. Results keep a hash of this code, and are scored again
where it is another.
"""

from fedutils.experiment_classification import Classification, load_classification  # first: TensorFlow

# isort: split
from collections.abc import Sequence

import numpy as np

from fedutils.experiment_file import Experiment
from fedutils.metrics import summarise

SUMMARISED = ("accuracy", "precision", "recall", "f1", "auc", "ece")


class ScoredClassification(Classification):
    """The task `Classification` with those members of an experiment's task that score it."""

    SCORES = ("experiment_scores", "experiment_told")

    @classmethod
    def load(cls, experiment: Experiment) -> "ScoredClassification":
        """Read the images of an experiment; see `fedutils.experiment_classification.load_classification`."""
        return cls(experiment, load_classification(experiment)._images)

    def describe_shared(self, test: dict[str, dict], seed: int) -> dict:
        """Return what one model for all does, on each hospital's own mixture of classes too."""
        own = {part: self.weigh_by_mixture(measured, seed) for part, measured in test.items()}
        worst = {
            part: {"accuracy": measured["accuracy"], "own_mixture": min(own[part])}
            for part, measured in test.items()
        }
        return {"test": test, "hospitals": {"own_mixture": own}, "worst": worst}

    def describe_own(self, tests: list[dict[str, dict]], seed: int) -> dict:
        """Return the means over hospitals, each with its own model, and the worst of them."""
        parts = {part: [test[part] for test in tests] for part in tests[0]}
        own = {
            part: [self.weigh_by_mixture(one, seed)[k] for k, one in enumerate(ones)]
            for part, ones in parts.items()
        }
        return {
            "test": {
                part: {key: _mean([one[key] for one in ones]) for key in SUMMARISED}
                for part, ones in parts.items()
            },
            "hospitals": {"own_mixture": own, "tests": tests},
            "worst": {
                part: {
                    "accuracy": min(one["accuracy"] for one in ones),
                    "own_mixture": min(own[part]),
                }
                for part, ones in parts.items()
            },
        }

    def summarise(self, measured: Sequence[dict]) -> dict[str, dict]:
        """Summarise over seeds, by part of the test images and metric.

        Besides the metrics there are ``worst`` (the hospital whose model is worst on the test images) and
        ``own_mixture`` (the worst hospital on its own mixture of classes).
        """
        summary = {}
        for part in measured[0]["test"]:
            values = {key: [one["test"][part][key] for one in measured] for key in SUMMARISED}
            values["worst"] = [one["worst"][part]["accuracy"] for one in measured]
            values["own_mixture"] = [one["worst"][part]["own_mixture"] for one in measured]
            summary[part] = {key: None if None in v else summarise(v) for key, v in values.items()}
        return summary


def _mean(values):
    """Return the mean; None where one is not defined, such as the AUC of a missing class."""
    return None if None in values else float(np.mean(values))
