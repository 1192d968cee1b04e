"""Labelled images that were audited before anything trains on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedutils.data.audit import LEFT_OUT, Audit, stop_on_leak, take_split
from fedutils.data.brain_mri import ImageSet, describe, load_images
from fedutils.data.image_audit import audit_images


@dataclass(frozen=True)
class AuditedImages:
    """A split that may be trained on, and the audit that says so.

    Attributes
    ----------
    training : ImageSet
        Whom its near copies are is in its ``groups``: hold out whole groups.
    testing : ImageSet
        All test images, as published.
    deduplicated : bool (N,)
        Which of `testing` the de-duplicated split keeps: each picture once, none under two labels.
    split : str
        ``deduplicated``: nothing in `training` is a copy or near copy of anything in `testing`. ``public``:
        as published, leaks included.
    audit : Audit
        Of everything that was read.
    source : dict
        What a result records of what was read, see `fedutils.data.brain_mri.describe`.
    """

    training: ImageSet
    testing: ImageSet
    deduplicated: np.ndarray
    split: str
    audit: Audit
    source: dict

    @property
    def test_parts(self) -> dict[str, np.ndarray]:
        """By name, which test images (bool (N,)) to report on: the de-duplicated ones, and all."""
        return {"deduplicated": self.deduplicated, "public": np.ones(len(self.testing), bool)}

    def describe(self, source: str) -> dict:
        """Return the provenance that a result records."""
        return {
            "source": source,
            **self.source,
            "split": self.split,
            "num_training": len(self.training),
            "num_testing": len(self.testing),
            "num_deduplicated": int(self.deduplicated.sum()),
        }


def load_audited(
    root: Path, *, size: int, split: str = "deduplicated", skip_bad: bool = False, progress: bool = True
) -> AuditedImages:
    """Read images, audit them, and return what may be trained on.

    Parameters
    ----------
    root : Path
        The folder that holds ``Training`` and ``Testing``.
    size : int
        Side of the prepared images, in pixels.
    split : str
        ``deduplicated``: Training without what Testing holds too, pixel for pixel or nearly, without repeats
        and without pictures that carry two labels. ``public``: the split as published, asked for by name.
    skip_bad : bool
        Leave out files that cannot be read, and list them, instead of stopping.
    progress : bool
        Show progress bars.

    Raises
    ------
    InputError
        If a folder or class is missing or unreadable, `split` is neither, or a copy is on both sides after
        all.
    """
    sets = [
        load_images(root, part, size=size, skip_bad=skip_bad, progress=progress)
        for part in ("Training", "Testing")
    ]
    audit = audit_images(*sets, shortcuts=False)
    training, _ = take_split(audit, *sets, split)
    if split != "public":
        stop_on_leak(audit_images(training, sets[1], shortcuts=False))
    rows = audit.rows[len(sets[0]) : len(sets[0]) + len(sets[1])]
    deduplicated = np.asarray([row.part != LEFT_OUT for row in rows])
    source = {key: value for key, value in describe("", *sets).items() if key != "source"}
    return AuditedImages(training, sets[1], deduplicated, split, audit, source)
