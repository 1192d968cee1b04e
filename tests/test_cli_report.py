"""``fedutils report``: a page for each picture or case, by models whose answers are known."""

import argparse
import dataclasses
import json

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

from fedutils.cli_report import add_commands
from fedutils.data.brain_mri import CLASSES
from fedutils.data.brats import list_brats
from fedutils.data.lgg import list_lgg
from fedutils.errors import InputError
from fedutils.model_file import save_model
from fedutils.model_info import NOT_CLINICAL
from fedutils.report import SECTIONS, Prose, compose
from fedutils.report_facts import Picture, parse_facts
from fedutils.report_pages import find_warnings, report_cases, report_images, write_report


def call(*arguments):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(["report", *map(str, arguments)])
    return options.call(options)


def read(folder, name):
    return parse_facts((folder / f"{name}.json").read_text())


@pytest.fixture
def classifier(tmp_path):
    model, info = make_classifier(temperature=2.0)
    save_model(tmp_path / "quarters.keras", model, info)
    return tmp_path / "quarters.keras"


def test_pictures_on_the_command_line(tmp_path, classifier, capsys):
    first = write_picture(tmp_path / "in" / "scan.png", 3)
    write_picture(tmp_path / "in" / "sub" / "Scan.png", 1)
    out = tmp_path / "reports"
    assert call("--model", classifier, tmp_path / "in", "--out", out, "--pdf") == 0
    printed, err = capsys.readouterr()
    sure = np.exp(4) / (np.exp(4) + 3)
    facts = read(out, "scan")
    assert facts.prediction == "pituitary" and facts.get("p_pituitary").value == pytest.approx(sure)
    assert (facts.kind, facts.subject, facts.sides) == ("image", first.name, ())
    assert facts.confidence == "moderate"  # 94.8 %
    assert facts.model["file"] == "quarters.keras" and facts.model["temperature"] == 2
    assert read(out, "Scan_2").prediction == "meningioma"  # a name of its own, even where case is ignored
    for suffix in ("html", "md", "json", "pdf"):
        assert (out / f"scan.{suffix}").stat().st_size > 500
    with Image.open(out / facts.pictures[0].path) as image:
        assert image.width > 500
    assert f"{out / 'scan.html'}: The model assigns this image to the class pituitary" in printed
    assert printed.endswith(f"{NOT_CLINICAL}\n") and not err
    assert "probability of 94.8 %" in (out / "scan.html").read_text()


def test_the_same_picture_gives_the_same_bytes(tmp_path, classifier, capsys):
    path = write_picture(tmp_path / "scan.png", 0)
    for name in ("a", "b"):
        call("--model", classifier, path, "--out", tmp_path / name, "--pdf")
    capsys.readouterr()
    made = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert made == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}
    assert set(made) == {"scan.html", "scan.json", "scan.md", "scan.pdf", "scan_gradcam.png"}


def test_reports_lie_with_the_other_output_by_default(tmp_path, classifier, capsys):
    hostile = write_picture(tmp_path / "<b>&'\n..;%00.png", 2)
    assert call("--model", classifier, hostile) == 0
    (page,) = (tmp_path / "output" / "reports").glob("*.html")
    assert page.name == "b_00.html" and "<b>" not in page.read_text()
    assert "&lt;b&gt;&amp;&#x27;\ufffd..;%00.png" in page.read_text()
    assert "\n" not in capsys.readouterr().out.splitlines()[0]


def test_a_case_with_places_and_sizes(tmp_path, capsys):
    model, info = make_brats_segmenter()
    info = dataclasses.replace(info, metrics={"dice_wt": [0.9, 0.8, 0.95]})
    save_model(tmp_path / "brats.keras", model, info)
    write_brats(tmp_path / "data", mask=False)
    out = tmp_path / "out"
    assert call("--model", tmp_path / "brats.keras", tmp_path / "data", "--out", out) == 0
    facts = read(out, "BraTS21_001")
    texts = {m.name: m.text for m in facts.measures}
    # 80, 12 and 8 voxels of 3 mm³; 4 x 5 of 1.5 x 1 mm in a slice: from face to face 4 x 1.5 and 4 mm.
    assert texts["volume_wt"] == "0.2 ml" and texts["volume_et"] == "less than 0.1 ml"
    assert facts.get("diameter_wt").value == pytest.approx(np.hypot(4 * 1.5, 4))
    # The head has x = 1 to 8, so that its middle, 4.5, is that of the tumour.
    assert facts.sides == ("midline",) and facts.get("share_beyond").value == pytest.approx(0.5)
    assert facts.confidence == "high" and facts.warnings == ()
    caption = facts.pictures[0].caption
    assert "on FLAIR" in caption and "yellow enhancing" in caption and caption.endswith("on the left.")
    assert "BraTS21_001.html: The model outlined 0.2 ml as tumour, at the midline" in capsys.readouterr().out


def test_the_side_is_that_of_the_patient(tmp_path):
    folder = write_lgg(tmp_path, masks=False)
    for path in folder.glob("*.tif"):
        pixels = np.array(Image.open(path))
        bright = pixels[..., 1] == 220
        pixels[bright] = 75
        # Columns 2 and 3 of 12: on the left of the picture, which shows the patient's right.
        pixels[5:9, 2:4, 1][bright.any() * np.ones((4, 2), bool)] = 220
        Image.fromarray(pixels).save(path)
    (case,) = list_lgg(tmp_path)
    model, info = make_segmenter(limits=(1.5,))
    ((path, facts, prose),) = report_cases(model, info, [case], tmp_path / "out", progress=False)
    assert facts.subject == NAME and facts.sides == ("right",) and facts.confidence == "low"
    assert facts.get("volume_wt").text == "16 voxels" and facts.get("diameter_wt").unit == "voxels"
    assert "radiological convention is assumed" in prose.sections["limits"]
    assert "if the files follow radiological convention" in path.read_text()


