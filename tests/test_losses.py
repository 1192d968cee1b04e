"""Losses: by hand, against Keras and scikit-learn, slopes by central differences, empty regions, TFF."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fedutils import runtime
from fedutils.errors import InputError
from fedutils.keras_tff import build_functional_model
from fedutils.losses import DeeplySupervised, Dice, DiceCrossEntropy, Focal, Tversky, compute_output_weights
from fedutils.tff import tff

# isort: split
import keras
import tensorflow as tf

BUILDERS = {
    "dice": Dice,
    "dice of examples": lambda kind, **kw: Dice(kind, over_batch=False, **kw),
    "dice, squares": lambda kind, **kw: Dice(kind, squared=True, **kw),
    "dice and cross-entropy": lambda kind, **kw: DiceCrossEntropy(kind, cross_entropy_weight=0.7, **kw),
    "tversky": Tversky,
    "focal tversky": lambda kind, **kw: Tversky(kind, exponent=0.75, over_batch=False, **kw),
    "focal": Focal,
    "focal, gamma 0.5": lambda kind, **kw: Focal(kind, alpha=0.6, gamma=0.5, **kw),
}
SIDES = {2: (3, 4), 3: (2, 3, 4)}


def draw(kind, rank=2, channels=3, batch=2, seed=0):
    """Targets and logits; every class or region occurs."""
    rng = np.random.default_rng(seed)
    shape = (batch, *SIDES[rank])
    logits = 2 * rng.standard_normal((*shape, channels))
    if kind == "classes":
        return rng.integers(0, channels, shape), logits
    return rng.random((*shape, channels)) < 0.4, logits


def logit(p):
    """Logits of probabilities, which are written so that sums are easy by hand."""
    return np.log(p) - np.log1p(-np.asarray(p, np.float64))


def slope(loss, targets, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(targets, logits)
    return value.numpy(), tape.gradient(value, logits).numpy()


# One example of 1 x 4 voxels: probabilities .9 .6 .2 .1, truth 1 1 0 0, so that
# TP = 1.5, FP = .3, FN = .5; sum of (p - g)^2 = .01 + .16 + .04 + .01 = .22; of p^2 + g^2 = 1.22 + 2
P, G = np.array([0.9, 0.6, 0.2, 0.1]).reshape(1, 1, 4, 1), np.array([1, 1, 0, 0]).reshape(1, 1, 4, 1)


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        (Dice(smooth=0), 0.8 / 3.8),
        (Dice(), 0.8 / 5.8),
        (Dice(squared=True, smooth=0), 0.22 / 3.22),
        (Dice(squared=True, smooth=0.5), 0.22 / 4.22),
        (Tversky(smooth=0), (0.3 * 0.3 + 0.7 * 0.5) / (1.5 + 0.3 * 0.3 + 0.7 * 0.5)),
        (Tversky(alpha=0.2, beta=0.6, smooth=2, exponent=0.75), (0.36 / 3.86) ** 0.75),
        (
            DiceCrossEntropy(),
            0.8 / 5.8 - (math.log(0.9) + math.log(0.6) + math.log(0.8) + math.log(0.9)) / 4,
        ),
        (DiceCrossEntropy(dice_weight=3, cross_entropy_weight=0, smooth=0), 3 * 0.8 / 3.8),
        (
            Focal(alpha=0.25, gamma=2),
            -(
                0.25 * (0.01 * math.log(0.9) + 0.16 * math.log(0.6))
                + 0.75 * (0.04 * math.log(0.8) + 0.01 * math.log(0.9))
            )
            / 4,
        ),
    ],
)
def test_regions_by_hand(loss, by_hand):
    assert float(loss(G, logit(P))) == pytest.approx(by_hand, rel=1e-6)


def test_classes_by_hand():
    # Two voxels, three classes, truth 0 and 2. Class 1: FP .1 + .2. Class 2: TP .5, FP .1, FN .5.
    p = np.array([[0.8, 0.1, 0.1], [0.3, 0.2, 0.5]]).reshape(1, 1, 2, 3)
    y = np.array([[[0, 2]]])
    dice = (0.3 / (0.3 + 2) + 0.6 / (2 * (0.5 + 1) + 0.6)) / 2  # the background does not count
    entropy = -(math.log(0.8) + math.log(0.5)) / 2
    assert float(Dice("classes")(y, np.log(p))) == pytest.approx(dice, rel=1e-6)
    assert float(DiceCrossEntropy("classes")(y, np.log(p))) == pytest.approx(dice + entropy, rel=1e-6)
    # alpha .3: the background voxel weighs .7
    focal = -(0.7 * 0.2**2 * math.log(0.8) + 0.3 * 0.5**2 * math.log(0.5)) / 2
    assert float(Focal("classes", alpha=0.3)(y, np.log(p))) == pytest.approx(focal, rel=1e-6)


def test_over_batch_or_example_by_example():
    # Examples of 2 voxels, p = .5 everywhere; truth 1 1 and 0 0.
    logits, y = np.zeros((2, 1, 2, 1)), np.array([1, 1, 0, 0]).reshape(2, 1, 2, 1)
    alone = [1 / (2 + 1 + 2), 1 / (1 + 2)]  # FN = 1, TP = 1; then FP = 1
    np.testing.assert_allclose(Dice(over_batch=False, reduction=None)(y, logits), alone, rtol=1e-6)
    # Together TP = 1, FP = 1, FN = 1
    np.testing.assert_allclose(Dice(reduction=None)(y, logits), [2 / 6, 2 / 6], rtol=1e-6)
    weighted = Dice(over_batch=False)(y, logits, sample_weight=[1.0, 0.0])
    assert float(weighted) == pytest.approx(alone[0] / 2, rel=1e-6)


def test_focal_reduces_easy_voxels_as_published():
    # Lin et al., section 3.2: with gamma 2 the loss is 100 times lower at p_t = .9, about 1000 times at .968.
    for p, factor in ((0.9, 100), (0.968, 1000)):
        logits, y = np.full((1, 1, 1, 1), logit(p)), np.ones((1, 1, 1, 1))
        ratio = -math.log(p) / float(Focal(alpha=1, gamma=2)(y, logits))
        assert ratio == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("rank", [2, 3])
def test_special_cases_equal_each_other(rank):
    for kind in ("regions", "classes"):
        y, z = draw(kind, rank)
        for over_batch in (True, False):
            dice = Dice(kind, over_batch=over_batch)(y, z)
            half = Tversky(kind, alpha=0.5, beta=0.5, over_batch=over_batch)(y, z)
            np.testing.assert_allclose(half, dice, rtol=1e-6)
        entropy = DiceCrossEntropy(kind, dice_weight=0)(y, z)
        np.testing.assert_allclose(Focal(kind, alpha=0.5, gamma=0)(y, z), entropy / 2, rtol=1e-6)
    # Two classes are one region whose logit is their difference.
    y, z = draw("classes", rank, channels=2)
    one = z[..., 1:] - z[..., :1]
    for builder in BUILDERS.values():
        np.testing.assert_allclose(builder("classes")(y, z), builder("regions")(y[..., None], one), rtol=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_agrees_with_keras(rank):
    y, z = draw("regions", rank)
    p, g = keras.ops.sigmoid(z), y.astype(np.float32)
    axes = tuple(range(rank + 1))  # batch and sides
    np.testing.assert_allclose(Dice(smooth=0)(y, z), np.mean(keras.losses.dice(g, p, axis=axes)), rtol=1e-5)
    # Keras 3.15 takes alpha for the false negatives, against its own documentation.
    tversky = keras.losses.tversky(g, p, alpha=0.7, beta=0.3, axis=axes)
    np.testing.assert_allclose(Tversky(smooth=0)(y, z), np.mean(tversky), rtol=1e-5)
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)(g, z)
    np.testing.assert_allclose(DiceCrossEntropy(dice_weight=0)(y, z), entropy, rtol=1e-5)
    focal = keras.losses.BinaryFocalCrossentropy(True, alpha=0.25, gamma=2, from_logits=True)(g, z)
    np.testing.assert_allclose(Focal()(y, z), focal, rtol=1e-5)
    y, z = draw("classes", rank)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, z)
    np.testing.assert_allclose(DiceCrossEntropy("classes", dice_weight=0)(y, z), entropy, rtol=1e-5)


def test_agrees_with_scikit_learn_on_sure_predictions():
    y, z = draw("regions")
    f1 = [f1_score(y[..., k].ravel(), z[..., k].ravel() > 0) for k in range(3)]
    np.testing.assert_allclose(Dice(smooth=0)(y, 1e4 * np.sign(z)), 1 - np.mean(f1), rtol=1e-6)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", ["regions", "classes"])
@pytest.mark.parametrize("name", BUILDERS)
def test_slope_by_central_differences(name, kind, rank):
    loss = BUILDERS[name](kind, dtype="float64")
    y, z = draw(kind, rank, seed=rank)
    y[0] = 0  # an example without tumour
    step = 1e-5
    # One batch of losses: entry i is moved by a step up, and by one down.
    moves = (step * np.eye(z.size)).reshape(-1, *z.shape)
    numeric = [(loss(y, z + m).numpy() - loss(y, z - m).numpy()) / (2 * step) for m in moves[::5]]
    gradient = slope(loss, y, z)[1].ravel()[::5]
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("kind", ["regions", "classes"])
@pytest.mark.parametrize("name", BUILDERS)
def test_huge_logits_give_finite_losses_and_slopes(name, kind):
    loss = BUILDERS[name](kind)
    y, z = draw(kind)
    truth = y if kind == "regions" else np.eye(3, dtype=bool)[y]
    right = np.where(truth, 1e4, -1e4).astype(np.float32)
    for logits in (right, -right, (1e4 * np.sign(z)).astype(np.float32), 0 * right):
        value, gradient = slope(loss, y, logits)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    value, gradient = slope(loss, y, right)
    assert value == 0 and not gradient.any()
    assert slope(loss, y, -right)[0] > 0.4


def test_a_surely_wrong_voxel_has_a_gradient():
    # Cross-entropy and the focal loss grow like the logit: slopes 1 and the weight at one voxel.
    logits, y = np.full((1, 1, 1, 1), 1e4, np.float32), np.zeros((1, 1, 1, 1))
    assert slope(DiceCrossEntropy(), y, logits)[1].item() == pytest.approx(1)
    assert slope(Focal(alpha=0.25), y, logits)[1].item() == pytest.approx(0.75)
    sure = np.array([[[[1e4, 0]]]], np.float32)  # of class 0, where class 1 is true
    focal = slope(Focal("classes", alpha=0.25), np.ones((1, 1, 1)), sure)[1]
    np.testing.assert_allclose(focal.ravel(), [0.25, -0.25])
    # As the module says, Keras's has none.
    keras_focal = keras.losses.CategoricalFocalCrossentropy(from_logits=True)
    assert not slope(keras_focal, np.array([[[[0.0, 1]]]]), sure)[1].any()


@pytest.mark.parametrize("over_batch", [True, False])
def test_empty_region(over_batch):
    y = np.zeros((2, 3, 4, 1), np.uint8)
    none, half = np.full(y.shape, -1e4, np.float32), np.zeros(y.shape, np.float32)
    voxels = 24 if over_batch else 12
    dice, tversky = Dice(over_batch=over_batch), Tversky(over_batch=over_batch, exponent=0.75)
    for loss in (dice, tversky):
        value, gradient = slope(loss, y, none)
        assert value == 0 and not gradient.any()
    # Half a false positive a voxel: FP / (FP + 2) with FP = voxels / 2.
    wrong = voxels / 2
    value, gradient = slope(dice, y, half)
    assert value == pytest.approx(wrong / (wrong + 2), rel=1e-6)
    # d/dFP = 2 / (FP + 2)^2, dFP/dz = p (1 - p) = 1 / 4; a mean over two examples if these are apart
    expected = 2 / (wrong + 2) ** 2 / 4 / (1 if over_batch else 2)
    np.testing.assert_allclose(gradient, np.full(y.shape, expected), rtol=1e-5)
    assert float(tversky(y, half)) == pytest.approx((0.3 * wrong / (0.3 * wrong + 1)) ** 0.75, rel=1e-6)
    assert (slope(tversky, y, half)[1] > 0).all()
    # As the module says: Keras's Dice is 1 whether or not anything is predicted, with no way down.
    keras_dice = keras.losses.Dice()
    assert float(keras_dice(y, np.zeros(y.shape, "f"))) == float(keras_dice(y, np.ones(y.shape, "f"))) == 1


def test_targets_of_any_dtype_and_soft_ones():
    y, z = draw("regions")
    values = {float(Focal()(y.astype(dtype), z)) for dtype in (bool, np.uint8, np.int64, np.float32)}
    assert len(values) == 1
    # Targets of .5 are the mean of the two truths for a loss that is linear in them.
    soft = float(Focal()(np.full(z.shape, 0.5), z))
    assert soft == pytest.approx(float(Focal()(y, z) + Focal()(~y, z)) / 2, rel=1e-6)


@pytest.mark.parametrize("name", BUILDERS)
def test_mixed_precision_is_computed_in_float32(name):
    y, z = draw("regions", 3)
    low = tf.cast(z, tf.bfloat16)
    value = BUILDERS[name]("regions")(y, low)
    assert value.dtype == tf.float32
    assert float(value) == float(BUILDERS[name]("regions")(y, tf.cast(low, tf.float32)))


def test_label_outside_the_classes_is_not_overlooked():
    y, z = draw("classes")
    y[0, 1, 2] = 4
    for name, builder in BUILDERS.items():
        assert np.isnan(builder("classes")(y, z)), name


def test_bad_arguments():
    with pytest.raises(InputError, match="kind: expected regions or classes, found 'sigmoid'; choose one"):
        Dice("sigmoid")
    for build, key in ((Dice, "smooth"), (Tversky, "beta"), (Focal, "gamma"), (DiceCrossEntropy, "smooth")):
        with pytest.raises(InputError, match=rf"{key}: expected a number of at least 0, found -1; raise it"):
            build(**{key: -1})
    with pytest.raises(InputError, match="found nan"):
        Focal(gamma=math.nan)
    with pytest.raises(InputError, match=r"alpha: expected a number in \[0, 1\], found 1.5; lower it"):
        Focal(alpha=1.5)


@pytest.mark.parametrize(
    ("kind", "targets", "logits", "message"),
    [
        ("regions", (2, 3, 4), (2, 3, 4, 1), r"expected shape \(2, 3, 4, 1\) for regions of logits"),
        ("regions", (2, 3, 5, 3), (2, 3, 4, 3), r"found \(2, 3, 5, 3\); see the two kinds"),
        ("classes", (2, 3, 4, 1), (2, 3, 4, 3), r"expected shape \(2, 3, 4\) for classes of logits"),
        ("classes", (2, 3, 4), (2, 3, 4, 1), 'at least 2 classes, found 1; set kind="regions"'),
        ("classes", (2,), (2, 3), r"found \(2,\); see the two kinds"),
    ],
)
def test_shapes_that_do_not_fit(kind, targets, logits, message):
    for builder in BUILDERS.values():
        with pytest.raises(InputError, match=message):
            builder(kind)(np.zeros(targets), np.zeros(logits))


def build_model(num_outputs=2):
    inputs = keras.Input((None, None, 2))
    outputs = [
        keras.layers.Conv2D(3, 1, name=f"logits_{i}", kernel_initializer=keras.initializers.HeNormal(i))(
            inputs
        )
        for i in range(num_outputs)
    ]
    return keras.Model(inputs, outputs if num_outputs > 1 else outputs[0])


def test_deep_supervision_weights():
    np.testing.assert_allclose(compute_output_weights(3), [4 / 7, 2 / 7, 1 / 7])
    assert compute_output_weights(1) == [1]
    y, z = draw("regions")
    logits = [z, 2 * z, -z]
    values = [float(Focal()(y, each)) for each in logits]
    halved = (4 * values[0] + 2 * values[1] + values[2]) / 7
    assert float(DeeplySupervised(Focal())(y, logits)) == pytest.approx(halved, rel=1e-6)
    chosen = DeeplySupervised(Focal(), weights=[1, 0, 0.5])
    assert float(chosen(y, logits)) == pytest.approx(values[0] + values[2] / 2, rel=1e-6)
    assert float(DeeplySupervised(Focal())(y, z)) == pytest.approx(values[0], rel=1e-6)
    with pytest.raises(InputError, match="weights: expected 2, one for each output of the model, found 3"):
        chosen(y, logits[:2])


def test_deep_supervision_in_keras_fit():
    y, _ = draw("regions")
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 2)).astype(np.float32)
    model = build_model()
    expected = float(DeeplySupervised(DiceCrossEntropy())(y, model(x)))
    model.compile("sgd", [DiceCrossEntropy()] * 2, loss_weights=compute_output_weights(2), jit_compile=False)
    history = model.fit(x, [y, y], batch_size=2, epochs=2, verbose=0).history["loss"]
    assert history[0] == pytest.approx(expected, rel=1e-5)
    assert history[1] < history[0]


def test_saved_with_a_model_and_rebuilt():
    y, z = draw("regions")
    losses = [
        Dice(smooth=0.5, squared=True, over_batch=False),
        Tversky(alpha=0.1, beta=0.8, exponent=0.75),
        Focal(alpha=0.4, gamma=1.5),
        DiceCrossEntropy(dice_weight=0.3, smooth=2),
        DeeplySupervised(Tversky(beta=0.9), weights=[0.5]),
    ]
    for loss in losses:
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        assert type(again) is type(loss) and again.name == loss.name
        assert float(again(y, z)) == float(loss(y, z))
    assert Dice().name == "dice_loss"
    # What Keras writes into a model's file, and reads from it
    model, loaded = build_model(1), build_model(1)
    model.compile("sgd", losses[3])
    loaded.compile_from_config(json.loads(json.dumps(model.get_compile_config())))
    assert loaded.loss.get_config() == losses[3].get_config()


def test_in_a_federated_round():
    """One client of one batch, SGD: the step that the gradient gives, of both outputs."""
    runtime.use("in_process")
    y, _ = draw("regions")
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 2)).astype(np.float32)
    model, loss = build_model(), DeeplySupervised(DiceCrossEntropy())
    with tf.GradientTape() as tape:
        value = loss(y, model(x))
    expected = [
        w.numpy() - 0.5 * g.numpy()
        for w, g in zip(model.trainable_weights, tape.gradient(value, model.trainable_weights), strict=True)
    ]
    spec = (tf.TensorSpec((None, 3, 4, 2)), tf.TensorSpec((None, 3, 4, 3), tf.uint8))
    process = tff.learning.algorithms.build_weighted_fed_avg(
        build_functional_model(model, loss, input_spec=spec),
        tff.learning.optimizers.build_sgdm(0.5),
        tff.learning.optimizers.build_sgdm(1.0),
    )
    data = tf.data.Dataset.from_tensor_slices((x, y.astype(np.uint8))).batch(2)
    output = process.next(process.initialize(), [data])
    trained = process.get_model_weights(output.state).trainable
    for found, wanted in zip(trained, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    measured = output.metrics["client_work"]["train"]["loss"]
    assert measured == pytest.approx(float(value), rel=1e-5)
