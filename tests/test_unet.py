import functools
import itertools

import numpy as np
import pytest

from fedutils.errors import InputError
from fedutils.keras_tff import build_functional_model
from fedutils.models.blocks import LinearUpsampling
from fedutils.models.unet import build_attention_maps, build_attention_unet, build_unet
from fedutils.models.unet_plus_plus import build_unet_plus_plus, prune_unet_plus_plus

# isort: split
import keras
import tensorflow as tf

BUILDERS = [build_unet, build_attention_unet, build_unet_plus_plus]
SHAPES = [(16, 24, 2), (8, 12, 4, 2)]  # images and volumes of unequal sides, two channels
build_small = functools.cache(
    functools.partial(lambda build, shape, **options: build(shape, 3, depth=3, width=4, **options))
)
both_ranks = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
# Each architecture and rank once where a test is slow: volumes for the one with the most kinds of layers.
mixed_ranks = pytest.mark.parametrize(
    ("build", "shape"),
    [(build_unet, SHAPES[0]), (build_attention_unet, SHAPES[1]), (build_unet_plus_plus, SHAPES[0])],
    ids=["unet-2d", "attention_unet-3d", "unet_plus_plus-2d"],
)
all_models = pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__[6:])


def make_batch(shape, size=2):
    return np.random.default_rng(0).normal(size=(size, *shape)).astype(np.float32)


# Parameters, derived by hand


def count_conv(kernel, inputs, outputs):
    return kernel * inputs * outputs + outputs


def count_block(rank, inputs, outputs):
    return count_conv(3**rank, inputs, outputs) + count_conv(3**rank, outputs, outputs)


def count_unet(width, depth, channels, outputs, rank=2, learned=True):
    widths = [width * 2**level for level in range(depth)]
    total = sum(count_block(rank, a, b) for a, b in zip([channels, *widths], widths, strict=False))
    for fine, coarse in itertools.pairwise(widths):
        if learned:
            total += count_conv(2**rank, coarse, fine) + count_block(rank, 2 * fine, fine)
        else:
            total += count_block(rank, coarse + fine, fine)
    return total + count_conv(1, width, outputs)


def count_unet_plus_plus(width, level, channels, outputs):
    widths = [width * 2**i for i in range(level + 1)]
    total = sum(count_block(2, a, b) for a, b in zip([channels, *widths], widths, strict=False))
    for i in range(level):
        for j in range(1, level + 1 - i):
            total += count_conv(4, widths[i + 1], widths[i]) + count_block(2, (j + 1) * widths[i], widths[i])
    return total + count_conv(1, width, outputs)


@pytest.mark.parametrize(
    ("width", "outputs", "published"),
    [(64, 2, 31.03), (32, 1, 7.76)],  # Ronneberger 2015; the U-Net of Zhou 2018
)
def test_parameters_of_unet(width, outputs, published):
    count = build_unet((32, 48, 1), outputs, width=width, normalisation="none").count_params()
    assert count == count_unet(width, 5, 1, outputs)
    assert round(count / 1e6, 2) == published


def test_parameters_of_unet_in_3d():
    # The U-Net of Oktay 2018: 16 to 256 channels, BatchNorm, linear upsampling, 5.88 million parameters.
    model = build_unet((16, 32, 48, 1), 2, width=16, normalisation="batch", upsampling="linear")
    trainable = sum(np.prod(v.shape) for v in model.trainable_variables)
    # A BatchNorm has a scale beside its offset, which stands for the convolution's bias: 2 layers a block.
    scales = 2 * (16 + 32 + 64 + 128 + 256 + 128 + 64 + 32 + 16)
    assert trainable == count_unet(16, 5, 1, 2, rank=3, learned=False) + scales
    assert 5.88e6 <= trainable < 5.89e6


def test_parameters_of_attention_unet():
    options = {"depth": 4, "width": 8, "normalisation": "none"}
    for rank, shape in ((2, (32, 48, 1)), (3, (16, 8, 24, 1))):
        gated = build_attention_unet(shape, 2, **options).count_params()
        gates = 0
        for channels in (16, 32):
            gates += 2**rank * channels**2  # the skip, without bias
            gates += count_conv(1, 2 * channels, channels) + count_conv(1, channels, 1)
        assert gated == count_unet(8, 4, 1, 2, rank=rank) + gates
        assert gated == build_unet(shape, 2, **options).count_params() + gates


