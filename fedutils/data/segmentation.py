"""Segmentation data as arrays: cases cut into axial slices of one size, and put back together.

`fedutils.data.slice_steps` says how a slice lies and how it is scaled.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from fedutils.data import lgg
from fedutils.data.case import Case, compute_spacing
from fedutils.data.regions import REGIONS, labels_to_regions
from fedutils.data.slice_steps import (
    cut_slices,
    from_pictures,
    resize_slices,
    restore_slices,
    to_pictures,
)
from fedutils.errors import InputError


@dataclass(frozen=True)
class SliceSet:
    """The axial slices of some cases, N of them, from K regions.

    Attributes
    ----------
    x : float32 (N, size, size, C)
        Pictures; 0 outside the head.
    y : uint8 (N, size, size, K), optional
        0 and 1, by region; none if the cases were read without masks.
    cases : int32 (N,)
        Which case a slice is of; the slices of a case follow each other from the feet up.
    positions : int32 (N,)
        Which slice of the case it is, from 0.
    names, patients : tuple of str
        By case.
    institutions : tuple of (str or None)
        By case.
    affines : tuple of (float64 (4, 4) or None)
        By case: from voxel of the case to mm; none in kaggle_3m, whose files do not say.
    shapes : tuple of (int, int, int)
        By case: voxels towards right, front and top.
    modalities : tuple of str
        The channels.
    regions : tuple of str
        ``("WT",)`` of kaggle_3m, ``("WT", "TC", "ET")`` of BraTS.
    missing : tuple of (tuple of str)
        By case: modalities that are zeros, since the case lacks them.
    skipped : tuple of (name, reason)
        Bad cases, left out because the caller asked for that.
    """

    x: np.ndarray
    y: np.ndarray | None
    cases: np.ndarray
    positions: np.ndarray
    names: tuple[str, ...]
    patients: tuple[str, ...]
    institutions: tuple[str | None, ...]
    affines: tuple[np.ndarray | None, ...]
    shapes: tuple[tuple[int, int, int], ...]
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    missing: tuple[tuple[str, ...], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.x)

    @property
    def spacings(self) -> tuple[tuple[float, float, float] | None, ...]:
        """Sides of the voxels of each case in mm, before resizing, if its files say."""
        return tuple(compute_spacing(affine) for affine in self.affines)

    def find(self, cases: int | Sequence[int]) -> np.ndarray:
        """Return int64 (n,): the sorted indices of the slices of a case, or of several."""
        return np.flatnonzero(np.isin(self.cases, np.atleast_1d(cases)))

    def stack(self, case: int, values: np.ndarray | None = None) -> np.ndarray:
        """Put a case together again, at the size of the slices.

        Parameters
        ----------
        case : int
        values : (n, size, size) or (n, size, size, K), optional
            One for each of the case's slices, in their order; by default the images.

        Returns
        -------
        (size, size, Z) or (size, size, Z, K), of the type of `values`
            Axes towards right, front and top; 0 in slices that were left out.
        """
        indices = self.find(case)
        values = self.x[indices] if values is None else np.asarray(values)
        size = self.x.shape[1]
        if values.ndim not in (3, 4) or values.shape[:3] != (len(indices), size, size):
            raise InputError(
                f"{self.names[case]}: expected {len(indices)} slices of {size}x{size}, found shape "
                f"{values.shape}"
            )
        pictures = np.zeros((self.shapes[case][2], *values.shape[1:]), values.dtype)
        pictures[self.positions[indices]] = values
        return from_pictures(pictures)

    def restore(self, case: int, values: np.ndarray) -> np.ndarray:
        """Put a prediction back on the voxels of the case, so that it is measured there.

        Parameters
        ----------
        case : int
        values : (n, size, size) or (n, size, size, K)
            As of `stack`. Floats, such as probabilities, are interpolated linearly; bools and integers take
            the nearest value.

        Returns
        -------
        (X, Y, Z) or (X, Y, Z, K), of the type of `values`
        """
        return restore_slices(self.stack(case, values), self.shapes[case])


def load_slices(
    cases: list[Case],
    *,
    size: int,
    modalities: tuple[str, ...] | None = None,
    masks: bool = True,
    skip_bad: bool = False,
    progress: bool = True,
) -> SliceSet:
    """Read cases and cut them into slices.

    A slice is kept if the head covers at least 1 % of it; what it shows of a tumour plays no part, so that
    cases with and without masks are cut alike. Slices that are not square are padded by 0 at both sides.
    Images are resized linearly, blurred first where they shrink; masks take the nearest value.

    One case at a time is in memory beside the result, which takes ``4 * size ** 2 * C`` bytes a slice:
    138 MB for the 700 slices of 21 patients at 128 pixels and three modalities.

    Parameters
    ----------
    cases : list of Case
        Of one layout.
    size : int
        Side of a slice, in pixels.
    modalities : tuple of str, optional
        The channels; by default all that the layout has.
    masks : bool
        Read the masks, and refuse a case that has none.
    skip_bad : bool
        Leave out cases that cannot be read, and say why in ``skipped``, instead of stopping.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If there is no case, layouts are mixed, or a case is bad and `skip_bad` is false.
    """
    cases = list(cases)
    layouts = {case.modalities for case in cases}
    if size < 1 or len(layouts) != 1:
        raise InputError(
            f"slices: expected a size of at least 1 and cases of one layout, found size {size} and "
            f"{len(cases)} cases of {len(layouts)} layouts; point to one data set"
        )
    modalities = cases[0].modalities if modalities is None else tuple(modalities)
    regions = get_regions(cases[0])
    good, grids, x, y, positions, skipped = [], [], [], [], [], []
    for case in tqdm(cases, desc="read slices", unit="case", disable=not progress):
        try:
            if masks and not case.has_mask:
                raise InputError(f"{case.name}: expected a mask, found none; leave the case out")
            volume = case.load(modalities, mask=masks)
            stripped = regions == REGIONS
            pictures, kept = cut_slices(volume, modalities, size, stripped=stripped, name=case.name)
        except InputError as error:
            if not skip_bad:
                raise
            skipped.append((case.name, str(error)))
            continue
        x.append(pictures)
        positions.append(kept)
        if masks:
            truth = compute_regions(volume.mask, regions).view(np.uint8)
            y.append(to_pictures(resize_slices(truth, size, labels=True))[kept])
        good.append(case)
        grids.append((volume.affine, volume.shape, tuple(m for m in modalities if m in volume.missing)))
    if not good:
        raise InputError(
            f"slices: expected a case that can be read, found none of {len(cases)}, the first: "
            f"{skipped[0][1]}"
        )
    affines, shapes, missing = zip(*grids, strict=True)
    return SliceSet(
        x=_join(x),
        y=_join(y) if masks else None,
        cases=np.repeat(np.arange(len(good), dtype=np.int32), [len(kept) for kept in positions]),
        positions=np.concatenate(positions).astype(np.int32),
        names=tuple(case.name for case in good),
        patients=tuple(case.patient for case in good),
        institutions=tuple(case.institution for case in good),
        affines=affines,
        shapes=shapes,
        modalities=modalities,
        regions=regions,
        missing=missing,
        skipped=tuple(skipped),
    )


def get_regions(case: Case) -> tuple[str, ...]:
    """Return the regions that the masks of a case's layout tell apart: WT alone in kaggle_3m."""
    return REGIONS[:1] if case.modalities == lgg.MODALITIES else REGIONS


