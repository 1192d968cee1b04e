"""Images that are audited before anything trains on them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from fedutils.data import audited
from fedutils.data.audited import load_audited
from fedutils.data.brain_mri import load_images, split_validation
from fedutils.errors import InputError


@pytest.fixture
def leaky(kaggle):
    """Add an exact copy across the split, a mirrored one, and a picture that Training repeats."""
    source = kaggle / "Training" / "glioma"
    shutil.copy(source / "Tr_0.png", kaggle / "Testing" / "glioma" / "copy.png")
    mirrored = ImageOps.mirror(Image.open(source / "Tr_1.png"))
    mirrored.save(kaggle / "Testing" / "glioma" / "mirrored.png")
    shutil.copy(source / "Tr_2.png", source / "again.png")
    return kaggle


def load(root, **options):
    return load_audited(root, size=16, progress=False, **options)


def test_training_is_without_copies_and_the_test_set_is_whole(leaky):
    images = load(leaky)
    names = [path.name for path in images.training.paths if path.parent.name == "glioma"]
    assert sorted({"Tr_0.png", "Tr_1.png", "Tr_2.png", "again.png"} & set(names)) in (
        ["Tr_2.png"],
        ["again.png"],
    )
    assert len(images.training) == 25 - 3 and len(images.testing) == 14
    assert images.deduplicated.all() and images.test_parts["public"].sum() == 14
    assert images.audit.status == 1  # it is of what was read, and says what was wrong
    record = images.describe("brain_mri")
    assert record["num_images"] == 39 and record["num_training"] == 22 and record["split"] == "deduplicated"


def test_a_repeat_in_the_test_set_is_reported_on_once(leaky):
    shutil.copy(leaky / "Testing" / "notumor" / "Te_0.png", leaky / "Testing" / "notumor" / "z.png")
    images = load(leaky)
    assert [
        p.name for p, keep in zip(images.testing.paths, images.deduplicated, strict=True) if not keep
    ] == ["z.png"]


def test_the_public_split_is_had_by_name_only(leaky):
    images = load(leaky, split="public")
    assert len(images.training) == 25 and images.describe("x")["split"] == "public"
    with pytest.raises(InputError, match="deduplicated, public, found 'leaky'"):
        load(leaky, split="leaky")


def test_a_leak_that_is_left_stops(leaky, monkeypatch):
    # As if the rule that leaves copies out had failed.
    monkeypatch.setattr(audited, "take_split", lambda audit, training, testing, split: (training, testing))
    with pytest.raises(InputError, match="expected nothing on both sides of the split"):
        load(leaky)


def test_validation_never_parts_a_group(leaky):
    training = load_images(leaky, "Training", size=16, progress=False)
    grouped = replace(training, groups=np.arange(len(training)) // 2)
    for seed in range(10):
        chosen, held = split_validation(grouped, 0.34, seed)
        assert not set(grouped.groups[chosen]) & set(grouped.groups[held])
        assert np.array_equal(np.sort(np.concatenate([chosen, held])), np.arange(25))
        part = grouped.subset(held)
        assert np.array_equal(part.groups, grouped.groups[held])


def test_real_images_are_deduplicated(real_data):
    images = load(real_data / "brain_mri")
    assert images.audit.status == 1 and images.split == "deduplicated"
    chosen, held = split_validation(images.training, 0.15, 0)
    assert abs(len(held) / len(images.training) - 0.15) < 0.005
    assert not set(images.training.groups[chosen]) & set(images.training.groups[held])
