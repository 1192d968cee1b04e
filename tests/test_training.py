"""Central and federated training on a task small enough to check: resume, determinism, contributions."""

import functools
import re
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from halves import make_halves

from fedutils import client_models, federated, locks, runs, runtime
from fedutils.algorithms import build_process
from fedutils.centralized import evaluate, set_weights, train_central
from fedutils.data.pipeline import augment_batch, make_batches
from fedutils.errors import DivergenceError, InputError
from fedutils.federated import ArrayClients, measure_contributions, sample_clients, train_federated
from fedutils.models.classification import build_separable_cnn
from fedutils.round_store import RoundStore


@pytest.fixture(scope="module", autouse=True)
def in_process():
    runtime.use("in_process")


def make_task(count, seed):
    return make_halves(count, seed, (8, 10))


CLIENTS = [make_task(n, n) for n in (10, 16, 7)]
VALIDATION = make_task(30, 99)


def make_clients(arrays=CLIENTS):
    return ArrayClients(arrays, batch_size=4, local_epochs=2, augment=False, seed=5)


@functools.cache
def shared_process():
    return build_process(build_model(), client_learning_rate=0.15)


def train(num_rounds, folder=None, **options):
    model, process = build_model(), shared_process()
    run = train_federated(
        process, model, make_clients(), VALIDATION, num_rounds=num_rounds, folder=folder, **options
    )
    return model, run


def build_model():
    inputs = keras.Input((8, 10, 1))
    x = keras.layers.AveragePooling2D((8, 5))(inputs)
    init = keras.initializers.GlorotUniform(seed=3)
    return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer=init)(keras.layers.Flatten()(x)))


def weights_of(model):
    return [v.numpy() for v in model.trainable_variables]


def assert_equal(first, second):
    assert len(first) == len(second)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# ---- the pipeline


def test_batches_cover_every_epoch_in_a_new_order():
    x, y = np.zeros((10, 2, 2, 1), np.float32), np.arange(10, dtype=np.int32)
    batches = [b.numpy() for _, b in make_batches(x, y, batch_size=4, seed=1, epochs=2)]
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert sorted(first) == sorted(second) == list(range(10)) and not np.array_equal(first, second)


def test_batches_follow_from_the_seed_whatever_was_drawn_before():
    x, y = make_task(9, 0)

    def read(seed):
        pipeline = make_batches(x, y, batch_size=4, seed=seed, epochs=2, augment=True)
        return [part.numpy() for batch in pipeline for part in batch]

    first = read(1)
    tf.random.uniform([3])
    assert_equal(first, read(1))
    assert not np.array_equal(first[0], read(2)[0])


def test_augmentation_stays_in_range_and_moves_little():
    images = np.zeros((40, 21, 25, 1), np.float32)
    images[:, 10, 12] = 1.0
    moved = augment_batch(images, np.array([0, 0]), contrast=0.0).numpy()
    assert moved.min() >= 0 and moved.max() <= 1
    centres = np.array([np.unravel_index(m[..., 0].argmax(), (21, 25)) for m in moved])
    assert np.abs(centres - [10, 12]).max() <= 3  # 6 % of the side, and rounding
    assert len(np.unique(moved.reshape(40, -1), axis=0)) > 10


def test_augmentation_without_change_is_a_mirror_at_most():
    images = np.random.default_rng(0).random((12, 5, 7, 1), np.float32)
    same = augment_batch(images, np.array([3, 1]), rotation=0, scale=0, shift=0, contrast=0).numpy()
    mirrored = 0
    for before, after in zip(images, same, strict=True):
        is_mirror = np.allclose(after, before[:, ::-1], atol=1e-5)
        assert is_mirror or np.allclose(after, before, atol=1e-5)
        mirrored += is_mirror
    assert 0 < mirrored < 12


# ---- central


