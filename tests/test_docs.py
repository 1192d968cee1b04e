"""The code in the documentation runs as it stands."""

import re

from fedutils import paths


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