def test_parameters_of_unet_plus_plus_whole_and_pruned():
    model = build_unet_plus_plus((32, 48, 1), 1, normalisation="none", deep_supervision=True)
    assert model.count_params() == count_unet_plus_plus(32, 4, 1, 1) + 3 * count_conv(1, 32, 1)
    counts = [prune_unet_plus_plus(model, level).count_params() for level in (1, 2, 3, 4)]
    assert counts == [count_unet_plus_plus(32, level, 1, 1) for level in (1, 2, 3, 4)]
    assert round(counts[-1] / 1e6, 2) == 9.04  # Zhou 2018, without deep supervision


# Every model


@both_ranks
@all_models
def test_maps_images_to_logits_of_their_size(build, shape):
    model = build_small(build, shape)
    y = model(make_batch(shape)).numpy()
    assert y.shape == (2, *shape[:-1], 3) and y.dtype == np.float32
    assert y.min() < 0 and abs(y.sum(axis=-1) - 1).max() > 0.1  # no softmax


@mixed_ranks
def test_can_be_federated(build, shape):
    model = build_small(build, shape, deep_supervision=True)
    spec = (tf.TensorSpec((None, *shape)), tf.TensorSpec((None, *shape[:-1]), tf.int32))
    functional = build_functional_model(model, lambda y_true, y_pred: 0.0, input_spec=spec)
    assert functional.initial_weights[1] == ()


def test_batch_normalisation_cannot():
    model = build_unet((8, 8, 1), 2, depth=2, width=2, normalisation="batch")
    spec = (tf.TensorSpec((None, 8, 8, 1)), tf.TensorSpec((None, 8, 8), tf.int32))
    with pytest.raises(InputError, match="moving_mean"):
        build_functional_model(model, lambda y_true, y_pred: 0.0, input_spec=spec)


def find_dead(model, x):
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(x, training=True))
        loss = sum(tf.reduce_mean(tf.square(y - 1.0)) for y in outputs)
    gradients = tape.gradient(loss, model.trainable_variables)
    return [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]


@both_ranks
@all_models
def test_every_variable_learns(build, shape):
    assert find_dead(build_small(build, shape, deep_supervision=True), make_batch(shape)) == []


@pytest.mark.parametrize(
    ("shape", "normalisation", "upsampling"),
    [
        (SHAPES[0], "instance", "nearest"),
        (SHAPES[1], "none", "nearest"),
        (SHAPES[1], "instance", "linear"),
        (SHAPES[0], "batch", "transpose"),
    ],
)
def test_every_variable_learns_with_other_options(shape, normalisation, upsampling):
    model = build_small(build_unet, shape, normalisation=normalisation, upsampling=upsampling)
    assert model.output_shape == (None, *shape[:-1], 3)
    assert find_dead(model, make_batch(shape)) == []


@all_models
def test_the_seed_decides_the_weights(build):
    first, same, other = (
        build((8, 12, 1), 2, depth=3, width=2, seed=seed).get_weights() for seed in (1, 1, 2)
    )
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or np.all(a != c)


@all_models
def test_no_two_kernels_are_alike(build):
    kernels = [w.ravel() for w in build_small(build, SHAPES[0]).get_weights() if w.ndim > 1]
    for a, b in itertools.combinations(kernels, 2):
        size = min(a.size, b.size)
        assert np.any(a[:size] != b[:size])


@mixed_ranks
def test_saves_and_loads(build, shape, tmp_path):
    model = build_small(build, shape, deep_supervision=True, upsampling="linear")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(model(make_batch(shape)), loaded(make_batch(shape)), strict=True):
        np.testing.assert_array_equal(a, b)


@mixed_ranks
def test_sides_may_be_unknown(build, shape):
    known = build_small(build, shape, upsampling="linear")
    unknown = build_small(build, (*(None for _ in shape[:-1]), 2), upsampling="linear")
    np.testing.assert_array_equal(known(make_batch(shape)), unknown(make_batch(shape)))
    other = (*shape[-2::-1], 2)  # the sides in reverse
    assert unknown(make_batch(other)).shape == (2, *other[:-1], 3)


@all_models
def test_float32_logits_in_mixed_precision(build):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build((8, 12, 1), 2, depth=3, width=4, deep_supervision=True)
        maps = [build_attention_maps(model)] if build is build_attention_unet else []
    finally:
        keras.config.set_dtype_policy("float32")
    assert next(layer for layer in model.layers if "conv_2" in layer.name).compute_dtype == "bfloat16"
    for m in [model, *maps]:
        assert {y.dtype for y in tf.nest.flatten(m(make_batch((8, 12, 1))))} == {tf.float32}


