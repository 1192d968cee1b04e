"""The head around the brain, for two-dimensional slices: skull, scalp, face and neck.

The template has no face, so it is drawn from simple solids in MNI millimetres. It only has to look
plausible to a network and a reader; no measurement is taken in it.
"""

import numpy as np

from fedutils.data.phantom_atlas import soft_step

FAT, MUSCLE, MARROW, BONE, AIR, CSF = 0.95, 0.46, 0.75, 0.07, 0.02, 0.20
CORD = 0.62

_CAVITY_MM = 1.5  # from the brain's hull to the inner table of the skull
_VAULT_MM = 13.0  # from the brain's hull to the skin, over the vault
_FACE = (  # solids that carry the skin: centre, radii (mm)
    ((0, 30, -60), (62, 54, 68)),  # face
    ((0, 88, -54), (12, 19, 20)),  # nose
    ((0, 62, -104), (34, 28, 26)),  # mouth and chin
    ((0, -28, -120), (56, 56, 96)),  # neck
)
# Solids under the skin, painted in this order on |x|: centre, radii (mm), intensity.
_SOLIDS = (
    ((54, -2, -78), (8, 13, 22), 0.85),  # parotid gland
    ((0, 46, -106), (25, 32, 19), 0.52),  # tongue
    ((0, 50, -82), (22, 30, 4), BONE),  # hard palate
    ((0, 50, -82), (18, 26, 1.8), MARROW),
    ((46, 14, -82), (5, 15, 27), BONE),  # ramus of the mandible
    ((46, 14, -82), (2.6, 11, 23), MARROW),
    ((0, 84, -112), (26, 7, 11), BONE),  # chin
    ((0, 84, -112), (22, 4, 7), MARROW),
    ((24, 14, -70), (9, 14, 13), 0.60),  # pterygoid muscles and the fat beside them
    ((35, 14, -72), (2.5, 14, 14), 0.95),
    ((31, 55, -37), (18, 24, 17), FAT),  # orbit
    ((31, 64, -37), (12.5, 12.5, 12.5), 0.50),  # coat of the eye
    ((31, 64, -37), (11, 11, 11), 0.20),  # vitreous
    ((22, 56, -36), (2.5, 20, 6), MUSCLE),  # eye muscles
    ((40, 56, -36), (2.5, 20, 6), MUSCLE),
    ((31, 40, -36), (2.5, 16, 2.5), 0.55),  # optic nerve
    ((26, 52, -65), (14, 17, 16), AIR),  # maxillary sinus
    ((5, 58, -58), (5, 26, 20), 0.60),  # nasal cavity: turbinates in air
    ((9, 56, -54), (4, 24, 22), AIR),
    ((2.5, 58, -66), (1.6, 24, 12), AIR),
    ((7, 46, -42), (7, 16, 8), AIR),  # ethmoid cells
    ((0, 16, -76), (9, 5, 14), AIR),  # pharynx
    ((0, 6, -104), (9, 4, 26), AIR),
    ((16, 78, 2), (13, 4, 10), AIR),  # frontal sinus
    ((38, -24, -46), (22, 11, 9), BONE),  # petrous bone
    ((54, -36, -46), (8, 13, 14), 0.14),  # mastoid
    ((0, 22, -44), (16, 14, 11), 0.40),  # sphenoid bone, then its sinus
    ((0, 22, -44), (13, 11.5, 8.5), AIR),
)


def _inside(points, centre, radii, edge=0.8):
    """Return the soft mask (0..1) of an ellipsoid; `edge` in mm."""
    r = sum(((p - c) / a) ** 2 for p, c, a in zip(points, centre, radii, strict=True))
    return soft_step((np.sqrt(r) - 1) * min(radii), edge)


def _paint(image, mask, value):
    """Blend `value` into the image where the mask is."""
    image += mask * (value - image)


