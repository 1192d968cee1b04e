"""Tumours of the phantom: gliomas inside the brain, and masses that push it from outside."""

from dataclasses import dataclass

import numpy as np

from fedutils.data.phantom_atlas import soft_step


@dataclass(frozen=True)
class Glioma:
    """What a glioma does to each voxel; all arrays have the shape of the grid.

    Attributes
    ----------
    necrosis, oedema, enhancing : float32, 0..1, fractions of the voxel
    blood : float32, 0..1, share of the necrosis that is clotted blood
    texture : float32, about 1, uneven signal of the necrosis
    uptake : float32, about 1, uneven uptake of contrast agent
    labels : uint8, BraTS: 0 none, 1 necrosis and non-enhancing core, 2 oedema, 4 enhancing
    high_grade : bool
    """

    necrosis: np.ndarray
    oedema: np.ndarray
    enhancing: np.ndarray
    blood: np.ndarray
    texture: np.ndarray
    uptake: np.ndarray
    labels: np.ndarray
    high_grade: bool


def make_glioma(rng, noise, r, radius, wm, csf, *, high_grade):
    """Grow an infiltrating tumour.

    Parameters
    ----------
    rng : numpy.random.Generator
    noise : SmoothNoise on the grid
    r : float32, distance to the centre over the radius of the core
    radius : float, mm, the core's radius
    wm, csf : float32, 0..1; oedema spreads along white matter and stops at CSF
    high_grade : bool; a high grade has necrosis in an enhancing ring, a low grade a core that hardly enhances

    Returns
    -------
    Glioma
    """
    broad, middle, fine = noise(0.75 * radius), noise(0.32 * radius), noise(2.2)
    lobes, clots = noise(0.5 * radius), noise(0.2 * radius + 1)
    spread = rng.uniform(0.52, 0.74)  # core radius over radius of the whole tumour
    core = r + 0.14 * broad + 0.07 * middle
    whole = r * spread + 0.11 * lobes + 0.05 * middle - 0.25 * (wm - 0.5)
    whole = whole + 3 * np.clip(r * spread - 1.25, 0, None)  # no far islands
    in_core = soft_step(core - 1, 0.05)
    in_whole = soft_step(whole - 1, 0.08) * (1 - 0.9 * (csf > 0.6))
    if high_grade:
        # The ring is thick here, thin there, at places open; strands cross the dead centre.
        ring = rng.uniform(0.28, 0.52)
        dead = soft_step(core + ring * (1 + 0.5 * lobes) + 0.10 * middle - 1, 0.06)
        strands = 0.7 * np.exp(-((clots / 0.22) ** 2)) * (broad > -0.2)
        necrosis = in_core * dead * (1 - strands)
    else:
        nodules = soft_step(1.25 - lobes, 0.1) if rng.random() < 0.4 else 0.0
        necrosis = in_core * (1 - nodules)
    enhancing = in_core - necrosis
    oedema = np.clip(in_whole - in_core, 0, 1)
    # Argmax of enhancing and dead inside the core, so that the labels follow what is seen.
    labels = np.where(in_whole > 0.5, 2, 0).astype(np.uint8)
    labels[in_core > 0.5] = np.where(enhancing > necrosis, 4, 1)[in_core > 0.5]
    bleeds = rng.random() < 0.5
    blood = soft_step(1.1 - clots, 0.15) if bleeds and high_grade else np.zeros_like(r)
    texture = 1 + 0.16 * clots + 0.10 * fine + 0.12 * broad
    uptake = np.clip(1 + 0.16 * clots + 0.08 * fine, 0.5, 1.5)
    return Glioma(necrosis, oedema, enhancing, blood, texture, uptake, labels, high_grade)


def paint_glioma(image, glioma, dead, wet, enhanced, clot):
    """Return the image with a glioma in it.

    Parameters
    ----------
    image : float32, the healthy tissue
    glioma : Glioma
    dead, wet, enhanced, clot : float, intensities of necrosis, oedema, enhancing tumour and blood
    """
    healthy = 1 - glioma.necrosis - glioma.oedema - glioma.enhancing
    centre = dead * glioma.texture * (1 - glioma.blood) + clot * glioma.blood
    # Oedema keeps a little of the tissue beneath, so that gyri still show through it.
    swollen = 0.75 * wet * (0.5 + 0.5 * glioma.texture) + 0.25 * image
    ring = enhanced * glioma.uptake
    return healthy * image + glioma.necrosis * centre + glioma.oedema * swollen + glioma.enhancing * ring


def make_mass(rng, noise, r, radius, lobes):
    """Make a well-bounded mass that enhances nearly evenly (meningioma, adenoma).

    Parameters
    ----------
    rng, noise, r, radius : as for `make_glioma`
    lobes : float, how far the edge departs from a circle, over the radius

    Returns
    -------
    inside : float32, 0..1, share of the mass in each voxel
    cleft : float32, 0..1, thin line of CSF around it
    uptake : float32, about 1, its texture
    """
    edge = r + lobes * noise(0.75 * radius)
    inside = soft_step(edge - 1, 0.05)
    cleft = 0.6 * np.exp(-(((edge - 1.13) / 0.07) ** 2))
    uptake = 1 + 0.04 * noise(0.4 * radius) + 0.03 * noise(2.0)
    if rng.random() < 0.2:  # a few calcified or cystic spots
        uptake = uptake - 0.5 * soft_step(1.6 - noise(0.3 * radius), 0.1)
    return inside, cleft, uptake
