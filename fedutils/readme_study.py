"""The federated study, and models of a hospital's own, in the README: from their committed results alone."""

from collections.abc import Sequence
from pathlib import Path

from fedutils.experiment_file import load_experiment
from fedutils.experiment_personal_tables import build_personal_table, summarise_personal
from fedutils.study import load_study, shorten_title, summarise_study
from fedutils.study_skew import describe_mixtures, describe_skew, measure_price_of_skew
from fedutils.study_tables import build_grid, build_skew_table, count_done, tell_hours


def tell_to_run(words: str, experiments: Sequence[str]) -> str:
    """Return what stands in place of a table whose experiments have no result yet."""
    return f"{words}: `fedutils experiment {' '.join(experiments)}` runs them."


def build_study(folder: Path, settings: dict) -> str:
    """Return the federated study as Markdown: an algorithm a line, a partition a column.

    Parameters
    ----------
    folder : Path
        Holds the results of experiments; of those that are not there, the tables say so.
    settings : dict
        The parameters of notebook 08, which name the experiments.
    """
    plans = [load_experiment(name) for name in settings["experiments"]]
    planned = {plan.name for plan in plans}
    records = [record for record in load_study(folder) if record["experiment"] in planned]
    rows = summarise_study(settings["experiments"], records)
    if not records:
        return tell_to_run(count_done(rows), settings["experiments"])
    stop = settings["report_round"]
    # A partition that nothing was done under has no column: the text names it.
    begun = {record["experiment"] for record in records}
    empty = "; ".join(shorten_title(plan.title) for plan in plans if plan.name not in begun)
    shown = [row for row in rows if row["experiment"] in begun]
    lines = []
    for heading, key, after in (
        ("Test accuracy, %, at the best round", "accuracy", None),
        ("Balanced accuracy (mean recall of the classes), %, at the best round", "recall", None),
        (f"Test accuracy, %, at the best of the first {stop} rounds", "accuracy", stop),
        ("Worst hospital: accuracy on its own mixture of classes, %", "own_mixture", None),
        ("Test accuracy less that of central training, points, seed by seed", "against_central", None),
    ):
        lines += [f"**{heading}**", "", build_grid(shown, key=key, after=after), ""]
    table = build_skew_table(shown, describe_skew(records), measure_price_of_skew(plans, records))
    lines += ["**How skewed the hospitals are, seed by seed**", "", table, ""]
    plan, data, shares = plans[0], records[0]["data"], describe_mixtures(records)
    commonest = shares["classes"].index(shares["commonest"])
    training = plan.algorithms["fedavg"]
    lines.append(
        f"{count_done(rows)}. {tell_hours(records)}. {f'Not begun: {empty}. ' if empty else ''}"
        f"{plan.partition['num_clients']} hospitals, {training['num_rounds']} rounds of "
        f"{training['local_epochs']} local epoch(s) where a title says nothing else, and as many "
        "passes where there is no federation; "
        f"{plan.data['image_size']} px; {data['num_training']:,} images of "
        f"{'the real Brain Tumor MRI set' if data['source'] == 'brain_mri' else data['source']}, "
        f"{data['num_deduplicated']} de-duplicated test images, of which {shares['test'][commonest]:.1%} are "
        f"{shares['commonest']}, against {shares['training'][commonest]:.1%} of those to train on. "
        "Mean ± standard deviation over seeds, which deal the images out anew; round and epoch were chosen "
        "on validation images, rates by a search on validation images with a seed of its own, under one "
        "partition (notebook 08). Local: the mean over hospitals, each with its own model. Columns of "
        "as many passes share central training, and local where the partition is one, too. What this does "
        "not show: hospitals that differ in scanners or patients; each algorithm at its best under every "
        f"partition; what a schedule made for {stop} rounds would reach in them. Not for clinical use."
    )
    return "\n".join(lines)


def build_personal(folder: Path, settings: dict) -> str:
    """Return what personalisation gives hospitals as Markdown, without what is planned and not there.

    Parameters
    ----------
    folder : Path
        Holds the results of experiments.
    settings : dict
        The parameters of notebook 09, which name the experiment.
    """
    plan = load_experiment(settings["experiment"])
    stored = load_study(folder)
    records = [record for record in stored if record["experiment"] == plan.name]
    done = {record["algorithm"]: record["seeds"] for record in records}
    words = count_done(
        [
            {"seeds": done.get(name, []), "seeds_planned": plan.seeds, "rounds_done": None}
            for name in plan.algorithms
        ]
    )
    if not records:
        return tell_to_run(words, [plan.name])
    searched = any(record["experiment"] == settings["rates"] for record in stored)
    return (
        f"{build_personal_table(summarise_personal(records))}\n\n{words}. {tell_hours(records)}. "
        f"{plan.title}; settings {'' if searched else 'not '}searched on validation images. What this does "
        "not show: hospitals that differ in scanners or patients; here they differ in how often they see "
        "each class, and a part of what personalisation gains is to know that. Not for clinical use."
    )