def make_head(points, hull, noise, rng):
    """Draw the head around an empty brain.

    Parameters
    ----------
    points : sequence of three float32 arrays of one shape, MNI mm
    hull : float32, mm, signed distance to the hull of the brain
    noise : SmoothNoise on the same grid
    rng : numpy.random.Generator

    Returns
    -------
    image : float32, intensity on contrast-enhanced T1, white matter about 0.75; CSF in the brain's place
    inside : float32, 0..1, the head
    """
    x, y, z = points
    side = [np.abs(x), y, z]
    image = _make_soft_tissue(noise)
    for centre, radii, value in _SOLIDS:
        _paint(image, _inside(side, centre, radii), value)
    _paint_spine(image, x, y, z)

    skin = _skin_distance(points, hull) + 0.8 * noise(30)
    fat_mm = rng.uniform(3.0, 6.5) + 0.8 * noise(40) + np.clip(-(y + 60) / 15, 0, 4) * (z < -50)
    _paint(image, soft_step(-(skin + fat_mm), 0.5), FAT * (1 + 0.06 * noise(8)))
    _paint(image, soft_step(-(skin + 1.3), 0.4), 0.55)  # skin
    inside = soft_step(skin, 0.4)
    image *= inside

    # The skull is open below: the cord leaves through the foramen magnum.
    foramen = _inside(points, (0, -42, -70), (13, 15, 16), 1.0)
    skull_mm = rng.uniform(4.5, 7.5) + 0.8 * noise(40)
    skull = soft_step(hull - _CAVITY_MM - skull_mm, 0.5) * (1 - foramen)
    marrow = np.exp(-(((hull - _CAVITY_MM - skull_mm / 2) / (0.24 * skull_mm)) ** 2))
    bone = BONE + (0.42 + 0.12 * noise(9)) * marrow
    # In the base the air cells and sinuses go on into the bone, so it hides only part of them.
    base = soft_step(z + 28, 4)
    _paint(image, skull * (1 - 0.55 * base * (hull > 3)), bone)
    clivus = _inside((x, y - 0.42 * (z + 46), z), (0, -9, -48), (11, 6, 18))
    _paint(image, clivus, MARROW)
    _paint(image, soft_step(hull - _CAVITY_MM, 0.5), CSF)
    _paint_vessels(image, x, y, z, hull, noise)
    return image.astype(np.float32), inside


def _make_soft_tissue(noise):
    """Return muscle with fascia: smooth, without grain."""
    planes = np.exp(-((noise(12) / 0.24) ** 2)) * np.clip(0.5 + 0.5 * noise(20), 0, 1)
    return MUSCLE * (1 + 0.08 * noise(7)) + 0.18 * planes


def _skin_distance(points, hull):
    """Return the signed distance (mm) to the skin, negative inside: the smooth union of the solids."""
    blend = 4.0
    total = np.exp(-np.clip((hull - _VAULT_MM) / blend, -30, 30))
    for centre, radii in _FACE:
        r = np.sqrt(sum(((p - c) / a) ** 2 for p, c, a in zip(points, centre, radii, strict=True)))
        total = total + np.exp(-np.clip((r - 1) * min(radii) / blend, -30, 30))
    return -blend * np.log(total)


def _paint_spine(image, x, y, z):
    """Draw the cervical spine with its canal and cord."""
    back = y + 0.10 * (z + 80)  # the spine leans a little forward on its way down
    level = (z + 74) / 17  # one vertebra and disc each 17 mm
    below = soft_step(z + 70, 1.5)
    body = soft_step(np.maximum(np.abs(x) - 11, np.abs(back + 14) - 9), 0.8) * below
    disc = np.exp(-(((level - np.round(level)) * 17 / 2.6) ** 2))
    edge = soft_step(np.maximum(np.abs(x) - 9.5, np.abs(back + 14) - 7.5), 0.8)
    _paint(image, body, BONE + (MARROW - BONE) * edge * (1 - 0.75 * disc))
    canal = soft_step(np.hypot(x, back + 35) - 9, 0.8) * below
    _paint(image, canal, CSF)
    _paint(image, soft_step(np.hypot(x, back + 35) - 5.5, 0.6) * below, CORD)
    spines = soft_step(np.maximum(np.abs(x) - 3, np.abs(back + 56) - 10), 0.8) * below
    _paint(image, spines * (1 - disc), MARROW)


def _paint_vessels(image, x, y, z, hull, noise):
    """Draw what takes up contrast agent in every head: sinus, dura, carotids, normal pituitary."""
    sagittal_sinus = np.exp(-((x / 3.5) ** 2) - (hull / 2.2) ** 2) * ((z > -5) | (y < -75))
    dura = 0.45 * np.exp(-(((hull - 1.2) / 0.9) ** 2)) * (0.6 + 0.4 * np.tanh(noise(20)))
    cavernous = _inside((np.abs(x), y, z), (12, 2, -33), (5, 10, 6)) * (0.75 + 0.1 * noise(6))
    gland = _inside((x, y, z), (0, 3, -35), (6, 5, 3.5)) * 0.9
    for bright in (sagittal_sinus, dura, cavernous, gland):
        np.maximum(image, bright, out=image)
    _paint(image, _inside((np.abs(x), y, z), (13, 3, -32), (2.4, 6, 2.4), 0.5), 0.08)  # flow void
