"""A training run goes on from its last epoch, whenever it was stopped, and a finished one is read."""

import functools
import hashlib
import inspect
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from test_epochs import (
    assert_equal,
    build_linear,
    make_task,
    read_all,
    repeat_batch,
    score,
    sequence,
    train,
    train_on_task,
)

from fedutils import epochs, runs
from fedutils.epochs import train_epochs
from fedutils.errors import InputError


@functools.cache
def train_once():
    """Train without a folder and without a stop."""
    return train_on_task()


def without_seconds(run):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in run.history]


def interrupt_in(epoch, kind=KeyboardInterrupt):
    """Measure as ever until this epoch (from 1), and there be stopped."""
    calls, validation = [], make_task(20, 9)

    def measure(model):
        calls.append(1)
        if len(calls) == epoch:
            raise kind
        return score(model, validation)

    return measure


@pytest.mark.parametrize("epoch", [1, 3])
def test_ctrl_c_leaves_the_last_checkpoint_and_a_second_call_goes_on(epoch, tmp_path):
    whole_model, whole = train_once()
    with pytest.raises(KeyboardInterrupt):
        train_on_task(tmp_path / "parts", measure=interrupt_in(epoch))
    assert (tmp_path / "parts" / "checkpoint.npz").exists() == (epoch > 1)
    model, resumed = train_on_task(tmp_path / "parts")
    assert without_seconds(resumed) == without_seconds(whole) and resumed.best == whole.best
    assert len(whole.history) == 4
    assert_equal(resumed.weights, whole.weights)
    assert_equal(read_all(model), read_all(whole_model))
    assert sorted(file.name for file in (tmp_path / "parts").iterdir()) == [".lock", "run.npz"]


def refuse(*_):
    raise AssertionError("a finished run is not trained again")


def test_a_finished_run_is_read_not_repeated_stopped_early_or_not(tmp_path):
    model, run = train_on_task(tmp_path / "a")
    again, read = train_on_task(tmp_path / "a", measure=refuse)
    assert read.history == run.history and read.planned == 4
    assert_equal(read_all(again), read_all(model))
    early = {"measure": sequence([3, 2, 1]), "patience": 2, "num_epochs": 9}
    model, run = train_on_task(tmp_path / "b", **early)
    again, read = train_on_task(tmp_path / "b", **(early | {"measure": refuse}))
    assert read.history == run.history and (len(read.history), read.planned) == (3, 9)
    assert_equal(read_all(again), read_all(model))
    assert runs.load_run(tmp_path / "b" / "run.npz", 9).history == run.history


def train_linear(folder, stop=None, **options):
    """Train in four epochs, or be interrupted in one; return how many were done in this call."""
    calls = []

    def measure(model):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return {"accuracy": 0.5, "dice": 0.5}

    batches = repeat_batch(np.eye(3), [0, 1, 0])
    train(build_linear(), batches, measure, folder=folder, **({"num_epochs": 4} | options))
    return len(calls)


CHANGES = {
    "num_epochs": 5,
    "steps_per_epoch": 1,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "clip_norm": 1.0,
    "choose_by": "dice",
    "patience": 9,
    "loss_weights": [2.0],
    "class_weights": [1, 2],
}


def test_a_checkpoint_of_other_settings_starts_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_linear(tmp_path, stop=3)
    earlier = (tmp_path / "checkpoint.npz").read_bytes()
    for change in ({"learning_rate": 0.01}, {"num_epochs": 5}):
        assert train_linear(tmp_path, **change) == change.get("num_epochs", 4)
        (tmp_path / "run.npz").unlink()
        (tmp_path / "checkpoint.npz").write_bytes(earlier)
    assert train_linear(tmp_path) == 2
    assert train_linear(tmp_path) == 0
    assert train_linear(tmp_path, patience=9) == 4


def test_a_checkpoint_of_another_network_starts_anew(tmp_path):
    assert train_linear(tmp_path) == 4
    wider = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    run = train(wider, repeat_batch(np.eye(3), [0, 1, 0]), folder=tmp_path)
    assert [w.shape for w in run.weights] == [(3, 2), (2,), (2, 2), (2,)]


def test_every_argument_that_changes_training_is_compared(monkeypatch):
    compared = {}
    monkeypatch.setattr(epochs, "_load", lambda folder, planned, settings: compared.update(settings))
    batches = repeat_batch(np.eye(3), [0, 1, 0])
    arguments = set(inspect.signature(train_epochs).parameters)
    left = arguments - set(CHANGES)
    assert left == {"model", "batches", "measure", "loss", "metrics", "folder", "label"}
    train(build_linear(), batches, sequence([0.0] * 5, "dice"), **CHANGES)
    assert {name: compared[name] for name in CHANGES} == CHANGES


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_linear(tmp_path, stop=3)
    file = tmp_path / "checkpoint.npz"
    whole = file.read_bytes()
    for part in (b"", b"no zip", whole[: len(whole) // 2]):
        file.write_bytes(part)
        with pytest.raises(InputError, match=re.escape(f"{file}: expected a run that fedutils wrote")):
            train_linear(tmp_path)


def test_what_a_kill_while_writing_leaves_is_swept(tmp_path):
    (tmp_path / ".checkpoint.npz.x7f2").write_bytes(b"half")
    train_linear(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "run.npz"]


NUM_EPOCHS = 8
RUN = """
import hashlib, json, sys
sys.path.insert(0, {tests!r})
from test_epochs import read_all, train_on_task
from test_epochs_resume import without_seconds
print("ready", flush=True)
model, run = train_on_task({folder!r}, num_epochs={num_epochs})
parts = [*run.weights, *read_all(model)]
digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
print(json.dumps({{"digest": digest, "best": run.best, "history": without_seconds(run)}}))
"""


def start(folder):
    code = RUN.format(tests=str(Path(__file__).parent), folder=str(folder), num_epochs=NUM_EPOCHS)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_a_random_moment_and_resumed(tmp_path):
    seconds = random.uniform(0, 0.1)  # after the first checkpoint: any moment, that is the point
    killed = start(tmp_path / "killed")
    while not (tmp_path / "killed" / "checkpoint.npz").exists():
        assert killed.poll() is None
        time.sleep(0.002)
    time.sleep(seconds)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, f"it ended before it was killed, after {seconds} s"
    assert not (tmp_path / "killed" / "run.npz").exists()
    resumed = start(tmp_path / "killed")
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0
    model, whole = train_on_task(tmp_path / "whole", num_epochs=NUM_EPOCHS)
    parts = [*whole.weights, *read_all(model)]
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    expected = {"digest": digest, "best": whole.best, "history": without_seconds(whole)}
    assert json.loads(output) == expected, f"killed {seconds} s after the first checkpoint"
    assert sorted(file.name for file in (tmp_path / "killed").iterdir()) == [".lock", "run.npz"]
