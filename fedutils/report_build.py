"""Build the facts of a report on one image or case: see `fedutils.report_runs` for those on many."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedutils.errors import InputError
from fedutils.lesion import locate, measure_diameter
from fedutils.model_info import ModelInfo
from fedutils.report_facts import Facts, Measure, Picture, clean_text
from fedutils.report_rules import (
    format_share,
    format_size,
    judge_overlap,
    judge_probability,
    list_next_steps,
)

REGION_NAMES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
_CASE_LIMITS = (
    "Sides and volumes are of what the model outlined, which may be no tumour, or not all of it.",
    "A diameter is the longest in one axial slice, between outer faces of voxels; the slice may differ "
    "between regions.",
)


def describe_model(info: ModelInfo | Mapping, **more) -> dict:
    """Return what a report says of a model: from its info, or from a mapping with title and architecture."""
    if isinstance(info, ModelInfo):
        info = {
            "title": info.title,
            "architecture": info.architecture,
            "task": info.task,
            "trained_on": info.trained_on,
        }
    return dict(info) | more


def build_image_facts(
    info: ModelInfo,
    subject: str,
    probabilities: Sequence[float],
    *,
    warnings: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    model: Mapping | None = None,
) -> Facts:
    """Build the facts of an image.

    Parameters
    ----------
    info : ModelInfo
        Of a classifier.
    subject : str
        The file's name.
    probabilities : (classes,)
        As `fedutils.predict.predict_images` gives them: calibrated by the info's temperature.
    warnings : sequence of str
        See `fedutils.report_pages.find_warnings`.
    pictures : sequence of Picture
    model : dict, optional
        Further values for the report, such as ``file``.

    Raises
    ------
    InputError
        If there is not one probability a class, or they do not add up to 1.
    """
    values = np.asarray(probabilities, np.float64)
    if info.task != "classification" or values.shape != (len(info.outputs),):
        raise InputError(
            f"probabilities: expected {len(info.outputs)} of a classifier, found shape {values.shape} of a "
            f"model for {info.task}"
        )
    if not (values.min() >= 0 and abs(values.sum() - 1) < 1e-4):  # NaN is refused too
        raise InputError(f"probabilities: expected shares that add up to 1, found {values.tolist()}")
    best = int(values.argmax())
    prediction = info.outputs[best]
    order = np.argsort(-values, kind="stable")
    level, meaning = judge_probability(
        float(values[best]), calibrated=info.temperature != 1, doubts=len(warnings)
    )
    return Facts(
        kind="image",
        subject=clean_text(subject),
        model=describe_model(info, temperature=info.temperature, **(model or {})),
        prediction=prediction,
        classes=info.outputs,
        measures=[
            Measure(
                f"p_{info.outputs[i]}",
                float(values[i]),
                "",
                format_share(values[i]),
                f"probability of {info.outputs[i]}",
            )
            for i in order
        ],
        confidence=level,
        confidence_meaning=meaning,
        warnings=warnings,
        next_steps=list_next_steps("image", prediction),
        pictures=pictures,
        limits=(
            f"The model knows {len(info.outputs)} classes, {', '.join(info.outputs)}, and calls every "
            "picture one of them, whatever it shows.",
            *info.limits,
        ),
    )


def build_case_facts(
    info: ModelInfo,
    subject: str,
    found: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    head: np.ndarray | None = None,
    warnings: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    limits: Sequence[str] = (),
    model: Mapping | None = None,
) -> Facts:
    """Build the facts of a case: volumes, longest diameters and side of what a model outlined.

    Parameters
    ----------
    info : ModelInfo
        Of a segmentation.
    subject : str
    found : bool (X, Y, Z, K)
        The regions of the info, on the case's voxels, axes towards right, front and top.
    spacing : (3,) mm, optional
        Without it volumes and lengths are in voxels.
    head : bool (X, Y, Z), optional
        Where the head is; without it no side is told. The side is that of the first region's centre of mass.
    warnings, pictures, model
        As of `build_image_facts`.
    limits : sequence of str
        Of this case, beside those of the model.

    Raises
    ------
    InputError
        If the regions are not as many as the model's.
    """
    found = np.asarray(found, bool)
    if info.task != "segmentation" or found.ndim != 4 or found.shape[-1] != len(info.outputs):
        raise InputError(
            f"found: expected (X, Y, Z, {len(info.outputs)}) of a segmentation, found shape {found.shape} "
            f"of a model for {info.task}"
        )
    unit, length = ("voxels", "voxels") if spacing is None else ("ml", "mm")
    voxel = 1.0 if spacing is None else float(np.prod(spacing)) / 1000
    measures = []
    for k, region in enumerate(info.outputs):
        volume, name = int(found[..., k].sum()) * voxel, REGION_NAMES[region]
        measures.append(
            Measure(
                f"volume_{region.lower()}", volume, unit, format_size(volume, unit), f"volume of the {name}"
            )
        )
        if diameter := measure_diameter(found[..., k], spacing):
            text = format_size(diameter.length, length)
            label = f"longest diameter of the {name}, axial"
            measures.append(Measure(f"diameter_{region.lower()}", diameter.length, length, text, label))
    side = None if head is None else locate(found[..., 0], head, spacing)
    if side:
        label = "share of the volume on the other side of the midline"
        measures.append(Measure("share_beyond", side.beyond, "", format_share(side.beyond), label))
    dice = info.metrics.get("dice_wt", info.metrics.get("dice"))
    level, meaning = judge_overlap(dice[0] if isinstance(dice, list) else dice, len(warnings))
    return Facts(
        kind="case",
        subject=clean_text(subject),
        model=describe_model(info, **(model or {})),
        sides=(side.name,) if side else (),
        measures=measures,
        confidence=level,
        confidence_meaning=meaning,
        warnings=warnings,
        next_steps=list_next_steps("case"),
        pictures=pictures,
        limits=(*_CASE_LIMITS, *limits, *info.limits),
    )
