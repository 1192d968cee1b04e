"""What the repository shows (README, paper) is what its committed results say."""

import json
import shutil

import pytest

from fedutils import paths, readme
from fedutils.experiment_file import load_experiment
from fedutils.reproduce import build_paper

EXPERIMENTS = paths.ROOT / "results" / "experiments"


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


def settings_of(described):
    """Leave out what is not set: earlier results name such keys, with null."""
    if not isinstance(described, dict):
        return described
    return {key: settings_of(value) for key, value in described.items() if value not in (None, {})}


def check_experiment(record):
    """Assert that a result is that of a known file as it is today, made from committed code."""
    experiment = load_experiment(record["experiment"])
    assert record["algorithm"] in experiment.algorithms, "an algorithm that the file does not have"
    assert settings_of(record["settings"]) == settings_of(experiment.describe(record["algorithm"]))
    assert record["seeds_planned"] == list(experiment.seeds)
    assert set(map(int, record["runs"])) == set(record["seeds"]) <= set(experiment.seeds)
    source = experiment.data["source"]
    assert source != "phantom"  # a thesis of real slices; its volumes may be phantoms, and say so
    assert record["data"]["source"] == {"phantom_cases": "phantom"}.get(source, source)
    assert all(run["git"]["code_changed"] is False for run in record["runs"].values())


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_published_experiment_is_of_a_known_file_with_its_settings_and_committed_code(path):
    record = json.loads(path.read_text())
    assert path.stem == f"{record['experiment']}-{record['algorithm']}"
    check_experiment(record)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record["settings"]["training"].update(num_rounds=25),
        lambda record: record["runs"]["0"]["git"].update(code_changed=True),
        lambda record: record.update(algorithm="fedmagic"),
        lambda record: record["data"].update(source="phantom"),
        lambda record: record["runs"].update({"9": record["runs"]["0"]}),
    ],
)
def test_a_published_experiment_that_is_not_what_its_file_says_is_found(spoil):
    experiment = load_experiment("brain_mri_iid")
    record = {
        "experiment": experiment.name,
        "algorithm": "fedavg",
        "settings": json.loads(json.dumps(experiment.describe("fedavg"))),
        "seeds": [0],
        "seeds_planned": list(experiment.seeds),
        "data": {"source": "brain_mri"},
        "runs": {"0": {"git": {"code_changed": False}}},
    }
    check_experiment(record)
    spoil(record)
    with pytest.raises(AssertionError):
        check_experiment(record)


def test_the_paper_is_what_the_results_and_figures_give():
    for name in ("results", "figures"):
        shutil.copytree(paths.ROOT / name, paths.output_dir() / name)
    assert build_paper() is None
    made = (paths.output_dir() / "paper" / "thesis.pdf").read_bytes()
    assert made == (paths.ROOT / "paper" / "thesis.pdf").read_bytes()


def test_blocks_are_replaced_whole():
    text = "a\n<!-- x: start -->\nold\n<!-- x: end -->\nb"
    assert readme.replace_block(text, "x", "new") == "a\n<!-- x: start -->\nnew\n<!-- x: end -->\nb"
