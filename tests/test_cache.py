"""The cache: whole entries or none, whoever is killed or writes at once, and keys of content and recipe."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fedutils.data import cache
from fedutils.data.case import Case, Volume
from fedutils.data.prepared_set import prepare_cases, read_batches
from fedutils.data.volume_prepare import prepare_case
from fedutils.data.volume_recipes import Recipe
from fedutils.errors import InputError
from fedutils.paths import ROOT

RECIPE = Recipe(("t1", "t2"), shape=(7, 8, 9))
SHAPE = (8, 9, 10)


class Reader:
    """Reads .npy files and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self, case, modalities, mask):
        self.calls += mask  # of a case, the mask is read once
        images = {m: np.load(case.files[m][0]) for m in modalities}
        if not all(image.any() for image in images.values()):
            raise InputError(f"{case.name}: empty")
        return Volume(images, np.load(case.files["mask"][0]) if mask else None, np.eye(4))


def make_case(folder, name="a", *, seed=0, reader=None, labelled=6):
    """Write a case whose mask has so many voxels labelled; its files look old enough to be trusted."""
    rng = np.random.default_rng(seed)
    files = {}
    for kind in ("t1", "t2", "mask"):
        array = rng.integers(1, 900, SHAPE).astype(np.int16)
        if kind == "mask":
            array = np.zeros(SHAPE, np.uint8)
            array[4, 4, :labelled] = 1
        path = folder / f"{name}_{kind}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
        files[kind] = (path,)
    return Case(name, name, ("t1", "t2"), files, reader or Reader())


@pytest.fixture
def settled(monkeypatch):
    """Trust the times of files that were written just now."""
    monkeypatch.setattr(cache, "_SETTLED_S", -1)


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "known")


def test_a_second_load_reads_the_cache(tmp_path):
    case, folder = make_case(tmp_path), tmp_path / "cache"
    first = cache.load_prepared(case, RECIPE, folder)
    second = cache.load_prepared(case, RECIPE, folder)
    assert case.reader.calls == 1
    direct = prepare_case(case, RECIPE)
    for found in (first, second):
        assert np.array_equal(found.images, direct.images) and np.array_equal(found.mask, direct.mask)
        assert np.array_equal(found.affine, direct.affine) and found.labelled == direct.labelled == 6 / 504
        for name in ("name", "box", "full_shape", "missing"):
            assert getattr(found, name) == getattr(direct, name)


def test_arrays_are_mapped_and_read_only(tmp_path):
    found = cache.load_prepared(make_case(tmp_path), RECIPE, tmp_path / "cache")
    for array in (found.images, found.mask):
        assert isinstance(array, np.memmap) and not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_the_key_is_of_content_and_parameters(tmp_path, monkeypatch):
    case = make_case(tmp_path / "here")
    key = cache.compute_key(case, RECIPE, tmp_path)
    assert len(key) == 32
    elsewhere = make_case(tmp_path / "there", "other name")
    assert cache.compute_key(elsewhere, RECIPE, tmp_path) == key, "same content, other name and place"
    others = {
        cache.compute_key(make_case(tmp_path / "more", seed=1), RECIPE, tmp_path),
        *(
            cache.compute_key(case, dataclasses.replace(RECIPE, **change), tmp_path)
            for change in (
                {"clip": (1, 99)},
                {"scaling": "min_max"},
                {"modalities": ("t2", "t1")},
                {"shape": None},
            )
        ),
        cache.compute_key(
            dataclasses.replace(case, reader=functools.partial(case.reader, x=3)), RECIPE, tmp_path
        ),
        cache.compute_key(
            dataclasses.replace(case, reader=functools.partial(case.reader, x=4)), RECIPE, tmp_path
        ),
    }
    monkeypatch.setattr(cache, "RECIPE_VERSION", 10**6)
    others.add(cache.compute_key(case, RECIPE, tmp_path))
    assert len(others) == 8 and key not in others


