"""``fedutils predict``: classes of images and tumours of cases, by models whose answers are known."""

import json
import subprocess
import sys

import keras
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedutils.cli import main
from fedutils.data.brain_mri import CLASSES
from fedutils.data.brats import list_brats
from fedutils.data.lgg import list_lgg
from fedutils.data.regions import REGIONS
from fedutils.errors import InputError
from fedutils.model_file import save_model
from fedutils.model_info import ModelInfo
from fedutils.predict import find_images, measure, predict_case, predict_images, read_picture, write_mask

SIDE = 16
NAME = "TCGA_CS_4941_19960909"


def make_classifier(temperature=1.0, size=SIDE):
    """Return a model whose logits are 8 times the mean of a quarter of the picture each."""
    inputs = keras.Input((size, size, 1))
    x = keras.layers.AveragePooling2D(size // 2)(inputs)
    outputs = keras.layers.Rescaling(8.0)(keras.layers.Flatten()(x))
    info = ModelInfo(
        title="Quarters",
        task="classification",
        architecture="pooling",
        outputs=CLASSES,
        modalities=("grey",),
        size=(size, size),
        preprocessing="grey",
        temperature=temperature,
    )
    return keras.Model(inputs, outputs), info


def make_segmenter(size=SIDE, modalities=("pre", "flair", "post"), outputs=("WT",), limits=(1.0,), **changes):
    """Return a model whose logits are 20 (flair - limit), a limit for each region."""
    rank = 3 if changes.get("preprocessing") == "volume" else 2
    inputs = keras.Input((*[None] * rank, len(modalities)))
    conv = getattr(keras.layers, f"Conv{rank}D")(len(outputs), 1)
    model = keras.Model(inputs, conv(inputs))
    kernel = np.zeros((*[1] * rank, len(modalities), len(outputs)), np.float32)
    kernel[..., modalities.index("flair"), :] = 20
    model.set_weights([kernel, -20 * np.asarray(limits, np.float32)])
    values = {"preprocessing": "slices"} | changes
    info = ModelInfo(
        title="Bright in FLAIR",
        task="segmentation",
        architecture="threshold",
        outputs=outputs,
        modalities=modalities,
        size=(size,) * rank,
        **values,
    )
    return model, info


def write_picture(path, quarter, side=SIDE):
    """Write a picture whose given quarter is white."""
    pixels = np.zeros((side, side), np.uint8)
    row, column = divmod(quarter, 2)
    half = side // 2
    pixels[row * half :, column * half :][:half, :half] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def tumour_of(number, rows=SIDE, columns=12):
    tumour = np.zeros((rows, columns), bool)
    if number in (2, 3):
        tumour[5 : 7 + number, 4:8] = True
    return tumour


def write_lgg(root, name=NAME, *, masks=True):
    """Write a case whose tumour is the bright part of FLAIR; three slices of 16 x 12 pixels."""
    folder = root / name
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 3, (SIDE, 12, 3), np.uint8)
        pixels[2:14, 1:11] = rng.integers(60, 90, (12, 10, 3), np.uint8)
        pixels[..., 1][tumour_of(number)] = 220
        Image.fromarray(pixels).save(folder / f"{name}_{number}.tif")
        if masks:
            mask = tumour_of(number).astype(np.uint8) * 255
            Image.fromarray(mask).save(folder / f"{name}_{number}_mask.tif")
    return folder


BRATS_SHAPE = (10, 12, 8)
AFFINE = np.array([[-1.5, 0, 0, 30], [0, -1, 0, 20], [0, 0, 2, 5], [0, 0, 0, 1]], np.float64)


