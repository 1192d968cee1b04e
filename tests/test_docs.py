"""The code in the documentation runs as it stands."""

import re

from fedutils import paths


def test_the_blocks_of_the_guide_to_the_runtime_run_in_order(tmp_path, capfd):
    text = (paths.ROOT / "docs" / "runtime.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    scope = {"folder": tmp_path}
    for block in blocks:
        exec(compile(block, "docs/runtime.md", "exec"), scope)
    assert (tmp_path / "model.keras").exists()
