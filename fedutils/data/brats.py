"""BraTS 2018 to 2021 as they are downloaded: a folder a case, four modalities and a mask, NIfTI.

Found below the folder that was named, however the archive was unpacked:

- 2018, 2019: ``MICCAI_BraTS_2018_Data_Training/HGG|LGG/Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1_flair.nii.gz``
- 2020: ``MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_flair.nii`` (or ``.nii.gz``)
- 2021: ``BraTS2021_00000/BraTS2021_00000_flair.nii.gz``

with ``name_mapping.csv`` (grade, name at TCIA) and ``survival_*.csv`` beside the cases. In the public 2020
set the mask of case 355 is named ``W39_1998.09.19_Segm.nii``. Validation sets have no masks.
"""

import functools
import re
from pathlib import Path

import numpy as np

from fedutils.data.case import Case, Volume
from fedutils.data.folders import build_cases, find_columns, known, read_table, walk_folders
from fedutils.data.institutions import institution_from_name
from fedutils.data.nifti import read_nifti
from fedutils.data.regions import ENHANCING
from fedutils.errors import InputError

MODALITIES = ("t1", "t1ce", "t2", "flair")
_FILE = re.compile(r"(?P<stem>.+)_(?P<kind>t1|t1ce|t2|flair|seg|segm)\.nii(\.gz)?", re.IGNORECASE)
_SCAN = re.compile(r"(BraTS1[789]_.+)_\d+", re.IGNORECASE)
_ALIVE = re.compile(r"ALIVE \((\d+) days? later\)", re.IGNORECASE)
_AFFINE_TOLERANCE = 1e-3  # mm; writers round to float32


def is_case(file_names: list[str]) -> bool:
    """Return whether a folder with these files is a BraTS case: one of them is named for a modality."""
    matches = (_FILE.fullmatch(name) for name in file_names)
    return any(match and match["kind"].lower() in MODALITIES for match in matches)


def list_brats(root: Path, *, enhancing_label: int = ENHANCING, skip_bad: bool = False) -> list[Case]:
    """List the cases of BraTS 2018 to 2021 below a folder without reading an image.

    Parameters
    ----------
    root : Path
        The data set's folder, one of its cases, or a folder around it.
    enhancing_label : int
        4 as published until 2021; 3 for copies whose masks were re-labelled (BraTS since 2023 does so). Such
        masks are read with 4 in place of 3. Not guessed: 1 and 2 mean other things in the Medical
        Segmentation Decathlon, whose masks hold 0 to 3 too.
    skip_bad : bool
        See `fedutils.data.folders.build_cases`.

    Returns
    -------
    list of Case
        Sorted by name, with t1, t1ce, t2 and flair. ``institution`` where the name says it (2018, 2019).
        ``facts``, where folder or tables say so: ``grade`` (HGG or LGG), ``tcga`` (the patient in TCGA),
        ``age`` (years), ``survival_days``, ``survival_censored`` (1 if alive on that day), ``resection``
        (GTR or STR).

    Raises
    ------
    InputError
        If there is no case, two have one name, a table is not as published, or a case lacks a modality, or a
        mask that the cases beside it have.
    """
    if enhancing_label not in (3, ENHANCING):
        raise InputError(f"enhancing_label: expected 3 or {ENHANCING}, found {enhancing_label}")
    found: dict[Path, list[str]] = {}
    facts: dict[str, dict[str, str | float]] = {}
    for folder, folders, files in walk_folders(root):
        if is_case(files):
            found[folder] = files
            folders.clear()
        for name in files:
            if re.search(r"name_mapping.*\.csv$", name, re.IGNORECASE):
                _merge(facts, _read_names(folder / name))
            elif re.search(r"survival.*\.csv$", name, re.IGNORECASE):
                _merge(facts, _read_survival(folder / name))
    if not found:
        raise InputError(
            f"{root}: expected BraTS cases (a folder each, with *_flair.nii.gz, *_t1.nii.gz, *_t1ce.nii.gz "
            "and *_t2.nii.gz), found none; point to the folder that holds them"
        )
    has_mask = {folder: bool(_candidates(folder, files, "segm?")) for folder, files in found.items()}
    masked = {folder.parent for folder, has in has_mask.items() if has}
    reader = functools.partial(read_brats, enhancing_label=enhancing_label)

    def build(folder):
        files = {m: (_choose(folder, found[folder], m),) for m in MODALITIES}
        # A validation set has no mask at all; in a training set a case without one lacks a file.
        if has_mask[folder] or folder.parent in masked or "training" in folder.name.lower():
            files["mask"] = (_choose(folder, found[folder], "segm?"),)
        name, told = folder.name, dict(facts.get(folder.name.lower(), {}))
        if folder.parent.name.upper() in ("HGG", "LGG"):
            told["grade"] = folder.parent.name.upper()
        scan = _SCAN.fullmatch(name)
        patient = scan[1] if scan else name
        return Case(name, patient, MODALITIES, files, reader, institution_from_name(name), told)

    return build_cases(root, list(found), build, MODALITIES, skip_bad=skip_bad)


