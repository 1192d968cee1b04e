"""A hospital's own folder: the model that came, and the weights that were trained, each in one file.

An operator may log out between any two steps, or the machine may stop: each finds what the last one left.
"""

import datetime
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedutils.errors import InputError
from fedutils.hospital.client import Received
from fedutils.hospital.weights import LayerSpec, hash_arrays
from fedutils.results import write_atomic

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Weights:
    """Weights as they lie in a file; the version is theirs, or that from which they were trained."""

    version: int
    cases: int
    layers: tuple[LayerSpec, ...]
    arrays: list[np.ndarray]
    sha256: str


class Workspace:
    """The folder; made if need be, for its owner alone."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder}: expected a folder to work in, found: {error.strerror}; mend 'work'"
            ) from error

    @property
    def model_file(self) -> Path:
        """The ``.keras`` file that came with the model."""
        return self.folder / "model.keras"

    def keep_received(self, received: Received) -> None:
        """Keep a model that came from the server."""
        write_atomic(self.model_file, received.file)
        self._write("received", received.version, 0, received.layers, received.arrays)

    def load_received(self) -> Weights:
        """Return the weights that came last.

        Raises
        ------
        InputError
            If none came yet.
        """
        return self._read("received", "get weights from the server first")

    def keep_trained(
        self, version: int, cases: int, layers: Sequence[LayerSpec], arrays: list[np.ndarray]
    ) -> None:
        """Keep weights that were trained from a version, and their hash: what is sent is what was trained."""
        self._write("trained", version, cases, layers, arrays)

    def load_trained(self) -> Weights:
        """Return the weights that were trained last.

        Raises
        ------
        InputError
            If none were trained yet.
        """
        return self._read("trained", "train the model first")

    def note(self, action: str, begin: datetime.datetime, told: str, *, good: bool = True) -> None:
        """Add to the journal what was done since `begin`, and what the operator was told."""
        times = [
            time.isoformat(timespec="milliseconds") for time in (begin, datetime.datetime.now(begin.tzinfo))
        ]
        entry = {"action": action, "begin": times[0], "end": times[1], "good": good, "told": told}
        with (self.folder / _JOURNAL).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def read_journal(self) -> list[dict]:
        """Return what was done, oldest first: ``action``, ``begin`` and ``end`` (UTC), ``good``, ``told``."""
        path = self.folder / _JOURNAL
        # A line that was cut off by a kill is left out.
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def _write(self, name: str, version: int, cases: int, layers, arrays: list[np.ndarray]) -> None:
        note = {
            "version": version,
            "cases": cases,
            "layers": [[layer.name, layer.dtype, layer.shape] for layer in layers],
            "sha256": hash_arrays(arrays),
        }
        buffer = io.BytesIO()
        numbered = {str(number): array for number, array in enumerate(arrays)}
        np.savez(buffer, note=np.frombuffer(json.dumps(note).encode(), np.uint8), **numbered)
        write_atomic(self.folder / f"{name}.npz", buffer.getvalue())

    def _read(self, name: str, otherwise: str) -> Weights:
        path = self.folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                note = json.loads(bytes(file["note"]))
                layers = tuple(LayerSpec(n, dtype, tuple(shape)) for n, dtype, shape in note["layers"])
                arrays = [file[str(number)] for number in range(len(layers))]
            return Weights(note["version"], note["cases"], layers, arrays, note["sha256"])
        except FileNotFoundError:
            raise InputError(f"{path}: expected {name} weights, found none; {otherwise}") from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: expected {name} weights, found a damaged file; {otherwise}") from error
