"""``fedutils evaluate``: flat records of both tasks, by models whose score is known."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_predict import (
    NAME,
    make_brats_segmenter,
    make_classifier,
    make_segmenter,
    write_brats,
    write_lgg,
    write_picture,
)

from fedutils.cli import main
from fedutils.data.brain_mri import CLASSES
from fedutils.errors import InputError
from fedutils.evaluate import evaluate_folder, format_table
from fedutils.model_file import save_model

OTHER = "TCGA_DU_5849_19950405"


@pytest.fixture
def pictures(tmp_path):
    """Write pictures whose white quarter is their class, but for one of the eight test images."""
    root = tmp_path / "pictures"
    for split, count in (("Training", 3), ("Testing", 2)):
        for label, name in enumerate(CLASSES):
            for i in range(count):
                wrong = split == "Testing" and label == 1 and i == 0
                write_picture(root / split / name / f"{i}.png", 3 if wrong else label, side=16)
    return root


def run(arguments, capsys):
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert not any(isinstance(value, dict | list) for value in record.values())
    return record, err


def test_images_of_each_split(tmp_path, pictures, capsys):
    save_model(tmp_path / "model.keras", *make_classifier())
    arguments = ["--model", tmp_path / "model.keras", "--data", pictures]
    testing, _ = run(arguments, capsys)
    assert testing["n"] == 8 and testing["accuracy"] == 7 / 8 and testing["split"] == "testing"
    assert 0 < testing["accuracy_low"] < 7 / 8 < testing["accuracy_high"] <= 1
    assert testing["recall_meningioma"] == 0.5 and testing["n_meningioma"] == 2
    # Of four classes, two have F1 1, meningioma 2/3 and pituitary (one false alarm among three) 4/5.
    assert testing["f1"] == pytest.approx((1 + 1 + 2 / 3 + 4 / 5) / 4)
    sure = np.exp(8) / (np.exp(8) + 3)
    assert testing["ece"] == pytest.approx(sure - 7 / 8, abs=1e-4) and testing["auc"] < 1
    assert run([*arguments, "--split", "training"], capsys)[0]["accuracy"] == 1
    assert run([*arguments, "--split", "all"], capsys)[0]["n"] == 20
    inner = ["--model", tmp_path / "model.keras", "--data", pictures / "Training"]
    assert run(inner, capsys)[0]["n"] == 12
    outer = ["--model", tmp_path / "model.keras", "--data", tmp_path]
    assert run(outer, capsys)[0]["accuracy"] == 7 / 8


def test_a_folder_with_only_testing_and_one_with_only_training(pictures):
    model, info = make_classifier()
    shutil.move(pictures / "Training", pictures.parent / "other" / "Training")
    record = evaluate_folder(model, info, pictures, progress=False)
    assert record["n"] == 8
    assert evaluate_folder(model, info, pictures, split="all", progress=False)["n"] == 8
    with pytest.raises(InputError, match="expected the folder Testing, found only Training; add --split tr"):
        evaluate_folder(model, info, pictures.parent / "other", progress=False)


def test_the_temperature_changes_how_sure_it_is_not_how_right(pictures):
    cold, warm = (
        evaluate_folder(*make_classifier(t), pictures, split="testing", progress=False) for t in (1.0, 4.0)
    )
    assert cold["accuracy"] == warm["accuracy"] and cold["f1"] == warm["f1"]
    # With one wrong of eight, it is sure at exp(2) / (exp(2) + 3) = 0.711.
    assert warm["ece"] == pytest.approx(7 / 8 - 0.7112, abs=1e-3)


def test_a_bad_image_stops_or_is_counted(tmp_path, pictures, capsys):
    save_model(tmp_path / "model.keras", *make_classifier())
    (pictures / "Testing" / "glioma" / "0.png").write_bytes(b"no")
    arguments = ["--model", tmp_path / "model.keras", "--data", pictures]
    assert main(["evaluate", *map(str, arguments)]) == 2
    assert "0.png: expected a readable image" in capsys.readouterr().err
    record, _ = run([*arguments, "--skip-bad"], capsys)
    assert record["n"] == 7 and record["skipped"] == 1


def test_cases_of_kaggle_3m(tmp_path, capsys):
    root = tmp_path / "kaggle_3m"
    write_lgg(root)
    folder = write_lgg(root, OTHER)
    # The second truth has 18 voxels of the 36 that are found, those of slice 3 less a corner.
    Image.new("L", (12, 16)).save(folder / f"{OTHER}_2_mask.tif")
    mask = np.zeros((16, 12), np.uint8)
    mask[5:10, 4:8] = 255
    mask[5, 4:6] = 0
    Image.fromarray(mask).save(folder / f"{OTHER}_3_mask.tif")
    save_model(tmp_path / "lgg.keras", *make_segmenter())
    record, _ = run(["--model", tmp_path / "lgg.keras", "--data", root], capsys)
    second = 2 * 18 / (36 + 18)
    assert record["n"] == record["n_patients"] == 2 and record["skipped"] == 0
    assert record["dice"] == record["dice_wt"] == pytest.approx((1 + second) / 2)
    assert record["dice_low"] == pytest.approx(second) and record["dice_high"] == 1
    # Of 36 found voxels, all at the surface, 18 are true, 16 lie a side and 2 a diagonal from the truth: at
    # rank 0.95 * 35 = 33.25, a quarter of the way from the last 1 to the first sqrt(2).
    assert record["hd95_voxels"] == pytest.approx((0 + 1 + (2**0.5 - 1) / 4) / 2) and "hd95_mm" not in record
    assert record["sensitivity_wt"] == 1 and 0 < record["specificity"] < 1


@pytest.mark.parametrize("kind", ["slices", "volume"])
def test_cases_of_brats_and_the_table(tmp_path, capsys, kind):
    write_brats(tmp_path / "brats")
    recipe = {"modalities": ["t1", "flair"]} if kind == "volume" else {}
    save_model(tmp_path / "model.keras", *make_brats_segmenter(preprocessing=kind, recipe=recipe))
    arguments = ["--model", tmp_path / "model.keras", "--data", tmp_path / "brats"]
    record, _ = run(arguments, capsys)
    for name in ("dice", "dice_wt", "dice_tc", "dice_et"):
        assert record[name] == 1
    assert record["hd95_mm"] == record["hd95_mm_et"] == 0 and record["dice_low"] is None
    assert main(["evaluate", *map(str, arguments)]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("Bright in FLAIR\n") and "Not for clinical use" in out
    assert "dice_et                  1.0000\n" in out and "{" not in out


def test_the_mean_over_regions_and_an_empty_region(tmp_path):
    write_brats(tmp_path)
    model, info = make_brats_segmenter(smallest=(0, 0, 25))  # what enhances is removed: found nowhere
    record = evaluate_folder(model, info, tmp_path, progress=False)
    assert record["dice_et"] == 0 and record["dice"] == pytest.approx(2 / 3)
    # The diagonal of 10 x 12 x 8 voxels of 1.5 x 1 x 2 mm: sqrt(225 + 144 + 256) = 25.
    assert record["hd95_mm_et"] == pytest.approx(25) and record["hd95_mm"] == pytest.approx(25 / 3)


def test_a_table_shows_intervals_and_what_is_undefined():
    record = {"n": 3, "accuracy": 0.5, "accuracy_low": 0.25, "accuracy_high": 0.75, "auc": None}
    lines = format_table(record).splitlines()
    assert lines == [f"{'n':24} 3", f"{'accuracy':24} 0.5000  [0.2500, 0.7500]", f"{'auc':24} undefined"]


def test_what_is_refused(tmp_path, pictures):
    classifier, segmenter = make_classifier(), make_segmenter()
    write_lgg(tmp_path / "kaggle_3m")
    write_lgg(tmp_path / "bare", masks=False)
    write_brats(tmp_path / "brats")

    def refuse(model, folder, words, **options):
        with pytest.raises(InputError, match=words) as caught:
            evaluate_folder(*model, folder, progress=False, **options)
        assert "\n" not in str(caught.value)

    refuse(segmenter, pictures, "expected one for classification, found 'Bright in FLAIR' for segmentation")
    refuse(classifier, tmp_path / "kaggle_3m", "expected one for segmentation, found 'Quarters'")
    refuse(
        segmenter, tmp_path / "bare", "expected masks to compare with, found none in 1 cases; use fedutils"
    )
    refuse(segmenter, tmp_path / "kaggle_3m", "expected none for cases", split="testing")
    refuse(segmenter, tmp_path / "brats", "found no pre, post among t1")
    refuse(classifier, pictures, "split: expected training, testing, all, found 'odd'", split="odd")
    refuse(classifier, tmp_path, "expected one layout, found ")
    (tmp_path / "empty").mkdir()
    refuse(classifier, tmp_path / "empty", "found an empty folder")
    bare = make_classifier()[1].__class__(**(vars(classifier[1]) | {"outputs": ("a", "b", "c", "d")}))
    refuse(
        (classifier[0], bare),
        pictures,
        "expected the classes glioma, meningioma, notumor, pituitary, found a",
    )
    slices = tmp_path / "kaggle_3m" / NAME / f"{NAME}_2.tif"
    slices.write_bytes(b"no")
    refuse(
        segmenter, tmp_path / "kaggle_3m", "expected a case that can be measured, found none", skip_bad=True
    )
