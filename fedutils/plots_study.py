"""The federated study from its result files: a table, and the learning curves.

Local (each hospital alone), federated and central stand side by side, with the spread over seeds, the worst
hospital, and how much of what was planned was done.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedutils.errors import InputError
from fedutils.plots import COLOURS, _axis

# In the order of tables and colours.
NAMES = {
    "local": "local, mean of hospitals",
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fedyogi": "FedYogi",
    "scaffold": "SCAFFOLD",
    "fednova": "FedNova",
    "fedavg_sgd": "FedAvg, SGD",
    "fedadam": "FedAdam",
    "fedavgm": "FedAvgM",
    "mimelite": "MimeLite",
    "central": "central",
}
_MB = 1e6


def load_study(folder: Path) -> list[dict]:
    """Read the results of experiments: by experiment, local first and central last.

    Parameters
    ----------
    folder : Path
        Where `fedutils.experiments.run_experiment` wrote.

    Raises
    ------
    InputError
        If there is no result, or a file is not one.
    """
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise InputError(f"{folder}: expected results of experiments, found none; run fedutils experiment")
    records = []
    for file in files:
        try:
            record = json.loads(file.read_text())
            records.append((record["experiment"], _rank(record["algorithm"]), record))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: expected the result of an experiment, found another or a damaged file ({error!r}); "
                "delete it and run the experiment again"
            ) from error
    return [record for *_, record in sorted(records, key=lambda item: item[:2])]


def _rank(algorithm):
    """Order algorithms as `NAMES` does, those unknown before central."""
    names = list(NAMES)
    return names.index(algorithm) if algorithm in names else len(names) - 1.5, algorithm


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
        runs = [record["runs"][str(seed)] for seed in record["seeds"]]
        keys = ("accuracy", "f1", "auc", "worst", "own_mixture")
        cells = [
            _title(record),
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
        "hospitals."
        + (" The phantom is a drawing: no clinical statement follows from its numbers." if phantom else ""),
    ]
    return "\n".join(lines)


def _title(record) -> str:
    """Return the title; whatever it says, a phantom is called one."""
    title = record["title"]
    drawn = record["data"]["source"] == "phantom" and "phantom" not in title.lower()
    return f"{title} (phantom)" if drawn else title


def _cell(value) -> str:
    if value is None:
        return "–"
    spread = f" ± {100 * value['std']:.1f}" if len(value["values"]) > 1 else ""  # one seed has none
    return f"{100 * value['mean']:.1f}{spread}"


def _up(run) -> str:
    sent = run.get("bytes") or {}
    return "–" if sent.get("up_per_client") is None else f"{sent['up_per_client'] / _MB:.3g}"


def _count_rounds(runs, after) -> str:
    """Say the fewest rounds that a seed did, and how many were planned."""
    done = min(run["rounds_done"] for run in runs)
    planned = runs[0]["rounds_planned"]
    unit = " epochs" if runs[0]["unit"] == "epoch" else ""
    return f"{done if after is None else min(done, after)} of {planned}{unit}"


def plot_study_curves(records: Sequence[dict], ax: Axes | None = None, *, quantity: str = "accuracy") -> Axes:
    """Draw a validation quantity over the passes over the images: mean over seeds, and their range.

    Parameters
    ----------
    records : sequence of dict
        Of one experiment, from `load_study`. Seeds that did fewer rounds than others are cut to what all
        did in the mean and the band.
    ax : Axes, optional
    quantity : str
        As in the result, ``accuracy`` or ``loss``.
    """
    ax = _axis(ax)
    names = list(NAMES)
    for record in records:
        runs = [record["runs"][str(seed)] for seed in record["seeds"]]
        curves = [run["validation"][quantity] for run in runs]
        length = min(map(len, curves))
        values = np.asarray([curve[:length] for curve in curves], np.float64)
        passes = np.arange(1, length + 1) * runs[0]["passes_per_step"]
        algorithm = record["algorithm"]
        place = names.index(algorithm) if algorithm in names else len(names)
        style = {"local": ":", "central": "--"}.get(algorithm, "-" if place < len(COLOURS) else "-.")
        colour = "0.35" if algorithm in ("local", "central") else COLOURS[(place - 1) % len(COLOURS)]
        label = NAMES.get(algorithm, algorithm)
        ax.plot(passes, values.mean(axis=0), style, color=colour, label=label)
        if len(values) > 1:
            ax.fill_between(passes, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0)
    if quantity == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("passes over the images")
    ax.set_ylabel(f"validation {quantity}")
    return ax


def plot_study(records: Sequence[dict], *, quantity: str = "accuracy") -> Figure:
    """Draw the learning curves of every experiment, side by side on one scale.

    Parameters
    ----------
    records : sequence of dict
        From `load_study`.
    quantity : str
    """
    experiments = list(dict.fromkeys(record["experiment"] for record in records))
    columns = min(len(experiments), 3)
    rows = -(-len(experiments) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(max(7.2, 2.6 * columns), 2.9 * rows), sharey=True, squeeze=False
    )
    for ax in axes.flat[len(experiments) :]:
        ax.axis("off")
    drawn = {}
    for ax, name in zip(axes.flat, experiments, strict=False):
        own = [record for record in records if record["experiment"] == name]
        plot_study_curves(own, ax, quantity=quantity)
        ax.set_title(_title(own[0]), fontsize=8)
        drawn |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    fig.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
    return fig
