"""Read a NIfTI volume fast and with care: about the time of its decompression, every fault named in one line.

The file is inflated by one call into one buffer, and the voxels are a view of it: nothing is copied to bring
them to one orientation, nor to scale them where the file asks for none.
"""

import gzip
import logging
import math
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError

from fedutils.errors import InputError

_GZIP = b"\x1f\x8b"
_LARGEST_GUESS = 2**28  # bytes: a damaged file may claim any size, and a larger one only grows its buffer
_SAMPLES = 4096

# nibabel logs what it finds wrong in a header and raises it too; we raise one line, and log nothing.
_silent = logging.Logger("fedutils.nifti")
_silent.addHandler(logging.NullHandler())


def read_nifti(path: Path, *, is_image: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Read a ``.nii`` or ``.nii.gz`` volume in canonical orientation.

    Parameters
    ----------
    path : Path
        Compressed or not: the first bytes decide, not the name.
    is_image : bool
        Refuse a constant volume, which no scanner gives; a mask may well be constant.

    Returns
    -------
    array : (X, Y, Z)
        As stored (e.g. int16 or uint8); float32 where the file asks for scaling or holds wider floats. The
        axes point to the patient's right, front and top (RAS+). A read-only view in Fortran order, whose
        strides may be negative: copy it to write into it.
    affine : float64 (4, 4)
        From voxel of `array` to mm.

    Raises
    ------
    InputError
        If the file is absent, truncated, damaged, or no NIfTI; if it is not 3-D (trailing axes of length 1
        are dropped); if its affine or a voxel is not finite; if it is an image of one value.
    """
    path = Path(path)
    data = _read_bytes(path)
    header = _parse_header(path, data)
    array = _scale(path, header, _view_voxels(path, header, data))
    if is_image and _is_constant(array):
        raise InputError(
            f"{path}: expected an image, found the one value {array.flat[0]} in every voxel; replace the file"
        )
    affine = _get_affine(path, header)
    turn = io_orientation(affine)
    return apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)


def _read_bytes(path: Path) -> bytes:
    """Return the content of a file, decompressed if it is compressed."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable NIfTI file, found: {error.strerror}; restore or replace it"
        ) from error
    if not data.startswith(_GZIP):
        return data
    size = int.from_bytes(data[-4:], "little")  # gzip's own last word: the size before compression
    try:
        inflated = zlib.decompress(data, wbits=31, bufsize=max(1, min(size, _LARGEST_GUESS)))
        if len(inflated) % 2**32 != size:  # several members (bgzip), or padding behind the last
            inflated = gzip.decompress(data)
    except (zlib.error, EOFError, OSError) as error:
        raise InputError(
            f"{path}: expected a whole gzip file, found one that is damaged or ends too soon ({error}); "
            "download it again"
        ) from error
    return inflated


def _parse_header(path: Path, data: bytes) -> nib.Nifti1Header:
    """Return the checked header of a single-file NIfTI-1 or NIfTI-2."""
    sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header if 348 in sizes else None
    problem = None
    if kind is None or len(data) < kind.sizeof_hdr:
        problem = f"{len(data)} bytes that do not begin with its header"
    else:
        header = kind(data[: kind.sizeof_hdr], check=False)
        try:
            header.check_fix(logger=_silent, error_level=40)
        except HeaderDataError as error:
            problem = str(error)
        else:
            if not np.isfinite(header["vox_offset"]):
                problem = f"voxels that begin at byte {header['vox_offset']}"
            elif header["magic"].item() != header.single_magic:
                problem = "a header whose voxels lie in another file (.hdr and .img)"
    if problem:
        raise InputError(f"{path}: expected a NIfTI file (.nii or .nii.gz), found {problem}; replace it")
    return header


def _view_voxels(path: Path, header: nib.Nifti1Header, data: bytes) -> np.ndarray:
    """Return the voxels as stored, a view of `data` in the machine's byte order."""
    shape = header.get_data_shape()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: expected a volume of 3 axes, found shape {_show(shape)}; replace the file")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: expected voxels of integers or floats, found {dtype}; replace the file")
    offset, count = int(header.get_data_offset()), math.prod(shape)
    expected = offset + count * dtype.itemsize
    if len(data) < expected:
        raise InputError(
            f"{path}: expected {expected} bytes for {_show(shape)} voxels of {dtype}, found {len(data)}; "
            "the file ends too soon, download it again"
        )
    array = np.frombuffer(data, dtype, count, offset).reshape(shape, order="F")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _scale(path: Path, header: nib.Nifti1Header, array: np.ndarray) -> np.ndarray:
    """Return the voxels in the file's units, finite."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise InputError(f"{path}: expected a finite scaling, found: {error}; replace the file") from error
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found and named below
        if slope not in (None, 1.0) or intercept not in (None, 0.0):
            array = array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        elif array.dtype.kind == "f" and array.dtype.itemsize > 4:
            array = array.astype(np.float32)
        # The extremes carry every NaN and infinity, and cost less than a test of each voxel.
        if array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
            bad = int((~np.isfinite(array)).sum())
            raise InputError(
                f"{path}: expected finite voxels, found {bad} of {array.size} NaN or infinite; replace it"
            )
    return array


def _get_affine(path: Path, header: nib.Nifti1Header) -> np.ndarray:
    """Return the header's affine, float64 (4, 4), finite and invertible."""
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: expected a valid orientation, found: {error}; mend its header") from error
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        rows = " / ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3])
        raise InputError(
            f"{path}: expected a finite affine that spans three axes, found {rows}; mend its header"
        )
    return affine


def _is_constant(array: np.ndarray) -> bool:
    """Return whether all voxels are equal; a sample settles it for nearly every image."""
    flat = array.ravel(order="K")  # a view: the file's own order
    sample = flat[:: max(1, flat.size // _SAMPLES)]
    return bool(sample.min() == sample.max() and flat.min() == flat.max())


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(str(int(side)) for side in shape)
