"""The federated study of segmentation from its result files: what was planned, and what was measured.

As `fedutils.study` for classification: what is planned and not there stays in every list, without seeds.
"""

from collections.abc import Sequence
from pathlib import Path

from fedutils.data.federated_cases import EVERYONE
from fedutils.experiment_file import ALONE, Experiment, load_experiment
from fedutils.metrics import summarise
from fedutils.models.registry import NETWORKS
from fedutils.study import NAMES, compare_with_central, count_steps, list_runs, rank


def summarise_segmentations(experiments: Sequence[str | Path | dict], records: Sequence[dict]) -> list[dict]:
    """Put what was planned beside what was done.

    Parameters
    ----------
    experiments : sequence
        The study, in order; see `fedutils.experiment_file.load_experiment`.
    records : sequence of dict
        From `fedutils.study.load_study` or `fedutils.experiments.collect`; those of other experiments are
        left out.

    Returns
    -------
    list of dict
        One for each algorithm of each file: ``experiment`` and its ``title``, ``source``, ``network`` in
        words and ``held_out``, the institution that trains nobody (or None); ``bounds``, by bound (local,
        central) the experiment that trains it; ``algorithm``, its ``name`` in words, and ``variant``, the
        name with what else sets a line of a table apart; ``proximal_strength`` of FedProx (else None);
        ``seeds`` done and ``seeds_planned``;
        ``rounds_planned`` (epochs without a federation); ``length``, these in words where an experiment of
        that source and network trains for longer or shorter (else None).
        Where a seed was done also ``rounds_done`` by seed, their ``unit``, the ``distance``'s (mm, or voxels
        where the files do not say how large one is), and by part of the test (all, and each institution)
        ``summary``: mean and standard deviation over seeds of ``dice``, ``hd95`` and, of regions,
        ``dice_wt`` and so on; of all also ``own`` and ``worst``; ``own_by``, the same of each
        hospital's own network on its own patients, by institution, where hospitals have networks of their own
        (else empty), and then ``best_alone``, the highest Dice of one of them on all test patients (else
        None); ``against_central``, seed by seed; ``up``,
        bytes of a hospital and round; ``patients`` by part, the number tested by seed; and ``apart``, whether
        two institutions or more have test patients of their own. Otherwise these are None.
    """
    found = {(record["experiment"], record["algorithm"]): record for record in records}
    rows = []
    for plan in map(load_experiment, experiments):
        central = found.get((plan.bounds["central"], "central"))
        for algorithm in sorted(plan.algorithms, key=rank):
            record = found.get((plan.name, algorithm))
            rows.append({**_plan(plan, algorithm), **_tell(record, central)})
    lengths = {}
    for row in rows:
        lengths.setdefault(_kind(row), set()).add(row["length"])
    return [_name_variant(row, row["length"] if len(lengths[_kind(row)]) > 1 else None) for row in rows]


def _kind(row):
    return row["source"], row["network"], row["algorithm"]


def _name_variant(row, length) -> dict:
    parts = (row["name"], row["held_out"] and "institution left out", length)
    return {**row, "length": length, "variant": ", ".join(part for part in parts if part)}


def _plan(plan: Experiment, algorithm) -> dict:
    training = plan.algorithms[algorithm]
    return {
        "experiment": plan.name,
        "title": plan.title,
        "source": "phantom" if plan.data["source"].startswith("phantom") else plan.data["source"],
        "network": NETWORKS[plan.model["name"]].title,
        "held_out": plan.data.get("held_out"),
        "bounds": plan.bounds,
        "algorithm": algorithm,
        "name": NAMES.get(algorithm, algorithm),
        "seeds_planned": list(plan.seeds),
        "proximal_strength": training["proximal_strength"] if algorithm == "fedprox" else None,
        "rounds_planned": count_steps(training),
        "length": _tell_length(training),
    }


def _tell_length(training) -> str:
    steps, epochs = count_steps(training), training["local_epochs"]
    if training["algorithm"] in ALONE:
        return f"{steps} epochs"
    return f"{steps} rounds" + (f" of {epochs} epochs" if epochs > 1 else "")


def _tell(record, central) -> dict:
    if record is None:
        keys = (
            *("rounds_done", "unit", "distance", "summary", "own_by", "best_alone", "against_central"),
            *("up", "patients", "apart"),
        )
        return {"seeds": [], **dict.fromkeys(keys)}
    runs, unit = list_runs(record), find_unit(record)
    return {
        "seeds": record["seeds"],
        "rounds_done": [run["rounds_done"] for run in runs],
        "unit": runs[0]["unit"],
        "distance": unit,
        "summary": {
            part: {key.replace(f"hd95_{unit}", "hd95"): value for key, value in told.items()}
            for part, told in record["summary"].items()
            if part != "after"
        },
        "own_by": _tell_own(record, unit),
        "best_alone": _find_best(runs),
        "against_central": compare_with_central(record, central, part=EVERYONE, metric="dice"),
        "up": (runs[0].get("bytes") or {}).get("up_per_client"),
        "patients": {
            part: [run["test"][part]["n"] for run in runs if part in run["test"]] for part in runs[0]["test"]
        },
        "apart": len(record["summary"].keys() - {EVERYONE, "after"}) > 1,
    }


def list_own(record: dict) -> dict[str, list[dict]]:
    """Return the scores on the patients of each institution that has some in the test, one a seed.

    A hospital's are those of the model that it uses; those of an institution that trains nobody are of the
    model for all, or of local training the means over hospitals.
    """
    told: dict[str, list[dict]] = {}
    for run in list_runs(record):
        hospitals = run["hospitals"]
        own = dict(zip(hospitals["names"], hospitals["own"], strict=True))
        others = {part: run["test"][part] for part in run["test"] if part not in (EVERYONE, *own)}
        for name, scores in (own | others).items():
            if scores:
                told.setdefault(name, []).append(scores)
    return told


def _tell_own(record, unit) -> dict:
    """Return Dice and distance of each hospital's own network on its own patients, by institution."""
    run = list_runs(record)[0]
    if "tests" not in run["hospitals"]:
        return {}
    holders = run["test"].keys() & set(run["hospitals"]["names"])  # else no patient is its own
    keys = {"dice": "dice", "hd95": f"hd95_{unit}"}
    return {
        name: {key: summarise([own[of] for own in told]) for key, of in keys.items()}
        for name, told in list_own(record).items()
        if name in holders
    }


def _find_best(runs) -> dict | None:
    if "tests" not in runs[0]["hospitals"]:
        return None
    return summarise([max(one[EVERYONE]["dice"] for one in run["hospitals"]["tests"]) for run in runs])


def find_unit(record: dict) -> str:
    """Return in what distances are: mm, or voxels where the files do not say how large one is."""
    return "mm" if "hd95_mm" in record["summary"][EVERYONE] else "voxels"