@all_models
@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        ((32, 44, 1), {}, r"sides divisible by 8 .* found \(32, 44, 1\)"),
        ((32, 0, 1), {}, "sides divisible by 8"),
        ((32, 48), {}, r"expected \(height, width, channels\) or"),
        ((32, 48, None), {}, "channels of input_shape: expected an integer"),
        ((32, 48, 1), {"depth": 1}, "depth: expected an integer of at least"),
        ((32, 48, 1), {"width": 0}, "width: expected an integer of at least 1"),
        ((32, 48, 1), {"num_outputs": 0}, "num_outputs: expected an integer of at least 1"),
        ((32, 48, 1), {"normalisation": "layer"}, "normalisation: expected 'group', .*found 'layer'"),
        ((32, 48, 1), {"upsampling": "cubic"}, "upsampling: expected 'transpose', .*found 'cubic'"),
        ((8, 8, 1), {"normalisation": "instance"}, "at least 2 values to normalise together, found 1"),
    ],
)
def test_refusals(build, shape, change, words):
    options = {"num_outputs": 2, "depth": 4, "width": 2} | change
    with pytest.raises(InputError, match=words) as refused:
        build(shape, **options)
    assert "\n" not in str(refused.value)


# Deep supervision and pruning


@all_models
def test_deep_supervision_adds_outputs_and_leaves_the_prediction(build):
    x = make_batch(SHAPES[0])
    outputs = build_small(build, SHAPES[0], deep_supervision=True)(x)
    assert [y.shape for y in outputs] == [(2, 16, 24, 3)] * 2
    np.testing.assert_array_equal(outputs[0], build_small(build, SHAPES[0])(x))
    assert np.any(outputs[0] != outputs[1])


@both_ranks
def test_pruning_gives_the_output_of_the_whole(shape, tmp_path):
    model = build_small(build_unet_plus_plus, shape, deep_supervision=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = make_batch(shape)
    whole = dict(zip((2, 1), model(x), strict=True))
    for level, source in itertools.product((1, 2), (model, loaded)):
        pruned = prune_unet_plus_plus(source, level)
        np.testing.assert_array_equal(pruned(x), whole[level])
        assert all(any(v is w for w in source.variables) for v in pruned.variables)
    assert not any("node_2" in v.path for v in prune_unet_plus_plus(model, 1).variables)


def test_pruning_refuses_what_has_no_such_output():
    for model, level in (
        (build_small(build_unet_plus_plus, SHAPES[0], deep_supervision=True), 3),
        (build_small(build_unet_plus_plus, SHAPES[0], deep_supervision=True), 0),
        (build_small(build_unet_plus_plus, SHAPES[0]), 1),
        (build_small(build_unet, SHAPES[0], deep_supervision=True), 1),
    ):
        with pytest.raises(InputError, match=f"expected a U-Net\\+\\+ with an output logits_{level}, found"):
            prune_unet_plus_plus(model, level)


# Attention


@pytest.mark.parametrize("shape", [(16, 24, 2), (8, 16, 24, 1)], ids=["2d", "3d"])
def test_attention_maps(shape):
    model = build_attention_unet(shape, 2, depth=4, width=4)
    x = make_batch(shape)
    maps = build_attention_maps(model)(x)
    assert {name: m.shape for name, m in maps.items()} == {
        f"level_{i}": (2, *(side // 2**i for side in shape[:-1]), 1) for i in (1, 2)
    }
    for m in maps.values():
        assert m.numpy().min() >= 0 and m.numpy().max() <= 1
        assert m.numpy().std() > 0.01  # they say something
        assert m.numpy().mean() > 0.6  # and begin nearly open
    full = build_attention_maps(model, full_resolution=True)(x)
    assert {m.shape for m in full.values()} == {(2, *shape[:-1], 1)}
    np.testing.assert_allclose(full["level_1"], LinearUpsampling()(maps["level_1"]), rtol=1e-5)


def test_a_closed_gate_hides_its_skip_connection():
    model = build_attention_unet((16, 24, 1), 2, depth=3, width=4)
    x = make_batch((16, 24, 1))
    skip = keras.Model(model.input, model.get_layer("decoder_1_join").output)
    before = skip(x).numpy()
    assert np.any(before[..., :8])
    gate = model.get_layer("gate_1_weights")
    gate.kernel.assign(tf.zeros_like(gate.kernel))
    gate.bias.assign([-1000.0])
    after = skip(x).numpy()
    assert not np.any(after[..., :8])
    np.testing.assert_array_equal(after[..., 8:], before[..., 8:])
    assert not np.any(build_attention_maps(model)(x)["level_1"])


def test_maps_of_a_model_without_gates_are_refused():
    with pytest.raises(InputError, match="expected one with attention gates"):
        build_attention_maps(build_small(build_unet, SHAPES[0]))
