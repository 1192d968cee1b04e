"""Regions of probabilities: thresholds, and components too small to be believed."""

import numpy as np
import pytest
from scipy import ndimage

from fedutils.errors import InputError
from fedutils.inference import segment


def test_regions_are_what_is_above_the_threshold():
    probabilities = np.array([[0.5, 0.51, 0.2], [0.9, 0.3, 0.4]], np.float32)[:, None]
    assert segment(probabilities).tolist() == [[[False, True, False]], [[True, False, False]]]
    per_region = segment(probabilities, threshold=(0.6, 0.2, 0.4))
    assert per_region.tolist() == [[[False, True, False]], [[True, True, False]]]


def test_small_components_are_removed_region_by_region():
    probabilities = np.zeros((6, 7, 8, 2), np.float32)
    probabilities[0, 0, :3] = 1  # three voxels in a row ...
    probabilities[1, 1, 3] = 1  # ... and a fourth that touches a corner
    probabilities[5, 4:7, 7] = 1  # three others
    assert segment(probabilities).sum(axis=(0, 1, 2)).tolist() == [7, 7]
    kept = segment(probabilities, smallest=(0, 4))
    assert kept.sum(axis=(0, 1, 2)).tolist() == [7, 4] and kept[1, 1, 3, 1] and not kept[5, 5, 7, 1]
    # Voxels of 1 x 2 x 3 = 6 mm³: three are 18 mm³, four are 24.
    spacing = (1.0, 2.0, 3.0)
    counts = {
        v: int(segment(probabilities[..., :1], smallest=v, spacing=spacing).sum()) for v in (18, 19, 25)
    }
    assert counts == {18: 7, 19: 4, 25: 0}


def test_removal_agrees_with_a_flood_fill():
    rng = np.random.default_rng(1)
    image = ndimage.gaussian_filter(rng.normal(size=(24, 30)), 1.5) > 0.1
    found = segment(image[..., None].astype(np.float32), smallest=20)[..., 0]
    expected, seen = np.zeros_like(image), np.zeros_like(image)
    for start in zip(*np.nonzero(image), strict=True):
        component, todo = [], [start]
        while todo:
            i, j = todo.pop()
            if 0 <= i < 24 and 0 <= j < 30 and image[i, j] and not seen[i, j]:
                seen[i, j] = True
                component.append((i, j))
                todo += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        if len(component) >= 20:
            expected[tuple(zip(*component, strict=True))] = True
    assert 0 < expected.sum() < image.sum() and np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probabilities": np.array([[[2.0, -1.0]]])}, r"in \[0, 1\], found -1 to 2; apply a sigmoid"),
        ({"probabilities": np.full((2, 3, 1), np.nan)}, "found nan to nan"),
        ({"threshold": (0.5, 0.5, 0.5)}, r"threshold: expected one number or 2, found \(0.5, 0.5, 0.5\)"),
        ({"smallest": (1,)}, r"smallest: expected one number or 2, found \(1,\)"),
        ({"spacing": (1.0, 1.0, 1.0)}, r"spacing: expected 2 sides in mm, found \(1.0, 1.0, 1.0\)"),
    ],
)
def test_bad_regions_are_one_line(options, words):
    with pytest.raises(InputError, match=words):
        segment(**{"probabilities": np.zeros((4, 5, 2)), **options})
