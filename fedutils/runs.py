"""A training run: its history and its best weights, and the folder where it is kept.

A run is found again by what defines it: its settings, its data and the code that it executes
(`fedutils.results.code_fingerprint`). A killed run goes on from its last round; a finished one is read, not
repeated; a change of code or settings starts anew.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedutils import paths
from fedutils.results import code_fingerprint, to_json, versions, write_atomic

# Faces, ground, and what only looks at data: nothing in these files changes what a training step computes.
_NOT_TRAINING = {
    "audit",
    "audit_report",
    "case_audit",
    "case_table",
    "cli",
    "errors",
    "explorer",
    "figure_box",
    "heterogeneity",
    "image_audit",
    "image_table",
    "metrics",
    "odd_images",
    "paths",
    "plots",
    "plots_data",
    "profiles",
    "quiet",
    "readme",
    "reproduce",
    "results",
    "shortcuts",
    "sources",
    "viewers",
}
_TRAINING_CODE = tuple(
    str(path.relative_to(paths.PACKAGE).with_suffix(""))
    for path in sorted(paths.PACKAGE.rglob("*.py"))
    if path.stem not in _NOT_TRAINING
)


@dataclass
class Run:
    """What training left behind.

    Attributes
    ----------
    planned : int
        Rounds (or epochs) that were asked for.
    choose_by : str
        The validation quantity whose highest value marks the best round.
    history : list of dict
        One record a round (or epoch) that was done.
    best : int
        Index into `history` of the best round; -1 before the first.
    weights : list of ndarray
        The model's trainable weights at `best`.
    """

    planned: int
    choose_by: str = "accuracy"
    history: list[dict] = field(default_factory=list)
    best: int = -1
    weights: list[np.ndarray] = field(default_factory=list)

    def record(self, entry: dict, weights: list[np.ndarray]) -> None:
        """Append a round's record; keep its weights if it is the best so far."""
        self.history.append(entry)
        key = f"validation_{self.choose_by}"
        if self.best < 0 or entry[key] > self.history[self.best][key]:
            self.best, self.weights = len(self.history) - 1, weights

    def curve(self, key: str) -> np.ndarray:
        """Return one quantity over rounds, float64 (rounds,)."""
        return np.asarray([entry[key] for entry in self.history])


def run_folder(name: str, settings: dict) -> Path:
    """Return the folder of the run that `settings` (plain values) and today's code define."""
    identity = {"settings": settings, "code": code_fingerprint(_TRAINING_CODE), "versions": versions()}
    digest = hashlib.sha256(to_json(identity).encode()).hexdigest()[:12]
    return paths.output_dir() / "runs" / f"{name}-{digest}"


def save_run(path: Path, run: Run) -> None:
    """Write the run in one step; what was there survives a failure."""
    header = json.dumps({"history": run.history, "best": run.best})
    arrays = {f"weight_{i:04d}": w for i, w in enumerate(run.weights)}
    buffer = io.BytesIO()
    np.savez(buffer, header=np.asarray(header), **arrays)
    write_atomic(path, buffer.getvalue())


def load_run(path: Path, planned: int) -> Run:
    """Read a run, or return an empty one of `planned` rounds if the file is not there."""
    if not Path(path).exists():
        return Run(planned)
    with np.load(path, allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
        weights = [file[n] for n in sorted(file.files) if n.startswith("weight_")]
    return Run(planned, history=header["history"], best=header["best"], weights=weights)
