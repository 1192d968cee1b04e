"""Pictures of models: what is drawn, where, and with which words; unequal sides, so that none is turned."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from fedutils import plots, plots_models, plots_scores
from fedutils.errors import InputError

SIDES = (6, 9)  # height, width


def make(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def make_mask(rows=slice(1, 3), columns=slice(4, 8)):
    mask = np.zeros(SIDES, bool)
    mask[rows, columns] = True
    return mask


def find_outline(ax, colour):
    """Return the box of the outline of a colour: left, bottom, right, top."""
    (line,) = [c for c in ax.collections if np.allclose(c.get_edgecolor()[0], to_rgba(colour["color"]))]
    vertices = np.concatenate([path.vertices for path in line.get_paths()])
    return [*vertices.min(axis=0), *vertices.max(axis=0)]


def read_letters(ax):
    return {t.get_text(): t.get_position() for t in ax.texts}


# Grad-CAM and attention


def test_each_image_stands_over_its_map():
    images, maps = make(5, *SIDES, 1), make(5, *SIDES)
    fig = plots_models.plot_gradcam(images, maps, list("abcde"), columns=3, note="sides unknown")
    panels = [ax for ax in fig.axes if ax.images and ax.get_label() != "<colorbar>"]
    assert len(panels) == 10 and [ax.get_title() for ax in panels if ax.get_title()] == list("abcde")
    by_title = {ax.get_title(): ax for ax in panels}
    top = by_title["d"]
    bottom = min(
        (ax for ax in panels if len(ax.images) == 2),
        key=lambda ax: not np.array_equal(ax.images[1].get_array(), maps[3]),
    )
    assert np.array_equal(top.images[0].get_array(), images[3, ..., 0])
    assert np.array_equal(bottom.images[0].get_array(), images[3, ..., 0])
    assert np.array_equal(bottom.images[1].get_array(), maps[3])
    fig.canvas.draw()
    above, below = top.get_position(), bottom.get_position()
    assert above.x0 == pytest.approx(below.x0, abs=1e-3) and above.y0 > below.y1
    assert fig._supxlabel.get_text() == "sides unknown"
    alpha = bottom.images[1].get_alpha()
    assert alpha.shape == SIDES and alpha[maps[3].argmax() // 9, maps[3].argmax() % 9] == alpha.max()


def test_attention_has_a_panel_a_level_and_the_truth_on_each():
    maps = {"level_1": make(*SIDES, 1), "level_2": make(*SIDES)}
    fig = plots_models.plot_attention(
        make(*SIDES), maps, make_mask()[..., None], spacing=(2.0, 3.0), letters=plots_models.RADIOLOGICAL
    )
    panels = fig.axes[:3]
    assert [ax.get_title() for ax in panels] == ["image", "level 1", "level 2"]
    assert np.array_equal(panels[1].images[0].get_array(), maps["level_1"][..., 0])
    for ax in panels:
        assert ax.get_xlabel() == "mm" and list(ax.images[0].get_extent()) == [0, 27, 0, 12]
        # Columns 4 to 7 of 3 mm; rows 1 and 2 of 2 mm, counted from the top of 12.
        assert find_outline(ax, plots_models._TRUTH) == pytest.approx([12, 6, 24, 10], abs=1.6)
        assert list(read_letters(ax)) == ["R", "L", "P", "A"]
        assert read_letters(ax)["R"][0] < 0.1 and read_letters(ax)["A"][1] > 0.9
    assert fig.axes[-1].get_ylabel() == "attention"
    bare = plots_models.plot_attention(make(*SIDES), maps)
    assert bare.axes[0].get_xlabel() == "px" and not bare.axes[0].collections and not bare.legends


def test_a_slice_is_turned_as_planes_are():
    volume = make(5, 7, 4)
    picture = plots_models.turn_slice(volume[:, :, 2])
    fig = plots.plot_planes(volume, np.zeros(volume.shape, int), (1, 1, 1))
    axial = fig.axes[0].images[0]
    z = int(fig.axes[0].get_title().split(", ")[1].split()[0])
    shown = np.asarray(axial.get_array())[::-1]  # drawn from below
    assert np.array_equal(shown, plots_models.turn_slice(volume[:, :, z]))
    assert picture.shape == (7, 5) and picture[0, 0] == volume[0, 6, 2]


# Cases


def test_cases_are_chosen_by_their_scores():
    assert plots_models.choose_cases([0.5, 0.9, 0.1, 0.7, 0.6]) == {"best": 1, "median": 4, "worst": 2}
    assert plots_models.choose_cases([0.5, 0.9, 0.1, 0.7]) == {"best": 1, "median": 0, "worst": 2}
    some = plots_models.choose_cases([np.nan, 0.2, None, 0.3, 0.1])
    assert some == {"best": 3, "median": 1, "worst": 4}
    assert plots_models.choose_cases([0.4, 0.4, 0.4]) == {"best": 0, "median": 1, "worst": 0}
    assert plots_models.choose_cases([0.4]) == {"best": 0, "median": 0, "worst": 0}
    with pytest.raises(InputError, match="scores: expected at least one number, found none in 2"):
        plots_models.choose_cases([np.nan, None])


def test_cases_show_truth_and_prediction_of_each_region():
    images = [make(*SIDES), make(*SIDES)]
    truth = [np.stack([make_mask(), make_mask(slice(0, 1), slice(0, 2))], axis=-1)] * 2
    predicted = [np.stack([make_mask(slice(2, 5)), np.zeros(SIDES)], axis=-1)] * 2
    fig = plots_models.plot_cases(
        images, truth, predicted, ["best", "worst"], regions=("WT", "ET"), letters=plots.PLANE_LETTERS[2]
    )
    whole, _, inner, _ = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["best", "worst", "", ""]
    assert [ax.get_ylabel() for ax in fig.axes] == ["WT", "", "ET", ""] and inner.get_xlabel() == "px"
    assert np.array_equal(fig.axes[1].images[0].get_array(), images[1])
    assert find_outline(whole, plots_models._TRUTH) == pytest.approx([4, 3, 8, 5], abs=0.55)
    assert find_outline(whole, plots_models._PREDICTED) == pytest.approx([4, 1, 8, 4], abs=0.55)
    assert len(inner.collections) == 1, "an empty prediction has no outline"
    corner = find_outline(inner, plots_models._TRUTH)
    assert corner == pytest.approx([0, 5, 2, 6], abs=0.55), "at the border it closes too"
    assert inner.get_xlim() == (0, 9) and inner.get_ylim() == (0, 6)
    assert list(read_letters(whole)) == ["L", "R", "P", "A"]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["truth", "prediction"]


def test_a_margin_shows_the_surroundings_of_both():
    empty = np.zeros(SIDES, bool)
    fig = plots_models.plot_cases(
        [make(*SIDES)] * 2, [make_mask(), empty], [empty, empty], ["a", "b"], spacing=(2.0, 3.0), margin=5
    )
    first, second = fig.axes
    # 12 to 24 mm across, 6 to 10 mm up: a square of half 6 + 5 mm about (18, 8).
    assert first.get_xlim() == (7, 29) and first.get_ylim() == (-3, 19)
    assert second.get_xlim() == (0, 27) and second.get_ylim() == (0, 12)
    assert first.get_xlabel() == "mm" and first.get_ylabel() == "", "one region needs no name"


def test_pictures_that_do_not_fit_are_refused():
    image, mask = make(*SIDES), make_mask()
    with pytest.raises(InputError, match=r"cases: expected as many .* found 1, 1, 2 and 1"):
        plots_models.plot_cases([image], [mask], [mask, mask], ["a"])
    with pytest.raises(InputError, match=r"masks of shape \(6, 9, 2\), found \(6, 9, 1\) and \(6, 9, 1\)"):
        plots_models.plot_cases([image], [mask], [mask], ["a"], regions=("WT", "TC"))
    with pytest.raises(InputError, match=r"masks of shape \(6, 9, 1\), found \(9, 6, 1\)"):
        plots_models.plot_cases([image], [mask.T], [mask], ["a"])
    with pytest.raises(InputError, match=r"N titles, found \(1, 6, 9\), \(1, 9, 6\) and 1"):
        plots_models.plot_gradcam(image[None], image.T[None], ["a"])
    with pytest.raises(InputError, match="and 2"):
        plots_models.plot_gradcam(image[None], image[None], ["a", "b"])


# Scores


def test_a_score_over_the_size_of_the_tumour():
    sizes = np.array([0.0, 1, 10, 100, 1000, 5, 0])
    scores = np.array([1.0, 0.1, 0.3, 0.9, 0.6, np.nan, 0.0])
    ax = plots_scores.plot_error_by_size(sizes, scores)
    (dots,) = ax.lines
    assert dots.get_xdata().tolist() == [1, 10, 100, 1000] and ax.get_xscale() == "log"
    # Ranks 1, 2, 4, 3 against 1, 2, 3, 4: rho = 1 - 6 * 2 / (4 * 15) = 0.8, t = 0.8 * sqrt(2 / 0.36) = 1.886;
    # with 2 degrees of freedom p = 1 - t / sqrt(t² + 2) = 1 - 0.8.
    assert ax.get_title() == "n = 4; Spearman's ρ = 0.80, p = 0.200; without tumour, not drawn: 2"
    assert ax.get_xlabel() == "size of the tumour, ml" and ax.get_ylabel() == "Dice"
    voxels = plots_scores.plot_error_by_size(sizes, 9 * scores, unit="voxels", quantity="HD95, mm")
    assert voxels.get_xlabel() == "size of the tumour, voxels" and voxels.get_ylim()[1] > 8


def test_the_running_median_is_of_a_fifth_of_the_cases():
    order = np.random.default_rng(0).permutation(30)
    ax = plots_scores.plot_error_by_size((2.0 ** np.arange(30))[order], (np.arange(30) / 30)[order])
    median = ax.lines[1]
    # Windows of 6 of the doubling sizes 2^0 to 2^29: middle 2^2.5 on, median (2 + 3) / 2 / 30 on.
    assert len(median.get_xdata()) == 25
    assert median.get_xdata()[[0, -1]] == pytest.approx([2**2.5, 2**26.5])
    assert median.get_ydata()[[0, -1]] == pytest.approx([2.5 / 30, 26.5 / 30])
    assert median.get_label() == "running median of 6" and "ρ = 1.00, p < 0.001" in ax.get_title()


def test_constant_scores_have_no_correlation():
    ax = plots_scores.plot_error_by_size([1, 2, 3], [0.5, 0.5, 0.5])
    assert ax.get_title() == "n = 3"
    for sizes, scores, words in (
        ([1, 2], [1], "expected as many as scores, found 2 and 1"),
        ([0, 1], [1, np.nan], "a case with a tumour and a score, found none of 2"),
    ):
        with pytest.raises(InputError, match=words):
            plots_scores.plot_error_by_size(sizes, scores)


def test_reliability_shows_the_bins_that_hold_images():
    bins = [
        {"n": 0, "confidence": None, "accuracy": None},
        {"n": 30, "confidence": 0.6, "accuracy": 0.4},
        {"n": 10, "confidence": 0.9, "accuracy": 1.0},
    ]
    ax = plots_scores.plot_reliability(bins)
    _, line = ax.lines
    assert line.get_xdata().tolist() == [0.6, 0.9] and line.get_ydata().tolist() == [0.4, 1.0]
    # (30 * 0.2 + 10 * 0.1) / 40
    assert ax.get_title() == "40 images, expected calibration error 0.175"
    small, large = sorted(ax.collections[1].get_sizes())
    assert large > 2 * small
    assert plots_scores.plot_reliability(bins, ax, label="slices") is ax and ax.get_title().startswith(
        "40 sl"
    )
    with pytest.raises(InputError, match="expected a bin that is not empty, found 1 empty ones"):
        plots_scores.plot_reliability(bins[:1])


def test_changes_show_mean_interval_and_each_seed():
    changes = {
        "wider": {"difference": 0.02, "interval": [-0.01, 0.05], "by_seed": [0.01, 0.03]},
        "longer": {"difference": -0.1, "interval": [-0.2, -0.05], "by_seed": [-0.1, -0.1]},
    }
    ax = plots_scores.plot_changes(changes, reference="the yardstick")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(changes)
    zero, bar, dot, ticks, *_ = ax.lines
    assert zero.get_xdata() == [0, 0] and bar.get_xdata() == pytest.approx([-1, 5])
    assert dot.get_xdata() == pytest.approx([2]) and ticks.get_xdata() == pytest.approx([1, 3])
    assert ax.get_xlabel() == "change of accuracy, percentage points\nagainst the yardstick"
    assert ax.get_ylim() == (1.5, -0.5)  # the first on top
    with pytest.raises(InputError, match="expected at least one, found none"):
        plots_scores.plot_changes({})
