"""What partitions need to know of cases: patient, institution, and what their images say, each read once."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from fedutils import paths
from fedutils.data.audit import Audit, stop_on_leak
from fedutils.data.brats import list_brats
from fedutils.data.case import Case
from fedutils.data.case_audit import audit_cases
from fedutils.data.institutions import assign_institutions
from fedutils.data.lgg import list_lgg
from fedutils.data.phantom_files import INDEX
from fedutils.errors import InputError
from fedutils.sources import ensure_phantom_cases


@dataclass(frozen=True)
class CaseTable:
    """Cases by column.

    Attributes
    ----------
    names, patients, institutions : tuple of N str
    tumour : float64 (N,)
        Size of the tumour, in `unit`.
    unit : str
        ``ml``, or ``voxels`` where the files do not say how large a voxel is.
    contrast : float64 (N,)
        Standard deviation over mean of the grey values of the head, of one modality: without a unit, and
        different between scanners.
    slices : tuple of N bool (Z,)
        Which axial slices show tumour, from the feet up.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    institutions: tuple[str, ...]
    tumour: np.ndarray
    unit: str
    contrast: np.ndarray
    slices: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.names)


def read_phantom_hospitals(folder: Path) -> dict[str, str]:
    """Return the hospital of each case, or of each slice, of a phantom: the scanner that it was made for.

    Parameters
    ----------
    folder : Path
        What `fedutils.data.phantom.write_brats` or ``write_brain_mri`` wrote.

    Returns
    -------
    dict
        By name of the case (give it to `fedutils.data.institutions.assign_institutions`), or by file
        (``Training/glioma/Tr-gl_0001.jpg``).

    Raises
    ------
    InputError
        If the folder holds no phantom.
    """
    path = Path(folder) / INDEX
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["case" if "case" in row else "file"]: row["hospital"] for row in rows}
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: expected the index of a phantom, with case or file and hospital, found "
            f"{type(error).__name__}; make one with 'fedutils data phantom --out DIR'"
        ) from error


def tabulate_cases(
    cases: Sequence[Case],
    *,
    modality: str = "flair",
    progress: bool = True,
) -> CaseTable:
    """Read every case once and say what a partition can go by.

    Parameters
    ----------
    cases : sequence of Case
    modality : str
        Of which `contrast` is taken; where a case lacks it, the first that it has.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If there is no case, a case has no mask or no known institution, or a file is bad.
    """
    if not cases:
        raise InputError("cases: expected at least one, found none; point to a folder that holds some")
    institutions, tumour, spacings, contrast, slices = [], [], [], [], []
    for case in tqdm(cases, desc="read cases", unit="case", disable=not progress):
        institutions.append(case.institution)
        if not institutions[-1] or not case.has_mask:
            lack = "institution" if case.has_mask else "mask"
            raise InputError(f"{case.name}: expected a case with a known {lack}, found none; leave it out")
        volume = case.load((modality if modality in case.modalities else case.modalities[0],))
        image = next(iter(volume.images.values()))
        head = image[image > image.mean()].astype(np.float64)
        tumour.append(np.count_nonzero(volume.mask))
        spacings.append(volume.spacing)
        contrast.append(head.std() / head.mean() if head.size else 0.0)
        slices.append(volume.mask.any(axis=(0, 1)))
    in_mm = all(spacing is not None for spacing in spacings)
    sizes = np.asarray(tumour, np.float64)
    return CaseTable(
        names=tuple(case.name for case in cases),
        patients=tuple(case.patient for case in cases),
        institutions=tuple(institutions),
        tumour=sizes * np.prod(spacings, axis=1) / 1000 if in_mm else sizes,
        unit="ml" if in_mm else "voxels",
        contrast=np.asarray(contrast),
        slices=tuple(slices),
    )


def list_source_cases(
    source: str, *, phantom_cases: int, voxel_mm: float, skip_bad: bool = False
) -> tuple[list[Case], str, Audit]:
    """Return cases whose institution is known, audited: the real kaggle_3m, or the phantom's hospitals.

    Parameters
    ----------
    source : str
        ``phantom`` (made under ``build/data`` the first time) or ``brain_mri``: ``FEDUTILS_DATA/kaggle_3m``,
        or the phantom if that is not there.
    phantom_cases : int
    voxel_mm : float
        Side of the phantom's voxels, in mm.
    skip_bad : bool
        Leave out cases that cannot be read, and list them in the audit, instead of stopping.

    Returns
    -------
    cases : list of Case
    source : str
        Where they really come from: ``kaggle_3m`` or ``phantom``.
    audit : Audit
        Of what was read; nothing in it is on both sides of a split.

    Raises
    ------
    InputError
        If a file is bad, or a patient or an image is on both sides of a split.
    """
    if source == "brain_mri" and (paths.data_dir() / "kaggle_3m").is_dir():
        name, layout, root = "kaggle_3m", "kaggle_3m", paths.data_dir() / "kaggle_3m"
        cases = list_lgg(root, skip_bad=skip_bad)
    else:
        name, layout, root = "phantom", "brats", ensure_phantom_cases(phantom_cases, voxel_mm)
        cases = assign_institutions(list_brats(root), read_phantom_hospitals(root))
    audit = audit_cases(cases, root, layout=layout, skip_bad=skip_bad)
    stop_on_leak(audit)
    bad = {case for case, _ in audit.skipped}
    return [case for case in cases if case.name not in bad], name, audit
