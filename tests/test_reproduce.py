"""The runner as a user meets it: whole runs in processes of their own, and what happens when they fail."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from fedutils import paths, reproduce
from fedutils.profiles import list_notebooks
from fedutils.reproduce import needed_results

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = 'profile: str = "lab"  # the scale\nword: str = "none"  # what is saved\n'


def command(clone, *words):
    """Return the command line and environment of a runner whose notebooks and profiles are the clone's."""
    start = (
        "import signal, sys; from pathlib import Path; from fedutils import paths;"
        f"clone = Path({str(clone)!r});"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # not ignored, as in a terminal
        "paths.NOTEBOOKS = clone / 'notebooks'; paths.PROFILES = clone / 'profiles';"
        "from fedutils.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "FEDUTILS_OUTPUT": str(clone / "output")}
    return [sys.executable, "-c", start, "reproduce", *words], environment


def run(clone, *words):
    line, environment = command(clone, *words)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200, check=False)


def start(clone, until):
    """Start a run in a session of its own and return it, and its log, once the log holds `until`."""
    line, environment = command(clone, "--profile", "tiny", "--only", "notebook")
    log = clone / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(line, env=environment, stdout=file, stderr=file, start_new_session=True)
    deadline = time.monotonic() + 120
    while until not in log.read_bytes():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    return process, log


@pytest.fixture
def small(tmp_path):
    """Make a clone with two tiny notebooks, the second reading the first one's result."""
    clone = tmp_path / "clone"
    for name in ("notebooks", "profiles"):
        (clone / name).mkdir(parents=True)
    write(clone, "00_first", "saved = word")
    write(clone, "01_second", 'saved = results.load_result("00_first")["metrics"]["saved"] + "!"')
    (clone / "profiles" / "tiny.yaml").write_text("defaults: {word: hello}\n")
    return clone


def write(clone, name, body):
    save = (
        f'results.save_result("{name}", {{"saved": saved}}, profile=profile, parameters={{}}, seeds=[], '
        'data={"source": "none"})'
    )
    cells = [
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("from fedutils import results\n" + body),
        nbformat.v4.new_code_cell(save),
    ]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, clone / "notebooks" / f"{name}.ipynb")


def saved(clone, name):
    return json.loads((clone / "output" / "results" / f"{name}.json").read_text())["metrics"]["saved"]


def test_order_increments_and_parameters(small):
    first = run(small, "--profile", "tiny", "--only", "notebook")
    assert first.returncode == 0, first.stderr + first.stdout
    assert saved(small, "01_second") == "hello!"
    again = run(small, "--profile", "tiny", "--only", "notebook")
    assert again.stdout.count("up to date") == 2
    (small / "profiles" / "tiny.yaml").write_text("defaults: {word: bye}\n")
    run(small, "--profile", "tiny", "--only", "notebook")
    assert saved(small, "01_second") == "bye!"
    write(small, "01_second", "saved = 3")
    last = run(small, "--profile", "tiny", "--only", "notebook")
    assert "00_first: up to date" in last.stdout and "01_second: done" in last.stdout


def test_two_notebooks_run_at_a_time_where_neither_needs_the_other(small):
    """Each waits until the other has begun, which one after the other could not; the third makes lanes."""
    body = """import time
from fedutils import paths
(paths.output_dir() / "{0}").touch()
end = time.time() + 60
while not (paths.output_dir() / "{1}").exists():
    assert time.time() < end
    time.sleep(0.1)
saved = 1"""
    write(small, "00_first", body.format("a", "b"))
    write(small, "01_second", body.format("b", "a"))
    write(small, "02_third", 'saved = results.load_result("01_second")["metrics"]["saved"]')
    done = run(small, "--profile", "tiny", "--only", "notebook", "--jobs", "2")
    assert done.returncode == 0 and done.stdout.count("done in") == 3, done.stdout + done.stderr
    assert reproduce.count_jobs("thesis") == 1


def test_no_two_notebooks_make_the_same_phantom(monkeypatch):
    monkeypatch.setenv("FEDUTILS_PROFILE", "smoke")
    monkeypatch.setenv("FEDUTILS_JOBS", "2")
    tasks = {
        task["name"]: task["task_dep"] for task in runpy.run_path(str(ROOT / "dodo.py"))["task_notebook"]()
    }
    assert all("notebook:01_data_exploration" in tasks[name] for name in list(tasks)[2:])
    assert "notebook:06_centralized_segmentation" in tasks["10_what_goes_wrong"]
    assert not tasks["00_setup"] and tasks["01_data_exploration"] == ["notebook:00_setup"]
    assert "notebook:06_centralized_segmentation" not in tasks["05_federated_classification"]  # another lane
    assert tasks["15_hospitals_on_a_network"][1:] == ["notebook:05_federated_classification"]  # not behind 14
    monkeypatch.setenv("FEDUTILS_JOBS", "1")
    made = runpy.run_path(str(ROOT / "dodo.py"))["task_notebook"]()
    assert not any(task["task_dep"] for task in made)


def test_a_failing_cell_is_shown_and_the_next_run_goes_on_from_there(small):
    write(small, "01_second", 'saved = results.load_result("00_first")["metrics"]["saved"] / 2')
    failed = run(small, "--profile", "tiny", "--only", "notebook")
    assert failed.returncode == 1
    assert "00_first: done" in failed.stdout
    assert "unsupported operand" in failed.stdout and 'load_result("00_first")' in failed.stdout
    assert (small / "output" / "notebooks" / "01_second.ipynb").exists()
    write(small, "01_second", "saved = 1")
    assert "00_first: up to date" in run(small, "--profile", "tiny", "--only", "notebook").stdout


