import numpy as np
import pytest

from fedutils.metrics import bootstrap_accuracy, compute_classification_metrics, softmax, summarise

NAMES = ("a", "b", "c")


def logits_of(predicted, num_classes=3):
    return np.eye(num_classes)[predicted] * 4.0


def test_metrics_by_hand():
    truth = np.array([0, 0, 0, 1, 1, 2])
    measured = compute_classification_metrics(truth, logits_of([0, 0, 1, 1, 2, 2]), NAMES)
    assert measured["n"] == 6 and measured["accuracy"] == pytest.approx(4 / 6)
    assert measured["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert measured["per_class"]["a"]["precision"] == 1 and measured["per_class"]["a"][
        "recall"
    ] == pytest.approx(2 / 3)
    assert measured["per_class"]["b"]["precision"] == 0.5 and measured["per_class"]["b"]["f1"] == 0.5
    assert measured["precision"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    # AUC of class c: the one positive beats 4 negatives and ties with one.
    assert measured["per_class"]["c"]["auc"] == pytest.approx(0.9)


def test_a_class_without_images_has_no_recall_and_does_not_count():
    measured = compute_classification_metrics(np.array([0, 1]), logits_of([0, 2]), NAMES)
    assert measured["per_class"]["c"]["recall"] is None and measured["per_class"]["c"]["auc"] is None
    assert measured["recall"] == 0.5  # the mean over a (1) and b (0)


def test_softmax_is_stable_and_sums_to_one():
    probabilities = softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]]))
    assert np.allclose(probabilities, [[1, 0], [0.5, 0.5]])


def test_bootstrap_interval_matches_the_binomial():
    truth = np.zeros(400, int)
    predicted = np.repeat([0, 1], [320, 80])  # accuracy 0.8, standard error 0.02
    low, high = bootstrap_accuracy(truth, predicted, seed=0)
    assert low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.006)
    assert high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.006)
    assert bootstrap_accuracy(truth, truth, seed=0) == (1.0, 1.0)


def test_summary_over_seeds():
    assert summarise([1.0, 3.0]) == {"mean": 2.0, "std": pytest.approx(2**0.5), "values": [1.0, 3.0]}
    assert summarise([0.5])["std"] == 0.0
