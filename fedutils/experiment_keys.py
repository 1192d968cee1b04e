"""The keys of an experiment that segments tumours; see `fedutils.experiment_file`."""

from fedutils.experiment_file import TRAINING
from fedutils.keys import Key, choice, number

SECTIONS = {
    "data": {
        "source": choice(None, "kaggle_3m", "phantom_cases", required=True),
        # In 2 dimensions the slices of a case are trained on, in 3 patches of its volume.
        "dimensions": Key(int, 2, lambda value: value in (2, 3), "2 or 3"),
        "image_size": number(int, least=8),  # side of a slice, in pixels
        "patch_size": number(int, least=8),  # side of a patch, in voxels
        "patches_per_case": number(int, least=1),  # in a pass
        # Of the patients of each institution that has three or more, at least one each.
        "validation_fraction": number(float, 0.2, above=0, below=1),
        "test_fraction": number(float, 0.25, above=0, below=1),
        "held_out": Key(str),  # an institution that is never trained on: all its patients are the test
        "skip_bad": Key(bool, False),
        "num_cases": number(int, least=1),  # of the phantom
        "voxel_mm": number(float, above=0),  # of the phantom
        "scanner": Key(str),  # of all phantom cases; by default they come from five hospitals in turn
    },
    "partition": {
        # The sites of BraTS 2020 give their sizes; an equal partition is of the same cases.
        "kind": choice(None, "institutions", "brats_sites", "equal", required=True),
        "num_clients": number(int, least=1),
    },
    "model": {
        "name": choice(None, "unet", "unet_plus_plus", "attention_unet", required=True),
        "depth": number(int, least=2),
        "width": number(int, least=1),
        "normalisation": choice(None, "group", "instance"),
    },
    "training": TRAINING | {"choose_by": choice("dice", "dice")},
}