def test_central_training_learns_and_keeps_the_best_epoch(tmp_path):
    model = build_model()
    options = {"num_epochs": 6, "batch_size": 4, "learning_rate": 0.05, "augment": False, "seed": 1}
    run = train_central(model, make_task(60, 1), VALIDATION, **options, folder=tmp_path)
    assert run.history[-1]["epoch"] == 6 and evaluate(model, VALIDATION)["accuracy"] > 0.95
    assert run.best == int(np.argmax(run.curve("validation_accuracy")))
    assert_equal(weights_of(model), run.weights)
    again = build_model()
    train_central(again, make_task(60, 1), VALIDATION, **options, folder=tmp_path)
    assert_equal(weights_of(again), run.weights)
    fresh = build_model()
    train_central(fresh, make_task(60, 1), VALIDATION, **options)
    assert_equal(weights_of(fresh), run.weights)


# ---- federated


def test_a_round_is_the_weighted_mean_of_the_clients():
    process = build_process(build_model(), client_learning_rate=0.01)
    state = process.initialize()
    batches = [make_clients().batches(k, 0) for k in range(3)]
    alone = [process.get_model_weights(process.next(state, [b]).state).trainable for b in batches]
    together = process.get_model_weights(process.next(state, batches).state).trainable
    for parts, mean in zip(zip(*alone, strict=True), together, strict=True):
        by_hand = (10 * parts[0] + 16 * parts[1] + 7 * parts[2]) / 33
        np.testing.assert_allclose(mean, by_hand, atol=1e-6)


