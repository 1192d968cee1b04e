"""The rules of a report: how numbers are printed, what confidence means, and what to do next, with sources.

Every threshold is stated in the report that it decides. The next steps are general; none is advice for a
patient, and each names the document that supports it.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
.. [2] B. H. Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", IEEE
   Transactions on Medical Imaging 34(10), 2015: Dice of human raters with each other, 0.74 to 0.85.
"""

from fedutils.report_facts import LEVELS, NextStep

SURE, LIKELY = 0.95, 0.80  # calibrated probability from which confidence is high, moderate
AGREED, DISPUTED = 0.85, 0.74  # Dice, the range of human raters among each other [2]_
NARROW, WIDE = 0.05, 0.10  # width of a 95 % interval up to which confidence is high, moderate

_READING = NextStep(
    "A radiologist reads the images: the definitive report on an examination is the interpreting "
    "physician's, not a program's.",
    "American College of Radiology, ACR Practice Parameter for Communication of Diagnostic Imaging Findings, "
    "revised 2020 (Resolution 37)",
)
_OF_CLASS = {
    "glioma": (
        NextStep(
            "For a suspected glioma, NICE names standard structural MRI (T2, FLAIR, DWI, T1 before and after "
            "contrast) as the first test, and referral to a specialist multidisciplinary team at first "
            "radiological diagnosis.",
            "NICE guideline NG99, Brain tumours (primary) and brain metastases, 2018, updated 2021, "
            "recommendations 1.1.1 and 1.1.2",
        ),
        NextStep(
            "What kind of glioma it is, tissue says: EANO would have clinical decisions made without a "
            "tissue diagnosis in very exceptional circumstances only.",
            "M. Weller et al., EANO guidelines on the diagnosis and treatment of diffuse gliomas of "
            "adulthood, Nature Reviews Clinical Oncology 18, 2021, doi:10.1038/s41571-020-00447-z",
        ),
    ),
    "meningioma": (
        NextStep(
            "A diagnosis of meningioma by imaging is provisional; the definitive one takes tissue.",
            "R. Goldbrunner et al., EANO guideline on the diagnosis and management of meningiomas, "
            "Neuro-Oncology 23(11), 2021, doi:10.1093/neuonc/noab150",
        ),
    ),
    "pituitary": (
        NextStep(
            "For a pituitary lesion found by chance, the Endocrine Society recommends a full history and "
            "examination, laboratory tests for too much and too little hormone, and an examination of the "
            "visual field if it touches the optic nerves or the chiasm.",
            "P. U. Freda et al., Pituitary Incidentaloma: An Endocrine Society Clinical Practice Guideline, "
            "Journal of Clinical Endocrinology & Metabolism 96(4), 2011, doi:10.1210/jc.2010-1048",
        ),
    ),
}
_COMPARING = NextStep(
    "Growth and response are judged by comparison with earlier scans, on enhancing lesions of which two "
    "diameters at right angles reach 10 mm; the single diameters here are no such judgement.",
    "P. Y. Wen et al., Updated Response Assessment Criteria for High-Grade Gliomas (RANO), Journal of "
    "Clinical Oncology 28(11), 2010, doi:10.1200/JCO.2009.26.3541",
)
_EXTERNAL = NextStep(
    "Test the model on images from hospitals that it was not trained on, and report its failures, before "
    "anything is said of its use elsewhere.",
    "J. Mongan, L. Moy and C. E. Kahn, Checklist for Artificial Intelligence in Medical Imaging (CLAIM), "
    "Radiology: Artificial Intelligence 2(2), 2020, doi:10.1148/ryai.2020200029",
)
_LOCAL = NextStep(
    "Where a hospital does worse than the others together, look at its images first (fedutils data audit): "
    "other scanners or labels show there.",
    "This project's page on data, docs/data.md",
)


def list_next_steps(kind: str, prediction: str | None = None) -> tuple[NextStep, ...]:
    """Return the next steps of a report: general ones of its kind, then those of the predicted class."""
    if kind == "image":
        return (_READING, *_OF_CLASS.get(prediction, ()))
    if kind == "case":
        return (_READING, _COMPARING)
    return (_EXTERNAL, _LOCAL) if kind == "hospital" else (_EXTERNAL,)


