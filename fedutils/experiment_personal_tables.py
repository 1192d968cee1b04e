"""What personalisation gives each hospital, from the result files: per hospital, compared, and as tables.

A hospital of one seed is not that of another: each seed deals the images out anew. So hospitals are compared
within a seed, and only what sums them up is averaged over seeds.
"""

from collections.abc import Sequence

from fedutils.errors import InputError
from fedutils.metrics import summarise
from fedutils.study import format_spread, list_runs, rank

# In the order of tables and figures.
NAMES = {
    "local": "local, alone",
    "fedavg": "FedAvg, one for all",
    "fine_tune": "FedAvg, fine-tuned",
    "fedbn": "FedBN",
    "fedper": "FedPer",
    "ditto": "Ditto",
    "fedlc": "FedLC, one for all",
    "own_mixture": "FedLC, own mixture put in",
    "central": "central",
}
_MIXTURE = (
    " Own mixture put in: the logarithm of a hospital's shares of the classes, added to the logits of "
    "FedLC's one model; nothing is trained for it, so that its gain is knowledge of the mixture."
)
_POOL = "deduplicated"  # the part of the pooled test images that is reported


def list_hospitals(records: Sequence[dict]) -> list[dict]:
    """List what every hospital got, one entry for each algorithm, seed and hospital.

    Parameters
    ----------
    records : sequence of dict
        Of one personal experiment, from `fedutils.experiments.run_experiment`.

    Returns
    -------
    list of dict
        ``algorithm``, ``seed``, ``hospital`` (from 1), ``trains_on`` (images), and of the model that it uses,
        on its own test images: ``n``, ``right``, ``accuracy`` and ``interval``; and ``pool``, the accuracy of
        the same model on the pooled test images, de-duplicated. ``majority`` is the accuracy there of a
        model that always says the class which is the most frequent one among the hospital's training images.

    Raises
    ------
    InputError
        If a result is of an experiment whose hospitals hold out nothing.
    """
    listed = []
    for record in _sort(records):
        for seed, run in zip(record["seeds"], list_runs(record), strict=True):
            told = run["hospitals"]
            if "own" not in told:
                raise InputError(
                    f"{record['name']}: expected a result with own test images of each hospital, found none; "
                    "run an experiment with data.own_test_fraction"
                )
            for k, own in enumerate(told["own"]):
                test = told["tests"][k] if "tests" in told else run["test"]
                counts, held_out = (run["partition"][key][k] for key in ("counts", "testing_counts"))
                listed.append(
                    {
                        "algorithm": record["algorithm"],
                        "seed": seed,
                        "hospital": k + 1,
                        "trains_on": int(sum(counts)),
                        **{key: own[key] for key in ("n", "right", "accuracy", "interval")},
                        "pool": test[_POOL]["accuracy"],
                        "majority": held_out[counts.index(max(counts))] / own["n"],
                    }
                )
    return listed


def _sort(records):
    return sorted(records, key=lambda record: rank(record["algorithm"], NAMES))


def compare_hospitals(hospitals: Sequence[dict], algorithm: str, against: str) -> dict | None:
    """Count the hospitals that an algorithm leaves better off than another, on their own test images.

    Parameters
    ----------
    hospitals : sequence of dict
        From `list_hospitals`.
    algorithm, against : str

    Returns
    -------
    dict or None
        ``better``, ``equal`` and ``worse``, in hospitals of all common seeds; ``gain``, the mean over
        hospitals of the difference of the accuracies, summarised over seeds (`fedutils.metrics.summarise`);
        ``seeds``. None of an algorithm against itself, and without a common seed.
    """
    found = {
        name: {
            (one["seed"], one["hospital"]): one["accuracy"] for one in hospitals if one["algorithm"] == name
        }
        for name in (algorithm, against)
    }
    common = sorted(set(found[algorithm]) & set(found[against]))
    if algorithm == against or not common:
        return None
    gains = {key: found[algorithm][key] - found[against][key] for key in common}
    seeds = sorted({seed for seed, _ in common})
    by_seed = [[gain for (seed, _), gain in gains.items() if seed == own] for own in seeds]
    return {
        "better": sum(gain > 0 for gain in gains.values()),
        "equal": sum(gain == 0 for gain in gains.values()),
        "worse": sum(gain < 0 for gain in gains.values()),
        "gain": summarise([sum(values) / len(values) for values in by_seed]),
        "seeds": seeds,
    }


