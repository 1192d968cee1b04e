"""Metrics of a classifier against numbers by hand, scikit-learn, and bootstraps drawn one at a time."""

import json
import time

import numpy as np
import pytest
from sklearn import metrics as sk

from fedutils.errors import InputError
from fedutils.metrics import (
    compare_accuracy,
    compute_classification_metrics,
    compute_reliability,
    softmax,
    summarise,
)

NAMES = ("a", "b", "c")
KEYS = ("precision", "recall", "f1", "auc")


def logits_of(predicted, num_classes=3):
    return np.eye(num_classes)[predicted] * 4.0


def make_case(count, seed=0, num_classes=3, signal=1.5):
    """Labels, and logits of which some tie."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    logits = rng.normal(size=(count, num_classes)).round(1)
    logits[np.arange(count), labels] += signal
    return labels, logits


def test_metrics_by_hand():
    truth = np.array([0, 0, 0, 1, 1, 2])
    measured = compute_classification_metrics(truth, logits_of([0, 0, 1, 1, 2, 2]), NAMES)
    assert measured["n"] == measured["num_units"] == 6 and measured["accuracy"] == pytest.approx(4 / 6)
    assert measured["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    a, b, c = (measured["per_class"][name] for name in NAMES)
    assert (a["n"], b["n"], c["n"]) == (3, 2, 1)
    assert a["precision"] == 1 and a["recall"] == pytest.approx(2 / 3)
    assert b["precision"] == 0.5 and b["f1"] == 0.5
    assert measured["precision"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    # AUC of class c: the one positive beats 4 negatives and ties with one.
    assert c["auc"] == pytest.approx(0.9)
    # Every image's largest probability is sure = e^4 / (e^4 + 2); each other class has (1 - sure) / 2.
    sure = np.exp(4) / (np.exp(4) + 2)
    other = (1 - sure) / 2
    assert measured["ece"] == pytest.approx(abs(4 / 6 - sure))
    assert measured["nll"] == pytest.approx(-(4 * np.log(sure) + 2 * np.log(other)) / 6)
    right, wrong = (1 - sure) ** 2 + 2 * other**2, sure**2 + (1 - other) ** 2 + other**2
    assert measured["brier"] == pytest.approx((4 * right + 2 * wrong) / 6)


def test_every_number_is_scikit_learns():
    labels, logits = make_case(157)
    measured = compute_classification_metrics(labels, logits, NAMES)
    predicted, p = logits.argmax(axis=1), softmax(logits)
    by_class = sk.precision_recall_fscore_support(labels, predicted)
    for i, name in enumerate(NAMES):
        found = measured["per_class"][name]
        assert [found[k] for k in KEYS[:3]] == pytest.approx([column[i] for column in by_class[:3]])
        assert found["auc"] == pytest.approx(sk.roc_auc_score(labels == i, p[:, i]))
    assert measured["auc"] == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"))
    assert measured["f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert measured["nll"] == pytest.approx(sk.log_loss(labels, p))
    assert measured["brier"] == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(axis=1).mean())


def test_a_class_without_images_has_no_recall_and_does_not_count():
    measured = compute_classification_metrics(np.array([0, 1]), logits_of([0, 2]), NAMES)
    c = measured["per_class"]["c"]
    assert c["recall"] is None and c["f1"] is None and c["auc"] is None and c["precision"] == 0
    assert measured["recall"] == 0.5  # the mean over a (1) and b (0)
    assert measured["intervals"]["per_class"]["c"]["recall"] is None
    alone = compute_classification_metrics(np.array([1, 1]), logits_of([1, 0]), NAMES)
    assert alone["auc"] is None and alone["intervals"]["auc"] is None and alone["recall"] == 0.5
    json.dumps(alone, allow_nan=False)


def test_softmax_is_stable_and_sums_to_one():
    probabilities = softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]]))
    assert np.allclose(probabilities, [[1, 0], [0.5, 0.5]])


def test_a_sure_mistake_has_a_finite_likelihood():
    measured = compute_classification_metrics(np.array([0, 1]), np.array([[0.0, 2000], [0, 0]]), ("a", "b"))
    assert measured["nll"] == pytest.approx((2000 + np.log(2)) / 2)


def test_the_interval_of_the_accuracy_matches_the_binomial():
    truth, predicted = np.zeros(400, int), np.repeat([0, 1], [320, 80])  # 0.8, standard error 0.02
    measured = compute_classification_metrics(truth, logits_of(predicted), NAMES)
    low, high = measured["accuracy_interval"]
    assert low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.006)
    assert high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.006)
    assert measured["intervals"]["accuracy"] == measured["accuracy_interval"]
    perfect = compute_classification_metrics(truth, logits_of(truth), NAMES)
    assert perfect["accuracy_interval"] == [1.0, 1.0]


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_are_those_of_draws_made_one_at_a_time(grouped):
    labels, logits = make_case(60, seed=3)
    # Patients of 1 to 6 images, whose numbers are neither in order nor without gaps.
    groups = np.repeat([7, 3, 40, 11, 5, 2, 9, 1, 30, 8, 4, 6], [6, 1, 9, 2, 5, 4, 3, 7, 8, 5, 4, 6])
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)] if grouped else np.arange(60)[:, None]
    measured = compute_classification_metrics(labels, logits, NAMES, groups=groups if grouped else None)
    assert measured["num_units"] == (12 if grouped else 60)
    rng, p, found = np.random.default_rng(8), softmax(logits), []
    for _ in range(600):
        i = np.concatenate([members[u] for u in rng.integers(0, len(members), len(members))])
        y, guess = labels[i], p[i].argmax(axis=1)
        recall = np.mean([(guess[y == c] == c).mean() for c in np.unique(y)])
        edges, sure = np.arange(1, 15) / 15, p[i].max(axis=1)
        bins = np.searchsorted(edges, sure, side="left")
        distance = sum(abs(((guess == y) - sure)[bins == b].sum()) for b in range(15)) / len(i)
        found.append([(guess == y).mean(), recall, sk.roc_auc_score(y == 1, p[i][:, 1]), distance])
    expected = np.percentile(found, [2.5, 97.5], axis=0).T
    intervals = measured["intervals"]
    ours = [
        intervals["accuracy"],
        intervals["recall"],
        intervals["per_class"]["b"]["auc"],
        intervals["ece"],
    ]
    assert np.allclose(ours, expected, atol=0.03)


def test_intervals_follow_from_the_seed_and_widen_with_groups():
    labels, logits = make_case(200, seed=5)
    labels, logits, groups = np.repeat(labels, 4), np.repeat(logits, 4, axis=0), np.repeat(np.arange(200), 4)

    def measure(**options):
        return compute_classification_metrics(labels, logits, NAMES, **options)["intervals"]

    assert measure(seed=1) == measure(seed=1) != measure(seed=2)
    images, patients = measure()["accuracy"], measure(groups=groups)["accuracy"]
    # Four copies of an image say no more than one: the interval over images is half as wide as it should be.
    assert np.ptp(patients) == pytest.approx(2 * np.ptp(images), rel=0.15)


def test_chunks_change_nothing(monkeypatch):
    labels, logits = make_case(50)
    whole = compute_classification_metrics(labels, logits, NAMES)["intervals"]
    monkeypatch.setattr("fedutils.metrics._CHUNK", 50 * 333)  # the last chunk has 2 draws
    parts = compute_classification_metrics(labels, logits, NAMES)["intervals"]
    for key in ("accuracy", *KEYS, "ece", "nll", "brier"):
        assert parts[key] == pytest.approx(whole[key], rel=1e-12)


def test_eight_hundred_images_take_well_under_a_second():
    labels, logits = make_case(800, num_classes=4)
    start = time.process_time()
    compute_classification_metrics(labels, logits, tuple("abcd"))
    assert time.process_time() - start < 2  # about 0.3 on one core


def test_reliability_by_hand():
    # Largest probabilities .6 .6 .6 .5 .9: bins (.5, .75], (.25, .5] and (.75, 1] of four.
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    records = compute_reliability(np.array([0, 1, 1, 0, 0]), p, num_bins=4)
    assert [r["n"] for r in records] == [0, 1, 3, 1]
    assert (records[0]["confidence"], records[0]["accuracy"]) == (None, None)
    assert records[2]["confidence"] == pytest.approx(0.6) and records[2]["accuracy"] == pytest.approx(2 / 3)
    assert (records[3]["low"], records[3]["high"], records[3]["accuracy"]) == (0.75, 1.0, 0)


def test_the_calibration_error_is_the_reliability_diagrams():
    labels, logits = make_case(300)
    measured = compute_classification_metrics(labels, 3 * logits, NAMES)
    filled = [r for r in measured["reliability"] if r["n"]]
    assert len(measured["reliability"]) == 15 and sum(r["n"] for r in filled) == 300
    by_bins = sum(r["n"] * abs(r["accuracy"] - r["confidence"]) for r in filled) / 300
    assert measured["ece"] == pytest.approx(by_bins)


@pytest.mark.parametrize(
    ("labels", "logits", "groups", "message"),
    [
        ([], np.zeros((0, 3)), None, r"expected shapes \(N,\) and \(N, 3\) of at least one image, found"),
        ([0, 1], np.zeros((2, 4)), None, r"found \(2,\) and \(2, 4\); give one row of logits an image"),
        ([0, 3], np.zeros((2, 3)), None, "labels: expected integers from 0 to 2, found int64 from 0 to 3"),
        ([0.0, 1.0], np.zeros((2, 3)), None, "found float64 from 0.0 to 1.0; give the index"),
        ([0, 1], np.full((2, 3), np.nan), None, "logits: expected finite numbers, found 6 that are not"),
        ([0, 1], np.zeros((2, 3)), [1], r"groups: expected one number an image, shape \(2,\), found \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused(labels, logits, groups, message):
    with pytest.raises(InputError, match=message):
        compute_classification_metrics(np.asarray(labels), logits, NAMES, groups=groups)


def test_summary_over_seeds():
    assert summarise([1.0, 3.0]) == {"mean": 2.0, "std": pytest.approx(2**0.5), "values": [1.0, 3.0]}
    assert summarise([0.5])["std"] == 0.0


def test_two_classifiers_are_compared_image_by_image():
    right = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
    reference = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], bool)
    told = compare_accuracy(right, reference)
    assert told["by_seed"] == [0.5, -0.25] and told["difference"] == 0.125
    low, high = told["interval"]
    # Per image, over seeds: 0, .5, 0, 0. A draw of four has mean 0 to .5, and .125 most often.
    assert low == 0 and 0.25 <= high <= 0.5


def test_a_difference_between_equal_classifiers_is_zero_whatever_is_drawn():
    right = np.random.default_rng(0).random((3, 50)) < 0.7
    assert compare_accuracy(right, right)["interval"] == [0, 0]


def test_the_interval_of_a_difference_is_that_of_its_standard_error():
    rng = np.random.default_rng(1)
    right, reference = rng.random((1, 2000)) < 0.9, rng.random((1, 2000)) < 0.8
    low, high = compare_accuracy(right, reference)["interval"]
    error = np.std(right.astype(float) - reference) / np.sqrt(2000)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.08)
    # The images of a group come and go together: ten alike make one.
    tenfold = [np.repeat(one, 10, axis=1) for one in (right, reference)]
    low, high = compare_accuracy(*tenfold, groups=np.repeat(np.arange(2000), 10))["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_classifiers_of_other_images_are_refused():
    with pytest.raises(InputError, match=r"expected one shape \(seeds, images\), found \(1, 3\)"):
        compare_accuracy(np.ones((1, 3), bool), np.ones((1, 4), bool))
