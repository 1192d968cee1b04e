"""The SQLite file of a server's state: its tables, how it is opened, and that one process has it."""

import fcntl
import os
import sqlite3
from pathlib import Path

from fedutils.errors import InputError

FORMAT = 2  # raise it when files of before can no longer be read
TABLES = """
CREATE TABLE model (
    id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, layers TEXT NOT NULL,
    weights BLOB NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE file (id INTEGER PRIMARY KEY CHECK (id = 1), data BLOB NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE receipts (
    hospital TEXT NOT NULL, version INTEGER NOT NULL, cases INTEGER NOT NULL, bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, time TEXT NOT NULL, PRIMARY KEY (hospital, version));
CREATE TABLE submissions (hospital TEXT PRIMARY KEY, cases INTEGER NOT NULL);
CREATE TABLE parts (
    hospital TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (hospital, number));
CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, who TEXT NOT NULL, event TEXT NOT NULL,
    version INTEGER NOT NULL, detail TEXT NOT NULL);
"""


def hold(path: Path) -> int:
    """Take the lock of a state file; a process that dies, however it dies, lets go of it."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InputError(
            f"{path}: expected a state that no server has open, found one that has; stop it"
        ) from None
    return lock


def connect(path: Path) -> sqlite3.Connection:
    """Open a state file for many transactions, each of which is on the disk when it is committed."""
    # A file that is gone is not made anew; and transactions begin and end where this file says so.
    options = {"isolation_level": None, "check_same_thread": False, "timeout": 30}
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, **options)
    database.execute("PRAGMA page_size = 65536")  # of a new file: weights are large
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA wal_autocheckpoint = 0")  # hospitals do not wait for it: see State.tidy
    return database
