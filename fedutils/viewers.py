"""Widgets for notebooks: scroll through a case, and try partitions out.

Each returns a box whose ``controls`` are named, so that code can turn them as a reader does, and whose
``figure`` can be looked into. Drawn by matplotlib and shown as PNG: no backend and no extension is needed.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.text import Text

from fedutils.data.case import Case, Volume
from fedutils.errors import InputError
from fedutils.explorer import PartitionExplorer, explore_partition
from fedutils.figure_box import FigureBox
from fedutils.plots import COLOURS, LABEL_COLOURS, PLANE_LETTERS, PLANES

__all__ = [
    "CaseViewer",
    "PartitionExplorer",
    "explore_partition",
    "view_case",
    "view_case_3d",
]

CONVENTIONS = ("patient's left on the left", "patient's left on the right")
_REGIONS = {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}


@dataclass(frozen=True)
class Plane:
    """What is drawn of one plane: the image, the mask over it, the lines of the other planes, letters."""

    ax: Axes
    image: AxesImage
    mask: AxesImage
    lines: tuple
    letters: tuple[Text, ...]


class CaseViewer(FigureBox):
    """A case in three planes; made by `view_case`.

    Attributes
    ----------
    planes : tuple of 3 Plane
        Sagittal, coronal, axial.
    controls : dict
        ``modality``, ``convention``, ``window`` (two percentiles), ``opacity`` (0 to 1), and the slice of
        each plane: ``axial``, ``coronal``, ``sagittal``.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        read: Callable[[str], np.ndarray],
        mask: np.ndarray | None,
        spacing: tuple[float, float, float] | None,
        title: str,
    ) -> None:
        self._read, self._scales = read, {}
        first = read(modalities[0])
        self._shape, self._spacing = first.shape, spacing
        self._mask = np.zeros(first.shape, np.uint8) if mask is None else mask.astype(np.uint8, copy=False)
        found = np.flatnonzero(np.bincount(self._mask.ravel(), minlength=5)[1:]) + 1
        middle = np.argwhere(self._mask).mean(axis=0) if len(found) else (np.asarray(self._shape) - 1) / 2
        slider, style = ipywidgets.IntSlider, {"description_width": "70px"}
        controls = {
            PLANES[a]: slider(round(middle[a]), 0, self._shape[a] - 1, description=PLANES[a], style=style)
            for a in (2, 1, 0)
        }
        controls["modality"] = ipywidgets.Dropdown(
            options=list(modalities), description="modality", style=style
        )
        controls["window"] = ipywidgets.FloatRangeSlider(
            value=(0.0, 99.5),
            min=0,
            max=100,
            step=0.5,
            readout_format=".1f",  # two numbers of two decimals do not fit
            description="window, %",
            style=style,
        )
        controls["opacity"] = ipywidgets.FloatSlider(
            value=0.5, min=0, max=1, step=0.05, description="mask", disabled=not len(found), style=style
        )
        controls["convention"] = ipywidgets.Dropdown(options=CONVENTIONS, description="side", style=style)
        figure = Figure(figsize=(9.6, 3.9), dpi=100, layout="constrained")
        figure.suptitle(title, fontsize=10)
        self.planes = self._draw_planes(figure)
        self.moving = tuple(
            artist
            for plane in self.planes
            for artist in (plane.image, plane.mask, *plane.lines, *plane.letters, plane.ax.title)
        )
        names = _REGIONS if len(found) and found.max() > 1 else {1: "tumour"}
        handles = [
            Patch(color=LABEL_COLOURS.get(v, COLOURS[4]), label=names.get(v, f"label {v}")) for v in found
        ]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        super().__init__(figure, controls)

    def _draw_planes(self, figure):
        sides = self._spacing or (1.0, 1.0, 1.0)
        self._sides = np.asarray(sides)
        axes, planes = figure.subplots(1, 3), []
        for axis in range(3):
            ax = axes[2 - axis]  # axial first
            across, up = (a for a in range(3) if a != axis)
            size = [self._shape[a] * sides[a] for a in (across, up)]
            options = {
                "origin": "lower",
                "extent": (0, size[0], 0, size[1]),
                # Voxels of unknown height are stretched to fill the picture.
                "aspect": "equal" if self._spacing or axis == 2 else "auto",
            }
            blank = np.zeros((self._shape[up], self._shape[across]))
            image = ax.imshow(blank, vmin=0, vmax=1, cmap="gray", **options)
            mask = ax.imshow(np.zeros((*blank.shape, 4), np.uint8), **options)
            ink = {"color": COLOURS[1], "linewidth": 0.6, "alpha": 0.6}
            lines = (ax.axvline(0, **ink), ax.axhline(0, **ink))
            shade = {"facecolor": "k", "alpha": 0.8, "linewidth": 0, "pad": 1.5}  # readable on a bright head
            letters = tuple(
                ax.text(x, y, letter, transform=ax.transAxes, color="w", ha="center", va="center", bbox=shade)
                for x, y, letter in zip(
                    (0.04, 0.96, 0.5, 0.5), (0.5, 0.5, 0.05, 0.95), PLANE_LETTERS[axis], strict=True
                )
            )
            ax.set_xlabel("mm" if self._spacing else "voxels")
            ax.grid(False)
            planes.append(Plane(ax, image, mask, lines, letters))
        return tuple(planes)

    def draw(self) -> None:
        """Draw the slices that the controls point to."""
        values = {name: control.value for name, control in self.controls.items()}
        volume, (low, high) = self._read(values["modality"]), self._window(values)
        where = [values[name] for name in PLANES]
        table = _mask_colours(values["opacity"])
        for axis, plane in enumerate(self.planes):
            across, up = (a for a in range(3) if a != axis)
            # Not np.take: it copies the whole of an array that is not in C order, as files are not.
            at = (slice(None),) * axis + (where[axis],)
            plane.image.set_data(volume[at].T)
            plane.image.set_clim(low, high)
            plane.mask.set_visible(values["opacity"] > 0 and not self.controls["opacity"].disabled)
            plane.mask.set_data(table[self._mask[at].T])
            middles = (np.asarray(where) + 0.5) * self._sides
            plane.lines[0].set_xdata([middles[across]] * 2)
            plane.lines[1].set_ydata([middles[up]] * 2)
            mirrored = axis > 0 and values["convention"] == CONVENTIONS[1]
            extent = plane.image.get_extent()
            if plane.ax.xaxis_inverted() != mirrored:
                plane.ax.set_xlim(extent[:2][::-1] if mirrored else extent[:2])
                self.forget()
            for text, letter in zip(
                plane.letters, PLANE_LETTERS[axis][:2][:: -1 if mirrored else 1], strict=False
            ):
                text.set_text(letter)
            position = f", {where[axis] * self._sides[axis]:.0f} mm" if self._spacing else ""
            # Counted from 0, as the sliders and the arrays are.
            plane.ax.set_title(f"{PLANES[axis]} {where[axis]} of {self._shape[axis] - 1}{position}")

    def _window(self, values):
        """Return the grey values at the window's percentiles of what is brighter than the background."""
        name = values["modality"]
        if name not in self._scales:
            # Every eighth voxel says as much as all, in an eighth of the time.
            image = self._read(name)
            sample = image[::2, ::2, ::2] if min(image.shape) > 32 else image
            inside = sample[sample > sample.min()]
            self._scales[name] = np.percentile(inside if inside.size else sample, np.linspace(0, 100, 201))
        low, high = np.interp(values["window"], np.linspace(0, 100, 201), self._scales[name])
        if high <= low:  # all one value: shown against the background
            low = min(low, float(self._read(name).min()))
        return low, max(high, low + 1e-6 * max(1.0, abs(low)))


