"""What every layout shares: walking folders, cases that cannot be built, and reading tables."""

import csv
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from fedutils.data.case import Case, Volume
from fedutils.errors import InputError

MAX_DEPTH = 5  # BraTS 2019 as archives unpack it lies four folders below the one that was downloaded to
_UNKNOWN = {"", "NA", "N/A", "NAN", "NONE"}


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk down from `root`, each folder once, links followed, hidden files left out.

    Parameters
    ----------
    root : Path

    Yields
    ------
    folder : Path
        Absolute.
    folders, files : list of str
        Names in it, sorted. Clear `folders` to go no deeper there.

    Raises
    ------
    InputError
        If `root` is no folder, or one below cannot be read.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100  (resolve() would follow links and change names)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of images, found none; point to your data")

    def stop(error):
        raise InputError(
            f"{error.filename}: expected a readable folder, found: {error.strerror}; mend its permissions"
        ) from error

    seen = set()
    for place, folders, files in os.walk(root, followlinks=True, onerror=stop):
        folder = Path(place)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        deep = len(folder.parts) - len(root.parts) >= MAX_DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield folder, folders, sorted(name for name in files if not name.startswith("."))


def build_cases(
    root: Path,
    folders: list[Path],
    build: Callable[[Path], Case],
    modalities: tuple[str, ...],
    *,
    skip_bad: bool,
) -> list[Case]:
    """Build one case a folder, sorted by name.

    Parameters
    ----------
    root : Path
        Where the search began; reasons are told relative to it.
    folders : list of Path
    build : callable
        From folder to case; raises InputError if its files are not a case.
    modalities : tuple of str
        Of the layout, for cases that cannot be built.
    skip_bad : bool
        Put in place of a folder that is no whole case one that raises the reason when it is loaded, so that
        `fedutils.data.layouts.check_cases` tells it, instead of stopping.

    Raises
    ------
    InputError
        If two folders have one name or a case cannot be built, unless `skip_bad`.
    """
    by_name: dict[str, list[Path]] = {}
    for folder in folders:
        by_name.setdefault(folder.name, []).append(folder)
    cases = []
    for name, twins in sorted(by_name.items()):
        try:
            if len(twins) > 1:
                raise InputError(
                    f"{twins[0]}: expected one case named {name}, found another in {twins[1].parent}; "
                    "delete one, or point to one of the two folders"
                )
            cases.append(build(twins[0]))
        except InputError as error:
            if not skip_bad:
                raise
            reason = str(error).replace(f"{os.path.abspath(root)}{os.sep}", "")  # noqa: PTH100
            cases.append(Case(name, name, modalities, {}, functools.partial(_refuse, reason)))
    return cases


def _refuse(reason: str, case: Case, modalities: tuple[str, ...], mask: bool) -> Volume:
    raise InputError(reason)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header, whatever its line ends and byte order mark, as one dict a row.

    Spaces, line breaks and no-break spaces around names and values are dropped, inside names made one space.

    Raises
    ------
    InputError
        If it cannot be read or has no row.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a readable CSV table, found: {error}; replace it") from error
    rows = [row for row in rows if any(value.strip() for value in row)]
    if len(rows) < 2:
        raise InputError(f"{path}: expected a header and rows, found {len(rows)} lines; replace the table")
    names = [" ".join(name.split()) for name in rows[0]]
    width = len(names)
    padded = ([value.strip() for value in row] + [""] * width for row in rows[1:])
    return [dict(zip(names, row, strict=False)) for row in padded]


def find_columns(path: Path, rows: list[dict[str, str]], pattern: str) -> list[str]:
    """Return the columns whose whole name matches `pattern` in any case; InputError if there is none."""
    found = [name for name in rows[0] if re.fullmatch(pattern, name, re.IGNORECASE)]
    if not found:
        raise InputError(
            f"{path}: expected a column like {pattern!r}, found {', '.join(rows[0])}; use the published table"
        )
    return found


def known(value: str) -> str | None:
    """Return a table's value, or None where it says that there is none (empty, NA, N/A)."""
    return None if value.strip().upper() in _UNKNOWN else value.strip()
