import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from fedutils.data import phantom
from fedutils.errors import InputError

CHANCE = 1 / len(phantom.CLASSES)


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def read_index(folder):
    with (folder / "phantom_index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "brats"
    return phantom.write_brats(folder, 3, voxel_mm=4, progress=False, num_workers=1)


@pytest.fixture(scope="module")
def brain_mri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "brain_mri"
    return phantom.write_brain_mri(folder, 7, 3, size=32, progress=False, num_workers=1)


# One case


def test_case_is_deterministic_whatever_was_made_before():
    first = phantom.make_case(5, 1, voxel_mm=4)
    phantom.make_case(6, 2, voxel_mm=4)
    second = phantom.make_case(5, 1, voxel_mm=4)
    assert list(first) == ["t1", "t1ce", "t2", "flair", "seg"]
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes()
        assert array.dtype == (np.uint8 if name == "seg" else np.float32)


def test_case_changes_with_index_and_seed():
    base = phantom.make_case(5, 1, voxel_mm=4)["seg"]
    assert not np.array_equal(base, phantom.make_case(6, 1, voxel_mm=4)["seg"])
    assert not np.array_equal(base, phantom.make_case(5, 1, voxel_mm=4, seed=1)["seg"])


def test_hospitals_scan_the_same_patient_differently():
    cases = [phantom.make_case(5, h, voxel_mm=4) for h in range(len(phantom.HOSPITALS))]
    brain = cases[0]["t1"] > 0
    for i, case in enumerate(cases):
        np.testing.assert_array_equal(case["seg"], cases[0]["seg"])
        for other in cases[:i]:
            assert np.abs(case["t1"] - other["t1"])[brain].mean() > 0.02
    by_name = phantom.make_case(5, phantom.HOSPITALS[2].name, voxel_mm=4)
    np.testing.assert_array_equal(by_name["t1"], cases[2]["t1"])


def test_tumours_lie_in_the_brain_and_look_as_in_brats():
    seen = set()
    for index in range(1, 9):
        case = phantom.make_case(index, 0, voxel_mm=4)
        seg, brain = case["seg"], case["t1"] > 0
        seen |= set(np.unique(seg))
        assert set(np.unique(seg)) <= {0, 1, 2, 4}
        assert not (seg[~brain] > 0).any()
        ml = (seg > 0).sum() * 4**3 / 1000
        assert 3 < ml < 400
        healthy = brain & (seg == 0)
        assert case["flair"][seg == 2].mean() > 1.2 * case["flair"][healthy].mean()
        if (seg == 4).sum() > 10:
            assert case["t1ce"][seg == 4].mean() > 1.1 * case["t1ce"][healthy].mean()
    assert seen == {0, 1, 2, 4}


def test_necrosis_is_not_uniform():
    variations = []
    for index in range(1, 8):
        case = phantom.make_case(index, 0, voxel_mm=2)
        dead = ndimage.binary_erosion(case["seg"] == 1, iterations=2)  # no partial volume
        if dead.sum() > 20:
            variations.append(case["t2"][dead].std() / case["t2"][dead].mean())
    # An even necrosis varies by 0.04 through the scanner's noise and bias alone.
    assert len(variations) >= 3
    assert np.median(variations) > 0.12


@pytest.mark.parametrize(
    ("voxel_mm", "shape", "shift"),
    [(1, (240, 240, 155), 0.0), (2, (120, 120, 78), 0.5), (4, (60, 60, 39), 1.5)],
)
def test_grid_covers_the_box_of_brats(voxel_mm, shape, shift):
    found, affine = phantom.case_grid(voxel_mm)
    assert found == shape
    expected = [
        [-voxel_mm, 0, 0, -shift],
        [0, -voxel_mm, 0, 239 - shift],
        [0, 0, voxel_mm, shift],
        [0, 0, 0, 1],
    ]
    np.testing.assert_array_equal(affine, expected)


def test_the_patient_is_the_same_at_every_voxel_size():
    fine, coarse = (phantom.make_case(2, 0, voxel_mm=v)["seg"] > 0 for v in (2, 4))
    volumes = fine.sum() * 2**3, coarse.sum() * 4**3
    assert volumes[0] == pytest.approx(volumes[1], rel=0.15)
    centres = [
        nib.affines.apply_affine(phantom.case_grid(v)[1], np.argwhere(m).mean(0))
        for v, m in ((2, fine), (4, coarse))
    ]
    np.testing.assert_allclose(centres[0], centres[1], atol=2)


# One slice


@pytest.mark.parametrize("label", phantom.CLASSES)
def test_slice_is_deterministic(label):
    first = phantom.make_slice(label, 4, "Training", size=48)
    phantom.make_slice(label, 5, "Training", size=48)
    np.testing.assert_array_equal(first, phantom.make_slice(label, 4, "Training", size=48))
    assert first.shape == (48, 48)
    assert first.dtype == np.uint8
    for other in (
        phantom.make_slice(label, 4, "Testing", size=48),
        phantom.make_slice(label, 5, "Training", size=48),
        phantom.make_slice(label, 4, "Training", size=48, seed=8),
    ):
        assert not np.array_equal(first, other)


def test_slice_changes_with_the_hospital_but_its_plane_does_not():
    records = [phantom.draw_slice("glioma", 4, "Training", hospital=h) for h in range(5)]
    assert len({(r.view, r.position_mm) for r in records}) == 1
    assert [r.hospital for r in records] == [0, 1, 2, 3, 4]
    images = [phantom.make_slice("glioma", 4, "Training", hospital=h, size=64) for h in range(5)]
    for i, image in enumerate(images):
        for other in images[:i]:
            assert np.abs(image.astype(float) - other).mean() > 1


def nuisance(split, number):
    features, labels = [], []
    for label, name in enumerate(phantom.CLASSES):
        for index in range(number):
            r = phantom.draw_slice(name, index, split)
            view = [r.view == v for v in phantom.VIEWS]
            hospital = [r.hospital == h for h in range(5)]
            features.append([*view, r.position_mm, *hospital])
            labels.append(label)
    return np.array(features, float), np.array(labels)


def test_view_position_and_hospital_do_not_tell_the_class():
    x, y = nuisance("Training", 1000)
    x_test, y_test = nuisance("Testing", 600)
    forest = RandomForestClassifier(60, min_samples_leaf=5, random_state=0).fit(x, y)
    # 2400 test draws: chance has a standard deviation of 0.9 points; the margin is four of them.
    assert forest.score(x_test, y_test) < CHANCE + 0.035
    for name in phantom.CLASSES:
        draws = [phantom.draw_slice(name, i, "Training") for i in range(300)]
        assert {d.view for d in draws} == set(phantom.VIEWS)
        assert {d.hospital for d in draws} == set(range(5))
        for d in draws:
            low, high = phantom.SLABS_MM[d.view]
            assert low <= d.position_mm <= high


def test_brightness_does_not_tell_the_class():
    def brightness(split, number):
        images = [
            phantom.make_slice(name, i, split, size=40) for name in phantom.CLASSES for i in range(number)
        ]
        return np.array([[i.mean() / 30, np.median(i) / 30] for i in images])

    train, test = 70, 40
    model = LogisticRegression().fit(brightness("Training", train), np.repeat(range(4), train))
    # 160 test images: a standard deviation of 3.4 points; a tumour may be told a little by its own
    # light.
    assert model.score(brightness("Testing", test), np.repeat(range(4), test)) < CHANCE + 0.12


def test_the_tumour_is_where_its_class_has_it():
    # The same patient with and without a tumour cannot be had, so compare class averages: only
    # the pituitary class is bright at the sella.
    centre = {}
    for name in ("pituitary", "notumor"):
        values = []
        for index in range(60):
            if phantom.draw_slice(name, index, "Training").view == "coronal":
                image = phantom.make_slice(name, index, "Training", size=64, hospital=0)
                values.append(ndimage.gaussian_filter(image.astype(float), 1)[36:46, 28:36].max())
        centre[name] = np.mean(values)
    assert centre["pituitary"] > 1.3 * centre["notumor"]


def test_air_is_dark_and_the_neck_is_tissue_not_noise():
    grain, corners = [], []
    for index in range(40):
        if phantom.draw_slice("notumor", index, "Training").view == "axial":
            continue
        image = phantom.make_slice("notumor", index, "Training", size=128, hospital=0)
        image = image.astype(float)
        corners.append(image[:10, [*range(10), *range(118, 128)]].mean())
        fine = np.abs(image - ndimage.median_filter(image, 9)) / np.maximum(image, 1)
        neck = np.s_[105:, 44:84]  # the lowest sixth, in the middle: below the skull base
        grain.append(np.median(fine[neck][image[neck] > 25]))
    assert len(grain) > 15
    assert max(corners) < 8
    # Unstructured grain in place of muscle gives 0.15.
    assert np.median(grain) < 0.10


# Sets on disk


def test_brats_layout(brats):
    names = [f"BraTS20_Training_{i:03d}" for i in (1, 2, 3)]
    files = {f"{n}/{n}_{m}.nii.gz" for n in names for m in ("flair", "t1", "t1ce", "t2", "seg")}
    assert set(digests(brats)) == files | {"phantom_index.csv", "phantom.json"}
    rows = read_index(brats)
    assert [r["case"] for r in rows] == names
    assert [r["hospital"] for r in rows] == [h.name for h in phantom.HOSPITALS[:3]]
    for row in rows:
        base = brats / row["case"] / row["case"]
        seg = nib.load(f"{base}_seg.nii.gz")
        assert seg.get_data_dtype() == np.uint8
        assert seg.header.get_zooms() == (4, 4, 4)
        np.testing.assert_array_equal(seg.affine, phantom.case_grid(4)[1])
        labels = np.asarray(seg.dataobj)
        for value, column in ((1, "necrosis_ml"), (2, "oedema_ml"), (4, "enhancing_ml")):
            assert float(row[column]) == pytest.approx((labels == value).sum() * 0.064, abs=0.006)
        image = nib.load(f"{base}_t1ce.nii.gz")
        assert image.get_data_dtype() == np.int16
        assert image.shape == labels.shape == (60, 60, 39)
        np.testing.assert_array_equal(image.affine, seg.affine)
        values = np.asarray(image.dataobj)
        assert 0.1 < (values > 0).mean() < 0.4  # BraTS: about 0.16
        assert (values[labels > 0] > 0).all()
        assert row["hgg"] in "01"


def test_brain_mri_layout(brain_mri):
    short = {"glioma": "gl", "meningioma": "me", "notumor": "no", "pituitary": "pi"}
    expected = {
        f"{split}/{label}/{split[:2]}-{code}_{i:04d}.jpg"
        for split, number in (("Training", 7), ("Testing", 3))
        for label, code in short.items()
        for i in range(1, number + 1)
    }
    assert set(digests(brain_mri)) == expected | {"phantom_index.csv", "phantom.json"}
    rows = read_index(brain_mri)
    assert {r["file"] for r in rows} == expected
    assert list(rows[0]) == ["file", "split", "class", "hospital", "view", "position_mm"]
    for row in rows:
        assert row["file"].startswith(f"{row['split']}/{row['class']}/")
    with Image.open(brain_mri / rows[0]["file"]) as image:
        assert (image.mode, image.size) == ("L", (32, 32))


def test_the_number_of_processes_changes_nothing(brats, brain_mri, tmp_path, monkeypatch):
    twice = phantom.write_brats(tmp_path / "brats", 3, voxel_mm=4, progress=False, num_workers=2)
    assert digests(twice) == digests(brats)
    again = phantom.write_brain_mri(tmp_path / "slices", 7, 3, size=32, progress=False, num_workers=2)
    assert digests(again) == digests(brain_mri)
    monkeypatch.setitem(sys.modules, "tensorflow", sys)  # then it spawns instead of forking
    spawned = phantom.write_brain_mri(tmp_path / "spawned", 7, 3, size=32, progress=False, num_workers=2)
    assert digests(spawned) == digests(brain_mri)


def test_a_larger_set_begins_with_the_smaller(brain_mri, tmp_path):
    larger = digests(phantom.write_brain_mri(tmp_path / "set", 8, 3, size=32, progress=False, num_workers=1))
    for file, digest in digests(brain_mri).items():
        if file.endswith(".jpg"):
            assert larger[file] == digest


def test_ensure_makes_a_set_once_and_again_when_anything_changes(tmp_path):
    folder = tmp_path / "set"

    def made(**changes):
        arguments = {"num_training": 1, "num_testing": 1, "size": 32} | changes
        before = folder.stat().st_ino if folder.exists() else None
        phantom.ensure_brain_mri(folder, **arguments, progress=False)
        return folder.stat().st_ino != before

    assert made()
    assert not made()
    assert made(num_testing=2)
    assert made(seed=8)
    assert made(size=40)
    assert not made(size=40, num_testing=1, seed=7)
    next(folder.rglob("*.jpg")).unlink()
    assert made(size=40)
    manifest = json.loads((folder / "phantom.json").read_text())
    (folder / "phantom.json").write_text(json.dumps(manifest | {"version": 0}))
    assert made(size=40)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_ensure_brats_makes_a_set_once(tmp_path):
    folder = phantom.ensure_brats(tmp_path / "set", 1, voxel_mm=6, progress=False)
    before = folder.stat().st_ino
    phantom.ensure_brats(folder, 1, voxel_mm=6, progress=False)
    assert folder.stat().st_ino == before
    phantom.ensure_brats(folder, 1, voxel_mm=5, progress=False)
    assert folder.stat().st_ino != before


def test_a_killed_run_leaves_no_set(tmp_path):
    folder = tmp_path / "set"
    code = (
        "import sys; from fedutils.data import phantom; "
        "phantom.write_brain_mri(sys.argv[1], 5000, 1, size=64, progress=False, num_workers=1)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    try:
        until = time.monotonic() + 30
        while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    (left_over,) = tmp_path.iterdir()
    assert left_over.name.startswith(".set.partial-")
    assert not folder.exists()
    os.utime(left_over, (0, 0))  # long ago
    phantom.ensure_brain_mri(folder, 1, 1, size=32, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert len(list(folder.rglob("*.jpg"))) == 8


def test_a_failed_run_keeps_the_earlier_set(tmp_path, monkeypatch):
    folder = phantom.write_brain_mri(tmp_path / "set", 1, 1, size=32, progress=False)
    before = digests(folder)

    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(phantom, "_write_slice", fail)
    with pytest.raises(OSError, match="disk full"):
        phantom.write_brain_mri(folder, 2, 1, size=32, progress=False)
    assert digests(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: phantom.make_slice("tumor", 0, "Training"), "unknown class.*'tumor'"),
        (lambda _: phantom.make_slice("glioma", 0, "Train"), "unknown split.*'Train'"),
        (lambda _: phantom.make_slice("glioma", 0, "Training", hospital=5), "unknown hospital.*5"),
        (lambda _: phantom.make_slice("glioma", -1, "Training"), "0 or more, found -1"),
        (lambda _: phantom.make_slice("glioma", 0, "Training", size=8), "32 to 1024.*found 8"),
        (lambda _: phantom.make_case(0, "north"), "unknown hospital.*'north'"),
        (lambda _: phantom.make_case(0, 0, voxel_mm=0.5), "1 to 6 mm, found 0.5"),
        (lambda _: phantom.make_case(-1, 0), "found -1"),
        (lambda p: phantom.write_brats(p / "a", 0), "num_cases.*found 0"),
        (lambda p: phantom.write_brain_mri(p / "a", 0, 1), "num_training.*found 0"),
        (lambda p: phantom.write_brain_mri(p / "a", 1, -2), "num_testing.*found -2"),
        (lambda p: phantom.write_brain_mri(p / "a", 1.5, 1), "num_training.*found 1.5"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_files_are_never_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        phantom.write_brats(tmp_path, 1, voxel_mm=6, progress=False)
    with pytest.raises(InputError, match="found the file"):
        phantom.write_brain_mri(tmp_path / "mine.txt", 1, 1, size=32, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_importing_the_phantom_does_not_load_tensorflow():
    code = "import sys, fedutils.data.phantom; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
