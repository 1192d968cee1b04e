"""Phantom slices: contrast-enhanced T1 of a head with one of three tumours, or with none.

View, position of the slice and hospital are drawn from one distribution for all classes, in three
slabs around the sella where each class can occur; the class has to be read from the tumour.
"""

from dataclasses import dataclass

import numpy as np

from fedutils.data.phantom_atlas import SmoothNoise, load_atlas, make_tissues, soft_step
from fedutils.data.phantom_head import CSF, make_head
from fedutils.data.phantom_scanner import HOSPITALS, apply_scanner, hospital_index
from fedutils.data.phantom_tumour import make_glioma, make_mass, paint_glioma
from fedutils.errors import InputError

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SPLITS = ("Training", "Testing")
VIEWS = ("axial", "coronal", "sagittal")
SLABS_MM = {"axial": (-36.0, -18.0), "coronal": (-6.0, 14.0), "sagittal": (-10.0, 10.0)}
SIZE_RANGE = (32, 1024)

_IN_PLANE = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
_MIDDLE = np.array([0.0, -18.0, -4.0])  # MNI mm, about the middle of the picture
_SELLA = np.array([0.0, 4.0, -32.0])  # MNI mm
_EXTENT = (240.0, 240.0)  # mm, nominal, so that noise does not depend on the field of view
_COARSE = 96  # samples a side of the grid on which tumours are placed


@dataclass(frozen=True)
class SliceRecord:
    """What is drawn before a slice is made, none of which depends on the class.

    Attributes
    ----------
    view : "axial", "coronal" or "sagittal"
    position_mm : float, MNI coordinate of the slice along its normal
    hospital : int, position in `HOSPITALS`
    """

    view: str
    position_mm: float
    hospital: int


def draw_slice(label, index, split, *, hospital=None, seed=7) -> SliceRecord:
    """Draw view, position and hospital of a slice; costs microseconds.

    Parameters
    ----------
    label : one of `CLASSES`
    index : int, at least 0
    split : "Training" or "Testing"
    hospital : int, name, or None to draw it; view and position stay the same
    seed : int, at least 0

    Raises
    ------
    InputError
        If an argument is not valid.
    """
    rng = _generator(0, label, index, split, seed)
    view = VIEWS[rng.integers(len(VIEWS))]
    position = float(rng.uniform(*SLABS_MM[view]))
    drawn = int(rng.integers(len(HOSPITALS)))
    return SliceRecord(view, position, drawn if hospital is None else hospital_index(hospital))


def make_slice(label, index, split, *, hospital=None, size=256, seed=7):
    """Make one slice. The same arguments give the same image.

    Parameters
    ----------
    label : one of `CLASSES`
    index : int, at least 0
    split : "Training" or "Testing"; the two share no image
    hospital : int, name, or None for the drawn one; it changes the scanner, not the anatomy
    size : int, pixels a side, 32 to 1024
    seed : int, at least 0

    Returns
    -------
    uint8 (size, size), first axis from the top of the picture; an axial slice has the face at the top.

    Raises
    ------
    InputError
        If an argument is not valid.
    """
    low, high = SIZE_RANGE
    if not low <= size <= high:
        raise InputError(f"bad image size: expected {low} to {high} pixels, found {size!r}; choose another")
    record = draw_slice(label, index, split, hospital=hospital, seed=seed)
    rng = _generator(1, label, index, split, seed)
    plane = _Plane(rng, record, size)
    image = _make_ideal(rng, plane, label, HOSPITALS[record.hospital].thickness_mm)
    scan = _generator(2 + record.hospital, label, index, split, seed)
    image = apply_scanner(scan, image, HOSPITALS[record.hospital], plane.axes, _EXTENT)
    # The display window is drawn, not fitted to the image: a bright tumour must not darken the rest.
    window = rng.uniform(1.2, 1.5)
    return (np.clip(image / window, 0, 1) * 255).astype(np.uint8)


def _generator(stream, label, index, split, seed):
    """Return the random generator of one image, or say what is wrong with the arguments."""
    for value, name, known in ((label, "class", CLASSES), (split, "split", SPLITS)):
        if value not in known:
            raise InputError(
                f"unknown {name}: expected one of {', '.join(known)}, found {value!r}; name one of these"
            )
    if index < 0 or seed < 0:
        raise InputError(
            f"bad image index or seed: expected 0 or more, found {index} and {seed}; choose others"
        )
    return np.random.default_rng([seed, 20, stream, CLASSES.index(label), SPLITS.index(split), index])