def test_thick_slices_and_missing_sequences_are_named(tmp_path):
    folder = write_lgg(tmp_path, masks=False)
    for path in folder.glob("*.tif"):
        pixels = np.array(Image.open(path))
        pixels[..., 2] = pixels[..., 1]  # as the authors filled what a patient lacks
        Image.fromarray(pixels).save(path)
    ((_, facts, _),) = report_cases(
        *make_segmenter(), list_lgg(tmp_path), tmp_path / "out", progress=False, write=compose
    )
    assert facts.warnings == ("Without post: the model was given zeros there.",)
    write_brats(tmp_path / "brats")
    import nibabel as nib

    for path in (tmp_path / "brats").rglob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 2.5, 1])), path)
    ((_, facts, _),) = report_cases(
        *make_brats_segmenter(), list_brats(tmp_path / "brats"), tmp_path / "out", progress=False
    )
    assert facts.warnings == ("Voxels are up to 5.0 mm long: sizes are coarse.",)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (lambda grid: grid, ()),
        (lambda grid: grid[:12, :12], ("The picture is small, 12 x 12 pixels, and was enlarged.",)),
        (lambda grid: grid[:, :8], ("The picture is 2.5 times as long as it is wide.",)),
        (lambda grid: 100 + grid // 10, ("Contrast is low: grey values deviate by 5.8 of 255.",)),
        (
            lambda grid: np.where(grid > 180, 90, 0),
            ("The picture is dark: its mean grey value is 9 of 255.",),
        ),
        (lambda grid: 255 - grid // 2, ("The picture is bright: its mean grey value is 206 of 255.",)),
    ],
)
def test_what_is_odd_about_a_picture(tmp_path, pixels, words):
    grid = np.arange(400).reshape(20, 20) // 2  # 0 to 199: mean 99.5, deviation 57.7
    Image.fromarray(pixels(grid).astype(np.uint8)).save(tmp_path / "a.png")
    assert find_warnings(tmp_path / "a.png", 16) == words


def test_a_coloured_picture_lowers_the_confidence(tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    pixels = np.stack([np.array(Image.open(path))] * 3, axis=-1)
    pixels[12:, :3] = (200, 0, 0)  # 12 of 256 pixels
    Image.fromarray(pixels).save(path)
    model, info = make_classifier(temperature=1.1)
    ((_, facts, _),) = report_images(model, info, [path], tmp_path / "out")
    assert facts.warnings == ("5 % of the picture is coloured.",) and facts.confidence == "moderate"


def test_the_prose_may_come_from_elsewhere(tmp_path):
    path = write_picture(tmp_path / "a.png", 1)
    prose = Prose(dict.fromkeys(SECTIONS, "Other words."), "language model tiny")
    ((page, _, told),) = report_images(
        *make_classifier(), [path], tmp_path / "out", write=lambda facts: prose
    )
    assert told is prose and "Other words." in page.read_text() and "language model tiny" in page.read_text()


def test_a_language_model_that_does_not_answer_is_named(tmp_path, classifier, capsys):
    path = write_picture(tmp_path / "a.png", 1)
    # Nothing listens on port 9, discard.
    assert call("--model", classifier, path, "--out", tmp_path / "o", "--llm", "http://127.0.0.1:9") == 0
    assert "the rules wrote it: the language model did not answer" in capsys.readouterr().out
    assert "Words by rules, not by the language model" in (tmp_path / "o" / "a.html").read_text()


def test_what_the_command_refuses(tmp_path, classifier):
    picture = write_picture(tmp_path / "a.png", 1)
    for arguments, words in (
        ((classifier, tmp_path / "none.png"), "none.png: expected an image or a folder, found nothing"),
        ((tmp_path / "no.keras", picture), "expected a model file, found: No such file"),
        ((classifier, picture, "--llm-model", "x"), "--llm: expected a URL beside --llm-model"),
        ((classifier, picture, "--llm", "http://192.0.2.1:80"), "expected an address of this machine"),
    ):
        with pytest.raises(InputError) as caught:
            call("--model", *arguments)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "output").exists()


def test_models_of_the_other_task_are_refused(tmp_path):
    for make, model in ((report_images, make_segmenter()), (report_cases, make_classifier())):
        with pytest.raises(InputError, match="model: expected one for"):
            list(make(*model, [], tmp_path))


def test_a_report_without_its_picture_is_not_written(tmp_path):
    ((_, facts, prose),) = report_images(
        *make_classifier(), [write_picture(tmp_path / "a.png", 1)], tmp_path / "out"
    )
    lost = dataclasses.replace(facts, pictures=(Picture("lost.png", "Lost"),))
    with pytest.raises(InputError, match=r"lost.png: expected the report's picture"):
        write_report(lost, prose, tmp_path / "elsewhere", "a")
    assert not (tmp_path / "elsewhere").exists()


def test_facts_as_a_file_are_plain_json(tmp_path, classifier, capsys):
    call("--model", classifier, write_picture(tmp_path / "a.png", 1), "--out", tmp_path)
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["not_clinical"] == NOT_CLINICAL and record["classes"] == [*CLASSES]
