"""Result files: one small JSON a run, written atomically, that says where every number came from."""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fedutils import paths
from fedutils.errors import InputError

_VERSIONS = ("tensorflow", "keras", "tensorflow-federated", "numpy", "nilearn")


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, or leave what was there untouched.

    The bytes go to a temporary file in the same folder, reach the disk, and take the name in one step; a full
    disk, a kill or a power cut leaves the earlier file whole.

    Raises
    ------
    InputError
        If the folder is not writable or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # a temporary file is private by default
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; what was there before is untouched; "
            "free space or make the folder writable, then run again"
        ) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _plain(value):
    """Turn NumPy scalars and arrays into what JSON knows."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a result file")


def to_json(value) -> str:
    """Return `value` as readable JSON with sorted keys; NaN and infinity are refused."""
    return json.dumps(value, indent=1, sort_keys=True, default=_plain, allow_nan=False) + "\n"


def save_result(
    name: str,
    metrics: dict,
    *,
    profile: str,
    parameters: dict,
    seeds: list[int],
    data: dict,
) -> Path:
    """Write ``results/<name>.json`` of the current run.

    Parameters
    ----------
    name : str
        The notebook's name, e.g. ``04_centralized_classification``.
    metrics : dict
        What was measured; numbers, strings, lists, dicts and arrays.
    profile : str
        The scale of the run: smoke, laptop or thesis (or "lab": by hand).
    parameters : dict
        The notebook's parameters as they were used.
    seeds : list of int
        Every seed that the numbers are over.
    data : dict
        Provenance: at least ``source`` and ``num_images`` or ``num_cases``.

    Returns
    -------
    Path
        The file.
    """
    record = {
        "name": name,
        "profile": profile,
        "parameters": parameters,
        "seeds": seeds,
        "data": data,
        "metrics": metrics,
        "versions": versions(),
        "git": git_commit(),
        "machine": machine(),
    }
    path = paths.results_dir() / f"{name}.json"
    write_atomic(path, to_json(record).encode())
    return path


def load_result(name: str) -> dict:
    """Read ``results/<name>.json`` of the current run.

    Raises
    ------
    InputError
        If it is not there: the notebook that writes it has not run yet.
    """
    path = paths.results_dir() / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"no result {path}: expected the file that notebook {name} writes; run that notebook first"
        ) from None


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def machine() -> dict:
    """Return the number of cores and, if TensorFlow was loaded, the device that it computes on."""
    found = {"cores": len(os.sched_getaffinity(0)), "device": "CPU"}
    if "tensorflow" in sys.modules:
        gpus = sys.modules["tensorflow"].config.list_physical_devices("GPU")
        found["device"] = "GPU" if gpus else "CPU"
    return found


def git_commit() -> dict:
    """Return the commit that the code came from and whether the working tree differed from it."""

    def git(*words):
        return subprocess.run(
            ["git", "-C", str(paths.ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        code = ["fedutils", "notebooks", "profiles", "requirements.lock"]
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *code)
        return {"commit": git("rev-parse", "HEAD"), "code_changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "code_changed": None}
