"""Slices and patches: how they lie, what is scaled, that they go back to the case, and that they repeat."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedutils.data.augment import Augmentation
from fedutils.data.boxes import Box
from fedutils.data.brats import list_brats
from fedutils.data.lgg import list_lgg
from fedutils.data.segmentation import compute_regions, describe, load_slices, load_truth
from fedutils.data.segmentation_batches import augment_slices, make_patches, make_slice_batches
from fedutils.data.slice_steps import find_head, from_pictures, restore_slices, to_pictures
from fedutils.data.volume_recipes import Prepared
from fedutils.errors import InputError

NAME, OTHER = "TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405"
ROWS, COLUMNS = 20, 16


def make_pixels(number):
    """Return a slice: air of 0 to 3, and a head of 60 to 200 but in slices 1 and 6, which lie above it."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 4, (ROWS, COLUMNS, 3), np.uint8)
    if number not in (1, 6):
        pixels[3:17, 2:13] = rng.integers(60, 201, (14, 11, 3), np.uint8)
    return pixels


def make_mask(number):
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    if number in (2, 3):
        mask[4 : 6 + number, 3:8] = 255
    return mask


def write_case(root, name=NAME, *, change=None, masks=True):
    folder = root / name
    folder.mkdir(parents=True)
    for number in range(1, 7):
        pixels = make_pixels(number)
        if change:
            change(pixels)
        Image.fromarray(pixels).save(folder / f"{name}_{number}.tif")
        if masks:
            Image.fromarray(make_mask(number)).save(folder / f"{name}_{number}_mask.tif")
    return folder


def load(root, size=ROWS, **options):
    return load_slices(list_lgg(root), size=size, progress=False, **options)


