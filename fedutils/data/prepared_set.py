"""A data set of prepared volumes: made by several workers into the cache, opened, and read in batches."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from fedutils.data.cache import load_prepared, remove_left_overs
from fedutils.data.case import Case
from fedutils.data.volume_recipes import Prepared, Recipe
from fedutils.errors import InputError


@dataclass(frozen=True)
class PreparedSet:
    """The volumes of a data set, memory-mapped.

    Attributes
    ----------
    cases : tuple of Case
    volumes : tuple of Prepared
        In the order of `cases`; their arrays are read-only.
    skipped : tuple of (name, reason)
        Bad cases, left out because the caller asked for that.
    dropped : tuple of str
        Names of cases whose mask is too nearly empty.
    """

    cases: tuple[Case, ...]
    volumes: tuple[Prepared, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self.volumes)


def prepare_cases(
    cases: list[Case],
    recipe: Recipe,
    folder: Path,
    *,
    num_workers: int = 2,
    skip_bad: bool = False,
    min_labelled: float = 0.0,
    progress: bool = True,
) -> PreparedSet:
    """Prepare cases, those that the cache does not hold yet, and open them all.

    The workers are threads: decompression and NumPy let go of Python's lock. Each holds one case at a time:
    memory does not grow with their number. After Ctrl-C those under way are finished; all that are
    finished stay good.

    Parameters
    ----------
    cases : list of Case
    recipe : Recipe
    folder : Path
        Of the cache; made if need be.
    num_workers : int
        How many cases at once.
    skip_bad : bool
        Leave out cases that cannot be prepared, and say why in ``skipped``, instead of stopping.
    min_labelled : float
        Drop cases with less than this share of the prepared mask labelled: 0.01 as the project's forerunners
        do. Cases without a mask stay.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If two cases have one name, a case is bad and `skip_bad` is false, none is left, or the folder cannot
        be written.
    """
    cases, folder = list(cases), Path(folder)
    names = [case.name for case in cases]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"cases: expected one of each name, found several named {twins[0]}; rename one")
    if num_workers < 1:
        raise InputError(f"num_workers: expected at least 1, found {num_workers}")
    remove_left_overs(folder)
    volumes: dict[int, Prepared] = {}
    reasons: dict[int, str] = {}
    pool = ThreadPoolExecutor(num_workers)
    try:
        numbers = {pool.submit(load_prepared, case, recipe, folder): i for i, case in enumerate(cases)}
        finished = as_completed(numbers)
        for future in tqdm(finished, "prepare", len(cases), unit="case", disable=not progress):
            number = numbers[future]
            try:
                volumes[number] = future.result()
            except InputError as error:
                if not skip_bad:
                    raise
                reasons[number] = str(error)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    dropped = {i for i, volume in volumes.items() if volume.labelled < min_labelled}  # NaN: no mask, stays
    kept = [i for i in sorted(volumes) if i not in dropped]
    if not kept:
        raise InputError(
            f"cases: expected at least one to prepare, found {len(cases)}, of which {len(reasons)} bad and "
            f"{len(dropped)} with less than {min_labelled:.2%} labelled; choose others"
        )
    return PreparedSet(
        cases=tuple(cases[i] for i in kept),
        volumes=tuple(volumes[i] for i in kept),
        skipped=tuple((names[i], reasons[i]) for i in sorted(reasons)),
        dropped=tuple(names[i] for i in sorted(dropped)),
    )


def read_batches(
    volumes: tuple[Prepared, ...], batch_size: int, *, seed: int | None = None, epoch: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read every volume once, stacked in batches.

    Parameters
    ----------
    volumes : tuple of Prepared
        All of one shape.
    batch_size : int
        The last batch may be smaller.
    seed : int, optional
        Shuffle: one seed and epoch give one order. As they come, without.
    epoch : int

    Yields
    ------
    images : float32 (B, X, Y, Z, C)
    masks : uint8 (B, X, Y, Z)

    Raises
    ------
    InputError
        If the volumes differ in shape, or one has no mask.
    """
    shapes = {volume.images.shape for volume in volumes}
    if len(shapes) > 1 or batch_size < 1:
        raise InputError(
            f"batches: expected volumes of one shape and at least 1 a batch, found {len(shapes)} shapes and "
            f"{batch_size}; give the recipe a shape"
        )
    if bare := [volume.name for volume in volumes if volume.mask is None]:
        raise InputError(f"batches: expected masks, found none of {bare[0]}; leave it out")
    order = np.arange(len(volumes))
    if seed is not None:
        order = np.random.default_rng([seed, 61, epoch]).permutation(order)
    for first in range(0, len(order), batch_size):
        chosen = [volumes[i] for i in order[first : first + batch_size]]
        yield np.stack([v.images for v in chosen]), np.stack([v.mask for v in chosen])
