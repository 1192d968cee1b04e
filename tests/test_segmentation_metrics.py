"""Segmentation metrics: by hand, against brute force and SimpleITK, empty masks, intervals over patients."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score, f1_score, recall_score

from fedutils.data.regions import REGIONS, labels_to_regions
from fedutils.errors import InputError
from fedutils.segmentation_metrics import (
    compute_accuracy,
    compute_dice,
    compute_hd95,
    compute_segmentation_metrics,
    compute_sensitivity,
    compute_specificity,
    summarise_cases,
)

GRIDS = [((19, 26), (0.7, 2.5)), ((11, 13, 17), (1.0, 1.0, 1.0)), ((11, 13, 17), (3.1, 0.4, 1.7))]


def draw_blobs(shape, seed):
    """Two smooth random masks of several pieces, which reach the edge of the grid."""
    rng = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(rng.standard_normal(shape), 1.7) for _ in range(2)]
    first, second = noise[0], noise[0] + noise[1]  # related, as a prediction is to its truth
    return first > 0.8 * first.std(), second > 0.9 * second.std()


def find_surface_by_hand(mask):
    """Coordinates of the mask's voxels with a neighbour across a face that is not of the mask."""
    inside = {tuple(i) for i in np.argwhere(mask)}
    steps = [s * e for e in np.eye(mask.ndim, dtype=int) for s in (1, -1)]
    return np.array([i for i in sorted(inside) if any(tuple(np.add(i, s)) not in inside for s in steps)])


def box(shape, *slices):
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


def test_counts_by_hand():
    # Of 4 x 5 pixels: truth 6, prediction 4, both 3; so TN = 20 - 6 - 4 + 3 = 13.
    truth, predicted = box((4, 5), slice(0, 2), slice(0, 3)), box((4, 5), slice(1, 2), slice(0, 4))
    assert compute_dice(predicted, truth) == 2 * 3 / (6 + 4)
    assert compute_sensitivity(predicted, truth) == 3 / 6
    assert compute_specificity(predicted, truth) == 13 / 14
    assert compute_accuracy(predicted, truth) == 16 / 20


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_counts_agree_with_scikit_learn_and_simpleitk(shape, spacing):
    predicted, truth = draw_blobs(shape, seed=1)
    flat = truth.ravel(), predicted.ravel()
    assert compute_dice(predicted, truth) == pytest.approx(f1_score(*flat), rel=1e-12)
    assert compute_sensitivity(predicted, truth) == pytest.approx(recall_score(*flat), rel=1e-12)
    assert compute_specificity(predicted, truth) == pytest.approx(recall_score(*flat, pos_label=0), rel=1e-12)
    assert compute_accuracy(predicted, truth) == pytest.approx(accuracy_score(*flat), rel=1e-12)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (predicted, truth)))
    assert compute_dice(predicted, truth) == pytest.approx(overlap.GetDiceCoefficient(), rel=1e-12)


def test_accuracy_says_nothing():
    """4 % tumour, none of it found."""
    truth = box((10, 20), slice(3, 5), slice(7, 11))
    nothing = np.zeros_like(truth)
    assert compute_accuracy(nothing, truth) == 0.96
    assert compute_dice(nothing, truth) == 0


def test_hd95_by_hand():
    # Two single voxels 3 and 4 steps apart; the spacing is that of each axis.
    one, other = box((9, 8), 1, 2), box((9, 8), 4, 6)
    assert compute_hd95(one, other) == 5
    assert compute_hd95(one, other, (2.0, 0.5)) == math.hypot(6, 2)
    assert compute_hd95(one, other, (0.5, 2.0)) == math.hypot(1.5, 8)
    # A line of 21 pixels and its first one: to the line 0; from it 0, 1, ..., 20, of which rank 19 is 19.
    line, start = box((3, 25), 1, slice(2, 23)), box((3, 25), 1, 2)
    assert compute_hd95(start, line) == compute_hd95(line, start) == 19
    assert compute_hd95(start, line, percentile=100) == 20
    # One percentile of both directions together, as medpy's, would be lower: rank 19.95 of 20 is 19.95 - 1.
    assert np.percentile([0, *range(21)], 95) == pytest.approx(18.95)


