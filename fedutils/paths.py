"""Every path that the project uses, in one place.

Two environment variables move things: ``FEDUTILS_OUTPUT`` (where results and figures of the current run
are written; the runner sets it) and ``FEDUTILS_DATA`` (where real data lives).
"""

import os
from pathlib import Path

import yaml

from fedutils.errors import InputError

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # the clone
BUILD = ROOT / "build"  # everything that a run makes and git ignores
NOTEBOOKS = ROOT / "notebooks"
PROFILES = ROOT / "profiles"
CONFIG = ROOT / "fedutils.yaml"  # optional, not committed: "data: /path/to/data"


def output_dir() -> Path:
    """Return where the current run writes; ``build/lab`` when a notebook is run by hand."""
    return Path(os.environ.get("FEDUTILS_OUTPUT") or BUILD / "lab")


def results_dir() -> Path:
    """Return the folder of the current run's result files."""
    return output_dir() / "results"


def figures_dir() -> Path:
    """Return the folder of the current run's figures."""
    return output_dir() / "figures"


def data_dir() -> Path:
    """Return the folder of real data: ``FEDUTILS_DATA``, else the entry ``data`` of ``fedutils.yaml``.

    Raises
    ------
    InputError
        If neither is set, or the folder does not exist.
    """
    source, value = "FEDUTILS_DATA", os.environ.get("FEDUTILS_DATA")
    if not value and CONFIG.exists():
        source = CONFIG.name
        value = (yaml.safe_load(CONFIG.read_text()) or {}).get("data")
    if not value:
        raise InputError(
            "no data folder: expected real images, found FEDUTILS_DATA unset; "
            "set it, or run 'make reproduce DATA=DIR', or use PROFILE=laptop, which makes its own data"
        )
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"{source} names {folder}, which is not a folder; point it to your data")
    return folder.resolve()
