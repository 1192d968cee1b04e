"""What an experiment trains and measures, chosen by the source of its data."""

from fedutils.experiment_classification import Classification, load_classification
from fedutils.experiment_file import Experiment


def load_task(experiment: Experiment) -> Classification:
    """Read the data of an experiment.

    Another task, such as the segmentation of cases, is another class with the members of `Classification`;
    nothing else in the experiments knows what is learned.

    Raises
    ------
    InputError
        If the data are not there, or damaged, or leak.
    """
    return load_classification(experiment)
