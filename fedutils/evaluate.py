"""How good a saved model is on a folder of data in any layout that fedutils reads: one flat record."""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from pathlib import Path

import keras
import numpy as np
from tqdm.auto import tqdm

from fedutils.centralized import predict_logits
from fedutils.data import brain_mri
from fedutils.data.layouts import detect_layout, find_layouts, list_cases
from fedutils.data.segmentation import compute_regions, load_truth
from fedutils.errors import InputError
from fedutils.metrics import compute_classification_metrics
from fedutils.model_info import ModelInfo
from fedutils.predict import check_task, predict_case
from fedutils.segmentation_metrics import compute_segmentation_metrics, summarise_cases

SPLITS = {"training": ("Training",), "testing": ("Testing",), "all": brain_mri.SPLITS}


def evaluate_folder(
    model: keras.Model,
    info: ModelInfo,
    root: Path,
    *,
    split: str | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> dict[str, float | int | str | None]:
    """Measure a model on a data set with truth.

    Parameters
    ----------
    model : keras.Model
    info : ModelInfo
    root : Path
        A folder of pictures for a classifier (``Training`` and ``Testing``, or one of them), of cases with
        masks for a segmentation.
    split : {"testing", "training", "all"}, optional
        Of pictures; testing by default. Cases have no split: all of them are measured.
    skip_bad : bool
        Leave out what cannot be read, and count it, instead of stopping.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        Flat. Of a classifier ``n`` images, ``accuracy`` with ``accuracy_low`` and ``accuracy_high`` (95 %,
        bootstrap over images), macro ``precision``, ``recall``, ``f1``, ``auc``, and ``ece``, ``nll`` and
        ``brier`` of the calibrated probabilities, each with its interval, and ``f1_glioma`` and so on. Of a
        segmentation ``n`` cases, ``dice`` and ``hd95_mm`` (``hd95_voxels`` where the spacing is unknown), the
        means over cases of the means over regions, ``dice_wt`` and so on with intervals over patients, on the
        voxels of the cases; ``sensitivity``, ``specificity`` and ``accuracy`` likewise. None where undefined.
        ``skipped`` counts what was left out.

    Raises
    ------
    InputError
        If the folder is of another kind than the model, has no truth, or holds what cannot be read.
    """
    root = Path(root)
    if split not in (None, *SPLITS):
        raise InputError(f"split: expected {', '.join(SPLITS)}, found {split!r}")
    if root.name in brain_mri.SPLITS and brain_mri.find_classes(root.parent):
        split, root = split or root.name.lower(), root.parent
        layout = "brain_mri"
    else:
        layout = detect_layout(root)
    if layout == "brain_mri":
        check_task(info, "classification")
        return _evaluate_images(model, info, root, split or "testing", skip_bad, progress)
    check_task(info, "segmentation")
    if split not in (None, "all"):
        raise InputError(f"split: expected none for cases ({layout}), found {split!r}; leave --split out")
    return _evaluate_cases(model, info, root, skip_bad, progress)


def _evaluate_images(model, info, root, split, skip_bad, progress) -> dict:
    if info.outputs != brain_mri.CLASSES:
        raise InputError(
            f"model: expected the classes {', '.join(brain_mri.CLASSES)}, found {', '.join(info.outputs)}; "
            "use a model for this data set"
        )
    root = find_layouts(root).get("brain_mri", root)
    names = [name for name in SPLITS[split] if (root / name).is_dir()]
    if not names or (split != "all" and len(names) < len(SPLITS[split])):
        here = [name for name in brain_mri.SPLITS if (root / name).is_dir()]
        raise InputError(
            f"{root}: expected the folder {' or '.join(SPLITS[split])}, found only {', '.join(here)}; "
            f"add --split {here[0].lower()}"
        )
    sets = [
        brain_mri.load_images(root, name, size=info.size[0], skip_bad=skip_bad, progress=progress)
        for name in names
    ]
    labels = np.concatenate([images.y for images in sets])
    logits = np.concatenate([predict_logits(model, images.x) for images in sets])
    measured = compute_classification_metrics(labels, logits / info.temperature, info.outputs)
    record = {"n": measured["n"], "skipped": sum(len(images.skipped) for images in sets), "split": split}
    for name in ("accuracy", "precision", "recall", "f1", "auc", "ece", "nll", "brier"):
        low, high = measured["intervals"][name] or (None, None)
        record |= {name: measured[name], f"{name}_low": low, f"{name}_high": high}
    for name, of_class in measured["per_class"].items():
        record |= {f"{key}_{name}": of_class[key] for key in ("n", "precision", "recall", "f1", "auc")}
    return record


def _evaluate_cases(model, info, root, skip_bad, progress) -> dict:
    cases = list_cases(root, skip_bad=skip_bad)
    if not any(case.has_mask for case in cases):
        raise InputError(
            f"{root}: expected masks to compare with, found none in {len(cases)} cases; use fedutils predict"
        )
    measured, patients, reasons = [], [], []
    for case in tqdm(cases, desc="evaluate", unit="case", disable=not progress):
        try:
            truth = load_truth(case, info.outputs)
            predicted = predict_case(model, info, case, progress=False)
        except InputError as error:
            if not skip_bad:
                raise
            reasons.append(str(error))
            continue
        regions = compute_regions(predicted.labels, info.outputs)
        of_case = compute_segmentation_metrics(regions, truth, info.outputs, predicted.spacing)
        for of_region in of_case.values():  # and the mean over the regions, as one more
            known = [value for value in of_region.values() if value is not None]
            of_region[""] = float(np.mean(known)) if known else None
        measured.append(of_case)
        patients.append(case.patient)
    if not measured:
        raise InputError(f"{root}: expected a case that can be measured, found none: {reasons[0]}")
    record = {"n": len(measured), "n_patients": len(set(patients)), "skipped": len(reasons)}
    for metric, of_region in summarise_cases(measured, patients=patients).items():
        for region, told in reversed(of_region.items()):
            low, high = told["interval"] or (None, None)
            key = f"{metric}_{region.lower()}".rstrip("_")
            record |= {key: told["mean"], f"{key}_low": low, f"{key}_high": high}
    return record


def format_table(record: dict) -> str:
    """Return a record of `evaluate_folder` as lines a person can read, with intervals in brackets."""
    lines = []
    for name, value in record.items():
        if name.endswith(("_low", "_high")):
            continue
        text = "undefined" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        low, high = record.get(f"{name}_low"), record.get(f"{name}_high")
        lines.append(f"{name:24} {text}" + ("" if low is None else f"  [{low:.4f}, {high:.4f}]"))
    return "\n".join(lines)