def format_share(value: float) -> str:
    """Return a share in [0, 1] in per cent to a tenth; what is not 0 or 1 is not printed as if it were."""
    if 0 < value < 0.0005:
        return "less than 0.1 %"
    if 0.9995 <= value < 1:
        return "more than 99.9 %"
    return f"{100 * value:.1f} %"


def format_size(value: float, unit: str) -> str:
    """Return a volume or a length: to a tenth in ml and mm, whole in voxels."""
    if unit == "voxels":
        return f"{value:,.0f} voxel" + ("" if round(value) == 1 else "s")
    return f"less than 0.1 {unit}" if 0 < value < 0.05 else f"{value:,.1f} {unit}"


def judge_probability(probability: float, *, calibrated: bool, doubts: int) -> tuple[str, str]:
    """Return the confidence in a predicted class, and what it means.

    Parameters
    ----------
    probability : float
        Of the predicted class.
    calibrated : bool
        By a temperature that was fitted on validation images [1]_.
    doubts : int
        Warnings about the picture.
    """
    level = 2 if probability >= SURE else 1 if probability >= LIKELY else 0
    meaning = (
        f"By the probability of the predicted class: high from {100 * SURE:.0f} %, moderate from "
        f"{100 * LIKELY:.0f} %, low below. "
    )
    if calibrated:
        meaning += (
            "It was calibrated on validation images: of images like those, about the share that the "
            "probability names is classified rightly. Of other images it says nothing."
        )
    else:
        level = min(level, 1)
        meaning += (
            "It was not calibrated, so that networks are often surer than they are right; the confidence is "
            "moderate at most."
        )
    return _lower(level, meaning, doubts)


def judge_overlap(dice: float | None, doubts: int) -> tuple[str, str]:
    """Return the confidence in an outline by the model's mean Dice on test patients, and what it means."""
    rule = (
        f"By the model's mean Dice on patients that it was tested on: high from {AGREED:.2f}, moderate "
        f"from {DISPUTED:.2f}, low below; {DISPUTED:.2f} to {AGREED:.2f} is how far human raters agree "
        "(Menze et al., 2015). "
    )
    if dice is None:
        return "low", rule + "The model does not say how it did, so that the confidence is low."
    level = 2 if dice >= AGREED else 1 if dice >= DISPUTED else 0
    told = (
        f"The model's is {dice:.2f}. It holds on average, not for this case: the outline is to be looked at."
    )
    return _lower(level, rule + told, doubts)


def judge_interval(interval: tuple[float, float] | None, quantity: str) -> tuple[str, str]:
    """Return the confidence in a measured share by the width of its 95 % interval, and what it means."""
    rule = (
        f"By the width of the 95 % interval of the {quantity}: high up to {100 * NARROW:.0f} points, "
        f"moderate up to {100 * WIDE:.0f}, low beyond. "
    )
    if interval is None:
        return "low", rule + "There is no interval, so that the confidence is low."
    width = interval[1] - interval[0]
    level = 2 if width <= NARROW + 1e-9 else 1 if width <= WIDE + 1e-9 else 0
    return LEVELS[level], (
        f"{rule}It is {100 * width:.1f} points wide. It tells how well these images pin the number down, "
        "not how the model does on others."
    )


def judge_training(done: int, planned: int) -> tuple[str, str]:
    """Return the confidence in what training reached on validation images, and what it means."""
    level = 1 if done >= planned else 0
    return LEVELS[level], (
        "Moderate if training ran as long as planned, low if it stopped before, never high: the same images "
        "chose the model and measured it, so that the number is somewhat too good. A test run on other "
        "images tells."
    )


def _lower(level: int, meaning: str, doubts: int) -> tuple[str, str]:
    """Take a step off for warnings about what went in, and say so."""
    if doubts and level:
        level -= 1
        meaning += " It is a step lower because of the quality warnings."
    return LEVELS[level], meaning
