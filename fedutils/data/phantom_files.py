"""Writing a phantom set to disk: in parallel, with an index, and whole or not at all."""

import csv
import functools
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from fedutils.data.phantom_atlas import load_atlas
from fedutils.errors import InputError

MANIFEST = "phantom.json"
INDEX = "phantom_index.csv"

_STALE_S = 3600  # a partial set that nobody touched for an hour is left over from a kill


def map_items(job, items, num_workers, progress, title, *, few):
    """Return ``[job(i) for i in items]``, by several processes when there are more than `few`.

    One process does it all when TensorFlow is loaded.
    """
    items = list(items)
    num_workers = min(num_workers or os.cpu_count() or 1, len(items))
    bar = functools.partial(tqdm, total=len(items), desc=title, disable=not progress)
    load_atlas()  # before the fork: the workers then share its memory
    # Forking is not safe under TensorFlow's threads, and spawning would run a caller's script again.
    if num_workers == 1 or len(items) <= few or "tensorflow" in sys.modules:
        return list(bar(map(job, items)))
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_workers, context, initializer=_follow, initargs=(os.getpid(),)) as pool:
        chunk = max(1, min(16, len(items) // (4 * num_workers)))
        return list(bar(pool.map(job, items, chunksize=chunk)))


def _follow(parent):
    """Make this worker end with its parent; the pool alone leaves orphans when that is killed."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_index(folder, rows):
    """Write the rows as CSV."""
    with (folder / INDEX).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def is_whole(folder, manifest, list_files):
    """Return whether a folder holds the set of this manifest, with every file of its index.

    Parameters
    ----------
    folder : path
    manifest : dict, all parameters of the set
    list_files : function from a row of the index (dict) to the files that it stands for
    """
    folder = Path(folder)
    try:
        found = json.loads((folder / MANIFEST).read_text())
        with (folder / INDEX).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError):  # absent, unreadable or not JSON
        return False
    if found != manifest:
        return False
    return all((folder / f).is_file() for row in rows for f in list_files(row))


@contextmanager
def whole_folder(folder, manifest):
    """Give a temporary folder to fill; at the end it takes the place of `folder` in one step."""
    folder = Path(folder).absolute()
    if folder.exists() and not (folder / MANIFEST).is_file():
        if not folder.is_dir():
            raise InputError(f"bad output: expected a folder, found the file {folder}; name another")
        if any(folder.iterdir()):
            raise InputError(
                f"{folder} is not empty: expected no files or an earlier phantom ({MANIFEST}), "
                "found other files; choose another folder"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f".{folder.name}.partial-*"):
        if time.time() - left_over.stat().st_mtime > _STALE_S:
            shutil.rmtree(left_over, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        partial = temporary / "new"
        partial.mkdir()
        yield partial
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if folder.exists():
            folder.rename(temporary / "old")
        partial.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
