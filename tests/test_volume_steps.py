"""Boxes and steps of preprocessing: values by hand, inverses, and one line for what cannot be done."""

import numpy as np
import pytest

from fedutils.data import boxes
from fedutils.data import volume_steps as steps
from fedutils.data.boxes import Box
from fedutils.errors import InputError

SHAPE = (7, 8, 9)


def brain(dtype=np.int16):
    """Return a volume that is not 0 in [2:5, 1:7, 3:8] alone, and of different values there."""
    volume = np.zeros(SHAPE, dtype)
    volume[2:5, 1:7, 3:8] = np.arange(10, 10 + 3 * 6 * 5).reshape(3, 6, 5)
    return volume


def test_the_box_of_the_foreground_is_tight():
    assert boxes.find_foreground(brain()) == Box((2, 1, 3), (5, 7, 8))
    two = np.stack([brain(), np.zeros(SHAPE, np.int16)], axis=-1)
    two[6, 0, 0, 1] = 3  # any modality will do
    assert boxes.find_foreground(two) == Box((2, 0, 0), (7, 7, 8))
    with pytest.raises(InputError, match="no voxel other than 0"):
        boxes.find_foreground(np.zeros(SHAPE))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int32, np.int64, np.float32])
@pytest.mark.parametrize("sides", [SHAPE, (16, 9, 5)], ids=["odd", "words of eight bytes"])
def test_the_box_is_found_however_voxels_lie_in_memory(dtype, sides):
    rng = np.random.default_rng(4)
    for flips in ((1, 1, 1), (-1, -1, 1), (1, -1, -1)):
        volume = np.zeros(sides, dtype, order="F")
        for place in rng.integers(0, sides, (3, 3)):
            volume[tuple(place)] = -1 if dtype in (np.int16, np.float32) else 1
        turned = volume[:: flips[0], :: flips[1], :: flips[2]]
        places = np.argwhere(turned)
        expected = Box(tuple(places.min(axis=0).tolist()), tuple((places.max(axis=0) + 1).tolist()))
        for view in (turned, np.ascontiguousarray(turned), np.repeat(turned, 2, axis=0)[::2]):
            assert boxes.find_foreground(view) == expected


def test_boxes_are_joined_and_counted_from_another_place():
    one, other = Box((2, 1, 3), (5, 7, 8)), Box((-1, 4, 5), (3, 9, 6))
    assert boxes.join_boxes([one, other]) == Box((-1, 1, 3), (5, 9, 8))
    assert boxes.join_boxes([one]) == one
    assert one.shift((2, 2, 2)) == Box((0, -1, 1), (3, 5, 6))


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        (Box((2, 1, 3), (5, 7, 8)), (3, 6, 5)),
        (Box((-2, 1, 3), (5, 9, 8)), (7, 8, 5)),  # padded before and after
    ],
)
def test_what_was_cropped_goes_back_to_its_place(box, shape):
    volume = brain()
    part = boxes.crop(volume, box)
    assert part.shape == box.shape == shape
    assert part.max() == volume.max()
    assert np.array_equal(boxes.restore(part, box, SHAPE), volume)
    marked = boxes.restore(part + 1, box, SHAPE, fill=-7)
    assert marked[2, 1, 3] == 11 and marked[6, 7, 8] == -7


def test_a_padded_crop_has_the_voxel_where_the_box_says():
    volume = brain()
    part = boxes.crop(volume, Box((-2, 1, 3), (5, 9, 8)), fill=-1)
    assert part[4, 0, 0] == volume[2, 1, 3] == 10
    assert (part[:2] == -1).all() and (part[:, 7:] == -1).all()
    stack = np.stack([volume, 2 * volume], axis=-1)
    assert boxes.crop(stack, Box((2, 1, 3), (5, 7, 8)))[0, 0, 0].tolist() == [10, 20]


def test_boxes_that_miss_or_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"meets a volume of \(7, 8, 9\)"):
        boxes.crop(brain(), Box((7, 0, 0), (9, 2, 2)))
    with pytest.raises(InputError, match=r"box's shape \(3, 6, 5\), found \(3, 6, 4\)"):
        boxes.restore(np.zeros((3, 6, 4)), Box((2, 1, 3), (5, 7, 8)), SHAPE)
    with pytest.raises(InputError, match="three sides"):
        boxes.crop_or_pad(brain(), (3, 0, 3))


def test_the_middle_is_that_of_public_brats_code():
    whole = Box((0, 0, 0), (240, 240, 155))
    assert boxes.center_box(whole, (128, 128, 128)) == Box((56, 56, 13), (184, 184, 141))


def test_the_odd_voxel_is_at_the_end():
    assert boxes.center_box(Box((0, 0, 0), (5, 2, 4)), (2, 5, 4)) == Box((1, -1, 0), (3, 4, 4))
    row = np.arange(1, 6).reshape(5, 1, 1)
    assert boxes.crop_or_pad(row, (2, 1, 1)).ravel().tolist() == [2, 3]
    assert boxes.crop_or_pad(row, (8, 1, 1)).ravel().tolist() == [0, 1, 2, 3, 4, 5, 0, 0]


def test_min_max_is_over_the_volume_of_each_modality():
    image = np.array([[[0, 10, 40]]], np.int16)
    assert steps.scale_min_max(image).tolist() == [[[0, 0.25, 1]]]
    two = steps.scale_min_max(np.stack([image, 2 * image - 80], axis=-1))
    assert two.dtype == np.float32 and np.array_equal(two[..., 0], two[..., 1])
    over_brain = steps.scale_min_max(image, image > 0)
    assert over_brain.tolist() == [[[0, 0, 1]]]


