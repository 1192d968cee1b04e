import nbformat
import pytest

from fedutils import paths
from fedutils.errors import InputError
from fedutils.profiles import list_notebooks, load_profile, matches_type, read_parameters


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """Give a function that writes and loads a profile against the real notebooks."""
    monkeypatch.setattr(paths, "PROFILES", tmp_path)

    def load(text):
        (tmp_path / "own.yaml").write_text(text)
        return load_profile("own")

    return load


@pytest.mark.parametrize("name", ["smoke", "laptop", "thesis"])
def test_the_profiles_of_the_project_are_valid(name):
    parameters = load_profile(name)
    assert list(parameters) == [p.stem for p in list_notebooks()]
    assert all(p["profile"] == name for p in parameters.values())


def test_thesis_has_three_seeds_and_real_data():
    parameters = load_profile("thesis")["05_federated_classification"]
    assert len(set(parameters["seeds"])) >= 3 and parameters["data"] == "brain_mri"
    assert parameters["num_clients"] == 5 if "num_clients" in parameters else True


def test_a_notebook_gets_the_defaults_that_it_knows(profiles):
    loaded = profiles("defaults: {num_rounds: 3}\nnotebooks: {05_federated_classification: {num_clients: 4}}")
    assert loaded["05_federated_classification"] == {"profile": "own", "num_rounds": 3, "num_clients": 4}
    assert loaded["00_setup"] == {"profile": "own"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notebooks: {05_federated_classification: {num_rouns: 3}}", "found the parameter 'num_rouns'"),
        ("defaults: {num_rouns: 3}", "no notebook has a parameter 'num_rouns'"),
        ("defaults: {num_rounds: three}", r"num_rounds: expected int, found 'three' \(str\)"),
        ("defaults: {num_rounds: 2.5}", "num_rounds: expected int, found 2.5"),
        ("defaults: {num_rounds: true}", "num_rounds: expected int, found True"),
        ("defaults: {seeds: [0, x]}", r"seeds: expected list\[int\]"),
        ("notebooks: {06_nothing: {}}", "expected a notebook of .*found '06_nothing'"),
        ("defauts: {num_rounds: 3}", "expected the sections .*found defauts"),
        ("defaults: [1", "expected YAML"),
    ],
)
def test_wrong_profiles_are_refused_in_one_line(profiles, text, message):
    with pytest.raises(InputError, match=message) as caught:
        profiles(text)
    assert "\n" not in str(caught.value)


def test_unknown_profile_lists_the_known():
    with pytest.raises(InputError, match="laptop, smoke, thesis, found 'lapop'"):
        load_profile("lapop")


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (1, "float", True),
        (1, "int", True),
        (1.0, "int", False),
        ("1", "int", False),
        (True, "float", False),
        ([1, 2], "list[float]", True),
        ([], "list[int]", True),
        (1, "list[int]", False),
        (False, "bool", True),
    ],
)
def test_types(value, annotation, fits):
    assert matches_type(value, annotation) is fits


def test_a_parameters_cell_must_be_typed(tmp_path):
    cell = nbformat.v4.new_code_cell("x = 3", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    with pytest.raises(InputError, match=r"found 'x = 3'"):
        read_parameters(tmp_path / "n.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "n.ipynb")
    with pytest.raises(InputError, match="tagged 'parameters', found none"):
        read_parameters(tmp_path / "n.ipynb")
