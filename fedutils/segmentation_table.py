"""The table of federated segmentations: hospitals alone, federated and central side by side."""

from collections.abc import Sequence

from fedutils.data.federated_cases import EVERYONE
from fedutils.study import NAMES, PHANTOM_NOTE, format_spread, list_runs
from fedutils.study_costs import MB

_NOTE = (
    "Mean ± standard deviation over seeds, of the round (or epoch) that is best on validation patients; each "
    "seed tests other patients. On all test patients, local is the mean over hospitals' models. On own "
    "patients: mean over hospitals, each by the model that it uses; lowest: the hospital with the lowest "
    "Dice. A region that only truth or prediction has counts as Dice 0 and as the diagonal of the case."
)


def build_segmentation_table(records: Sequence[dict]) -> str:
    """Return the table as Markdown, one line a record of `fedutils.experiments.run_experiment`."""
    lines = [
        "| experiment | training | Dice, all test patients | HD95, all test patients | Dice, own patients "
        "| Dice, lowest hospital | MB up, a hospital and round | rounds done of planned | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        told, runs = record["summary"][EVERYONE], list_runs(record)
        unit = find_unit(record)
        sent = (runs[0].get("bytes") or {}).get("up_per_client")
        cells = [
            record["title"],
            NAMES.get(record["algorithm"], record["algorithm"]),
            format_spread(told["dice"], 3, scale=1),
            f"{format_spread(told[f'hd95_{unit}'], 1, scale=1)} {unit}",
            format_spread(told["own"], 3, scale=1),
            format_spread(told["worst"], 3, scale=1),
            "–" if sent is None else f"{sent / MB:.3g}",
            f"{min(run['rounds_done'] for run in runs)} of {runs[0]['rounds_planned']} {runs[0]['unit']}s",
            f"{len(record['seeds'])} of {len(record['seeds_planned'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    drawn = any(record["data"]["source"] == "phantom" for record in records)
    return "\n".join([*lines, "", _NOTE + (f" {PHANTOM_NOTE}" if drawn else "")])


def find_unit(record: dict) -> str:
    """Return in what distances are: mm, or voxels where the files do not say how large one is."""
    return "mm" if "hd95_mm" in record["summary"][EVERYONE] else "voxels"
