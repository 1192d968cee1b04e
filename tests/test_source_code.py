"""A training run is found again only while the code that it executes does the same."""

import pytest

from fedutils import paths, runs
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
