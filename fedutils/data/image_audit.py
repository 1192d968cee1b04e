"""The audit of labelled pictures: copies within and across splits and classes, shortcuts, odd images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from fedutils.data.audit import LEFT_OUT, Audit, Finding, Row, check_keep, sort_findings
from fedutils.data.brain_mri import CLASSES, SPLITS, ImageSet, list_images, read_image
from fedutils.data.hashes import NEAR_BITS
from fedutils.data.image_record import record_image
from fedutils.data.image_table import TEST, TRAIN, ImageTable, build_table
from fedutils.data.odd_images import find_odd_images
from fedutils.data.shortcuts import Shortcut, measure_shortcuts
from fedutils.errors import InputError


def audit_images(
    training: ImageSet,
    testing: ImageSet,
    *,
    keep: str = "testing",
    distance: int = NEAR_BITS,
    seed: int = 0,
    shortcuts: bool = True,
) -> Audit:
    """Audit what a notebook has loaded; nothing is decoded again.

    Parameters
    ----------
    training, testing : ImageSet
        From `fedutils.data.brain_mri.load_images`.
    keep : str
        Which side the de-duplicated split keeps whole, see `fedutils.data.audit.audit_folder`.
    distance : int
        Bits of 64 by which the hashes of near copies may differ.
    seed : int
        Of the folds that measure shortcuts.
    shortcuts : bool
        Measure them too.

    Returns
    -------
    Audit
        Its rows are the images of `training`, then those of `testing`, in order, then what was skipped.
    """
    root = training.paths[0].parents[2]
    sets = (training, testing)
    records = tuple(r for s in sets for r in (s.records or [record_image(p, read_image(p)) for p in s.paths]))
    paths = tuple(str(path.relative_to(root)) for s in sets for path in s.paths)
    labels = np.concatenate([training.y, testing.y])
    splits = np.repeat(SPLITS, [len(training), len(testing)])
    skipped = tuple((str(path.relative_to(root)), "unreadable") for s in sets for path in s.skipped)
    return _audit(
        root.name,
        paths,
        records,
        labels,
        splits,
        skipped,
        keep=keep,
        distance=distance,
        seed=seed,
        shortcuts=shortcuts,
    )


def audit_image_folder(
    root: Path,
    *,
    skip_bad: bool = False,
    keep: str = "testing",
    distance: int = NEAR_BITS,
    seed: int = 0,
    progress: bool = True,
) -> Audit:
    """Audit a folder that holds ``Training`` and ``Testing``; each file is decoded once.

    Parameters and errors are those of `fedutils.data.audit.audit_folder`.
    """
    root = Path(root)
    files = [
        (path, label, split)
        for split in SPLITS
        for path, label in zip(*list_images(root, split), strict=True)
    ]
    kept, records, skipped = [], [], []
    for path, label, split in tqdm(files, desc="audit", unit="image", disable=not progress):
        try:
            image = read_image(path)
        except InputError as error:
            if not skip_bad:
                raise
            why = str(error).removeprefix(f"{path}: ").replace(str(path), path.name).split(";")[0]
            skipped.append((str(path.relative_to(root)), why))
            continue
        kept.append((str(path.relative_to(root)), label, split))
        records.append(record_image(path, image))
    if not kept:
        raise InputError(f"{root}: expected readable images, found none of {len(files)}; replace its files")
    paths, labels, splits = zip(*kept, strict=True)
    return _audit(
        root.resolve().name,
        paths,
        tuple(records),
        np.asarray(labels),
        np.asarray(splits),
        tuple(skipped),
        keep=keep,
        distance=distance,
        seed=seed,
        shortcuts=True,
    )


def _audit(name, paths, records, labels, splits, skipped, *, keep, distance, seed, shortcuts) -> Audit:
    check_keep(keep)
    table = build_table(paths, records, labels, splits, distance=distance)
    measured: tuple[Shortcut, ...] = ()
    if shortcuts:
        targets = {"class": labels, "split": splits}
        measured = measure_shortcuts(records, targets, table.groups, seed=seed)
    rows = _assign_rows(table, keep)
    findings = [
        *_find_across(table),
        *_find_two_labels(table),
        *(_name_shortcuts(measured)),
        _find_unreadable(skipped),
        *_find_within(table),
        *_find_odd(table),
    ]
    counts = {
        split: {c: int(np.sum((splits == split) & (labels == k))) for k, c in enumerate(CLASSES)}
        for split in SPLITS
    }
    unread = [Row(path, _class_of(path), LEFT_OUT, -1, f"unreadable: {why}") for path, why in skipped]
    return Audit(
        name, "brain_mri", "images", counts, sort_findings(findings), (*rows, *unread), measured, skipped
    )


def _find_across(table: ImageTable) -> list[Finding | None]:
    """Find the test images that Training holds, pixel for pixel or nearly."""
    exact, near = [], []
    tests = np.flatnonzero(table.splits == TEST)
    for i in tests.tolist():
        picture = int(table.picture[i])
        if (twin := table.first(picture, TRAIN)) is not None:
            exact.append((i, twin, table.compare_labels(i, twin)))
        elif (found := table.nearest(picture, TRAIN)) is not None:
            twin, row = found
            words = ", ".join(filter(None, [table.likeness(row), table.compare_labels(i, twin)]))
            near.append((int(table.near.bits[row]), -float(table.near.correlation[row]), i, twin, words))
    near.sort()
    both = f"; {len(exact) + len(near):,} have either" if exact and near else ""
    return [
        _make(
            table,
            "exact copies across splits",
            "leak",
            f"{len(exact):,} of {len(tests):,} test images are, pixel for pixel, in {TRAIN}",
            [((i, twin), words) for i, twin, words in exact],
        ),
        _make(
            table,
            "near copies across splits",
            "leak",
            f"{len(near):,} other test images of {len(tests):,} are nearly the same as one in {TRAIN}{both}",
            [((i, twin), words) for _, _, i, twin, words in near],
        ),
    ]


def _find_two_labels(table: ImageTable) -> list[Finding | None]:
    """Find the pictures that carry two labels: worse than a repeat, one of them is wrong."""
    exact, near = [], []
    for picture in range(len(table.images)):
        labels = table.classes(picture)
        if len(labels) > 1:
            files = tuple(table.first(picture, label=label) for label in labels)
            exact.append((files, " and ".join(CLASSES[label] for label in labels)))
    for row in table.sorted_rows():
        a, b = table.near.pairs[row].tolist()
        i, j = table.first(a), table.first(b)
        if table.classes(a) != table.classes(b):
            near.append(
                ((i, j), f"{CLASSES[table.labels[i]]} and {CLASSES[table.labels[j]]}: {table.likeness(row)}")
            )
    return [
        _make(
            table,
            "one picture, two labels",
            "warning",
            f"{len(exact):,} pictures lie, pixel for pixel, in two classes; one label of each is wrong",
            exact,
        ),
        _make(
            table,
            "near copies, two labels",
            "warning",
            f"{len(near):,} pairs of nearly the same picture lie in two classes",
            near,
        ),
    ]


def _find_within(table: ImageTable) -> list[Finding | None]:
    """Find repeats inside one split: they leak nothing, but count twice."""
    findings = []
    repeats, near = [], []
    for own in table.images:
        for split in SPLITS:
            files = tuple(i for i in own if table.splits[i] == split)
            if len(files) > 1:
                repeats.append((files, f"{len(files)} files in {split}"))
    for row in table.sorted_rows():
        a, b = table.near.pairs[row].tolist()
        for split in SPLITS:
            i, j = table.first(a, split), table.first(b, split)
            if i is not None and j is not None:
                near.append(((i, j), table.likeness(row)))
    repeats.sort(key=lambda entry: -len(entry[0]))
    extra = sum(len(files) - 1 for files, _ in repeats)
    concerned = len({i for pair, _ in near for i in pair})
    findings.append(
        _make(
            table,
            "exact repeats within a split",
            "note",
            f"{extra:,} files repeat {len(repeats):,} pictures of their own split",
            repeats,
            count=extra,
        )
    )
    findings.append(
        _make(
            table,
            "near copies within a split",
            "note",
            f"{concerned:,} images are nearly the same as another of their split ({len(near):,} pairs); "
            "keep their groups together when you hold out images",
            near,
            count=concerned,
        )
    )
    return findings


def _find_odd(table: ImageTable) -> list[Finding]:
    by_kind: dict[str, list] = {}
    for odd in find_odd_images(table.records, table.labels, table.groups):
        by_kind.setdefault(odd.kind, []).append(((odd.index,), odd.detail))
    return [
        _make(
            table,
            f"odd images: {kind}",
            "note",
            f"{len(entries):,} images, the worst {table.paths[entries[0][0][0]]} ({entries[0][1]})",
            entries,
        )
        for kind, entries in by_kind.items()
    ]


def _name_shortcuts(shortcuts: Sequence[Shortcut]) -> list[Finding]:
    return [
        Finding(
            f"shortcut to the {s.target}: {s.feature}",
            "warning",
            f"tells the {s.target} with a balanced accuracy of {s.score:.1%} (95 % interval {s.low:.1%} to "
            f"{s.high:.1%}; chance {s.chance:.1%}; accuracy {s.accuracy:.1%}, most frequent label "
            f"{s.majority:.1%})",
            0,
        )
        for s in shortcuts
        if s.is_found
    ]


def _find_unreadable(skipped) -> Finding | None:
    if not skipped:
        return None
    files, details = zip(*(((path,), why) for path, why in skipped), strict=True)
    return Finding(
        "unreadable files", "warning", f"{len(files):,} files were skipped", len(files), files, details
    )


def _make(table, kind, severity, message, entries, *, count=None) -> Finding | None:
    if not entries:
        return None
    files = tuple(tuple(table.paths[i] for i in own) for own, _ in entries)
    details = tuple(words for _, words in entries)
    return Finding(kind, severity, message, len(entries) if count is None else count, files, details)


def _class_of(path: str) -> str:
    return Path(path).parent.name


def _assign_rows(table: ImageTable, keep: str) -> list[Row]:
    """Say of each image whether the de-duplicated split keeps it."""
    other_side = {TRAIN: TEST, TEST: TRAIN}
    gives_way = TRAIN if keep == "testing" else TEST
    rows = []
    for i, path in enumerate(table.paths):
        picture, split, label = int(table.picture[i]), str(table.splits[i]), int(table.labels[i])
        other, why = other_side[split], ""
        if (rival := table.contradiction(i)) is not None:
            why = f"the same or nearly the same picture has another label: {table.paths[rival]}"
        elif split == gives_way and (twin := table.first(picture, other)) is not None:
            why = f"the same picture is in {other}: {table.paths[twin]}"
        elif split == gives_way and (found := table.nearest(picture, other)) is not None:
            likeness = table.likeness(found[1])
            why = f"nearly the same picture is in {other}: {table.paths[found[0]]} ({likeness})"
        elif (first := table.first(picture, split)) != i:
            why = f"repeats {table.paths[first]}"
        rows.append(Row(path, CLASSES[label], LEFT_OUT if why else split, int(table.groups[i]), why))
    return rows