def write_brats(root, name="BraTS20_Training_001", shape=(9, 8, 7)):
    rng = np.random.default_rng(5)
    folder = root / name
    folder.mkdir(parents=True)
    for kind in ("t1", "t1ce", "t2", "flair"):
        image = np.zeros(shape, np.int16)
        image[1:8, 1:7, 1:6] = rng.integers(100, 300, (7, 6, 5))
        nib.save(nib.Nifti1Image(image, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"{name}_{kind}.nii.gz")
    labels = np.zeros(shape, np.uint8)
    labels[2:6, 2:5, 2:4] = rng.choice(np.array([1, 2, 4], np.uint8), (4, 3, 2))
    nib.save(nib.Nifti1Image(labels, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"{name}_seg.nii.gz")
    return labels


def test_a_slice_lies_as_the_file_and_shows_the_head_alone(tmp_path):
    write_case(tmp_path)
    slices = load(tmp_path)
    assert slices.x.shape == (4, ROWS, ROWS, 3) and slices.x.dtype == np.float32
    assert slices.y.shape == (4, ROWS, ROWS, 1) and slices.y.dtype == np.uint8
    assert slices.positions.tolist() == [1, 2, 3, 4] and slices.cases.tolist() == [0] * 4
    assert slices.names == (NAME,) and slices.patients == ("TCGA_CS_4941",) and slices.institutions == ("CS",)
    assert slices.regions == ("WT",) and slices.spacings == (None,) and slices.shapes == ((COLUMNS, ROWS, 6),)
    # 20 x 16 pixels are padded by two columns on both sides.
    for i, number in enumerate((2, 3, 4, 5)):
        assert np.array_equal(slices.y[i, :, 2:18, 0], make_mask(number) // 255)
        head = slices.x[i] != 0
        assert head[3:17, 4:15].all() and head.sum() == 14 * 11 * 3
        order = np.argsort(make_pixels(number)[3:17, 2:13, 1].ravel())
        assert (np.diff(slices.x[i, 3:17, 4:15, 1].ravel()[order]) >= 0).all()
    inside = slices.x[:, 3:17, 4:15].reshape(-1, 3)
    assert np.allclose(inside.mean(axis=0), 0, atol=1e-4) and np.allclose(inside.std(axis=0), 1, atol=1e-4)


def test_a_sequence_that_is_a_copy_of_flair_is_fed_as_zeros(tmp_path):
    def change(pixels):
        pixels[..., 2] = pixels[..., 1]

    write_case(tmp_path, change=change)
    write_case(tmp_path, OTHER)
    slices = load(tmp_path)
    assert slices.missing == (("post",), ())
    assert not slices.x[slices.find(0)][..., 2].any() and slices.x[slices.find(1)][..., 2].any()
    assert slices.x[slices.find(0)][..., 1].any() and slices.find([0, 1]).tolist() == list(range(8))
    assert load(tmp_path, modalities=("flair", "pre")).missing == ((), ())
    record = describe(slices, "made")
    assert record["num_slices"] == 8 and record["cases_with_missing"] == {NAME: ["post"]}
    assert describe(load(tmp_path, masks=False), "made")["fingerprint"] != record["fingerprint"]


def test_a_case_is_put_together_again(tmp_path):
    write_case(tmp_path)
    (case,) = list_lgg(tmp_path)
    slices = load(tmp_path)
    truth = load_truth(case, ("WT",))
    assert truth.shape == (COLUMNS, ROWS, 6, 1) and truth.dtype == bool
    back = slices.restore(0, slices.y.astype(bool))
    assert back.dtype == bool and np.array_equal(back, truth)
    assert slices.stack(0).shape == (ROWS, ROWS, 6, 3) and not slices.stack(0)[:, :, [0, 5]].any()
    assert slices.stack(0, slices.y[..., 0]).shape == (ROWS, ROWS, 6)
    half = load(tmp_path, size=10)
    assert half.x.shape == (4, 10, 10, 3)
    # The mask's edges lie on even pixels but one row of slice 3: nearest is exact elsewhere.
    back = half.restore(0, half.y)
    assert back.shape == truth.shape and (back != truth).mean() < 0.02 and back.sum() > 0.7 * truth.sum()
    with pytest.raises(InputError, match=f"{NAME}: expected 4 slices of 20x20, found shape"):
        slices.stack(0, slices.y[1:])


def test_probabilities_go_back_linearly():
    ramp = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None, None], (4, 4, 3, 2))
    back = restore_slices(ramp, (8, 6, 3))
    assert back.shape == (8, 6, 3, 2) and back.dtype == np.float32
    # New pixels' centres lie a quarter of an old pixel beside the old ones'.
    assert np.allclose(back[:, 0, 0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


def test_pictures_and_volumes_are_inverse():
    volume = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    pictures = to_pictures(volume)
    assert pictures.shape == (5, 4, 3) and np.array_equal(from_pictures(pictures), volume)
    assert pictures[2, 0, 0] == volume[2, 3, 2]  # front and right, at the upper left


def test_the_head_has_no_holes_and_no_specks():
    air = np.random.default_rng(1).integers(0, 5, (256, 200, 2, 1)).astype(np.uint8)
    images = air.copy()
    images[60:180, 40:160, 0] = 90
    images[100:120, 80:110, 0] = 0  # a ventricle
    images[10:12, 10:12, 0] = 90  # a speck, smaller than two pixels of erosion
    head = find_head(images, stripped=False)
    assert head[100:120, 80:110, 0].all() and not head[10:12, 10:12].any() and not head[..., 1].any()
    assert 0.98 < head.sum() / 120**2 <= 1
    assert np.array_equal(find_head(images, stripped=True), images[..., 0] != 0)


def test_brats_has_three_regions(tmp_path):
    labels = write_brats(tmp_path)
    (case,) = cases = list_brats(tmp_path)
    slices = load_slices(cases, size=9, modalities=("flair", "t1"), progress=False)
    assert slices.regions == ("WT", "TC", "ET") and slices.y.shape == (5, 9, 9, 3)
    assert slices.spacings == ((1, 1, 2),)
    restored = slices.restore(0, slices.y.astype(bool))
    assert np.array_equal(restored, load_truth(case, slices.regions))
    assert np.array_equal(restored[..., 1], (labels == 1) | (labels == 4))
    assert np.array_equal(load_truth(case, ("WT",))[..., 0], labels > 0)
    inside = slices.x[slices.x[..., 0] != 0]
    assert np.allclose(inside.mean(axis=0), 0, atol=1e-4)


def test_errors_of_slices(tmp_path):
    write_case(tmp_path / "kaggle_3m")
    write_brats(tmp_path / "brats")
    lgg, brats = list_lgg(tmp_path / "kaggle_3m"), list_brats(tmp_path / "brats")
    with pytest.raises(InputError, match="cases of one layout, found size 8 and 2 cases of 2 layouts"):
        load_slices(lgg + brats, size=8)
    with pytest.raises(InputError, match="expected a mask of WT, TC, ET, found one without TC, ET"):
        load_truth(lgg[0], ("WT", "TC", "ET"))
    with pytest.raises(InputError, match="expected some of WT, TC, ET, found XX"):
        compute_regions(np.zeros((2, 2), np.uint8), ("XX",))
    write_case(tmp_path / "bare", masks=False)
    bare = list_lgg(tmp_path / "bare")
    with pytest.raises(InputError, match=f"{NAME}: expected a mask, found none; leave"):
        load_slices(bare, size=8, progress=False)
    with pytest.raises(
        InputError, match="expected a case that can be read, found none of 1, the first: TCGA"
    ):
        load_slices(bare, size=8, skip_bad=True, progress=False)
    with pytest.raises(InputError, match="expected a mask to compare with, found none; use fedutils predict"):
        load_truth(bare[0], ("WT",))
    assert load_slices(bare, size=8, masks=False, progress=False).y is None


def test_bad_cases_are_skipped_and_named(tmp_path):
    def flatten(pixels):
        pixels[3:17, 2:13, 0] = 100
        pixels[0, 0, 0] += 1

    write_case(tmp_path)
    write_case(tmp_path, OTHER, change=flatten)
    with pytest.raises(InputError, match=f"{OTHER}, pre: expected intensities that differ"):
        load(tmp_path)
    slices = load(tmp_path, skip_bad=True)
    assert slices.names == (NAME,) and slices.skipped[0][0] == OTHER and len(slices) == 4


def make_arrays(count=11):
    rng = np.random.default_rng(2)
    y = np.zeros((count, 24, 20, 2), np.uint8)
    for i in range(count):
        row, column = rng.integers(5, 12, 2)
        y[i, row : row + 6, column : column + 5, 0] = 1
        y[i, row + 1 : row + 3, column + 1 : column + 3, 1] = 1
    x = np.concatenate(
        [y.astype(np.float32) * 2, np.arange(count)[:, None, None, None] + np.ones_like(y[..., :1])], -1
    )
    return x.astype(np.float32), y


def read(dataset):
    parts = [(a.numpy(), b.numpy()) for a, b in dataset]
    return [np.concatenate([part[i] for part in parts]) for i in (0, 1)], [len(a) for a, _ in parts]


def test_an_epoch_has_every_slice_once_in_an_order_of_its_own():
    x, y = make_arrays()
    batches = make_slice_batches(x, y, [1, 2, 3, 5, 7, 9, 10], batch_size=3, seed=4)
    orders = []
    for epoch in (0, 1, 0):
        (images, masks), sizes = read(batches(epoch))
        assert sizes == [3, 3, 1] and len(batches(epoch)) == 3
        numbers = np.round(images[:, 0, 0, 2]).astype(int) - 1
        assert sorted(numbers) == [1, 2, 3, 5, 7, 9, 10]
        assert np.array_equal(images, x[numbers]) and np.array_equal(masks, y[numbers])
        orders.append(numbers.tolist())
    assert orders[0] == orders[2] != orders[1]


def test_augmented_epochs_repeat_and_masks_move_with_images():
    x, y = make_arrays()
    batches = make_slice_batches(x, y, batch_size=4, seed=4, augment=True)
    first, _ = read(batches(3))
    again, _ = read(make_slice_batches(x, y, batch_size=4, seed=4, augment=True)(3))
    other, _ = read(batches(4))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(np.sort(first[0].ravel()), np.sort(other[0].ravel()))
    images, masks = augment_slices(x[..., :2], y, [1, 2], gain=0, offset=0)
    # Half the brightness lies at the edge of the mask, to within the pixel that nearest rounds to.
    agree = (images.numpy() > 1) == (masks.numpy() > 0)
    assert masks.numpy().any(axis=(1, 2)).all() and agree.mean() > 0.985
    assert not np.array_equal(masks, y)


def test_without_strengths_a_slice_is_itself_or_its_mirror_image():
    x, y = make_arrays()
    images, masks = augment_slices(x, y, [3, 3], rotation=0, scale=0, shift=0, gain=0, offset=0)
    kinds = set()
    for before, after, mask, moved in zip(x, images.numpy(), y, masks.numpy(), strict=True):
        mirrored = np.array_equal(after, before[:, ::-1])
        assert mirrored or np.array_equal(after, before)
        assert np.array_equal(moved, mask[:, ::-1] if mirrored else mask)
        kinds.add(mirrored)
    assert kinds == {True, False}


def test_intensities_change_by_a_gain_and_an_offset_and_background_stays():
    x = np.zeros((5, 8, 6, 2), np.float32)
    x[:, 2:5, 2:5] = np.random.default_rng(1).normal(size=(5, 3, 3, 2))
    y = np.zeros((5, 8, 6, 1), np.uint8)
    images, _ = augment_slices(x, y, [8, 1], rotation=0, scale=0, shift=0, gain=0.3, offset=0.4)
    images = images.numpy()
    assert not images[:, :2].any()
    gains = set()
    for before, after in zip(x, images, strict=True):
        for c in range(2):
            inside = np.flatnonzero(before[..., c])
            source = before[..., c].ravel()[inside]
            for candidate in (after[..., c], after[:, ::-1, c]):
                slope, offset = np.polyfit(source, candidate.ravel()[inside], 1)
                if np.allclose(slope * source + offset, candidate.ravel()[inside], atol=1e-5):
                    gains.add(round(float(slope), 4))
                    assert abs(slope - 1) <= 0.3 and abs(offset) <= 0.4
    assert len(gains) == 10  # each slice and channel has its own


def test_errors_of_batches():
    x, y = make_arrays()
    with pytest.raises(
        InputError, match=r"of equal N, H and W, found \(11, 24, 20, 3\) and \(10, 24, 20, 2\)"
    ):
        make_slice_batches(x, y[1:], batch_size=2, seed=0)
    with pytest.raises(InputError, match="at least 1 slice and 1 a batch, found 0 and 2"):
        make_slice_batches(x, y, [], batch_size=2, seed=0)


def make_volume(number=0, shape=(9, 12, 14), *, tumour=True):
    images = np.random.default_rng(number).normal(size=(*shape, 2)).astype(np.float32)
    mask = np.zeros(shape, np.uint8)
    if tumour:
        mask[1, 10, 2] = 2  # one voxel of oedema; the core is larger
        mask[6:8, 2:4, 9:11] = 1
        mask[6, 2, 9] = 4
    return Prepared(f"case {number}", images, mask, None, Box((0, 0, 0), shape), shape)


REGIONS = ("WT", "TC", "ET")


def find_patch(volume, patch):
    """Return where a patch was cut."""
    spots = np.argwhere(volume.images[..., 0] == patch[0, 0, 0, 0])
    return None if not len(spots) else tuple(spots[0].tolist())


def test_a_third_of_the_patches_lies_on_the_tumour_and_all_are_cut_from_the_volume():
    volumes = (make_volume(0), make_volume(1))
    size = (3, 4, 5)
    batches = make_patches(
        volumes, size=size, regions=REGIONS, batch_size=4, num_patches=30, seed=1, foreground=1 / 3
    )
    (images, targets), sizes = read(batches(2))
    assert sizes == [4] * 7 + [2] and len(batches(0)) == 8
    assert images.shape == (30, *size, 2) and targets.shape == (30, *size, 3) and targets.dtype == np.uint8
    hits = 0
    for number, (patch, target) in enumerate(zip(images, targets, strict=True)):
        owners = [(v, find_patch(v, patch)) for v in volumes if find_patch(v, patch)]
        ((volume, (a, b, c)),) = owners
        place = np.s_[a : a + 3, b : b + 4, c : c + 5]
        assert np.array_equal(patch, volume.images[place])
        assert np.array_equal(target.astype(bool), compute_regions(volume.mask[place], REGIONS))
        if number % 3 == 2:
            hits += 1
            assert target.any()
    assert hits == 10
    assert np.array_equal(read(batches(2))[0][0], images)
    assert not np.array_equal(read(batches(3))[0][0], images)


def test_all_or_none_of_the_patches_on_the_tumour():
    def share(foreground, tumour=True):
        options = {"size": (1, 1, 1), "regions": REGIONS, "batch_size": 8, "num_patches": 60, "seed": 3}
        made = make_patches([make_volume(tumour=tumour)], foreground=foreground, **options)
        return read(made(0))[0][1].reshape(60, 3).mean(axis=0)

    on = share(1.0)
    # A patch of one voxel shows the region that was drawn: WT always, ET (one voxel) at least a third.
    assert on[0] == 1 and on[2] > 0.2
    assert share(0.0)[0] < 0.1 and not share(1.0, tumour=False).any()


def test_a_small_volume_is_padded_and_augmentation_repeats():
    volume = make_volume(shape=(9, 12, 14))
    options = {"size": (11, 6, 15), "regions": ("WT",), "batch_size": 1, "num_patches": 2, "seed": 0}
    (images, targets), _ = read(make_patches([volume], **options)(0))
    assert images.shape == (2, 11, 6, 15, 2) and targets.shape[-1] == 1
    assert not images[:, 0].any() and not images[:, 10].any() and images[:, 1:10, :, :14].all()
    flip = Augmentation(flip=(1.0,))
    (flipped, _), _ = read(make_patches([volume], augmentation=flip, **options)(0))
    assert np.array_equal(flipped, images[:, ::-1])


def test_errors_of_patches():
    options = {"size": (2, 2, 2), "regions": REGIONS, "batch_size": 1, "num_patches": 1, "seed": 0}
    bare = make_volume()
    bare = Prepared(bare.name, bare.images, None, None, bare.box, bare.full_shape)
    with pytest.raises(InputError, match="patches: expected masks, found none of case 0; leave it out"):
        make_patches([bare], **options)
    with pytest.raises(InputError, match="found 0 volumes"):
        make_patches([], **options)
    with pytest.raises(InputError, match=r"a share from 0 to 1, found 1 volumes.* and 1\.5"):
        make_patches([make_volume()], foreground=1.5, **options)


def test_a_real_patient(real_data):
    (case,) = list_lgg(real_data / "kaggle_3m" / "TCGA_CS_4942_19970222")
    slices = load_slices([case], size=128, progress=False)
    truth = load_truth(case, slices.regions)
    back = slices.restore(0, slices.y.astype(bool))
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95
    head = slices.x[..., 1] != 0
    assert 0.2 < head.mean() < 0.7 and not slices.x[:, :8, :8].any()  # a head in air that is 0 now
    assert slices.x[slices.y[..., 0] > 0][:, 1].mean() > 0.5  # brighter than the rest of the head in FLAIR
