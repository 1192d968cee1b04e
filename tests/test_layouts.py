import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedutils.data.brats import MODALITIES
from fedutils.data.layouts import check_cases, detect_layout, find_layouts, list_cases, without_tumour
from fedutils.errors import InputError

SHAPE = (7, 8, 9)


def make_brats(folder, *, tumour=10):
    """Write a case of 1 x 2 x 3 mm voxels with so many voxels of oedema."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    mask = np.zeros(SHAPE, np.uint8)
    mask.reshape(-1)[:tumour] = 2
    for modality in MODALITIES:
        image = nib.Nifti1Image(rng.integers(0, 99, SHAPE).astype(np.int16), affine)
        nib.save(image, folder / f"{folder.name}_{modality}.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine), folder / f"{folder.name}_seg.nii.gz")
    return folder


def make_lgg(folder):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in (1, 2):
        stem = f"{folder.name}_{number}"
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).save(folder / f"{stem}.tif")
        mask = np.zeros((6, 5), np.uint8)
        mask[number, :2] = 255
        Image.fromarray(mask).save(folder / f"{stem}_mask.tif")
    return folder


def test_each_layout_is_told_from_outside_and_inside(tmp_path, kaggle):
    brats = make_brats(tmp_path / "brats" / "x" / "HGG" / "Brats18_2013_10_1")
    lgg = make_lgg(tmp_path / "lgg" / "lgg-mri-segmentation" / "kaggle_3m" / "TCGA_CS_4941_19960909")
    assert detect_layout(kaggle) == "brain_mri"
    for folder in (tmp_path / "brats", brats.parent, brats):
        assert detect_layout(folder) == "brats"
    for folder in (tmp_path / "lgg", lgg.parent, lgg):
        assert detect_layout(folder) == "kaggle_3m"
    assert find_layouts(tmp_path) == {"brain_mri": kaggle, "brats": brats.parent, "kaggle_3m": lgg.parent}


def test_the_older_kaggle_form_is_brain_mri(kaggle):
    for split in ("Training", "Testing"):
        for new, old in (("notumor", "no_tumor"), ("glioma", "glioma_tumor")):
            (kaggle / split / new).rename(kaggle / split / old)
        for name in ("meningioma", "pituitary"):
            (kaggle / split / name).rename(kaggle / split / f"{name}_tumor")
    assert detect_layout(kaggle.parent) == "brain_mri"


def test_several_and_none_are_refused_in_one_line(tmp_path):
    make_brats(tmp_path / "a" / "BraTS2021_00001")
    make_lgg(tmp_path / "b" / "TCGA_CS_4941_19960909")
    with pytest.raises(InputError, match=r"expected one layout, found brats in .*a, kaggle_3m in .*b; point"):
        detect_layout(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match=r"brain_mri .*kaggle_3m .*brats .*found an empty folder"):
        detect_layout(other)
    (other / "scan.dcm").write_bytes(b"x")
    with pytest.raises(InputError, match=r"found scan\.dcm; point") as caught:
        detect_layout(other)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="expected a folder of images, found none"):
        detect_layout(tmp_path / "nowhere")


def test_pictures_are_not_cases(kaggle):
    with pytest.raises(InputError, match="found brain_mri, whose pictures name no patient"):
        list_cases(kaggle)


def test_institutions_from_a_table(tmp_path):
    make_brats(tmp_path / "data" / "BraTS2021_00001")
    table = tmp_path / "p.csv"
    table.write_text("Partition_ID,Subject_ID\n4,BraTS2021_00001\n")
    (case,) = list_cases(tmp_path / "data", institutions=table)
    assert case.institution == "04"


def test_links_are_followed_once(tmp_path):
    folder = make_brats(tmp_path / "store" / "BraTS2021_00001")
    root = tmp_path / "root"
    root.mkdir()
    (root / "BraTS2021_00001").symlink_to(folder)
    (root / "loop").symlink_to(root)
    assert [case.name for case in list_cases(root)] == ["BraTS2021_00001"]


def test_bad_cases_stop_or_are_listed(tmp_path):
    make_brats(tmp_path / "BraTS2021_00001")
    bad = make_brats(tmp_path / "BraTS2021_00002") / "BraTS2021_00002_t2.nii.gz"
    bad.write_bytes(bad.read_bytes()[:300])
    make_brats(tmp_path / "BraTS2021_00003")
    cases = list_cases(tmp_path)
    with pytest.raises(InputError, match="BraTS2021_00002_t2"):
        check_cases(cases, progress=False)
    good, skipped = check_cases(cases, skip_bad=True, progress=False)
    assert [case.name for case in good] == ["BraTS2021_00001", "BraTS2021_00003"]
    assert [row["name"] for row in skipped] == ["BraTS2021_00002"]
    assert skipped[0]["reason"].startswith("BraTS2021_00002/BraTS2021_00002_t2.nii.gz: expected a whole gzip")
    assert str(tmp_path) not in skipped[0]["reason"]


def test_nothing_good_is_refused_even_when_skipping(tmp_path):
    bad = make_brats(tmp_path / "BraTS2021_00002") / "BraTS2021_00002_t2.nii.gz"
    bad.write_bytes(b"")
    with pytest.raises(InputError, match="found none of 1, the first: BraTS2021_00002/"):
        check_cases(list_cases(tmp_path), skip_bad=True, progress=False)


def test_tumours_are_measured_and_empty_masks_told(tmp_path):
    make_brats(tmp_path / "BraTS2021_00001", tumour=10)
    make_brats(tmp_path / "BraTS2021_00002", tumour=0)
    good, skipped = check_cases(list_cases(tmp_path), progress=False)
    assert skipped == [] and without_tumour(good) == ["BraTS2021_00002"]
    # 10 voxels of 1 x 2 x 3 mm
    assert good[0].facts["tumour_voxels"] == 10 and good[0].facts["tumour_ml"] == pytest.approx(0.06)


def test_volumes_without_spacing_are_measured_in_voxels(tmp_path):
    make_lgg(tmp_path / "TCGA_CS_4941_19960909")
    (case,), _ = check_cases(list_cases(tmp_path), progress=False)
    assert case.facts == {"tumour_voxels": 4.0}


def test_importing_the_loaders_loads_nothing_heavy():
    code = (
        "import sys, fedutils.data.layouts;"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_real_layouts(real_data):
    assert set(find_layouts(real_data)) == {"brain_mri", "kaggle_3m", "brats"}
    cases = list_cases(
        real_data / "brats2020", institutions=real_data / "partitions" / "BraTS21-17_Mapping.csv"
    )
    assert [case.institution for case in cases] == ["02"]