def test_hd95_is_of_surfaces():
    # A 7 x 7 square and its frame around 3 x 3 have the same outer surface, of 24 pixels. The frame has an
    # inner one too, at 1 from it: the 12 that share a face with the hole, not the 4 that share a corner.
    square = box((9, 10), slice(1, 8), slice(1, 8))
    frame = square & ~box((9, 10), slice(3, 6), slice(3, 6))
    assert compute_hd95(frame, square) == compute_hd95(frame, square, percentile=100) == 1
    assert compute_hd95(frame, square, percentile=65) == 0  # rank 22.75 of 0 to 35; with the corners it is 1
    # The edge of the grid is surface: a full grid has a surface, at distance 2 from the middle of 5 rows.
    full, middle = np.ones((5, 3), bool), box((5, 3), 2)
    assert compute_hd95(full, middle) == 2


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("seed", range(4))
def test_hd95_agrees_with_brute_force(shape, spacing, seed):
    predicted, truth = draw_blobs(shape, seed)
    points = [find_surface_by_hand(mask) * spacing for mask in (predicted, truth)]
    distances = cdist(*points)
    for percentile in (95, 100):
        expected = max(np.percentile(distances.min(axis), percentile) for axis in (0, 1))
        assert compute_hd95(predicted, truth, spacing, percentile=percentile) == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_hd95_agrees_with_simpleitk(shape, spacing):
    """ITK's own contour and distance map; padded, since there the edge of an image is no surface."""
    for seed in range(4, 8):
        masks = draw_blobs(shape, seed)
        images = [sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8)) for mask in masks]
        for image in images:
            image.SetSpacing(spacing[::-1])  # ITK counts axes from the other end
        contours = [sitk.LabelContour(image, fullyConnected=False) for image in images]
        distances = []
        for start, end in (contours, contours[::-1]):
            field = sitk.SignedMaurerDistanceMap(end, squaredDistance=False, useImageSpacing=True)
            distances.append(np.abs(sitk.GetArrayFromImage(field))[sitk.GetArrayFromImage(start) > 0])
        expected = max(np.percentile(d, 95) for d in distances)
        assert compute_hd95(*masks, spacing) == pytest.approx(expected, abs=1e-5)  # ITK's map is float32
        hausdorff = sitk.HausdorffDistanceImageFilter()
        hausdorff.Execute(*images)
        assert compute_hd95(*masks, spacing, percentile=100) == pytest.approx(
            hausdorff.GetHausdorffDistance(), abs=1e-9
        )


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_hd95_does_not_depend_on_the_grid_around_the_masks(shape, spacing):
    predicted, truth = draw_blobs(shape, seed=9)
    alone = compute_hd95(predicted, truth, spacing)
    assert alone > 0
    wide = [np.pad(mask, [(5, 2 * axis) for axis in range(mask.ndim)]) for mask in (predicted, truth)]
    assert compute_hd95(*wide, spacing) == alone
    assert compute_hd95(truth, predicted, spacing) == alone
    axes = range(len(shape))[::-1]
    assert compute_hd95(predicted.transpose(axes), truth.transpose(axes), spacing[::-1]) == pytest.approx(
        alone
    )


