"""Whole images and volumes: every voxel once, the weighting by hand, mirroring, regions, a whole case."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from fedutils.data.brats import list_brats
from fedutils.data.phantom import write_brats
from fedutils.data.volume_prepare import prepare_case
from fedutils.data.volume_recipes import Recipe
from fedutils.errors import InputError
from fedutils.inference import predict_classes, predict_slices, predict_volume, segment_case
from fedutils.models.classification import build_cnn
from fedutils.models.unet import build_unet

# isort: split
import keras


def make(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def build_identity(rank, channels=2):
    inputs = keras.Input((None,) * rank + (channels,))
    return keras.Model(inputs, keras.layers.Identity()(inputs), name="identity")


@functools.cache
def build_small(rank=2, outputs=3, **options):
    sides = options.pop("sides", (None,) * rank)
    return build_unet((*sides, 2), outputs, depth=3, width=4, normalisation="none", **options)


@keras.saving.register_keras_serializable(package="tests")
class AddRamp(keras.layers.Layer):
    """Adds to each voxel its number within the window: what is predicted depends on where the window lies."""

    def call(self, inputs):
        sides = inputs.shape[1:-1]
        return inputs + np.arange(np.prod(sides), dtype=np.float32).reshape(*sides, 1)


# Windows


@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [
        ((23, 17, 11, 2), (8, 6, 4), 0.5),
        ((23, 17, 11, 2), (9, 17, 5), 0.25),
        ((5, 17, 3, 2), (8, 6, 4), 0.6),  # two axes are shorter than the window
        ((23, 17, 2), (8, 6), 0.0),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_identity_gives_its_input(shape, window, overlap, batch_size):
    x = make(*shape)
    y = predict_volume(
        build_identity(len(window)),
        x,
        window=window,
        overlap=overlap,
        batch_size=batch_size,
        activation="none",
        flips=(0, len(window) - 1),
    )
    assert y.shape == x.shape and y.dtype == np.float32
    assert np.allclose(y, x, rtol=1e-6, atol=1e-6)


def test_a_voxel_is_the_weighted_mean_of_its_windows():
    inputs = keras.Input((6, 4, 8, 1))
    model = keras.Model(inputs, AddRamp()(inputs))
    x = make(11, 9, 8, 1)
    found = predict_volume(model, x, overlap=0.5, activation="none", batch_size=3)

    # The other way: a volume of sums and one of weights, in float64. The steps are 3, 2 and 4.
    gaussian = functools.reduce(
        np.multiply.outer,
        (np.exp(-0.5 * ((np.arange(w) - (w - 1) / 2) / (w / 8)) ** 2) for w in (6, 4, 8)),
    )
    ramp = np.arange(6 * 4 * 8).reshape(6, 4, 8)
    total, weights = np.zeros((2, 11, 9, 8))
    for i in (0, 2, 5):  # 5 voxels to go in 2 steps, 2.5 rounded to even
        for j in (0, 2, 3, 5):  # 5 voxels in 3 steps of 1.67; the last axis has one window
            total[i : i + 6, j : j + 4] += gaussian * (x[i : i + 6, j : j + 4, :, 0] + ramp)
            weights[i : i + 6, j : j + 4] += gaussian
    assert np.allclose(found[..., 0], total / weights, rtol=1e-5)
    assert found[0, 0, 0, 0] == pytest.approx(x[0, 0, 0, 0]), "only the first window sees the first voxel"


def test_windows_of_a_network_meet_without_a_seam():
    model, x = build_small(), make(64, 96, 2)
    whole = predict_volume(model, x)
    apart, overlapping = (
        np.abs(predict_volume(model, x, window=(32, 32), overlap=overlap) - whole).max()
        for overlap in (0, 0.75)
    )
    # At the edge of a window the network sees zeros in place of the image; there the Gaussian counts little.
    assert apart > 0.05 and overlapping < apart / 3


def test_sides_that_do_not_halve_are_padded():
    model, x = build_small(), make(13, 18, 2)
    padded = np.zeros((16, 20, 2), np.float32)
    padded[1:14, 1:19] = x  # 3 rows more: 1 above, 2 below
    expected = 1 / (1 + np.exp(-model.predict_on_batch(padded[None])[0].astype(np.float64)))
    found = predict_volume(model, x)
    assert found.shape == (13, 18, 3) and np.allclose(found, expected[1:14, 1:19], atol=1e-6)
    stack = predict_slices(model, np.stack([0 * x, x]), batch_size=1)
    assert stack.shape == (2, 13, 18, 3) and np.allclose(stack[1], found, atol=1e-6)


def test_a_model_of_fixed_size_has_its_own_window():
    model, x = build_small(sides=(16, 24)), make(20, 30, 2)
    assert np.array_equal(predict_volume(model, x), predict_volume(model, x, window=(16, 24)))
    small = x[:12, :20]
    assert np.allclose(predict_slices(model, small[None])[0], predict_volume(model, small), atol=1e-6)
    with pytest.raises(InputError, match=r"at most \(16, 24\) pixels, found \(20, 30\)"):
        predict_slices(model, x[None])


def test_of_several_outputs_the_first_is_the_prediction():
    model, x = build_small(3, deep_supervision=True), make(12, 8, 16, 2)
    first = keras.Model(model.input, model.outputs[0])
    options = {"window": (8, 8, 12), "batch_size": 2}
    assert len(model.outputs) == 2
    assert np.allclose(predict_volume(model, x, **options), predict_volume(first, x, **options), atol=1e-6)


# Mirroring


def test_mirroring_is_the_mean_of_probabilities():
    model, x = build_small(), make(12, 16, 2)
    views = [
        predict_volume(model, x),
        predict_volume(model, x[::-1])[::-1],
        predict_volume(model, x[:, ::-1])[:, ::-1],
        predict_volume(model, x[::-1, ::-1])[::-1, ::-1],
    ]
    assert np.abs(views[0] - views[1]).max() > 0.02, "the network is not symmetric"
    assert np.allclose(predict_volume(model, x, flips=(0,)), np.mean(views[:2], axis=0), atol=1e-6)
    both = predict_volume(model, x, flips=(1, 0))
    assert np.allclose(both, np.mean(views, axis=0), atol=1e-6)
    assert np.allclose(predict_slices(model, x[None], flips=(0, 1))[0], both, atol=1e-6)
    classes = predict_volume(model, x, flips=(0, 1), activation="softmax")
    assert np.allclose(classes.sum(axis=-1), 1, atol=1e-6) and not np.allclose(classes, both, atol=0.01)


def test_a_classifier_is_mirrored_too():
    model, x = build_cnn((12, 10, 1), 3, filters=(2, 3)), make(5, 12, 10, 1)
    logits = np.stack([model.predict_on_batch(x), model.predict_on_batch(x[:, :, ::-1])]).astype(np.float64)
    expected = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)).mean(axis=0)
    assert np.allclose(predict_classes(model, x, flips=(1,), batch_size=2), expected, atol=1e-6)
    with pytest.raises(
        InputError, match=r"x: expected \(any, 12, 10, 1\) for model 'cnn', found \(5, 10, 10, 1\)"
    ):
        predict_classes(model, x[:, :10])
    with pytest.raises(InputError, match="'cnn': expected an output of the size of the input, found another"):
        predict_slices(model, x)


# A whole case


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_brats(folder, 1, voxel_mm=4.0, progress=False, num_workers=1)
    return list_brats(folder)[0]


RECIPE = Recipe(("t1ce", "flair"), foreground=True, shape=(40, 48, 32))
LEVELS = (0.5, 1.0, 2.0)


def build_painter(outputs):
    """Return a network that marks voxels by FLAIR's z-score alone: above 0.5, 1 and 2."""
    inputs = keras.Input((None, None, None, 2))
    convolution = keras.layers.Conv3D(outputs, 1)
    model = keras.Model(inputs, convolution(inputs))
    weights = np.zeros((1, 1, 1, 2, outputs), np.float32)
    weights[..., 1, :] = 1
    convolution.set_weights([weights, -np.float32(LEVELS[:outputs])])
    return model


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_case_is_segmented_on_its_own_voxels(case, outputs):
    labels = segment_case(build_painter(outputs), case, RECIPE, window=(16, 16, 16), overlap=0.5)
    volume = case.load(("flair",)).images["flair"]
    prepared = prepare_case(case, RECIPE)
    assert labels.shape == volume.shape and labels.dtype == np.uint8
    flair = prepared.images[..., 1]
    levels = np.digitize(flair, LEVELS[:outputs], right=True)  # 0: below all
    expected = prepared.restore(np.array([0, 1] if outputs == 1 else [0, 2, 1, 4], np.uint8)[levels])
    assert np.array_equal(labels, expected)
    assert set(np.unique(labels)) == ({0, 1} if outputs == 1 else {0, 1, 2, 4})
    # By way of the case's own intensities: the brightest voxel of FLAIR carries the innermost label.
    assert labels[np.unravel_index(volume.argmax(), volume.shape)] == (1 if outputs == 1 else 4)


