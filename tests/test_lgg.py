import numpy as np
import pytest
from PIL import Image

from fedutils.data.layouts import check_cases
from fedutils.data.lgg import list_lgg
from fedutils.errors import InputError

NAME = "TCGA_CS_4941_19960909"
ROWS, COLUMNS = 6, 5


def slice_pixels(number, seed=0):
    return np.random.default_rng([seed, number]).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)


def slice_mask(number, seed=0):
    return np.random.default_rng([seed, number, 1]).choice(np.array([0, 255], np.uint8), (ROWS, COLUMNS))


def make_case(root, name=NAME, numbers=range(1, 13), *, change=None, seed=0):
    folder = root / name
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = slice_pixels(number, seed)
        if change:
            change(pixels)
        Image.fromarray(pixels).save(folder / f"{name}_{number}.tif", compression="tiff_lzw")
        Image.fromarray(slice_mask(number, seed)).save(folder / f"{name}_{number}_mask.tif")
    return folder


def one(root, **options):
    (case,) = list_lgg(root, **options)
    return case


def test_slices_are_sorted_by_number_and_turned_to_right_front_top(tmp_path):
    make_case(tmp_path / "kaggle_3m")
    volume = one(tmp_path).load()
    assert list(volume.images) == ["pre", "flair", "post"] and volume.shape == (COLUMNS, ROWS, 12)
    assert volume.affine is None and volume.spacing is None and volume.missing == ()
    for number in range(1, 13):
        for channel, name in enumerate(volume.images):
            # Row 0 is the front and column 0 the patient's right: both run against X and Y.
            expected = slice_pixels(number)[::-1, ::-1, channel].T
            assert np.array_equal(volume.images[name][:, :, number - 1], expected)
        mask = (slice_mask(number)[::-1, ::-1] == 255).T
        assert np.array_equal(volume.mask[:, :, number - 1], mask)
    assert volume.mask.dtype == np.uint8


def test_a_spot_at_the_patients_right_front_is_at_the_far_end_of_x_and_y(tmp_path):
    def mark(pixels):
        pixels[...] = 0
        pixels[0, 0] = (10, 20, 30)  # the upper left corner of the picture

    make_case(tmp_path, numbers=[1, 2], change=mark)
    volume = one(tmp_path).load(("post", "flair"))
    assert list(volume.images) == ["post", "flair"]
    assert np.argwhere(volume.images["flair"][:, :, 0]).tolist() == [[COLUMNS - 1, ROWS - 1]]
    assert volume.images["post"].max() == 30


def test_name_patient_institution_and_facts(tmp_path):
    root = tmp_path / "lgg-mri-segmentation" / "kaggle_3m"
    make_case(root)
    make_case(root, "TCGA_EZ_7264_20010816", numbers=[1, 2])
    (root / "data.csv").write_text(
        "Patient,RNASeqCluster,gender,age_at_initial_pathologic,death01\nTCGA_CS_4941,2,,67,1\n"
    )
    first, second = list_lgg(tmp_path)
    assert (first.name, first.patient, first.institution) == (NAME, "TCGA_CS_4941", "CS")
    assert first.facts == {"RNASeqCluster": "2", "age_at_initial_pathologic": 67.0, "death01": "1"}
    assert second.institution == "EZ" and second.facts == {}
    assert one(root / NAME).name == NAME


@pytest.mark.parametrize(
    ("copied", "missing"), [((0,), ("pre",)), ((2,), ("post",)), ((0, 2), ("pre", "post"))]
)
def test_a_sequence_that_is_a_copy_of_flair_is_missing(tmp_path, copied, missing):
    def change(pixels):
        for channel in copied:
            pixels[..., channel] = pixels[..., 1]

    make_case(tmp_path, change=change)
    volume = one(tmp_path).load(("flair",))  # told whatever was asked for
    assert volume.missing == missing


def test_one_equal_slice_does_not_make_a_sequence_missing(tmp_path):
    folder = make_case(tmp_path)
    pixels = slice_pixels(3)
    pixels[...] = pixels[..., 1:2]
    Image.fromarray(pixels).save(folder / f"{NAME}_3.tif")
    assert one(tmp_path).load().missing == ()


def refuse(root, words):
    with pytest.raises(InputError, match=words) as caught:
        one(root).load()
    assert "\n" not in str(caught.value)


def test_masks_and_slices_that_do_not_match(tmp_path):
    folder = make_case(tmp_path)
    moved = (folder / f"{NAME}_4_mask.tif").rename(folder / f"{NAME}_14_mask.tif")
    refuse(tmp_path, f"{NAME}: expected a slice for every mask, found none for mask 14")
    moved.unlink()
    refuse(tmp_path, f"{NAME}: expected a mask for every slice, found none for slice 4")