def test_empty_masks():
    shape = (240, 240, 155)
    empty, some = np.zeros(shape, bool), box(shape, slice(3, 5), 7, 8)
    assert compute_dice(empty, empty) == 1 and compute_hd95(empty, empty, (1, 1, 1)) == 0
    assert compute_sensitivity(empty, empty) is None and compute_specificity(empty, empty) == 1
    for predicted, truth in ((some, empty), (empty, some)):
        assert compute_dice(predicted, truth) == 0
        # 240^2 + 240^2 + 155^2 = 139225, whose root is BraTS's 373.128664 mm.
        assert compute_hd95(predicted, truth, (1, 1, 1)) == pytest.approx(math.sqrt(139225), abs=1e-12)
        assert round(compute_hd95(predicted, truth, (1, 1, 1)), 6) == 373.128664
        # Twice as thick slices: 57600 + 57600 + 4 * 24025
        assert compute_hd95(predicted, truth, (1, 1, 2)) == pytest.approx(math.sqrt(211300), abs=1e-12)
        assert compute_hd95(predicted, truth, penalty=50.0) == 50
        assert compute_hd95(predicted, truth, penalty=None) is None
    assert compute_sensitivity(some, empty) is None and compute_sensitivity(empty, some) == 0
    assert compute_specificity(some, empty) == 1 - 2 / math.prod(shape)
    assert compute_specificity(empty, some) == 1
    assert compute_specificity(some, ~empty) is None
    # No penalty where neither is empty, or both are.
    assert compute_hd95(some, some, penalty=50.0) == compute_hd95(empty, empty, penalty=50.0) == 0


def test_regions_of_a_case():
    labels = np.zeros((7, 8, 9), np.uint8)
    labels[1:6, 1:7, 2:6], labels[2:5, 2:5, 3:5] = 2, 1
    predicted = np.roll(labels, 1, axis=2)
    predicted[3, 3, 4] = 4  # enhancing tumour where there is none
    masks = [np.moveaxis(labels_to_regions(each), 0, -1) for each in (predicted, labels)]
    measured = compute_segmentation_metrics(*masks, REGIONS, (1.0, 1.0, 3.0))
    assert list(measured) == ["dice", "hd95_mm", "sensitivity", "specificity", "accuracy"]
    assert all(list(values) == ["WT", "TC", "ET"] for values in measured.values())
    # Moved along an axis by one of four, then one of two voxels of 3 mm
    assert measured["dice"] == {"WT": 0.75, "TC": 0.5, "ET": 0}
    diagonal = math.sqrt(7**2 + 8**2 + 27**2)
    assert measured["hd95_mm"] == pytest.approx({"WT": 3, "TC": 3, "ET": diagonal})
    assert measured["sensitivity"] == {"WT": 0.75, "TC": 0.5, "ET": None}
    # 5 * 6 and 3 * 3 voxels wrong at each end
    background = {"WT": 504 - 120, "TC": 504 - 18}
    assert measured["specificity"]["WT"] == 1 - 30 / background["WT"]
    assert measured["specificity"]["TC"] == 1 - 9 / background["TC"]
    assert measured["accuracy"]["TC"] == pytest.approx(1 - 18 / 504)
    in_voxels = compute_segmentation_metrics(*masks, REGIONS, penalty=None)
    assert in_voxels["hd95_voxels"] == {"WT": 1, "TC": 1, "ET": None} and "hd95_mm" not in in_voxels
    flat = compute_segmentation_metrics(masks[0][:, :, 4, :1], masks[1][:, :, 4, :1], ["WT"], (1.0, 1.0))
    assert flat["dice"] == {"WT": 1}


def make_cases(values, metric="dice"):
    return [{metric: {"WT": value}} for value in values]


def test_summary_by_hand():
    cases = [{"dice": {"WT": a, "ET": b}} for a, b in ((0.5, None), (0.7, 0.2), (0.9, None), (0.5, 0.6))]
    summary = summarise_cases(cases)["dice"]
    assert summary["WT"]["mean"] == pytest.approx(0.65)
    # Deviations -.15 .05 .25 -.15: squares .0225 .0025 .0625 .0225, together .11, over 3
    assert summary["WT"]["std"] == pytest.approx(math.sqrt(0.11 / 3))
    assert summary["WT"]["median"] == pytest.approx(0.6)
    assert (summary["WT"]["n"], summary["WT"]["n_defined"]) == (4, 4)
    assert summary["ET"]["mean"] == pytest.approx(0.4)
    assert (summary["ET"]["n"], summary["ET"]["n_defined"]) == (4, 2)