def summarise_personal(records: Sequence[dict]) -> list[dict]:
    """Sum up every algorithm over hospitals, then over seeds.

    Returns
    -------
    list of dict
        In the order of `NAMES`: ``algorithm``, ``name``, ``seeds`` and ``seeds_planned``; ``own``, see
        `fedutils.experiment_personal_scores.score_own`, and ``pool``, the accuracy on the pooled test images,
        each summarised over seeds; ``against_local`` and ``against_fedavg``, see `compare_hospitals`;
        ``bytes`` that a hospital sends in a round, None where nothing is sent; ``seconds`` of a seed;
        ``above_majority``, in how many of the ``num_hospitals`` of all seeds it beats the majority.
    """
    hospitals = list_hospitals(records)
    rows = []
    for record in _sort(records):
        name, runs = record["algorithm"], list_runs(record)
        own = [one for one in hospitals if one["algorithm"] == name]
        rows.append(
            {
                "algorithm": name,
                "name": NAMES.get(name, name),
                "seeds": record["seeds"],
                "seeds_planned": record["seeds_planned"],
                "own": record["summary"]["own"],
                "pool": record["summary"][_POOL]["accuracy"],
                "against_local": compare_hospitals(hospitals, name, "local"),
                "against_fedavg": compare_hospitals(hospitals, name, "fedavg"),
                "above_majority": sum(one["accuracy"] > one["majority"] for one in own),
                "num_hospitals": len(own),
                "bytes": (runs[0].get("bytes") or {}).get("up_per_client"),
                "seconds": summarise(
                    [run["seconds"] + run.get("start", {}).get("seconds", 0) for run in runs]
                ),
            }
        )
    return rows


def build_personal_table(rows: Sequence[dict]) -> str:
    """Return what hospitals get as Markdown, a line an algorithm.

    Parameters
    ----------
    rows : sequence of dict
        From `summarise_personal`.
    """
    lines = [
        "| training | own test: mean of hospitals, % | worst hospital, % | gap, points | spread, points "
        "| better / equal / worse than alone | than FedAvg | above its most frequent class | pooled test, % "
        "| seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["name"],
            *(format_spread(row["own"][key]) for key in ("mean", "worst", "gap", "spread")),
            _count(row["against_local"]),
            _count(row["against_fedavg"]),
            f"{row['above_majority']} of {row['num_hospitals']}",
            format_spread(row["pool"]),
            f"{len(row['seeds'])} of {len(row['seeds_planned'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Mean ± standard deviation over seeds. Own test: each hospital's model, on test images of that "
        "hospital; gap and spread are the distance from best to worst and the standard deviation over "
        "hospitals. Above its most frequent class: hospitals where the model is right more often than one "
        "that always says that class. Pooled test: the de-duplicated images of all, mean over hospitals "
        "where each has its own model."
        + (_MIXTURE if any(row["algorithm"] == "own_mixture" for row in rows) else ""),
    ]
    return "\n".join(lines)


def build_hospital_table(hospitals: Sequence[dict], seed: int) -> str:
    """Return the hospitals of one seed as Markdown, a line a hospital, a column an algorithm.

    Parameters
    ----------
    hospitals : sequence of dict
        From `list_hospitals`.
    seed : int
    """
    own = [one for one in hospitals if one["seed"] == seed]
    algorithms = list(dict.fromkeys(one["algorithm"] for one in own))
    cells = {(one["hospital"], one["algorithm"]): one for one in own}
    names = [NAMES.get(name, name) for name in algorithms]
    heads = ["hospital", "trains on", "tested on", "its most frequent class", *names]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for k in sorted({one["hospital"] for one in own}):
        found = [cells[k, name] for name in algorithms]
        accuracies = [
            f"{100 * value:.1f}" for value in (found[0]["majority"], *(o["accuracy"] for o in found))
        ]
        lines.append(f"| {k} | {found[0]['trains_on']} | {found[0]['n']} | {' | '.join(accuracies)} |")
    return "\n".join(lines)


def _count(told) -> str:
    return "–" if told is None else f"{told['better']} / {told['equal']} / {told['worse']}"
