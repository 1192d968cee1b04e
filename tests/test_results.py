import errno
import json

import numpy as np
import pytest

from fedutils import paths, results
from fedutils.errors import InputError


def save(**metrics):
    return results.save_result(
        "04_x",
        metrics,
        profile="smoke",
        parameters={"a": 1},
        seeds=[0],
        data={"source": "phantom", "num_images": 2},
    )


def test_a_result_says_where_it_came_from():
    path = save(accuracy=np.float32(0.5), counts=np.arange(3))
    record = json.loads(path.read_text())
    assert path == paths.results_dir() / "04_x.json"
    assert record["metrics"] == {"accuracy": 0.5, "counts": [0, 1, 2]}
    assert record["profile"] == "smoke" and record["seeds"] == [0] and record["data"]["source"] == "phantom"
    assert record["versions"]["tensorflow-federated"] == "0.87.0"
    assert set(record["git"]) == {"commit", "code_changed"} and record["machine"]["cores"] >= 1
    assert results.load_result("04_x") == record


def test_a_missing_result_says_which_notebook_to_run():
    with pytest.raises(InputError, match="run that notebook first"):
        results.load_result("04_y")


def test_nan_is_refused_and_the_old_result_stays():
    path = save(accuracy=0.5)
    with pytest.raises(ValueError, match="JSON compliant"):
        save(accuracy=float("nan"))
    assert json.loads(path.read_text())["metrics"]["accuracy"] == 0.5


def test_a_full_disk_leaves_the_old_result_and_no_litter(monkeypatch):
    path = save(accuracy=0.5)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device; what was there before is untouched"):
        save(accuracy=0.9)
    assert json.loads(path.read_text())["metrics"]["accuracy"] == 0.5
    assert [p.name for p in path.parent.iterdir()] == ["04_x.json"]


def test_an_output_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(tmp_path / "file" / "below"))
    with pytest.raises(InputError, match=r"cannot write .*Not a directory"):
        save(accuracy=0.5)