def view_case(
    case: Case | Volume, *, title: str = "", spacing: tuple[float, float, float] | None = None
) -> CaseViewer:
    """Scroll a case through three planes, with its modalities, grey window and mask.

    Parameters
    ----------
    case : Case or Volume
        Of a case, a modality is read when it is first looked at.
    title : str
        Above the picture; the name of the case by default.
    spacing : (3,) mm, optional
        Sides of a voxel, where the files do not know them.

    Returns
    -------
    CaseViewer
        Starts in the middle of the tumour. As everywhere in the project, the patient's left is on the left of
        the picture; radiologists' convention is a choice. Letters and mm say where things are.

    Raises
    ------
    InputError
        If it is neither, or its files are bad.
    """
    volume = _first_look(case)
    spacing = spacing or volume.spacing
    if isinstance(case, Volume):
        return CaseViewer(list(case.images), case.images.__getitem__, case.mask, spacing, title)
    known = dict(volume.images)

    def read(modality: str) -> np.ndarray:
        if modality not in known:
            known.update(case.load((modality,), mask=False).images)
        return known[modality]

    return CaseViewer(case.modalities, read, volume.mask, spacing, title or case.name)


def view_case_3d(case: Case | Volume, *, modality: str | None = None, opacity: float = 0.4):
    """Show a case in three planes and as a rendering, by ipyniivue, in the browser's graphics.

    Parameters
    ----------
    case : Case or Volume
    modality : str, optional
        The first by default.
    opacity : float
        Of the mask, 0 to 1.

    Returns
    -------
    ipyniivue.NiiVue

    Raises
    ------
    InputError
        If ipyniivue is not installed (it is not part of the environment), or the case has no such modality.
    """
    try:
        from ipyniivue import NiiVue, ShowRender
    except ImportError:
        raise InputError(
            "view_case_3d: expected the package ipyniivue, found none; install it with "
            "'pip install ipyniivue', or use view_case, which needs nothing more"
        ) from None
    import nibabel

    volume = case if isinstance(case, Volume) else _first_look(case, modality)
    image = volume.images.get(modality or next(iter(volume.images)))
    if image is None:
        raise InputError(f"modality: expected one of {', '.join(volume.images)}, found {modality}")
    # What the browser gets is written anew: in one orientation, whatever the layout on disk.
    folder = tempfile.TemporaryDirectory(prefix="fedutils-")
    affine = np.eye(4) if volume.affine is None else volume.affine
    layers = [{"path": Path(folder.name, "image.nii.gz"), "colormap": "gray"}]
    nibabel.save(nibabel.Nifti1Image(_plain(image), affine), layers[0]["path"])
    if volume.mask is not None:
        layers.append({"path": Path(folder.name, "mask.nii.gz"), "colormap": "warm", "opacity": opacity})
        nibabel.save(nibabel.Nifti1Image(volume.mask.astype(np.uint8), affine), layers[1]["path"])
    # The rendering is left out by default; labels are not to be blended where two of them meet.
    viewer = NiiVue(multiplanar_show_render=ShowRender.ALWAYS, is_nearest_interpolation=True)
    viewer.load_volumes(layers)
    viewer.folder = folder  # read when the widget is shown: kept as long as the widget is
    return viewer


def _first_look(case, modality=None):
    if isinstance(case, Volume):
        return case
    if isinstance(case, Case):
        return case.load((modality or case.modalities[0],))
    raise InputError(
        f"view_case: expected a Case or a Volume, found {type(case).__name__}; take one from list_brats or "
        "list_lgg"
    )


def _plain(image):
    """Return an array of a type that every NIfTI reader knows."""
    return image if image.dtype in (np.uint8, np.int16, np.float32) else image.astype(np.float32)


def _mask_colours(opacity):
    """Return uint8 (256, 4): the colour of every label of a mask, 0 being clear."""
    table = np.zeros((256, 4), np.uint8)
    table[1:] = [*(round(255 * c) for c in to_rgb(COLOURS[4])), round(255 * opacity)]
    for label, colour in LABEL_COLOURS.items():
        table[label, :3] = [round(255 * c) for c in to_rgb(colour)]
    return table
