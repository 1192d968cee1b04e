"""The partition explorer, without a browser: its controls are turned, and the figure is looked into."""

import numpy as np
import pytest

from fedutils.errors import InputError
from fedutils.partition import partition_combined, partition_dirichlet
from fedutils.viewers import explore_partition

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 60, 70]))


def test_the_explorer_deals_out_what_its_controls_say():
    box = explore_partition(LABELS, ("a", "b", "c"), num_clients=4, alpha=0.5, seed=2)
    expected = partition_dirichlet(LABELS, 4, alpha=0.5, seed=2, minimum=8)
    assert all(np.array_equal(a, b) for a, b in zip(box.clients, expected, strict=True))
    before = box.picture.value
    box.controls["kind"].value = "label and quantity"
    box.controls["exponent"].value, box.controls["seed"].value = 1.5, 7
    expected = partition_combined(LABELS, 4, alpha=0.5, exponent=1.5, seed=7, minimum=8)
    assert all(np.array_equal(a, b) for a, b in zip(box.clients, expected, strict=True))
    widths = [bar.get_width() for bar in box.figure.axes[0].patches]
    assert sum(widths) == len(LABELS) and box.picture.value != before
    assert f"{box.measured['label_distance']:.2f}" in box.figure.axes[0].get_title()
    assert box.measured["smallest"] >= 8


def test_the_slider_of_alpha_shows_the_value_that_is_used():
    box = explore_partition(LABELS, ("a", "b", "c"), alpha=0.7)
    _, values = zip(*box.controls["alpha"].options, strict=True)
    assert box.controls["alpha"].label == "0.7" and list(values) == sorted({*values, 0.3, 1.0})
    box.controls["alpha"].label = "100"
    expected = partition_dirichlet(LABELS, 5, alpha=100.0, seed=0, minimum=8)
    assert all(np.array_equal(a, b) for a, b in zip(box.clients, expected, strict=True))


@pytest.mark.parametrize(
    ("kind", "used"),
    [
        ("IID", set()),
        ("Dirichlet", {"alpha"}),
        ("classes per client", {"classes"}),
        ("shards", {"classes"}),
        ("quantity", {"exponent"}),
        ("label and quantity", {"alpha", "exponent"}),
        ("tumour size", {"alpha"}),
        ("institution", set()),
    ],
)
def test_every_kind_is_drawn_and_only_its_sliders_are_on(kind, used):
    box = explore_partition(
        LABELS,
        ("a", "b", "c"),
        groups=np.arange(180) // 3,
        institutions=["X", "Y"] * 90,
        tumour_sizes=np.arange(180.0),
    )
    box.controls["kind"].value = kind
    assert box.message.value == "" and sum(map(len, box.clients)) == 180
    on = {name for name in ("alpha", "exponent", "classes") if not box.controls[name].disabled}
    assert on == used


def test_what_cannot_be_dealt_out_is_told_and_the_figure_stays():
    box = explore_partition(LABELS, ("a", "b", "c"), minimum=30)
    before = box.picture.value
    box.controls["clients"].value = 7
    assert "at least 210 images for 7 clients" in box.message.value and box.picture.value == before
    box.controls["clients"].value = 3
    assert box.message.value == "" and len(box.clients) == 3


@pytest.mark.parametrize(
    ("labels", "alpha", "word"),
    [
        ([], 1, "found none"),
        ([0, 3], 1, "from 0 to 2, found up to 3"),
        ([0], 0, "alpha: expected .* found 0"),
    ],
)
def test_labels_without_names_and_alpha_of_0_are_refused(labels, alpha, word):
    with pytest.raises(InputError, match=word):
        explore_partition(np.asarray(labels), ("a", "b", "c"), alpha=alpha)