def write_brats(root, name="BraTS21_001", *, modalities=("t1", "t1ce", "t2", "flair"), mask=True):
    """Write a case with 200, 300 and 400 in FLAIR where it is oedema, core and enhancing; voxels of 3 mm³."""
    folder = root / name
    folder.mkdir(parents=True)
    labels = np.zeros(BRATS_SHAPE, np.uint8)
    labels[3:7, 3:8, 2:6] = 2
    labels[4:6, 4:7, 3:5] = 1
    labels[4:6, 4:6, 3:5] = 4
    for modality in modalities:
        image = np.zeros(BRATS_SHAPE, np.int16)
        image[1:9, 1:11, 1:7] = np.random.default_rng(7).integers(90, 110, (8, 10, 6))
        if modality == "flair":
            for label, value in ((2, 200), (1, 300), (4, 400)):
                image[labels == label] = value
        nib.save(nib.Nifti1Image(image, AFFINE), folder / f"{name}_{modality}.nii.gz")
    if mask:
        nib.save(nib.Nifti1Image(labels, AFFINE), folder / f"{name}_seg.nii.gz")
    return labels


def brats_limits():
    """Return z-scores between the steps of FLAIR."""
    values = np.concatenate([np.full(480 - 80, 100), np.full(80 - 12, 200), np.full(4, 300), np.full(8, 400)])
    return [(limit - values.mean()) / values.std() for limit in (150, 250, 350)]


def make_brats_segmenter(**changes):
    modalities = ("t1", "flair")
    return make_segmenter(12, modalities, REGIONS, brats_limits(), **changes)


def test_probabilities_of_pictures_by_hand(tmp_path):
    model, info = make_classifier(temperature=2.0)
    paths = [write_picture(tmp_path / f"{quarter}.png", quarter) for quarter in (2, 0)]
    probabilities = predict_images(model, info, paths)
    sure = np.exp(8 / 2) / (np.exp(8 / 2) + 3)
    assert probabilities.shape == (2, 4) and probabilities.argmax(axis=1).tolist() == [2, 0]
    assert np.allclose(probabilities.max(axis=1), sure) and np.allclose(probabilities.sum(axis=1), 1)


def test_pictures_are_found_in_folders_and_below(tmp_path):
    for name in ("b.jpg", "a.PNG", "sub/c.tif", ".hidden.png", "notes.txt"):
        write_picture(tmp_path / "in" / name, 0) if not name.endswith("txt") else None
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    found = find_images([tmp_path / "in" / "sub" / "c.tif", tmp_path / "in"])
    assert [path.name for path in found] == ["c.tif", "a.PNG", "b.jpg", "c.tif"]


def test_the_commands_print_lines_or_json(tmp_path, capsys):
    save_model(tmp_path / "model.keras", *make_classifier())
    path = write_picture(tmp_path / "in" / "scan.png", 3)
    assert main(["predict", "--model", str(tmp_path / "model.keras"), str(tmp_path / "in")]) == 0
    out, err = capsys.readouterr()
    assert f"{path}: pituitary, probability 0.999\n" in out and "Not for clinical use" in out and not err
    assert main(["predict", "--model", str(tmp_path / "model.keras"), str(path), "--json"]) == 0
    ((record,), err) = (json.loads((read := capsys.readouterr()).out), read.err)
    assert record["input"] == str(path) and record["class"] == "pituitary" and not err
    assert record["probability"] == record["p_pituitary"] == pytest.approx(np.exp(8) / (np.exp(8) + 3))


