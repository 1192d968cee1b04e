"""Where a federated run is kept: a checkpoint a round, a table of the rounds, and TensorBoard's files."""

import asyncio
import csv
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedutils.errors import InputError
from fedutils.results import to_json, write_atomic
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
    identity : dict, optional
        Plain values by which the run is known: a checkpoint of others is refused.
    """

    def __init__(self, folder: Path, identity: dict | None = None):
        self._folder = Path(folder)
        self._identity = json.loads(to_json(identity or {}))  # as it will be read
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

        Raises
        ------
        InputError
            If the checkpoint is of another run, or of more rounds than are planned.
        """
        versions = _wait(self._manager.get_versions())
        if not versions:
            return run, state
        # TFF's own reader asks for the structure, which is not known before the header is read.
        saved = tf.saved_model.load(str(self._folder / f"round_{versions[-1]}"))()
        header = json.loads(saved["run"].numpy())
        weights, leaves = ([np.asarray(part) for part in saved[key]] for key in ("weights", "state"))
        self._check(header.get("identity"))
        for what, found, expected in (
            ("weights", weights, run.weights),
            ("state", leaves, tf.nest.flatten(state)),
        ):
            shapes = [[list(np.shape(part)) for part in parts] for parts in (found, expected)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{self._folder}: expected checkpoints of the {what} of this process and model, found "
                    "others in number or shape; give another folder, or delete this one"
                )
        if len(header["history"]) > run.planned:
            raise InputError(
                f"{self._folder}: expected at most {run.planned} rounds, as many as are asked for, found "
                f"{len(header['history'])}; raise num_rounds, or give another folder"
            )
        loaded = Run(run.planned, run.choose_by, header["history"], header["best"], weights)
        return loaded, tf.nest.pack_sequence_as(state, leaves)

    def _check(self, found) -> None:
        """Raise InputError where a checkpoint is of another run; those of earlier versions do not say."""
        if found is None:
            return
        for key in sorted({*found, *self._identity}):
            theirs, ours = found.get(key), self._identity.get(key)
            if theirs != ours:
                raise InputError(
                    f"{self._folder}: expected checkpoints of a run with {key} {ours!r}, found {theirs!r}; "
                    "give another folder, or delete this one"
                )

    def save(self, run: Run, state) -> None:
        """Keep the last round of `run`, and the state after it."""
        latest = run.history[-1]
        numbers = {name: value for name, value in latest.items() if not isinstance(value, list)}
        saved = {
            "run": json.dumps({"history": run.history, "best": run.best, "identity": self._identity}),
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