class _Plane:
    """The oblique plane of one slice: pixels to MNI mm, for the subject's own shape."""

    def __init__(self, rng, record, size):
        self.in_plane = _IN_PLANE[record.view]
        self.normal = ({0, 1, 2} - set(self.in_plane)).pop()
        self.view, self.position = record.view, record.position_mm
        self.width = rng.uniform(212, 248) if record.view == "axial" else rng.uniform(222, 255)
        self.turn = rng.normal(0, 0.06)
        self.tilt = rng.normal(0, 0.07, 2)
        self.scale = 1 + 0.04 * rng.standard_normal(2)
        self.shift = rng.normal(0, 4, 2)
        self.mirror = -1.0 if record.view == "sagittal" and rng.random() < 0.5 else 1.0
        self.size = size
        self.axes = [((np.arange(size) + 0.5) * 240 / size).astype(np.float32)] * 2

    def grid(self, size):
        """Return the in-plane MNI coordinates (right/front, up) of a grid of pixels, float32."""
        step = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        u = (self.mirror * self.width * step)[None, :]
        v = (-self.width * step)[:, None]
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        turned = (u * cos - v * sin, u * sin + v * cos)
        return [
            (p * np.float32(s) + np.float32(_MIDDLE[a] + d)).astype(np.float32)
            for p, s, a, d in zip(turned, self.scale, self.in_plane, self.shift, strict=True)
        ]

    def points(self, u, v):
        """Return the three MNI coordinates of in-plane points; the plane is level at the sella."""
        points = [None] * 3
        points[self.in_plane[0]], points[self.in_plane[1]] = u, v
        du, dv = u - _SELLA[self.in_plane[0]], v - _SELLA[self.in_plane[1]]
        points[self.normal] = (self.position + self.tilt[0] * du + self.tilt[1] * dv).astype(np.float32)
        return points


@dataclass(frozen=True)
class _Site:
    """Where a tumour sits in the plane: centre and direction away from the dura (mm), and radius."""

    u: float
    v: float
    radius: float
    inward: tuple[float, float] = (0.0, 1.0)


def _place(rng, plane, label):
    """Choose the tumour's site among the places in this plane where its class occurs."""
    # One distribution of sizes for all classes. It is the size in the slice, which cuts the middle.
    radius = rng.uniform(14, 23)
    if label == "pituitary":  # grows up, for the floor of the sella resists; bulges to the sides
        centre = _SELLA + np.array([0, 0, 0.35 * radius - 2]) + rng.normal(0, 1.5, 3)
        return _Site(*centre[list(plane.in_plane)], radius)
    u, v = plane.grid(_COARSE)
    points, atlas = plane.points(u, v), load_atlas()
    hull = atlas.sample(points, "hull")
    # A mass of another kind at the sella could not be told from an adenoma, not even by a reader.
    from_sella = np.hypot(*(p - _SELLA[a] for p, a in zip((u, v), plane.in_plane, strict=True)))
    if label == "glioma":
        deep = (from_sella > 18) & (hull < -9) & (hull > -60) & (atlas.sample(points, "wm") > 0.45)
        place = _choose(rng, deep)
        return _Site(u[place], v[place], radius)
    slope = np.stack([np.gradient(hull, axis=1), np.gradient(hull, axis=0)])
    # Dura over brain, where the slice crosses it steeply; not around the foramen magnum.
    steep = np.hypot(*slope) > 0.6 * plane.width / _COARSE
    dura = (np.abs(hull) < 1.5) & steep & (points[2] > -50) & (from_sella > 34)
    place = _choose(rng, dura)
    inward = -slope[:, place[0], place[1]] * [plane.mirror, -1]
    inward = inward / np.hypot(*inward)
    centre = np.array([u[place], v[place]]) + inward * radius * rng.uniform(0.55, 0.8)
    return _Site(*centre, radius, tuple(inward))


def _choose(rng, mask):
    """Return the index of one true pixel."""
    candidates = np.argwhere(mask)
    return tuple(candidates[rng.integers(len(candidates))])


