"""Where a notebook's images come from: the phantom, made on demand, or real data on this machine."""

import functools
import hashlib
from pathlib import Path

from fedutils import paths
from fedutils.data.case import Case
from fedutils.errors import InputError

SOURCES = ("phantom", "brain_mri")


def locate_brain_mri(source: str, *, phantom_training: int, phantom_testing: int, phantom_size: int) -> Path:
    """Return a folder in the Kaggle layout, with ``Training`` and ``Testing``.

    Parameters
    ----------
    source : str
        ``phantom`` (made under ``build/data`` the first time) or ``brain_mri`` (``FEDUTILS_DATA/brain_mri``,
        or ``FEDUTILS_DATA`` itself if that is the data set).
    phantom_training, phantom_testing : int
        Phantom images of each class.
    phantom_size : int
        Side of the phantom's images, in pixels.
    """
    if source == "phantom":
        from fedutils.data.phantom import ensure_brain_mri

        folder = paths.BUILD / "data" / f"phantom-{phantom_training}-{phantom_testing}-{phantom_size}"
        ensure_brain_mri(folder, phantom_training, phantom_testing, size=phantom_size)
        return folder
    if source == "brain_mri":
        root = paths.data_dir()
        return root if (root / "Training").is_dir() else root / "brain_mri"
    raise InputError(f"data: expected one of {', '.join(SOURCES)}, found {source!r}; mend the profile")


def ensure_phantom_cases(num_cases: int, voxel_mm: float) -> Path:
    """Return a folder of phantom cases in BraTS 2020 layout, made under ``build/data`` the first time."""
    from fedutils.data.phantom import ensure_brats

    return ensure_brats(
        paths.BUILD / "data" / f"phantom-brats-{num_cases}-{voxel_mm}", num_cases, voxel_mm=voxel_mm
    )


def find_brats_case(source: str, *, voxel_mm: float) -> tuple[Case, str]:
    """Return one case in BraTS 2020 layout, and where it really comes from: ``brats2020`` or ``phantom``.

    Parameters
    ----------
    source : str
        ``phantom``, or ``brain_mri``: the first case of ``FEDUTILS_DATA/brats2020``, or the phantom's if
        there is none.
    voxel_mm : float
        Side of the phantom's voxels, in mm.
    """
    from fedutils.data.brats import list_brats

    root = paths.data_dir() / "brats2020" if source == "brain_mri" else None
    if root is not None and root.is_dir():
        return list_brats(root)[0], "brats2020"
    return list_brats(ensure_phantom_cases(1, voxel_mm))[0], "phantom"


@functools.cache
def describe_source(source: str) -> str:
    """Return a hash that changes when the real data behind a source does (names and sizes of files)."""
    if source == "phantom":
        return "phantom"
    digest = hashlib.sha256()
    for path in sorted(paths.data_dir().rglob("*")):
        if path.is_file():
            digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]
