"""What the repository shows (README, paper) is what its committed results say."""

import json
import shutil

import pytest

from fedutils import paths, readme
from fedutils.reproduce import build_paper


@pytest.fixture(autouse=True, scope="module")
def published_thesis():
    """Skip where another profile was published since: the README shows the thesis profile's numbers."""
    profiles = {json.loads(path.read_text())["profile"] for path in (paths.ROOT / "results").glob("*.json")}
    if profiles != {"thesis"}:
        pytest.skip(
            f"results/ holds {profiles or 'nothing'}; 'git checkout results' brings the thesis's back"
        )


def test_the_readme_shows_what_the_committed_results_say():
    text = readme.README.read_text()
    for name, content in readme.build_blocks().items():
        assert readme.replace_block(text, name, content) == text, name


def test_committed_results_are_of_the_thesis_profile_and_real_data():
    for path in (paths.ROOT / "results").glob("*.json"):
        result = json.loads(path.read_text())
        assert result["data"]["source"] != "phantom", path.name
        assert result["git"]["code_changed"] is False, path.name


def test_the_paper_is_what_the_results_and_figures_give():
    for name in ("results", "figures"):
        shutil.copytree(paths.ROOT / name, paths.output_dir() / name)
    assert build_paper() is None
    made = (paths.output_dir() / "paper" / "thesis.pdf").read_bytes()
    assert made == (paths.ROOT / "paper" / "thesis.pdf").read_bytes()


def test_blocks_are_replaced_whole():
    text = "a\n<!-- x: start -->\nold\n<!-- x: end -->\nb"
    assert readme.replace_block(text, "x", "new") == "a\n<!-- x: start -->\nnew\n<!-- x: end -->\nb"
