"""The cases of an experiment that segments tumours: which, from where, as slices or as volumes."""

from fedutils.segmentation_pools import Pool, SlicePool, VolumePool  # first: TensorFlow

# isort: split
from pathlib import Path

import numpy as np

from fedutils import paths
from fedutils.data.case import Case
from fedutils.data.case_table import list_source_cases
from fedutils.data.federated_cases import read_site_sizes
from fedutils.data.phantom_memory import list_phantom_cases
from fedutils.errors import InputError
from fedutils.experiment_file import Experiment

SITES = Path("partitions") / "BraTS21-17_Mapping.csv"  # below the folder of real data


def load_segmentation(experiment: Experiment) -> tuple[Pool, str, np.ndarray | None]:
    """Read the cases of an experiment: what `fedutils.experiment_segmentation.Segmentation` takes after it.

    Raises
    ------
    InputError
        If the data are not there, or damaged, or leak; or keys do not fit each other.
    """
    _check(experiment)
    cases, source = _list_cases(experiment)
    sites = None
    if experiment.partition["kind"] == "brats_sites":
        sites = read_site_sizes(paths.data_dir() / SITES)
    data = experiment.data
    if data["dimensions"] == 2:
        return SlicePool(cases, size=data["image_size"], skip_bad=data["skip_bad"]), source, sites
    pool = VolumePool(
        cases,
        voxel_mm=data["voxel_mm"],
        patch_size=data["patch_size"],
        patches_per_case=data["patches_per_case"],
    )
    return pool, source, sites


def _list_cases(experiment) -> tuple[list[Case], str]:
    data = experiment.data
    if data["source"] == "phantom_cases":
        cases = list_phantom_cases(data["num_cases"], voxel_mm=data["voxel_mm"], scanner=data["scanner"])
        return cases, "phantom"
    root = paths.data_dir() / "kaggle_3m"
    if not root.is_dir():
        raise InputError(
            f"{root}: expected the data set kaggle_3m, found no such folder; point FEDUTILS_DATA"
        )
    cases, source, _ = list_source_cases("brain_mri", phantom_cases=0, voxel_mm=0, skip_bad=data["skip_bad"])
    return cases, source


def _check(experiment):
    """Raise InputError where a key is missing that others ask for, or stands in vain."""
    data, partition, where = experiment.data, experiment.partition, experiment.where
    is_phantom, is_flat = data["source"] == "phantom_cases", data["dimensions"] == 2
    is_equal, is_natural = partition["kind"] == "equal", partition["kind"] == "institutions"
    needed = {
        "data: image_size": (data["image_size"], is_flat),
        "data: patch_size": (data["patch_size"], not is_flat),
        "data: patches_per_case": (data["patches_per_case"], not is_flat),
        "data: num_cases": (data["num_cases"], is_phantom),
        "data: voxel_mm": (data["voxel_mm"], is_phantom),
        "partition: num_clients": (partition["num_clients"], is_equal),
    }
    for name, (value, is_needed) in needed.items():
        if (value is not None) != is_needed:
            found, advice = ("none", "add it") if is_needed else (value, "remove it")
            told = "a value" if is_needed else "none beside these other keys"
            raise InputError(f"{where}: {name}: expected {told}, found {found}; {advice}")
    if not is_phantom and not is_flat:
        raise InputError(
            f"{where}: data: dimensions: expected 2 with kaggle_3m, whose files do not say how large a voxel "
            "is, found 3; set 2"
        )
    if data["held_out"] is not None and not is_natural:
        raise InputError(
            f"{where}: data: held_out: expected the partition institutions beside it, found "
            f"{partition['kind']}; remove one"
        )
    if data["scanner"] is not None and not is_phantom:
        raise InputError(
            f"{where}: data: scanner: expected the source phantom_cases beside it, found {data['source']}; "
            "remove it"
        )
