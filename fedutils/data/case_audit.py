"""The audit of volumes: a patient in two places, copies of images, grids that differ, masks, sequences."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from fedutils.data.audit import LEFT_OUT, Audit, Finding, Row, sort_findings
from fedutils.data.case import Case
from fedutils.data.hashes import hash_pixels
from fedutils.data.splits import join_pairs
from fedutils.errors import InputError

_SPLIT = re.compile(r"(train|valid|test)", re.IGNORECASE)
_ALL = "all"  # the part of a data set that comes without a split


@dataclass(frozen=True)
class _Facts:
    """What the audit keeps of a case after its images have left the memory."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    digests: dict[str, str]
    missing: tuple[str, ...]
    tumour_voxels: int | None


def identify_patient(case: Case) -> str:
    """Return the name by which a patient is known in every data set: that of TCGA, if there is one.

    BraTS gives it in its table of names (``TCGA-02-0006``), kaggle_3m in the name of the folder
    (``TCGA_CS_4941``).
    """
    name = str(case.facts.get("tcga", case.patient))
    return name.replace("-", "_").upper()[:12] if name.upper().startswith("TCGA") else name


def find_shared_patients(cases: Sequence[Case], others: Sequence[Case]) -> tuple[tuple[str, str, str], ...]:
    """Find the patients of one data set who are in another too: never train on one and test on the other.

    Returns
    -------
    tuple of (str, str, str)
        Patient, name of the case in `cases`, name of the case in `others`.
    """
    known: dict[str, str] = {}
    for case in others:
        known.setdefault(identify_patient(case), case.name)
    found = ((identify_patient(case), case.name) for case in cases)
    return tuple((patient, name, known[patient]) for patient, name in found if patient in known)


def audit_cases(
    cases: Sequence[Case],
    root: Path,
    *,
    layout: str,
    skip_bad: bool = False,
    keep: str = "testing",
    progress: bool = True,
) -> Audit:
    """Audit cases; each is loaded once, one in memory at a time.

    Parameters
    ----------
    cases : list of Case
        From `fedutils.data.layouts.list_cases`.
    root : Path
        Folders between it and a case that are named for training, validation or test are taken for its split.
    layout : str
    skip_bad : bool
        Go on after a case that cannot be read, and list it.
    keep : str
        See `fedutils.data.audit.audit_folder`.
    progress : bool
        Show a progress bar.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100  (cases name their files so, links kept)
    read, facts, skipped = [], [], []
    for case in tqdm(cases, desc="audit", unit="case", disable=not progress):
        try:
            facts.append(_measure(case))
        except InputError as error:
            if not skip_bad:
                raise
            skipped.append((case.name, str(error).replace(f"{root}{os.sep}", "")))
            continue
        read.append(case)
    if not read:
        raise InputError(f"{root}: expected cases that can be read, found none of {len(cases)}; replace them")
    splits = [_split_of(case, root) for case in read]
    patients = [identify_patient(case) for case in read]
    copies = _find_copies(facts)
    links = [(a, b) for a, b, _ in copies]
    links += [(patients.index(patient), i) for i, patient in enumerate(patients)]
    groups = join_pairs(len(read), np.asarray(links, np.int64))
    findings = [
        *_find_patients(read, splits, patients),
        *_name_copies(read, splits, patients, copies),
        _find_same_modality(read, facts),
        _list(
            "unreadable cases",
            "warning",
            f"{{}} of {len(cases)} cases were skipped",
            [((name,), why) for name, why in skipped],
        ),
        *_find_masks(read, facts),
        _list(
            "missing sequences",
            "warning",
            f"{{}} of {len(read)} cases lack a sequence, or hold a copy of FLAIR in its place",
            [((c.name,), ", ".join(f.missing)) for c, f in zip(read, facts, strict=True) if f.missing],
        ),
        _find_unusual(read, "shapes", [f.shape for f in facts], lambda shape: " x ".join(map(str, shape))),
        _find_unusual(
            read,
            "spacings",
            [f.spacing and tuple(round(side, 3) for side in f.spacing) for f in facts],
            lambda spacing: " x ".join(f"{side:g}" for side in spacing) + " mm" if spacing else "unknown",
        ),
    ]
    counts: dict[str, dict[str, int]] = {}
    for case, split in zip(read, splits, strict=True):
        label = case.institution or "unknown"
        own = counts.setdefault(split, {})
        own[label] = own.get(label, 0) + 1
    rows = _assign_rows(read, splits, groups, keep)
    rows += [Row(name, "", LEFT_OUT, -1, f"unreadable: {why}") for name, why in skipped]
    return Audit(root.name, layout, "cases", counts, sort_findings(findings), tuple(rows), (), tuple(skipped))


def _measure(case: Case) -> _Facts:
    volume = case.load()
    return _Facts(
        shape=tuple(volume.shape),
        spacing=volume.spacing,
        digests={m: hash_pixels(image.T) for m, image in volume.images.items() if m not in volume.missing},
        missing=volume.missing,
        tumour_voxels=None if volume.mask is None else int(np.count_nonzero(volume.mask)),
    )


def _split_of(case: Case, root: Path) -> str:
    """Return the split that folders around a case name: Training, Validation, Testing, or none ("all")."""
    path = next((paths[0] for paths in case.files.values() if paths), None)
    if path is None or not path.is_relative_to(root):
        return _ALL
    above = path.relative_to(root).parts[:-2]  # without the case's own folder, BraTS20_Training_001
    names = {"train": "Training", "valid": "Validation", "test": "Testing"}
    found = [names[match[1].lower()] for part in above if (match := _SPLIT.search(part))]
    return found[-1] if found else _ALL


def _find_patients(cases, splits, patients) -> list[Finding | None]:
    across, within = [], []
    for patient, number in Counter(patients).items():
        if number > 1:
            own = [i for i, name in enumerate(patients) if name == patient]
            names = tuple(cases[i].name for i in own)
            parts = sorted({splits[i] for i in own})
            (across if len(parts) > 1 else within).append((names, f"{patient} in {', '.join(parts)}"))
    return [
        _list(
            "one patient in two splits",
            "leak",
            f"{{}} of {len(set(patients))} patients are on both sides of the split",
            across,
        ),
        _list(
            "one patient, several cases",
            "note",
            f"{{}} of {len(set(patients))} patients have more than one case; split by patient",
            within,
        ),
    ]


def _find_copies(facts) -> list[tuple[int, int, str]]:
    """Return (first case, later case, modalities) for every two cases that share an image."""
    first: dict[str, int] = {}
    shared: dict[tuple[int, int], list[str]] = {}
    for i, own in enumerate(facts):
        for modality, digest in own.digests.items():
            j = first.setdefault(digest, i)
            if j != i:
                shared.setdefault((j, i), []).append(modality)
    return [(a, b, ", ".join(modalities)) for (a, b), modalities in shared.items()]


def _name_copies(cases, splits, patients, copies) -> list[Finding | None]:
    """Name copies; one under another patient's name leaks through every split by patient."""
    leaks, repeats = [], []
    for a, b, modalities in copies:
        parted = splits[a] != splits[b] or patients[a] != patients[b]
        (leaks if parted else repeats).append(((cases[a].name, cases[b].name), modalities))
    return [
        _list(
            "copies across patients or splits",
            "leak",
            "{} pairs of cases share an image, voxel for voxel, under two patients or in two splits",
            leaks,
        ),
        _list("copies within a patient", "note", "{} pairs of cases of one patient share an image", repeats),
    ]


