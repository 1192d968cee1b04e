"""A case: one patient's scan in whatever layout it lies on disk, read only when it is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedutils.errors import InputError


def compute_spacing(affine: np.ndarray | None) -> tuple[float, float, float] | None:
    """Return the sides of a voxel in mm, of an affine (4, 4) from voxel to mm; none if there is none."""
    if affine is None:
        return None
    return tuple(float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))


@dataclass(frozen=True)
class Volume:
    """The images of a case on one grid, in one orientation.

    The axes of every array point to the patient's right, front and top (RAS+), whichever way the file stored
    them.

    Attributes
    ----------
    images : dict of str to (X, Y, Z)
        By modality. As stored (int16, uint8 or float32); float32 if the file asks for scaling. Read-only
        views in the order of the file: copy before writing.
    mask : uint8 (X, Y, Z), optional
        The labels of the layout: 0, 1, 2, 4 in BraTS; 0 and 1 in kaggle_3m.
    affine : float64 (4, 4), optional
        From voxel to mm. Of files that do not know where they lie (TIFF): none.
    missing : tuple of str
        Modalities that the case lacks.
    """

    images: Mapping[str, np.ndarray]
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    missing: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        return next(iter(self.images.values()), self.mask).shape  # a mask alone has one too

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Sides of a voxel in mm, if the files say."""
        return compute_spacing(self.affine)


@dataclass(frozen=True)
class Case:
    """What is known of a case without reading its images.

    Attributes
    ----------
    name : str
        Unique in its data set; the name of its folder where it has one.
    patient : str
        Cases of one patient are never parted by a split.
    modalities : tuple of str
        What `load` can be asked for, e.g. ``("t1", "t1ce", "t2", "flair")``.
    files : dict of str to tuple of Path
        By modality, and ``mask``; in kaggle_3m, where a file is a slice of all modalities, ``slices`` and
        ``mask``, from the lowest slice up.
    reader : callable
        ``reader(case, modalities, mask)`` reads and checks the files.
    institution : str, optional
        Which hospital it came from, where the layout or a table says so.
    facts : dict
        What tables say of it: grade, age in years, survival in days.
    """

    name: str
    patient: str
    modalities: tuple[str, ...]
    files: Mapping[str, tuple[Path, ...]]
    reader: Callable[["Case", tuple[str, ...], bool], Volume] = field(repr=False, compare=False)
    institution: str | None = None
    facts: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def has_mask(self) -> bool:
        """Whether the case is segmented."""
        return bool(self.files.get("mask"))

    def load(self, modalities: tuple[str, ...] | None = None, *, mask: bool = True) -> Volume:
        """Read the case.

        Parameters
        ----------
        modalities : tuple of str, optional
            Which to read, in this order; all by default. Others are not touched.
        mask : bool
            Read the mask too, if there is one.

        Raises
        ------
        InputError
            If the case has no such modality, or a file is missing, damaged, or of another shape or place than
            the others.
        """
        chosen = self.modalities if modalities is None else tuple(modalities)
        if unknown := [m for m in chosen if m not in self.modalities]:
            raise InputError(
                f"{self.name}: expected modalities among {', '.join(self.modalities)}, found "
                f"{', '.join(unknown)}"
            )
        return self.reader(self, chosen, mask and self.has_mask)
