"""The replay of runs, without a browser: its slider is moved, and the figure is looked into."""

import copy

import numpy as np
import pytest
from study_records import CENTRAL, FEDAVG

from fedutils import replay
from fedutils.communication import Lines
from fedutils.errors import InputError
from fedutils.replay import RunReplay, load_history, make_frames, replay_runs
from fedutils.round_store import RoundStore
from fedutils.runs import Run
from fedutils.study_costs import compute_costs, measure_time_to

HISTORY = [
    {"clients": [0, 1], "client_loss": [1.0, 2.0]},
    {"clients": [2], "client_loss": [0.5]},
    {"clients": [0, 1, 2], "client_loss": [0.1, 0.2, 0.3]},
]


def widths(box, panel):
    return [bar.get_width() for bar in box.figure.axes[panel].patches]


def test_a_hospitals_share_is_its_images_among_those_that_took_part():
    frames = make_frames(FEDAVG, 1)
    np.testing.assert_allclose(frames.shares[0], [0.25, 0.75, np.nan])  # 10 and 30 images
    np.testing.assert_allclose(frames.shares[1:], [[np.nan, np.nan, 1.0], [0.1, 0.3, 0.6]])
    plain = copy.deepcopy(FEDAVG)
    plain["settings"]["training"]["weighted"] = False
    np.testing.assert_allclose(make_frames(plain, 1).shares[0], [0.5, 0.5, np.nan])


def test_a_hospital_that_did_part_of_its_work_counts_by_that_part():
    history = [
        entry | {"client_num_examples": [[10, 30, 8][k] for k in entry["clients"]]} for entry in HISTORY
    ]
    shares = make_frames(FEDAVG, 1, history=history).shares  # the last holds 60 images, and saw 8
    np.testing.assert_allclose(shares[1:], [[np.nan, np.nan, 1.0], np.divide([10, 30, 8], 48)])
    np.testing.assert_allclose(make_frames(FEDAVG, 1, history=history[:2]).shares[2], [0.1, 0.3, 0.6])
    history[1]["client_num_examples"] = [0]  # what it learned was no number: it has no weight
    np.testing.assert_allclose(make_frames(FEDAVG, 1, history=history).shares[1], [np.nan, np.nan, 0])
    plain = copy.deepcopy(FEDAVG)
    plain["settings"]["training"]["weighted"] = False
    np.testing.assert_allclose(make_frames(plain, 1, history=history).shares[2], [1 / 3] * 3)


def test_a_segmentation_is_refused_in_one_line():
    record = copy.deepcopy(FEDAVG)
    run = record["runs"]["1"]
    run["partition"] = {"hospitals": ["A", "B", "C"], "examples": [1, 2, 3]}
    run["validation"] = {"dice": [0.1, 0.2, 0.3]}
    words = "expected images by class, as of a classification, found examples, hospitals; leave out"
    with pytest.raises(InputError, match=words):
        make_frames(record, 1)
    with pytest.raises(InputError, match=words):
        compute_costs(run, Lines(16, 24, 10, 0.25))
    with pytest.raises(InputError, match="expected accuracy, as of a classification, found dice; leave out"):
        measure_time_to([record], 0.5)
    assert compute_costs(run)["seconds"] is None  # rounds and bytes are known of any task


def test_the_slider_moves_shares_losses_and_the_curve():
    box = RunReplay([make_frames(FEDAVG, 1, history=HISTORY)])
    slider, before = box.controls["round"], box.picture.value
    assert (slider.min, slider.max, slider.value) == (1, 3, 3)
    np.testing.assert_allclose(widths(box, 0), [0.1, 0.3, 0.6])
    slider.value = 2
    assert widths(box, 0) == [0, 0, 1.0] and widths(box, 1) == [0, 0, 0.5]
    curve = box.figure.axes[2].lines[1]
    assert list(curve.get_ydata()) == [0.2, 0.4] and box.picture.value != before
    title = box.figure.get_suptitle()
    assert "FedAvg, skew, seed 1" in title
    assert "round 2: 1 of 3 hospitals, 1.5 MB sent so far, best 40.0 % in round 2" in title
    slider.value = 3
    assert box.picture.value == before


def test_another_run_of_another_length_is_shown_and_the_slider_follows():
    short = make_frames(FEDAVG, 0)
    short = type(short)(**{**vars(short), "shares": short.shares[:2], "accuracy": short.accuracy[:2]})
    box = RunReplay([make_frames(FEDAVG, 1), short])
    box.controls["run"].index = 1
    assert box.controls["round"].max == box.play.max == 2 and box.frames is short
    assert list(box.figure.axes[2].lines[1].get_ydata()) == [0.3, 0.7]
    box.controls["run"].index = 0
    assert box.controls["round"].max == 3 and "seed 1" in box.figure.get_suptitle()


def test_without_the_run_the_losses_are_said_to_be_missing():
    box = replay_runs([CENTRAL, FEDAVG])
    assert "not on this machine" in box.figure.axes[1].texts[0].get_text()
    assert "seed 0" in box.frames.label


def test_the_losses_come_from_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(replay.paths, "output_dir", lambda: tmp_path)
    assert load_history("toy-1") is None
    store = RoundStore(tmp_path / "runs" / "toy-1")
    run = Run(3, weights=[np.zeros(2, np.float32)])
    for number, entry in enumerate(HISTORY):
        run.record({"round": number + 1, "validation_accuracy": 0.1, **entry}, run.weights)
        store.save(run, [np.float32(number)])
    assert [entry["client_loss"] for entry in load_history("toy-1")] == [e["client_loss"] for e in HISTORY]
    box = replay_runs([FEDAVG], seed=1)
    assert widths(box, 1) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_frames(CENTRAL, 0), "expected a federated result, found central"),
        (lambda: make_frames(FEDAVG, 5), "expected one of the seeds done, 0, 1, found 5"),
        (lambda: replay_runs([CENTRAL]), "expected a federated result, found none"),
    ],
)
def test_what_cannot_be_replayed_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
