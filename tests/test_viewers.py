"""The viewers of a case, without a browser: their controls are turned, and the figure is looked into."""

import io
import sys
import time
import types

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest
from PIL import Image

from fedutils import plots
from fedutils.data.case import Case, Volume
from fedutils.errors import InputError
from fedutils.viewers import CONVENTIONS, view_case, view_case_3d

SHAPE, SPACING = (7, 8, 9), (1.0, 2.0, 3.0)


def make_volume(**options):
    """Make two modalities whose every voxel says where it is, and a tumour about the voxel (2, 3, 4)."""
    x, y, z = np.indices(SHAPE)
    images = {"t1": (100 * x + 10 * y + z).astype(np.int16), "flair": np.ones(SHAPE, np.float32)}
    images["flair"][2, 3, 4] = 9
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 3, 4], mask[1:4:2, 3, 4] = 4, 2
    return Volume(images, mask, np.diag([*SPACING, 1.0]), **options)


def data(plane):
    return np.asarray(plane.image.get_array())


def letters(plane):
    return [text.get_text() for text in plane.letters]


def test_it_opens_in_the_middle_of_the_tumour_as_plot_planes_does():
    viewer = view_case(make_volume(), title="a case")
    sagittal, coronal, axial = viewer.planes
    x, y, z = np.indices(SHAPE)
    value = 100 * x + 10 * y + z
    assert np.array_equal(data(axial), value[:, :, 4].T)
    assert np.array_equal(data(coronal), value[:, 3, :].T)
    assert np.array_equal(data(sagittal), value[2].T)
    assert axial.ax.get_title() == "axial 4 of 8, 12 mm"
    still = plots.plot_planes(make_volume().images["t1"], make_volume().mask, SPACING)
    for plane, ax in zip((axial, coronal, sagittal), still.axes, strict=True):
        assert np.array_equal(data(plane), ax.images[0].get_array())
        assert list(plane.image.get_extent()) == list(ax.images[0].get_extent())
        assert letters(plane) == [text.get_text() for text in ax.texts]
        assert plane.image.origin == ax.images[0].origin == "lower"
        assert plane.ax.get_xlim() == ax.get_xlim()


def test_turning_a_slice_shows_it_and_a_new_picture():
    viewer = view_case(make_volume())
    before = viewer.picture.value
    viewer.controls["axial"].value = 7
    sagittal, coronal, axial = viewer.planes
    assert data(axial)[3, 2] == 237 and axial.ax.get_title() == "axial 7 of 8, 21 mm"
    assert data(coronal)[4, 2] == 234  # still at y = 3
    assert list(coronal.lines[1].get_ydata()) == [22.5, 22.5]  # the middle of slice 7, 3 mm high
    viewer.controls["coronal"].value, viewer.controls["sagittal"].value = 0, 6
    assert data(coronal)[0, 6] == 600 and data(sagittal)[8, 7] == 678
    assert viewer.picture.value != before
    with Image.open(io.BytesIO(viewer.picture.value)) as picture:
        assert picture.size == (960, 390)


def test_controls_fit_a_narrow_page():
    grid, image, _ = view_case(make_volume()).children
    assert grid.layout.grid_template_columns == "repeat(auto-fill, minmax(250px, 1fr))"
    assert {control.layout.width for control in grid.children} == {"auto"}
    assert (image.layout.align_self, image.layout.max_width) == ("flex-start", "100%")


def test_title_and_slider_count_alike():
    viewer = view_case(make_volume())
    viewer.controls["coronal"].value = 7
    assert viewer.controls["coronal"].max == 7 and viewer.planes[1].ax.get_title() == "coronal 7 of 7, 14 mm"


def test_modality_and_window():
    viewer = view_case(make_volume())
    low, high = viewer.planes[2].image.get_clim()
    # Of 1 to 678, since the background is the lowest value, 0; by default to the 99.5th percentile.
    inside = np.sort(make_volume().images["t1"].ravel())[1:]
    assert low == 1 and high == pytest.approx(np.percentile(inside, 99.5))
    viewer.controls["window"].value = (25, 75)
    assert viewer.planes[0].image.get_clim() == pytest.approx(tuple(np.percentile(inside, (25, 75))))
    viewer.controls["modality"].value = "flair"
    assert data(viewer.planes[2])[3, 2] == 9
    low, high = viewer.planes[2].image.get_clim()
    assert (low, high) == (1, 9)  # all that is brighter than the background has one value


def test_mask_colours_and_opacity():
    viewer = view_case(make_volume())
    overlay = np.asarray(viewer.planes[2].mask.get_array())  # (Y, X, 4)
    assert overlay[3, 2].tolist() == [240, 228, 66, 128]  # label 4, #F0E442, half
    assert overlay[3, 1].tolist() == overlay[3, 3].tolist() == [86, 180, 233, 128]  # label 2, #56B4E9
    assert overlay[..., 3].astype(bool).sum() == 3
    viewer.controls["opacity"].value = 0.0
    assert not np.asarray(viewer.planes[2].mask.get_array())[..., 3].any()
    legend = [text.get_text() for text in viewer.figure.legends[0].get_texts()]
    assert legend == ["oedema", "enhancing tumour"]