def test_z_score_is_over_the_brain_and_leaves_the_rest_0():
    image = np.array([[[0, 1, 3, 0]]], np.int16)  # mean 2, standard deviation 1
    assert steps.scale_z_score(image).tolist() == [[[0, -1, 1, 0]]]
    # With a 0 in the brain, as another modality may say: mean 4/3, standard deviation sqrt(14)/3
    inside = np.array([[[False, True, True, True]]])
    expected = np.array([0, -1 / 3, 5 / 3, -4 / 3]) / (14**0.5 / 3)
    assert np.allclose(steps.scale_z_score(image, inside)[0, 0], expected, atol=1e-6)


def test_clipping_is_to_percentiles_of_the_brain():
    image = np.zeros((3, 5, 11), np.int16)
    image[1, 2] = np.arange(100, 1200, 100)  # 100, 200, ..., 1100: the 15th percentile is 250
    clipped = steps.clip_percentiles(image, 15, 80)
    assert clipped[1, 2].tolist() == [250, 250, 300, 400, 500, 600, 700, 800, 900, 900, 900]
    assert not clipped[0].any()
    with pytest.raises(InputError, match="percentiles"):
        steps.clip_percentiles(image, 99, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_counts_give_what_numpy_gives(dtype):
    rng = np.random.default_rng(1)
    image = rng.gamma(2, 20, SHAPE).clip(0, 250).astype(dtype)
    if dtype in (np.int16, np.float32):
        image -= dtype(30)
    if dtype == np.int32:
        image *= 2_000_003  # too wide to count: sorted
    for order in (image, np.asfortranarray(image)[::-1, ::-1]):
        values = order[order != 0].astype(np.float64)
        counts = steps.count_intensities(order)
        assert counts.counts.sum() == len(values)
        for q in (0, 0.5, 37, 99.5, 100):
            assert counts.percentile(q) == pytest.approx(np.percentile(values, q), rel=1e-6, abs=1e-5)
        low, high = np.percentile(values, [5, 95])
        clipped = values.clip(low, high)
        assert counts.moments(low, high) == pytest.approx((clipped.mean(), clipped.std()), rel=1e-6)


def test_resampling_keeps_the_field_of_view():
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 3, 5))
    half = steps.resample(ramp, (4, 3, 5))
    # Voxels of twice the size lie at 0.5, 2.5, 4.5, 6.5 of the old ones; edges are held, inner ones count.
    assert half.shape == (4, 3, 5) and half.dtype == np.float32
    assert np.allclose(half[1:3, 1, 1], [2.5, 4.5], atol=0.05)
    double = steps.resample(ramp, (16, 3, 5))
    assert np.allclose(double[1:15, 1, 1], np.arange(0.25, 7, 0.5), atol=1e-5)
    assert np.allclose(steps.resample(ramp, (8, 6, 5))[:, 2, 2], np.arange(8), atol=1e-5)


def test_resampling_labels_makes_no_new_ones():
    labels = np.zeros((4, 3, 5), np.uint8)
    labels[2:] = 4
    double = steps.resample(labels, (8, 3, 5), labels=True)
    assert double.dtype == np.uint8 and double[:, 0, 0].tolist() == [0, 0, 0, 0, 4, 4, 4, 4]
    back = steps.resample(double, (4, 3, 5), labels=True)
    assert np.array_equal(back, labels)


def test_a_spacing_asks_for_a_shape():
    assert steps.compute_resampled_shape((240, 240, 155), (1, 1, 1), (2, 2, 2)) == (120, 120, 78)
    assert steps.compute_resampled_shape((256, 256, 20), (0.9375, 0.9375, 6), (1, 1, 1)) == (240, 240, 120)
    assert steps.compute_resampled_shape((4, 4, 4), (1, 1, 1), (9, 9, 9)) == (1, 1, 1)


def test_modalities_are_stacked_in_the_order_asked_for():
    images = {name: np.full((1, 2, 3), i) for i, name in enumerate(("t1", "t1ce", "t2", "flair"))}
    assert steps.stack_modalities(images, ("t1ce", "t2", "flair"))[0, 0, 0].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="no pd"):
        steps.stack_modalities(images, ("t1", "pd"))
    with pytest.raises(InputError, match="one shape"):
        steps.stack_modalities(images | {"t2": np.zeros((1, 2, 4))}, ("t1", "t2"))


def test_almost_empty_masks_are_told_by_their_share():
    mask = np.zeros((10, 10, 2), np.uint8)
    mask[0, 0] = 4, 1  # 2 of 200
    assert steps.compute_labelled(mask) == 0.01
    assert steps.has_labels(mask) and not steps.has_labels(mask, 0.011)
    assert steps.has_labels(np.zeros((1, 2, 3), np.uint8), 0)


@pytest.mark.parametrize("step", [steps.scale_min_max, steps.scale_z_score, steps.clip_percentiles])
def test_bad_volumes_are_one_clear_line(step):
    hole = brain(np.float32)
    hole[3, 3, 4] = np.nan
    with pytest.raises(InputError, match="expected finite intensities, found NaN or infinity"):
        step(hole)
    if step is not steps.clip_percentiles:
        with pytest.raises(InputError, match="found 7 throughout"):
            step(np.full(SHAPE, 7, np.int16))
    if step is not steps.scale_min_max:
        with pytest.raises(InputError, match="no voxel other than 0"):
            step(np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match=r"\(X, Y, Z\)"):
        step(np.ones((3, 4)))
