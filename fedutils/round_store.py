"""Where a federated run is kept: a checkpoint a round, a table of the rounds, and TensorBoard's files."""

import asyncio
import csv
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedutils.results import write_atomic
from fedutils.runs import Run
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import keras
import numpy as np
import tensorflow as tf

_KEPT = 2  # checkpoints: the last, and the one before it


class RoundStore:
    """The folder of one federated run.

    Parameters
    ----------
    folder : Path
        Made if it is not there. Holds ``round_N``, checkpoints written by TFF's program state manager, each
        in one step; ``rounds.csv``, one line a round; ``tensorboard``; and in the end ``model.keras``.
    """

    def __init__(self, folder: Path):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        for partial in self._folder.glob("round_*_temp*"):  # a kill in the middle of writing leaves these
            shutil.rmtree(partial)
        self._manager = tff.program.FileProgramStateManager(
            self._folder, prefix="round_", keep_total=_KEPT, keep_first=False
        )
        self._tensorboard = tff.program.TensorBoardReleaseManager(self._folder / "tensorboard")

    def load(self, run: Run, state):
        """Return the run and the state after its last round.

        Parameters
        ----------
        run : Run
            Without history, and with the weights before round 1.
        state : structure
            The state of the process before round 1.

        Returns
        -------
        (Run, structure)
            The same two where no checkpoint is.
        """
        versions = _wait(self._manager.get_versions())
        if not versions:
            return run, state
        leaves = tf.nest.flatten(state)
        structure = {"run": 0, "weights": [0] * len(run.weights), "state": [0] * len(leaves)}
        saved = _wait(self._manager.load(versions[-1], structure))
        header = json.loads(saved["run"])
        loaded = Run(run.planned, run.choose_by, header["history"], header["best"], list(saved["weights"]))
        return loaded, tf.nest.pack_sequence_as(state, saved["state"])

    def save(self, run: Run, state) -> None:
        """Keep the last round of `run`, and the state after it."""
        latest = run.history[-1]
        numbers = {name: value for name, value in latest.items() if not isinstance(value, list)}
        saved = {
            "run": json.dumps({"history": run.history, "best": run.best}),
            "weights": run.weights,
            "state": [np.asarray(leaf) for leaf in tf.nest.flatten(state)],
        }
        _wait(self._tensorboard.release(numbers, key=latest["round"]))
        _wait(self._manager.save(saved, version=latest["round"]))
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(numbers), extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(run.history)
        write_atomic(self._folder / "rounds.csv", text.getvalue().encode())

    def export(self, model: keras.Model) -> None:
        """Write the finished model."""
        partial = self._folder / "partial.keras"  # Keras insists on the suffix
        model.save(partial)
        partial.replace(self._folder / "model.keras")


def _wait(coroutine):
    """Return what a coroutine returns; in a thread, because a notebook has an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
