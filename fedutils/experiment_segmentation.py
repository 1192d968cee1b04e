"""The segmentation of tumours as the task of an experiment: slices or volumes, dealt out by case."""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import functools
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fedutils.data.federated_cases import (
    EVERYONE,
    CaseSplit,
    deal_by_size,
    scale_sizes,
    split_by_institution,
)
from fedutils.data.pipeline import seed_client
from fedutils.epochs import train_epochs
from fedutils.experiment_file import Experiment
from fedutils.keras_tff import build_functional_model
from fedutils.losses import DiceCrossEntropy
from fedutils.models.registry import build_network
from fedutils.partition_units import even_targets
from fedutils.runs import Run
from fedutils.segmentation_pools import Pool
from fedutils.tff import tff


class PoolClients:
    """Hospitals whose cases are in one pool.

    Parameters
    ----------
    pool : SlicePool or VolumePool
    parts : list of int (n,)
        The cases of each.
    batch_size, local_epochs, augment, seed
        As of `fedutils.federated.ArrayClients`. A round is as many passes as it has local epochs, and no
        two rounds have the same order, patches or augmentation.
    """

    def __init__(
        self,
        pool: Pool,
        parts: list[np.ndarray],
        *,
        batch_size: int,
        local_epochs: int,
        augment: bool,
        seed: int,
    ):
        self.num_clients, self._local_epochs = len(parts), local_epochs
        self._epochs = [
            pool.make_batches(part, batch_size=batch_size, seed=seed_client(seed, 0, k), augment=augment)
            for k, part in enumerate(parts)
        ]

    def batches(self, client: int, round_number: int) -> tf.data.Dataset:
        """Return the batches of a client in a round."""
        first = round_number * self._local_epochs
        passes = [self._epochs[client](first + e) for e in range(self._local_epochs)]
        return functools.reduce(lambda before, after: before.concatenate(after), passes)


