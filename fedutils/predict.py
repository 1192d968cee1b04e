"""What a saved model says of images and cases: classes with probabilities, tumours with volumes and masks."""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
from PIL import Image

from fedutils.data import lgg
from fedutils.data.brain_mri import read_image
from fedutils.data.case import Case, compute_spacing
from fedutils.data.folders import walk_folders
from fedutils.data.layouts import list_cases
from fedutils.data.regions import regions_to_labels
from fedutils.data.segmentation import compute_regions, load_slices
from fedutils.data.volume_recipes import Recipe
from fedutils.errors import InputError
from fedutils.inference import predict_slices, segment, segment_case
from fedutils.metrics import softmax
from fedutils.model_info import ModelInfo
from fedutils.preprocess import prepare_slice
from fedutils.results import write_atomic

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}
_COLOURED, _COLOUR_SHARE = 40, 0.25  # grey levels between channels; share of the picture
_BATCH = 64


@dataclass(frozen=True)
class Segmented:
    """What a model says of a case.

    Attributes
    ----------
    case : Case
    labels : uint8 (X, Y, Z)
        On the voxels of the case, axes towards right, front and top: 0, 1, 2 and 4 as in BraTS; of a model
        of the whole tumour alone, 0 and 1.
    affine : float64 (4, 4), optional
        From voxel to mm; none in kaggle_3m.
    """

    case: Case
    labels: np.ndarray
    affine: np.ndarray | None

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Sides of a voxel in mm, if the files say."""
        return compute_spacing(self.affine)


def find_images(places: Sequence[Path]) -> list[Path]:
    """Return the images among files and folders, those of a folder sorted and from its sub-folders too.

    Raises
    ------
    InputError
        If a place is missing, a folder holds no image or is a case, or a file has an unknown ending.
    """
    images = []
    for place in map(Path, places):
        if not place.is_dir():
            if not place.is_file():
                raise InputError(f"{place}: expected an image or a folder, found nothing; mend the path")
            if place.suffix.lower() not in SUFFIXES:
                raise InputError(
                    f"{place}: expected an image ({', '.join(sorted(SUFFIXES))}), found {place.name}; this "
                    "model classifies pictures, give it those"
                )
            images.append(place)
            continue
        own = []
        for folder, _, files in walk_folders(place):
            if lgg.is_case(folder.name, files):
                raise InputError(
                    f"{folder}: expected images of one slice each, found a case of kaggle_3m; "
                    "use a model for segmentation"
                )
            own += [folder / name for name in files if Path(name).suffix.lower() in SUFFIXES]
        if not own:
            raise InputError(
                f"{place}: expected images ({', '.join(sorted(SUFFIXES))}), found none; "
                "point to a folder that holds some"
            )
        images += sorted(own)
    return images


def read_picture(path: Path, size: int) -> np.ndarray:
    """Read and prepare an image for a classifier, float32 (size, size, 1) in [0, 1].

    Raises
    ------
    InputError
        If it is unreadable, a stack of several pictures, of one grey value, or a colour picture: more than a
        quarter of it differs by over 40 of 255 between red, green and blue.
    """
    image = read_image(path)
    with Image.open(path) as opened:
        frames = getattr(opened, "n_frames", 1)
    if frames > 1:
        raise InputError(f"{path}: expected one picture, found a stack of {frames}; save each by itself")
    if image.mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr"):
        pixels = np.asarray(image.convert("RGB"), np.int16)
        coloured = float((pixels.max(axis=-1) - pixels.min(axis=-1) > _COLOURED).mean())
        if coloured > _COLOUR_SHARE:
            raise InputError(
                f"{path}: expected a grey MR slice, found a picture of which {coloured:.0%} is coloured; "
                "give the model MR slices only"
            )
    prepared = prepare_slice(image, size)
    if prepared.max() == prepared.min():
        raise InputError(f"{path}: expected a picture, found one grey value throughout; replace it")
    return prepared


def predict_images(model: keras.Model, info: ModelInfo, paths: Sequence[Path]) -> np.ndarray:
    """Return the calibrated probabilities of images, float64 (N, classes).

    Raises
    ------
    InputError
        If the model is no classifier, or an image cannot be used; see `read_picture`.
    """
    check_task(info, "classification")
    probabilities = []
    for first in range(0, len(paths), _BATCH):
        batch = np.stack([read_picture(path, info.size[0]) for path in paths[first : first + _BATCH]])
        probabilities.append(classify(model, info, batch))
    return np.concatenate(probabilities)


def classify(model: keras.Model, info: ModelInfo, pictures: np.ndarray) -> np.ndarray:
    """Return the calibrated probabilities, float64 (N, classes), of a batch from `read_picture`."""
    return softmax(np.asarray(model.predict_on_batch(pictures)) / info.temperature)


def predict_case(model: keras.Model, info: ModelInfo, case: Case, *, progress: bool = True) -> Segmented:
    """Segment a case, on its own voxels.

    Raises
    ------
    InputError
        If the model is of another task, the case lacks a modality, or it cannot be read.
    """
    check_task(info, "segmentation")
    if lacking := [name for name in info.modalities if name not in case.modalities]:
        raise InputError(
            f"{case.name}: expected the modalities {', '.join(info.modalities)}, found no "
            f"{', '.join(lacking)} among {', '.join(case.modalities)}; use a model for this kind of case"
        )
    threshold = info.threshold if len(info.threshold) > 1 else info.threshold[0]
    smallest = info.smallest if len(info.smallest) > 1 else info.smallest[0]
    if info.preprocessing == "volume":
        options = {"window": info.size, "flips": info.flips, "progress": progress}
        labels = segment_case(
            model, case, Recipe(**info.recipe), threshold=threshold, smallest=smallest, **options
        )
        return Segmented(case, labels, case.load(info.modalities[:1], mask=False).affine)
    slices = load_slices([case], size=info.size[0], modalities=info.modalities, masks=False, progress=False)
    probabilities = predict_slices(model, slices.x, flips=info.flips, progress=progress)
    regions = segment(
        slices.restore(0, probabilities), threshold=threshold, smallest=smallest, spacing=slices.spacings[0]
    )
    if len(info.outputs) == 1:
        return Segmented(case, regions[..., 0].astype(np.uint8), slices.affines[0])
    return Segmented(case, regions_to_labels(np.moveaxis(regions, -1, 0)), slices.affines[0])


def measure(segmented: Segmented, regions: Sequence[str]) -> tuple[dict[str, float], str]:
    """Return the volume of each region, and its unit: ml, or voxels where the spacing is unknown."""
    found = compute_regions(segmented.labels, regions)
    unit = "voxels" if segmented.spacing is None else "ml"
    factor = 1 if segmented.spacing is None else float(np.prod(segmented.spacing)) / 1000
    return {name: int(found[..., k].sum()) * factor for k, name in enumerate(regions)}, unit


def write_mask(segmented: Segmented, folder: Path) -> Path:
    """Write a mask so that it lies on the case's images in any viewer.

    As ``<case>_seg.nii.gz`` with the case's affine; of kaggle_3m, whose cases have none, as its own kind of
    file, ``<case>/<case>_<slice>_mask.tif`` of 0 and 255.

    Returns
    -------
    Path
        The file, or the folder of slices.
    """
    case, folder = segmented.case, Path(folder)
    if segmented.affine is not None:
        path = folder / f"{case.name}_seg.nii.gz"
        image = nib.Nifti1Image(segmented.labels, segmented.affine)
        image.header.set_xyzt_units("mm")
        write_atomic(path, gzip.compress(image.to_bytes(), mtime=0))
        return path
    pictures = segmented.labels[::-1, ::-1].transpose(2, 1, 0)  # (Z, rows, columns), as stored
    for source, picture in zip(case.files["slices"], pictures, strict=True):
        buffer = io.BytesIO()
        Image.fromarray((picture > 0).astype(np.uint8) * 255).save(buffer, "TIFF", compression="tiff_lzw")
        write_atomic(folder / case.name / f"{source.stem}_mask.tif", buffer.getvalue())
    return folder / case.name


def find_cases(places: Sequence[Path]) -> list[Case]:
    """Return the cases of folders in either layout of volumes, masks or not.

    Raises
    ------
    InputError
        If a place is a file, holds no case, or a case lacks files.
    """
    cases = []
    for place in map(Path, places):
        if place.is_file():
            raise InputError(
                f"{place}: expected the folder of a case (kaggle_3m or BraTS), found a file; this model "
                "segments whole cases, point to the folder"
            )
        cases += list_cases(place)
    return cases


def check_task(info: ModelInfo, task: str) -> None:
    """Raise InputError unless a model is for this task."""
    if info.task != task:
        raise InputError(f"model: expected one for {task}, found {info.title!r} for {info.task}; use another")
