"""Model files: bit-equal output for every architecture, plain Keras opens them, bad files are refused."""

import dataclasses
import io
import json
import zipfile

import keras
import numpy as np
import pytest

from fedutils.data.volume_recipes import Recipe
from fedutils.errors import InputError
from fedutils.model_file import load_model, save_model
from fedutils.model_info import ModelInfo, make_card
from fedutils.models.classification import build_cnn, build_separable_cnn
from fedutils.models.mobilenet import build_mobilenet_v3
from fedutils.models.unet import build_attention_unet, build_unet
from fedutils.models.unet_plus_plus import build_unet_plus_plus, prune_unet_plus_plus

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def classifier_info(**changes):
    values = {
        "title": "Four classes of brain MR slices",
        "task": "classification",
        "architecture": "tiny",
        "outputs": CLASSES,
        "modalities": ("grey",),
        "size": (32, 32),
        "preprocessing": "grey",
        "temperature": 1.5,
        "trained_on": {"data": "made", "num_images": 7, "seeds": [0, 1]},
        "metrics": {"accuracy": [0.91, 0.88, 0.94], "auc": 0.5},
        "terms": "Made for a test.",
        "limits": ("It knows nothing.",),
    }
    return ModelInfo(**(values | changes))


def segmentation_info(size=(16, 16), channels=3, outputs=("WT",), **changes):
    volume = len(size) == 3
    values = {
        "title": "Tumours",
        "task": "segmentation",
        "architecture": "tiny",
        "outputs": outputs,
        "modalities": ("pre", "flair", "post")[:channels],
        "size": size,
        "preprocessing": "volume" if volume else "slices",
        "recipe": dataclasses.asdict(Recipe(("flair",), shape=size)) if volume else {},
    }
    return ModelInfo(**(values | changes))


REGIONS = ("WT", "TC", "ET")
PLAIN = {"depth": 3, "width": 4, "seed": 3}
ARCHITECTURES = {
    "cnn": lambda: (build_cnn((32, 32, 1), 4, filters=(4, 6)), classifier_info()),
    "separable": lambda: (build_separable_cnn((32, 32, 1), 4, widths=(8, 16)), classifier_info()),
    "mobilenet": lambda: (
        build_mobilenet_v3((32, 32, 1), 4, attention="se+cbam", alpha=0.35),
        classifier_info(),
    ),
    "u-net": lambda: (build_unet((None, None, 3), 1, **PLAIN), segmentation_info()),
    "u-net, batch, linear": lambda: (
        build_unet((16, 16, 2), 3, normalisation="batch", upsampling="linear", **PLAIN),
        segmentation_info(channels=2, outputs=REGIONS),
    ),
    "u-net 3-D": lambda: (
        build_unet((8, 12, 16, 1), 3, normalisation="instance", **PLAIN),
        segmentation_info((8, 12, 16), 1, REGIONS),
    ),
    "attention u-net, deep supervision": lambda: (
        build_attention_unet((16, 16, 3), 1, deep_supervision=True, **PLAIN),
        segmentation_info(),
    ),
    "u-net++": lambda: (
        build_unet_plus_plus((16, 16, 3), 1, deep_supervision=True, upsampling="nearest", **PLAIN),
        segmentation_info(),
    ),
    "u-net++, pruned": lambda: (
        prune_unet_plus_plus(build_unet_plus_plus((16, 16, 3), 1, deep_supervision=True, **PLAIN), 1),
        segmentation_info(),
    ),
}


def predict(model, info):
    x = np.random.default_rng(1).random((2, *info.size, len(info.modalities)), np.float32)
    return [np.asarray(output) for output in keras.tree.flatten(model(x))]


