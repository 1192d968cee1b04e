"""What a study says of segmentations: Dice and distance, by institution, and of the worst one.

Kept apart from `fedutils.experiment_segmentation`, whose code names its finished runs: what is said of a
trained network may change without training it again. Results keep a hash of this code, and are scored again
where it is another.
"""

from fedutils.experiment_segmentation import Segmentation  # first: TensorFlow

# isort: split
from collections.abc import Sequence

import numpy as np

from fedutils.data.federated_cases import EVERYONE
from fedutils.experiment_file import Experiment
from fedutils.experiment_segmentation_data import load_segmentation
from fedutils.metrics import summarise


class ScoredSegmentation(Segmentation):
    """The task `Segmentation` with those members of an experiment's task that score it."""

    SCORES = ("experiment_segmentation_scores", "experiment_told")

    @classmethod
    def load(cls, experiment: Experiment) -> "ScoredSegmentation":
        """Read the cases of an experiment; see `load_segmentation`."""
        return cls(experiment, *load_segmentation(experiment))

    def describe_shared(self, test: dict[str, dict], seed: int) -> dict:
        """Return what one model for all does, on each institution's own patients too."""
        return self._describe({part: _score(told) for part, told in test.items()}, [test], seed)

    def describe_own(self, tests: list[dict[str, dict]], seed: int) -> dict:
        """Return the means over hospitals, each with its own model, and each on its own patients."""
        scored = [{part: _score(told) for part, told in test.items()} for test in tests]
        means = {}
        for part in scored[0]:
            keys = [key for key, value in scored[0][part].items() if isinstance(value, float)]
            means[part] = {key: float(np.mean([one[part][key] for one in scored])) for key in keys}
            means[part]["n"] = scored[0][part]["n"]
        told = self._describe(means, tests, seed)
        told["hospitals"]["tests"] = scored
        return told

    def _describe(self, test, tests, seed):
        """Add to a test what each hospital gets of the model that it uses; of one test all use the same.

        A hospital without a test patient of its own has none. Where patients belong to no hospital, all are
        tested for each.
        """
        names, own = self.name_hospitals(seed), []
        for k, name in enumerate(names):
            measured = tests[k if len(tests) > 1 else 0]
            part = name if self.by_institution else EVERYONE
            own.append(_score(measured[part]) if part in measured else None)
        dices = [one["dice"] for one in own if one]
        if not dices:  # the institution that is tested trains nobody
            dices = [_score(one[EVERYONE])["dice"] for one in tests]
        return {
            "test": test,
            "hospitals": {"names": names, "own": own},
            "worst": {EVERYONE: {"dice": min(dices), "own": float(np.mean(dices))}},
        }

    def summarise(self, measured: Sequence[dict]) -> dict[str, dict]:
        """Summarise over seeds, by part of the test and metric.

        Besides the metrics there are, of all cases, ``own``: the mean over hospitals of the Dice on their own
        patients, of the model that each uses; and ``worst``, the lowest of these.
        """
        summary = {}
        for part in measured[0]["test"]:
            keys = [key for key, value in measured[0]["test"][part].items() if isinstance(value, float)]
            summary[part] = {key: summarise([one["test"][part][key] for one in measured]) for key in keys}
        summary[EVERYONE]["worst"] = summarise([one["worst"][EVERYONE]["dice"] for one in measured])
        summary[EVERYONE]["own"] = summarise([one["worst"][EVERYONE]["own"] for one in measured])
        return summary


def _score(told: dict) -> dict:
    """Return the means over cases: Dice, distance, sensitivity, of each region and their mean.

    Returns
    -------
    dict
        ``dice``, ``dice_wt`` and so on, ``hd95_mm`` or ``hd95_voxels``, and its median over cases
        and regions; ``n`` cases; ``cases``, one entry each, with the sensitivity too.
    """
    measured = told["measured"]
    (distance,) = [name for name in measured[0] if name.startswith("hd95")]
    scores = {}
    for metric in ("dice", distance):
        values = np.asarray([list(one[metric].values()) for one in measured], np.float64)  # (cases, regions)
        scores[metric] = float(values.mean())
        for name, column in zip(measured[0][metric], values.T, strict=True):
            scores[f"{metric}_{name.lower()}"] = float(column.mean())
        if metric == distance:
            scores[f"{distance}_median"] = float(np.median(values))
    cases = [
        {"case": name, "dice": one["dice"], distance: one[distance], "sensitivity": one["sensitivity"]}
        for name, one in zip(told["names"], measured, strict=True)
    ]
    return {**scores, "n": len(measured), "cases": cases}