def test_interval_over_patients():
    values = np.random.default_rng(0).normal(10, 2, 200)
    summary = summarise_cases(make_cases(values), seed=3)["dice"]["WT"]
    # The mean's standard error is the resampled one: s / sqrt(n), with s over n, not n - 1.
    low, high = summary["interval"]
    half = 1.96 * values.std() / math.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert summarise_cases(make_cases(values), seed=3)["dice"]["WT"] == summary
    assert summarise_cases(make_cases(values), seed=4)["dice"]["WT"]["interval"] != summary["interval"]


def test_interval_draws_patients_not_cases():
    # Two patients of 50 equal cases each: half of the draws take one patient twice, so that the interval
    # reaches from one to the other; drawn by cases it would stay near the mean.
    cases, patients = make_cases([0.2] * 50 + [0.8] * 50), ["a"] * 50 + ["b"] * 50
    assert summarise_cases(cases, patients=patients)["dice"]["WT"]["interval"] == pytest.approx((0.2, 0.8))
    low, high = summarise_cases(cases)["dice"]["WT"]["interval"]
    assert 0.4 < low < high < 0.6
    # The mean is over cases, so a patient with more of them weighs more: (3 * .2 + .8) / 4.
    few = summarise_cases(make_cases([0.2, 0.2, 0.2, 0.8]), patients=list("aaab"), draws=500)["dice"]["WT"]
    assert few["mean"] == pytest.approx(0.35) and few["interval"] == pytest.approx((0.2, 0.8))


def test_summary_of_too_little():
    nothing = summarise_cases(make_cases([None, None]))["dice"]["WT"]
    assert nothing == {
        "mean": None, "std": None, "median": None, "n": 2, "n_defined": 0, "interval": None
    }  # fmt: skip
    one = summarise_cases(make_cases([None, 0.3]))["dice"]["WT"]
    assert one == {"mean": 0.3, "std": 0.0, "median": 0.3, "n": 2, "n_defined": 1, "interval": None}
    same = summarise_cases(make_cases([0.3, 0.5]), patients=["a", "a"])["dice"]["WT"]
    assert same["interval"] is None and same["mean"] == pytest.approx(0.4)


M = np.zeros((3, 4), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compute_dice(M * 0.5, M), "predicted: expected an array of dtype bool, found float64"),
        (lambda: compute_hd95(M, M.astype(np.uint8)), "truth: expected an array of dtype bool, found uint8"),
        (lambda: compute_accuracy([True], M), "found list; set a threshold"),
        (lambda: compute_dice(M[0], M[0]), r"\(\*sides\) with 2 or 3 sides, found shape \(4,\)"),
        (lambda: compute_dice(M[:0], M[:0]), r"found shape \(0, 4\); pass one case"),
        (lambda: compute_sensitivity(M, M.T), r"the truth's shape \(4, 3\), found \(3, 4\); resample it"),
        (lambda: compute_specificity(M, M[:, :3]), "expected the truth's shape"),
        (lambda: compute_hd95(M, M, (1, 1, 1)), r"expected 2 positive lengths in mm, found \(1, 1, 1\)"),
        (lambda: compute_hd95(M, M, (1, 0)), "spacing: expected .* see the image's header"),
        (lambda: compute_hd95(M, M, (1, math.nan)), "spacing: expected 2 positive"),
        (lambda: compute_hd95(M, M, penalty="worst"), 'penalty: expected "diagonal", a number or None'),
        (lambda: compute_hd95(M, M, percentile=101), "percentile: expected .* from 0 to 100, found 101"),
        (lambda: compute_segmentation_metrics(M, M, ["WT"]), r"expected \(\*sides, regions\) with 2"),
        (
            lambda: compute_segmentation_metrics(M[..., None], M[..., None], REGIONS),
            "regions: expected 1 names, one for each channel of the masks, found WT, TC, ET",
        ),
        (lambda: summarise_cases([]), "cases: expected at least one, found none; measure a case first"),
        (
            lambda: summarise_cases(make_cases([1], "hd95_mm") + make_cases([1], "hd95_voxels")),
            "expected the same metrics and regions in all, found .*hd95_voxels.* in case 1 .*all in voxels",
        ),
        (lambda: summarise_cases(make_cases([1]), patients=["a", "b"]), "patients: expected 1, one for each"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