@pytest.mark.parametrize("build", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_saved_and_loaded_the_output_is_bit_equal(tmp_path, build):
    model, info = build()
    path = tmp_path / "model.keras"
    save_model(path, model, info)
    loaded, told = load_model(path)
    assert told == info and loaded.name == model.name and loaded.output_names == model.output_names
    outputs = predict(model, info)
    assert all(np.array_equal(a, b) for a, b in zip(outputs, predict(loaded, info), strict=True))
    assert np.ptp(outputs[0]) > 0
    plain = keras.saving.load_model(path)  # as anyone opens it
    assert np.array_equal(predict(plain, info)[0], outputs[0])


def small():
    return build_cnn((32, 32, 1), 4, filters=(2, 2)), classifier_info()


def test_a_trained_model_is_saved_without_its_optimizer_in_the_same_bytes(tmp_path):
    model, info = small()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.ones((4, 32, 32, 1), np.float32), np.arange(4), verbose=0)
    save_model(tmp_path / "one.keras", model, info)
    save_model(tmp_path / "one.keras", model, info)  # takes the place of the first
    save_model(tmp_path / "two.keras", model, info)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    assert model.optimizer is not None
    loaded, _ = load_model(tmp_path / "one.keras")
    assert not loaded.compiled and np.array_equal(predict(loaded, info)[0], predict(model, info)[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.keras", "one.md", "two.keras", "two.md"]
    with zipfile.ZipFile(tmp_path / "one.keras") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert json.loads(archive.read("metadata.json"))["date_saved"].startswith("1980")
        assert b"adam" not in archive.read("config.json")
        assert json.loads(archive.read("fedutils.json"))["temperature"] == 1.5


def test_a_model_of_more_than_10_mb_is_refused_and_nothing_is_written(tmp_path):
    model = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Flatten()])
    kernel = keras.initializers.RandomUniform(seed=1)
    for width in (3200, 4):
        model.add(keras.layers.Dense(width, kernel_initializer=kernel))
    with pytest.raises(InputError, match=r"at most 10 MB, found 1\d\.\d MB for 3,292,804 parameters; build"):
        save_model(tmp_path / "large.keras", model, classifier_info())
    assert not list(tmp_path.iterdir())


class Own(keras.Model):
    pass


def test_what_is_not_saved(tmp_path):
    model, info = small()
    with pytest.raises(InputError, match=r"ends in \.keras, found 'model\.h5'"):
        save_model(tmp_path / "model.h5", model, info)
    with pytest.raises(
        InputError, match=r"images 64x64 with 1 channels \(grey\), found input \(None, 32, 32"
    ):
        save_model(tmp_path / "model.keras", model, classifier_info(size=(64, 64)))
    with pytest.raises(InputError, match=r"with 2 outputs \(a, b\), found output \(None, 4\)"):
        save_model(tmp_path / "model.keras", model, classifier_info(outputs=("a", "b")))
    with pytest.raises(InputError, match="expected a model of Keras's functional interface, found Own"):
        save_model(tmp_path / "model.keras", Own(), info)
    weights = model.get_weights()
    weights[0][0] = np.nan
    model.set_weights(weights)
    with pytest.raises(
        InputError, match=r"expected finite weights, found NaN or infinity in conv2d.*/kernel"
    ):
        save_model(tmp_path / "model.keras", model, info)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "regression"}, "task: expected classification or segmentation, found 'regression'"),
        ({"preprocessing": "slices"}, "preprocessing: expected grey for classification, found 'slices'"),
        ({"size": (32,)}, r"size: expected 2 sides above 0, found \(32,\)"),
        ({"size": (32, 16)}, r"size: expected a square, found \(32, 16\)"),
        ({"outputs": "glioma"}, "outputs: expected a list, found 'glioma'"),
        ({"outputs": ()}, "outputs and modalities: expected at least one each"),
        ({"temperature": 0}, "temperature: expected a number above 0, found 0"),
        ({"threshold": (0.5, 0.5)}, r"threshold: expected 1 or 4 numbers from 0 to 1, found \(0\.5, 0\.5\)"),
        ({"metrics": [1]}, r"metrics: expected names with values, found \[1\]"),
        ({"metrics": {"auc": float("nan")}}, "metrics: expected plain, finite values"),
        ({"metrics": {"auc": {1}}}, "metrics: expected plain, finite values"),
    ],
)
def test_an_info_that_is_wrong(changes, words):
    with pytest.raises(InputError, match=f"model info, {words}"):
        classifier_info(**changes)


def test_an_info_of_a_segmentation_that_is_wrong():
    with pytest.raises(InputError, match=r"outputs: expected WT, TC, ET, or WT alone, found \('ET',\)"):
        segmentation_info(outputs=("ET",))
    with pytest.raises(InputError, match="recipe: expected the fields of the Recipe"):
        segmentation_info((8, 8, 8), 1, recipe={})


def write_changed(path, change):
    """Write a good file with its entries changed, and return its path."""
    save_model(path, *small())
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())
    return path


