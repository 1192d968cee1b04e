"""Segmentation in the README, in one place and by a federation, made from its committed results."""

import json
from pathlib import Path

from fedutils.experiment_file import load_experiment
from fedutils.models.registry import NETWORKS
from fedutils.readme_study import tell_to_run
from fedutils.segmentation_study import summarise_segmentations
from fedutils.segmentation_table import build_tables
from fedutils.study import load_study
from fedutils.study_tables import count_done, list_missing, tell_hours


def build_outlines(folder: Path) -> str:
    """Return the table of segmentation as Markdown: whole tumour, by network.

    Parameters
    ----------
    folder : Path
        Holds the result of notebook 06.
    """
    record = json.loads((folder / "06_centralized_segmentation.json").read_text())
    measured, settings = record["metrics"], record["parameters"]
    unit = measured["distance_unit"]
    lines = [
        f"| network | parameters | Dice | 95 % interval over patients | HD95, {unit}, median | sensitivity |",
        "|---|---|---|---|---|---|",
    ]
    for name, of_network in measured["summary"].items():
        dice, distance, found = (of_network[key]["WT"] for key in ("dice", f"hd95_{unit}", "sensitivity"))
        low, high = dice["interval"]
        far = sum(distance["median"]) / len(distance["median"])
        lines.append(
            f"| {NETWORKS[name].title} | {measured['num_parameters'][name]:,} | {dice['mean']:.3f} ± "
            f"{dice['std']:.3f} | {low:.3f} to {high:.3f} | {far:.1f} | {found['mean']:.3f} ± "
            f"{found['std']:.3f} |"
        )
    source = {"kaggle_3m": "real patients of kaggle_3m"}.get(record["data"]["source"], "phantom patients")
    lines += [
        "",
        f"Profile `{record['profile']}`, whole tumour, {record['data']['num_cases']} {source}, each tested "
        f"once a seed in {settings['num_folds']} folds; {settings['slice_size']} px (a perfect answer "
        f"reaches {measured['ceiling']:.3f}), {measured['epochs_planned']} epochs, the best chosen on "
        f"validation patients; mean ± standard deviation over {len(record['seeds'])} seeds. Marking "
        f"nothing at all has an accuracy of {measured['empty_accuracy']:.3f} and a Dice of 0. Not for "
        "clinical use.",
    ]
    return "\n".join(lines)


def build_federated_segmentation(folder: Path, settings: dict) -> str:
    """Return federated segmentation as Markdown, without what is planned and not there.

    Parameters
    ----------
    folder : Path
        Holds the results of experiments.
    settings : dict
        The parameters of notebook 07, which name the experiments.
    """
    plans = [load_experiment(name).name for name in settings["experiments"]]
    records = [record for record in load_study(folder) if record["experiment"] in plans]
    rows = summarise_segmentations(settings["experiments"], records)
    if not records:
        return tell_to_run(count_done(rows), settings["experiments"])
    measured, missing = [row for row in rows if row["seeds"]], list_missing(rows)
    return (
        f"{build_tables(measured)}\n\n{count_done(rows)}. {tell_hours(records)}. "
        f"{f'Not run: {missing}. ' if missing else ''}Not for clinical use."
    )
