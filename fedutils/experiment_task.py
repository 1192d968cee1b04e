"""The task of an experiment, chosen by the source of its data."""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from fedutils.experiment_file import OTHER_TASKS, Experiment
from fedutils.experiment_interface import Task
from fedutils.experiment_personal_scores import ScoredPersonal
from fedutils.experiment_scores import ScoredClassification
from fedutils.experiment_segmentation_scores import ScoredSegmentation


def load_task(experiment: Experiment) -> Task:
    """Read the data of an experiment.

    Raises
    ------
    InputError
        If the data are not there, or damaged, or leak.
    """
    if experiment.is_personal:
        return ScoredPersonal.load(experiment)
    kind = ScoredSegmentation if experiment.data["source"] in OTHER_TASKS else ScoredClassification
    return kind.load(experiment)
