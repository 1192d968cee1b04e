"""Build the facts of a report on many images: a test run, a training that is over, a hospital."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedutils.errors import InputError
from fedutils.model_info import ModelInfo
from fedutils.report_build import REGION_NAMES, describe_model
from fedutils.report_facts import Facts, Measure, Picture, clean_text
from fedutils.report_rules import format_share, judge_interval, judge_training, list_next_steps
from fedutils.runs import Run

_QUANTITIES = {  # of a record of `fedutils.evaluate.evaluate_folder`, in the order of a report
    "accuracy": "accuracy",
    "precision": "mean precision over classes",
    "recall": "mean recall over classes",
    "f1": "mean F1 over classes",
    "auc": "mean area under the ROC curve over classes",
    "ece": "calibration error",
    "dice": "Dice",
    **{f"dice_{region.lower()}": f"Dice of the {name}" for region, name in REGION_NAMES.items()},
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
_LENGTHS = {"hd95_mm": "mm", "hd95_voxels": "voxels"}


def build_test_facts(
    info: ModelInfo | Mapping,
    subject: str,
    record: Mapping,
    *,
    pictures: Sequence[Picture] = (),
    limits: Sequence[str] = (),
) -> Facts:
    """Build the facts of a test run.

    Parameters
    ----------
    info : ModelInfo or dict
        See `describe_model`.
    subject : str
        What was tested on.
    record : dict
        Of `fedutils.evaluate.evaluate_folder` or `fedutils.metrics.compute_classification_metrics`.

    Raises
    ------
    InputError
        If the record counts no images, or holds none of the metrics that a report knows.
    """
    measures = _list_metrics(record)
    quantity = "dice" if "dice" in record else "accuracy"
    level, meaning = judge_interval(_find_interval(record, quantity), _QUANTITIES[quantity])
    return Facts(
        kind="test run",
        subject=clean_text(subject),
        model=describe_model(info),
        classes=getattr(info, "outputs", ()) if quantity == "accuracy" else (),
        measures=measures,
        confidence=level,
        confidence_meaning=meaning,
        warnings=(f"{record['skipped']} could not be read and are not counted.",)
        if record.get("skipped")
        else (),
        next_steps=list_next_steps("test run"),
        pictures=pictures,
        limits=(*limits, *getattr(info, "limits", ())),
    )


def build_training_facts(
    info: ModelInfo | Mapping,
    subject: str,
    run: Run,
    *,
    unit: str = "round",
    pictures: Sequence[Picture] = (),
    limits: Sequence[str] = (),
) -> Facts:
    """Build the facts of a training that is over: what was planned, done and chosen, and how it validated.

    Parameters
    ----------
    info : ModelInfo or dict
        See `describe_model`.
    subject : str
        Such as "FedAvg over 5 hospitals, seed 0".
    run : Run
        With one record at least.
    unit : {"round", "epoch"}

    Raises
    ------
    InputError
        If nothing was done yet.
    """
    if not run.history or run.best < 0:
        raise InputError(f"run: expected a {unit} that was done, found none of {run.planned}; train first")
    done, chosen = len(run.history), run.best + 1
    measures = [
        Measure(f"{unit}s_planned", run.planned, "", f"{run.planned}", f"{unit}s planned"),
        Measure(f"{unit}s_done", done, "", f"{done}", f"{unit}s done"),
        Measure(f"{unit}_chosen", chosen, "", f"{chosen}", f"{unit} chosen"),
    ]
    for key, value in run.history[run.best].items():
        if key.startswith("validation_") and np.isfinite(value):
            is_share = "loss" not in key and 0 <= value <= 1
            text = format_share(value) if is_share else f"{value:.4g}"
            measures.append(
                Measure(key, float(value), "", text, f"{key.replace('_', ' ')} of the chosen {unit}")
            )
    level, meaning = judge_training(done, run.planned)
    stopped = () if done >= run.planned else (f"{done} of {run.planned} planned {unit}s were done.",)
    return Facts(
        kind="training",
        subject=clean_text(subject),
        model=describe_model(info, chosen_by=f"validation {run.choose_by.removeprefix('-')}"),
        measures=measures,
        confidence=level,
        confidence_meaning=meaning,
        warnings=stopped,
        next_steps=list_next_steps("training"),
        pictures=pictures,
        limits=(*limits, *getattr(info, "limits", ())),
    )


def build_hospital_facts(
    info: ModelInfo | Mapping,
    subject: str,
    own: Mapping,
    everyone: Mapping,
    *,
    num_images: int,
    share: float,
    pictures: Sequence[Picture] = (),
    limits: Sequence[str] = (),
) -> Facts:
    """Build the facts of a hospital: the global model on its images beside that on everyone's.

    Parameters
    ----------
    info : ModelInfo or dict
        Of the global model; see `describe_model`.
    subject : str
        The hospital.
    own, everyone : dict
        Records as of `build_test_facts`, of one model: on this hospital's images, and on those of all.
    num_images : int
        That it trains on.
    share : float
        Of all hospitals' training images, in [0, 1]: its weight in FedAvg.

    Raises
    ------
    InputError
        As of `build_test_facts`; or if the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise InputError(f"share: expected a number from 0 to 1, found {share!r}; divide by all images")
    measures = [
        Measure("images_trained", num_images, "", f"{num_images:,}", "images that it trains on"),
        Measure("share", share, "", format_share(share), "share of all training images"),
        *_list_metrics(own),
        *_list_metrics(everyone, "global_", ", all hospitals"),
    ]
    quantity = "dice" if "dice" in own else "accuracy"
    if own.get(quantity) is not None and everyone.get(quantity) is not None:
        points = own[quantity] - everyone[quantity]
        label = f"difference of the {_QUANTITIES[quantity]} from that on all hospitals"
        text = f"{points:+.3f}" if quantity == "dice" else f"{100 * points:+.1f} points"
        measures.append(Measure("difference", points, "", text, label))
    level, meaning = judge_interval(
        _find_interval(own, quantity), f"{_QUANTITIES[quantity]} at this hospital"
    )
    return Facts(
        kind="hospital",
        subject=clean_text(subject),
        model=describe_model(info),
        measures=measures,
        confidence=level,
        confidence_meaning=meaning,
        next_steps=list_next_steps("hospital"),
        pictures=pictures,
        limits=(*limits, *getattr(info, "limits", ())),
    )