def _make_ideal(rng, plane, label, thickness_mm):
    """Return the slice before the scanner, float32, about 0..1.3."""
    atlas, noise = load_atlas(), SmoothNoise(rng, plane.axes, _EXTENT)
    site = _place(rng, plane, label)
    squash = rng.uniform(0.88, 1.2)
    u, v = plane.grid(plane.size)
    du, dv = u - np.float32(site.u), v - np.float32(site.v)
    along = du * site.inward[0] + dv * site.inward[1]
    across = dv * site.inward[0] - du * site.inward[1]
    if label == "meningioma":
        squash = max(squash, 1.05)  # broad on the dura
    r = (np.hypot(along * squash, across / squash) / site.radius).astype(np.float32)
    push = {"glioma": 0.18, "meningioma": 0.28, "pituitary": 0.22, "notumor": 0.0}[label]
    push = push * np.exp(-(r**2) / (2 * 1.2**2))
    warp = [1.4 * noise(24) + 2.2 * noise(60) for _ in range(3)]
    points = plane.points(u - push * du + warp[0], v - push * dv + warp[1])
    points[plane.normal] = points[plane.normal] + 0.6 * warp[2]

    # The skull keeps its place when the brain is pushed, so it has the points without the push.
    outer = plane.points(u + warp[0], v + warp[1])
    outer[plane.normal] = points[plane.normal]
    hull = atlas.sample(outer, "hull")
    image, inside = make_head(outer, hull, noise, rng)
    (csf, grey, white), brain, nuclei = _sample_tissues(atlas, points, plane, thickness_mm, noise)
    vessels = 0.7 * np.clip(noise(3) - 1.8, 0, 1) * (csf > 0.4)  # small vessels in the sulci
    tissue = (CSF * csf + 0.58 * grey + 0.75 * white) * nuclei * (1 + 0.03 * noise(3)) + vessels
    brain = brain & (hull < 1.5)
    image = np.where(brain, tissue, image)
    if label == "glioma":
        high_grade = rng.random() < 0.88
        glioma = make_glioma(rng, noise, r, site.radius, white, csf, high_grade=high_grade)
        dead = rng.uniform(0.18, 0.32) if high_grade else rng.uniform(0.26, 0.34)
        painted = paint_glioma(image, glioma, dead, 0.40, rng.uniform(1.1, 1.35), 0.85)
        image = np.where(brain, painted, image)
    elif label != "notumor":
        image = _add_mass(rng, noise, image, r, site, hull, brain, label)
    fade = 0.25 + 0.75 / (1 + np.exp(-(outer[2] + 92) / 9))  # the head coil ends at the neck
    return (image * inside * fade).astype(np.float32)


def _sample_tissues(atlas, points, plane, thickness_mm, noise):
    """Return `make_tissues` of the slice; thick slices average two levels."""
    levels = [0.0] if thickness_mm < 3 else [-thickness_mm / 4, thickness_mm / 4]
    sampled = []
    for name in ("t1", "gm", "wm"):
        parts = []
        for level in levels:
            moved = list(points)
            moved[plane.normal] = points[plane.normal] + np.float32(level)
            parts.append(atlas.sample(moved, name))
        sampled.append(sum(parts) / len(parts))
    return make_tissues(*sampled, noise)


def _add_mass(rng, noise, image, r, site, hull, brain, label):
    """Return the image with a meningioma or an adenoma."""
    lobes = 0.07 if label == "meningioma" else 0.12
    inside, cleft, uptake = make_mass(rng, noise, r, site.radius, lobes)
    level = rng.uniform(1.05, 1.3)
    if label == "meningioma":
        inside = inside * soft_step(hull - 1.5, 0.4)  # flat against the skull
        tail = np.exp(-(((hull - 0.3) / 1.4) ** 2)) * soft_step(r - rng.uniform(1.5, 2.1), 0.15)
        swollen = 0.5 * soft_step(r - rng.uniform(1.0, 1.7), 0.15) * brain
        image = image + swollen * (np.minimum(image, 0.46) - image)
        image = np.maximum(image, 0.9 * level * tail)
    image = image + cleft * brain * (CSF - image)
    return image + inside * (level * uptake - image)
