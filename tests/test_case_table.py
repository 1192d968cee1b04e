"""What is read of cases to partition them by."""

import csv
import shutil

import numpy as np
import pytest

from fedutils.data.case import Case, Volume
from fedutils.data.case_table import list_source_cases, read_phantom_hospitals, tabulate_cases
from fedutils.data.institutions import assign_institutions
from fedutils.errors import InputError


def make_case(name, image, mask, *, affine=None, institution="A", files=("mask",)):
    read = []

    def reader(case, modalities, with_mask):
        read.append(modalities)
        return Volume(dict.fromkeys(modalities, image), mask if with_mask else None, affine)

    paths = dict.fromkeys(files, (name,))
    case = Case(name, f"patient {name}", ("t1", "flair"), paths, reader, institution)
    return case, read


def example(affine=None, **options):
    image = np.zeros((7, 8, 9), np.int16)
    image[:2] = 10
    image[2:4] = 30
    image[4] = 50
    mask = np.zeros((7, 8, 9), np.uint8)
    mask[1, 2, 3:5], mask[2, 2, 3] = 4, 1
    return make_case("x", image, mask, affine=affine, **options)


def test_a_case_is_measured_by_hand():
    case, read = example(affine=np.diag([1.0, 2.0, 5.0, 1.0]))
    table = tabulate_cases([case], progress=False)
    assert (table.names, table.patients, table.institutions) == (("x",), ("patient x",), ("A",))
    assert len(table) == 1 and read == [("flair",)]  # one modality, once
    assert table.unit == "ml" and table.tumour.tolist() == [3 * 10 / 1000]
    # The mean is (2 * 10 + 2 * 30 + 50) / 7 = 18.6: two planes of 30 and one of 50 are above it.
    assert table.contrast[0] == pytest.approx(np.std([30, 30, 50]) / np.mean([30, 30, 50]))
    assert table.slices[0].tolist() == [False] * 3 + [True] * 2 + [False] * 4


def test_one_case_of_unknown_spacing_makes_all_voxels():
    known, _ = example(affine=np.diag([1.0, 2.0, 5.0, 1.0]))
    unknown, _ = example()
    table = tabulate_cases([known, unknown], progress=False)
    assert table.unit == "voxels" and table.tumour.tolist() == [3, 3]


def test_without_the_modality_the_first_is_taken():
    case, read = example()
    tabulate_cases([case], modality="t2", progress=False)
    assert read == [("t1",)]


@pytest.mark.parametrize(
    ("options", "word"),
    [({"institution": None}, "x: .* known institution"), ({"files": ()}, "x: .* known mask")],
)
def test_a_case_that_cannot_be_placed_is_named(options, word):
    with pytest.raises(InputError, match=word):
        tabulate_cases([example(**options)[0]], progress=False)


def test_no_case_is_refused():
    with pytest.raises(InputError, match="expected at least one"):
        tabulate_cases([])


def test_hospitals_of_a_phantom_are_read_from_its_index(tmp_path):
    (tmp_path / "phantom_index.csv").write_text("case,hospital,hgg\nc1,hospital_1,1\nc2,hospital_2,0\n")
    hospitals = read_phantom_hospitals(tmp_path)
    assert hospitals == {"c1": "hospital_1", "c2": "hospital_2"}
    case = make_case("c2", None, None, institution=None)[0]
    assert assign_institutions([case], hospitals)[0].institution == "hospital_2"
    (tmp_path / "phantom_index.csv").write_text("file,hospital\nTraining/a.jpg,hospital_5\n")
    assert read_phantom_hospitals(tmp_path) == {"Training/a.jpg": "hospital_5"}


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"phantom_index.csv: expected the index of a phantom"):
        read_phantom_hospitals(tmp_path)
    (tmp_path / "phantom_index.csv").write_text("case,site\nc1,1\n")
    with pytest.raises(InputError, match="found KeyError"):
        read_phantom_hospitals(tmp_path)


def test_the_phantom_stands_in_with_its_hospitals(tmp_path, monkeypatch):
    monkeypatch.setattr("fedutils.paths.BUILD", tmp_path)
    cases, source, audit = list_source_cases("phantom", phantom_cases=2, voxel_mm=6.0)
    assert audit.status == 0 and audit.counts == {"all": {"hospital_1": 1, "hospital_2": 1}}
    assert source == "phantom" and [case.institution for case in cases] == ["hospital_1", "hospital_2"]
    table = tabulate_cases(cases, progress=False)
    assert table.unit == "ml" and (table.tumour > 1).all()
    # The index was written from the same masks.
    with (tmp_path / "data" / "phantom-brats-2-6.0" / "phantom_index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    written = [sum(float(row[f"{part}_ml"]) for part in ("necrosis", "oedema", "enhancing")) for row in rows]
    assert table.tumour == pytest.approx(written, abs=0.02)


def test_a_bad_case_stops_or_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("fedutils.paths.BUILD", tmp_path)
    options = {"phantom_cases": 2, "voxel_mm": 6.0}
    cases, _, _ = list_source_cases("phantom", **options)
    flair = cases[1].files["flair"][0]
    flair.write_bytes(flair.read_bytes()[:900])
    with pytest.raises(InputError, match=rf"{flair.name}: expected"):
        list_source_cases("phantom", **options)
    kept, _, audit = list_source_cases("phantom", **options, skip_bad=True)
    assert [case.name for case in kept] == [cases[0].name]
    assert [name for name, _ in audit.skipped] == [cases[1].name]


def test_a_patient_on_both_sides_of_a_split_stops(real_data, tmp_path, monkeypatch):
    if not (real_data / "kaggle_3m").is_dir():
        pytest.skip("no kaggle_3m in FEDUTILS_DATA")
    source = min(path for path in (real_data / "kaggle_3m").iterdir() if path.is_dir())
    shutil.copytree(source, tmp_path / "kaggle_3m" / "Training" / source.name)
    later = f"{source.name[:-4]}1231"  # another scan of the same patient
    shutil.copytree(source, tmp_path / "kaggle_3m" / "Testing" / later)
    for file in (tmp_path / "kaggle_3m" / "Testing" / later).iterdir():
        file.rename(file.with_name(file.name.replace(source.name, later)))
    monkeypatch.setenv("FEDUTILS_DATA", str(tmp_path))
    with pytest.raises(InputError, match="expected nothing on both sides of the split"):
        list_source_cases("brain_mri", phantom_cases=1, voxel_mm=6.0)


def test_the_real_kaggle_3m_is_tabulated(real_data, monkeypatch):
    if not (real_data / "kaggle_3m").is_dir():
        pytest.skip("no kaggle_3m in FEDUTILS_DATA")
    monkeypatch.setenv("FEDUTILS_DATA", str(real_data))
    cases, source, audit = list_source_cases("brain_mri", phantom_cases=1, voxel_mm=6.0)
    assert audit.status == 0 and audit.layout == "kaggle_3m"
    assert source == "kaggle_3m" and len(cases) == 21
    table = tabulate_cases(cases[:2], progress=False)
    assert table.unit == "voxels" and (table.tumour > 0).all()
    assert [len(s) for s in table.slices] == [len(case.files["slices"]) for case in cases[:2]]