def test_modalities_that_are_not_read_have_no_part_in_the_key(tmp_path):
    case, recipe = make_case(tmp_path), Recipe(("t1",))
    key = cache.compute_key(case, recipe, tmp_path)
    np.save(case.files["t2"][0], np.ones(SHAPE))
    assert cache.compute_key(case, recipe, tmp_path) == key
    np.save(case.files["mask"][0], np.ones(SHAPE, np.uint8))
    assert cache.compute_key(case, recipe, tmp_path) != key


def test_files_are_hashed_once_and_again_when_they_change(tmp_path, settled, monkeypatch):
    hashed = []
    real = cache.hashlib.file_digest
    monkeypatch.setattr(
        cache.hashlib, "file_digest", lambda file, name: hashed.append(file) or real(file, name)
    )
    case = make_case(tmp_path)
    key = cache.compute_key(case, RECIPE, tmp_path)
    assert cache.compute_key(case, RECIPE, tmp_path) == key and len(hashed) == 3
    path = case.files["t1"][0]
    time.sleep(0.02)  # file systems count time in steps of milliseconds
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time of modification
    assert cache.compute_key(case, RECIPE, tmp_path) != key and len(hashed) == 6


def test_a_file_changed_a_moment_ago_is_not_trusted(tmp_path):
    case = make_case(tmp_path)
    cache.compute_key(case, RECIPE, tmp_path / "cache")
    assert not (tmp_path / "cache" / "known").exists()


@pytest.mark.parametrize("damage", ["short", "gone", "nonsense", "no facts", "a file", "empty"])
def test_a_damaged_entry_is_made_anew(tmp_path, damage):
    case, folder = make_case(tmp_path), tmp_path / "cache"
    good = np.array(cache.load_prepared(case, RECIPE, folder).images)
    entry = folder / cache.compute_key(case, RECIPE, folder)
    images, facts = entry / "images.npy", entry / "entry.json"
    if damage == "short":
        images.write_bytes(images.read_bytes()[:-1])
    elif damage == "gone":
        (entry / "mask.npy").unlink()
    elif damage == "nonsense":
        images.write_bytes(b"\0" * images.stat().st_size)
    elif damage == "no facts":
        facts.write_text('{"sizes": 3')
    else:
        for path in entry.iterdir():
            path.unlink()
        if damage == "a file":
            entry.rmdir()
            entry.touch()
    assert np.array_equal(cache.load_prepared(case, RECIPE, folder).images, good)
    assert case.reader.calls == 2 and entries(folder) == [entry.name]
    cache.load_prepared(case, RECIPE, folder)
    assert case.reader.calls == 2


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
from pathlib import Path
import numpy as np
import test_cache
from fedutils.data import cache

real = np.save
def save(path, array):
    real(path, array)
    if path.name == sys.argv[2]:
        path.write_bytes(path.read_bytes()[:-100])
        os.kill(os.getpid(), signal.SIGKILL)
np.save = save
folder = Path(sys.argv[1])
case = test_cache.Case("a", "a", ("t1", "t2"), {k: (folder / f"a_{k}.npy",) for k in ("t1", "t2", "mask")},
                       test_cache.Reader())
