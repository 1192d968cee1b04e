"""The graph of the thesis: profile -> notebooks -> results and figures -> paper -> published files.

Run it by ``make reproduce`` (`fedutils.reproduce`), which chooses and checks the profile first.
"""

import os

from doit.tools import config_changed

from fedutils import paths
from fedutils.profiles import list_notebooks, load_profile, read_parameters
from fedutils.reproduce import PAPER, Reporter, build_book, build_paper, execute, needed_results, publish
from fedutils.sources import describe_source

DOIT_CONFIG = {
    "default_tasks": ["notebook", "paper", "publish"],
    "reporter": Reporter,
    "verbosity": 2,
    "check_file_uptodate": "md5",
}
PROFILE = os.environ.get("FEDUTILS_PROFILE", "laptop")
JOBS = int(os.environ.get("FEDUTILS_JOBS", "1"))
MODULE = [p for p in sorted((paths.ROOT / "fedutils").rglob("*")) if p.suffix in (".py", ".mplstyle")]


def result_of(notebook):
    return paths.results_dir() / f"{notebook}.json"


def order_lanes(books):
    """Return by notebook those that it waits for where two run side by side.

    Two lanes, each in the order of its numbers: notebooks that read one another's results, with whatever
    comes after them, and the rest. The first that reads phantom slices makes them for all, and those that
    read phantom cases go one after another, so that no two make the same.
    """
    joined = {path.stem for path in books if needed_results(path)}
    joined |= {name for path in books for name in needed_results(path)}
    slices_by, cases_by, last, after = None, None, {}, {}
    for path in books:
        known, lane = read_parameters(path), path.stem in joined or path.stem > max(joined, default=path.stem)
        wait_for = {slices_by, last.get(lane)}
        if not (lane and "case_voxel_mm" in known):  # who waits for cases of the other lane holds nobody up
            last[lane] = path.stem
        if slices_by is None and "phantom_training" in known:
            slices_by = path.stem
        if "case_voxel_mm" in known:
            wait_for.add(cases_by)
            cases_by = path.stem
        after[path.stem] = sorted(wait_for - {None})
    return after


def task_notebook():
    """Execute the notebooks, each after those whose results it reads."""
    profile, books = load_profile(PROFILE), list_notebooks()
    after = order_lanes(books) if JOBS > 1 else {}
    for path in books:
        parameters = profile[path.stem]
        yield {
            "name": path.stem,
            "task_dep": [f"notebook:{name}" for name in after.get(path.stem, [])],
            "actions": [(execute, [path, parameters])],
            "file_dep": [path, *MODULE, *map(result_of, needed_results(path))],
            "targets": [result_of(path.stem)],
            "uptodate": [
                config_changed(
                    {"parameters": parameters, "data": describe_source(parameters.get("data", "phantom"))}
                )
            ],
        }


def task_paper():
    """Set the paper from the results and figures."""
    results = [result_of(p.stem) for p in list_notebooks()]
    return {
        "actions": [build_paper],
        "task_dep": ["notebook"],  # in the order of their numbers
        "file_dep": [*(p for p in PAPER.rglob("*") if p.is_file() and p.suffix != ".pdf"), *results],
        "targets": [paths.output_dir() / "paper" / "thesis.pdf"],
    }


def task_figures():
    """Publish the figures."""
    return {"actions": [(publish, ["figures"])], "task_dep": ["notebook"]}


def task_book():
    """Render the executed notebooks as a web book (not part of a plain run)."""
    html = paths.output_dir() / "book" / "html" / "index.html"
    executed = [result_of(p.stem) for p in list_notebooks()]
    return {
        "actions": [build_book],
        "task_dep": ["notebook"],
        "file_dep": [*(p for p in (paths.ROOT / "docs").rglob("*") if p.is_file()), *executed],
        "targets": [html],
    }


def task_publish():
    """Publish results, figures, the paper and the models."""
    return {
        "actions": [(publish, ["results", "figures", "paper", "pretrained"])],
        "file_dep": [paths.output_dir() / "paper" / "thesis.pdf"],
        "uptodate": [False],  # another profile may have published since
    }
