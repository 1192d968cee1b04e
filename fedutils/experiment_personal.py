"""Slices dealt out to hospitals that each hold out images of their own, and what each hospital gets of it.

The classification of `fedutils.experiment_classification`, with another question. There all models are tested
on one pool of images. Here each hospital also sets aside a part of what it holds, with its own mixture of
classes: validation images, which choose its epoch or, with those of all, the federation's round, and test
images. Nothing trains on either. The pool stays, as the test of what a personal model has forgotten.
"""

from fedutils.experiment_classification import Classification  # first: it prepares the imports below

# isort: split
import functools
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from fedutils.centralized import Arrays, evaluate, predict_logits, train_central
from fedutils.data.brain_mri import CLASSES
from fedutils.data.splits import split_groups
from fedutils.errors import InputError
from fedutils.fedlc import put_mixture
from fedutils.personalise import fine_tune
from fedutils.runs import Run

_PARTS = ("training", "validation", "testing")


class Held(NamedTuple):
    """What one hospital holds: indices of images, int64 (n,) each, sorted and disjoint."""

    training: np.ndarray
    validation: np.ndarray
    testing: np.ndarray


class PersonalClassification(Classification):
    """Slices of four classes; every hospital trains, validates and is tested on images of its own.

    Parameters
    ----------
    experiment : Experiment
        With ``own_test_fraction``; that and ``validation_fraction`` are shares of each hospital's images.
    images : AuditedImages
    """

    CODE = (*Classification.CODE, "experiment_personal", "client_models")

    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return all images and none: all are dealt out, and each hospital holds out of its own."""
        return np.arange(len(self._images.training)), np.zeros(0, np.int64)

    @functools.cache  # noqa: B019  (as long as the task)
    def hold(self, seed: int) -> list[Held]:
        """Return what each hospital holds.

        Parts are stratified by class as far as a hospital has images, and never part a group of near copies;
        nor does the partition, so that no test image has a near copy at another hospital either.

        Raises
        ------
        InputError
            If a hospital has too few images, or the fractions leave nothing to train on.
        """
        data, images = self._experiment.data, self._images.training
        held_out = {"validation": data["validation_fraction"], "testing": data["own_test_fraction"]}
        shares = {"training": 1 - sum(held_out.values()), **held_out}
        where = f"{self._experiment.where}: data"
        if shares["training"] <= 0:
            raise InputError(
                f"{where}: expected validation_fraction and own_test_fraction below 1 together, found "
                f"{sum(held_out.values()):g}; lower one"
            )
        hospitals = []
        for k, chosen in enumerate(super().deal(seed)):
            groups = images.groups[chosen]
            labels = _join_rare(images.y[chosen], groups)
            try:
                parts = split_groups(labels, groups, fractions=shares, seed=seed * 1000 + k)
            except InputError as error:
                raise InputError(
                    f"{where}: hospital {k + 1} of seed {seed}: expected images for {', '.join(_PARTS)}, "
                    f"found {len(chosen)} in {len(np.unique(groups))} groups ({error}); raise "
                    "partition.minimum"
                ) from error
            hospitals.append(Held(*(chosen[parts[part]] for part in _PARTS)))
        return hospitals

    def deal(self, seed: int) -> list[np.ndarray]:
        """Return the images that each hospital trains on, int64."""
        return [held.training for held in self.hold(seed)]

    def describe_partition(self, seed: int) -> dict:
        """Return who holds what to train on, how far that is from IID, and what each holds out."""
        labels = self._images.training.y
        counts = {
            f"{part}_counts": [
                np.bincount(labels[getattr(held, part)], minlength=len(CLASSES)) for held in self.hold(seed)
            ]
            for part in _PARTS[1:]
        }
        return {**super().describe_partition(seed), **counts}

    def list_validations(self, seed: int) -> list[Arrays]:
        """Return the validation images of each hospital."""
        return [self._take(held.validation) for held in self.hold(seed)]

    def validate(self, model: keras.Model, seed: int) -> dict[str, float]:
        """Measure one model at every hospital; the means over hospitals, which count alike."""
        each = [evaluate(model, part) for part in self.list_validations(seed)]
        return {name: float(np.mean([one[name] for one in each])) for name in each[0]}

    def train_alone(
        self, model: keras.Model, chosen: np.ndarray, seed: int, training: dict, folder: Path, label: str
    ) -> Run:
        """Train on some images in one place; the validation images of the hospitals that hold them choose."""
        held = [held.validation for held in self.hold(seed) if np.isin(held.training, chosen).any()]
        return train_central(
            model,
            self._take(chosen),
            self._take(np.concatenate(held)),
            **_list_options(training),
            seed=seed,
            folder=folder,
            label=label,
        )

    def tune(
        self, model: keras.Model, client: int, seed: int, training: dict, folder: Path, label: str
    ) -> Run:
        """Train a model on at one hospital; leave what is best on its validation images, maybe no epoch.

        Returns
        -------
        Run
            Its first record is of epoch 0, the model as it came.
        """
        held = self.hold(seed)[client]
        run = fine_tune(
            model,
            self._take(held.training),
            self._take(held.validation),
            **_list_options(training),
            seed=seed * 1000 + client,
            folder=folder,
            label=label,
        )
        run.history[0]["seconds"] = 0.0  # as epochs have them
        return run

    def put_mixture(
        self, model: keras.Model, client: int, seed: int, strength: float, local_epochs: int
    ) -> None:
        """Put the mixture of one hospital's training images into a model of FedLC.

        Strength and local epochs are those of its training: what that took out is put in.
        """
        labels = self._images.training.y[self.hold(seed)[client].training]
        put_mixture(model, local_epochs * np.bincount(labels, minlength=len(CLASSES)), strength)

    def test(self, model: keras.Model, seed: int) -> dict[str, dict]:
        """Measure on the pooled test images by part, and on each hospital's own, as ``hospital N``.

        Of a hospital's own there are ``n``, ``right`` and ``confusion`` (rows: truth, columns: prediction).
        """
        return super().test(model, seed) | {
            f"hospital {k + 1}": self._count_right(model, held.testing)
            for k, held in enumerate(self.hold(seed))
        }

    def _count_right(self, model, chosen) -> dict:
        x, y = self._take(chosen)
        confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
        np.add.at(confusion, (y, predict_logits(model, x).argmax(axis=1)), 1)
        return {"n": len(y), "right": int(np.trace(confusion)), "confusion": confusion.tolist()}


def _list_options(training) -> dict:
    """Return what training in one place is given, with as many passes as rounds and local epochs make."""
    return {
        "num_epochs": training["num_rounds"] * training["local_epochs"],
        "batch_size": training["batch_size"],
        "learning_rate": training["client_learning_rate"],
        "augment": training["augment"],
        "choose_by": training["choose_by"],
    }


def _join_rare(labels, groups) -> np.ndarray:
    """Return labels to stratify by: those of too few groups for every part count as the most frequent one."""
    joined = labels.copy()
    for label in np.unique(labels):
        if len(np.unique(groups[labels == label])) < len(_PARTS):
            joined[labels == label] = np.bincount(labels).argmax()
    return joined