def _list_metrics(record: Mapping, prefix: str = "", where: str = "") -> list[Measure]:
    """Return the measures of a record, with intervals where it has them; undefined ones are left out."""
    if not record.get("n"):
        raise InputError(
            f"record: expected a count n above 0, found {record.get('n')!r}; evaluate the model first"
        )
    many = "cases" if "dice" in record else "images"
    measures = [Measure(f"{prefix}{many}", record["n"], "", f"{record['n']:,}", f"{many} tested{where}")]
    for name, label in _QUANTITIES.items():
        if record.get(name) is not None and (name != "accuracy" or many == "images"):
            low_high = _find_interval(record, name)
            if "dice" in name:
                text = f"{record[name]:.3f}" + _format_interval(low_high, "")
            else:
                text = format_share(record[name]) + _format_interval(low_high, "%")
            measures.append(Measure(prefix + name, float(record[name]), "", text, label + where))
    for name, unit in _LENGTHS.items():
        if record.get(name) is not None:
            text = f"{record[name]:.1f} {unit}" + _format_interval(_find_interval(record, name), unit)
            label = f"95 % Hausdorff distance{where}"
            measures.append(Measure(f"{prefix}distance", float(record[name]), unit, text, label))
    if len(measures) < 2:
        raise InputError(
            f"record: expected one of {', '.join(_QUANTITIES)}, found {', '.join(map(str, record))}"
        )
    return measures


def _find_interval(record: Mapping, name: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric in either kind of record, or None."""
    low, high = record.get(f"{name}_low"), record.get(f"{name}_high")
    if low is None or high is None:
        pair = (record.get("intervals") or {}).get(name) or record.get(f"{name}_interval")
        low, high = pair or (None, None)
    return None if low is None else (float(low), float(high))


def _format_interval(interval: tuple[float, float] | None, unit: str) -> str:
    if interval is None:
        return ""
    low, high = (100 * bound if unit == "%" else bound for bound in interval)
    digits = 1 if unit else 3
    return f" (95 % interval {low:.{digits}f} to {high:.{digits}f}{unit and ' '}{unit})"
