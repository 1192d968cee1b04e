"""The runner: profile -> notebooks -> results and figures -> paper -> published files.

doit decides what is out of date (MD5 of every input, parameters included); papermill executes the notebooks
from this process, two at a time where no times are published. Everything is made under ``build/<profile>``
and published to ``results``, ``figures`` and ``paper`` at the end, so that a run that is stopped, or one of
another profile, never mixes with what is there.
"""

import functools
import os
import re
import runpy
import shutil
import sys
import time
from pathlib import Path

import papermill
from doit import Globals
from doit.cmd_base import ModuleTaskLoader
from doit.dependency import JsonDB
from doit.doit_cmd import DoitMain
from doit.exceptions import TaskFailed
from doit.reporter import ConsoleReporter
from jupyter_client import AsyncKernelManager

from fedutils import paths
from fedutils.errors import InputError
from fedutils.profiles import load_profile
from fedutils.readme import update_readme
from fedutils.results import write_atomic

PAPER = paths.ROOT / "paper"


class DurableDB(JsonDB):
    """doit's memory of what is done, replaced in one step so that a kill leaves the earlier one whole."""

    def dump(self):
        """Write the content to disk."""
        write_atomic(Path(self.name), self.codec.encode(self._db).encode())


class QuietKernelManager(AsyncKernelManager):
    """Starts kernels whose own log (TensorFlow's C++ messages) goes to a file, not over the progress bar."""

    async def start_kernel(self, **kwargs):
        """Start the kernel; cell outputs and errors travel over the protocol and are not affected."""
        with (paths.output_dir() / "kernel.log").open("ab") as log:
            await super().start_kernel(stdout=log, stderr=log, **kwargs)


class Reporter(ConsoleReporter):
    """One line a task, with its time; doit's memory is written after each, not at the end only."""

    desc = "one line a task"

    def initialize(self, tasks, selected_tasks):
        """Count what this run needs."""
        needed, stack = set(), list(selected_tasks)
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += tasks[name].task_dep
        self._total = sum(bool(tasks[name].actions) for name in needed)
        self._seen, self._started = 0, {}

    def _line(self, task, text):
        self._seen += 1
        self.write(f"[{self._seen}/{self._total}] {task.name.split(':')[-1]}: {text}\n")
        sys.stdout.flush()

    def execute_task(self, task):
        """Announce a task."""
        if task.actions:
            self._started[task.name] = time.monotonic()
            self._line(task, "running")

    def add_success(self, task):
        """Remember at once that the task is done."""
        if task.actions:
            Globals.dep_manager.backend.dump()
            seconds = time.monotonic() - self._started[task.name]
            self.write(f"      {task.name.split(':')[-1]}: done in {seconds:.0f} s\n")

    def skip_uptodate(self, task):
        """Say that nothing was to do."""
        if task.actions:
            self._line(task, "up to date")

    def _write_failure(self, result, write_exception=True):
        self.write(f"error: {result['task'].name}: {result['exception'].get_msg().rstrip()}\n")


def in_one_line(action):
    """Let an action of doit end with one line, not a traceback, when the user can mend what went wrong."""

    @functools.wraps(action)
    def guarded(*arguments):
        try:
            return action(*arguments)
        except InputError as error:
            return TaskFailed(str(error))

    return guarded


def needed_results(notebook: Path) -> list[str]:
    """Return the names of the results that a notebook reads, from its calls of ``load_result("...")``."""
    return sorted(set(re.findall(r'load_result\(\\"(\w+)\\"\)', notebook.read_text())))