def test_a_case_comes_back_from_another_spacing_without_its_specks(case):
    recipe = Recipe(("t1ce", "flair"), spacing=(6.0, 6.0, 6.0))
    model = build_painter(3)
    labels = segment_case(model, case, recipe)
    cleaned = segment_case(model, case, recipe, smallest=(0, 0, 30 * 6**3), threshold=(0.5, 0.5, 0.4))
    assert labels.shape == cleaned.shape == case.load((), mask=True).mask.shape
    before, after = (ndimage.label(m == 4, np.ones((3, 3, 3)))[1] for m in (labels, cleaned))
    assert before > after


def test_another_number_of_outputs_is_no_case(case):
    with pytest.raises(InputError, match=r"expected 1 output or 3 \(WT, TC, ET\), found 2"):
        segment_case(build_painter(2), case, RECIPE)


# Errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": make(8, 8, 3)}, r"x: expected \(any, any, 2\) for model 'unet_2d', found \(8, 8, 3\)"),
        ({"x": make(8, 8, 8, 2)}, r"found \(8, 8, 8, 2\)"),
        ({"x": make(0, 8, 2)}, r"found \(0, 8, 2\)"),
        ({"x": make(8, 8, 2) * np.nan}, "x: expected finite values, found NaN or infinity"),
        ({"window": (8, 6)}, r"window: expected \(any, any\) .* divisible by 4, found \(8, 6\)"),
        ({"window": (8,)}, r"found \(8,\)"),
        ({"window": (8, 0)}, r"found \(8, 0\)"),
        ({"overlap": 1.0}, r"overlap: expected a number in \[0, 1\), found 1.0"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, found 0"),
        ({"activation": "relu"}, "activation: expected 'sigmoid', 'softmax' or 'none', found 'relu'"),
        ({"flips": (2,)}, r"flips: expected different sides from 0 to 1, found \(2,\)"),
        ({"flips": (1, 1)}, r"found \(1, 1\)"),
    ],
)
def test_bad_arguments_are_one_line(options, words):
    options = {"x": make(8, 8, 2), **options}
    with pytest.raises(InputError, match=words) as caught:
        predict_volume(build_small(), **options)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"window: expected \(16, 24\) .* found \(16, 16\)"):
        predict_volume(build_small(sides=(16, 24)), make(16, 24, 2), window=(16, 16))
    with pytest.raises(InputError, match="expected one input of images, found"):
        predict_slices(build_small(3), make(1, 8, 8, 2))
    two = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    with pytest.raises(InputError, match="expected one input of images or volumes, found"):
        predict_volume(keras.Model(two, keras.layers.Add()(two)), make(8, 8, 1))
