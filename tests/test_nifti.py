import gzip

import nibabel as nib
import numpy as np
import pytest

from fedutils.data.nifti import read_nifti
from fedutils.errors import InputError

SHAPE = (7, 8, 9)


def voxels(dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(dtype)


def affine_of(axes, spacing=(1.0, 2.0, 3.0), origin=(-5.0, 6.0, 7.5)):
    """An affine whose voxel axes run towards `axes`, e.g. "LPS"."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, letter in enumerate(axes):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        affine[row, column] = spacing[column] * (1 if letter in "RAS" else -1)
    affine[:3, 3] = origin
    return affine


def write(path, array, affine=None, *, kind=nib.Nifti1Image, **header):
    image = kind(array, affine_of("RAS") if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def patch(path, field, value):
    """Set a field of the header of an uncompressed file behind nibabel's back."""
    data = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(data[:348]), check=False)
    header[field] = value
    data[:348] = header.binaryblock
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SLA", "PIR"])
def test_every_orientation_becomes_ras_as_nibabel_has_it(tmp_path, axes, suffix):
    path = write(tmp_path / f"v{suffix}", voxels(), affine_of(axes))
    array, affine = read_nifti(path)
    expected = nib.as_closest_canonical(nib.load(path))
    assert array.dtype == np.int16
    assert np.array_equal(array, np.asarray(expected.dataobj))
    assert np.allclose(affine, expected.affine)


def test_lps_by_hand(tmp_path):
    stored = voxels()
    array, affine = read_nifti(write(tmp_path / "v.nii", stored, affine_of("LPS", (1, 2, 3), (0, 0, 0))))
    assert np.array_equal(array, stored[::-1, ::-1])
    # Voxel 0 is now the last that was stored: 6 voxels of 1 mm to the left, 7 of 2 mm to the back.
    assert np.allclose(affine, [[1, 0, 0, -6], [0, 2, 0, -14], [0, 0, 3, 0], [0, 0, 0, 1]])


def test_nothing_is_copied_to_turn_a_volume(tmp_path):
    array, _ = read_nifti(write(tmp_path / "v.nii.gz", voxels(), affine_of("SLA")))
    assert not array.flags.writeable and not array.flags.owndata


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_types_stay_as_stored(tmp_path, dtype):
    stored = (voxels() % 200).astype(dtype)
    array, _ = read_nifti(write(tmp_path / "v.nii.gz", stored))
    assert array.dtype == dtype and np.array_equal(array, stored)


def test_wide_floats_become_float32(tmp_path):
    array, _ = read_nifti(write(tmp_path / "v.nii", voxels(np.float64) / 7))
    assert array.dtype == np.float32 and np.allclose(array, voxels() / 7)


def test_scaling_is_applied_only_where_it_is_asked_for(tmp_path):
    path = patch(write(tmp_path / "v.nii", voxels()), "scl_slope", 2)
    patch(path, "scl_inter", -3)
    array, _ = read_nifti(path)
    assert array.dtype == np.float32 and np.array_equal(array, voxels() * 2.0 - 3.0)
    patch(path, "scl_slope", 0)  # by the standard: no scaling, whatever the intercept
    assert read_nifti(path)[0].dtype == np.int16


def test_big_endian_and_nifti_2(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(voxels(), affine_of("LPS"), header), tmp_path / "big.nii")
    write(tmp_path / "two.nii.gz", voxels(), affine_of("LPS"), kind=nib.Nifti2Image)
    for name in ("big.nii", "two.nii.gz"):
        array, _ = read_nifti(tmp_path / name)
        assert array.dtype.isnative and np.array_equal(array, voxels()[::-1, ::-1])


def test_gzip_in_several_members(tmp_path):
    data = write(tmp_path / "v.nii", voxels()).read_bytes()
    parts = tmp_path / "parts.nii.gz"
    parts.write_bytes(gzip.compress(data[:600]) + gzip.compress(data[600:]) + gzip.compress(b""))
    assert np.array_equal(read_nifti(parts)[0], voxels())


def test_a_fourth_axis_of_one_is_dropped(tmp_path):
    path = write(tmp_path / "v.nii", voxels()[..., np.newaxis])
    assert read_nifti(path)[0].shape == SHAPE


