"""Three-dimensional phantom case: four skull-stripped modalities and a segmentation, as in BraTS."""

import numpy as np

from fedutils.data.phantom_atlas import SmoothNoise, load_atlas, make_tissues
from fedutils.data.phantom_scanner import HOSPITALS, apply_scanner, hospital_index
from fedutils.data.phantom_tumour import make_glioma, paint_glioma
from fedutils.errors import InputError

MODALITIES = ("t1", "t1ce", "t2", "flair")
VOXEL_MM_RANGE = (1.0, 6.0)
HIGH_GRADE_SHARE = 0.78  # about 293 of the 369 cases of BraTS 2020

_GRID_MM = (240, 240, 155)
_BOX_MM = np.array([152, 188, 150])  # the part of the grid that can hold brain
_CENTRE_MM = np.array([120.0, 131.0, 76.0])  # where BraTS has the middle of the brain
_MNI_CENTRE = np.array([0, -18, 5], np.float32)
# Relative intensities. BraTS is T1, contrast-enhanced T1, T2 and FLAIR after skull stripping.
_TISSUE = {  # CSF, grey matter, white matter
    "t1": (0.26, 0.62, 0.86),
    "t1ce": (0.26, 0.64, 0.84),
    "t2": (1.00, 0.56, 0.42),
    "flair": (0.16, 0.62, 0.50),
}
_TUMOUR = {  # necrosis, oedema, enhancing tumour, blood; then the core of a low grade
    "t1": (0.40, 0.56, 0.58, 0.95, 0.50),
    "t1ce": (0.38, 0.56, 1.25, 0.95, 0.48),
    "t2": (0.92, 0.84, 0.68, 0.38, 0.96),
    "flair": (0.52, 0.98, 0.82, 0.50, 0.86),
}


