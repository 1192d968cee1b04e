"""A training run: its history and its best weights, and the folder where it is kept.

A run is found again by what defines it: its settings, its data and the code that it executes
(`fedutils.source_code`). A killed run goes on from its last round; a finished one is read, not
repeated; a change of code or settings starts anew.
"""

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedutils import paths
from fedutils.errors import InputError
from fedutils.results import to_json, versions, write_atomic
from fedutils.source_code import fingerprint_code, list_imported

# Where the notebooks' trainings enter fedutils; what these import is executed too.
_ENTRIES = (
    "algorithms",
    "centralized",
    "epochs",
    "experiment_*",
    "federated",
    "losses",
    "runtime",
    "slice_metrics",
    "partition*",
    "models/*",
    "data/audited",
    "data/prepared_set",
    "data/segmentation*",
)
# These move files and messages, or read settings, which name the run themselves; nothing in them changes what
# a training step computes.
_GROUND = {
    *("errors", "paths", "quiet", "results", "source_code", "keys", "locks"),
    *("experiment_file", "experiment_bounds"),
}
# Of what a training imports, this only puts into words what came out: `fingerprint_scores` counts it.
_SAID = {"experiment_told"}


@dataclass
class Run:
    """What training left behind.

    Attributes
    ----------
    planned : int
        Rounds (or epochs) that were asked for; `history` is shorter where training stopped early.
    choose_by : str
        The validation quantity whose highest value marks the best round; with a minus before it ("-loss"),
        the one whose lowest value does. What is not a number is worse than any.
    history : list of dict
        One record a round (or epoch) that was done.
    best : int
        Index into `history` of the best round; -1 before the first.
    weights : list of ndarray
        The model's trainable weights at `best`; of a model that has others (BatchNorm's statistics), those
        after them where training is central.
    """

    planned: int
    choose_by: str = "accuracy"
    history: list[dict] = field(default_factory=list)
    best: int = -1
    weights: list[np.ndarray] = field(default_factory=list)

    def record(self, entry: dict, weights: list[np.ndarray]) -> None:
        """Append a round's record; keep its weights if it is the best so far."""
        self.history.append(entry)
        if self.best < 0 or self._score(entry) > self._score(self.history[self.best]):
            self.best, self.weights = len(self.history) - 1, weights

    def _score(self, entry: dict) -> float:
        value = entry[f"validation_{self.choose_by.removeprefix('-')}"]
        if np.isnan(value):
            return -np.inf
        return -value if self.choose_by.startswith("-") else value

    def curve(self, key: str) -> np.ndarray:
        """Return one quantity over rounds, float64 (rounds,)."""
        return np.asarray([entry[key] for entry in self.history])


def run_folder(name: str, settings: dict, code: Sequence[str] = _ENTRIES) -> Path:
    """Return the folder of the run that `settings` (plain values) and today's code define.

    Parameters
    ----------
    name : str
    settings : dict
    code : sequence of str
        Where the run enters fedutils, as in `fedutils.source_code.list_imported`; any training by default.
    """
    executed = tuple(module for module in list_imported(tuple(code)) if module not in _GROUND | _SAID)
    identity = {"settings": settings, "code": fingerprint_code(executed), "versions": versions()}
    digest = hashlib.sha256(to_json(identity).encode()).hexdigest()[:12]
    return paths.output_dir() / "runs" / f"{name}-{digest}"


def fingerprint_scores(code: Sequence[str], scores: Sequence[str]) -> str:
    """Return a hash of what is said of finished runs, as far as `run_folder` does not count it.

    Where this alone has changed, a run is not trained again, but what was said of it must not be mixed with
    what is said today.

    Parameters
    ----------
    code : sequence of str
        Where training enters fedutils, as of `run_folder`.
    scores : sequence of str
        Where what is said of it does.
    """
    executed = {*list_imported(tuple(code)), *_GROUND} - _SAID
    return fingerprint_code(tuple(m for m in list_imported(tuple(scores)) if m not in executed))


def save_run(
    path: Path, run: Run, *, settings: dict | None = None, state: list[np.ndarray] | None = None
) -> None:
    """Write the run in one step; what was there survives a failure.

    Parameters
    ----------
    path : Path
        An ``.npz`` file.
    run : Run
    settings : dict, optional
        Plain values that `load_checkpoint` will compare.
    state : list of ndarray, optional
        What training needs in order to go on.
    """
    header = {"history": run.history, "best": run.best, "choose_by": run.choose_by, "settings": settings}
    arrays = {f"weight_{i:04d}": w for i, w in enumerate(run.weights)}
    arrays |= {f"state_{i:04d}": part for i, part in enumerate(state or [])}
    buffer = io.BytesIO()
    np.savez(buffer, header=np.asarray(json.dumps(header)), **arrays)
    write_atomic(path, buffer.getbuffer())


def load_run(path: Path, planned: int) -> Run:
    """Read a run, or return an empty one of `planned` rounds if the file is not there.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not Path(path).exists():
        return Run(planned)
    return _read(path, planned)[0]


def load_checkpoint(path: Path, planned: int, settings: dict) -> tuple[Run, list[np.ndarray]] | None:
    """Read a run and its state; None if the file is not there or was written with other `settings`.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not Path(path).exists():
        return None
    run, state, found = _read(path, planned)
    return (run, state) if found == json.loads(json.dumps(settings)) else None


def _read(path, planned):
    try:
        # np.load would leave a damaged file open.
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            names = sorted(file.files)
            weights = [file[name] for name in names if name.startswith("weight_")]
            state = [file[name] for name in names if name.startswith("state_")]
        # Runs of earlier versions were all chosen by accuracy.
        choose_by = header.get("choose_by", "accuracy")
        run = Run(planned, choose_by, history=header["history"], best=header["best"], weights=weights)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected a run that fedutils wrote, found a damaged file ({error}); "
            "delete it to train anew"
        ) from error
    return run, state, header.get("settings")


def sweep(folder: Path) -> None:
    """Delete what a kill in the middle of `save_run` leaves; not while another process writes there."""
    for partial in Path(folder).glob(".*.npz.*"):
        with contextlib.suppress(OSError):
            partial.unlink()
