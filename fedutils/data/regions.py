"""Tumour regions: from BraTS labels to the overlapping regions that are scored, and back.

The labels 1 (necrosis and non-enhancing core), 2 (oedema) and 4 (enhancing tumour) exclude each other. What
is scored since Menze et al. [1]_ and in BraTS 2018 [2]_ are three regions, each inside the one before:

==  ================  ==========
WT  whole tumour      1, 2 and 4
TC  tumour core       1 and 4
ET  enhancing tumour  4
==  ================  ==========

References
----------
.. [1] B. H. Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", IEEE
   Transactions on Medical Imaging 34(10), 2015.
.. [2] S. Bakas et al., "Identifying the Best Machine Learning Algorithms for Brain Tumor Segmentation,
   Progression Assessment, and Overall Survival Prediction in the BRATS Challenge", 2018.
"""

import numpy as np

from fedutils.errors import InputError

REGIONS = ("WT", "TC", "ET")
NECROSIS, OEDEMA, ENHANCING = 1, 2, 4


def labels_to_regions(labels: np.ndarray) -> np.ndarray:
    """Return the regions of a mask.

    Parameters
    ----------
    labels : integer (...)
        0, 1, 2 and 4.

    Returns
    -------
    bool (3, ...)
        WT, TC, ET (`REGIONS`); all false where there is no tumour.
    """
    labels = np.asarray(labels)
    enhancing = labels == ENHANCING
    return np.stack([labels > 0, enhancing | (labels == NECROSIS), enhancing])


def regions_to_labels(regions: np.ndarray) -> np.ndarray:
    """Return the mask of regions.

    Parameters
    ----------
    regions : bool (3, ...)
        WT, TC, ET. Predictions need not lie inside each other: where they disagree, the inner region wins, so
        a voxel of ET is 4 even outside TC and WT.

    Returns
    -------
    uint8 (...)
        0, 1, 2 and 4. Of nested regions, the inverse of `labels_to_regions`.

    Raises
    ------
    InputError
        If the first axis is not the three regions.
    """
    regions = np.asarray(regions, bool)
    if regions.ndim < 1 or len(regions) != len(REGIONS):
        raise InputError(
            f"regions: expected a first axis of {', '.join(REGIONS)}, found shape {regions.shape}; "
            "put the regions first"
        )
    whole, core, enhancing = regions
    labels = np.where(whole, np.uint8(OEDEMA), np.uint8(0))
    labels[core] = NECROSIS
    labels[enhancing] = ENHANCING
    return labels


def measure_volumes(regions: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Return the volume of each region.

    Parameters
    ----------
    regions : bool (3, X, Y, Z)
        WT, TC, ET.
    spacing : (3,) mm
        Sides of a voxel.

    Returns
    -------
    dict of str to float
        By region, in ml.
    """
    voxel_ml = float(np.prod(spacing)) / 1000.0
    return {name: int(region.sum()) * voxel_ml for name, region in zip(REGIONS, regions, strict=True)}
