"""Phantom cases that are made when they are read, with the scanner of any hospital: nothing is written.

They are those of `fedutils.data.phantom.write_brats`, voxel by voxel, where the hospital is the same.
"""

import functools

import numpy as np

from fedutils.data.case import Case, Volume
from fedutils.data.phantom_case import MODALITIES, case_grid, make_case
from fedutils.data.phantom_scanner import HOSPITALS, hospital_index

SEED = 2020


def list_phantom_cases(
    num_cases: int, *, voxel_mm: float, scanner: str | None = None, seed: int = SEED
) -> list[Case]:
    """List cases of the phantom without making one.

    Parameters
    ----------
    num_cases : int
    voxel_mm : float, 1 to 6
    scanner : str, optional
        The hospital whose scanner made all of them, one of `fedutils.data.phantom_scanner.HOSPITALS`; by
        default case i, from 1, comes from hospital (i - 1) mod 5. The anatomy is the same either way.
    seed : int

    Returns
    -------
    list of Case
        BraTS's modalities and labels; each `Case.load` makes the case anew.

    Raises
    ------
    InputError
        If the voxel size is out of range, or there is no such hospital.
    """
    case_grid(voxel_mm)
    only = None if scanner is None else hospital_index(scanner)
    cases = []
    for number in range(1, num_cases + 1):
        hospital = (number - 1) % len(HOSPITALS) if only is None else only
        name = f"phantom_{number:03d}"
        reader = functools.partial(_read, number, hospital, float(voxel_mm), seed)
        # No file has these names: they say which modalities there are, and that there is a mask.
        files = {"volume": (), "mask": (name,)}
        cases.append(Case(name, name, MODALITIES, files, reader, HOSPITALS[hospital].name))
    return cases


def _read(number, hospital, voxel_mm, seed, case, modalities, mask) -> Volume:
    """Make a case; what `Case.load` calls."""
    made = make_case(number, hospital, voxel_mm=voxel_mm, seed=seed)
    shape, affine = case_grid(voxel_mm)
    # As the files hold it: a gain for each image, and integers of at least 1 in the brain.
    gains = np.random.default_rng([seed, 40, number]).uniform(400, 1000, len(MODALITIES))
    images = {}
    for modality, gain in zip(MODALITIES, gains, strict=True):
        if modality in modalities:
            image = np.where(made[modality] > 0, np.clip(made[modality] * gain, 1, 32767), 0)
            images[modality] = image.astype(np.int16)[::-1, ::-1]
    # BraTS counts voxels to the left and to the back, a `Volume` to the right and to the front.
    turned = affine @ np.diag([-1.0, -1.0, 1.0, 1.0])
    turned[:3, 3] = affine[:3, 3] + affine[:3, :3] @ [shape[0] - 1, shape[1] - 1, 0]
    return Volume(images, made["seg"][::-1, ::-1] if mask else None, turned)
