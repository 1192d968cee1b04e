"""What the experiments ask of a task: the members that all have, whatever is learned."""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from fedutils.federated import Clients
from fedutils.runs import Run
from fedutils.tff import tff


class Task(Protocol):
    """What is learned, from which data, dealt out to which hospitals, and how it is measured.

    Nothing else in the experiments knows whether slices are classified or tumours outlined. Every method
    that takes a seed gives the same for the same one.

    Attributes
    ----------
    CODE : tuple of str
        Where its runs enter fedutils, see `fedutils.runs.run_folder`: a change of what these import starts
        them anew, of another's does not.
    SCORES : tuple of str
        Where what is said of a trained network enters fedutils: after a change of what these import, and
        `CODE` does not, it is said anew, and nothing is trained. See `fedutils.runs.fingerprint_scores`.
    provenance : dict
        What a result records of the data.
    """

    CODE: tuple[str, ...]
    SCORES: tuple[str, ...]
    provenance: dict

    def build_model(self, seed: int) -> keras.Model:
        """Build the network with the initial weights of a seed."""

    def build_learner(self, model: keras.Model) -> keras.Model | tff.learning.models.FunctionalModel:
        """Return what `fedutils.algorithms.build_process` is given: the network with its loss."""

    def deal(self, seed: int) -> list[np.ndarray]:
        """Return what each hospital trains on, as indices of images or cases, int64 each."""

    def count_examples(self, seed: int) -> list[int]:
        """Return the training examples of each hospital in a pass: images, slices or patches."""

    def describe_partition(self, seed: int) -> dict:
        """Return who holds what."""

    def make_clients(self, seed: int, training: dict) -> Clients:
        """Return the hospitals of a federation."""

    def validate(self, model: keras.Model, seed: int) -> dict[str, float]:
        """Measure what chooses the round; nothing is trained on it, or tested."""

    def train_alone(
        self, model: keras.Model, chosen: np.ndarray, seed: int, training: dict, folder: Path, label: str
    ) -> Run:
        """Train on some of the data in one place, with as many passes as a federation makes."""

    def test(self, model: keras.Model, seed: int) -> dict[str, dict]:
        """Measure what was held out, by part of it."""

    def describe_shared(self, test: dict[str, dict], seed: int) -> dict:
        """Return ``test``, ``hospitals`` and ``worst`` of one model that all hospitals use."""

    def describe_own(self, tests: list[dict[str, dict]], seed: int) -> dict:
        """Return ``test``, ``hospitals`` and ``worst`` of models of which each hospital has its own."""

    def summarise(self, measured: Sequence[dict]) -> dict[str, dict]:
        """Summarise what `describe_shared` or `describe_own` gave, a seed each, by part and metric."""