cache.load_prepared(case, test_cache.RECIPE, folder / "cache")
"""


@pytest.mark.parametrize("file", ["images.npy", "mask.npy"])
def test_a_kill_leaves_no_half_of_an_entry(tmp_path, file):
    case, folder = make_case(tmp_path), tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), file], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left_over,) = entries(folder)
    assert left_over.startswith(".partial-")
    prepare_cases([case], RECIPE, folder, progress=False)
    assert len(entries(folder)) == 2, "another process might still be writing it"
    os.utime(folder / left_over, (0, time.time() - 7200))
    found = prepare_cases([case], RECIPE, folder, progress=False).volumes[0]
    assert np.array_equal(found.images, prepare_case(case, RECIPE).images)
    assert len(entries(folder)) == 1


def test_two_writers_at_once_agree(tmp_path, monkeypatch):
    case, folder = make_case(tmp_path), tmp_path / "cache"
    both, real = threading.Barrier(2, timeout=20), cache.prepare_case

    def prepare(*arguments):
        both.wait()  # both have missed the entry
        return real(*arguments)

    monkeypatch.setattr(cache, "prepare_case", prepare)
    found = []
    writers = [
        threading.Thread(target=lambda: found.append(cache.load_prepared(case, RECIPE, folder))) for _ in "ab"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert np.array_equal(found[0].images, found[1].images) and len(entries(folder)) == 1


def test_cases_come_in_order_and_bad_ones_are_told(tmp_path):
    reader = Reader()
    cases = [make_case(tmp_path, name, seed=i, reader=reader, labelled=i) for i, name in enumerate("dcba")]
    np.save(cases[1].files["t1"][0], np.zeros(SHAPE, np.int16))
    np.save(cases[1].files["t2"][0], np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match="c: empty"):
        prepare_cases(cases, RECIPE, tmp_path / "cache", progress=False)
    found = prepare_cases(
        cases, RECIPE, tmp_path / "cache", skip_bad=True, min_labelled=1 / 504, progress=False
    )
    assert [v.name for v in found.volumes] == [case.name for case in found.cases] == ["b", "a"]
    assert found.skipped == (("c", "c: empty"),) and found.dropped == ("d",) and len(found) == 2
    cases[1].files["t1"][0].unlink()
    found = prepare_cases(cases, RECIPE, tmp_path / "cache", skip_bad=True, progress=False)
    assert len(found) == 3 and "expected a file of the case" in found.skipped[0][1]


def test_ctrl_c_leaves_finished_entries_good(tmp_path):
    def interrupt(case, modalities, mask):
        raise KeyboardInterrupt

    good = Reader()
    cases = [make_case(tmp_path, name, seed=i, reader=good) for i, name in enumerate("abcdef")]
    cases[3] = dataclasses.replace(cases[3], reader=interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_cases(cases, RECIPE, tmp_path / "cache", num_workers=1, progress=False)
    before = good.calls
    assert 3 <= before <= 5
    cases.pop(3)
    assert len(prepare_cases(cases, RECIPE, tmp_path / "cache", progress=False)) == 5
    assert good.calls == 5


def test_what_cannot_be_prepared_is_one_line(tmp_path):
    case = make_case(tmp_path)
    with pytest.raises(InputError, match="several named a"):
        prepare_cases([case, case], RECIPE, tmp_path)
    with pytest.raises(InputError, match="num_workers"):
        prepare_cases([case], RECIPE, tmp_path, num_workers=0)
    with pytest.raises(InputError, match=r"found 1, of which 0 bad and 1 with less than 50\.00% labelled"):
        prepare_cases([case], RECIPE, tmp_path / "cache", min_labelled=0.5, progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        prepare_cases([case], RECIPE, tmp_path / "file", progress=False)


def test_batches_hold_every_volume_once(tmp_path):
    cases = [make_case(tmp_path, str(i), seed=i) for i in range(5)]
    volumes = prepare_cases(cases, RECIPE, tmp_path / "cache", progress=False).volumes
    batches = list(read_batches(volumes, 2))
    assert [images.shape for images, _ in batches] == [(2, 7, 8, 9, 2)] * 2 + [(1, 7, 8, 9, 2)]
    assert np.array_equal(np.concatenate([i for i, _ in batches]), np.stack([v.images for v in volumes]))
    assert all(i.dtype == np.float32 and m.dtype == np.uint8 for i, m in batches)

    def order(**options):
        firsts = [v.images[0, 0, 0, 0] for v in volumes]
        return [firsts.index(v) for i, _ in read_batches(volumes, 2, **options) for v in i[:, 0, 0, 0, 0]]

    assert order() == [0, 1, 2, 3, 4] and sorted(order(seed=1)) == order()
    assert order(seed=1) == order(seed=1)
    assert len({tuple(order(seed=1, epoch=e)) for e in range(6)}) > 1
    with pytest.raises(InputError, match="found 2 shapes"):
        next(read_batches((*volumes, prepare_case(cases[0], Recipe(("t1",)))), 2))
    with pytest.raises(InputError, match="expected masks, found none of 0"):
        next(read_batches((dataclasses.replace(volumes[0], mask=None),), 1))
