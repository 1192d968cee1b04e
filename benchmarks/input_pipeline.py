"""What it costs to prepare a BraTS case, to read it again from the cache, and how much memory that takes.

Prints one JSON line. A case is the first of ``brats2020`` in the folder of real data, else the phantom's, on
one core; medians over alternating repetitions.

- ``load_case_ratio``: seconds to read all files and prepare them as the field does (`FIELD`), over the
  seconds to decompress those files alone, by one call of zlib each. ``_seed``: the forerunners' way; no T1.
- ``load_case_nibabel_ratio``: seconds of the plain route, ``nibabel.load().get_fdata()`` and the same steps
  by NumPy, over ours. The arrays of both are compared.
- ``cached_epoch_ratio``: seconds to read every array of the cache once, in batches of float32, over the
  seconds of ``numpy.fromfile`` for the same bytes, which the page cache holds.
- ``prepare_memory_ratio``: most resident memory of a process that prepares many cases by two workers, over
  that for two cases.
"""

import dataclasses
import os
import shutil
import statistics
import tempfile
import time
import zlib
from pathlib import Path

import _common

PHANTOM_VOXEL_MM = 1.0


def find_cases(num_phantoms):
    """Return real cases (none if there are no data) and those of the phantom."""
    from fedutils import paths
    from fedutils.data.brats import list_brats
    from fedutils.errors import InputError
    from fedutils.sources import ensure_phantom_cases

    phantoms = list_brats(ensure_phantom_cases(num_phantoms, PHANTOM_VOXEL_MM))
    try:
        return list_brats(paths.data_dir() / "brats2020"), phantoms
    except InputError:
        return [], phantoms


def list_files(case, recipe):
    """Return the files that a recipe reads."""
    return [case.files[kind][0] for kind in (*recipe.modalities, "mask")]


def decompress(files):
    """Inflate files one after another: the least that any reader must do."""
    for path in files:
        data = path.read_bytes()
        zlib.decompress(data, wbits=31, bufsize=int.from_bytes(data[-4:], "little"))


