"""Reports as files: of pictures with a Grad-CAM map, of cases with an overlay, of any facts.

A report is ``NAME.html``, ``NAME.md``, ``NAME.json`` (its facts), its pictures ``NAME_*.png`` and, if asked
for, ``NAME.pdf``.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import io
import re
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fedutils.data.brain_mri import read_image
from fedutils.data.case import Case, Volume
from fedutils.data.image_record import record_image
from fedutils.data.odd_images import COLOURED, LONG
from fedutils.data.regions import REGIONS
from fedutils.data.segmentation import compute_regions, get_regions
from fedutils.data.slice_steps import find_head
from fedutils.data.volume_steps import stack_modalities
from fedutils.gradcam import compute_gradcam
from fedutils.model_info import ModelInfo
from fedutils.plots import plot_planes
from fedutils.predict import Segmented, check_task, classify, predict_case, read_picture
from fedutils.report import Prose, compose, render_html, render_markdown, render_pdf
from fedutils.report_build import build_case_facts, build_image_facts
from fedutils.report_facts import Facts, Picture
from fedutils.results import write_atomic

# Of 255; the Brain Tumor MRI slices have means of 14 to 125, deviations from 23.
DARK, BRIGHT, DULL = 10, 150, 15
THICK = 3.0  # mm
_LOOK = (
    "Left: the picture as the model sees it. Right: where the class {} speaks from, by Grad-CAM, bright for "
    "the most. It shows what the network used, not where a tumour is. Which side is left is unknown."
)
_OVERLAY = (
    "What the model outlined, on {modality}, in the axial, coronal and sagittal plane through its middle: "
    "{colours}. The patient's left is on the left{unless}."
)
_COLOURS = "orange necrosis and non-enhancing core, blue oedema, yellow enhancing tumour"
_UNLESS = ", if the files follow radiological convention; the distance of slices is unknown"
_UNPLACED = (
    "The files say neither how large a voxel is nor which side is left: sizes are in voxels, and "
    "radiological convention is assumed for the side."
)


def report_images(
    model: keras.Model,
    info: ModelInfo,
    paths: Sequence[Path],
    folder: Path,
    *,
    write: Callable[[Facts], Prose] = compose,
    model_file: str = "",
    pdf: bool = False,
) -> Iterable[tuple[Path, Facts, Prose]]:
    """Report on pictures, one page each.

    Parameters
    ----------
    model : keras.Model
    info : ModelInfo
        Of a classifier.
    paths : sequence of Path
    folder : Path
        Made if it is not there; earlier reports of the same names are replaced.
    write : callable
        From facts to prose: the rules, or a language model.
    model_file : str
        The model's name in the report.
    pdf : bool
        Write PDF too.

    Yields
    ------
    Path, Facts, Prose
        The HTML file, and what stands in it.

    Raises
    ------
    InputError
        If the model is no classifier, or a picture cannot be used; see `fedutils.predict.read_picture`.
    """
    check_task(info, "classification")
    names = _choose_names(path.stem for path in paths)
    for path, name in zip(paths, names, strict=True):
        x = read_picture(path, info.size[0])[np.newaxis]
        (probabilities,) = classify(model, info, x)
        best = int(probabilities.argmax())
        heat = compute_gradcam(model, x, best)[0]
        picture = Picture(f"{name}_gradcam.png", _LOOK.format(info.outputs[best]))
        with _style():
            _save(_plot_look(x[0, ..., 0], heat), folder / picture.path)
        facts = build_image_facts(
            info,
            path.name,
            probabilities,
            warnings=find_warnings(path, info.size[0]),
            pictures=[picture],
            model={"file": model_file} if model_file else None,
        )
        prose = write(facts)
        yield write_report(facts, prose, folder, name, pdf=pdf), facts, prose


def report_cases(
    model: keras.Model,
    info: ModelInfo,
    cases: Sequence[Case],
    folder: Path,
    *,
    write: Callable[[Facts], Prose] = compose,
    model_file: str = "",
    pdf: bool = False,
    progress: bool = True,
) -> Iterable[tuple[Path, Facts, Prose]]:
    """Report on cases, one page each; arguments and results as of `report_images`."""
    check_task(info, "segmentation")
    for case, name in zip(cases, _choose_names(case.name for case in cases), strict=True):
        segmented = predict_case(model, info, case, progress=progress)
        volume = case.load(info.modalities, mask=False)
        present = [m for m in info.modalities if m not in volume.missing]
        modality = "flair" if "flair" in present else present[0]
        colours = _COLOURS if len(info.outputs) > 1 else "orange the whole tumour"
        unless = "" if segmented.spacing else _UNLESS
        caption = _OVERLAY.format(modality=modality.upper(), colours=colours, unless=unless)
        picture = Picture(f"{name}_overlay.png", caption)
        with _style():
            _save(_plot_overlay(volume.images[modality], segmented), folder / picture.path)
        stripped = get_regions(case) == REGIONS
        facts = build_case_facts(
            info,
            case.name,
            compute_regions(segmented.labels, info.outputs),
            spacing=segmented.spacing,
            head=find_head(stack_modalities(volume.images, info.modalities), stripped=stripped),
            warnings=_find_case_warnings(volume),
            pictures=[picture],
            limits=() if segmented.spacing else (_UNPLACED,),
            model={"file": model_file} if model_file else None,
        )
        prose = write(facts)
        yield write_report(facts, prose, folder, name, pdf=pdf), facts, prose


def write_report(facts: Facts, prose: Prose, folder: Path, name: str, *, pdf: bool = False) -> Path:
    """Write a report; its pictures lie in the folder already.

    Returns
    -------
    Path
        The HTML file: whole in itself, it can be mailed.

    Raises
    ------
    InputError
        If a picture is missing, or the folder cannot be written.
    """
    folder = Path(folder)
    page = render_html(facts, prose, folder)
    if pdf:
        write_atomic(folder / f"{name}.pdf", render_pdf(facts, prose, folder))
    write_atomic(folder / f"{name}.json", facts.to_json().encode())
    write_atomic(folder / f"{name}.md", render_markdown(facts, prose).encode())
    write_atomic(folder / f"{name}.html", page.encode())
    return folder / f"{name}.html"


def find_warnings(path: Path, size: int) -> tuple[str, ...]:
    """Return what is odd about a picture that a classifier of `size` pixels is to judge, a line each.

    It may be smaller than the model's input, long, dull, dark, bright or coloured. What cannot be used at
    all, `fedutils.predict.read_picture` refuses.
    """
    record = record_image(path, read_image(path))
    long, short = max(record.width, record.height), min(record.width, record.height)
    checks = (
        (long < size, f"The picture is small, {record.width} x {record.height} pixels, and was enlarged."),
        (long / short > LONG, f"The picture is {long / short:.1f} times as long as it is wide."),
        (record.deviation < DULL, f"Contrast is low: grey values deviate by {record.deviation:.1f} of 255."),
        (record.mean < DARK, f"The picture is dark: its mean grey value is {record.mean:.0f} of 255."),
        (record.mean > BRIGHT, f"The picture is bright: its mean grey value is {record.mean:.0f} of 255."),
        (record.colour > COLOURED, f"{100 * record.colour:.0f} % of the picture is coloured."),
    )
    return tuple(line for found, line in checks if found)


def _find_case_warnings(volume: Volume) -> tuple[str, ...]:
    warnings = []
    if volume.missing:
        warnings.append(f"Without {', '.join(volume.missing)}: the model was given zeros there.")
    if volume.spacing and max(volume.spacing) > THICK:
        warnings.append(f"Voxels are up to {max(volume.spacing):.1f} mm long: sizes are coarse.")
    return tuple(warnings)


def _plot_look(image: np.ndarray, heat: np.ndarray) -> Figure:
    """Draw an image, and the same with its Grad-CAM map."""
    fig, axes = plt.subplots(1, 2, figsize=(5.6, 2.7))
    for ax in axes:
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.axis("off")
    shown = axes[1].imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.5 * heat)
    fig.colorbar(shown, ax=axes, shrink=0.8, ticks=(0, 0.5, 1)).set_label("share of the maximum", fontsize=8)
    return fig


def _plot_overlay(image: np.ndarray, segmented: Segmented) -> Figure:
    """Draw three planes of a case; in voxels where the spacing is unknown."""
    fig = plot_planes(image, segmented.labels, segmented.spacing or (1.0, 1.0, 1.0))
    if segmented.spacing is None:
        for ax in fig.axes:
            ax.set_xlabel("voxels")
            ax.set_title(re.sub(r" (\d+) mm$", r" voxel \1", ax.get_title()))
        for ax in fig.axes[1:]:
            ax.set_aspect("auto")
            ax.set_ylabel("slices")
    return fig


def _style():
    return plt.style.context(str(resources.files("fedutils") / "fedutils.mplstyle"))


def _save(fig: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    write_atomic(path, buffer.getvalue())


def _choose_names(stems: Iterable[str]) -> list[str]:
    """Return names for files: letters, digits, - and _, each once even where case is ignored."""
    names, used = [], set()
    for stem in stems:
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:80] or "report"
        name, number = base, 1
        while name.lower() in used:
            number += 1
            name = f"{base}_{number}"
        used.add(name.lower())
        names.append(name)
    return names