def case_grid(voxel_mm):
    """Return the shape and the affine of a case.

    At 1 mm they are those of BraTS 2020; at other sizes the grid covers the same box.

    Parameters
    ----------
    voxel_mm : float, 1 to 6

    Returns
    -------
    shape : tuple of three int
    affine : float64 (4, 4), voxel to RAS mm

    Raises
    ------
    InputError
        If the voxel size is out of range.
    """
    low, high = VOXEL_MM_RANGE
    if not low <= voxel_mm <= high:
        raise InputError(
            f"bad voxel size: expected {low:g} to {high:g} mm, found {voxel_mm!r}; choose one in that range"
        )
    shape = tuple(round(n / voxel_mm) for n in _GRID_MM)
    shift = (voxel_mm - 1) / 2  # the corner of the grid stays, so the first centre moves
    affine = np.diag([-voxel_mm, -voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = [-shift, 239 - shift, shift]
    return shape, affine


def is_high_grade(index, *, seed=2020) -> bool:
    """Return whether a case is a high-grade glioma; drawn without making the case."""
    return bool(np.random.default_rng([seed, 30, index]).random() < HIGH_GRADE_SHARE)


def make_case(index, hospital, *, voxel_mm=1.0, seed=2020):
    """Make one case. The same arguments give the same arrays; the anatomy does not depend on the hospital.

    Parameters
    ----------
    index : int, at least 0, the patient
    hospital : int 0 to 4, or the name of one of `HOSPITALS`
    voxel_mm : float, 1 to 6; 1 gives the BraTS grid
    seed : int, at least 0

    Returns
    -------
    dict of arrays of one shape, (240, 240, 155) at 1 mm
        "t1", "t1ce", "t2", "flair" : float32, 0 outside the brain, about 1 in white matter on T1;
        "seg" : uint8, 0 background, 1 necrosis and non-enhancing core, 2 oedema, 4 enhancing.

    Raises
    ------
    InputError
        If the hospital, the index or the voxel size is not valid.
    """
    if index < 0:
        raise InputError(f"bad case index: expected 0 or more, found {index}; choose another")
    hospital = hospital_index(hospital)
    shape, _ = case_grid(voxel_mm)
    start = np.floor((_CENTRE_MM - _BOX_MM / 2) / voxel_mm).astype(int)
    stop = np.minimum(np.ceil((_CENTRE_MM + _BOX_MM / 2) / voxel_mm).astype(int), shape)
    axes = [  # mm from the corner of the box
        ((np.arange(a, b) + 0.5) * voxel_mm - c + e / 2).astype(np.float32)
        for a, b, c, e in zip(start, stop, _CENTRE_MM, _BOX_MM, strict=True)
    ]
    rng = np.random.default_rng([seed, 31, index])
    images, brain, labels = _make_anatomy(rng, axes, is_high_grade(index, seed=seed))
    scan = np.random.default_rng([seed, 32, index, hospital])
    case = {}
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    for name in MODALITIES:
        image = apply_scanner(
            scan, images[name], HOSPITALS[hospital], axes, _BOX_MM, mask=brain, slice_axis=2
        )
        case[name] = np.zeros(shape, np.float32)
        case[name][box] = image
    case["seg"] = np.zeros(shape, np.uint8)
    case["seg"][box] = labels
    return case


def _make_anatomy(rng, axes, high_grade):
    """Return ideal images by modality, the brain mask and the labels, all in the box."""
    atlas, noise = load_atlas(), SmoothNoise(rng, axes, _BOX_MM)
    scale = 1.15 * (1 + 0.035 * rng.standard_normal(3))  # template mm per subject mm
    turn = rng.normal(0, 0.05, 3)
    rotation = np.eye(3) + np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    mirror = np.array([-1, -1, 1])  # BraTS counts voxels to the left and to the back
    site = atlas.tumour_sites[rng.integers(len(atlas.tumour_sites))]
    centre = np.linalg.solve(rotation, site - _MNI_CENTRE) / scale * mirror
    radius = rng.uniform(10, 24)
    stretch = rng.uniform(0.8, 1.25, 3)
    grid = [
        (a - e / 2).reshape([-1 if k == i else 1 for k in range(3)])
        for i, (a, e) in enumerate(zip(axes, _BOX_MM, strict=True))
    ]
    away = [g - np.float32(c) for g, c in zip(grid, centre, strict=True)]
    r2 = sum((d * np.float32(s)) ** 2 for d, s in zip(away, stretch, strict=True))
    # Mass effect: tissue near the tumour is sampled from nearer its centre.
    push = np.float32(0.20) * np.exp(-r2 / np.float32(2 * (1.7 * radius) ** 2))
    local = [(g - push * d) * np.float32(m * s) for g, d, m, s in zip(grid, away, mirror, scale, strict=True)]
    points = [
        sum(np.float32(rotation[i, k]) * local[k] for k in range(3))
        + _MNI_CENTRE[i]
        + np.float32(1.8) * noise(22)
        + np.float32(2.0) * noise(50)
        for i in range(3)
    ]
    t1, gm, wm = (atlas.sample(points, name) for name in ("t1", "gm", "wm"))
    (csf, grey, white), brain, nuclei = make_tissues(t1, gm, wm, noise)

    # Everything of the tumour is within 3.2 core radii: work in that part alone.
    near = tuple(
        slice(*np.searchsorted(a - e / 2, [c - 3.2 * radius / s, c + 3.2 * radius / s]))
        for a, e, c, s in zip(axes, _BOX_MM, centre, stretch, strict=True)
    )
    tumour_noise = SmoothNoise(rng, [a[s] for a, s in zip(axes, near, strict=True)], _BOX_MM)
    glioma = make_glioma(
        rng,
        tumour_noise,
        np.sqrt(r2[near]) / np.float32(radius),
        radius,
        wm[near],
        csf[near],
        high_grade=high_grade,
    )
    labels = np.zeros(t1.shape, np.uint8)
    labels[near] = glioma.labels * brain[near]
    images = {}
    texture = 1 + np.float32(0.04) * noise(3)
    for name in MODALITIES:
        tissue = _TISSUE[name]
        image = tissue[0] * csf + tissue[1] * grey + tissue[2] * white
        if name in ("t1", "t1ce"):
            image *= nuclei
        dead, wet, enhanced, clot, low_grade = _TUMOUR[name]
        image[near] = paint_glioma(
            image[near], glioma, dead if high_grade else low_grade, wet, enhanced, clot
        )
        images[name] = (image * texture).astype(np.float32)
    return images, brain, labels