def test_the_first_bytes_decide_whether_a_file_is_compressed(tmp_path):
    plain = write(tmp_path / "v.nii", voxels())
    renamed = plain.rename(tmp_path / "v.nii.gz")
    assert np.array_equal(read_nifti(renamed)[0], voxels())


def refuse(path, words, **options):
    with pytest.raises(InputError, match=words) as caught:
        read_nifti(path, **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_absent_and_foreign_files(tmp_path):
    refuse(tmp_path / "none.nii", "No such file")
    for content in (b"", b"PNG" * 200, b"\x5c\x01"):
        (tmp_path / "x.nii").write_bytes(content)
        refuse(tmp_path / "x.nii", f"expected a NIfTI file .*found {len(content)} bytes")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_truncated_gzip(tmp_path, kept):
    path = write(tmp_path / "v.nii.gz", voxels())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    refuse(path, "damaged or ends too soon")


def test_a_flipped_bit_in_gzip(tmp_path):
    path = write(tmp_path / "v.nii.gz", voxels())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))
    refuse(path, "damaged or ends too soon")


def test_truncated_voxels(tmp_path):
    path = write(tmp_path / "v.nii", voxels())
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    refuse(path, rf"expected {len(data)} bytes for 7x8x9 voxels of int16, found {len(data) - 10}")


def test_shapes_that_are_no_volume(tmp_path):
    refuse(write(tmp_path / "a.nii", np.zeros((7, 8, 9, 2), np.int16)), "3 axes, found shape 7x8x9x2")
    refuse(write(tmp_path / "b.nii", np.zeros((7, 8), np.int16)), "3 axes, found shape 7x8")


def test_bad_headers(tmp_path):
    refuse(patch(write(tmp_path / "a.nii", voxels()), "magic", b"ni1"), "another file")
    refuse(patch(write(tmp_path / "b.nii", voxels()), "datatype", 77), "data code 77 not recognized")
    refuse(patch(write(tmp_path / "c.nii", voxels()), "srow_x", [np.nan] * 4), "affine .* found nan")
    refuse(patch(write(tmp_path / "d.nii", voxels()), "srow_z", [0] * 4), "spans three axes")
    refuse(patch(write(tmp_path / "g.nii", voxels()), "vox_offset", np.nan), "begin at byte nan")
    path = patch(write(tmp_path / "e.nii", voxels()), "scl_slope", 1)
    refuse(patch(path, "scl_inter", np.inf), "finite scaling")
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refuse(write(tmp_path / "f.nii", colour), "integers or floats")


def test_a_header_with_flaws_says_nothing_on_the_side(tmp_path, caplog):
    path = write(tmp_path / "v.nii", voxels())
    patch(path, "pixdim", [1, 0, 2, 3, 1, 1, 1, 1])
    patch(path, "datatype", 77)
    refuse(path, "77")
    assert not caplog.records


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_voxels_that_are_not_finite(tmp_path, value, dtype):
    array = voxels(dtype)
    array[3, 4, 5] = array[0, 0, 0] = value
    refuse(write(tmp_path / "v.nii", array), "found 2 of 504 NaN or infinite")


def test_constant_images_are_refused_and_constant_masks_read(tmp_path):
    path = write(tmp_path / "v.nii.gz", np.full(SHAPE, 5, np.int16))
    refuse(path, "one value 5 in every voxel")
    assert (read_nifti(path, is_image=False)[0] == 5).all()
    almost = np.zeros((40, 41, 42), np.int16)
    almost[1, 2, 3] = 1  # hidden between the samples
    assert read_nifti(write(tmp_path / "w.nii", almost))[0].sum() == 1


def test_real_case(real_data):
    folder = real_data / "brats2020" / "BraTS20_Training_133"
    for path in sorted(folder.glob("*.nii.gz")):
        array, affine = read_nifti(path, is_image="seg" not in path.name)
        expected = nib.as_closest_canonical(nib.load(path))
        assert array.shape == (240, 240, 155) and np.array_equal(array, np.asarray(expected.dataobj))
        assert np.array_equal(affine, expected.affine)
