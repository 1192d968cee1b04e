"""Grad-CAM: against the closed form of a network that ends in a mean and a dense layer, and as a check."""

import functools

import numpy as np
import pytest

from fedutils.errors import InputError
from fedutils.gradcam import compare_randomised, compute_gradcam, find_feature_layer
from fedutils.models.classification import build_cnn, build_separable_cnn
from fedutils.models.mobilenet import build_mobilenet_v3
from fedutils.models.unet import build_unet

# isort: split
import keras
import tensorflow as tf


def make(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


@functools.cache
def build_cam_network():
    """Return a network whose feature maps have the size of the image: convolution, mean, dense."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 13, 1))
    features = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(inputs)
    outputs = keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D()(features))
    model = keras.Model(inputs, outputs, name="cam")
    kernel = np.array([[1, -2, 0.5], [-1, 1, 2], [2, 0.5, -1], [-0.5, 1, 1]], np.float32)
    model.get_layer("logits").set_weights([kernel, np.zeros(3, np.float32)])
    return model


BUILDERS = {
    "cnn": lambda: build_cnn((40, 36, 1), 3, filters=(4, 8)),
    "separable": lambda: build_separable_cnn((40, 36, 1), 3, widths=(8, 16, 24)),
    "mobilenet": lambda: build_mobilenet_v3((40, 36, 1), 3, attention="cbam", alpha=0.25),
}
all_networks = pytest.mark.parametrize("name", BUILDERS)
build = functools.cache(lambda name: BUILDERS[name]())


@pytest.mark.parametrize("index", [0, 1, 2])
def test_with_a_mean_and_a_dense_layer_it_is_cam(index):
    model, x = build_cam_network(), make(3, 10, 13, 1)
    features = keras.Model(model.input, model.get_layer("features").output).predict_on_batch(x)
    kernel = model.get_layer("logits").get_weights()[0]  # the logit's gradient: kernel / pixels, everywhere
    cam = np.maximum(features @ kernel[:, index], 0)
    greatest = cam.max(axis=(1, 2), keepdims=True)
    assert (greatest > 0).all()
    found = compute_gradcam(model, x, index, batch_size=2)
    assert found.shape == (3, 10, 13) and found.dtype == np.float32
    assert np.allclose(found, cam / greatest, atol=1e-5)


def test_the_gradient_is_that_of_the_logit():
    # By central differences of the logit in each feature map, moved as a whole, with the dense layer applied
    # by hand: a network with Flatten, whose weights differ from place to place.
    model, x = build("cnn"), make(1, 40, 36, 1)
    layer = model.get_layer(find_feature_layer(model))
    features = keras.Model(model.input, layer.output).predict_on_batch(x)[0].astype(np.float64)
    kernel, bias = (w.astype(np.float64) for w in model.layers[-1].get_weights())

    def logit(f):
        return f.ravel() @ kernel[:, 1] + bias[1]

    weights = np.zeros(features.shape[-1])
    for k in range(len(weights)):
        step = np.zeros_like(features)
        step[..., k] = 1e-3
        weights[k] = (logit(features + step) - logit(features - step)) / 2e-3
    coarse = np.maximum(features @ weights, 0)
    assert features.shape == (20, 18, 8) and coarse.max() > 0
    expected = tf.image.resize(coarse[..., None], (40, 36))[..., 0].numpy()
    found = compute_gradcam(model, x, 1)[0]
    assert np.allclose(found, expected / expected.max(), atol=1e-4)


def plant_squares(count):
    """Return images, whether a bright square of 10 pixels a side is in each, and its corners."""
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 0.3, (count, 40, 36, 1)).astype(np.float32)
    y, corners = rng.integers(0, 2, count), rng.integers(0, (30, 26), (count, 2))
    for image, label, (i, j) in zip(x, y, corners, strict=True):
        image[i : i + 10, j : j + 10] += 0.7 * label
    return x, y, corners


def measure_inside(maps, corners):
    """Return the share of each map that lies inside the square, over the share of its area."""
    inside = [image[i : i + 10, j : j + 10].sum() for image, (i, j) in zip(maps, corners, strict=True)]
    return np.array(inside) / maps.sum(axis=(1, 2)) / (10 * 10 / (40 * 36))


def test_a_planted_square_that_decides_the_class_lights_up():
    # By construction: only means of 3x3 pixels above 0.6 pass the ReLU, and they speak for class 1.
    inputs = keras.Input((40, 36, 1))
    convolution = keras.layers.Conv2D(1, 3, padding="same", activation="relu")
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(convolution(inputs))))
    convolution.set_weights([np.full((3, 3, 1, 1), 1 / 9, np.float32), np.float32([-0.6])])
    dense.set_weights([np.float32([[-100, 100]]), np.float32([0.1, 0])])
    x, y, corners = plant_squares(12)
    assert np.array_equal(model.predict_on_batch(x).argmax(axis=-1), y)
    maps, planted = compute_gradcam(model, x), y == 1
    # The square's rim is dimmer, since a mean there takes in pixels outside; no pixel outside is above 0.6.
    assert np.allclose(measure_inside(maps[planted], corners[planted]), 14.4)
    assert not maps[~planted].any(), "of class 0, whose weight is negative"


def test_a_trained_network_looks_at_the_square():
    x, y, corners = plant_squares(96)
    model = build_separable_cnn((40, 36, 1), 2, widths=(8, 16), dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    model.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0)
    planted = y == 1
    assert (model.predict_on_batch(x).argmax(axis=-1) == y).mean() > 0.9
    maps = compute_gradcam(model, x[planted], 1)
    assert np.median(measure_inside(maps, corners[planted])) > 3, "chance is 1"
    assert np.nanmedian(compare_randomised(model, x[planted], 1)) < 0.5


@all_networks
def test_maps_depend_on_the_weights(name):
    model, x = build(name), make(4, 40, 36, 1)
    before = [w.copy() for w in model.get_weights()]
    correlations = compare_randomised(model, x)
    assert correlations.shape == (4,) and np.nanmax(np.abs(correlations)) < 0.9
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_shuffling_equal_weights_changes_nothing():
    model = keras.models.clone_model(build_cam_network())
    model.set_weights([np.full_like(w, 0.1) for w in model.get_weights()])
    assert np.allclose(compare_randomised(model, make(2, 10, 13, 1), 0), 1)


@pytest.mark.parametrize("name", ["cnn", "separable"])
def test_the_class_is_the_predicted_one_unless_named(name):
    model, x = build(name), make(5, 40, 36, 1)
    predicted = model.predict_on_batch(x).argmax(axis=-1)
    maps = compute_gradcam(model, x, batch_size=2)
    assert maps.min() >= 0 and maps.max() == 1
    assert np.array_equal(maps, compute_gradcam(model, x, predicted, batch_size=2))
    assert not np.allclose(maps, compute_gradcam(model, x, (predicted + 1) % 3), atol=0.01)


def test_the_last_feature_maps_are_found():
    assert find_feature_layer(build("mobilenet")) == "last_activation"
    assert isinstance(build("cnn").get_layer(find_feature_layer(build("cnn"))), keras.layers.MaxPooling2D)
    assert isinstance(build("separable").get_layer(find_feature_layer(build("separable"))), keras.layers.ReLU)
    coarse, fine = (
        compute_gradcam(build("mobilenet"), make(1, 40, 36, 1), 1, layer) for layer in (None, "stem_conv")
    )
    assert not np.allclose(coarse, fine, atol=0.05)


def test_a_map_without_positive_values_is_zero():
    model = keras.models.clone_model(build_cam_network())
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([-np.abs(kernel), bias])  # features are never negative
    x = make(2, 10, 13, 1)
    assert not compute_gradcam(model, x, 0).any()
    assert np.isnan(compare_randomised(model, x, 0)).all()


def test_frozen_models_have_maps_too():
    model = keras.models.clone_model(build_cam_network())
    x = make(2, 10, 13, 1)
    before = compute_gradcam(model, x, 2)
    model.trainable = False
    assert np.array_equal(compute_gradcam(model, x, 2), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"x": make(2, 10, 12, 1)},
            r"x: expected \(any, 10, 13, 1\) for model 'cam', found \(2, 10, 12, 1\)",
        ),
        ({"class_index": 3}, "class_index: expected one or 2 integers from 0 to 2, found 3"),
        ({"class_index": [0, -1]}, r"found \[0, -1\]"),
        ({"class_index": [0]}, r"found \[0\]"),
        ({"class_index": 0.0}, "found 0.0"),
        ({"layer": "logits"}, "layer: expected one of model 'cam' .* such as features, found 'logits'"),
        ({"layer": "nothing"}, "found 'nothing'"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1"),
    ],
)
def test_bad_arguments_are_one_line(options, words):
    with pytest.raises(InputError, match=words) as caught:
        compute_gradcam(build_cam_network(), **{"x": make(2, 10, 13, 1), **options})
    assert "\n" not in str(caught.value)


def test_what_is_no_classifier_of_images_is_refused():
    unet = build_unet((8, 8, 1), 2, depth=2, width=2)
    with pytest.raises(InputError, match=r"'unet_2d': expected a classifier, .* found \[\(None, 8, 8, 2\)\]"):
        compute_gradcam(unet, make(1, 8, 8, 1))
    inputs = keras.Input((8, 8, 1))
    flat = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)), name="flat")
    with pytest.raises(InputError, match="'flat': expected a layer that gives feature maps, found none"):
        compute_gradcam(flat, make(1, 8, 8, 1))
