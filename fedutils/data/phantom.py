"""The phantom: a deterministic, local stand-in for BraTS 2020 and for the Kaggle tumour slices.

``make_case`` and ``make_slice`` make one item in memory; ``write_*`` write whole sets in the
layouts of the real ones, and ``ensure_*`` do so only where the same set is not there yet. Nothing
here is clinical: no number from the phantom says anything about patients.

Each item has its own random generator, so neither the order nor the number of processes matters. A
set is written under a temporary name beside its folder and renamed at the end: a folder that has
its final name is whole.
"""

import functools
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from fedutils.data.phantom_case import MODALITIES, case_grid, is_high_grade, make_case
from fedutils.data.phantom_files import is_whole, map_items, whole_folder, write_index
from fedutils.data.phantom_scanner import HOSPITALS, Scanner, hospital_index
from fedutils.data.phantom_slice import (
    CLASSES,
    SIZE_RANGE,
    SLABS_MM,
    SPLITS,
    VIEWS,
    SliceRecord,
    draw_slice,
    make_slice,
)
from fedutils.errors import InputError

__all__ = [
    "CLASSES",
    "HOSPITALS",
    "MODALITIES",
    "SLABS_MM",
    "SPLITS",
    "VIEWS",
    "Scanner",
    "SliceRecord",
    "case_grid",
    "draw_slice",
    "ensure_brain_mri",
    "ensure_brats",
    "hospital_index",
    "make_case",
    "make_slice",
    "write_brain_mri",
    "write_brats",
]

PHANTOM_VERSION = 1  # raise it with every change that alters a file

_SHORT = {"glioma": "gl", "meningioma": "me", "notumor": "no", "pituitary": "pi"}
_LABELS = {1: "necrosis_ml", 2: "oedema_ml", 4: "enhancing_ml"}
_FEW = 32  # slices that one process makes sooner than a pool starts


def write_brats(folder, num_cases, *, voxel_mm=1.0, seed=2020, progress=True, num_workers=None):
    """Write cases in BraTS 2020 layout; an earlier phantom in `folder` is replaced.

    ``BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii.gz``: images int16 in
    arbitrary units, 0 outside the brain; segmentation uint8 with labels 0, 1, 2, 4. Beside them
    ``phantom_index.csv`` (case, hospital, hgg, volumes in ml) and ``phantom.json`` (all
    parameters). Case i comes from hospital (i - 1) mod 5.

    Parameters
    ----------
    folder : path
    num_cases : int, 1 to 999
    voxel_mm : float, mm, 1 to 6; 1 is BraTS's own grid
    seed : int, at least 0
    progress : bool, show a progress bar
    num_workers : int or None, processes; None uses every core

    Returns
    -------
    Path of the folder.

    Raises
    ------
    InputError
        If an argument is not valid, or `folder` holds something other than a phantom.
    """
    manifest = _brats_manifest(num_cases, voxel_mm, seed)
    with whole_folder(folder, manifest) as partial:
        job = functools.partial(_write_case, partial, float(voxel_mm), seed)
        rows = map_items(job, range(1, num_cases + 1), num_workers, progress, "phantom cases", few=1)
        write_index(partial, rows)
    return Path(folder)


def ensure_brats(folder, num_cases, *, voxel_mm=1.0, seed=2020, progress=True, num_workers=None):
    """Do as `write_brats`, unless `folder` already holds exactly this set."""
    if not is_whole(folder, _brats_manifest(num_cases, voxel_mm, seed), _brats_files):
        write_brats(
            folder,
            num_cases,
            voxel_mm=voxel_mm,
            seed=seed,
            progress=progress,
            num_workers=num_workers,
        )
    return Path(folder)


def write_brain_mri(folder, num_training, num_testing, *, size=256, seed=7, progress=True, num_workers=None):
    """Write slices in the Kaggle layout; an earlier phantom in `folder` is replaced.

    ``Training|Testing/{glioma,meningioma,notumor,pituitary}/Tr-gl_0001.jpg``, grey JPEG. Beside
    them ``phantom_index.csv`` (file, split, class, hospital, view, position_mm) and
    ``phantom.json`` (all parameters).

    Parameters
    ----------
    folder : path
    num_training, num_testing : int, at least 1, images per class
    size : int, pixels a side
    seed : int, at least 0
    progress : bool, show a progress bar
    num_workers : int or None, processes; None uses every core

    Returns
    -------
    Path of the folder.

    Raises
    ------
    InputError
        If an argument is not valid, or `folder` holds something other than a phantom.
    """
    manifest = _brain_mri_manifest(num_training, num_testing, size, seed)
    items = [
        (split, label, index)
        for split, number in zip(SPLITS, (num_training, num_testing), strict=True)
        for label in CLASSES
        for index in range(1, number + 1)
    ]
    with whole_folder(folder, manifest) as partial:
        for split in SPLITS:
            for label in CLASSES:
                (partial / split / label).mkdir(parents=True)
        job = functools.partial(_write_slice, partial, size, seed)
        rows = map_items(job, items, num_workers, progress, "phantom slices", few=_FEW)
        write_index(partial, rows)
    return Path(folder)


