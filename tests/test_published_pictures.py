"""A published picture stands in for networks whose weights are gone, and only if it is of the same runs."""

import copy
import json

import pytest

from fedutils import paths
from fedutils.errors import InputError
from fedutils.published import RESULT, reuse_outlines

RECORDS = [
    {"name": "x-fedavg", "algorithm": "fedavg", "runs": {"0": {"seconds": 1.25}, "1": {"seconds": 9.0}}},
    {"name": "x-central", "algorithm": "central", "runs": {"0": {"seconds": 2.5}}},
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Publish one picture of the experiment x, of the runs above."""
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(tmp_path / "output"))
    told = {
        "outlined_dice": {"x": {"fedavg": 0.5, "central": 0.75}},
        "seconds": {r["name"]: {seed: run["seconds"] for seed, run in r["runs"].items()} for r in RECORDS},
    }
    for folder in ("results", "figures"):
        (tmp_path / folder).mkdir()
    (tmp_path / "results" / f"{RESULT}.json").write_text(json.dumps({"metrics": told}))
    for suffix in ("png", "svg"):
        (tmp_path / "figures" / f"07_outlines_x.{suffix}").write_text(suffix)
    return tmp_path


def test_the_picture_of_the_same_runs_is_taken_over_with_its_numbers(root):
    assert reuse_outlines("x", RECORDS, 0, root=root) == {"fedavg": 0.5, "central": 0.75}
    for suffix in ("png", "svg"):
        assert (paths.figures_dir() / f"07_outlines_x.{suffix}").read_text() == suffix


def make_changed(value):
    records = copy.deepcopy(RECORDS)
    records[1]["runs"]["0"]["seconds"] = value
    return records


@pytest.mark.parametrize(
    ("name", "records"),
    [("x", make_changed(2.5000001)), ("y", RECORDS), ("x", [*RECORDS, {**RECORDS[0], "name": "x-local"}])],
)
def test_a_picture_of_other_runs_is_not_taken_for_these(root, name, records):
    with pytest.raises(InputError, match=f"{name}: expected weights on this machine, or a published picture"):
        reuse_outlines(name, records, 0, root=root)
    assert not paths.figures_dir().exists()


@pytest.mark.parametrize("gone", [f"results/{RESULT}.json", "figures/07_outlines_x.svg"])
def test_where_nothing_was_published_nothing_is_reused(root, gone):
    (root / gone).unlink()
    with pytest.raises(InputError, match="found neither; remove its results"):
        reuse_outlines("x", RECORDS, 0, root=root)
