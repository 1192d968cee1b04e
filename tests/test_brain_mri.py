import shutil

import numpy as np
import pytest
from PIL import Image

from fedutils.data import brain_mri
from fedutils.data.brain_mri import CLASSES, find_copies, fingerprint, load_images, split_validation
from fedutils.errors import InputError


def load(root, split="Training", **options):
    return load_images(root, split, size=24, progress=False, **options)


def test_any_size_and_mode_becomes_one_kind_of_array(kaggle):
    images = load(kaggle)
    assert images.x.shape == (24, 24, 24, 1) and images.x.dtype == np.float32
    assert images.x.min() >= 0 and images.x.max() <= 1
    assert images.y.dtype == np.int32 and np.bincount(images.y).tolist() == [6, 6, 6, 6]
    assert [p.parent.name for p in images.paths] == [CLASSES[c] for c in images.y]


def test_colour_and_grey_of_one_picture_give_one_array(kaggle):
    grey = Image.open(kaggle / "Training" / "glioma" / "Tr_1.png")
    grey.convert("RGB").save(kaggle / "Training" / "glioma" / "Tr_1_rgb.png")
    images = load(kaggle)
    names = [p.name for p in images.paths]
    assert np.array_equal(images.x[names.index("Tr_1.png")], images.x[names.index("Tr_1_rgb.png")])


def test_copies_are_found_under_another_name(kaggle):
    shutil.copy(kaggle / "Training" / "glioma" / "Tr_0.png", kaggle / "Testing" / "glioma" / "new.png")
    training, testing = load(kaggle), load(kaggle, "Testing")
    copied = find_copies(testing, training)
    assert [testing.paths[i].name for i in np.flatnonzero(copied)] == ["new.png"]


def test_validation_is_stratified_disjoint_and_never_parts_identical_pictures(kaggle):
    for i in range(3):
        shutil.copy(
            kaggle / "Training" / "glioma" / "Tr_0.png", kaggle / "Training" / "glioma" / f"copy{i}.png"
        )
    images = load(kaggle)
    for seed in range(20):
        chosen, held = split_validation(images, 0.34, seed)
        assert np.array_equal(np.sort(np.concatenate([chosen, held])), np.arange(len(images)))
        assert set(images.y[held]) == {0, 1, 2, 3}
        digests = np.asarray(images.digests)
        assert not set(digests[chosen]) & set(digests[held])


def test_validation_fraction_is_kept(kaggle):
    chosen, held = split_validation(load(kaggle), 0.5, 0)
    assert len(held) == len(chosen) == 12


def test_fingerprint_follows_pixels_and_labels(kaggle):
    before = fingerprint(load(kaggle))
    assert before == fingerprint(load(kaggle))
    path = kaggle / "Training" / "notumor" / "Tr_3.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert fingerprint(load(kaggle)) != before


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"Training/glioma: expected a folder.*FEDUTILS_DATA"):
        load(tmp_path)


def test_empty_class(kaggle):
    for path in (kaggle / "Training" / "notumor").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"notumor: expected \.jpg or \.png images, found an empty class"):
        load(kaggle)


def test_truncated_jpeg_is_named_and_skipped_only_when_asked(kaggle):
    bad = kaggle / "Training" / "pituitary" / "cut.jpg"
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[:700])
    with pytest.raises(InputError, match=r"cut\.jpg: expected a readable image"):
        load(kaggle)
    images = load(kaggle, skip_bad=True)
    assert images.skipped == (bad,) and len(images) == 24


def test_a_file_that_is_no_image_is_named(kaggle):
    (kaggle / "Testing" / "glioma" / "note.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"note\.jpg"):
        load(kaggle, "Testing")


def test_a_class_of_bad_images_only_is_refused_even_when_skipping(kaggle):
    for path in (kaggle / "Training" / "glioma").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="glioma: expected readable images, found none"):
        load(kaggle, skip_bad=True)


def test_unknown_split(kaggle):
    with pytest.raises(InputError, match="Training, Testing"):
        load(kaggle, "Validation")


def test_real_images(real_data):
    for split, expected in (("Training", 5708), ("Testing", 773)):
        files, labels = brain_mri.list_images(real_data / "brain_mri", split)
        assert len(files) == len(labels) == expected
    image = brain_mri.prepare_slice(brain_mri.read_image(files[0]), 96)
    assert image.shape == (96, 96, 1) and 0 <= image.min() < image.max() <= 1


def make_older(root):
    """Rename the class folders to the older form."""
    older = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
    names = dict(zip(CLASSES, older, strict=True))
    for split in ("Training", "Testing"):
        for new, old in names.items():
            (root / split / new).rename(root / split / old)


def test_the_older_form_gives_the_same_labels(kaggle):
    before = load(kaggle)
    make_older(kaggle)
    (kaggle / "Training" / "no_tumor" / "Tr_0.png").rename(kaggle / "Training" / "no_tumor" / "image (1).png")
    images = load(kaggle)
    assert np.array_equal(images.y, before.y) and fingerprint(images) != ""
    assert sorted(images.digests) == sorted(before.digests)
    assert [p.parent.name for p in images.paths[12:18]] == ["no_tumor"] * 6


def test_the_older_form_with_an_empty_class(kaggle):
    make_older(kaggle)
    for path in (kaggle / "Training" / "no_tumor").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no_tumor: expected readable images, found none"):
        load(kaggle, skip_bad=True)


def test_a_mixture_of_both_forms_is_refused(kaggle):
    (kaggle / "Testing" / "no_tumor").mkdir()
    with pytest.raises(InputError, match="one form, found both glioma and no_tumor"):
        load(kaggle)
