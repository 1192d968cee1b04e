"""Augmentation: image and mask stay together, one seed gives one result, and off means untouched."""

import dataclasses

import numpy as np
import pytest

from fedutils.data import augment_effects as effects
from fedutils.data.augment import STANDARD, Augmentation, augment
from fedutils.errors import InputError

SHAPES = [(13, 16), (13, 16, 18)]
SPATIAL = Augmentation(flip=(0.5,), rotation=(30, 1), scaling=(0.2, 1), elastic=(2, 1), smoothness=6)
INTENSITY = Augmentation(gain=(0.3, 1), gamma=(0.4, 1), noise=(0.1, 1), bias=(0.5, 1))


def make_pair(shape, channels=2):
    """Return images with a background of 0 and values of 1 to 2 in a block, and the block as a mask."""
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(n // 4, n - n // 3) for n in shape)] = 4
    values = np.random.default_rng(0).uniform(1, 2, (*shape, channels)).astype(np.float32)
    return values * (mask > 0)[..., np.newaxis], mask


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_off_is_untouched(shape):
    images, mask = make_pair(shape)
    same, same_mask = augment(images, mask, augmentation=Augmentation(), seed=1)
    assert same is images and same_mask is mask
    never = dataclasses.replace(
        STANDARD,
        **{f.name: (9e-1, 0) for f in dataclasses.fields(STANDARD) if f.name not in ("flip", "smoothness")},
    )
    never = dataclasses.replace(never, flip=(0,))
    for seed in range(20):
        assert augment(images, mask, augmentation=never, seed=seed)[0] is images


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_a_flip_is_exact_and_two_are_none(shape):
    images, mask = make_pair(shape)
    always = Augmentation(flip=(1,))
    flipped, flipped_mask = augment(images, mask, augmentation=always, seed=0)
    assert np.array_equal(flipped, images[::-1]) and np.array_equal(flipped_mask, mask[::-1])
    again, again_mask = augment(flipped, flipped_mask, augmentation=always, seed=0)
    assert np.array_equal(again, images) and np.array_equal(again_mask, mask)
    second = Augmentation(flip=(0, 1))
    assert np.array_equal(augment(images, augmentation=second, seed=0)[0], images[:, ::-1])


@pytest.mark.parametrize("shape", SHAPES, ids=len)
@pytest.mark.parametrize(
    "augmentation", [SPATIAL, INTENSITY, STANDARD], ids=["spatial", "intensity", "standard"]
)
def test_one_seed_gives_one_result(shape, augmentation):
    images, mask = make_pair(shape)
    before = images.copy()
    results = [augment(images, mask, augmentation=augmentation, seed=seed) for seed in ((3, 7), (3, 7))]
    assert np.array_equal(results[0][0], results[1][0]) and np.array_equal(results[0][1], results[1][1])
    assert results[0][0].shape == images.shape and results[0][0].dtype == np.float32
    assert results[0][1].dtype == np.uint8 and set(np.unique(results[0][1])) <= {0, 4}
    assert np.array_equal(images, before)
    others = [augment(images, augmentation=augmentation, seed=(3, i))[0] for i in range(10)]
    assert len({other.tobytes() for other in others}) > 3


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_image_and_mask_move_together(shape):
    _, mask = make_pair(shape)
    images = (mask > 0).astype(np.float32)[..., np.newaxis]
    moved_enough = 0
    for seed in range(12):
        moved, moved_mask = augment(images, mask, augmentation=SPATIAL, seed=seed)
        inside, labelled = moved[..., 0] > 0.5, moved_mask > 0
        assert 2 * (inside & labelled).sum() / (inside.sum() + labelled.sum()) > 0.93
        moved_enough += (labelled != (mask > 0)).sum() > 0.1 * (mask > 0).sum()
    assert moved_enough > 8


def test_a_marked_voxel_goes_where_the_rotation_says():
    images, mask = np.zeros((7, 7, 8, 1), np.float32), np.zeros((7, 7, 8), np.int16)
    images[5, 3, 2], mask[5, 3, 2] = 8, 2  # from the middle (3, 3, 3.5): two voxels along axis 0
    moved, moved_mask = effects.warp(images, mask, effects.build_matrix([0, 0, 90]))
    assert moved[3, 5, 2, 0] == pytest.approx(8) and moved.sum() == pytest.approx(8)  # axis 0 went to axis 1
    assert moved_mask[3, 5, 2] == 2 and moved_mask.sum() == 2
    plane, plane_mask = effects.warp(images[:, :, 2], mask[:, :, 2], effects.build_matrix([90]))
    assert np.allclose(plane, moved[:, :, 2], atol=1e-5) and np.array_equal(plane_mask, moved_mask[:, :, 2])


def test_half_a_turn_turns_unequal_axes_round():
    images, mask = make_pair((7, 9))
    moved, moved_mask = effects.warp(images, mask, effects.build_matrix([180]))
    assert np.allclose(moved, images[::-1, ::-1], atol=1e-5)
    assert np.array_equal(moved_mask, mask[::-1, ::-1])


def test_scaling_keeps_the_middle_and_moves_the_rest():
    images = np.zeros((9, 11, 1), np.float32)
    images[4, 5], images[5, 5] = 3, 6
    larger, _ = effects.warp(images, None, effects.build_matrix([0], 2))
    assert larger[:, 5, 0].tolist() == [0, 0, 0, 1.5, 3, 4.5, 6, 3, 0]


def test_rotation_of_oblong_voxels_is_rigid_in_mm():
    matrix = effects.build_matrix([90], spacing=(1, 4))
    # A voxel 4 along axis 0 from the middle (4 mm) comes from 1 voxel along axis 1 (4 mm), against the turn.
    assert np.allclose(matrix @ [4, 0], [0, -1])
    assert np.allclose(matrix @ [0, 1], [4, 0])


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_a_displacement_moves_as_the_matrix_would(shape):
    images, mask = make_pair(shape)
    shift = np.zeros((len(shape), *shape), np.float32)
    shift[1] = 2
    moved, moved_mask = effects.warp(images, mask, np.eye(len(shape)), shift)
    assert np.array_equal(moved[:, :-2], images[:, 2:]) and not moved[:, -2:].any()
    assert np.array_equal(moved_mask[:, :-2], mask[:, 2:])
    matrix = effects.build_matrix([20] * (3 if len(shape) == 3 else 1), 1.1)
    plain, bent = effects.warp(images, mask, matrix), effects.warp(images, mask, matrix, 0 * shift)
    assert np.allclose(plain[0], bent[0], atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_smooth_noise_is_smooth_and_reaches_1(shape):
    noise = effects.make_smooth_noise(shape, 5, np.random.default_rng(2))
    assert noise.shape == shape and noise.dtype == np.float32
    assert np.abs(noise).max() == 1
    # A Gaussian of 5 voxels: neighbours differ by a small part of the whole range of 2.
    assert all(np.abs(np.diff(noise, axis=a)).max() < 0.5 for a in range(len(shape)))
    field = effects.make_elastic_field(shape, 3, 5, np.random.default_rng(2))
    assert field.shape == (len(shape), *shape)
    assert np.allclose(np.abs(field).max(axis=tuple(range(1, field.ndim))), 3)
    bias = effects.make_bias_field(shape, 0.3, np.random.default_rng(2))
    assert bias.min() >= np.exp(-0.3) - 1e-6 and bias.max() <= np.exp(0.3) + 1e-6 and bias.std() > 0.02


def test_intensities_by_hand():
    images = np.zeros((2, 3, 2), np.float32)
    images[0, :, 0] = [2, 4, 6]  # u = 0, 0.5, 1
    images[0, :, 1] = [-1, 0, 1]
    field = np.full((2, 3), 2, np.float32)
    changed = effects.change_intensities(images, [1.0, 1.0], [2.0, 1.0], field)
    assert changed[0, :, 0].tolist() == [2, 4, 10]  # u -> 2 u^2 = 0, 0.5, 2
    assert changed[0, :, 1].tolist() == [-1, 1, 3]
    assert not changed[1].any(), "the background stays 0"
    brighter = effects.change_intensities(images, [1.5, 1.0], [1.0, 1.0])
    assert brighter[0, :, 0].tolist() == [2, 5, 8] and np.array_equal(brighter[..., 1], images[..., 1])


def test_noise_has_the_deviation_asked_for():
    images = np.zeros((60, 70, 1), np.float32)
    images[:50] = 1
    images[0, 0] = 11  # a range of 10
    noisy = effects.change_intensities(images, [1], [1], None, 0.05, np.random.default_rng(0))
    assert (noisy - images)[1:50].std() == pytest.approx(0.5, rel=0.05)
    assert not noisy[50:].any()


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_intensities_leave_background_and_mask(shape):
    images, mask = make_pair(shape)
    changed, same = augment(images, mask, augmentation=INTENSITY, seed=5)
    assert same is mask and not changed[mask == 0].any()
    assert np.abs(changed - images)[mask > 0].mean() > 0.01


def test_effects_do_not_touch_each_others_chance():
    images, mask = make_pair(SHAPES[1])
    both = dataclasses.replace(SPATIAL, gain=(0.2, 1), noise=(0.1, 1))
    for seed in range(4):
        alone, together = (augment(images, mask, augmentation=a, seed=seed)[1] for a in (SPATIAL, both))
        assert np.array_equal(alone, together)


def test_how_often_is_the_probability():
    images, _ = make_pair((5, 6))
    often = Augmentation(gain=(0.3, 0.25))
    count = sum(augment(images, augmentation=often, seed=i)[0] is not images for i in range(400))
    assert 70 <= count <= 130  # 100 expected, standard deviation 8.7


def test_a_mapped_read_only_volume_will_do(tmp_path):
    images, mask = make_pair(SHAPES[1])
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    everything = dataclasses.replace(SPATIAL, gain=(0.3, 1), gamma=(0.4, 1), noise=(0.1, 1), bias=(0.5, 1))
    found = augment(mapped, mask, augmentation=everything, seed=1)[0]
    assert np.array_equal(found, augment(images, mask, augmentation=everything, seed=1)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": (10, 1.5)},
        {"scaling": (1, 0.5)},
        {"noise": (-1, 0.5)},
        {"gain": (0.5,)},
        {"flip": (2,)},
        {"smoothness": 0},
    ],
)
def test_a_bad_augmentation_is_refused(options):
    with pytest.raises(InputError, match=f"expected {next(iter(options))} to be"):
        Augmentation(**options)


def test_bad_arrays_are_one_line():
    images, mask = make_pair((7, 8))
    with pytest.raises(InputError, match=r"\(X, Y, C\) or \(X, Y, Z, C\), found shape \(7, 8\)"):
        augment(mask, augmentation=STANDARD, seed=0)
    with pytest.raises(InputError, match=r"a mask of shape \(7, 8\), found \(8, 7\)"):
        augment(images, mask.T, augmentation=STANDARD, seed=0)
    with pytest.raises(InputError, match="flips of 2 axes, found 3"):
        augment(images, mask, augmentation=Augmentation(flip=(0.5, 0.5, 0.5)), seed=0)
    images[3, 3] = np.nan
    with pytest.raises(InputError, match="found NaN"):
        augment(images, mask, augmentation=INTENSITY, seed=0)
    constant, _ = augment(np.full((7, 8, 1), 3, np.float32), augmentation=INTENSITY, seed=0)
    assert (constant == 3).all()
