"""Diameters and sides of regions, against geometry done by hand."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from fedutils.errors import InputError
from fedutils.lesion import locate, measure_diameter

SPACING = (1.0, 0.5, 3.0)


def make_ellipsoid(shape, spacing, centre, axes, turn=0.0):
    """Return an ellipsoid, its axes and centre in mm, turned in the axial plane by an angle in degrees."""
    x, y, z = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    x, y, z = x - centre[0], y - centre[1], z - centre[2]
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return ((c * x + s * y) / axes[0]) ** 2 + ((c * y - s * x) / axes[1]) ** 2 + (z / axes[2]) ** 2 <= 1


@pytest.mark.parametrize("turn", [0, 30, 90, 127])
def test_an_ellipsoid_is_as_long_as_its_longer_axis_in_the_plane(turn):
    # 40 mm long and 24 mm wide in the plane, 60 mm high: the height does not count.
    region = make_ellipsoid((60, 110, 25), SPACING, (30, 27, 36), (20, 12, 30), turn)
    found = measure_diameter(region, SPACING)
    assert found.length == pytest.approx(40, abs=1.0) and found.position == 12  # 36 mm / 3 mm


def test_single_voxels_rows_and_corners_by_hand():
    region = np.zeros((7, 8, 4), bool)
    region[3, 2, 1] = True
    assert measure_diameter(region, SPACING).length == 1.0  # its longer side
    region[3, 2, 0:4] = True  # a column upwards: each slice has one voxel
    assert measure_diameter(region, SPACING) == measure_diameter(region[:, :, :1], SPACING)
    region[3, 1:7, 2] = True  # six voxels of 0.5 mm
    found = measure_diameter(region, SPACING)
    assert (found.length, found.position) == (pytest.approx(3.0), 2)
    pair = np.zeros((7, 8, 4), bool)
    pair[2, 2, 3] = pair[3, 3, 3] = True  # they touch at a corner
    # From the left face of one, (-0.5, 0) voxels, to the right face of the other, (1.5, 1).
    assert measure_diameter(pair).length == pytest.approx(np.hypot(2, 1))
    assert measure_diameter(pair, SPACING).length == pytest.approx(np.hypot(2 * 1.0, 1 * 0.5))


def test_lesions_apart_are_measured_apart():
    region = np.zeros((30, 9, 5), bool)
    region[2:6, 4, 2] = True
    region[20:27, 4, 2] = True
    assert measure_diameter(region).length == pytest.approx(7)
    region[6:20, 4, 2] = True  # joined
    assert measure_diameter(region).length == pytest.approx(25)


def test_any_shape_as_by_brute_force():
    rng = np.random.default_rng(3)
    for _ in range(20):
        region = np.zeros((9, 7, 2), bool)
        parts, _ = ndimage.label(rng.random((9, 7)) < 0.5, np.ones((3, 3)))
        region[..., 1] = parts == 1  # whatever its shape: one lesion
        faces = []
        for x, y in np.argwhere(region[..., 1]):
            faces += [(x - 0.5, y), (x + 0.5, y), (x, y - 0.5), (x, y + 0.5)]
        expected = pdist(np.array(faces) * SPACING[:2]).max()
        assert measure_diameter(region, SPACING).length == pytest.approx(expected)


def test_nothing_is_nowhere():
    empty = np.zeros((7, 8, 9), bool)
    assert measure_diameter(empty) is None
    assert locate(np.zeros(HEAD), make_head()) is None


HEAD = (70, 45, 30)  # voxels


def make_head(tilt=0.0, shape=HEAD):
    """Return a head 50 voxels wide around x = 34, which leans to the right by `tilt` voxels a voxel of y."""
    x, y, z = np.meshgrid(*map(np.arange, shape), indexing="ij")
    middle = 34 + tilt * (y - shape[1] // 2)
    return ((x - middle) / 25) ** 2 + ((y - shape[1] // 2) / 20) ** 2 + ((z - 15) / 13) ** 2 <= 1


def make_brick(x, y=(20, 24)):
    region = np.zeros(HEAD, bool)
    region[x[0] : x[1], y[0] : y[1], 13:17] = True
    return region


@pytest.mark.parametrize(
    ("x", "name", "distance", "beyond"),
    [
        ((44, 49), "right", 12, 0),  # centres 44 to 48, 12 voxels from 34
        ((20, 25), "left", -12, 0),
        ((31, 38), "midline", 0, 0.4285714),  # 31 to 33, the plane itself, 35 to 37: 3 of 7 are beyond
        ((30, 40), "midline", 0.5, 0.5),  # 35 to 39 are right of the plane, 5 of 10; 0.5 of 50 is near
        ((33, 45), "right", 4.5, 2 / 12),  # 33 is left, 34 on the plane, 35 to 44 right
    ],
)
def test_sides_by_hand(x, name, distance, beyond):
    side = locate(make_brick(x), make_head())
    assert (side.name, side.distance) == (name, pytest.approx(distance, abs=0.02))
    assert side.beyond == pytest.approx(beyond)
    scaled = locate(make_brick(x), make_head(), (2.0, 3.0, 5.0))
    assert scaled.name == name and scaled.distance == pytest.approx(2 * distance, abs=0.04)


def test_mirrored_sides_are_exchanged():
    region, head = make_brick((44, 49)), make_head(0.1)
    assert locate(region, head).name == "right"
    assert locate(region[::-1], head[::-1]).name == "left"


def test_the_middle_follows_a_head_that_leans():
    head = make_head(tilt=0.3)  # 17 degrees: at y = 40 the middle is at 34 + 0.3 * 18 = 39.4
    side = locate(make_brick((36, 38), (39, 42)), head)
    # 36.5 is right of 34 but left of 39.4, by 2.9 voxels across the plane: divided by sqrt(1 + 0.3²).
    assert side.name == "left" and side.distance == pytest.approx(-2.9 / np.hypot(1, 0.3), abs=0.05)
    assert locate(make_brick((20, 22)), make_head(tilt=0.5)) is None  # 27 degrees


def test_a_lean_between_slices_counts_only_where_their_distance_is_known():
    head = make_head().copy()
    sheared = np.zeros_like(head)
    for z in range(HEAD[2]):
        sheared[:, :, z] = np.roll(head[:, :, z], (z - 15) // 2, axis=0)  # half a voxel a slice
    region = make_brick((50, 54))
    assert locate(region, sheared).name == "right"
    assert locate(region, sheared, (1, 1, 6)).name == "right"  # 5 degrees
    assert locate(region, sheared, (1, 1, 1)) is None  # 27 degrees


def test_a_tumour_at_the_rim_does_not_move_the_middle():
    head = make_head()
    head[55:66, 18:27, 12:18] = True  # swollen on the right
    assert locate(make_brick((36, 42)), head).distance == pytest.approx(4.5, abs=0.02)


def test_bad_input_is_refused_in_one_line():
    for call, words in (
        (lambda: measure_diameter(np.zeros((3, 4))), "expected axes (X, Y, Z)"),
        (lambda: measure_diameter(np.zeros((3, 4, 5)), (1, 1)), "three sides of a voxel in mm"),
        (lambda: measure_diameter(np.zeros((3, 4, 5)), (1, 0, 1)), "sides (1.0, 0.0, 1.0)"),
        (lambda: locate(np.zeros((3, 4, 5)), np.zeros((3, 4, 6))), "expected the region's shape (3, 4, 5)"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert words in str(caught.value) and "\n" not in str(caught.value)
    assert locate(np.ones((3, 4, 5)), np.zeros((3, 4, 5))) is None  # no head