def test_a_run_that_is_stopped_ends_with_the_same_weights(tmp_path):
    whole_model, whole = train(4, tmp_path / "whole", clients_per_round=2)
    assert whole.history[-1]["validation_loss"] < 0.8 * whole.history[0]["validation_loss"]
    train(2, tmp_path / "parts", clients_per_round=2)  # as if killed after round 2
    model, resumed = train(4, tmp_path / "parts", clients_per_round=2)
    assert [h["round"] for h in resumed.history] == [1, 2, 3, 4]
    assert_equal(weights_of(model), weights_of(whole_model))
    for key in ("validation_loss", "training_loss", "clients", "client_accuracy"):
        assert resumed.curve(key).tolist() == whole.curve(key).tolist()
    assert len({tuple(h["clients"]) for h in whole.history}) > 1
    again_model, again = train(4, tmp_path / "parts", clients_per_round=2)
    assert again.history == resumed.history
    assert_equal(weights_of(again_model), weights_of(whole_model))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"choose_by": "-loss"}, "expected checkpoints of a run with choose_by '-loss', found 'accuracy'"),
        ({"seed": 1}, "with seed 1, found 0"),
        ({"clients_per_round": 1}, "with clients_per_round 1, found 2"),
        ({"clients_per_round": None, "participants": lambda r, run: [0]}, "found"),
        ({"settings": {"rate": 0.2}}, "with settings {'rate': 0.2}, found {'rate': 0.15}"),
        ({"num_rounds": 1}, "expected at most 1 rounds, as many as are asked for, found 2; raise num_rounds"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_stays_as_it_is(folder_of_two_rounds, changed, words):
    same = {"num_rounds": 2, "clients_per_round": 2, "settings": {"rate": 0.15}}
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        train(folder=folder_of_two_rounds, **(same | changed))
    assert "\n" not in str(caught.value)
    assert len(train(folder=folder_of_two_rounds, **same)[1].history) == 2


@pytest.fixture(scope="module")
def folder_of_two_rounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "rounds"
    train(2, folder, clients_per_round=2, settings={"rate": 0.15})
    return folder


def test_checkpoints_of_another_model_or_server_are_refused_and_those_that_do_not_say_go_on(tmp_path):
    state, run = [np.zeros(3, np.float32)], runs.Run(3, weights=[np.ones((2, 3), np.float32)])
    store = RoundStore(tmp_path)
    run.record({"round": 1, "validation_accuracy": 0.5}, run.weights)
    store.save(run, state)
    other = runs.Run(3, weights=[np.ones((3, 2), np.float32)])
    with pytest.raises(
        InputError, match="checkpoints of the weights of this process and model, found others"
    ):
        store.load(other, state)
    with pytest.raises(InputError, match="checkpoints of the state of this process"):
        store.load(run, [*state, np.float32(0)])
    store._check(None)  # of an earlier version
    loaded, found = RoundStore(tmp_path).load(runs.Run(3, weights=run.weights), state)
    assert loaded.history == run.history and loaded.best == 0
    assert_equal([*loaded.weights, *found], [*run.weights, *state])


def test_a_folder_in_which_another_trains_is_left_alone_until_it_is_done(tmp_path, monkeypatch):
    folder, found = tmp_path / "run", []
    (folder / "round_1_temp1234").mkdir(parents=True)  # what the other is writing
    held, waiting = threading.Event(), threading.Event()
    monkeypatch.setattr(locks, "_tell", lambda *words: waiting.set())

    def train_elsewhere():
        with locks.hold(folder):
            held.set()
            waiting.wait(20)
            found.extend(path.name for path in folder.iterdir())

    other = threading.Thread(target=train_elsewhere)
    other.start()
    assert held.wait(20)
    train(1, folder)
    other.join()
    assert waiting.is_set() and sorted(found) == [".lock", "round_1_temp1234"]
    assert (folder / "round_1").is_dir() and not (folder / "round_1_temp1234").exists()


def test_a_round_records_what_all_and_each_client_measured(tmp_path):
    _, run = train(2, tmp_path)
    for entry in run.history:
        assert entry["client_num_examples"] == [20, 32, 14]  # two local epochs
        assert entry["training_num_examples"] == 66
        mean = np.average(entry["client_loss"], weights=entry["client_num_examples"])
        assert entry["training_loss"] == pytest.approx(mean, rel=1e-5)
    lines = (tmp_path / "rounds.csv").read_text().splitlines()
    assert lines[0].startswith("round,training_loss") and len(lines) == 3
    assert any((tmp_path / "tensorboard").glob("events.*"))
    assert len(list(tmp_path.glob("round_*"))) == 2
    assert_equal(weights_of(keras.saving.load_model(tmp_path / "model.keras")), run.weights)


def test_only_the_last_two_checkpoints_are_kept_and_torn_ones_are_cleared(tmp_path):
    (tmp_path / "round_3_temp1234").mkdir()
    train(3, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("round_*")) == ["round_2", "round_3"]


def test_the_best_round_is_kept_not_the_last(monkeypatch):
    scores = iter([0.2, 0.9, 0.4])
    model = build_model()
    process = build_process(model, client_learning_rate=0.1)
    seen = []

    def measure(network):
        seen.append(weights_of(network))
        return {"dice": next(scores)}

    run = train_federated(process, model, make_clients(), measure, num_rounds=3, choose_by="dice")
    assert run.best == 1
    assert_equal(weights_of(model), seen[1])


def poison(monkeypatch, when):
    """Leave a global model of no numbers after a round, as a rate that is far too high does."""
    real, calls = federated.advance, []

    def advance(process, state, chosen, data):
        state, metrics = real(process, state, chosen, data)
        calls.append(1)
        if len(calls) == when:
            weights = process.get_model_weights(state)
            bad = tuple(np.full_like(w, np.nan) for w in weights.trainable)
            return process.set_model_weights(state, type(weights)(bad, weights.non_trainable)), metrics
        return state, metrics

    monkeypatch.setattr(federated, "advance", advance)


def test_a_federation_that_diverges_ends_in_one_line_and_keeps_the_rounds_before(tmp_path, monkeypatch):
    poison(monkeypatch, 3)
    with pytest.raises(
        DivergenceError, match="round 3: expected finite weights of the global model, found nan"
    ):
        train(4, tmp_path)
    assert (tmp_path / "round_2").is_dir() and not (tmp_path / "round_3").exists()
    assert not (tmp_path / "model.keras").exists()


def test_a_client_of_no_numbers_counts_nothing_and_stops_nothing():
    images, labels = CLIENTS[1]
    hospitals = make_clients([CLIENTS[0], (np.full_like(images, np.nan), labels), CLIENTS[2]])
    model = build_model()
    run = train_federated(shared_process(), model, hospitals, VALIDATION, num_rounds=2)
    without = build_model()
    others = {"num_rounds": 2, "participants": lambda r, run: [0, 2]}
    train_federated(shared_process(), without, make_clients(), VALIDATION, **others)
    assert [entry["clients"] for entry in run.history] == [[0, 1, 2]] * 2
    for found, expected in zip(weights_of(model), weights_of(without), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_interrupting_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    real = client_models.evaluate
    calls = []

    def interrupted(model, data):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(model, data)

    monkeypatch.setattr(client_models, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(4, tmp_path)
    assert (tmp_path / "round_2").is_dir() and not (tmp_path / "round_3").exists()


def test_clients_of_a_round_follow_from_seed_and_round():
    assert sample_clients(5, None, 0, 1) == sample_clients(5, 5, 0, 1) == [0, 1, 2, 3, 4]
    drawn = [sample_clients(9, 3, r, seed=1) for r in range(40)]
    assert drawn == [sample_clients(9, 3, r, seed=1) for r in range(40)]
    assert all(len(set(d)) == 3 and d == sorted(d) for d in drawn)
    assert {k for d in drawn for k in d} == set(range(9))
    with pytest.raises(InputError, match="expected 1 to 5, the number of clients, found 6"):
        sample_clients(5, 6, 0, 1)


def test_contributions():
    model = build_model()
    before = weights_of(model)
    process = build_process(model, client_learning_rate=0.15)
    set_weights(model, [w + 0.1 for w in before])
    records = measure_contributions(process, model, make_clients(), VALIDATION)
    assert_equal(weights_of(model), [w + 0.1 for w in before])
    assert [r["num_images"] for r in records] == [10, 16, 7]
    assert sum(r["share"] for r in records) == pytest.approx(1)
    assert all(r["update_norm"] > 0 and -1 <= r["cosine"] <= 1 for r in records)
    twins = measure_contributions(process, model, make_clients(CLIENTS[:1]), VALIDATION)
    assert twins[0]["cosine"] == pytest.approx(1) and twins[0]["share"] == 1
    assert twins[0]["update_norm"] == pytest.approx(records[0]["update_norm"])


# ---- runs on disk


def test_a_run_is_found_by_its_settings_and_survives_the_disk(tmp_path):
    assert runs.run_folder("a", {"lr": 0.1}) == runs.run_folder("a", {"lr": 0.1})
    assert runs.run_folder("a", {"lr": 0.1}) != runs.run_folder("a", {"lr": 0.2})
    run = runs.Run(3)
    run.record({"validation_accuracy": 0.5}, [np.ones((2, 3), np.float32)])
    run.record({"validation_accuracy": 0.4}, [np.zeros((2, 3), np.float32)])
    runs.save_run(tmp_path / "r.npz", run)
    read = runs.load_run(tmp_path / "r.npz", 3)
    assert read.history == run.history and read.best == 0
    assert_equal(read.weights, run.weights)
    assert runs.load_run(tmp_path / "none.npz", 3).history == []


# ---- the model


def test_the_model_has_no_state_that_tff_would_drop_and_follows_its_seed():
    model = build_separable_cnn((20, 24, 1), 3, widths=(8, 16), seed=1)
    assert not model.non_trainable_variables
    assert_equal(weights_of(model), weights_of(build_separable_cnn((20, 24, 1), 3, widths=(8, 16), seed=1)))
    other = weights_of(build_separable_cnn((20, 24, 1), 3, widths=(8, 16), seed=2))
    assert not np.array_equal(weights_of(model)[0], other[0])
    assert model(np.zeros((2, 20, 24, 1), np.float32)).shape == (2, 3)


def test_no_convolution_takes_the_path_on_which_tensorflow_writes_past_its_memory():
    # The gradient of a strided 1x1 convolution, TensorFlow 2.21 with oneDNN, 8 channels: heap corruption.
    model = build_separable_cnn((20, 24, 1), 3, widths=(8, 16, 32))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert convolutions
    assert all(c.kernel_size != (1, 1) or c.strides == (1, 1) for c in convolutions)


def test_a_saved_model_gives_the_same_output(tmp_path):
    model = build_separable_cnn((16, 16, 1), 3, widths=(8, 16))
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    assert np.array_equal(model(x), keras.saving.load_model(tmp_path / "m.keras")(x))
