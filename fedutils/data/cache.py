"""A cache of prepared volumes: memory-mapped arrays, keyed by what the files hold and by the recipe.

An entry is a folder, ``<key>/{images.npy, mask.npy, entry.json}``, written under another name and renamed
at the end: a kill leaves no half of one, and of two writers the second finds the first one's. An entry
whose files are not of the recorded size is made anew. Reading maps the files: a second epoch costs what the
page cache costs, and several processes share one copy.

The key is a hash of the recipe, its version, the layout's reader and the content of the files; names and
places have no part in it, so a data set that moved, or was copied, finds its entries. Hashing a case takes a
small part of the time of reading it, and is done once: its hash is kept in ``known/`` under the files' paths,
sizes, inodes and times (ns) of last change, as git does, and holds while these stand.
"""

import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fedutils.data.boxes import Box
from fedutils.data.case import Case
from fedutils.data.volume_prepare import prepare_case
from fedutils.data.volume_recipes import RECIPE_VERSION, Prepared, Recipe
from fedutils.errors import InputError
from fedutils.results import to_json, write_atomic

_PARTIAL = ".partial-"
_STALE_S = 3600  # a partial entry that nobody touched for an hour is left over from a kill
_SETTLED_S = 2  # of a file changed this recently, a second change might not show in its times


def load_prepared(case: Case, recipe: Recipe, folder: Path) -> Prepared:
    """Open a case from the cache, memory-mapped and read-only; prepare it first if it is not there.

    Parameters
    ----------
    case : Case
    recipe : Recipe
    folder : Path
        Of the cache; made if need be.

    Raises
    ------
    InputError
        If the case cannot be read or prepared, or the folder cannot be written.
    """
    entry = Path(folder) / compute_key(case, recipe, folder)
    found = read_entry(entry, case.name)
    if found is None:
        _write_entry(entry, prepare_case(case, recipe))
        found = read_entry(entry, case.name)
    if found is None:
        raise InputError(f"{entry}: expected the arrays that were just written, found others; check the disk")
    return found


def compute_key(case: Case, recipe: Recipe, folder: Path) -> str:
    """Return the name of a case's entry, 32 hexadecimal digits: see the head of this module.

    Parameters
    ----------
    case : Case
        The files of the recipe's modalities and of the mask count, and what reads them.
    recipe : Recipe
    folder : Path
        Of the cache, where hashes of files are kept.

    Raises
    ------
    InputError
        If a file is not there.
    """
    others = set(case.modalities) - set(recipe.modalities)
    wanted = {kind: paths for kind, paths in sorted(case.files.items()) if kind not in others}
    files = [(kind, path) for kind, paths in wanted.items() for path in paths]
    words = {
        "recipe": asdict(recipe),
        "version": RECIPE_VERSION,
        "reader": _describe_reader(case.reader),
        "content": _hash_files(files, Path(folder)),
    }
    return hashlib.sha256(to_json(words).encode()).hexdigest()[:32]


def _describe_reader(reader):
    """Return a text that differs for readers that may give different arrays."""
    if isinstance(reader, functools.partial):
        return [_describe_reader(reader.func), repr(reader.args), repr(sorted(reader.keywords.items()))]
    return f"{getattr(reader, '__module__', '')}.{getattr(reader, '__qualname__', type(reader).__qualname__)}"


def _hash_files(files, folder):
    """Return a hash of the files' content; the one kept from before if nothing about them has changed."""
    kinds, state = [kind for kind, _ in files], _describe_state(files)
    known = folder / "known" / hashlib.sha256(repr((kinds, state)).encode()).hexdigest()[:32]
    try:
        digest = known.read_text()
        if len(digest) == 64:
            return digest
    except (OSError, UnicodeDecodeError):
        pass
    whole = hashlib.sha256()
    for kind, path in files:
        try:
            with path.open("rb") as file:
                own = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: expected a readable file, found: {error.strerror}") from error
        whole.update(f"{kind} {own}\n".encode())
    digest = whole.hexdigest()
    last = max((max(times) for _, _, _, *times in state), default=0)
    if time.time_ns() - last > _SETTLED_S * 1e9 and _describe_state(files) == state:
        write_atomic(known, digest.encode())
    return digest


def _describe_state(files):
    """Return path, size, inode and times of change of each file."""
    state = []
    for _, path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(
                f"{path}: expected a file of the case, found: {error.strerror}; "
                "restore it, or set skip_bad: true"
            ) from error
        place = os.path.abspath(path)  # noqa: PTH100  (resolve() would ask the disk about each folder)
        state.append((place, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
    return state


def read_entry(entry: Path, name: str) -> Prepared | None:
    """Map the arrays of an entry; None if it is not there, not whole or not readable.

    Parameters
    ----------
    entry : Path
        Its folder.
    name : str
        Of the case; the entry itself does not know it.
    """
    try:
        facts = json.loads((entry / "entry.json").read_text())
        arrays = {}
        for kind, size in facts["sizes"].items():
            path = entry / f"{kind}.npy"
            if path.stat().st_size != size:
                return None
            arrays[kind] = np.load(path, mmap_mode="r")
        return Prepared(
            name=name,
            images=arrays["images"],
            mask=arrays.get("mask"),
            affine=None if facts["affine"] is None else np.array(facts["affine"]),
            box=Box(tuple(facts["start"]), tuple(facts["stop"])),
            full_shape=tuple(facts["full_shape"]),
            missing=tuple(facts["missing"]),
            labelled=float("nan") if facts["labelled"] is None else facts["labelled"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_entry(entry, volume):
    """Write an entry, whole or not at all."""
    temporary = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=entry.parent))
        partial = temporary / "new"
        partial.mkdir()
        sizes = {}
        for kind in ("images", "mask"):
            if (array := getattr(volume, kind)) is not None:
                np.save(partial / f"{kind}.npy", array)
                sizes[kind] = (partial / f"{kind}.npy").stat().st_size
        facts = {
            "sizes": sizes,
            "affine": volume.affine,
            "start": volume.box.start,
            "stop": volume.box.stop,
            "full_shape": volume.full_shape,
            "missing": volume.missing,
            "labelled": None if volume.mask is None else volume.labelled,
        }
        (partial / "entry.json").write_text(to_json(facts))
        _take_place(partial, entry, temporary / "damaged")
    except OSError as error:
        raise InputError(
            f"cannot write {entry.parent}: {error.strerror or error}; finished entries are untouched; "
            "free space or make the folder writable, then run again"
        ) from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _take_place(partial, entry, aside):
    """Rename a finished entry to its own name, unless another writer's is there; put a damaged one aside."""
    for attempt in range(8):  # each time that another writer steps in between
        try:
            partial.rename(entry)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if read_entry(entry, "") is not None:
            return
        try:
            entry.rename(f"{aside}{attempt}")
        except FileNotFoundError:
            continue
    raise OSError(f"{entry.name} keeps changing")


def remove_left_overs(folder):
    """Remove partial entries that a kill left behind."""
    for left_over in folder.glob(f"{_PARTIAL}*"):
        try:
            if time.time() - left_over.stat().st_mtime > _STALE_S:
                shutil.rmtree(left_over, ignore_errors=True)
        except FileNotFoundError:  # another process removes it, or finished with it
            continue
