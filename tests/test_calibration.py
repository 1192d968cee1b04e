"""A temperature is found where it was put, and changes no prediction."""

import numpy as np
import pytest
from scipy.special import log_softmax

from fedutils.calibration import COLDEST, HOTTEST, apply_temperature, fit_temperature
from fedutils.errors import InputError


def make_logits(count=400, seed=0, num_classes=4):
    """Logits that are right about as often as they say: labels are drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, num_classes))
    probabilities = np.exp(log_softmax(logits, axis=1))
    labels = (rng.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return logits, labels


def nll(logits, labels):
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def test_two_classes_by_closed_form():
    # Every image has the margin m = 3, and 3 of 4 are right: sigmoid(m / T) = 3/4, so T = m / ln 3.
    logits = np.tile([[3.0, 0.0], [0.0, 3.0]], (4, 1))
    labels = np.array([0, 1, 0, 1, 0, 1, 1, 0])
    assert fit_temperature(logits, labels) == pytest.approx(3 / np.log(3), rel=1e-9)


@pytest.mark.parametrize("factor", [0.05, 0.5, 1.0, 4.0, 30.0])
def test_a_factor_that_was_put_in_is_found(factor):
    logits, labels = make_logits()
    own = fit_temperature(logits, labels)
    assert own == pytest.approx(1, abs=0.2), "the labels were drawn from these logits"
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * own, rel=1e-6)
    shift = np.linspace(-500, 500, len(labels))[:, None]  # of a whole row: no probability changes
    assert fit_temperature(factor * logits + shift, labels) == pytest.approx(factor * own, rel=1e-6)


def test_no_temperature_near_it_is_better():
    logits, labels = make_logits(seed=3)
    found = fit_temperature(2.5 * logits, labels)
    best = nll(apply_temperature(2.5 * logits, found), labels)
    for nearby in np.geomspace(0.1, 100, 300):
        assert best <= nll(2.5 * logits / nearby, labels) + 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_no_prediction_changes_and_the_likelihood_does_not_fall(seed):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(50, 3)) * 10 ** rng.uniform(-2, 2)).astype(np.float32)
    labels = rng.integers(0, 3, 50)
    temperature = fit_temperature(logits, labels)
    scaled = apply_temperature(logits, temperature)
    assert np.array_equal(scaled.argmax(axis=1), logits.argmax(axis=1))
    assert nll(scaled, labels) <= nll(logits.astype(np.float64), labels) + 1e-12


def test_neighbouring_float32_logits_stay_apart():
    # Just below 2, where float32 is finest for its size: divided in float32, many a pair would become one.
    high = np.nextafter(np.float32(2), np.float32(1))
    logits = np.array([[np.nextafter(high, np.float32(1)), high]])
    assert logits.dtype == np.float32
    for temperature in np.geomspace(COLDEST, HOTTEST, 200):
        assert apply_temperature(logits, temperature).argmax() == 1


def test_where_no_temperature_is_best():
    logits = np.array([[2.0, 0, 1], [0, 1, 0], [0, 0, 3]])
    assert fit_temperature(logits, np.array([0, 1, 2])) == 1.0, "all right: any lower T is better still"
    assert fit_temperature(logits, np.array([1, 2, 0])) == HOTTEST, "all wrong: any higher T is better"
    almost = np.tile(1e-5 * logits, (40, 1))
    labels = np.tile([0, 1, 2], 40)
    labels[0] = 1
    assert fit_temperature(almost, labels) == COLDEST


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), r"at least one image, found \(0, 3\) and \(0,\)"),
        (np.zeros((2, 3)), np.zeros(3, int), r"found \(2, 3\) and \(3,\); give the validation images'"),
        (np.zeros((2, 3)), np.zeros(2, int), "at least two classes, found only class 0; fit"),
        (np.zeros((2, 3)), np.array([0, 3]), "integers from 0 to 2, found int64 from 0 to 3; give"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), "found float64 from 0.0 to 1.0"),
        (np.array([[0, np.inf], [0, 1]]), np.array([0, 1]), "finite numbers, found 1 that are not; look for"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(logits, labels, message):
    with pytest.raises(InputError, match=message):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(InputError, match="temperature: expected a positive number, found"):
        apply_temperature(np.zeros((1, 2)), temperature)
