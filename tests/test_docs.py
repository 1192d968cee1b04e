"""The code in the documentation runs as it stands."""

import re

import pytest

from fedutils import experiment_file, experiment_keys, paths
from fedutils.experiment_checks import NAMED


def run_blocks(name, folder):
    """Run the Python blocks of a page of `docs` in order, and return how many there are."""
    text = (paths.ROOT / "docs" / name).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope = {"folder": folder}
    for block in blocks:
        exec(compile(block, f"docs/{name}", "exec"), scope)
    return len(blocks)


def test_the_blocks_of_the_guide_to_the_runtime_run_in_order(tmp_path, capfd):
    assert run_blocks("runtime.md", tmp_path) >= 3
    assert (tmp_path / "model.keras").exists()


def test_the_blocks_of_the_page_on_the_data_run_in_order(tmp_path, capfd):
    assert run_blocks("data.md", tmp_path) >= 9
    assert (tmp_path / "audit" / "report.html").exists()


def test_the_blocks_of_the_page_on_reports_run_in_order(tmp_path, capfd):
    assert run_blocks("reports.md", tmp_path) >= 4
    assert (tmp_path / "report.html").exists()


def test_the_blocks_of_the_page_on_experiments_run_in_order(tmp_path, capfd):
    assert run_blocks("experiments.md", tmp_path) == 2


@pytest.mark.parametrize(
    ("heading", "tables"),
    [
        ("### Classification", {k: experiment_file._SECTIONS[k] for k in ("data", "partition", "model")}),
        ("### Segmentation", {k: experiment_keys.SECTIONS[k] for k in ("data", "partition", "model")}),
        ("### Training", {"training": experiment_file.TRAINING}),
        ("### Who takes part", {k: experiment_file._SECTIONS[k] for k in ("participation", "network")}),
    ],
)
def test_the_page_on_experiments_names_every_key_and_no_other(heading, tables):
    text = (paths.ROOT / "docs" / "experiments.md").read_text()
    part = re.split(r"\n##", text.split(heading, 1)[1])[0]
    rows = [line.split(" | ") for line in part.splitlines() if line.startswith("|") and "---" not in line]
    column = 0 if heading == "### Training" else 1
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row[column])}
    known = {key for table in tables.values() for key in table} - {"source"}
    assert named - set(NAMED) == known


def test_the_page_on_experiments_names_every_algorithm():
    text = (paths.ROOT / "docs" / "experiments.md").read_text()
    table = text.split("| `algorithm` | is |")[1].split("###")[0]
    assert set(re.findall(r"`(\w+)`", table)) - {"own_test_fraction"} == set(NAMED)