def compute_regions(mask: np.ndarray, regions: tuple[str, ...]) -> np.ndarray:
    """Return the regions of a mask with the region last, as networks and metrics take them.

    Parameters
    ----------
    mask : uint8 (...)
        0, 1, 2 and 4; of kaggle_3m 0 and 1.
    regions : tuple of str
        Some of WT, TC, ET; of kaggle_3m only WT.

    Returns
    -------
    bool (..., K)
    """
    if unknown := set(regions) - set(REGIONS):
        raise InputError(f"regions: expected some of {', '.join(REGIONS)}, found {min(unknown)}")
    if tuple(regions) == REGIONS[:1]:
        return (mask > 0)[..., np.newaxis]
    every = labels_to_regions(mask)
    return np.stack([every[REGIONS.index(name)] for name in regions], axis=-1)


def load_truth(case: Case, regions: tuple[str, ...]) -> np.ndarray:
    """Return what a case's mask says, bool (X, Y, Z, K), on its own voxels.

    Raises
    ------
    InputError
        If it has no mask, its layout does not know a region, or the mask cannot be read.
    """
    if not case.has_mask:
        raise InputError(f"{case.name}: expected a mask to compare with, found none; use fedutils predict")
    if unknown := [name for name in regions if name not in get_regions(case)]:
        raise InputError(
            f"{case.name}: expected a mask of {', '.join(regions)}, found one without {', '.join(unknown)}; "
            "use a model for the regions of this data set"
        )
    return compute_regions(case.load((), mask=True).mask, regions)


def describe(slices: SliceSet, source: str) -> dict:
    """Return the provenance that a result records: source, numbers, what was skipped, a hash."""
    digest = hashlib.sha256(np.ascontiguousarray(slices.x))
    if slices.y is not None:
        digest.update(np.ascontiguousarray(slices.y))
    return {
        "source": source,
        "num_cases": len(slices.names),
        "num_patients": len(set(slices.patients)),
        "num_slices": len(slices),
        "modalities": list(slices.modalities),
        "size": int(slices.x.shape[1]),
        "cases_with_missing": {
            name: list(missing) for name, missing in zip(slices.names, slices.missing, strict=True) if missing
        },
        "skipped": [name for name, _ in slices.skipped],
        "fingerprint": digest.hexdigest()[:16],
    }


def _join(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate arrays, letting each go once it is copied: they are never all in memory twice."""
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    start = 0
    while parts:
        part = parts.pop(0)
        joined[start : start + len(part)] = part
        start += len(part)
    return joined
