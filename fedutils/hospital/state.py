"""Everything that a server must not forget, in one SQLite file: model, version, submissions, audit log.

Write-ahead log and ``synchronous=FULL``: what a method has returned from is on the disk. Each method is one
transaction, so that a server that is killed at any moment finds all of it or nothing.
"""

import contextlib
import datetime
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedutils.errors import InputError
from fedutils.hospital.database import FORMAT, TABLES, connect, hold
from fedutils.hospital.service import refuse
from fedutils.hospital.weights import LayerSpec, average, hash_bytes, unpack

_MOST_BLOB = 900_000_000  # of SQLite: 1e9
_PART = 1 << 20  # bytes of a submission in a row: SQLite copies what it is given, and small copies are cheap


@dataclass(frozen=True)
class GlobalModel:
    """The server's model at one version; replaced, never changed."""

    version: int
    layers: tuple[LayerSpec, ...]
    weights: bytes
    sha256: str
    file: bytes
    file_sha256: str


@dataclass(frozen=True)
class Submission:
    """What a hospital sent for a version: its name, number of cases, SHA-256 and size of the weights."""

    hospital: str
    version: int
    cases: int
    sha256: str
    num_bytes: int


class State:
    """A state file, held by this process alone until it is closed.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        If there is no such file, it is of another kind or damaged, or another server has it open.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(
                f"{path}: expected the state of a server, found no file; start it with --model FILE"
            )
        self._mutex = threading.RLock()
        self.grown = threading.Event()  # the write-ahead log, by a submission or a mean: see `tidy`
        self._held = hold(self.path)
        try:
            self._database = connect(self.path)
            found = self._database.execute("PRAGMA user_version").fetchone()[0]
            if found != FORMAT:
                raise InputError(
                    f"{path}: expected the state of a server, format {FORMAT}, found {found}; use another"
                )
            self.model = self._load()
        except sqlite3.Error as error:
            os.close(self._held)
            raise InputError(
                f"{path}: expected the state of a server, found: {error}; use a copy of it"
            ) from error
        except InputError:
            os.close(self._held)
            raise

    @classmethod
    def create(cls, path: Path, layers: Sequence[LayerSpec], weights: bytes, file: bytes = b"") -> "State":
        """Make the state of a server that begins: version 0, nothing collected.

        Parameters
        ----------
        path : Path
            Is not there yet; readable by its owner alone.
        layers : sequence of LayerSpec
        weights : bytes
            See `fedutils.hospital.weights.pack`.
        file : bytes
            The ``.keras`` file from which hospitals build the model.
        """
        path, layers = Path(path), tuple(layers)
        unpack(layers, weights)
        if max(len(weights), len(file)) > _MOST_BLOB:
            raise InputError(
                f"model: expected at most {_MOST_BLOB:,} bytes, found {len(weights):,}; use a smaller one"
            )
        # Renamed when it is whole: a kill before that leaves no half-made state.
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise InputError(f"{path}: expected no file, found one; go on with it by leaving --model out")
            partial.unlink(missing_ok=True)
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL, 0o600))
            database = connect(partial)
            database.executescript(TABLES)
            model = (_to_json(layers), weights, hash_bytes(weights))
            database.execute("INSERT INTO model VALUES (1, 0, ?, ?, ?)", model)
            database.execute("INSERT INTO file VALUES (1, ?, ?)", (file, hash_bytes(file)))
            database.execute(f"PRAGMA user_version = {FORMAT}")
            database.close()  # merges the write-ahead log
            partial.rename(path)
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"cannot write {path}: {error}; free space or make the folder writable"
            ) from error
        state = cls(path)
        with state._transaction() as now:
            state._log(now, "server", "created", {"sha256": state.model.sha256, "bytes": len(weights)})
        return state

    def close(self) -> None:
        """Close the file, for another server to open."""
        with self._mutex:
            self._database.close()
            os.close(self._held)

    def submit(self, hospital: str, version: int, cases: int, weights, sha256: str) -> Submission:
        """Store a hospital's weights; on return they are on the disk.

        Raises
        ------
        Refused
            If the model has another version by now, the hospital has sent weights for it already, or the disk
            does not take them; nothing is stored then.
        """
        with self._transaction() as now:
            self.check_welcome(hospital, version)
            receipt = (hospital, version, cases, len(weights), sha256, now)
            self._database.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?)", receipt)
            self._database.execute("INSERT INTO submissions VALUES (?, ?)", (hospital, cases))
            parts = ((hospital, at, weights[at : at + _PART]) for at in range(0, len(weights), _PART))
            self._database.executemany("INSERT INTO parts VALUES (?, ?, ?)", parts)
            self._log(now, hospital, "submitted", {"cases": cases, "bytes": len(weights), "sha256": sha256})
        self.grown.set()
        return Submission(hospital, version, cases, sha256, len(weights))

    def check_welcome(self, hospital: str, version: int) -> None:
        """Refuse a submission that would be stale, of the future, or the second of its hospital."""
        with self._mutex:
            if version != self.model.version:
                raise refuse(
                    "STALE",
                    f"expected weights trained from version {self.model.version}, found version {version}; "
                    "get the model and train again",
                )
            if (earlier := self.find_receipt(hospital, version)) is not None:
                raise refuse(
                    "REPEATED",
                    f"expected one submission of {hospital} for version {version}, found that "
                    f"{earlier.sha256[:12]} came before; wait for the next version",
                )

    def find_receipt(self, hospital: str, version: int) -> Submission | None:
        """Return what a hospital has sent for a version, if it has."""
        return next(self._read_receipts("hospital = ? AND version = ?", (hospital, version)), None)

    def list_collected(self) -> list[Submission]:
        """Return what was sent for the present version, in the order of the hospitals' names."""
        with self._mutex:
            return list(self._read_receipts("version = ?", (self.model.version,)))

    def aggregate(self, who: str = "server") -> GlobalModel:
        """Make the next version, the mean of what was collected; nothing of it is kept but its receipt.

        Raises
        ------
        Refused
            If nothing was collected, or the disk does not take it; the model is as it was then.
        """
        with self._mutex:  # until the version in memory is that on the disk
            with self._transaction() as now:
                collected = self.list_collected()
                if not collected:
                    raise refuse(
                        "NOTHING_COLLECTED",
                        f"expected weights for version {self.model.version}, found none; wait for a "
                        "hospital to send some",
                    )
                weights = average(self.model.layers, self._read_submissions())
                version, sha256 = self.model.version + 1, hash_bytes(weights)
                self._database.execute(
                    "UPDATE model SET version = ?, weights = ?, sha256 = ?", (version, weights, sha256)
                )
                self._database.execute("DELETE FROM submissions")
                self._database.execute("DELETE FROM parts")
                parts = [{"hospital": s.hospital, "cases": s.cases, "sha256": s.sha256} for s in collected]
                self._log(now, who, "aggregated", {"sha256": sha256, "parts": parts}, version)
                old = self.model
                made = GlobalModel(version, old.layers, weights, sha256, old.file, old.file_sha256)
            self.model = made
        self.grown.set()
        return made

    def tidy(self) -> None:
        """Merge the write-ahead log into the file, beside whatever else is done, so that it does not grow.

        Soon after it has grown: the next submission then overwrites it, where appending to it would take the
        disk several times as long.
        """
        self.grown.clear()
        with contextlib.closing(connect(self.path)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def log(self, who: str, event: str, detail: dict) -> None:
        """Add an entry to the audit log."""
        with self._transaction() as now:
            self._log(now, who, event, detail)

    def _log(self, now, who, event, detail, version=None):
        version = self.model.version if version is None else version
        row = (now, who, event, version, json.dumps(detail, sort_keys=True))
        self._database.execute(
            "INSERT INTO log (time, who, event, version, detail) VALUES (?, ?, ?, ?, ?)", row
        )

    def _read_submissions(self) -> Iterator[tuple[int, bytes]]:
        """Yield cases and weights, in the order of the hospitals' names; one at a time is in memory."""
        query = "SELECT hospital, cases FROM submissions ORDER BY hospital"
        for hospital, cases in self._database.execute(query).fetchall():
            rows = self._database.execute(
                "SELECT data FROM parts WHERE hospital = ? ORDER BY number", (hospital,)
            )
            yield cases, b"".join(data for (data,) in rows)

    def _read_receipts(self, condition: str, values: tuple) -> Iterator[Submission]:
        columns = "hospital, version, cases, sha256, bytes"
        with self._mutex:
            query = f"SELECT {columns} FROM receipts WHERE {condition} ORDER BY hospital"
            rows = self._database.execute(query, values).fetchall()
        return (Submission(*row) for row in rows)

    def _load(self) -> GlobalModel:
        row = self._database.execute(
            "SELECT version, layers, weights, model.sha256, data, file.sha256 FROM model JOIN file USING (id)"
        ).fetchone()
        if row is None or hash_bytes(row[2]) != row[3] or hash_bytes(row[4]) != row[5]:
            raise InputError(
                f"{self.path}: expected a whole model, found a damaged one; use a copy of the file"
            )
        layers = tuple(LayerSpec(name, dtype, tuple(shape)) for name, dtype, shape in json.loads(row[1]))
        return GlobalModel(row[0], layers, *row[2:])

    @contextlib.contextmanager
    def _transaction(self):
        """All of what is done inside, or none of it; gives the time. One thread at a time."""
        with self._mutex:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
                self._database.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error | MemoryError):
                    raise refuse(
                        "CANNOT_STORE",
                        f"expected a disk that takes it, found: {error}; nothing was stored, try later",
                    ) from error
                raise


def read_log(path: Path) -> list[dict]:
    """Return the audit log of a state file, oldest first; a server may have it open.

    Returns
    -------
    list of dict
        With ``id``, ``time`` (UTC), ``who``, ``event``, ``version`` and what else the event says.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: expected the state of a server, found no file; mend the path")
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            rows = database.execute(
                "SELECT id, time, who, event, version, detail FROM log ORDER BY id"
            ).fetchall()
    except sqlite3.Error as error:
        raise InputError(f"{path}: expected the state of a server, found: {error}; mend the path") from error
    names = ("id", "time", "who", "event", "version")
    return [dict(zip(names, row[:5], strict=True)) | json.loads(row[5]) for row in rows]


def _to_json(layers) -> str:
    return json.dumps([[layer.name, layer.dtype, layer.shape] for layer in layers])
