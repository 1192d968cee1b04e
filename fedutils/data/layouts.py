"""Which of the layouts that users download a folder holds, its cases, and a check of each of them."""

import dataclasses
import os
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from fedutils.data import brain_mri, brats, lgg
from fedutils.data.case import Case, Volume
from fedutils.data.folders import walk_folders
from fedutils.data.institutions import assign_institutions, read_institutions
from fedutils.data.regions import ENHANCING
from fedutils.errors import InputError

LAYOUTS = ("brain_mri", "kaggle_3m", "brats")
_LOOKS = (
    "brain_mri (Training|Testing/{glioma,meningioma,notumor,pituitary}/*.jpg, or glioma_tumor and so on), "
    "kaggle_3m (TCGA_CS_4941_19960909/*_1.tif) or brats (a folder a case, with *_flair.nii.gz, *_t1ce.nii.gz)"
)


def find_layouts(root: Path) -> dict[str, Path]:
    """Return every layout in a folder or below it, and the folder where the first of each begins.

    Parameters
    ----------
    root : Path

    Returns
    -------
    dict of str to Path
        By name of the layout (`LAYOUTS`): the folder of ``Training`` and ``Testing``, or of the first case.
    """
    found: dict[str, Path] = {}
    for folder, folders, files in walk_folders(root):
        if any(split in folders for split in brain_mri.SPLITS) and brain_mri.find_classes(folder):
            found.setdefault("brain_mri", folder)
        elif lgg.is_case(folder.name, files):
            found.setdefault("kaggle_3m", folder.parent)
        elif brats.is_case(files):
            found.setdefault("brats", folder.parent)
        else:
            continue
        folders.clear()
    return found


def detect_layout(root: Path) -> str:
    """Return which layout a folder holds, itself or below: ``brain_mri``, ``kaggle_3m`` or ``brats``.

    Raises
    ------
    InputError
        If it holds none of them, or several.
    """
    found = find_layouts(root)
    if len(found) == 1:
        return next(iter(found))
    if found:
        places = ", ".join(f"{name} in {place}" for name, place in found.items())
        raise InputError(f"{root}: expected one layout, found {places}; point to one of them")
    names = sorted(path.name for path in Path(root).iterdir() if not path.name.startswith("."))
    content = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "an empty folder"
    raise InputError(f"{root}: expected {_LOOKS}, found {content}; point to a folder of one of these")


def list_cases(
    root: Path,
    *,
    skip_bad: bool = False,
    institutions: Path | None = None,
    enhancing_label: int = ENHANCING,
) -> list[Case]:
    """List the cases of a folder in either layout of volumes, reading no image.

    Parameters
    ----------
    root : Path
        A folder that `detect_layout` knows as ``kaggle_3m`` or ``brats``.
    skip_bad : bool
        Keep a case that lacks files in the list; loading it raises the reason. Pass the list to
        `check_cases`, which sets such cases aside and says why.
    institutions : Path, optional
        A table that `fedutils.data.institutions.read_institutions` knows; it names every case's
        institution.
    enhancing_label : int
        See `fedutils.data.brats.list_brats`.

    Returns
    -------
    list of Case
        Sorted by name.

    Raises
    ------
    InputError
        If the folder holds no such layout, or, unless `skip_bad`, a case is not whole.
    """
    layout = detect_layout(root)
    if layout == "brain_mri":
        raise InputError(
            f"{root}: expected cases (kaggle_3m or brats), found brain_mri, whose pictures name no patient; "
            "use fedutils.data.brain_mri.load_images, or point to another folder"
        )
    if layout == "kaggle_3m":
        cases = lgg.list_lgg(root, skip_bad=skip_bad)
    else:
        cases = brats.list_brats(root, enhancing_label=enhancing_label, skip_bad=skip_bad)
    return cases if institutions is None else assign_institutions(cases, read_institutions(institutions))


def check_cases(
    cases: list[Case], *, skip_bad: bool = False, progress: bool = True
) -> tuple[list[Case], list[dict[str, str]]]:
    """Load each case once, one in memory at a time, and say which are bad.

    Parameters
    ----------
    cases : list of Case
    skip_bad : bool
        Go on after a bad case, and list it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    good : list of Case
        Their ``facts`` say how large the tumour is: ``tumour_voxels`` and, where the spacing is known,
        ``tumour_ml``. A mask without tumour is legal: see `without_tumour`.
    skipped : list of dict
        ``name`` and ``reason`` (paths relative to the data set) of the bad ones; for the result file.

    Raises
    ------
    InputError
        At the first bad case, unless `skip_bad`; and if none is good.
    """
    good, skipped = [], []
    for case in tqdm(cases, desc="check cases", unit="case", disable=not progress):
        try:
            good.append(_measure_tumour(case, case.load()))
        except InputError as error:
            if not skip_bad:
                raise
            skipped.append({"name": case.name, "reason": _shorten(case, str(error))})
    if not good:
        first = f", the first: {skipped[0]['reason']}" if skipped else ""
        raise InputError(f"cases: expected at least one that can be read, found none of {len(cases)}{first}")
    return good, skipped


def without_tumour(cases: list[Case]) -> list[str]:
    """Return the names of the cases whose mask is empty, of cases that `check_cases` returned."""
    return [case.name for case in cases if case.facts.get("tumour_voxels") == 0]


def _measure_tumour(case: Case, volume: Volume) -> Case:
    """Return the case with its tumour's size among the facts."""
    if volume.mask is None:
        return case
    facts = dict(case.facts) | {"tumour_voxels": float(np.count_nonzero(volume.mask))}
    if volume.spacing is not None:
        facts["tumour_ml"] = facts["tumour_voxels"] * float(np.prod(volume.spacing)) / 1000.0
    return dataclasses.replace(case, facts=facts)


def _shorten(case: Case, reason: str) -> str:
    """Return the reason without the part of its paths that belongs to this machine."""
    folders = {path.parent.parent for paths in case.files.values() for path in paths}
    for folder in folders:
        reason = reason.replace(f"{folder}{os.sep}", "")
    return reason
