"""The tables of the federated study, as Markdown."""

from collections.abc import Sequence

from fedutils.errors import InputError
from fedutils.study import NAMES, PHANTOM_NOTE, format_spread, list_runs, note_missing, rank, shorten_title
from fedutils.study_costs import CLOCKS, MB

_NOTHING = "–"
_NOT_RUN = "not run"
_OF_HOSPITALS = ("worst", "own_mixture")  # metrics for which the partition counts


def build_study_table(
    records: Sequence[dict], *, part: str = "deduplicated", after: int | None = None
) -> str:
    """Return the table as Markdown, one line an algorithm, in the order of `records`.

    Parameters
    ----------
    records : sequence of dict
        From `load_study`.
    part : str
        Of the test images: deduplicated or public.
    after : int, optional
        Show the best round until this one, among ``report_rounds``, instead of the best of all. Algorithms
        that were not tested then are left out.

    Raises
    ------
    InputError
        If no record was tested so.
    """
    lines = [
        "| experiment | training | test accuracy, % | macro F1, % | macro AUC, % | worst hospital, % "
        "| worst on its own mixture, % | MB up, a hospital and round | rounds done of planned | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    phantom = False
    for record in records:
        summary = record["summary"] if after is None else record["summary"]["after"].get(str(after))
        if not summary or part not in summary:
            continue
        phantom |= record["data"]["source"] == "phantom"
        runs = list_runs(record)
        keys = ("accuracy", "f1", "auc", "worst", "own_mixture")
        cells = [
            title_of(record),
            NAMES.get(record["algorithm"], record["algorithm"]),
            *(_cell(summary[part][key]) for key in keys),
            _up(runs[0]),
            _count_rounds(runs, after),
            f"{len(record['seeds'])} of {len(record['seeds_planned'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if len(lines) == 2:
        raise InputError(
            f"study: expected a result on the test images {part!r}"
            + (f" after round {after}" if after is not None else "")
            + f", found none among {len(records)}; add it to report_rounds, or choose another"
        )
    lines += [
        "",
        "Mean ± standard deviation over seeds, of the round (or epoch) that is best on validation images. "
        "Worst hospital: of the models, where each hospital has its own, the worst on all test images. On "
        "its own mixture: the accuracy to expect on a hospital's mixture of classes, the lowest of all "
        "hospitals." + (f" {PHANTOM_NOTE}" if phantom else ""),
    ]
    return "\n".join(lines)


def title_of(record) -> str:
    """Return the title; whatever it says, a phantom is called one."""
    title = record["title"]
    drawn = record["data"]["source"] == "phantom" and "phantom" not in title.lower()
    return f"{title} (phantom)" if drawn else title


def _cell(value) -> str:
    return _NOTHING if value is None else format_spread(value)


def _up(run) -> str:
    sent = run.get("bytes") or {}
    return _NOTHING if sent.get("up_per_client") is None else f"{sent['up_per_client'] / MB:.3g}"


def _count_rounds(runs, after) -> str:
    """Say the fewest rounds that a seed did, and how many were planned."""
    done = min(run["rounds_done"] for run in runs)
    planned = runs[0]["rounds_planned"]
    unit = " epochs" if runs[0]["unit"] == "epoch" else ""
    return f"{done if after is None else min(done, after)} of {planned}{unit}"


def build_grid(rows: Sequence[dict], *, key: str = "accuracy", after: int | None = None) -> str:
    """Return one metric of the test as Markdown: a line an algorithm, a column an experiment.

    Parameters
    ----------
    rows : sequence of dict
        From `fedutils.study.summarise_study`.
    key : str
        One of `fedutils.study.SHOWN`, on the de-duplicated test images, in per cent; ``against_central`` for
        the paired difference of the accuracy, in percentage points.
    after : int, optional
        Of the best round until this one, instead of the best of all.

    Returns
    -------
    str
        Of what is not finished the number of seeds stands in brackets; "not run": planned, and no seed done;
        a dash: not planned, or not measured then. Where a bound (local, central) is that of another
        experiment, that stands there; a metric of hospitals does only if the partition is the same.
    """
    experiments = list(dict.fromkeys((row["experiment"], row["title"]) for row in rows))
    algorithms = list(
        dict.fromkeys(row["algorithm"] for row in sorted(rows, key=lambda r: rank(r["algorithm"])))
    )
    cells = {(row["experiment"], row["algorithm"]): row for row in rows}
    for row in rows:
        for bound, where in row["bounds"].items():
            there = cells.get((where, bound))
            if there and (key not in _OF_HOSPITALS or there["partition"] == row["partition"]):
                cells.setdefault((row["experiment"], bound), there)
    lines = [
        f"| training | {' | '.join(shorten_title(title) for _, title in experiments)} |",
        "|---" * (1 + len(experiments)) + "|",
    ]
    for algorithm in algorithms:
        told = [_grid_cell(cells.get((name, algorithm)), key, after) for name, _ in experiments]
        if set(told) != {_NOTHING}:
            lines.append(f"| {NAMES.get(algorithm, algorithm)} | {' | '.join(told)} |")
    return "\n".join(lines)


def _grid_cell(row, key, after) -> str:
    if row is None or (after is not None and not row["federated"]):
        return _NOTHING
    if key == "against_central" and row["algorithm"] == "central":
        return _NOTHING
    if not row["seeds"]:
        return _NOT_RUN
    if key == "against_central":
        value = row["against_central"]
    else:
        told = row["summary"] if after is None else row["after"].get(str(after))
        value = told and told["deduplicated"][key]
    if value is None:
        return _NOTHING
    text = format_spread(value, sign="+" if key == "against_central" else "")
    return text + note_missing(value["values"], row["seeds_planned"])


def build_skew_table(rows: Sequence[dict], skew: dict, price: dict) -> str:
    """Return how skewed the hospitals are as Markdown: a line a partition, values seed by seed.

    Parameters
    ----------
    rows : sequence of dict
        From `fedutils.study.summarise_study`.
    skew : dict
        From `fedutils.study_skew.describe_skew`.
    price : dict
        From `fedutils.study_skew.measure_price_of_skew`.
    """
    lines = [
        "| partition | label distance | share of the largest hospital, % | FedAvg less IID, points |",
        "|---|---|---|---|",
    ]
    for name, title in dict.fromkeys((row["experiment"], row["title"]) for row in rows):
        if told := skew.get(name):
            distances = ", ".join(f"{far:.2f}" for far in told["label_distance"])
            shares = ", ".join(f"{100 * share:.0f}" for share in told["largest"])
            apart = price.get(name, {"values": []})["values"]
            cost = ", ".join(f"{100 * value:+.1f}" for value in apart) or _NOTHING
            lines.append(f"| {shorten_title(title)} | {distances} | {shares} | {cost} |")
    return "\n".join(lines)


def count_done(rows: Sequence[dict]) -> str:
    """Return in words how many runs and rounds were done of those planned."""
    planned = sum(len(row["seeds_planned"]) for row in rows)
    done = sum(len(row["seeds"]) for row in rows)
    words = f"{done} of {planned} planned runs done"
    short = [
        f"{row['name']} under {shorten_title(row['title'])} ({n} of {row['rounds_planned']} {row['unit']}s)"
        for row in rows
        for n in sorted(set(row["rounds_done"] or []))
        if n < row["rounds_planned"]
    ]
    return words + (f"; cut short: {', '.join(short)}" if short else "")


def list_missing(rows: Sequence[dict]) -> str:
    """Return in words which trainings were planned and have no seed, experiment by experiment; maybe none."""
    missing = {}
    for row in rows:
        if not row["seeds"]:
            missing.setdefault(row["title"], []).append(row["name"])
    return "; ".join(f"{title} ({'; '.join(names)})" for title, names in missing.items())


def tell_hours(records: Sequence[dict]) -> str:
    """Return in words how long the runs of some results took, all together."""
    hours = sum(run["seconds"] for record in records for run in list_runs(record)) / 3600
    return f"Their rounds and epochs, with validation, took {hours:.1f} h in all"


def build_time_table(told: Sequence[dict]) -> str:
    """Return the time to an accuracy as Markdown, a line a federated result.

    Parameters
    ----------
    told : sequence of dict
        From `fedutils.study_costs.measure_time_to`.
    """
    heads = ("experiment", "training", "validation accuracy", "seeds that reached it", *CLOCKS.values())
    lines = [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for entry in told:
        cells = [_span([v for v in entry[clock] if v is not None]) for clock in CLOCKS]
        lines.append(
            f"| {shorten_title(entry['title'])} | {entry['name']} | {100 * entry['target']:g} % | "
            f"{entry['reached']} of {len(entry['seeds'])} | {' | '.join(cells)} |"
        )
    lines += [
        "",
        "Lowest to highest of the seeds that reached it; a seed that did not is in no number but the count.",
    ]
    return "\n".join(lines)


def _span(values) -> str:
    """Return the range of some numbers."""
    if not values:
        return _NOTHING
    low, high = (f"{value:,.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
