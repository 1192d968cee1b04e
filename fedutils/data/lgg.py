"""The LGG segmentation data set (kaggle_3m): low-grade gliomas of TCGA, FLAIR abnormality outlined, TIFF.

``kaggle_3m/TCGA_<institution>_<patient>_<date>/TCGA_..._<slice>.tif`` (8-bit, channels pre-contrast, FLAIR
and post-contrast) with ``..._<slice>_mask.tif`` (0 and 255), and ``data.csv``. Archives hold it a second
time, as ``lgg-mri-segmentation/kaggle_3m``. A sequence that a patient lacks was filled with
FLAIR by the authors: it is recognised by that.

The files do not say how a slice lies. Assumed are axial slices in radiological convention: the patient's
front up and right on the left, the lowest number at the bottom of the head. The pictures show front and
bottom, and the side of the tumours agrees with the column ``laterality`` of ``data.csv`` (1 left, 3 right).
Spacing is unknown, so a volume has no affine.

References
----------
M. Buda, A. Saha and M. A. Mazurowski, "Association of genomic subtypes of lower-grade gliomas with shape
features automatically extracted by a deep learning algorithm", Computers in Biology and Medicine 109, 2019.
"""

import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fedutils.data.case import Case, Volume
from fedutils.data.folders import build_cases, find_columns, known, read_table, walk_folders
from fedutils.errors import InputError

MODALITIES = ("pre", "flair", "post")  # the order of the channels
_FOLDER = re.compile(r"(TCGA_([A-Z0-9]{2})_[A-Z0-9]{4})_\d{8}")
_TIFF = re.compile(r".*\.tiff?", re.IGNORECASE)
_AGE = "age_at_initial_pathologic"


def is_case(folder_name: str, file_names: list[str]) -> bool:
    """Return whether a folder is a case of kaggle_3m: by its name, and by holding TIFF files."""
    return bool(_FOLDER.fullmatch(folder_name)) and any(map(_TIFF.fullmatch, file_names))


def list_lgg(root: Path, *, skip_bad: bool = False) -> list[Case]:
    """List the cases of kaggle_3m below a folder without reading an image.

    Parameters
    ----------
    root : Path
        ``kaggle_3m``, one of its cases, or a folder around it.
    skip_bad : bool
        See `fedutils.data.folders.build_cases`.

    Returns
    -------
    list of Case
        Sorted by name, with the modalities pre, flair, post. ``patient`` is ``TCGA_<institution>_<patient>``,
        ``institution`` the code in it. ``facts`` are the columns of ``data.csv``: codes as given there, as
        text, and ``age_at_initial_pathologic`` in years.

    Raises
    ------
    InputError
        If there is no case, two have one name, slices are not numbered without a gap, a slice lacks its mask
        or a mask its slice.
    """
    found: dict[Path, list[str]] = {}
    facts: dict[str, dict[str, str | float]] = {}
    for folder, folders, files in walk_folders(root):
        if is_case(folder.name, files):
            found[folder] = [name for name in files if _TIFF.fullmatch(name)]
            folders.clear()
        elif "data.csv" in files:
            facts.update(_read_facts(folder / "data.csv"))
    if not found:
        raise InputError(
            f"{root}: expected folders such as TCGA_CS_4941_19960909 with .tif slices, found none; "
            "point to kaggle_3m"
        )
    any_mask = any("_mask." in name for names in found.values() for name in names)

    def build(folder):
        files = _sort_files(folder, found[folder], need_mask=any_mask)
        patient, institution = _FOLDER.fullmatch(folder.name).groups()
        return Case(folder.name, patient, MODALITIES, files, read_lgg, institution, facts.get(patient, {}))

    return build_cases(root, list(found), build, MODALITIES, skip_bad=skip_bad)


def read_lgg(case: Case, modalities: tuple[str, ...], mask: bool) -> Volume:
    """Read a case of `list_lgg`; what `Case.load` calls.

    Returns
    -------
    Volume
        Images and mask uint8, (X, Y, Z) towards right, front and top; mask 0 and 1; no affine. ``missing``
        names the sequences that are copies of FLAIR: what ``images`` holds for them is FLAIR.

    Raises
    ------
    InputError
        If a file is missing or damaged, has another size or mode than the first, or if a channel is constant.
    """
    slices = case.files["slices"]
    channels = np.moveaxis(_read_stack(slices, "RGB"), -1, 0).copy()  # (3, Z, rows, columns), each contiguous
    by_name = dict(zip(MODALITIES, channels, strict=True))
    for name, channel in by_name.items():
        if channel.min() == channel.max():
            raise InputError(
                f"{slices[0].parent}: expected an image in channel {name}, found the one value "
                f"{channel.flat[0]} in every slice; replace the case, or set skip_bad: true"
            )
    missing = tuple(m for m in MODALITIES if m != "flair" and np.array_equal(by_name[m], by_name["flair"]))
    images = {m: _to_canonical(by_name[m]) for m in modalities}
    labels = None
    if mask:
        stack = _read_stack(case.files["mask"], "L", by_name["flair"].shape[1:])
        labels = _to_canonical((stack > 0).astype(np.uint8))
    return Volume(images, labels, missing=missing)