def test_bad_input_in_a_notebook_is_one_line(small):
    body = 'from fedutils.data.brain_mri import list_images\nlist_images("nowhere", "Training")\nsaved = 1'
    write(small, "00_first", body)
    failed = run(small, "--profile", "tiny", "--only", "notebook")
    assert failed.returncode == 1 and "nowhere/Training/glioma: expected a folder" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr


def test_kill_9_loses_only_the_notebook_that_ran(small):
    write(small, "01_second", 'import time\nresults.load_result("00_first")\ntime.sleep(60)\nsaved = 1')
    process, _log = start(small, until=b"01_second: running")
    time.sleep(1.5)  # in the middle of the second notebook
    process.kill()
    process.wait()
    write(small, "01_second", 'saved = results.load_result("00_first")["metrics"]["saved"]')
    again = run(small, "--profile", "tiny", "--only", "notebook")
    assert "00_first: up to date" in again.stdout and "01_second: done" in again.stdout
    assert not session_members(process.pid)  # the kernel ended with its parent


def test_ctrl_c_is_one_line_and_leaves_no_process(small):
    write(small, "01_second", 'import time\nresults.load_result("00_first")\ntime.sleep(60)\nsaved = 1')
    process, log = start(small, until=b"01_second: running")
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    text = log.read_text()
    assert (
        "stopped; run the same command again" in text
        and "Traceback (most recent call last):\n  File" not in text
    )
    assert not session_members(process.pid)
    write(small, "01_second", "saved = 1")
    assert "00_first: up to date" in run(small, "--profile", "tiny", "--only", "notebook").stdout


def session_members(session, wait_s=15):
    """Return the live processes of a session, after giving them time to end."""
    deadline = time.monotonic() + wait_s
    while True:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(stat.parent.name)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "huge"], "expected one of tiny, found 'huge'"),
        (["--profile", "tiny", "--data", "/nowhere/at/all"], "nothing"),
    ],
)
def test_bad_commands_end_with_status_2_and_one_line(small, words, message):
    if message == "nothing":  # the profile makes its own data, so that the folder is not even looked at
        assert "makes its own phantom" in run(small, *words, "--only", "notebook").stdout
        return
    failed = run(small, *words)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: profile:") and message in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_real_data_that_is_not_there_is_said_before_anything_runs(small):
    write(small, "00_first", "saved = 1")
    path = small / "notebooks" / "00_first.ipynb"
    path.write_text(path.read_text().replace("word: str", 'data: str = \\"phantom\\"  # source\\nword: str'))
    (small / "profiles" / "tiny.yaml").write_text("defaults: {data: brain_mri}\n")
    failed = run(small, "--profile", "tiny")
    assert failed.returncode == 2 and "FEDUTILS_DATA unset" in failed.stderr and not failed.stdout
    failed = run(small, "--profile", "tiny", "--data", str(small / "nowhere"))
    assert failed.returncode == 2 and "which is not a folder" in failed.stderr


def test_an_output_folder_that_cannot_be_written_is_one_line(small):
    (small / "output").write_text("a file where the folder should be")
    failed = run(small, "--profile", "tiny")
    assert failed.returncode == 2 and failed.stderr.startswith("error: cannot write")
    assert len(failed.stderr.splitlines()) == 1


def test_needed_results_are_read_from_the_code():
    needs = {p.stem: needed_results(p) for p in list_notebooks()}
    assert needs["05_federated_classification"] == ["04_centralized_classification"]
    assert needs["00_setup"] == []


def test_every_notebook_figure_and_the_paper_of_the_smoke_profile(tmp_path):
    """Run the whole smoke profile, as `make reproduce PROFILE=smoke` does, into a folder of its own."""
    output = tmp_path / "smoke"
    log = tmp_path / "log"
    with log.open("wb") as file:
        line = [sys.executable, "-m", "fedutils.cli", "reproduce", "--profile", "smoke", "--only", "paper"]
        environment = {**os.environ, "FEDUTILS_OUTPUT": str(output)}
        status = subprocess.run(
            line, env=environment, stdout=file, stderr=file, cwd=ROOT, check=False
        ).returncode
    assert status == 0, log.read_text()[-6000:]
    for path in list_notebooks():
        result = json.loads((output / "results" / f"{path.stem}.json").read_text())
        assert result["profile"] == "smoke" and result["data"]["source"] in ("phantom", "random numbers")
        figures = {p.suffix for p in (output / "figures").glob(f"{path.stem[:2]}_*")}
        assert figures == {".svg", ".png"}
        executed = nbformat.read(output / "notebooks" / path.name, as_version=4)
        assert all(c.execution_count for c in executed.cells if c.cell_type == "code" and c.source)
    assert (output / "paper" / "thesis.pdf").read_bytes().startswith(b"%PDF")
    federated = json.loads((output / "results" / "05_federated_classification.json").read_text())["metrics"]
    assert federated["hand_difference"] < 1e-5
    assert all(n == federated["rounds_planned"] for n in federated["rounds_done"].values())
    assert paths.ROOT == ROOT
