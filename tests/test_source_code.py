"""A training run is found again only while the code that it executes does the same."""

import itertools
import shutil

import pytest

from fedutils import paths, runs
from fedutils.experiment_personal_scores import ScoredPersonal
from fedutils.experiment_scores import ScoredClassification
from fedutils.experiment_segmentation_scores import ScoredSegmentation
from fedutils.source_code import fingerprint_code, list_imported


@pytest.fixture(autouse=True)
def forget():
    yield
    list_imported.cache_clear()
    fingerprint_code.cache_clear()


def test_the_hash_ignores_words_and_sees_code(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path)

    def fingerprint(text):
        (tmp_path / "m.py").write_text(text)
        fingerprint_code.cache_clear()
        return fingerprint_code(("m",))

    base = fingerprint('"""One."""\ndef f():\n    """Two."""\n    return 1  # three\n')
    assert base == fingerprint('"""Another."""\ndef f():\n    """Words."""\n    return 1\n')
    assert base != fingerprint('"""One."""\ndef f():\n    """Two."""\n    return 2  # three\n')


def test_imports_are_followed_however_they_are_written(tmp_path, monkeypatch):
    package = tmp_path / "fedutils"
    (package / "data").mkdir(parents=True)
    for name, text in {
        "a": "import fedutils.b\nimport numpy\n",
        "b": "def f():\n    from fedutils.data.c import g\n",
        "data/c": "from fedutils import d\nfrom fedutils.a import h\n",  # a circle
        "d": "",
        "other": "import fedutils.a\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.setattr(paths, "PACKAGE", package)
    assert list_imported(("a",)) == ("a", "b", "d", "data/c")
    assert list_imported(("o*",)) == ("a", "b", "d", "data/c", "other")


def test_what_a_training_executes_is_known_and_what_only_looks_is_not():
    executed = set(list_imported(runs._ENTRIES))
    assert {"keras_tff", "interpreter", "loops", "optimizers", "models/layers", "data/pipeline"} <= executed
    assert {"preprocess", "inference", "data/hashes", "data/volume_steps", "data/lgg"} <= executed
    faces = {"plots", "cli", "readme", "reproduce", "viewers", "notebook", "predict", "data/audit_report"}
    assert not executed & faces
    for entry in runs._ENTRIES:
        assert list_imported((entry,)), f"no file {entry}"


def test_a_change_of_code_is_another_folder(tmp_path, monkeypatch):
    before = runs.run_folder("x", {"a": 1})
    assert runs.run_folder("x", {"a": 1}) == before != runs.run_folder("x", {"a": 2})
    monkeypatch.setattr(runs, "fingerprint_code", lambda modules: "other")
    assert runs.run_folder("x", {"a": 1}) != before


@pytest.mark.parametrize("roots", [("nothing",), ("federated", "nothing*"), ("data/nothing",)])
def test_a_name_that_stands_for_no_module_is_refused(roots):
    with pytest.raises(ValueError, match=r"nothing\*?: expected a module of fedutils, found none"):
        list_imported(roots)


def test_the_hash_of_a_module_that_is_not_there_or_of_none_is_refused():
    with pytest.raises(ValueError, match="nothing: expected a module of fedutils, found none"):
        fingerprint_code(("paths", "nothing"))
    with pytest.raises(ValueError, match="expected at least one, found none"):
        fingerprint_code(())


TASKS = (ScoredClassification, ScoredPersonal, ScoredSegmentation)
DRIVERS = {
    *("experiment_prepare", "experiment_runs", "experiment_personal_runs", "experiment_rounds"),
    *("algorithms", "federated", "participation", "communication", "runs", "round_store"),
}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_what_decides_how_an_experiment_is_trained_is_known_and_what_writes_and_shows_is_not(task):
    executed = set(list_imported(task.CODE))
    assert executed >= DRIVERS
    assert not executed & {"experiments", "experiment_task", "experiment_checks", "study", "cli_experiment"}
    assert not any(name.endswith(("_scores", "_tables")) or name.startswith("plots") for name in executed)
    other = "segmentation" if task is not ScoredSegmentation else "classification"
    assert f"experiment_{other}" not in executed
    if task is ScoredSegmentation:
        assert {"experiment_segmentation_data", "segmentation_pools", "models/unet"} <= executed


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Return a function that adds a statement to modules of a copy of fedutils, in which hashes look."""
    copy = tmp_path / "fedutils"
    shutil.copytree(paths.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(paths, "PACKAGE", copy)

    def edit(module):
        file = copy / f"{module}.py"
        file.write_text(file.read_text() + "\nADDED = 1\n")
        list_imported.cache_clear()
        fingerprint_code.cache_clear()

    list_imported.cache_clear()
    fingerprint_code.cache_clear()
    return edit


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_training_names_a_run_scores_are_told_apart_and_the_rest_counts_for_neither(task, edited):
    def tell():
        return runs.run_folder("x", {}, task.CODE).name, runs.fingerprint_scores(task.CODE, task.SCORES)

    told = [tell()]
    for module in (
        "experiment_prepare",
        task.SCORES[0],
        "experiment_told",
        "experiments",
        "experiment_bounds",
    ):
        edited(module)
        told.append(tell())
    names, scores = zip(*told, strict=True)
    assert [a != b for a, b in itertools.pairwise(names)] == [True, False, False, False, False]
    assert [a != b for a, b in itertools.pairwise(scores)] == [False, True, True, False, False]
