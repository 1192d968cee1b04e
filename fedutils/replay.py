"""A widget that replays federated runs round by round: who weighed how much, who learned what, at what cost.

It reads the result of an experiment; what each hospital's loss was is with the run itself, and shown where
the folder of the run is on this machine.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedutils import paths
from fedutils.errors import InputError
from fedutils.figure_box import FigureBox
from fedutils.plots import COLOURS
from fedutils.study import NAMES, is_federated, shorten_title
from fedutils.study_costs import compute_costs, count_images

_INTERVAL_MS = 500  # of the play button


@dataclass(frozen=True)
class Frames:
    """One run, ready to be drawn round by round.

    Attributes
    ----------
    label : str
    shares : float64 (rounds, clients)
        Weight of each hospital in the average of a round, 0 to 1; NaN: it did not take part. By the examples
        that it trained on in that round where the run itself is on this machine, else by those that it holds:
        the two differ where late hospitals do part of their work.
    losses : float64 (rounds, clients) or None
        On its own images while it trained; NaN: it did not take part.
    accuracy : float64 (rounds,)
        Of the new global model on validation images, 0 to 1.
    costs : dict of str to float64 (rounds,) or None
        See `fedutils.study_costs.compute_costs`.
    planned : int
        Rounds.
    """

    label: str
    shares: np.ndarray
    losses: np.ndarray | None
    accuracy: np.ndarray
    costs: dict[str, np.ndarray | None]
    planned: int


def load_history(name: str) -> list[dict] | None:
    """Return what a run kept of each of its rounds; None if its folder is not on this machine.

    Parameters
    ----------
    name : str
        Of the run's folder, ``run`` in a result.
    """
    found = [path for path in (paths.output_dir() / "runs" / name).glob("round_*") if path.name[6:].isdigit()]
    if not found:
        return None
    import tensorflow as tf  # here: a replay from the result alone does without it

    last = max(found, key=lambda path: int(path.name[6:]))
    return json.loads(tf.saved_model.load(str(last))()["run"].numpy())["history"]


def make_frames(record: dict, seed: int, *, history: list[dict] | None = None, lines=None) -> Frames:
    """Put together what is drawn of one run.

    Parameters
    ----------
    record : dict
        The result of a federated algorithm.
    seed : int
        One of those that were done.
    history : list of dict, optional
        See `load_history`.
    lines : fedutils.communication.Lines, optional
        For the simulated seconds; see `fedutils.study_costs.compute_costs`.

    Raises
    ------
    InputError
        If the result has no rounds, or not this seed, or is not of a classification.
    """
    if not is_federated(record):
        raise InputError(
            f"replay: expected a federated result, found {record['algorithm']}, which has no rounds"
        )
    if seed not in record["seeds"]:
        done = ", ".join(map(str, record["seeds"]))
        raise InputError(f"replay: expected one of the seeds done, {done}, found {seed}")
    run = record["runs"][str(seed)]
    weights = _list_weights(run, record["settings"]["training"]["weighted"], history)
    shares = np.full(weights.shape, np.nan)
    for row, own, clients in zip(shares, weights, run["participants"], strict=True):
        row[clients] = own[clients] / max(own[clients].sum(), 1)  # of a round that came to nothing, 0
    losses = None
    if history:
        losses = np.full_like(shares, np.nan)
        for row, entry in zip(losses, history, strict=False):
            row[entry["clients"]] = entry["client_loss"]
    name = NAMES.get(record["algorithm"], record["algorithm"])
    return Frames(
        f"{name}, {shorten_title(record['title'])}, seed {seed}",
        shares,
        losses,
        np.asarray(run["validation"]["accuracy"], np.float64),
        compute_costs(run, lines),
        run["rounds_planned"],
    )


def _list_weights(run, weighted, history) -> np.ndarray:
    """Return what each hospital would count in each round, float64 (rounds, clients)."""
    held = count_images(run)
    weights = np.tile(held if weighted else np.ones(len(held)), (len(run["participants"]), 1))
    for row, entry in zip(weights, history or [], strict=False):
        if weighted and "client_num_examples" in entry:
            row[entry["clients"]] = entry["client_num_examples"]
    return weights


class RunReplay(FigureBox):
    """Runs, round by round; made by `replay_runs`.

    Attributes
    ----------
    controls : dict
        ``run`` (where there are several) and ``round``, from 1.
    play : ipywidgets.Play
        Moves the round on by itself.
    frames : Frames
        Of the run that is shown.
    """

    def __init__(self, runs: Sequence[Frames]) -> None:
        self._runs = {frames.label: frames for frames in runs}
        self.frames, self._parts = None, None
        style = {"description_width": "50px"}
        last = len(runs[0].accuracy)
        controls = {"round": ipywidgets.IntSlider(last, 1, last, description="round", style=style)}
        if len(self._runs) > 1:
            menu = ipywidgets.Dropdown(options=list(self._runs), description="run", style=style)
            controls = {"run": menu, **controls}
        super().__init__(Figure(figsize=(9.6, 3.4), dpi=100, layout="constrained"), controls)
        self.play = ipywidgets.Play(min=1, max=last, interval=_INTERVAL_MS)
        ipywidgets.jslink((self.play, "value"), (controls["round"], "value"))
        self.children = (self.play, *self.children)

    def draw(self) -> None:
        """Draw the round that the controls name."""
        menu = self.controls.get("run")
        chosen = next(iter(self._runs.values())) if menu is None else self._runs[menu.value]
        if chosen is not self.frames:
            self._begin(chosen)
        self._show(min(self.controls["round"].value, len(chosen.accuracy)) - 1)

    def _begin(self, frames) -> None:
        """Draw what stays of a run: axes, scales, and hospitals."""
        first, self.frames = self.frames is None, frames
        rounds = len(frames.accuracy)
        if not first:
            for control in (self.controls["round"], self.play):
                control.max = rounds  # a value above it moves down, and is drawn once more
        self.figure.clear()
        self.figure.set_layout_engine("constrained")  # an earlier run's was put aside once it was drawn
        share, loss, curve = self.figure.subplots(1, 3, width_ratios=(1, 1, 1.4))
        count = frames.shares.shape[1]
        names = [f"hospital {k + 1}" for k in range(count)]
        bars = [_draw_bars(share, names, _top(frames.shares), COLOURS[0])]
        share.set_xlabel("share of the average")
        share.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if frames.losses is None:
            loss.axis("off")
            words = "The hospitals' losses are kept with\nthe run, which is not on this machine."
            place = {"ha": "center", "va": "center", "transform": loss.transAxes}
            loss.text(0.5, 0.5, words, color="0.4", fontsize=8, **place)
        else:
            bars.append(_draw_bars(loss, [""] * count, _top(frames.losses), COLOURS[1]))
            loss.set_xlabel("training loss on its own images")
        steps = np.arange(1, rounds + 1)
        curve.plot(steps, frames.accuracy, color="0.85", lw=1)
        (line,) = curve.plot([], [], color=COLOURS[2])
        (best,) = curve.plot([], [], "o", color=COLOURS[5], ms=6, label="best so far")
        curve.set_xlim(0.5, max(frames.planned, rounds) + 0.5)
        low, high = np.nanmin(frames.accuracy), np.nanmax(frames.accuracy)
        curve.set_ylim(low - 0.08 * (high - low) - 0.01, high + 0.08 * (high - low) + 0.01)
        curve.xaxis.set_major_locator(MaxNLocator(integer=True))
        curve.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        curve.set_xlabel(f"round, of {frames.planned} planned")
        curve.set_ylabel("validation accuracy")
        curve.legend(handles=[best], loc="lower right", fontsize=8)
        title = self.figure.suptitle(" ", fontsize=10)
        self._parts = bars, line, best, title
        self.moving = (*(bar for bars_of in bars for bar in bars_of), line, best, title)
        self.forget()

    def _show(self, at) -> None:
        """Move what changes to a round, from 0."""
        frames, (bars, line, best, title) = self.frames, self._parts
        for own, values in zip(bars, (frames.shares, frames.losses), strict=False):
            for bar, value in zip(own, np.nan_to_num(values[at]), strict=True):
                bar.set_width(value)
        so_far = frames.accuracy[: at + 1]
        top = int(np.nanargmax(so_far))
        line.set_data(np.arange(1, at + 2), so_far)
        best.set_data([top + 1], [so_far[top]])
        took_part = int(np.isfinite(frames.shares[at]).sum())
        words = [f"{took_part} of {frames.shares.shape[1]} hospitals"]
        for clock, unit in (("megabytes", "MB sent so far"), ("seconds", "s simulated")):
            if frames.costs[clock] is not None:
                words.append(f"{frames.costs[clock][at]:,.1f} {unit}")
        words.append(f"best {100 * so_far[top]:.1f} % in round {top + 1}")
        title.set_text(f"{frames.label}\nround {at + 1}: {', '.join(words)}")


def _top(values) -> float:
    """Return the end of an axis that holds all rounds, so that bars move and their scale does not."""
    finite = values[np.isfinite(values)]
    return 1.05 * max(float(finite.max(initial=0.0)), 1e-9)


def _draw_bars(ax, names, top, colour):
    """Draw a bar of width 0 for each hospital, from above."""
    bars = ax.barh(range(len(names)), np.zeros(len(names)), color=colour)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, top)
    ax.grid(axis="y", visible=False)
    return tuple(bars)


def replay_runs(records: Sequence[dict], *, seed: int | None = None, lines=None) -> RunReplay:
    """Replay the runs of some results: a slider and a play button over the rounds.

    Parameters
    ----------
    records : sequence of dict
        Results of federated algorithms; those without rounds are left out.
    seed : int, optional
        The first that each has done by default.
    lines : fedutils.communication.Lines, optional
        For the simulated seconds of runs that have none of their own.

    Returns
    -------
    RunReplay
        At the last round of the first run.

    Raises
    ------
    InputError
        If no result has rounds, or one has not this seed.
    """
    runs = []
    for record in filter(is_federated, records):
        own = record["seeds"][0] if seed is None else seed
        history = load_history(record["runs"][str(own)]["run"]) if own in record["seeds"] else None
        runs.append(make_frames(record, own, history=history, lines=lines))
    if not runs:
        raise InputError("replay: expected a federated result, found none; run fedutils experiment")
    return RunReplay(runs)
