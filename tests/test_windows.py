"""Windows: where they lie, what they weigh, and by what a side must be divisible."""

import numpy as np
import pytest

from fedutils.models.unet import build_attention_unet, build_unet
from fedutils.models.unet_plus_plus import build_unet_plus_plus
from fedutils.windows import find_divisor, place_windows


@pytest.mark.parametrize(
    ("side", "window", "overlap", "starts"),
    [
        (240, 128, 0.5, [0, 56, 112]),  # 112 voxels to go in steps of at most 64
        (155, 128, 0.5, [0, 27]),
        (128, 128, 0.5, [0]),
        (10, 4, 0.0, [0, 3, 6]),
        (7, 4, 0.9, [0, 1, 2, 3]),  # a step is never less than a voxel
    ],
)
def test_windows_are_spread_evenly_from_end_to_end(side, window, overlap, starts):
    placed = place_windows(side, window, overlap)
    assert [start for start, _ in placed] == starts
    total = np.zeros(side)
    for start, weights in placed:
        assert weights.dtype == np.float32 and weights.min() > 0
        total[start : start + window] += weights
    assert np.allclose(total, 1, atol=1e-6)


def test_the_weights_are_gaussians_over_their_sum():
    (_, first), (start, second) = place_windows(10, 8, 0.75)
    assert start == 2
    # Sigma is a voxel, an eighth of the window; voxel 4 is 0.5 from one middle, 1.5 from the other.
    near, far = np.exp(-0.5 * 0.5**2), np.exp(-0.5 * 1.5**2)
    assert first[4] == pytest.approx(near / (near + far), rel=1e-6)
    assert second[4 - start] == pytest.approx(far / (near + far), rel=1e-6)
    assert first[0] == 1, "no other window sees it"


@pytest.mark.parametrize("build", [build_unet, build_attention_unet, build_unet_plus_plus])
@pytest.mark.parametrize("depth", [3, 4])
def test_the_divisor_is_that_of_the_depth(build, depth):
    assert find_divisor(build((None, None, None, 1), 2, depth=depth, width=2)) == 2 ** (depth - 1)
    assert find_divisor(build((None, 48, 1), 2, depth=depth, width=2)) == 2 ** (depth - 1)
    assert find_divisor(build((16, 48, 1), 2, depth=depth, width=2)) == 1
