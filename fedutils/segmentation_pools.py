"""Cases to segment, as slices or as volumes, behind one set of calls: batches of some, and measures of some.

What is trained on and what is measured are chosen by the numbers of cases, so that one copy in memory serves
training in one place, every hospital, validation and test.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from fedutils.data.augment import Augmentation
from fedutils.data.case import Case
from fedutils.data.regions import REGIONS, regions_to_labels
from fedutils.data.segmentation import compute_regions, describe, load_slices, load_truth
from fedutils.data.segmentation_batches import Batches, make_patches, make_slice_batches
from fedutils.data.volume_prepare import prepare_case
from fedutils.data.volume_recipes import FIELD
from fedutils.inference import predict_slices, predict_volume, segment
from fedutils.segmentation_metrics import compute_dice, compute_segmentation_metrics
from fedutils.slice_metrics import measure_validation

# What costs little in 3-D: a mirror image from side to side, contrast and gamma.
LIGHT = Augmentation(flip=(0.5,), gain=(0.2, 0.3), gamma=(0.3, 0.3))


class Pool:
    """Cases, numbered from 0, and what both kinds of pools share.

    Attributes
    ----------
    cases : tuple of Case
        Those that could be read.
    regions : tuple of str
    input_shape, output_shape : tuple of int
        Of a network, without the batch.
    """

    cases: tuple[Case, ...]
    regions: tuple[str, ...]
    input_shape: tuple[int, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """A channel a region instead of one a modality."""
        return (*self.input_shape[:-1], len(self.regions))

    @functools.cache  # noqa: B019  (as long as the pool)
    def load_truth(self, case: int) -> np.ndarray:
        """Return what the mask of a case says on its own voxels, bool (X, Y, Z, K)."""
        return load_truth(self.cases[case], self.regions)

    def measure(self, model: keras.Model, chosen: Sequence[int], *, progress: bool = False) -> list[dict]:
        """Measure cases whole, on their own voxels.

        Returns
        -------
        list of dict
            One a case, see `fedutils.segmentation_metrics.compute_segmentation_metrics`.
        """
        return [
            compute_segmentation_metrics(
                self.segment(model, case), self.load_truth(case), self.regions, self.get_spacing(case)
            )
            for case in tqdm(chosen, desc="measure", unit="case", delay=2, disable=not progress)
        ]


class SlicePool(Pool):
    """Cases as axial slices, each resized to one side.

    Parameters
    ----------
    cases : list of Case
        Of one layout, with masks.
    size : int
        Side of a slice, in pixels.
    skip_bad : bool
        Leave out cases that cannot be read instead of stopping.
    """

    def __init__(self, cases: list[Case], *, size: int, skip_bad: bool = False):
        self.slices = load_slices(cases, size=size, skip_bad=skip_bad)
        self.cases = tuple(case for case in cases if case.name in self.slices.names)
        self.regions = self.slices.regions
        self.input_shape = (size, size, len(self.slices.modalities))

    @functools.cached_property
    def _tensors(self):
        return tf.convert_to_tensor(self.slices.x), tf.convert_to_tensor(self.slices.y)

    def count_examples(self, chosen: Sequence[int]) -> int:
        """Return the number of slices of some cases."""
        return len(self.slices.find(chosen))

    def make_batches(self, chosen: Sequence[int], *, batch_size: int, seed: int, augment: bool) -> Batches:
        """Return the shuffled batches of some cases' slices; see `make_slice_batches`."""
        own = self.slices.find(chosen)
        return make_slice_batches(*self._tensors, own, batch_size=batch_size, seed=seed, augment=augment)

    def validate(self, model: keras.Model, chosen: Sequence[int]) -> dict[str, float]:
        """Return ``dice`` and that of each region, means over cases, at the size of the slices."""
        return measure_validation(model, self.slices, chosen)

    def segment(self, model: keras.Model, case: int) -> np.ndarray:
        """Return the regions that a network finds, bool (X, Y, Z, K) on the voxels of the case."""
        own = self.slices.x[self.slices.find(case)]
        return segment(self.slices.restore(case, predict_slices(model, own, progress=False)))

    def get_spacing(self, case: int) -> tuple[float, ...] | None:
        """Return the sides of a voxel of a case in mm, if its files say."""
        return self.slices.spacings[case]

    def describe(self, source: str) -> dict:
        """Return what a result records of the data."""
        return describe(self.slices, source)


class VolumePool(Pool):
    """Cases as volumes, trained on in patches and predicted by windows that overlap.

    Parameters
    ----------
    cases : list of Case
        In BraTS's layout, with masks.
    voxel_mm : float
        Side of the voxels of the grid that all are brought to.
    patch_size : int
        Side of a patch and of a window, in voxels.
    patches_per_case : int
        In a pass over the data.
    """

    def __init__(self, cases: list[Case], *, voxel_mm: float, patch_size: int, patches_per_case: int):
        recipe = replace(FIELD, shape=None, spacing=(voxel_mm,) * 3)
        self.cases, self.regions = tuple(cases), REGIONS
        self.volumes = [prepare_case(case, recipe) for case in tqdm(cases, desc="prepare", unit="case")]
        self._side, self._patches = (patch_size,) * 3, patches_per_case
        self.input_shape = (*self._side, len(recipe.modalities))

    def count_examples(self, chosen: Sequence[int]) -> int:
        """Return the number of patches of some cases in a pass."""
        return self._patches * len(chosen)

    def make_batches(self, chosen: Sequence[int], *, batch_size: int, seed: int, augment: bool) -> Batches:
        """Return batches of random patches of some cases; see `make_patches`."""
        return make_patches(
            [self.volumes[case] for case in chosen],
            size=self._side,
            regions=self.regions,
            batch_size=batch_size,
            num_patches=self.count_examples(chosen),
            seed=seed,
            augmentation=LIGHT if augment else None,
        )

    def _predict(self, model, case):
        """Return the labels that a network finds, uint8 (X, Y, Z) on the voxels of the grid."""
        images = self.volumes[case].images
        found = segment(predict_volume(model, images, window=self._side, batch_size=4, progress=False))
        return regions_to_labels(np.moveaxis(found, -1, 0))

    def validate(self, model: keras.Model, chosen: Sequence[int]) -> dict[str, float]:
        """Return ``dice`` and that of each region, means over whole cases, on the grid."""
        scores = []
        for case in chosen:
            found = compute_regions(self._predict(model, case), self.regions)
            truth = compute_regions(self.volumes[case].mask, self.regions)
            scores.append([compute_dice(found[..., k], truth[..., k]) for k in range(len(self.regions))])
        means = np.mean(scores, axis=0)
        of_region = {f"dice_{name.lower()}": float(m) for name, m in zip(self.regions, means, strict=True)}
        return {"dice": float(means.mean()), **of_region}

    def segment(self, model: keras.Model, case: int) -> np.ndarray:
        """Return the regions that a network finds, bool (X, Y, Z, K) on the voxels of the case."""
        return compute_regions(self.volumes[case].restore(self._predict(model, case)), self.regions)

    def get_spacing(self, case: int) -> tuple[float, ...] | None:
        """Return the sides of a voxel of a case in mm."""
        return self.cases[case].load((), mask=True).spacing

    def describe(self, source: str) -> dict:
        """Return what a result records of the data."""
        return {
            "source": source,
            "num_cases": len(self.cases),
            "num_patients": len({case.patient for case in self.cases}),
            "modalities": list(FIELD.modalities),
            "regions": list(self.regions),
            "fingerprint": _hash([part for v in self.volumes for part in (v.images, v.mask)]),
        }


def _hash(arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]
