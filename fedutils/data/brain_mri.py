"""The "Brain Tumor MRI Dataset" layout: ``Training|Testing/{glioma,meningioma,notumor,pituitary}/*.jpg``.

Its older form is read too: ``glioma_tumor/gg (1).jpg``, ``no_tumor`` and so on, of any size.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from fedutils.data.image_record import ImageRecord, record_image
from fedutils.data.splits import split_groups
from fedutils.errors import InputError
from fedutils.preprocess import prepare_slice

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SPLITS = ("Training", "Testing")
_OLDER = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")  # in the order of CLASSES
_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class ImageSet:
    """The images of one split.

    Attributes
    ----------
    x : float32 (N, size, size, 1)
        Pixels in [0, 1].
    y : int32 (N,)
        Index into `CLASSES`.
    paths : tuple of Path
        Where each came from.
    digests : tuple of str
        Hash of each image's decoded grey pixels: two files with the same hash show the same picture.
    skipped : tuple of Path
        Files that could not be read and were left out because the caller asked for that.
    records : tuple of ImageRecord
        What `fedutils.data.image_audit.audit_images` needs of each image, so that nothing is decoded twice.
    groups : int (N,), optional
        From the audit: pictures that are near copies of one another share a group, which is never parted.
    """

    x: np.ndarray
    y: np.ndarray
    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    skipped: tuple[Path, ...] = ()
    records: tuple[ImageRecord, ...] = ()
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.y)

    def subset(self, indices) -> "ImageSet":
        """Return the images at `indices`, in that order."""
        return ImageSet(
            self.x[indices],
            self.y[indices],
            tuple(self.paths[i] for i in indices),
            tuple(self.digests[i] for i in indices),
            self.skipped,
            tuple(self.records[i] for i in indices) if self.records else (),
            None if self.groups is None else self.groups[indices],
        )


def find_classes(root: Path) -> tuple[str, ...]:
    """Return the names of the class folders in `root`, in the order of `CLASSES`; empty if there is none.

    Raises
    ------
    InputError
        If some have the names of `CLASSES` and some those of the older form.
    """
    names = {path.name for split in SPLITS for path in (Path(root) / split).glob("*") if path.is_dir()}
    forms = [form for form in (CLASSES, _OLDER) if names & set(form)]
    if len(forms) > 1:
        raise InputError(
            f"{root}: expected class folders of one form, found both {min(names & set(CLASSES))} and "
            f"{min(names & set(_OLDER))}; keep the two data sets apart"
        )
    return forms[0] if forms else ()


def list_images(root: Path, split: str) -> tuple[list[Path], np.ndarray]:
    """List the files of a split without reading them.

    Parameters
    ----------
    root : Path
        The folder that holds ``Training`` and ``Testing``.
    split : str
        ``Training`` or ``Testing``.

    Returns
    -------
    paths : list of Path
        Sorted by class, then by name.
    labels : int32 (N,)
        Index into `CLASSES`.

    Raises
    ------
    InputError
        If a folder is missing or a class has no image.
    """
    if split not in SPLITS:
        raise InputError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
    files, labels = [], []
    for label, name in enumerate(find_classes(root) or CLASSES):
        folder = Path(root) / split / name
        if not folder.is_dir():
            raise InputError(
                f"{folder}: expected a folder of {name} images, found none; point FEDUTILS_DATA (or DATA=) "
                "to the folder that holds brain_mri/Training and brain_mri/Testing"
            )
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
        if not found:
            raise InputError(f"{folder}: expected .jpg or .png images, found an empty class; add its images")
        files += found
        labels += [label] * len(found)
    return files, np.asarray(labels, np.int32)


def read_image(path: Path) -> Image.Image:
    """Read a file whole, so that a truncated one is found here and not later.

    Raises
    ------
    InputError
        If the file is not an image or ends too soon.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(
            f"{path}: expected a readable image, found: {error}; replace it, delete it, or set skip_bad: true"
        ) from error


def load_images(
    root: Path, split: str, *, size: int, skip_bad: bool = False, progress: bool = True
) -> ImageSet:
    """Read a split and prepare every image (`fedutils.preprocess.prepare_slice`).

    Parameters
    ----------
    root : Path
        The folder that holds ``Training`` and ``Testing``.
    split : str
        ``Training`` or ``Testing``.
    size : int
        Side of the square result, in pixels.
    skip_bad : bool
        Leave out files that cannot be read, and name them in ``skipped``, instead of stopping.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If a folder is missing, a class has no readable image, or a file is unreadable and `skip_bad` is
        false.
    """
    files, labels = list_images(root, split)
    x = np.empty((len(files), size, size, 1), np.float32)
    records, kept, skipped = [], [], []
    bar = tqdm(files, desc=f"read {split}", unit="image", disable=not progress)
    for i, path in enumerate(bar):
        try:
            image = read_image(path)
        except InputError:
            if not skip_bad:
                raise
            skipped.append(path)
            continue
        x[len(kept)] = prepare_slice(image, size)
        records.append(record_image(path, image))
        kept.append(i)
    y = labels[kept]
    for label in range(len(CLASSES)):
        if not np.any(y == label):
            folder = files[int(np.argmax(labels == label))].parent
            raise InputError(f"{folder}: expected readable images, found none; replace its files")
    digests = tuple(record.digest for record in records)
    kept_files = tuple(files[i] for i in kept)
    return ImageSet(x[: len(kept)], y, kept_files, digests, tuple(skipped), tuple(records))


def split_validation(images: ImageSet, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split into training and validation, stratified by class, never parting a group of near copies.

    Parameters
    ----------
    images : ImageSet
        Without ``groups`` (no audit has seen it), identical pictures stay together.
    fraction : float
        Share of validation, in (0, 1).
    seed : int

    Returns
    -------
    training, validation : int64 (n,), int64 (m,)
        Sorted indices into `images`.
    """
    if not 0 < fraction < 1:
        raise InputError(f"validation fraction: expected a number between 0 and 1, found {fraction}")
    groups = images.digests if images.groups is None else images.groups
    shares = {"training": 1 - fraction, "validation": fraction}
    parts = split_groups(images.y, groups, fractions=shares, seed=seed)
    return parts["training"], parts["validation"]


def find_copies(images: ImageSet, others: ImageSet) -> np.ndarray:
    """Return bool (N,): which of `images` show, pixel for pixel, the same picture as one of `others`."""
    return np.isin(np.asarray(images.digests), np.asarray(others.digests))


def fingerprint(*sets: ImageSet) -> str:
    """Return a hash of the pictures and labels of the given sets, for provenance."""
    digest = hashlib.sha256()
    for images in sets:
        digest.update("".join(images.digests).encode())
        digest.update(images.y.tobytes())
    return digest.hexdigest()[:16]


def describe(source: str, training: ImageSet, testing: ImageSet) -> dict:
    """Return the provenance that a result records: source, numbers of images, what was skipped, a hash."""
    return {
        "source": source,
        "num_images": len(training) + len(testing),
        "fingerprint": fingerprint(training, testing),
        "skipped": [path.name for path in (*training.skipped, *testing.skipped)],
    }
