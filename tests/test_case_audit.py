from pathlib import Path

import numpy as np
import pytest

from fedutils import cli
from fedutils.data.audit import stop_on_leak
from fedutils.data.audit_report import show_case, write_report
from fedutils.data.case import Case, Volume
from fedutils.data.case_audit import audit_cases, find_shared_patients
from fedutils.errors import InputError

ROOT = Path("/data/set")


def make_case(
    name, *, seed, patient=None, split="", tumour=5, shape=(7, 8, 9), missing=(), facts=None, same=False
):
    def read(case, modalities, mask):
        rng = np.random.default_rng(seed)
        images = {m: rng.integers(0, 999, shape, np.int16) for m in ("t1", "flair")}
        if same:
            images["t1"] = images["flair"]
        labels = None
        if tumour is not None:
            labels = np.zeros(shape, np.uint8)
            labels.flat[:tumour] = 1
        return Volume({m: images[m] for m in modalities}, labels, np.diag([1, 1, 2, 1.0]), missing)

    path = ROOT / split / name / f"{name}_flair.nii.gz"
    return Case(name, patient or name, ("t1", "flair"), {"flair": (path,)}, read, "CBICA", facts or {})


def audit(*cases, **options):
    return audit_cases(cases, ROOT, layout="brats", progress=False, **options)


def kinds(found):
    return {finding.kind: finding for finding in found.findings}


def test_clean_cases():
    found = audit(make_case("BraTS20_Training_001", seed=1), make_case("BraTS20_Training_002", seed=2))
    assert found.findings == () and found.status == 0 and found.counts == {"all": {"CBICA": 2}}
    assert [(row.path, row.part, row.group) for row in found.rows] == [
        ("BraTS20_Training_001", "all", 0),
        ("BraTS20_Training_002", "all", 1),
    ]


def test_a_patient_on_both_sides_leaks_and_a_patient_seen_twice_is_kept_together():
    found = audit(
        make_case("a_1", seed=1, patient="a", split="TrainingData"),
        make_case("a_2", seed=2, patient="a", split="ValidationData"),
        make_case("b_1", seed=3, patient="b", split="TrainingData"),
        make_case("b_2", seed=4, patient="b", split="TrainingData"),
    )
    leak = kinds(found)["one patient in two splits"]
    assert found.status == 1 and leak.files == (("a_1", "a_2"),)
    assert kinds(found)["one patient, several cases"].files == (("b_1", "b_2"),)
    assert [row.group for row in found.rows] == [0, 0, 1, 1]
    assert [row.part for row in found.rows] == ["left out", "Validation", "Training", "Training"]
    with pytest.raises(InputError, match="1 of 2 patients are on both sides"):
        stop_on_leak(found)


def test_an_image_under_two_patients_leaks_through_every_split_by_patient():
    found = audit(make_case("a", seed=1), make_case("b", seed=2), make_case("c", seed=1))
    leak = kinds(found)["copies across patients or splits"]
    assert found.status == 1 and leak.files == (("a", "c"),) and leak.details == ("t1, flair",)
    assert [row.group for row in found.rows] == [0, 1, 0]


def test_masks_sequences_and_grids():
    found = kinds(
        audit(
            make_case("whole", seed=1),
            make_case("empty", seed=2, tumour=0),
            make_case("bare", seed=3, tumour=None),
            make_case("lacking", seed=4, missing=("t1",), same=True),
            make_case("doubled", seed=5, same=True),
            make_case("short", seed=6, shape=(7, 8, 6)),
        )
    )
    assert found["empty masks"].files == (("empty",),)
    assert found["cases without mask"].files == (("bare",),)
    assert found["missing sequences"].files == (("lacking",),) and found["missing sequences"].details == (
        "t1",
    )
    assert found["one image, two modalities"].files == (("doubled",),)
    assert found["different shapes"].files == (("short",),) and found["different shapes"].details == (
        "7 x 8 x 6",
    )
    assert "different spacings" not in found
    assert found["empty masks"].severity == "warning" and found["different shapes"].severity == "note"


def test_a_set_without_any_mask_is_a_note():
    found = kinds(audit(make_case("a", seed=1, tumour=None), make_case("b", seed=2, tumour=None)))
    assert found["cases without mask"].severity == "note"


def test_a_bad_case_stops_or_is_listed():
    def refuse(case, modalities, mask):
        raise InputError(f"{ROOT / case.name}: expected four modalities, found three")

    bad = Case("bad", "bad", ("t1", "flair"), {}, refuse)
    with pytest.raises(InputError, match="three"):
        audit(make_case("a", seed=1), bad)
    found = audit(make_case("a", seed=1), bad, skip_bad=True)
    assert found.skipped == (("bad", "bad: expected four modalities, found three"),) and found.status == 0
    assert found.rows[-1].part == "left out"
    with pytest.raises(InputError, match="found none of 1"):
        audit(bad, skip_bad=True)


def test_patients_of_two_data_sets_are_recognised_by_their_name_in_tcga():
    lgg = [make_case("TCGA_CS_4941_19960909", seed=1, patient="TCGA_CS_4941"), make_case("x", seed=2)]
    brats = [
        make_case("BraTS20_Training_300", seed=3, facts={"tcga": "TCGA-CS-4941"}),
        make_case("y", seed=4),
    ]
    assert find_shared_patients(lgg, brats) == (
        ("TCGA_CS_4941", "TCGA_CS_4941_19960909", "BraTS20_Training_300"),
    )


def test_the_picture_of_a_case_shows_the_largest_slice_of_tumour_front_up():
    def read(case, modalities, mask):
        image, labels = np.zeros((7, 8, 9), np.float32), np.zeros((7, 8, 9), np.uint8)
        image[1, 6, 4] = image[5, 6, 4] = image[1, 2, 4] = 10  # towards the left and the front
        labels[1:3, 5:7, 4] = 4
        return Volume({"flair": image}, labels)

    pixels = np.asarray(show_case({"a": Case("a", "a", ("flair",), {}, read)}, "a"))
    assert pixels.shape == (8, 7)
    assert set(zip(*np.nonzero(pixels), strict=True)) == {(1, 1), (1, 5), (5, 1)}
    assert show_case({}, "b") is None


def test_report_of_cases(tmp_path):
    cases = [make_case("a", seed=1), make_case("b", seed=1), make_case("c", seed=2)]
    found = audit(*cases)
    by_name = {case.name: case for case in cases}
    page = write_report(found, tmp_path / "out", lambda name: show_case(by_name, name)).read_text()
    assert page.count("data:image/jpeg") == 2 and "copies across patients or splits" in page


def test_real_low_grade_gliomas(real_data, tmp_path, capsys):
    assert cli.main(["data", "audit", str(real_data / "kaggle_3m"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "21 cases read" in said and "LEAK" not in said
