"""The tables of federated segmentation, as Markdown: what was reached, and by whom."""

from collections.abc import Sequence

from fedutils.data.federated_cases import EVERYONE
from fedutils.study import PHANTOM_NOTE, format_spread, list_with_bounds, note_missing
from fedutils.study_costs import MB

_NOTHING = "–"
NOTE = (
    "Mean ± standard deviation over seeds, of the round (or epoch) that is best on validation patients; "
    "each seed tests other patients. Local: the mean over hospitals' networks, all on the same patients; own "
    "network: each on its own patients. Less central: Dice on all test patients, seed by seed. Lowest "
    "hospital: the one with the lowest Dice on its own patients, by the model that it uses. A region that "
    "only truth or prediction has counts as Dice 0 and as the diagonal of the case. What this does not show: "
    "differences smaller than what other patients would make, since an institution has few of them a seed."
)
_LENT = (
    " Of an experiment without local or central training of its own, that of another one is given, with the "
    "same cases and as many passes; for hospitals, with the same partition."
)


def build_tables(rows: Sequence[dict]) -> str:
    """Return all tables of this file as Markdown, each with its title; see `build_segmentation_table`."""
    tables = {"Dice and 95 % Hausdorff distance of test patients": build_segmentation_table(rows)}
    for source in dict.fromkeys(row["source"] for row in rows):
        own = [row for row in rows if row["source"] == source]
        if table := build_institutions_table(own):
            unit = next(row["distance"] for row in own if row["seeds"])
            tables[f"Institution by institution, {source}: Dice, and HD95 in {unit}"] = table
    if table := build_regions_table(rows):
        tables["Region by region: Dice, and HD95"] = table
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in tables.items())


def build_segmentation_table(rows: Sequence[dict]) -> str:
    """Return what was reached as Markdown, a line a training of each experiment.

    An experiment without local or central training of its own has lines of those that are its bounds.

    Parameters
    ----------
    rows : sequence of dict
        From `fedutils.segmentation_study.summarise_segmentations`.
    """
    heads = (
        *("experiment", "training", "Dice", "less central", "HD95", "Dice, own patients", "lowest hospital"),
        *("MB up, a hospital and round", "rounds"),
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    beside = _list_beside(rows)
    for title, row in beside:
        cells = [title, row["name"]]
        if row["seeds"]:
            told, apart = row["summary"][EVERYONE], row["against_central"]
            cells += [
                format_spread(told["dice"], 3, scale=1) + note_missing(row["seeds"], row["seeds_planned"]),
                _NOTHING if apart is None else format_spread(apart, 3, scale=1, sign="+"),
                f"{format_spread(told['hd95'], 1, scale=1)} {row['distance']}",
                format_spread(told["own"], 3, scale=1),
                format_spread(told["worst"], 3, scale=1) if row["apart"] else _NOTHING,
                _NOTHING if row["up"] is None else f"{row['up'] / MB:.3g}",
                f"{min(row['rounds_done'])} of {row['rounds_planned']} {row['unit']}s",
            ]
        else:
            cells += ["not run", *[_NOTHING] * (len(heads) - len(cells) - 1)]
        lines.append(f"| {' | '.join(cells)} |")
    lent = _LENT if len(beside) > len(rows) else ""
    return "\n".join([*lines, "", NOTE + lent + _note_left_out(rows) + _note_phantom(rows)])


def build_institutions_table(rows: Sequence[dict]) -> str | None:
    """Return Dice and HD95 institution by institution as Markdown, or None where none was tested apart.

    The rows are of one source. A line is a network and a training of an experiment; hospitals alone have a
    second one, of the network that each trained itself. Where the institution of a column trained nobody, the
    line says so; then each column is an experiment of its own.
    """
    lines = {}
    for row in rows:
        words = f"{row['network']}, {row['variant']}"
        experiment = None if row["held_out"] else row["experiment"]
        of_own = words.replace(row["name"], "local, own network")
        for name, parts in ((of_own, row["own_by"]), (words, row["summary"])):
            for part, told in (parts or {}).items():
                if part != EVERYONE:
                    lines.setdefault((experiment, name), {})[part] = (
                        f"{format_spread(told['dice'], 3, scale=1)}, {told['hd95']['mean']:.1f}"
                        + note_missing(row["seeds"], row["seeds_planned"])
                    )
    if not lines:
        return None
    columns = sorted({part for line in lines.values() for part in line})
    return _set_grid([(words, line) for (_, words), line in lines.items()], columns)


def build_regions_table(rows: Sequence[dict]) -> str | None:
    """Return Dice and HD95 by region as Markdown, or None where there is one region only."""
    lines, heads = [], {}
    for title, row in _list_beside(rows):
        told = (row["summary"] or {}).get(EVERYONE, {})
        regions = [key.removeprefix("dice_") for key in told if key.startswith("dice_")]
        if len(regions) > 1:
            heads |= dict.fromkeys(region.upper() for region in regions)
            line = {
                region.upper(): f"{format_spread(told[f'dice_{region}'], 3, scale=1)}, "
                f"{told[f'hd95_{region}']['mean']:.1f} {row['distance']}"
                + note_missing(row["seeds"], row["seeds_planned"])
                for region in regions
            }
            lines.append((f"{title}: {row['name']}", line))
    return _set_grid(lines, list(heads)) if lines else None


def _list_beside(rows: Sequence[dict]) -> list[tuple[str, dict]]:
    """Return the rows of each experiment with its title, and those of others that are its bounds."""
    titles = {row["experiment"]: row["title"] for row in rows}
    return [(title, row) for name, title in titles.items() for row in list_with_bounds(rows, name)]


def _set_grid(lines: Sequence[tuple[str, dict[str, str]]], columns: Sequence[str]) -> str:
    cells = [[name, *(line.get(column, _NOTHING) for column in columns)] for name, line in lines]
    return "\n".join(
        [f"| training | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        + [f"| {' | '.join(line)} |" for line in cells]
    )


def _note_left_out(rows) -> str:
    """Say how many patients test an institution that trained nobody, where there is one."""
    tested = {
        row["held_out"]: row["patients"][EVERYONE][0] for row in rows if row["held_out"] and row["seeds"]
    }
    if not tested:
        return ""
    counts = ", ".join(f"{institution} {count}" for institution, count in tested.items())
    return (
        f" An institution that is left out is tested with all its patients ({counts}), one that takes part "
        "with some: their Dice do not compare."
    )


def _note_phantom(rows) -> str:
    return f" {PHANTOM_NOTE}" if any(row["source"] == "phantom" for row in rows) else ""