def test_the_side_can_be_that_of_radiologists():
    viewer = view_case(make_volume())
    sagittal, coronal, axial = viewer.planes
    assert letters(axial) == ["L", "R", "P", "A"] and axial.ax.get_xlim() == (0, 7)
    viewer.controls["convention"].value = CONVENTIONS[1]
    assert letters(axial) == ["R", "L", "P", "A"] and axial.ax.get_xlim() == (7, 0)
    assert letters(coronal) == ["R", "L", "I", "S"] and coronal.ax.get_xlim() == (7, 0)
    assert letters(sagittal) == ["P", "A", "I", "S"] and sagittal.ax.get_xlim() == (0, 16)
    viewer.controls["convention"].value = CONVENTIONS[0]
    assert letters(axial) == ["L", "R", "P", "A"] and axial.ax.get_xlim() == (0, 7)


def test_the_picture_itself_has_left_on_the_left():
    volume = make_volume()
    image = np.zeros(SHAPE, np.float32)
    image[0] = 1.0  # the patient's left
    viewer = view_case(Volume({"t1": image}, None, volume.affine))
    for convention, side in zip(CONVENTIONS, (0, -1), strict=True):
        viewer.controls["convention"].value = convention
        with Image.open(io.BytesIO(viewer.picture.value)) as picture:
            pixels = np.asarray(picture.convert("L"), float)
        axial = viewer.planes[2].ax.get_window_extent()
        rows = slice(390 - int(axial.y1) + 8, 390 - int(axial.y0) - 8)
        strip = pixels[rows, int(axial.x0) + 2 : int(axial.x1) - 2].mean(axis=0)
        ends = strip[:10].mean(), strip[-10:].mean()
        assert ends[side] > 200 and ends[-1 - side] < 60


def test_without_spacing_or_mask():
    volume = make_volume()
    viewer = view_case(Volume(volume.images))
    assert viewer.planes[2].ax.get_title() == "axial 4 of 8" and viewer.planes[2].ax.get_xlabel() == "voxels"
    assert viewer.controls["axial"].value == 4 and viewer.controls["opacity"].disabled
    assert viewer.planes[1].ax.get_aspect() == "auto" and viewer.planes[2].ax.get_aspect() == 1
    assert not viewer.figure.legends
    known = view_case(Volume(volume.images), spacing=(1.0, 1.0, 5.0))
    assert known.planes[2].ax.get_title() == "axial 4 of 8, 20 mm"


def test_a_binary_mask_is_one_tumour():
    volume = make_volume()
    viewer = view_case(Volume(volume.images, (volume.mask > 0).astype(np.uint8)))
    assert [text.get_text() for text in viewer.figure.legends[0].get_texts()] == ["tumour"]


def make_case(read):
    volume = make_volume()

    def reader(case, modalities, mask):
        read.append((modalities, mask))
        if "t2" in modalities:
            raise InputError("x_t2.nii.gz: expected a readable file, found <nothing>")
        return Volume({m: volume.images[m] for m in modalities}, volume.mask if mask else None, volume.affine)

    return Case("x", "x", ("t1", "flair", "t2"), {"mask": ("x",)}, reader)


def test_a_modality_of_a_case_is_read_when_it_is_looked_at_and_once():
    read = []
    viewer = view_case(make_case(read))
    assert read == [(("t1",), True)] and viewer.figure.get_suptitle() == "x"
    for modality in ("flair", "t1", "flair"):
        viewer.controls["modality"].value = modality
    assert read == [(("t1",), True), (("flair",), False)]


def test_a_bad_file_is_told_below_the_picture():
    viewer = view_case(make_case([]))
    before = viewer.picture.value
    viewer.controls["modality"].value = "t2"
    assert "x_t2.nii.gz: expected" in viewer.message.value and "&lt;nothing&gt;" in viewer.message.value
    assert viewer.picture.value == before
    viewer.controls["modality"].value = "t1"
    assert viewer.message.value == ""


def test_what_is_no_case_is_refused():
    with pytest.raises(InputError, match="expected a Case or a Volume, found list"):
        view_case([])


def test_no_figure_is_left_to_pyplot_and_a_step_is_quick():
    image = np.random.default_rng(0).random((155, 240, 240), np.float32).T[::-1]  # in the order of a file
    volume = Volume({"t1": image}, (image > 0.9).astype(np.uint8), np.eye(4))
    viewer = view_case(volume)
    steps = []
    for i in range(40, 60):
        start = time.process_time()  # of this process: other work on the machine plays no part
        viewer.controls["axial"].value = i
        steps.append(time.process_time() - start)
    assert not plt.get_fignums()
    assert np.median(steps) < 0.1


def test_3d_asks_for_ipyniivue_where_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(InputError, match="expected the package ipyniivue, found none"):
        view_case_3d(make_volume())


def test_3d_hands_over_image_and_mask(monkeypatch):
    class NiiVue:
        def __init__(self, **options):
            self.options = options

        def load_volumes(self, layers):
            self.layers = layers

    always = types.SimpleNamespace(ALWAYS=1)
    monkeypatch.setitem(sys.modules, "ipyniivue", types.SimpleNamespace(NiiVue=NiiVue, ShowRender=always))
    viewer = view_case_3d(make_volume(), modality="flair", opacity=0.3)
    image, mask = (nibabel.load(layer["path"]) for layer in viewer.layers)
    assert np.array_equal(np.asarray(image.dataobj), make_volume().images["flair"])
    assert np.array_equal(np.asarray(mask.dataobj), make_volume().mask)
    assert viewer.options == {"multiplanar_show_render": 1, "is_nearest_interpolation": True}
    assert np.allclose(image.affine, make_volume().affine) and viewer.layers[1]["opacity"] == 0.3
    with pytest.raises(InputError, match="expected one of t1, flair, found t2"):
        view_case_3d(make_volume(), modality="t2")