def _sort_files(folder: Path, names: list[str], *, need_mask: bool) -> dict[str, tuple[Path, ...]]:
    """Return the slices and masks of a case from the lowest number up, checked for gaps."""
    pattern = re.compile(rf"{folder.name}_(\d+)(_mask)?\.tiff?", re.IGNORECASE)
    slices: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    for name in names:
        match = pattern.fullmatch(name)
        kind = masks if match and match[2] else slices
        if not match or int(match[1]) in kind:
            raise InputError(
                f"{folder / name}: expected {folder.name}_<slice>.tif or {folder.name}_<slice>_mask.tif, "
                "each once, found this; move it elsewhere"
            )
        kind[int(match[1])] = folder / name
    numbers = set(slices)
    if gaps := set(range(min(numbers, default=0), max(numbers, default=-1) + 1)) - numbers:
        raise InputError(
            f"{folder}: expected slices {min(numbers)} to {max(numbers)} without a gap, found no slice "
            f"{_show(gaps)}; restore it, or set skip_bad: true"
        )
    if lacking := set(masks) - numbers:
        raise InputError(
            f"{folder}: expected a slice for every mask, found none for mask {_show(lacking)}; "
            "restore it, or set skip_bad: true"
        )
    if (masks or need_mask) and (lacking := numbers - set(masks)):
        raise InputError(
            f"{folder}: expected a mask for every slice, found none for slice {_show(lacking)}; "
            "restore it, or set skip_bad: true"
        )
    files = {"slices": tuple(slices[n] for n in sorted(slices))}
    if masks:
        files["mask"] = tuple(masks[n] for n in sorted(masks))
    return files


def _read_stack(paths: tuple[Path, ...], mode: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return slices of one mode and size, uint8 (Z, rows, columns) or, of RGB, (Z, rows, columns, 3)."""
    pictures = []
    for path in paths:
        try:
            with warnings.catch_warnings():
                # A damaged file makes Pillow warn before it raises; one line is enough.
                warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
                with Image.open(path) as image:
                    found, pixels = image.mode, np.asarray(image)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: expected a readable TIFF, found: {error}; download it again, or set skip_bad: true"
            ) from error
        if found != mode:
            kind = "8-bit RGB (pre, FLAIR, post)" if mode == "RGB" else "8-bit grey (a mask)"
            raise InputError(f"{path}: expected {kind}, found mode {found}; replace the file")
        shape = shape or pixels.shape[:2]
        if pixels.shape[:2] != shape:
            raise InputError(
                f"{path}: expected {shape[0]}x{shape[1]} pixels, as in the first slice, found "
                f"{pixels.shape[0]}x{pixels.shape[1]}; replace the file, or set skip_bad: true"
            )
        if mode == "L" and not np.array_equal(pixels, np.where(pixels > 0, np.uint8(255), np.uint8(0))):
            values = ", ".join(str(value) for value in np.unique(pixels)[:8])
            raise InputError(f"{path}: expected a mask of 0 and 255, found {values}; replace the file")
        pictures.append(pixels)
    return np.stack(pictures)


def _to_canonical(stack: np.ndarray) -> np.ndarray:
    """Turn slices (Z, rows, columns) in radiological convention into (X, Y, Z) towards right, front, top.

    Row 0 is the front and column 0 the patient's right, so both run against the axes. A view.
    """
    return stack.transpose(2, 1, 0)[::-1, ::-1]


def _read_facts(path: Path) -> dict[str, dict[str, str | float]]:
    """Return what ``data.csv`` says, by patient."""
    rows = read_table(path)
    (patient,) = find_columns(path, rows, "Patient")
    facts = {}
    for row in rows:
        told: dict[str, str | float] = {k: v for k, v in row.items() if k != patient and known(v)}
        if _AGE in told:
            try:
                told[_AGE] = float(told[_AGE])
            except ValueError:
                raise InputError(
                    f"{path}: expected an age in years for {row[patient]}, found {told[_AGE]!r}; mend it"
                ) from None
        facts[row[patient]] = told
    return facts


def _show(numbers: set[int]) -> str:
    """Return the first numbers as text."""
    first = sorted(numbers)[:8]
    return ", ".join(map(str, first)) + (", ..." if len(numbers) > len(first) else "")
