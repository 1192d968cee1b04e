"""The audit of a data set: what it found, how bad that is, and a stop before anything trains on a leak.

A *leak* is a picture or patient on both sides of a split: what is measured there is memory. A *warning* wants
a decision, a *note* wants a look. `audit_folder` audits files; `fedutils.data.image_audit.audit_images` what
a notebook has loaded already.
"""

import csv
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedutils.data.brain_mri import ImageSet
from fedutils.data.hashes import NEAR_BITS
from fedutils.data.shortcuts import Shortcut
from fedutils.errors import InputError

SEVERITIES = ("leak", "warning", "note")
SPLIT_CHOICES = ("deduplicated", "public")
KEEP_CHOICES = ("testing", "training")
LEFT_OUT = "left out"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    kind : str
        A short name, e.g. ``exact copies across splits``.
    severity : str
        One of `SEVERITIES`.
    message : str
        One line, with numbers.
    count : int
        Images or cases concerned.
    files : tuple of tuple of str
        The evidence: files, relative to the data set, that belong together (often pairs), the worst first.
    details : tuple of str
        A few words on each entry of `files`.
    """

    kind: str
    severity: str
    message: str
    count: int
    files: tuple[tuple[str, ...], ...] = ()
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """Where one image or case goes in the de-duplicated split.

    Attributes
    ----------
    path : str
        Relative to the data set; of a case its name.
    label : str
        Class; of a case its institution, if known.
    part : str
        The split it was in, or `LEFT_OUT`.
    group : int
        Near copies of one another, and cases of one patient, share a group: never part it. -1 if unreadable.
    why : str
        Why it was left out; empty if it was not.
    """

    path: str
    label: str
    part: str
    group: int
    why: str = ""


@dataclass(frozen=True)
class Audit:
    """What an audit found, in plain values.

    Attributes
    ----------
    name : str
        Of the folder.
    layout : str
        ``brain_mri``, ``kaggle_3m`` or ``brats``.
    unit : str
        ``images`` or ``cases``.
    counts : dict of str to dict of str to int
        By split, then by class: how many were read.
    findings : tuple of Finding
        The worst first.
    rows : tuple of Row
        One an image or case: first what was read, in order, then what could not be.
    shortcuts : tuple of Shortcut
    skipped : tuple of (str, str)
        What could not be read, and why.
    """

    name: str
    layout: str
    unit: str
    counts: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    rows: tuple[Row, ...]
    shortcuts: tuple[Shortcut, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that spoil a test set."""
        return tuple(finding for finding in self.findings if finding.severity == "leak")

    @property
    def status(self) -> int:
        """The exit status: 1 if there is a leak, else 0."""
        return 1 if self.leaks else 0

    def count(self, kind: str) -> int:
        """Return how many images or cases a kind of finding concerns; 0 if it was not found."""
        return sum(finding.count for finding in self.findings if finding.kind == kind)

    def kept(self) -> dict[str, int]:
        """Return how many the de-duplicated split keeps of each part, and how many it leaves out."""
        parts = [*self.counts, LEFT_OUT]
        return {part: sum(row.part == part for row in self.rows) for part in parts}

    def summarise(self) -> dict:
        """Return the numbers without the evidence: what a result file records."""
        return {
            "layout": self.layout,
            "counts": self.counts,
            "kept": self.kept(),
            "findings": {f.kind: {"severity": f.severity, "count": f.count} for f in self.findings},
            "shortcuts": [dataclasses.asdict(shortcut) for shortcut in self.shortcuts],
            "skipped": len(self.skipped),
        }

    def to_plain(self) -> dict:
        """Return everything but the rows as dicts, lists, numbers and strings, for JSON."""
        plain = dataclasses.asdict(self)
        del plain["rows"]
        return plain | {"status": self.status, "kept": self.kept()}

    def to_csv(self) -> str:
        """Return the de-duplicated split as a table: path, class, part, group, why."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "class", "part", "group", "why"])
        writer.writerows(dataclasses.astuple(row) for row in self.rows)
        return text.getvalue()

    def describe(self) -> str:
        """Return a readable summary, a line a finding."""
        sizes = ", ".join(f"{split} {sum(classes.values()):,}" for split, classes in self.counts.items())
        total = sum(sum(classes.values()) for classes in self.counts.values())
        lines = [f"{self.name} ({self.layout}): {total:,} {self.unit} read: {sizes}"]
        lines += [f"{f.severity.upper():8} {f.kind}: {f.message}" for f in self.findings]
        if not self.findings:
            lines.append("nothing found")
        kept = ", ".join(f"{part} {number:,}" for part, number in self.kept().items())
        return "\n".join([*lines, f"de-duplicated split: {kept}"])


def sort_findings(findings: list[Finding | None]) -> tuple[Finding, ...]:
    """Return what was found, the worst severity first, otherwise in the order given."""
    return tuple(sorted(filter(None, findings), key=lambda finding: SEVERITIES.index(finding.severity)))


def check_keep(keep: str) -> None:
    """Refuse a side of the split that there is not."""
    if keep not in KEEP_CHOICES:
        raise InputError(f"keep: expected one of {', '.join(KEEP_CHOICES)}, found {keep!r}")


def stop_on_leak(audit: Audit, *, allow: str | None = None) -> None:
    """Stop if a picture or patient is on both sides of the split.

    Parameters
    ----------
    audit : Audit
    allow : str, optional
        ``public`` goes on all the same: the split as it was published, asked for by name.

    Raises
    ------
    InputError
        If there is a leak that was not asked for.
    """
    if allow is not None and allow not in SPLIT_CHOICES:
        raise InputError(
            f"split: expected one of {', '.join(SPLIT_CHOICES)}, found {allow!r}; mend the profile"
        )
    if audit.leaks and allow != "public":
        found = "; ".join(f"{leak.kind}: {leak.message}" for leak in audit.leaks)
        raise InputError(
            f"{audit.name}: expected nothing on both sides of the split, found {found}; "
            'train on the de-duplicated split, or ask for the public one by name (split: "public")'
        )


def take_split(
    audit: Audit, training: ImageSet, testing: ImageSet, split: str = "deduplicated"
) -> tuple[ImageSet, ImageSet]:
    """Return the images of the split that was asked for.

    Parameters
    ----------
    audit : Audit
        Of these images, in this order.
    training, testing : ImageSet
    split : str
        ``deduplicated``: without what both sides share (the audit's `keep` says which side gives way),
        without repeats, and without pictures that carry two labels. ``public``: everything, leaks included.

    Returns
    -------
    training, testing : ImageSet
        With ``groups``: near copies of one another share one.

    Raises
    ------
    InputError
        If `split` is neither, or nothing is left of a class.
    """
    stop_on_leak(audit, allow="public" if split == "deduplicated" else split)
    total = len(training) + len(testing)
    if len(audit.rows) - len(audit.skipped) != total:
        raise ValueError(f"the audit is of {len(audit.rows)} images, not of these {total}")
    groups = np.asarray([row.group for row in audit.rows[:total]])
    training = dataclasses.replace(training, groups=groups[: len(training)])
    testing = dataclasses.replace(testing, groups=groups[len(training) :])
    if split == "public":
        return training, testing
    keep = np.asarray([row.part != LEFT_OUT for row in audit.rows[:total]])
    parts = (
        training.subset(np.flatnonzero(keep[: len(training)])),
        testing.subset(np.flatnonzero(keep[len(training) :])),
    )
    for before, after in zip((training, testing), parts, strict=True):
        if lost := set(before.y.tolist()) - set(after.y.tolist()):
            folder = before.paths[int(np.argmax(before.y == min(lost)))].parent
            raise InputError(
                f"{folder}: expected an image that is no copy, found none; let the other side give way "
                '(keep), or ask for the public one by name (split: "public")'
            )
    return parts


def audit_folder(
    root: Path,
    *,
    skip_bad: bool = False,
    keep: str = "testing",
    distance: int = NEAR_BITS,
    seed: int = 0,
    progress: bool = True,
) -> Audit:
    """Audit a folder in any layout that the project reads.

    Parameters
    ----------
    root : Path
        See `fedutils.data.layouts.detect_layout`.
    skip_bad : bool
        Go on after what cannot be read, and list it, instead of stopping.
    keep : str
        Which side of the split the de-duplicated one keeps whole, ``testing`` or ``training``: copies leave
        the other. A test set that loses its copies may lose a class, as the public set does.
    distance : int
        Bits of 64 by which the hashes of near copies may differ.
    seed : int
        Of the folds that measure shortcuts.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If the folder holds no known layout, or, unless `skip_bad`, a file cannot be read.
    """
    from fedutils.data.case_audit import audit_cases
    from fedutils.data.image_audit import audit_image_folder
    from fedutils.data.layouts import detect_layout, find_layouts, list_cases

    check_keep(keep)
    if not 0 <= distance <= 64:
        raise InputError(f"distance: expected 0 to 64 bits, found {distance}; {NEAR_BITS} is the default")
    layout = detect_layout(root)
    if layout == "brain_mri":
        place = find_layouts(root)[layout]
        return audit_image_folder(
            place, skip_bad=skip_bad, keep=keep, distance=distance, seed=seed, progress=progress
        )
    cases = list_cases(root, skip_bad=skip_bad)
    return audit_cases(cases, root, layout=layout, skip_bad=skip_bad, keep=keep, progress=progress)