def change_info(**changes):
    def change(entries):
        record = json.loads(entries["fedutils.json"]) | changes
        record = {name: value for name, value in record.items() if value != "gone"}
        entries["fedutils.json"] = json.dumps(record)

    return change


def replace(name, old, new):
    def change(entries):
        assert old in entries[name]
        entries[name] = entries[name].replace(old, new)

    return change


def put(name, data):
    return lambda entries: entries.update({name: data})


REFUSED = {
    "no info": (
        lambda e: e.pop("fedutils.json"),
        r"found a Keras file without fedutils\.json; describe it by",
    ),
    "no model": (lambda e: e.pop("config.json"), r"found an archive without config\.json; use a file that"),
    "info no JSON": (put("fedutils.json", "{"), r"expected a readable fedutils\.json, found: Expecting"),
    "info no record": (put("fedutils.json", "[]"), "expected a model file of version 1, found version None"),
    "newer": (
        change_info(version=2),
        "expected a model file of version 1, found version 2; use the fedutils",
    ),
    "unknown field": (change_info(colour="red"), "found a difference in colour; write the file anew"),
    "missing field": (change_info(task="gone"), "found a difference in task; write the file anew"),
    "wrong value": (change_info(temperature=-1), "temperature: expected a number above 0, found -1"),
    "other model": (change_info(outputs=["a", "b"]), r"with 2 outputs \(a, b\), found output \(None, 4\)"),
    "config no JSON": (put("config.json", "{"), "expected a model's configuration, found: Expecting"),
    "Lambda": (
        replace("config.json", b'"Rescaling"', b'"Lambda"'),
        r"layers of Keras and fedutils only, found keras\.layers\.Lambda, which may run code; do not open",
    ),
    "foreign module": (
        replace("config.json", b'"keras.layers"', b'"os"'),
        r"expected layers of Keras and fedutils only, found os\.",
    ),
    "unknown layer": (
        replace("config.json", b'"Rescaling"', b'"Rescalling"'),
        r"expected a model that Keras .* can build, found: .*Rescalling",
    ),
    "no weights": (lambda e: e.pop("model.weights.h5"), "expected a model that Keras .* can build, found: "),
    "weights no HDF5": (put("model.weights.h5", b"no"), "expected a model that Keras .* can build, found: "),
    "bomb": (
        put("model.weights.h5", bytes(200_000_001)),
        "at most 200 MB unpacked, found 200 MB; use a file",
    ),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_refused(tmp_path, change, words):
    path = write_changed(tmp_path / "model.keras", change)
    with pytest.raises(InputError, match=words) as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


def test_what_is_no_model_file(tmp_path):
    with pytest.raises(InputError, match="expected a model file, found: No such file or directory; point"):
        load_model(tmp_path / "none.keras")
    with pytest.raises(InputError, match="expected a model file, found: Is a directory"):
        load_model(tmp_path)
    path = tmp_path / "model.keras"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"expected a \.keras file, which is a zip archive, found another"):
        load_model(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_or_damaged(tmp_path, kept):
    path = tmp_path / "model.keras"
    save_model(path, *small())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(InputError, match=r"expected a whole \.keras file, found one that is damaged or cut"):
        load_model(path)
    middle = int(0.5 * len(data))  # within the weights
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    with pytest.raises(InputError, match=r"expected a whole \.keras file, found one that is damaged or cut"):
        load_model(path)


def test_the_card_says_what_it_is_for_and_how_good(tmp_path):
    model, info = small()
    save_model(tmp_path / "brain_mri.keras", model, info)
    card = (tmp_path / "brain_mri.md").read_text()
    assert card == make_card(info, "brain_mri.keras")
    for words in (
        "# Four classes of brain MR slices",
        "**Not for clinical use",
        "fedutils predict --model brain_mri.keras IMAGE...",
        "glioma, meningioma, notumor, pituitary; softmax of the logits divided by 1.5",
        "| accuracy | 0.91 | 0.88 to 0.94 |",
        "| auc | 0.5 | – |",
        "* num_images: 7",
        "* seeds: 0, 1",
        "* It knows nothing.",
        "Made for a test.",
    ):
        assert words in card
    bare = make_card(segmentation_info((8, 8, 8), 1, flips=(0,), threshold=(0.4,), metrics={}), "x.keras")
    assert "CASE_FOLDER" in bare and "Not measured." in bare and "scaling z_score, shape 8, 8, 8" in bare
    assert "probability above 0.4" in bare and "mirror images along 0" in bare