def _find_same_modality(cases, facts) -> Finding | None:
    entries = []
    for case, own in zip(cases, facts, strict=True):
        by_digest: dict[str, list[str]] = {}
        for modality, digest in own.digests.items():
            by_digest.setdefault(digest, []).append(modality)
        same = [" = ".join(names) for names in by_digest.values() if len(names) > 1]
        if same:
            entries.append(((case.name,), ", ".join(same)))
    return _list(
        "one image, two modalities",
        "warning",
        f"{{}} of {len(cases)} cases hold one image under two modalities",
        entries,
    )


def _find_masks(cases, facts) -> list[Finding | None]:
    without = [((c.name,), "") for c, f in zip(cases, facts, strict=True) if f.tumour_voxels is None]
    empty = [((c.name,), "") for c, f in zip(cases, facts, strict=True) if f.tumour_voxels == 0]
    all_lack = len(without) == len(cases)
    return [
        _list(
            "cases without mask",
            "note" if all_lack else "warning",
            "no case has a mask: nothing can be trained or scored here"
            if all_lack
            else f"{{}} of {len(cases)} cases have no mask",
            without,
        ),
        _list("empty masks", "warning", f"{{}} of {len(cases)} cases have a mask without tumour", empty),
    ]


def _find_unusual(cases, what, values, show) -> Finding | None:
    """List the cases whose grid is not the most frequent one."""
    (usual, number), *others = Counter(values).most_common()
    if not others:
        return None
    entries = [((c.name,), show(value)) for c, value in zip(cases, values, strict=True) if value != usual]
    message = (
        f"{{}} of {len(cases)} cases differ from the most frequent, {show(usual)} ({number} cases); "
        f"{len(others) + 1} {what} in all"
    )
    return _list(f"different {what}", "note", message, entries)


def _list(kind, severity, message, entries) -> Finding | None:
    if not entries:
        return None
    files, details = zip(*entries, strict=True)
    return Finding(kind, severity, message.format(f"{len(entries):,}"), len(entries), files, details)


def _assign_rows(cases, splits, groups, keep) -> list[Row]:
    """Leave out of one side what the other holds too; without a split, leave out nothing."""
    held: dict[tuple[int, bool], str] = {}  # by group and whether it is on the side of Training: a case
    for case, split, group in zip(cases, splits, groups.tolist(), strict=True):
        if split != _ALL:
            held.setdefault((group, split == "Training"), case.name)
    rows = []
    for case, split, group in zip(cases, splits, groups.tolist(), strict=True):
        trains = split == "Training"
        gives_way = split != _ALL and trains == (keep == "testing")
        twin = held.get((group, not trains)) if gives_way else None
        why = f"the same patient or image is on the other side: {twin}" if twin else ""
        rows.append(Row(case.name, case.institution or "", LEFT_OUT if why else split, group, why))
    return rows