def ensure_brain_mri(folder, num_training, num_testing, *, size=256, seed=7, progress=True, num_workers=None):
    """Do as `write_brain_mri`, unless `folder` already holds exactly this set."""
    if not is_whole(folder, _brain_mri_manifest(num_training, num_testing, size, seed), _slice_files):
        write_brain_mri(
            folder,
            num_training,
            num_testing,
            size=size,
            seed=seed,
            progress=progress,
            num_workers=num_workers,
        )
    return Path(folder)


def _brats_manifest(num_cases, voxel_mm, seed):
    """Return the parameters of a set of cases, checked."""
    _check_count("num_cases", num_cases, 1, 999)
    _check_count("seed", seed, 0)
    case_grid(voxel_mm)
    return {
        "kind": "brats",
        "version": PHANTOM_VERSION,
        "num_cases": int(num_cases),
        "voxel_mm": float(voxel_mm),
        "seed": int(seed),
    }


def _brain_mri_manifest(num_training, num_testing, size, seed):
    """Return the parameters of a set of slices, checked."""
    _check_count("num_training", num_training, 1)
    _check_count("num_testing", num_testing, 1)
    _check_count("size", size, *SIZE_RANGE)
    _check_count("seed", seed, 0)
    return {
        "kind": "brain_mri",
        "version": PHANTOM_VERSION,
        "num_training": int(num_training),
        "num_testing": int(num_testing),
        "size": int(size),
        "seed": int(seed),
    }


def _brats_files(row):
    """Return the files of a row of the index of cases."""
    return [f"{row['case']}/{row['case']}_{m}.nii.gz" for m in (*MODALITIES, "seg")]


def _slice_files(row):
    """Return the file of a row of the index of slices."""
    return [row["file"]]


def _check_count(name, value, low, high=None):
    """Raise InputError unless `value` is an integer in range."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if is_integer and value >= low and (high is None or value <= high):
        return
    expected = f"{low} or more" if high is None else f"{low} to {high}"
    raise InputError(f"bad {name}: expected an integer, {expected}, found {value!r}; choose another")


def _write_case(folder, voxel_mm, seed, number):
    """Write one case and return its row of the index."""
    hospital = (number - 1) % len(HOSPITALS)
    name = f"BraTS20_Training_{number:03d}"
    case = make_case(number, hospital, voxel_mm=voxel_mm, seed=seed)
    _, affine = case_grid(voxel_mm)
    # BraTS has no common unit: each image has its own gain.
    gains = np.random.default_rng([seed, 40, number]).uniform(400, 1000, len(MODALITIES))
    (folder / name).mkdir()
    for modality, gain in zip(MODALITIES, gains, strict=True):
        # At least 1 in the brain, so that "not 0" is the brain, as readers of BraTS assume.
        image = np.where(case[modality] > 0, np.clip(case[modality] * gain, 1, 32767), 0)
        _save_nifti(folder / name / f"{name}_{modality}.nii.gz", image.astype(np.int16), affine)
    _save_nifti(folder / name / f"{name}_seg.nii.gz", case["seg"], affine)
    row = {
        "case": name,
        "hospital": HOSPITALS[hospital].name,
        "hgg": int(is_high_grade(number, seed=seed)),
    }
    for label, column in _LABELS.items():
        row[column] = f"{(case['seg'] == label).sum() * voxel_mm**3 / 1000:.2f}"
    return row


def _save_nifti(path, array, affine):
    """Write a NIfTI file with the codes of BraTS: sform and qform set, millimetres."""
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=2)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_slice(folder, size, seed, item):
    """Write one slice and return its row of the index."""
    split, label, index = item
    file = Path(split, label, f"{split[:2]}-{_SHORT[label]}_{index:04d}.jpg")
    image = make_slice(label, index, split, size=size, seed=seed)
    Image.fromarray(image).save(folder / file, quality=90)
    record = draw_slice(label, index, split, seed=seed)
    return {
        "file": file.as_posix(),
        "split": split,
        "class": label,
        "hospital": HOSPITALS[record.hospital].name,
        "view": record.view,
        "position_mm": f"{record.position_mm:.2f}",
    }
