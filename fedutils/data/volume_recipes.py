"""Recipes of preprocessing, and what they make of a case. `fedutils.data.volume_prepare` follows them."""

from dataclasses import dataclass, fields

import numpy as np

from fedutils.data.boxes import Box, restore
from fedutils.data.case import compute_spacing
from fedutils.data.volume_steps import check_percentiles, resample
from fedutils.errors import InputError

RECIPE_VERSION = 1  # raise it with every change that alters an array: cached volumes are then made anew
SCALINGS = ("min_max", "z_score")


@dataclass(frozen=True)
class Recipe:
    """What is done to a case, in this order; equal recipes give equal arrays.

    Attributes
    ----------
    modalities : tuple of str
        The channels; others are not read.
    clip : tuple of 2 float, optional
        Percentiles of the foreground to which intensities are clipped.
    scaling : str
        ``min_max``: least to 0 and greatest to 1, over the whole volume or, if clipped, over the foreground.
        ``z_score``: mean 0 and standard deviation 1 over the foreground. What is scaled over that is
        0 elsewhere; it is where any of these modalities is not 0.
    foreground : bool
        Cut to the box of the foreground, before the shape is met.
    shape : tuple of 3 int, optional
        Crop or pad to this shape about the middle.
    spacing : tuple of 3 float, optional
        Resample to this spacing, in mm; of `shape`, the voxels are then of this size.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    modalities: tuple[str, ...]
    scaling: str = "z_score"
    clip: tuple[float, float] | None = None
    foreground: bool = False
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None

    def __post_init__(self):
        """Check the values and bring those of a profile (lists, integers for floats) to one form."""
        kinds = {"modalities": str, "clip": float, "shape": int, "spacing": float}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in kinds and value is not None:
                object.__setattr__(self, field.name, tuple(kinds[field.name](v) for v in value))
        if not self.modalities:
            raise InputError("recipe: expected at least one modality, found none; name some, e.g. flair")
        if self.scaling not in SCALINGS:
            raise InputError(f"recipe: expected scaling {' or '.join(SCALINGS)}, found {self.scaling!r}")
        if self.clip is not None:
            check_percentiles(*self.clip)
        for name in ("shape", "spacing"):
            value = getattr(self, name)
            if value is not None and not (len(value) == 3 and min(value) > 0):
                raise InputError(f"recipe: expected {name} to be three numbers above 0, found {value}")

    @property
    def uses_foreground(self) -> bool:
        """Whether intensities are scaled over the foreground alone, and the rest becomes 0."""
        return self.scaling == "z_score" or self.clip is not None


# As the project's forerunners do: T1 left out, each modality scaled, 128 voxels a side about the middle.
SEED = Recipe(("t1ce", "t2", "flair"), scaling="min_max", shape=(128, 128, 128))
# As the field does (nnU-Net), on a grid that holds any brain of BraTS and halves four times or more.
FIELD = Recipe(
    ("t1", "t1ce", "t2", "flair"),
    scaling="z_score",
    clip=(0.5, 99.5),
    foreground=True,
    shape=(160, 192, 160),
)


@dataclass(frozen=True)
class Prepared:
    """A case as a network sees it.

    Attributes
    ----------
    name : str
        Of the case.
    images : float32 (X, Y, Z, C)
        A channel a modality of the recipe; 0 is background.
    mask : uint8 (X, Y, Z), optional
        The layout's labels; 0 in padding.
    affine : float64 (4, 4), optional
        From voxel of these arrays to mm.
    box : Box
        Where these arrays lie in the volume, in its voxels.
    full_shape : tuple of 3 int
        Of the volume.
    missing : tuple of str
        Modalities of the recipe that the case lacks; its layout says what stands in for them.
    labelled : float
        Share of the mask, in [0, 1], that is not 0; NaN without a mask.
    """

    name: str
    images: np.ndarray
    mask: np.ndarray | None
    affine: np.ndarray | None
    box: Box
    full_shape: tuple[int, int, int]
    missing: tuple[str, ...] = ()
    labelled: float = float("nan")

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Sides of a voxel in mm, if the files say."""
        return compute_spacing(self.affine)

    def restore(self, labels: np.ndarray) -> np.ndarray:
        """Put labels on these voxels back on those of the case.

        Parameters
        ----------
        labels : integer (X, Y, Z)

        Returns
        -------
        (full_shape), of the same type
            0 outside the box.
        """
        if labels.shape != self.images.shape[:3]:
            raise InputError(
                f"{self.name}: expected labels of shape {self.images.shape[:3]}, found {labels.shape}"
            )
        if labels.shape != self.box.shape:
            labels = resample(labels, self.box.shape, labels=True)
        return restore(labels, self.box, self.full_shape)
