"""Federated segmentation in the README, made from its committed results, however many of them are there."""

from pathlib import Path

from fedutils.segmentation_study import summarise_segmentations
from fedutils.segmentation_table import build_tables
from fedutils.study import load_study


def build_federated_segmentation(folder: Path, settings: dict) -> str:
    """Return federated segmentation as Markdown, without what is planned and not there.

    Parameters
    ----------
    folder : Path
        Holds the results of experiments.
    settings : dict
        The parameters of notebook 07, which name the experiments.
    """
    rows = summarise_segmentations(settings["experiments"], load_study(folder))
    done, planned = (sum(len(row[key]) for row in rows) for key in ("seeds", "seeds_planned"))
    words = f"{done} of {planned} planned runs done"
    if not done:
        return f"{words}: `fedutils experiment {' '.join(settings['experiments'])}` runs them."
    measured = [row for row in rows if row["seeds"]]
    missing = dict.fromkeys(row["title"] for row in rows if not row["seeds"])
    rest = f" Not finished, or not begun: {'; '.join(missing)}." if missing else ""
    return f"{build_tables(measured)}\n\n{words[:1].upper()}{words[1:]}.{rest} Not for clinical use."
