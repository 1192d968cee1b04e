import shutil

import nibabel as nib
import numpy as np
import pytest

from fedutils.data.brats import MODALITIES, list_brats
from fedutils.data.layouts import check_cases, list_cases
from fedutils.data.regions import labels_to_regions, measure_volumes, regions_to_labels
from fedutils.errors import InputError

SHAPE = (7, 8, 9)
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # BraTS's own


def save(path, array, affine=LPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def labels_of(seed=0, values=(0, 1, 2, 4)):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), SHAPE)


def make_case(folder, *, suffix=".nii.gz", mask=True, seed=0):
    """Write a case; modality i holds random values of 100 i to 100 i + 99."""
    rng = np.random.default_rng(seed)
    for i, modality in enumerate(MODALITIES):
        image = (100 * i + rng.integers(0, 100, SHAPE)).astype(np.int16)
        save(folder / f"{folder.name}_{modality}{suffix}", image)
    if mask:
        save(folder / f"{folder.name}_seg{suffix}", labels_of(seed))
    return folder


def one(root, **options):
    (case,) = list_brats(root, **options)
    return case


LAYOUTS = {
    "2018": "MICCAI_BraTS_2018_Data_Training/HGG/Brats18_CBICA_AAB_1",
    "2019 twice": "MICCAI_BraTS_2019_Data_Training/MICCAI_BraTS_2019_Data_Training/LGG/BraTS19_TCIA13_642_1",
    "2020": "BraTS20_Training_001",
    "2020 at Kaggle": "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData/BraTS20_Training_001",
    "2021": "BraTS2021_00000",
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("place", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_found_from_outside_and_from_inside(tmp_path, place, suffix):
    folder = make_case(tmp_path / place, suffix=suffix)
    for root in (tmp_path, folder.parent, folder):
        case = one(root)
        assert case.name == folder.name and case.has_mask and case.modalities == MODALITIES
    volume = case.load(("t2", "t1"))
    assert list(volume.images) == ["t2", "t1"] and volume.shape == SHAPE and volume.spacing == (1, 1, 1)
    assert volume.images["t2"].dtype == np.int16 and 200 <= volume.images["t2"].min() < 300
    assert np.array_equal(volume.mask, labels_of()[::-1, ::-1]) and volume.mask.dtype == np.uint8


def test_grade_patient_and_institution(tmp_path):
    make_case(tmp_path / LAYOUTS["2018"])
    make_case(tmp_path / LAYOUTS["2019 twice"])
    make_case(tmp_path / "BraTS2021_00000")
    low, late, high = sorted(list_brats(tmp_path), key=lambda case: case.patient)
    assert (high.patient, high.institution, high.facts) == ("Brats18_CBICA_AAB", "CBICA", {"grade": "HGG"})
    assert (low.patient, low.institution, low.facts) == ("BraTS19_TCIA13_642", "TCIA13", {"grade": "LGG"})
    assert (late.patient, late.institution, late.facts) == ("BraTS2021_00000", None, {})


def test_facts_of_the_tables_of_2020(tmp_path):
    for number in (1, 2, 84):
        make_case(tmp_path / f"BraTS20_Training_{number:03}")
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2019_subject_ID,TCGA_TCIA_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,BraTS19_TCIA13_642_1,TCGA-HT-8114,BraTS20_Training_001\nLGG,NA,NA,BraTS20_Training_002\n"
    )
    (tmp_path / "survival_info.csv").write_text(
        "Brats20ID,Age,Survival_days,Extent_of_Resection\r\nBraTS20_Training_001,60.463,289,GTR\r\n"
        "BraTS20_Training_084,61.622,ALIVE (361 days later),NA\r\n",
        newline="",
    )
    first, second, third = (case.facts for case in list_brats(tmp_path))
    assert first == {
        "grade": "HGG",
        "tcga": "TCGA-HT-8114",
        "age": 60.463,
        "survival_days": 289.0,
        "survival_censored": 0.0,
        "resection": "GTR",
    }
    assert second == {"grade": "LGG"}
    assert third == {"age": 61.622, "survival_days": 361.0, "survival_censored": 1.0}


def test_the_survival_table_of_2018_and_a_bad_one(tmp_path):
    make_case(tmp_path / LAYOUTS["2018"])
    table = tmp_path / "MICCAI_BraTS_2018_Data_Training" / "survival_data.csv"
    head = "BraTS18ID,Age,Survival,ResectionStatus\n"
    table.write_text(head + "Brats18_CBICA_AAB_1,50.5,12,STR\n")
    facts = one(tmp_path).facts
    assert (facts["age"], facts["survival_days"], facts["resection"]) == (50.5, 12.0, "STR")
    table.write_text(head + "Brats18_CBICA_AAB_1,50.5,long,STR\n")
    with pytest.raises(InputError, match=r"survival_data\.csv: expected days of survival .* found 'long'"):
        list_brats(tmp_path)
    table.write_text("Name,Age\na,1\n")
    with pytest.raises(InputError, match=r"expected a column like .* found Name, Age"):
        list_brats(tmp_path)


def test_the_misnamed_mask_of_case_355(tmp_path):
    folder = make_case(tmp_path / "BraTS20_Training_355", suffix=".nii")
    (folder / "BraTS20_Training_355_seg.nii").rename(folder / "W39_1998.09.19_Segm.nii")
    assert np.array_equal(one(tmp_path).load().mask, labels_of()[::-1, ::-1])
    shutil.copy(folder / "W39_1998.09.19_Segm.nii", folder / "BraTS20_Training_355_seg.nii")
    assert one(tmp_path).files["mask"][0].name == "BraTS20_Training_355_seg.nii"


def test_a_validation_set_has_no_masks(tmp_path):
    make_case(tmp_path / "Validation" / "BraTS20_Validation_001", mask=False)
    make_case(tmp_path / "Training" / "BraTS20_Training_001")
    training, validation = list_brats(tmp_path)
    assert training.has_mask and not validation.has_mask and validation.load().mask is None


def test_a_missing_modality_or_mask(tmp_path):
    bad = make_case(tmp_path / "BraTS2021_00002")
    make_case(tmp_path / "BraTS2021_00001")
    (bad / "BraTS2021_00002_t1ce.nii.gz").unlink()
    with pytest.raises(InputError, match=r"00002: expected one t1ce, .*_t1ce\.nii\.gz, found only .*_flair"):
        list_brats(tmp_path)
    good, skipped = check_cases(list_brats(tmp_path, skip_bad=True), skip_bad=True, progress=False)
    assert [case.name for case in good] == ["BraTS2021_00001"]
    assert [row["name"] for row in skipped] == ["BraTS2021_00002"]
    assert skipped[0]["reason"].startswith("BraTS2021_00002: expected one t1ce")
    shutil.rmtree(bad)
    make_case(bad, mask=False)
    with pytest.raises(InputError, match="00002: expected one mask"):
        list_brats(tmp_path)


def test_a_lone_training_case_without_its_mask(tmp_path):
    make_case(tmp_path / "BraTS20_Training_007", mask=False)
    with pytest.raises(InputError, match="BraTS20_Training_007: expected one mask"):
        list_brats(tmp_path)


def test_two_files_for_one_modality(tmp_path):
    folder = make_case(tmp_path / "BraTS2021_00001")
    save(folder / "BraTS2021_00001_t2.nii", np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match=r"one t2, .* found .*_t2\.nii and .*_t2\.nii\.gz; keep one"):
        list_brats(tmp_path)


def test_two_cases_of_one_name(tmp_path):
    make_case(tmp_path / "a" / "BraTS2021_00001")
    make_case(tmp_path / "b" / "BraTS2021_00001")
    make_case(tmp_path / "b" / "BraTS2021_00002")
    with pytest.raises(InputError, match=r"expected one case named BraTS2021_00001, found another in .*b;"):
        list_brats(tmp_path)
    good, skipped = check_cases(list_brats(tmp_path, skip_bad=True), skip_bad=True, progress=False)
    assert [case.name for case in good] == ["BraTS2021_00002"] and len(skipped) == 1


def test_no_case(tmp_path):
    with pytest.raises(InputError, match=r"expected BraTS cases .* found none"):
        list_brats(tmp_path)
    with pytest.raises(InputError, match="expected a folder of images, found none"):
        list_brats(tmp_path / "none")


def test_shapes_and_places_that_differ(tmp_path):
    folder = make_case(tmp_path / "BraTS2021_00001")
    image = nib.load(folder / "BraTS2021_00001_t2.nii.gz").get_fdata().astype(np.int16)
    path = folder / "BraTS2021_00001_t2.nii.gz"
    save(path, image[:, :, :8])
    with pytest.raises(InputError, match=r"_t2\.nii\.gz: expected the shape of .*_t1\.nii\.gz, \(7, 8, 9\)"):
        one(tmp_path).load()
    moved = LPS.copy()
    moved[2, 3] = 2.5
    save(path, image, moved)
    with pytest.raises(InputError, match=r"_t2\.nii\.gz: expected the affine .* differs by up to 2\.5"):
        one(tmp_path).load()
    assert one(tmp_path).load(("t1", "flair")).shape == SHAPE  # what is not asked for is not read
    assert one(tmp_path).load(()).shape == SHAPE  # the mask alone


def test_a_file_stored_the_other_way_round_lies_in_the_same_place(tmp_path):
    folder = make_case(tmp_path / "BraTS2021_00001")
    before = one(tmp_path).load()
    image = nib.load(folder / "BraTS2021_00001_t2.nii.gz")
    nib.save(nib.as_closest_canonical(image), folder / "BraTS2021_00001_t2.nii.gz")
    after = one(tmp_path).load()
    assert np.array_equal(before.images["t2"], after.images["t2"])


@pytest.mark.parametrize(
    ("values", "dtype", "found"),
    [
        ((0, 1, 2, 5), np.uint8, "0, 1, 2, 5; replace"),
        ((0, 1, 2, 3), np.uint8, "0, 1, 2, 3; if 3 marks enhancing tumour here, read with enhancing_label=3"),
        ((0, 1, 2, -1), np.int16, "-1, 0, 1, 2; replace"),
        ((0, 1, 2, 1.5), np.float32, "0, 1, 1.5, 2; replace"),
    ],
)
def test_labels_outside_the_set(tmp_path, values, dtype, found):
    folder = make_case(tmp_path / "BraTS2021_00001")
    mask = np.random.default_rng(0).choice(np.array(values, dtype), SHAPE)
    save(folder / "BraTS2021_00001_seg.nii.gz", mask)
    with pytest.raises(InputError, match=rf"_seg\.nii\.gz: expected labels 0, 1, 2 and 4, found {found}"):
        one(tmp_path).load()


def test_label_3_is_read_as_enhancing_only_when_asked(tmp_path):
    folder = make_case(tmp_path / "BraTS2021_00001")
    save(folder / "BraTS2021_00001_seg.nii.gz", labels_of(values=(0, 1, 2, 3)))
    mask = list_cases(tmp_path, enhancing_label=3)[0].load().mask
    assert mask.dtype == np.uint8 and np.array_equal(mask, labels_of()[::-1, ::-1])
    save(folder / "BraTS2021_00001_seg.nii.gz", labels_of())
    with pytest.raises(InputError, match="labels 0, 1, 2 and 3, found 0, 1, 2, 4; if 4 marks"):
        one(tmp_path, enhancing_label=3).load()


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_masks_of_other_types_become_uint8(tmp_path, dtype):
    folder = make_case(tmp_path / "BraTS2021_00001")
    save(folder / "BraTS2021_00001_seg.nii.gz", labels_of().astype(dtype))
    mask = one(tmp_path).load().mask
    assert mask.dtype == np.uint8 and np.array_equal(mask, labels_of()[::-1, ::-1])


def test_regions_by_hand():
    labels = np.array([[0, 1], [2, 4], [4, 0]], np.uint8)
    regions = labels_to_regions(labels)
    assert regions.dtype == bool
    assert regions[0].tolist() == [[False, True], [True, True], [True, False]]
    assert regions[1].tolist() == [[False, True], [False, True], [True, False]]
    assert regions[2].tolist() == [[False, False], [False, True], [True, False]]
    assert np.array_equal(regions_to_labels(regions), labels)
    # 4, 3 and 2 voxels of 1 x 2 x 5 mm
    expected = {"WT": 0.04, "TC": 0.03, "ET": 0.02}
    assert measure_volumes(regions, (1.0, 2.0, 5.0)) == pytest.approx(expected)


def test_regions_and_labels_are_inverse_and_the_inner_region_wins():
    assert np.array_equal(regions_to_labels(labels_to_regions(labels_of())), labels_of())
    lone = np.zeros((3, 2), bool)
    lone[2, 0] = lone[1, 1] = True
    assert regions_to_labels(lone).tolist() == [4, 1]
    with pytest.raises(InputError, match="first axis of WT, TC, ET"):
        regions_to_labels(np.zeros((4, 2, 2)))


def test_real_case(real_data):
    case = one(real_data / "brats2020")
    volume = case.load()
    assert case.name == "BraTS20_Training_133" and volume.shape == (240, 240, 155)
    assert volume.spacing == (1.0, 1.0, 1.0) and set(np.unique(volume.mask)) <= {0, 1, 2, 4}
    whole, core, enhancing = labels_to_regions(volume.mask)
    assert whole.sum() >= core.sum() >= enhancing.sum() > 0