class Segmentation:
    """Cases with outlined tumours, dealt out to hospitals whole; see `fedutils.experiment_interface.Task`.

    Parameters
    ----------
    experiment : Experiment
    pool : SlicePool or VolumePool
    source : str
        For the record: kaggle_3m or phantom.
    site_sizes : int64 (sites,), optional
        Of a partition into the sites of BraTS 2020.
    """

    # Networks are imported by name.
    CODE = (
        "experiment_segmentation",
        "experiment_segmentation_data",
        "experiment_prepare",
        "algorithms",
        "federated",
        "runtime",
        "models/unet*",
    )

    def __init__(self, experiment: Experiment, pool: Pool, source: str, site_sizes: np.ndarray | None = None):
        self._experiment, self.pool, self._source, self._sites = experiment, pool, source, site_sizes

    @functools.cached_property
    def provenance(self) -> dict:
        """What a result records of the data."""
        sites = {} if self._sites is None else {"site_sizes": self._sites.tolist()}
        return self.pool.describe(self._source) | sites

    @property
    def by_institution(self) -> bool:
        """Whether hospitals are institutions, with patients of their own in the test."""
        return self._experiment.partition["kind"] == "institutions"

    def build_model(self, seed: int) -> keras.Model:
        """Build the network with the initial weights of a seed."""
        options = {key: value for key, value in self._experiment.model.items() if value is not None}
        name = options.pop("name")
        return build_network(name, self.pool.input_shape, len(self.pool.regions), seed=seed, **options)

    def build_learner(self, model: keras.Model) -> tff.learning.models.FunctionalModel:
        """Give the network its loss, Dice and cross-entropy, for a learning process."""
        spec = (
            tf.TensorSpec((None, *self.pool.input_shape), tf.float32),
            tf.TensorSpec((None, *self.pool.output_shape), tf.uint8),
        )
        return build_functional_model(model, DiceCrossEntropy(), metrics=[], input_spec=spec)

    @functools.cache  # noqa: B019  (as long as the task)
    def split(self, seed: int) -> CaseSplit:
        """Return the cases to train on, those that choose the round, and those of the test."""
        data, cases = self._experiment.data, self.pool.cases
        return split_by_institution(
            [case.institution if self.by_institution else EVERYONE for case in cases],
            [case.patient for case in cases],
            validation_fraction=data["validation_fraction"],
            test_fraction=data["test_fraction"],
            held_out=data["held_out"],
            seed=seed,
        )

    def name_hospitals(self, seed: int) -> list[str]:
        """Return the institutions that train, or the sites by number."""
        if self.by_institution:
            return sorted({self.pool.cases[case].institution for case in self.split(seed).training})
        return [f"site {k + 1}" for k in range(len(self.deal(seed)))]

    @functools.cache  # noqa: B019
    def deal(self, seed: int) -> list[np.ndarray]:
        """Return the training cases of each hospital, int64; nobody's patients are parted."""
        chosen = self.split(seed).training
        if self.by_institution:
            homes = np.asarray([self.pool.cases[case].institution for case in chosen])
            return [chosen[homes == name] for name in self.name_hospitals(seed)]
        if self._sites is not None:
            sizes = scale_sizes(self._sites, len(chosen))
        else:
            num_clients = self._experiment.partition["num_clients"]
            sizes = np.diff(even_targets(len(chosen), num_clients), prepend=0, append=len(chosen))
        return deal_by_size(chosen, sizes, seed=seed)

    def count_examples(self, seed: int) -> list[int]:
        """Return the slices or patches of each hospital in a pass."""
        return [self.pool.count_examples(part) for part in self.deal(seed)]

    def describe_partition(self, seed: int) -> dict:
        """Return who holds what, and which cases chose the round and were tested."""
        split = self.split(seed)
        names = {key: [self.pool.cases[c].name for c in cases] for key, cases in vars(split).items()}
        return {
            "hospitals": self.name_hospitals(seed),
            "cases": [len(part) for part in self.deal(seed)],
            "examples": self.count_examples(seed),
            **names,
        }

    def make_clients(self, seed: int, training: dict) -> PoolClients:
        """Return the hospitals of a federation."""
        return PoolClients(
            self.pool,
            self.deal(seed),
            batch_size=training["batch_size"],
            local_epochs=training["local_epochs"],
            augment=training["augment"],
            seed=seed,
        )

    def validate(self, model: keras.Model, seed: int) -> dict[str, float]:
        """Measure on the cases that choose the round."""
        return self.pool.validate(model, self.split(seed).validation)

    def train_alone(
        self, model: keras.Model, chosen: np.ndarray, seed: int, training: dict, folder: Path, label: str
    ) -> Run:
        """Train on some cases in one place, with as many passes over them as a federation makes."""
        return train_epochs(
            model,
            self.pool.make_batches(
                chosen, batch_size=training["batch_size"], seed=seed, augment=training["augment"]
            ),
            lambda network: self.validate(network, seed),
            loss=DiceCrossEntropy(),
            num_epochs=training["num_rounds"] * training["local_epochs"],
            learning_rate=training["client_learning_rate"],
            choose_by=training["choose_by"],
            folder=folder,
            label=label,
        )

    def test(self, model: keras.Model, seed: int) -> dict[str, dict]:
        """Measure the test cases whole, on their own voxels, by part: all of them, and each institution's.

        Returns
        -------
        dict of str to dict
            ``names`` of the cases and, in their order, ``measured``: see `fedutils.segmentation_pools`.
        """
        chosen = self.split(seed).test
        measured = self.pool.measure(model, chosen)
        homes = [self.pool.cases[case].institution for case in chosen]
        parts = {EVERYONE: list(range(len(chosen)))}
        if self.by_institution:
            parts |= {home: [i for i, h in enumerate(homes) if h == home] for home in sorted(set(homes))}
        return {
            part: {
                "names": [self.pool.cases[chosen[i]].name for i in inside],
                "measured": [measured[i] for i in inside],
            }
            for part, inside in parts.items()
        }