def read_brats(
    case: Case, modalities: tuple[str, ...], mask: bool, *, enhancing_label: int = ENHANCING
) -> Volume:
    """Read a case of `list_brats`; what `Case.load` calls.

    Returns
    -------
    Volume
        Images as stored (int16 as a rule), mask uint8 with labels 0, 1, 2 and 4.

    Raises
    ------
    InputError
        If a file is missing or damaged, lies elsewhere than the first, is constant, or has another label.
    """
    arrays, first = {}, None
    for kind in (*modalities, "mask") if mask else modalities:
        (path,) = case.files[kind]
        array, affine = read_nifti(path, is_image=kind != "mask")
        if first is None:
            first = (path, array.shape, affine)
        _check_grid(path, array.shape, affine, *first)
        arrays[kind] = _check_labels(path, array, enhancing_label) if kind == "mask" else array
    labels = arrays.pop("mask", None)
    return Volume(arrays, labels, first[2] if first else None)


def _candidates(folder: Path, names: list[str], kind: str) -> list[str]:
    """Return the files of a kind; those named for the folder alone, if there are such."""
    matches = [match for match in map(_FILE.fullmatch, names) if match]
    own = [match for match in matches if re.fullmatch(kind, match["kind"], re.IGNORECASE)]
    named = [match for match in own if match["stem"] == folder.name]
    return [match.string for match in named or own]


def _choose(folder: Path, names: list[str], kind: str) -> Path:
    """Return the one file of a kind."""
    files = _candidates(folder, names, kind)
    if len(files) == 1:
        return folder / files[0]
    what, suffix = ("mask", "seg") if kind == "segm?" else (kind, kind)
    found = " and ".join(files) if files else "only " + ", ".join(name for name in names if ".nii" in name)
    remedy = "keep one of them" if files else "download the case again, or set skip_bad: true"
    raise InputError(f"{folder}: expected one {what}, {folder.name}_{suffix}.nii.gz, found {found}; {remedy}")


def _check_grid(path, shape, affine, first_path, first_shape, first_affine) -> None:
    """Refuse a volume that does not lie on the grid of the first."""
    if shape != first_shape:
        raise InputError(
            f"{path}: expected the shape of {first_path.name}, {first_shape}, found {shape}; "
            "replace the case, or set skip_bad: true"
        )
    apart = float(np.abs(affine - first_affine).max())
    if apart > _AFFINE_TOLERANCE:
        raise InputError(
            f"{path}: expected the affine of {first_path.name}, found one that differs by up to {apart:.4g}; "
            "replace the case, or set skip_bad: true"
        )


def _check_labels(path: Path, array: np.ndarray, enhancing_label: int) -> np.ndarray:
    """Return the mask as uint8 with labels 0, 1, 2, 4."""
    other = 7 - enhancing_label  # of 3 and 4, the one that must not be there
    # Few passes at memory speed; counting every label would take as long as decompression.
    if array.min() >= 0 and array.max() <= ENHANCING:
        labels = array.astype(np.uint8, copy=False)
        is_whole = array.dtype.kind in "iu" or np.array_equal(labels, array)
        if is_whole and not (labels == other).any():
            return labels if enhancing_label == ENHANCING else np.where(labels == 3, np.uint8(4), labels)
    values = np.unique(array)
    shown = ", ".join(f"{value:g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")
    hint = ""
    if set(values.tolist()) <= {0, 1, 2, 3, 4} and other in values:
        hint = f"if {other} marks enhancing tumour here, read with enhancing_label={other}, else "
    raise InputError(
        f"{path}: expected labels 0, 1, 2 and {enhancing_label}, found {shown}; {hint}replace the mask"
    )


def _merge(facts: dict, more: dict) -> None:
    for name, told in more.items():
        facts.setdefault(name, {}).update(told)


def _read_names(path: Path) -> dict[str, dict[str, str | float]]:
    """Return what a name mapping says, by case name in lower case."""
    rows = read_table(path)
    columns = find_columns(path, rows, r"BraTS_?(20)?\d\d_?subject_ID")
    facts: dict[str, dict[str, str | float]] = {}
    for row in rows:
        told = {"grade": known(row.get("Grade", "")), "tcga": known(row.get("TCGA_TCIA_subject_ID", ""))}
        told = {key: value for key, value in told.items() if value}
        _merge(facts, {row[column].lower(): told for column in columns if known(row[column])})
    return facts


def _read_survival(path: Path) -> dict[str, dict[str, str | float]]:
    """Return what a survival table says, by case name in lower case.

    2018: ``BraTS18ID,Age,Survival,ResectionStatus``; 2020:
    ``Brats20ID,Age,Survival_days,Extent_of_Resection``.
    Validation tables have no survival. A patient alive at the last look is ``ALIVE (361 days later)``.
    """
    rows = read_table(path)
    (case_column,) = find_columns(path, rows, r"BraTS\d\dID")[:1]
    facts: dict[str, dict[str, str | float]] = {}
    for row in rows:
        told: dict[str, str | float] = {}
        if age := known(row.get("Age", "")):
            told["age"] = _to_number(path, row[case_column], "an age in years", age)
        if days := known(row.get("Survival_days", row.get("Survival", ""))):
            alive = _ALIVE.fullmatch(days)
            told["survival_days"] = _to_number(
                path, row[case_column], "days of survival", alive[1] if alive else days
            )
            told["survival_censored"] = float(bool(alive))
        if resection := known(row.get("Extent_of_Resection", row.get("ResectionStatus", ""))):
            told["resection"] = resection
        facts[row[case_column].lower()] = told
    return facts


def _to_number(path: Path, name: str, what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: expected {what} for {name}, found {text!r}; mend the table") from None