def test_a_gap_and_a_foreign_file(tmp_path):
    folder = make_case(tmp_path, numbers=[1, 2, 4, 6])
    refuse(tmp_path, "slices 1 to 6 without a gap, found no slice 3, 5")
    Image.new("L", (COLUMNS, ROWS)).save(folder / "TCGA_DU_5849_19950405_3.tif")
    refuse(tmp_path, r"TCGA_DU_5849_19950405_3\.tif: expected TCGA_CS_4941_19960909_<slice>\.tif")


def test_a_case_without_masks_among_others_with(tmp_path):
    folder = make_case(tmp_path, numbers=[1, 2])
    for path in folder.glob("*_mask.tif"):
        path.unlink()
    assert not one(tmp_path).has_mask and one(tmp_path).load().mask is None
    make_case(tmp_path, "TCGA_EZ_7264_20010816", numbers=[1, 2])
    with pytest.raises(InputError, match=f"{NAME}: expected a mask for every slice"):
        list_lgg(tmp_path)
    good, skipped = check_cases(list_lgg(tmp_path, skip_bad=True), skip_bad=True, progress=False)
    assert [case.name for case in good] == ["TCGA_EZ_7264_20010816"]
    assert skipped == [
        {
            "name": NAME,
            "reason": f"{NAME}: expected a mask for every slice, found none for slice 1, 2; "
            "restore it, or set skip_bad: true",
        }
    ]


def test_sizes_that_differ(tmp_path):
    folder = make_case(tmp_path)
    Image.fromarray(slice_pixels(2)[:4]).save(folder / f"{NAME}_2.tif")
    refuse(tmp_path, rf"{NAME}_2\.tif: expected 6x5 pixels, as in the first slice, found 4x5")
    Image.fromarray(slice_pixels(2)).save(folder / f"{NAME}_2.tif")
    Image.fromarray(slice_mask(3)[:, :3]).save(folder / f"{NAME}_3_mask.tif")
    refuse(tmp_path, rf"{NAME}_3_mask\.tif: expected 6x5 pixels.* found 6x3")


def test_modes_values_and_constant_channels(tmp_path):
    folder = make_case(tmp_path)
    Image.fromarray(slice_pixels(2)[..., 0]).save(folder / f"{NAME}_2.tif")
    refuse(tmp_path, r"_2\.tif: expected 8-bit RGB .* found mode L")
    Image.fromarray(slice_pixels(2)).save(folder / f"{NAME}_2.tif")
    Image.fromarray(np.full((ROWS, COLUMNS), 7, np.uint8)).save(folder / f"{NAME}_5_mask.tif")
    refuse(tmp_path, r"_5_mask\.tif: expected a mask of 0 and 255, found 7")


def test_a_constant_channel(tmp_path):
    def change(pixels):
        pixels[..., 2] = 9

    make_case(tmp_path, change=change)
    refuse(tmp_path, "expected an image in channel post, found the one value 9")


@pytest.mark.parametrize("compression", ["tiff_lzw", "raw"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_a_truncated_tiff(tmp_path, recwarn, compression, kept):
    folder = make_case(tmp_path)
    path = folder / f"{NAME}_7.tif"
    Image.fromarray(slice_pixels(7)).save(path, compression=compression)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    refuse(tmp_path, rf"{NAME}_7\.tif: expected a readable TIFF, found: ")
    assert not recwarn.list  # the error is all that is said


def test_real_cases(real_data):
    cases = list_lgg(real_data / "kaggle_3m")
    assert len(cases) == len({case.patient for case in cases}) == 21
    sizes = {}
    for case in cases:
        sizes[case.institution] = sizes.get(case.institution, 0) + 1
    assert sizes == {"CS": 4, "DU": 6, "EZ": 1, "FG": 4, "HT": 6}
    assert cases[0].facts["age_at_initial_pathologic"] == 67.0
    volume = min(cases, key=lambda case: len(case.files["slices"])).load()
    assert volume.shape[:2] == (256, 256) and volume.mask.max() == 1


def test_the_table_s_laterality_agrees_with_the_orientation_on_real_cases(real_data):
    sides = {"1": -1, "3": 1}  # TCGA's left and right; 2 is the midline
    agree = []
    for case in list_lgg(real_data / "kaggle_3m"):
        if case.facts.get("laterality") in sides:
            volume = case.load(("flair",))
            inside = volume.images["flair"] > 20
            tumour, head = (np.argwhere(array)[:, 0].mean() for array in (volume.mask, inside))
            agree.append((tumour - head) * sides[case.facts["laterality"]] > 0)
            # From the feet up: the last slice cuts the top of the head, or lies above it.
            area = inside.sum(axis=(0, 1))
            assert area[-1] < area[len(area) // 2] / 2
    assert len(agree) == 20 and all(agree)
