import functools

import h5py
import numpy as np
import pytest

from fedutils.errors import InputError
from fedutils.keras_tff import build_functional_model
from fedutils.models.attention import round_width
from fedutils.models.imagenet import adapt_channels, load_imagenet_weights
from fedutils.models.mobilenet import build_mobilenet_v3

# isort: split
import keras
import tensorflow as tf

SHAPE = (32, 48, 2)
REFERENCES = {"small": keras.applications.MobileNetV3Small, "large": keras.applications.MobileNetV3Large}
# Channels where the paper's table of the small model ticks squeeze-and-excitation.
TICKED = (16, 96, 240, 240, 120, 144, 288, 576, 576)
# Tests share models, which take a second to build, and leave their weights alone.
build_small = functools.cache(lambda attention="se+cbam": build_mobilenet_v3(SHAPE, 3, attention=attention))


@functools.cache
def build_batch(size, alpha=1.0):
    return build_mobilenet_v3((64, 96, 3), 1000, size=size, normalisation="batch", alpha=alpha)


@functools.cache
def build_reference(size, alpha=1.0, include_top=True):
    """Keras' own model with random weights, and statistics of a batch so that every layer matters."""
    model = REFERENCES[size](
        (None, None, 3), alpha, include_top=include_top, weights=None, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    if include_top:
        model(255 * make_batch((64, 96, 3)), training=True)
    return model


def make_batch(shape=SHAPE):
    return np.random.default_rng(0).uniform(size=(4, *shape)).astype(np.float32)


def write(model, path):
    """Write weights in one of three formats; .h5 as Keras 2 wrote it, whose layers had other names."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix == ".keras":
        model.save(path)
    else:
        with h5py.File(path, "w") as file:
            names = []
            for layer in model.layers:
                names.append(f"{layer.name}/of/old".encode())
                group = file.create_group(names[-1])
                group.attrs["weight_names"] = [f"w{i}".encode() for i in range(len(layer.weights))]
                for i, weight in enumerate(layer.get_weights()):
                    group[f"w{i}"] = weight
            file.attrs["layer_names"] = names
    return path


# Against keras.applications


@pytest.mark.parametrize(("size", "alpha", "name"), [("small", 0.75, "a.h5"), ("large", 1.0, "a.keras")])
def test_is_the_model_of_keras_applications(size, alpha, name, tmp_path):
    reference = build_reference(size, alpha)
    model = build_batch(size, alpha)
    assert model.count_params() == reference.count_params()
    loaded = load_imagenet_weights(model, write(reference, tmp_path / name))
    assert loaded == [layer.name for layer in model.layers if layer.weights and layer.name != "logits"]
    kernel, bias = reference.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel[0, 0], bias])
    x = make_batch((64, 96, 3))
    expected = reference(255 * x).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(model(x), expected, rtol=1e-3, atol=1e-3 * expected.std())


def test_parameters_with_group_norm():
    reference = build_reference("small", include_top=False)
    expected = sum(np.prod(w.shape) for w in reference.trainable_weights)  # less the running statistics
    expected -= 3 * 3 * 16  # our images have one channel less
    expected += 576 * 1024 + 1024 + 1024 * 3 + 3  # head and classifier
    assert build_small("se").count_params() == expected


def test_parameters_of_attention():
    none, *more = (build_small(a).count_params() for a in ("none", "se", "cbam", "se+cbam"))
    se = sum(2 * n * squeezed + squeezed + n for n, squeezed in ((n, round_width(n / 4)) for n in TICKED))
    cbams = sum(2 * n * round_width(n / 16) + 7 * 7 * 2 for n in TICKED)
    assert [n - none for n in more] == [se, cbams, se + cbams]


# ImageNet weights


@pytest.fixture(scope="module")
def headless_file(tmp_path_factory):
    reference = build_reference("small", include_top=False)
    return write(reference, tmp_path_factory.mktemp("imagenet") / "a.weights.h5")


def test_first_convolution_answers_grey_images_as_before(headless_file):
    model = build_mobilenet_v3((32, 48, 1), 3, attention="se+cbam")
    before = {w.path: w.numpy() for w in model.weights}
    loaded = load_imagenet_weights(model, headless_file)
    grey = make_batch((32, 48, 1))
    stem = keras.Model(model.input, model.get_layer("stem_conv").output)
    reference = build_reference("small", include_top=False)
    expected = keras.Model(reference.input, reference.get_layer("conv").output)
    np.testing.assert_allclose(stem(grey), expected(255 * grey.repeat(3, -1)), rtol=1e-3, atol=1e-4)
    # Stem and last convolution; depthwise and projection in 11 blocks, expansion in 10; excitation.
    assert len(loaded) == 2 + 2 * 11 + 10 + 2 * len(TICKED)
    for w in model.weights:
        assert (w.path.split("/")[0] in loaded) == np.any(w.numpy() != before[w.path])
    assert not any(name.endswith(("norm", "head", "logits")) or "cbam" in name for name in loaded)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_kernels_for_other_channels(channels):
    rgb = np.random.default_rng(0).normal(size=(3, 3, 3, 16))
    kernel = adapt_channels(rgb, channels)
    assert kernel.shape == (3, 3, channels, 16)
    np.testing.assert_allclose(kernel.sum(axis=2), rgb.sum(axis=2))
    np.testing.assert_array_equal(kernel, kernel[:, :, :1].repeat(channels, axis=2))
    np.testing.assert_array_equal(adapt_channels(rgb, 3), rgb)


def test_files_that_do_not_fit_are_refused(headless_file, tmp_path):
    model = build_small("none")
    before = model.get_weights()
    (tmp_path / "damaged.h5").write_bytes(b"no weights")
    (tmp_path / "damaged.keras").write_bytes(b"no weights")
    (tmp_path / "weights.npz").touch()
    dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other = "other layers than those of a small one with alpha = {};"
    for target, path, words in (
        (model, tmp_path / "absent.h5", "expected a file of ImageNet weights, found none"),
        (model, tmp_path / "weights.npz", "expected a file .h5, .weights.h5 or .keras, found .npz"),
        (model, tmp_path / "damaged.h5", "damaged or of another format"),
        (model, tmp_path / "damaged.keras", "damaged or of another format"),
        (model, write(dense, tmp_path / "dense.h5"), other.format(1)),
        (build_batch("small", 0.75), headless_file, other.format(0.75)),
        (dense, headless_file, "expected a MobileNetV3, found another model"),
    ):
        with pytest.raises(InputError, match=words) as refused:
            load_imagenet_weights(target, path)
        assert "\n" not in str(refused.value)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


# The model itself


def test_gives_logits():
    y = build_small()(make_batch()).numpy()
    assert y.shape == (4, 3) and y.dtype == np.float32
    assert y.min() < 0 and abs(y.sum(axis=-1) - 1).max() > 0.1  # no softmax


@pytest.mark.parametrize("attention", ["none", "se+cbam"])
def test_can_be_federated(attention):
    spec = (tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None,), tf.int32))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    functional = build_functional_model(build_small(attention), loss, input_spec=spec)
    assert functional.initial_weights[1] == ()


@pytest.mark.parametrize("attention", ["none", "se", "cbam", "se+cbam"])
def test_every_variable_learns(attention):
    model = build_small(attention)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(make_batch(), training=True) - 1.0))
    gradients = tape.gradient(loss, model.trainable_variables)
    dead = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]
    assert dead == []


def test_dropout_drops_in_training_only(monkeypatch):
    model, x = build_small(), make_batch()
    usual = model(x).numpy()
    assert np.any(model(x, training=True) != usual)
    monkeypatch.setattr(model.get_layer("dropout"), "rate", 0.0)
    np.testing.assert_array_equal(model(x, training=True), usual)


def test_the_seed_decides_the_weights():
    first = build_small().get_weights()
    same = build_mobilenet_v3((None, None, 2), 3, attention="se+cbam")
    other = build_mobilenet_v3(SHAPE, 3, attention="se+cbam", seed=1)
    kernels = set()
    for a, b, c in zip(first, same.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        if a.ndim > 1:
            assert np.all(a != c)
            kernels.add(tuple(a.ravel()[:8] / a.std()))
    assert len(kernels) == sum(a.ndim > 1 for a in first)
    # Sides may be unknown.
    np.testing.assert_array_equal(same(make_batch()), build_small()(make_batch()))
    assert same(make_batch((40, 33, 2))).shape == (4, 3)


def test_features_neither_vanish_nor_explode():
    model = build_small("none")
    layers = [layer for layer in model.layers if layer.name.endswith("_depthwise_conv")]
    features = keras.Model(model.input, [layer.output for layer in layers])(make_batch())
    assert len(layers) == 11
    for layer, y in zip(layers, features, strict=True):
        assert 0.05 < np.std(y) < 20, layer.name


def test_saves_and_loads(tmp_path):
    build_small("cbam").save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(build_small("cbam")(make_batch()), loaded(make_batch()))


def test_float32_logits_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_mobilenet_v3(SHAPE, 3, attention="none")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert model(make_batch()).dtype == tf.float32


@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        ((31, 48, 1), {}, r"sides of at least 32 pixels, found \(31, 48, 1\)"),
        ((32, 48), {}, r"expected \(height, width, channels\)"),
        ((32, 48, 0), {}, "channels of input_shape: expected an integer of at least 1, found 0"),
        ((32, 48, 1), {"num_classes": 0}, "num_classes: expected an integer of at least 1"),
        ((32, 48, 1), {"size": "tiny"}, "size: expected 'small' or 'large', found 'tiny'"),
        ((32, 48, 1), {"attention": "eca"}, r"attention: expected 'none', .*'se\+cbam', found 'eca'"),
        ((32, 48, 1), {"normalisation": "none"}, "normalisation: expected 'group' or 'batch', found 'none'"),
        ((32, 48, 1), {"alpha": 0}, "alpha: expected a number above 0, found 0"),
        ((32, 48, 1), {"dropout": 1.0}, r"expected a number in \[0, 1\), found 1.0"),
    ],
)
def test_refusals(shape, change, words):
    with pytest.raises(InputError, match=words):
        build_mobilenet_v3(shape, **({"num_classes": 3} | change))