def prepare_plainly(case, recipe):
    """Prepare a case by nibabel and NumPy alone, in float64, cropping as early as the steps allow."""
    import nibabel as nib
    import numpy as np

    def read(path):
        return nib.as_closest_canonical(nib.load(path)).get_fdata()

    stack = [read(case.files[m][0]) for m in recipe.modalities]
    mask = read(case.files["mask"][0]).astype(np.uint8)
    if recipe.scaling == "min_max":
        stack = [(image - image.min()) / (image.max() - image.min()) for image in stack]
    else:
        inside = np.any([image != 0 for image in stack], axis=0)
        spans = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        box = tuple(slice(span[0], span[-1] + 1) for span in spans)
        inside, mask = inside[box], mask[box]
        for c, image in enumerate(stack):
            values = image[box][inside]
            low, high = np.percentile(values, recipe.clip)
            values = values.clip(low, high)
            scaled = (image[box].clip(low, high) - values.mean()) / values.std()
            stack[c] = np.where(inside, scaled, 0)
    over = np.array(recipe.shape) - mask.shape
    pads = [(max(n, 0) // 2, max(n, 0) - max(n, 0) // 2) for n in over]
    starts = [max(-n, 0) // 2 for n in over]
    cuts = tuple(slice(start, start + side) for start, side in zip(starts, recipe.shape, strict=True))
    stack = [np.pad(image[cuts], pads).astype(np.float32) for image in stack]
    return np.stack(stack, axis=-1), np.pad(mask[cuts], pads)


def time_once(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure_case(case, recipe, repeats):
    """Return the median seconds to prepare a case, to decompress it and to prepare it plainly; one core."""
    import numpy as np

    from fedutils.data.volume_prepare import prepare_case

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ours, (images, mask) = prepare_case(case, recipe), prepare_plainly(case, recipe)
    if not (np.allclose(ours.images, images, atol=1e-4) and np.array_equal(ours.mask, mask)):
        raise RuntimeError(f"{case.name}: the plain route gives other arrays")
    del ours, images, mask
    files = list_files(case, recipe)
    # The plain route is timed by itself: it leaves memory in a state that slows whatever comes next.
    rows = [(time_once(prepare_case, case, recipe), time_once(decompress, files)) for _ in range(repeats)]
    plain = [time_once(prepare_plainly, case, recipe) for _ in range(repeats)]
    return [*map(statistics.median, zip(*rows, strict=True)), statistics.median(plain)]


def measure_epoch(cases, recipe, folder, batch_size, repeats):
    """Return the median seconds of a cached epoch and of numpy.fromfile, and the bytes of both."""
    import numpy as np

    from fedutils.data.prepared_set import prepare_cases, read_batches

    volumes = prepare_cases(cases, recipe, folder, progress=False).volumes
    files = [Path(array.filename) for v in volumes for array in (v.images, v.mask)]

    def read_epoch():
        for _ in read_batches(volumes, batch_size):
            pass

    def read_files():
        for path in files:
            np.fromfile(path, np.uint8)

    read_files()
    read_epoch()
    rows = [(time_once(read_epoch), time_once(read_files)) for _ in range(repeats)]
    return [*map(statistics.median, zip(*rows, strict=True)), sum(path.stat().st_size for path in files)]


def measure_memory(cases, recipe, folder, num_workers):
    """Return the most resident bytes of this process once it has prepared the cases, and the seconds."""
    from fedutils.data.prepared_set import prepare_cases

    seconds = time_once(lambda: prepare_cases(cases, recipe, folder, num_workers=num_workers, progress=False))
    return _common.read_peak(), seconds


def main():
    from fedutils.data.volume_recipes import FIELD, SEED

    parser = _common.build_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cases", type=int, default=8, help="phantom cases for the epoch and for memory")
    options = parser.parse_args()
    real, phantoms = find_cases(options.cases)
    case = (real or phantoms)[0]
    result = {"load_case_source": "BraTS 2020" if real else "phantom"}
    for suffix, recipe in (("", FIELD), ("_seed", SEED)):
        seconds, floor, plain = _common.run_fresh(measure_case, case, recipe, options.repeats)
        result |= {
            f"load_case_ratio{suffix}": round(seconds / floor, 3),
            f"load_case_nibabel_ratio{suffix}": round(plain / seconds, 2),
            f"load_case_seconds{suffix}": round(seconds, 4),
            f"load_case_decompress_seconds{suffix}": round(floor, 4),
        }
        _common.report(
            f"{case.name}{suffix}: {seconds:.3f} s, {floor:.3f} s to decompress, {plain:.3f} s plainly"
        )
    folder = Path(tempfile.mkdtemp(prefix="input-pipeline-"))
    try:
        peaks = {}
        for name, cases, workers in (("two", phantoms[:2], 2), ("many", phantoms, 2), ("alone", phantoms, 1)):
            peak, seconds = _common.run_fresh(measure_memory, cases, FIELD, folder / name, workers)
            peaks[name] = peak, seconds / len(cases)
            _common.report(f"{len(cases)} cases, {workers} workers: {peak / 1e6:.0f} MB, {seconds:.1f} s")
        epoch, floor, size = _common.run_fresh(
            measure_epoch, phantoms, FIELD, folder / "many", 2, options.repeats
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _common.report(f"cached epoch of {size / 1e6:.0f} MB: {epoch:.3f} s, {floor:.3f} s by numpy.fromfile")
    result |= {
        "cached_epoch_ratio": round(epoch / floor, 3),
        "cached_epoch_gb_per_second": round(size / epoch / 1e9, 2),
        "prepare_memory_ratio": round(peaks["many"][0] / peaks["two"][0], 3),
        "prepare_memory_mb": round(peaks["many"][0] / _common.MEGABYTE),
        "prepare_num_cases": len(phantoms),
        "prepare_seconds_per_case": round(peaks["many"][1], 3),
        "prepare_speedup_two_workers": round(peaks["alone"][1] / peaks["many"][1], 2),
        "prepare_recipe": dataclasses.asdict(FIELD),
    }
    _common.finish(result, options.out)


if __name__ == "__main__":
    main()