def execute(notebook: Path, parameters: dict) -> TaskFailed | None:
    """Execute a notebook; keep its outputs in ``<output>/notebooks``, also when a cell fails.

    Parameters
    ----------
    notebook : Path
    parameters : dict
        For its cell tagged ``parameters``.

    Returns
    -------
    TaskFailed or None
        The failing cell and its traceback.
    """
    target = paths.output_dir() / "notebooks" / notebook.name
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in paths.figures_dir().glob(f"{notebook.stem[:2]}_*"):  # a renamed figure leaves no twin
        stale.unlink()
    result, started = paths.results_dir() / f"{notebook.stem}.json", time.time()
    try:
        papermill.execute_notebook(
            notebook,
            target,
            parameters=parameters,
            kernel_name="python3",
            cwd=str(paths.output_dir()),
            progress_bar={"desc": notebook.stem, "unit": "cell"},
            kernel_manager_class=QuietKernelManager,
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == "InputError":  # the user's to mend: one line says it all
            return TaskFailed(f"{error.evalue} (cell {error.exec_count} of {target})")
        return TaskFailed(f"cell {error.exec_count} of {target} failed:{error}")
    if not result.exists() or result.stat().st_mtime < started:
        return TaskFailed(f"{notebook.name} ended without saving its result; end it with save_result")
    return None


@in_one_line
def build_paper() -> None:
    """Set ``paper/thesis.typ`` with the results and figures of the current run; writes ``thesis.pdf``.

    The text is told which results are there: a section whose notebook has not run says so.
    """
    import typst

    folder = paths.output_dir() / "paper"
    shutil.copytree(PAPER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.pdf"))
    there = " ".join(sorted(path.stem for path in paths.results_dir().glob("*.json")))
    try:
        pdf = typst.compile(
            str(folder / "thesis.typ"),
            root=str(paths.output_dir()),
            sys_inputs={"results": there},
            timestamp=0,
        )
    except typst.TypstError as error:
        raise InputError(f"{folder / 'thesis.typ'}: {error.message}: {error.diagnostic}") from error
    write_atomic(folder / "thesis.pdf", pdf)


@in_one_line
def build_book() -> None:
    """Render the executed notebooks as a web book with Sphinx, into ``<output>/book/html``."""
    from sphinx.cmd.build import build_main

    source = paths.output_dir() / "book" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(paths.ROOT / "docs", source)
    shutil.copytree(paths.output_dir() / "notebooks", source / "notebooks")
    if build_main(["-q", "-W", "--keep-going", "-b", "html", str(source), str(source.parent / "html")]):
        raise InputError(f"{source}: Sphinx found errors, listed above; mend them and run 'make book' again")


@in_one_line
def publish(*folders: str) -> None:
    """Copy the finished run to where the repository keeps it, one whole file at a time.

    Parameters
    ----------
    folders : str
        Of ``results`` (those of experiments too), ``figures``, ``paper`` and ``pretrained``. Files of an
        earlier run that this one does not make go away; of the paper only ``thesis.pdf`` is copied, of the
        figures those of notebooks, whose names begin with a number, and models are published by the thesis
        profile alone.
    """
    run = paths.output_dir()
    patterns = {"paper": "thesis.pdf", "figures": "[0-9]*"}
    thesis = os.environ.get("FEDUTILS_PROFILE") == "thesis"
    for name in folders:
        if name == "pretrained" and not thesis:
            continue
        _mirror(run / name, paths.ROOT / name, patterns.get(name, "[!.]*"))
        if name == "results":
            _mirror(run / name / "experiments", paths.ROOT / name / "experiments", "[!.]*")
    if "results" in folders and thesis:
        update_readme()


def _mirror(source: Path, target: Path, pattern: str) -> None:
    """Make the files of a folder that match the pattern those of another."""
    made = {path.name: path for path in sorted(source.glob(pattern)) if path.is_file()}
    for file, path in made.items():
        write_atomic(target / file, path.read_bytes())
    for old in target.glob(pattern):
        if old.is_file() and old.name not in made:
            old.unlink()


def count_jobs(profile: str) -> int:
    """Return how many notebooks run at a time: two, for one rarely keeps two cores busy.

    One in the thesis profile: its results hold seconds, and two would disturb each other's.
    """
    return 1 if profile == "thesis" else min(2, len(os.sched_getaffinity(0)))


def reproduce(
    profile: str, data: str | None = None, targets: tuple[str, ...] = (), jobs: int | None = None
) -> int:
    """Bring everything of a profile up to date.

    Parameters
    ----------
    profile : str
        Name of a file in ``profiles``.
    data : str, optional
        Folder of real data; sets ``FEDUTILS_DATA``.
    targets : tuple of str
        Tasks of ``dodo.py``; all of them if empty.
    jobs : int, optional
        Notebooks that run at a time; `count_jobs` by default. Results do not depend on it.

    Returns
    -------
    int
        Exit status: 0, or 1 if a task failed.

    Raises
    ------
    InputError
        If the profile or the data folder is wrong, or the output folder is not writable.
    """
    parameters = load_profile(profile)
    if data:
        os.environ["FEDUTILS_DATA"] = str(Path(data).expanduser().resolve())
    if any(p.get("data", "phantom") != "phantom" for p in parameters.values()):
        print(f"data: {paths.data_dir()}")
    elif data:
        print(f"data: profile {profile} makes its own phantom; DATA is used by PROFILE=thesis")
    os.environ["FEDUTILS_PROFILE"] = profile
    os.environ.setdefault("FEDUTILS_OUTPUT", str(paths.BUILD / profile))
    write_atomic(paths.output_dir() / "profile.txt", f"{profile}\n".encode())  # fails early if read-only
    if jobs is None:  # who asks for single notebooks gets these, not the order of all
        jobs = 1 if any(":" in target for target in targets) else count_jobs(profile)
    os.environ["FEDUTILS_JOBS"] = str(jobs)
    tasks = runpy.run_path(str(paths.ROOT / "dodo.py"))
    configuration = {
        "GLOBAL": {"backend": "durable", "dep_file": str(paths.output_dir() / "doit.json")},
        "BACKEND": {"durable": f"{__name__}:DurableDB"},
    }
    parallel = ["--process", str(jobs), "--parallel-type", "thread"] if jobs > 1 else []
    return DoitMain(ModuleTaskLoader(tasks), extra_config=configuration).run(["run", *parallel, *targets])