def test_nothing_but_the_answer_is_printed(tmp_path):
    save_model(tmp_path / "model.keras", *make_classifier())
    path = write_picture(tmp_path / "scan.png", 3)
    command = [sys.executable, "-m", "fedutils.cli", "predict", "--model", str(tmp_path / "model.keras")]
    done = subprocess.run([*command, str(path), "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and json.loads(done.stdout)[0]["class"] == "pituitary"


def test_a_case_of_kaggle_3m_and_its_mask(tmp_path):
    folder = write_lgg(tmp_path / "data", masks=False)
    (case,) = list_lgg(folder)
    model, info = make_segmenter()
    found = predict_case(model, info, case, progress=False)
    assert found.labels.shape == (12, SIDE, 3) and found.labels.dtype == np.uint8 and found.affine is None
    voxels = 4 * 4 + 5 * 4  # rows 5 to 8 and 5 to 9, columns 4 to 7
    assert measure(found, info.outputs) == ({"WT": voxels}, "voxels")
    written = write_mask(found, tmp_path / "out")
    assert written == tmp_path / "out" / NAME
    for number in (1, 2, 3):
        with Image.open(written / f"{NAME}_{number}_mask.tif") as image:
            assert image.mode == "L" and np.array_equal(np.asarray(image) == 255, tumour_of(number))


@pytest.mark.parametrize(("flips", "voxels"), [((), 36), ((1,), 18)])
def test_mirrored_images_have_a_vote(tmp_path, flips, voxels):
    write_lgg(tmp_path)
    model, info = make_segmenter(flips=flips, threshold=(0.6,))
    inputs = keras.Input((None, None, 3))
    neighbour = keras.layers.Conv2D(1, (1, 3), padding="same")
    shifted = keras.Model(inputs, neighbour(inputs))
    kernel, bias = model.get_weights()
    shifted.set_weights([kernel * np.array([1, 0, 0], np.float32)[:, np.newaxis, np.newaxis], bias])
    # Each pixel is judged by its left neighbour, mirrored by its right one: of four columns two agree.
    (case,) = list_lgg(tmp_path)
    found = predict_case(shifted, info, case, progress=False)
    assert measure(found, info.outputs)[0] == {"WT": voxels}


@pytest.mark.parametrize("kind", ["slices", "volume"])
def test_a_brats_case_its_volumes_and_its_mask(tmp_path, kind):
    labels = write_brats(tmp_path, mask=False)
    (case,) = list_brats(tmp_path)
    recipe = {"modalities": ["t1", "flair"], "foreground": True} if kind == "volume" else {}
    model, info = make_brats_segmenter(preprocessing=kind, recipe=recipe)
    found = predict_case(model, info, case, progress=False)
    volumes, unit = measure(found, info.outputs)
    # 80 voxels of tumour, 12 of core and 8 that enhance, of 3 mm³.
    assert unit == "ml" and volumes == pytest.approx({"WT": 0.24, "TC": 0.036, "ET": 0.024})
    path = write_mask(found, tmp_path / "out")
    assert path.name == "BraTS21_001_seg.nii.gz"
    image = nib.as_closest_canonical(nib.load(path))
    expected = nib.as_closest_canonical(nib.Nifti1Image(labels, AFFINE))
    assert np.array_equal(image.get_fdata(), expected.get_fdata()) and np.allclose(
        image.affine, expected.affine
    )
    first = path.read_bytes()
    assert write_mask(found, tmp_path / "out").read_bytes() == first


def test_small_components_are_removed(tmp_path):
    write_brats(tmp_path)
    (case,) = list_brats(tmp_path)
    model, info = make_brats_segmenter(smallest=(0, 0, 25))  # mm³; what enhances has 24
    volumes, _ = measure(predict_case(model, info, case, progress=False), info.outputs)
    assert volumes == pytest.approx({"WT": 0.24, "TC": 0.036, "ET": 0})


def test_cases_on_the_command_line(tmp_path, capsys):
    save_model(tmp_path / "lgg.keras", *make_segmenter())
    save_model(tmp_path / "brats.keras", *make_brats_segmenter())
    lgg, brats = write_lgg(tmp_path / "kaggle_3m"), tmp_path / "brats"
    write_brats(brats)
    out = tmp_path / "out"
    assert (
        main(["predict", "--model", str(tmp_path / "lgg.keras"), str(lgg), "--json", "--out", str(out)]) == 0
    )
    assert json.loads(capsys.readouterr().out) == [{"input": NAME, "wt_voxels": 36, "mask": str(out / NAME)}]
    assert main(["predict", "--model", str(tmp_path / "brats.keras"), str(brats)]) == 0
    assert "BraTS21_001: WT 0.2 ml, TC 0.0 ml, ET 0.0 ml\nNot for clinical" in capsys.readouterr().out


def refuse(model, *inputs, words, capsys):
    assert main(["predict", "--model", str(model), *map(str, inputs)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1
    assert words in err, err


def test_inputs_that_a_classifier_refuses(tmp_path, capsys):
    model = tmp_path / "model.keras"
    save_model(model, *make_classifier())
    picture, case = write_picture(tmp_path / "one.png", 1), write_lgg(tmp_path / "kaggle_3m")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "torn.png").write_bytes(picture.read_bytes()[:40])
    Image.new("L", (20, 20), 7).save(tmp_path / "flat.png")
    colours = np.zeros((20, 20, 3), np.uint8)
    colours[:8] = (200, 40, 90)
    Image.fromarray(colours).save(tmp_path / "photo.png")
    frames = [Image.fromarray(np.eye(9, dtype=np.uint8) * i) for i in (9, 99)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    for name, words in {
        "none.png": "none.png: expected an image or a folder, found nothing",
        "empty": "empty: expected images (.jpeg, .jpg, .png, .tif, .tiff), found none",
        "notes.txt": "notes.txt: expected an image (.jpeg",
        "torn.png": "torn.png: expected a readable image, found: ",
        "flat.png": "flat.png: expected a picture, found one grey value throughout",
        "photo.png": "photo.png: expected a grey MR slice, found a picture of which 40% is coloured",
        "stack.tif": "stack.tif: expected one picture, found a stack of 2",
    }.items():
        refuse(model, tmp_path / name, words=words, capsys=capsys)
    refuse(model, case, words="expected images of one slice each, found a case of kaggle_3m", capsys=capsys)
    refuse(model, picture, "--out", tmp_path / "x", words="--out: expected a model for segm", capsys=capsys)
    refuse(tmp_path / "no.keras", picture, words="expected a model file, found: No such file", capsys=capsys)


def test_inputs_that_a_segmentation_refuses(tmp_path, capsys):
    model = tmp_path / "model.keras"
    save_model(model, *make_segmenter())
    picture = write_picture(tmp_path / "pictures" / "one.png", 1)
    write_brats(tmp_path / "brats")
    write_brats(tmp_path / "three", "BraTS21_002", modalities=("t1", "t2", "flair"))
    words = "one.png: expected the folder of a case (kaggle_3m or BraTS), found a file"
    refuse(model, picture, words=words, capsys=capsys)
    refuse(model, tmp_path / "pictures", words="pictures: expected brain_mri (", capsys=capsys)
    words = "BraTS21_001: expected the modalities pre, flair, post, found no pre, post among t1"
    refuse(model, tmp_path / "brats", words=words, capsys=capsys)
    refuse(
        model, tmp_path / "three", words="expected one t1ce, BraTS21_002_t1ce.nii.gz, found", capsys=capsys
    )
    refuse(model, tmp_path / "none", words="none: expected a folder", capsys=capsys)


def test_a_model_of_the_other_task(tmp_path):
    with pytest.raises(InputError, match="expected one for classification, found 'Bright in FLAIR'"):
        predict_images(*make_segmenter(), [])
    write_lgg(tmp_path)
    with pytest.raises(InputError, match="expected one for segmentation, found 'Quarters' for class"):
        predict_case(*make_classifier(), list_lgg(tmp_path)[0])


def test_a_grey_picture_of_any_mode_is_taken(tmp_path):
    pixels = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24)
    for mode, array in (("L", (pixels // 2).astype(np.uint8)), ("I;16", pixels * 100)):
        Image.fromarray(array).save(tmp_path / f"{mode[0]}.png")
    Image.fromarray((pixels // 2).astype(np.uint8)).convert("RGB").save(tmp_path / "rgb.png")
    grey = read_picture(tmp_path / "L.png", 12)
    assert grey.shape == (12, 12, 1) and np.array_equal(read_picture(tmp_path / "rgb.png", 12), grey)
    assert np.allclose(read_picture(tmp_path / "I.png", 12), grey, atol=0.02)
