"""The classification of slices as the task of an experiment."""

from fedutils.federated import ArrayClients  # first: it prepares the imports below

# isort: split
import functools
from pathlib import Path

import keras
import numpy as np

from fedutils.centralized import Arrays, evaluate, predict_logits, train_central
from fedutils.data.audited import AuditedImages, load_audited
from fedutils.data.brain_mri import CLASSES, split_validation
from fedutils.errors import InputError
from fedutils.experiment_file import Experiment
from fedutils.heterogeneity import count_labels, measure_divergence, measure_heterogeneity
from fedutils.metrics import compute_classification_metrics
from fedutils.models.registry import build_network
from fedutils.partition import (
    partition_classes,
    partition_combined,
    partition_dirichlet,
    partition_iid,
    partition_quantity,
    partition_shards,
)
from fedutils.runs import Run
from fedutils.sources import locate_brain_mri

PARTITIONS = {
    "iid": partition_iid,
    "dirichlet": partition_dirichlet,
    "quantity": partition_quantity,
    "combined": partition_combined,
    "classes": partition_classes,
    "shards": partition_shards,
}


class Classification:
    """Slices of four classes, audited, and dealt out to hospitals.

    Parameters
    ----------
    experiment : Experiment
    images : AuditedImages
    """

    # Where its runs enter fedutils: a change of what these import starts them anew, of another's does not.
    CODE = (
        "experiment_classification",
        "experiment_prepare",
        "algorithms",
        "centralized",
        "federated",
        "runtime",
        "models/classification",
        "models/mobilenet",
    )

    def __init__(self, experiment: Experiment, images: AuditedImages):
        self._experiment, self._images = experiment, images

    @property
    def provenance(self) -> dict:
        """What a result records of the data."""
        return self._images.describe(self._experiment.data["source"])

    def build_model(self, seed: int) -> keras.Model:
        """Build the network with the initial weights of a seed."""
        size = self._experiment.data["image_size"]
        options = {key: value for key, value in self._experiment.model.items() if value is not None}
        name = options.pop("name")
        lists = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
        try:
            return build_network(name, (size, size, 1), len(CLASSES), seed=seed, **{**options, **lists})
        except TypeError as error:
            raise InputError(
                f"{self._experiment.where}: model: expected what {name} takes, found: {error}; remove the key"
            ) from error

    def build_learner(self, model: keras.Model) -> keras.Model:
        """Return the network itself: the loss of a classifier is known."""
        return model

    @functools.cache  # noqa: B019  (as long as the task)
    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images to train on and those that choose the round, int64 each."""
        fraction = self._experiment.data["validation_fraction"]
        return split_validation(self._images.training, fraction, seed)

    @functools.cache  # noqa: B019
    def deal(self, seed: int) -> list[np.ndarray]:
        """Return the training images of each hospital, int64; near copies are never parted."""
        chosen, _ = self.split(seed)
        options = {key: value for key, value in self._experiment.partition.items() if value is not None}
        kind, num_clients = options.pop("kind"), options.pop("num_clients")
        training = self._images.training
        try:
            parts = PARTITIONS[kind](
                training.y[chosen], num_clients, seed=seed, groups=training.groups[chosen], **options
            )
        except TypeError as error:
            raise InputError(
                f"{self._experiment.where}: partition: expected what {kind} takes, found: {error}; mend it"
            ) from error
        return [chosen[part] for part in parts]

    def count(self, seed: int) -> np.ndarray:
        """Return int64 (clients, classes): the images of each hospital."""
        return count_labels(self._images.training.y, self.deal(seed), len(CLASSES))

    def count_examples(self, seed: int) -> list[int]:
        """Return the number of training images of each hospital."""
        return self.count(seed).sum(axis=1).tolist()

    def describe_partition(self, seed: int) -> dict:
        """Return who holds what, and how far that is from IID."""
        counts = self.count(seed)
        return {
            "counts": counts,
            "classes": list(CLASSES),
            **measure_heterogeneity(counts),
            "divergence": measure_divergence(counts),
        }

    def make_clients(self, seed: int, training: dict) -> ArrayClients:
        """Return the hospitals of a federation."""
        return ArrayClients(
            [self._take(part) for part in self.deal(seed)],
            batch_size=training["batch_size"],
            local_epochs=training["local_epochs"],
            augment=training["augment"],
            seed=seed,
        )

    def validate(self, model: keras.Model, seed: int) -> dict[str, float]:
        """Measure on the images that choose the round."""
        return evaluate(model, self._take(self.split(seed)[1]))

    def train_alone(
        self, model: keras.Model, chosen: np.ndarray, seed: int, training: dict, folder: Path, label: str
    ) -> Run:
        """Train on some images in one place, with as many passes over them as a federation makes."""
        return train_central(
            model,
            self._take(chosen),
            self._take(self.split(seed)[1]),
            num_epochs=training["num_rounds"] * training["local_epochs"],
            batch_size=training["batch_size"],
            learning_rate=training["client_learning_rate"],
            augment=training["augment"],
            choose_by=training["choose_by"],
            seed=seed,
            folder=folder,
            label=label,
        )

    def test(self, model: keras.Model, seed: int) -> dict[str, dict]:
        """Measure on the test images, by part: the de-duplicated ones, and all as published."""
        testing = self._images.testing
        logits = predict_logits(model, testing.x)
        return {
            part: _shorten(compute_classification_metrics(testing.y[keep], logits[keep], CLASSES, seed=seed))
            for part, keep in self._images.test_parts.items()
        }

    def weigh_by_mixture(self, measured: dict, seed: int) -> list[float]:
        """Return the accuracy to expect on each hospital's own mixture of classes, from recalls on the test.

        Parameters
        ----------
        measured : dict
            Of one part of the test.
        seed : int
            Of the partition.
        """
        counts = self.count(seed)
        recalls = np.asarray([measured["per_class"][name]["recall"] for name in CLASSES], np.float64)
        return (counts @ recalls / counts.sum(axis=1)).tolist()

    def _take(self, chosen) -> Arrays:
        return self._images.training.x[chosen], self._images.training.y[chosen]


def load_classification(experiment: Experiment) -> Classification:
    """Read the images of an experiment.

    Raises
    ------
    InputError
        If the data are not there, or damaged, or leak.
    """
    data = experiment.data
    root = locate_brain_mri(
        data["source"],
        phantom_training=data["phantom_training"],
        phantom_testing=data["phantom_testing"],
        phantom_size=data["phantom_size"],
    )
    images = load_audited(root, size=data["image_size"], split=data["split"], skip_bad=data["skip_bad"])
    return Classification(experiment, images)


def _shorten(measured: dict) -> dict:
    """Leave out what no table of a study shows: calibration curves and the intervals of each class."""
    kept = {key: value for key, value in measured.items() if key != "reliability"}
    kept["intervals"] = {key: value for key, value in measured["intervals"].items() if key != "per_class"}
    return kept
