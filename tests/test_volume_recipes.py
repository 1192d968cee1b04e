"""Recipes: the fast way equals the steps one by one, and predictions go back to the voxels of the case."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fedutils.data import boxes
from fedutils.data import volume_steps as steps
from fedutils.data.boxes import Box
from fedutils.data.case import Case, Volume
from fedutils.data.volume_prepare import prepare_case, prepare_volume
from fedutils.data.volume_recipes import FIELD, SEED, Recipe
from fedutils.errors import InputError

SHAPE = (17, 18, 19)
MODALITIES = ("t1", "t1ce", "t2", "flair")
AFFINE = np.array([[1, 0, 0, -90], [0, 1, 0, 20], [0, 0, 1, 7], [0, 0, 0, 1]], np.float64)


def make_volume(dtype=np.int16, **options):
    """Return a volume as it is read: Fortran order, axes turned round; modalities differ in foreground."""
    rng = np.random.default_rng(3)
    images = {}
    for i, name in enumerate(MODALITIES):
        image = np.zeros(SHAPE, dtype, order="F")
        image[3:14, 2 + (i == 2) : 15, 4:18] = rng.gamma(3, 40, (11, 13 - (i == 2), 14)) + 1
        image[3:6, 2:6, 4:8] = 0  # a corner of the foreground's box that is background
        images[name] = image[::-1, ::-1]
    mask = np.zeros(SHAPE, np.uint8, order="F")
    mask[5:9, 6:10, 8:12] = rng.choice([1, 2, 4], (4, 4, 4))
    return Volume(images, mask[::-1, ::-1], options.pop("affine", AFFINE), **options)


def prepare_slowly(volume, recipe):
    """Prepare by the steps, one after another."""
    stack = steps.stack_modalities(volume.images, recipe.modalities).astype(np.float64)
    inside = (stack != 0).any(axis=-1) if recipe.uses_foreground else None
    box = boxes.find_foreground(stack) if recipe.foreground else Box((0, 0, 0), SHAPE)
    if recipe.clip:
        stack = steps.clip_percentiles(stack, *recipe.clip, foreground=inside)
    scale = steps.scale_z_score if recipe.scaling == "z_score" else steps.scale_min_max
    stack = scale(stack, inside)
    box = boxes.center_box(box, recipe.shape) if recipe.shape else box
    return boxes.crop(stack, box), boxes.crop(volume.mask, box), box


RECIPES = {
    "seed": dataclasses.replace(SEED, shape=(12, 13, 8)),
    "field": dataclasses.replace(FIELD, shape=(12, 20, 16)),
    "larger": Recipe(MODALITIES, shape=(20, 21, 24)),
    "tight": Recipe(("flair", "t1"), clip=(2, 98), scaling="min_max", foreground=True),
    "as it comes": Recipe(("t2",), scaling="min_max"),
}


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_fast_way_equals_the_steps(recipe, dtype):
    volume = make_volume(dtype)
    prepared = prepare_volume(volume, recipe)
    images, mask, box = prepare_slowly(volume, recipe)
    assert prepared.box == box and prepared.full_shape == SHAPE
    assert prepared.images.dtype == np.float32 and prepared.images.flags.c_contiguous
    assert prepared.mask.dtype == np.uint8 and np.array_equal(prepared.mask, mask)
    assert prepared.images.shape == images.shape
    assert np.allclose(prepared.images, images, atol=2e-5)
    assert prepared.labelled == steps.compute_labelled(mask)


def test_the_field_scales_over_the_brain_before_it_crops():
    prepared = prepare_volume(make_volume(), RECIPES["field"])
    assert prepared.images.shape == (12, 20, 16, 4)
    whole = prepare_volume(make_volume(), dataclasses.replace(RECIPES["field"], shape=None))
    inside = (whole.images != 0).any(axis=-1)
    assert np.allclose(whole.images[inside].mean(axis=0), 0, atol=1e-4)
    assert np.allclose(whole.images[inside].std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_prediction_goes_back_to_the_case(recipe):
    volume = make_volume()
    prepared = prepare_volume(volume, recipe)
    back = prepared.restore(prepared.mask)
    assert back.shape == SHAPE and back.dtype == np.uint8
    kept = boxes.restore(np.ones(prepared.box.shape, bool), prepared.box, SHAPE)
    assert np.array_equal(back, np.where(kept, volume.mask, 0))
    with pytest.raises(InputError, match="expected labels of shape"):
        prepared.restore(prepared.mask[1:])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_affine_follows_the_crop(recipe):
    prepared = prepare_volume(make_volume(), recipe)
    voxel = np.array([5, 4, 3, 1])
    source = voxel + np.array([*prepared.box.start, 0])
    assert np.allclose(prepared.affine @ voxel, AFFINE @ source)
    assert prepared.spacing == (1, 1, 1)


def test_resampling_is_to_the_spacing_asked_for():
    recipe = Recipe(("t2", "flair"), shape=(8, 9, 10), spacing=(2, 2, 1))
    volume = make_volume()
    prepared = prepare_volume(volume, recipe)
    assert prepared.images.shape == (8, 9, 10, 2) and prepared.mask.shape == (8, 9, 10)
    assert prepared.box == Box((0, 0, 4), (16, 18, 14)) and prepared.spacing == (2, 2, 1)
    # The middle of the first new voxel is where old voxels 0 and 1 meet.
    assert np.allclose(prepared.affine @ [0, 0, 0, 1], AFFINE @ [0.5, 0.5, 4, 1])
    back = prepared.restore(prepared.mask)
    both, either = (back > 0) & (volume.mask > 0), (back > 0) | (volume.mask > 0)
    assert both.sum() / either.sum() > 0.5 and set(np.unique(back)) <= {0, 1, 2, 4}
    free = prepare_volume(volume, Recipe(("t2",), spacing=(2, 2, 2)))
    assert free.images.shape[:3] == (8, 9, 10)  # 17, 18, 19 halved and rounded to even


def test_a_recipe_of_a_profile_equals_one_of_python():
    listed = Recipe(["t1"], clip=[1, 99], shape=[8, 8, 8], spacing=[1, 1, 1])
    plain = Recipe(("t1",), clip=(1.0, 99.0), shape=(8, 8, 8), spacing=(1.0, 1.0, 1.0))
    assert listed == plain and hash(listed) == hash(plain)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modalities": ()}, "at least one modality"),
        ({"scaling": "histogram"}, "min_max or z_score, found 'histogram'"),
        ({"clip": (99, 1)}, "percentiles"),
        ({"shape": (8, 8)}, "shape to be three numbers"),
        ({"spacing": (1, 0, 1)}, "spacing to be three numbers"),
    ],
)
def test_a_bad_recipe_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        Recipe(**{"modalities": ("t1",)} | options)


def test_bad_volumes_are_one_line_that_names_case_and_modality():
    def fails(words, recipe=RECIPES["field"], **images):
        volume = make_volume(np.float32)
        volume = dataclasses.replace(volume, images={**volume.images, **images})
        with pytest.raises(InputError, match=words) as caught:
            prepare_volume(volume, recipe, "BraTS20_Training_007")
        assert "\n" not in str(caught.value)

    image = make_volume(np.float32).images["t2"].copy()
    fails("BraTS20_Training_007, t2: .*no voxel other than 0", t2=np.zeros(SHAPE))
    fails("t2: expected intensities that differ, found 5 throughout", RECIPES["seed"], t2=np.full(SHAPE, 5))
    image[8, 8, 8] = np.nan
    fails("BraTS20_Training_007, t2: expected finite", t2=image)
    fails("BraTS20_Training_007, t2: expected finite", RECIPES["seed"], t2=image)
    empty = dict.fromkeys(MODALITIES, np.zeros(SHAPE, np.int16))
    fails("BraTS20_Training_007, t1: expected an image of a brain", **empty)


def as_case(volume, mask_affine=AFFINE, **images):
    """Return a case whose modalities are files of their own."""
    images = {**volume.images, **images}

    def read(case, modalities, mask):
        affine = mask_affine if mask else volume.affine
        return Volume({m: images[m] for m in modalities}, volume.mask if mask else None, affine)

    files = {kind: (Path(kind),) for kind in (*MODALITIES, "mask")}
    return Case("BraTS20_Training_007", "a patient", MODALITIES, files, read)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_reading_file_by_file_gives_the_same(recipe):
    volume = make_volume()
    one, other = prepare_case(as_case(volume), recipe), prepare_volume(volume, recipe)
    assert np.array_equal(one.images, other.images) and np.array_equal(one.mask, other.mask)
    assert one.box == other.box and np.array_equal(one.affine, other.affine)


def test_files_on_different_grids_are_refused():
    volume = make_volume()
    with pytest.raises(InputError, match=r"007, t2: expected \(17, 18, 19\) voxels .* found \(16, 18, 19\)"):
        prepare_case(as_case(volume, t2=volume.images["t2"][1:]), RECIPES["field"])
    with pytest.raises(InputError, match="007, mask: expected the affine of the first modality"):
        prepare_case(as_case(volume, mask_affine=2 * AFFINE), RECIPES["field"])


def test_a_tumour_outside_the_crop_and_no_tumour_give_empty_masks():
    volume = make_volume()
    corner = np.zeros(SHAPE, np.uint8)
    corner[0, 0, 0] = 1
    for mask in (corner, 0 * corner):
        prepared = prepare_volume(dataclasses.replace(volume, mask=mask), RECIPES["seed"])
        assert prepared.mask.shape == (12, 13, 8) and not prepared.mask.any() and prepared.labelled == 0


def test_files_without_a_place_cannot_be_resampled():
    volume = make_volume(affine=None, missing=("t1",))
    with pytest.raises(InputError, match="how large a voxel is"):
        prepare_volume(volume, Recipe(("t1",), spacing=(1, 1, 1)))
    prepared = prepare_volume(volume, Recipe(("t1", "t2")))
    assert prepared.affine is None and prepared.spacing is None and prepared.missing == ("t1",)
    bare = dataclasses.replace(volume, mask=None)
    prepared = prepare_volume(bare, Recipe(("t1",)))
    assert prepared.mask is None and np.isnan(prepared.labelled)


def test_a_real_case_by_both_recipes(real_data):
    from fedutils.data.brats import list_brats

    if not (real_data / "brats2020").is_dir():
        pytest.skip("no BraTS case: put one into brats2020 below FEDUTILS_DATA")
    case = list_brats(real_data / "brats2020")[0]
    seed = prepare_case(case, SEED)
    assert seed.images.shape == (128, 128, 128, 3) and seed.box == Box((56, 56, 13), (184, 184, 141))
    assert seed.images.min() == 0 and 0.5 < seed.images.max() <= 1
    assert set(np.unique(seed.mask)) <= {0, 1, 2, 4} and seed.labelled > 0
    field = prepare_case(case, FIELD)
    assert field.images.shape == (160, 192, 160, 4) and field.spacing == pytest.approx((1, 1, 1))
    full = case.load((), mask=True).mask
    assert np.array_equal(field.restore(field.mask), full), "the brain fits: no tumour is cut"
    inside = (field.images != 0).any(axis=-1)
    values = field.images[inside].astype(np.float64)
    assert np.allclose(values.mean(axis=0), 0, atol=1e-4) and np.allclose(values.std(axis=0), 1, atol=1e-4)
