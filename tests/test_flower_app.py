"""Flower: the client's training, strategies round by round, resume, and real processes with TLS and keys."""

import dataclasses
import json
import re
import shlex
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed: run make setup")

from flower_helpers import (
    SIDE,
    find_port,
    flower_processes,
    make_settings,
    make_task,
)
from flwr.app import Error, Message

from fedutils import paths
from fedutils.cli import build_parser, main
from fedutils.errors import InputError
from fedutils.flower_local import LocalGrid, run_locally
from fedutils.flower_messages import make_reply, unpack_weights
from fedutils.flower_project import make_node_key, write_project
from fedutils.flower_settings import ALGORITHMS, AppSettings, HospitalPlace, read_hospital, read_settings
from fedutils.hospital.certificates import make_certificates

PAGE = (paths.ROOT / "docs" / "flower.md").read_text()
PATHS = {"model": "m.keras", "validation": "v", "out": "o"}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Give a folder with a model and validation images, and three hospitals."""
    return make_task(tmp_path_factory.mktemp("flower"))


class ScriptedGrid(LocalGrid):
    """Three hospitals whose training is a line of arithmetic; answers arrive in another order each time."""

    CASES = (10, 30, 20)

    def __init__(self, failing=(), clients=(0, 1, 2)):
        super().__init__([HospitalPlace(name, k, Path(name)) for k, name in enumerate("abc")])
        self.failing, self.clients, self.seen = set(failing), clients, []

    def send_and_receive(self, messages, *, timeout=None):
        by_node = {message.metadata.dst_node_id: message for message in messages}
        ordered = [by_node[node_id] for node_id in self.get_node_ids()]
        replies = [self.answer(k, message) for k, message in enumerate(ordered)]
        turn = len(self.seen) // 3 % 3
        return replies[turn:] + replies[:turn]

    def answer(self, k, message):
        self.seen.append((k, dict(message.content["config"])))
        if k in self.failing:
            return Message(Error(2, "no images"), reply_to=message)
        assert all(array.dtype == "float32" for array in message.content["arrays"].values())
        weights = unpack_weights(message.content["arrays"])
        metrics = {"num-examples": self.CASES[k], "loss": float(k), "accuracy": 0.5}
        place = HospitalPlace("abc"[k], self.clients[k], Path())
        return make_reply(message, move(weights, k), metrics, place)


def move(weights, k):
    """Return what hospital k makes of weights."""
    return [np.float32(0.7) * w + np.float32(0.1 * (k + 1)) for w in weights]


def begin():
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (5,), (2, 3, 4))]


def run_scripted(folder, algorithm="fedavg", num_rounds=4, grid=None, **changes):
    """Return the run, and the weights after its last round."""
    from fedutils.flower_server import run_rounds

    settings = make_settings(folder, algorithm=algorithm, num_rounds=num_rounds, **changes)
    last = []

    def measure(weights):
        last[:] = weights
        return {"accuracy": -abs(float(weights[0].sum()))}

    run = run_rounds(grid or ScriptedGrid(), settings, b"a model", begin(), measure, folder)
    return run, list(last)


def step_by_hand(algorithm, weights, mean, kept, number):
    """Return the weights after a round by the published formulas, with the constants of Flower."""
    if algorithm in ("fedavg", "fedprox"):
        return mean
    update = [m - w for m, w in zip(mean, weights, strict=True)]
    moments, squares = kept.get("m", [0.0] * 3), kept.get("v", [0.0] * 3)
    if algorithm == "fedavgm":
        kept["m"] = [0.9 * m + u for m, u in zip(moments, update, strict=True)]
        return [w + m for w, m in zip(weights, kept["m"], strict=True)]
    first = 0.0 if algorithm == "fedadagrad" else 0.9
    kept["m"] = [first * m + (1 - first) * u for m, u in zip(moments, update, strict=True)]
    rule = {
        "fedadam": lambda v, u: 0.99 * v + 0.01 * u**2,
        "fedyogi": lambda v, u: v - 0.01 * u**2 * np.sign(v - u**2),
        "fedadagrad": lambda v, u: v + u**2,
    }[algorithm]
    kept["v"] = [rule(v, u) for v, u in zip(squares, update, strict=True)]
    rate = 0.01 if algorithm == "fedyogi" else 0.1
    if algorithm == "fedadam":  # Flower 1.41 corrects the bias as if the round were one later
        rate *= np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
    parts = zip(weights, kept["m"], kept["v"], strict=True)
    return [w + rate * m / (np.sqrt(v) + 1e-3) for w, m, v in parts]


# ---- the server's rounds


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_strategy_weights_hospitals_by_their_cases_and_follows_its_paper(tmp_path, algorithm):
    _, found = run_scripted(tmp_path, algorithm, num_rounds=3)
    weights, kept = [w.astype(np.float64) for w in begin()], {}
    for number in (1, 2, 3):
        each = [move(weights, k) for k in range(3)]
        mean = [(10 * a + 30 * b + 20 * c) / 60 for a, b, c in zip(*each, strict=True)]
        weights = step_by_hand(algorithm, weights, mean, kept, number)
    for ours, by_hand in zip(found, weights, strict=True):
        assert ours.dtype == np.float32 and np.allclose(ours, by_hand, atol=2e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_that_was_stopped_ends_with_the_same_weights_bit_for_bit(tmp_path, algorithm):
    whole, expected = run_scripted(tmp_path / "whole", algorithm)
    run_scripted(tmp_path / "stopped", algorithm, num_rounds=2)
    resumed, found = run_scripted(tmp_path / "stopped", algorithm)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(resumed.weights, whole.weights, strict=True))
    assert [e["validation_accuracy"] for e in resumed.history] == [
        e["validation_accuracy"] for e in whole.history
    ]


def test_hospitals_are_told_the_round_its_learning_rate_and_the_proximal_strength(tmp_path):
    grid = ScriptedGrid()
    changes = {"client_learning_rate": 0.2, "decay_rounds": 4, "proximal_mu": 0.3}
    run, _ = run_scripted(tmp_path, "fedprox", 3, grid, **changes)
    told = [config for k, config in grid.seen if k == 0]
    assert [config["server-round"] for config in told] == [1, 2, 3]
    by_hand = [0.2, 0.1 * (1 + np.sqrt(0.5)), 0.1]  # 0.2 (1 + cos(pi r / 4)) / 2
    assert np.allclose([config["learning-rate"] for config in told], by_hand)
    assert {config["proximal-mu"] for config in told} == {0.3} and told[0]["model"] == b"a model"
    entry = run.history[-1]
    assert entry["hospitals"] == ["a", "b", "c"] and entry["client_num_examples"] == [10, 30, 20]
    assert entry["training_loss"] == pytest.approx((30 * 1 + 20 * 2) / 60)
    plain = ScriptedGrid()
    run_scripted(tmp_path / "plain", num_rounds=1, grid=plain)
    assert "proximal-mu" not in plain.seen[0][1]


def test_a_round_with_too_few_answers_stops_the_run_which_then_goes_on(tmp_path):
    run_scripted(tmp_path, num_rounds=1)
    with pytest.raises(InputError, match="round 2: expected answers of 3 hospitals, found 2 and this: no im"):
        run_scripted(tmp_path, grid=ScriptedGrid(failing=[1]))
    run, found = run_scripted(tmp_path)
    assert len(run.history) == 4
    _, expected = run_scripted(tmp_path / "whole")
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_hospital_too_many_may_fail(tmp_path):
    run, _ = run_scripted(tmp_path, grid=ScriptedGrid(failing=[1]), num_rounds=1, hospitals=2)
    assert run.history[0]["hospitals"] == ["a", "c"]


def test_two_hospitals_with_one_number_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"its own of each hospital, found the numbers \[0, 2, 2\]"):
        run_scripted(tmp_path, grid=ScriptedGrid(clients=(0, 2, 2)))


def test_a_run_of_other_settings_is_not_gone_on_with_nor_written_over(tmp_path):
    run_scripted(tmp_path, num_rounds=1)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    with pytest.raises(InputError, match="expected a run with these settings and this model, found another"):
        run_scripted(tmp_path, batch_size=5)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["best"] == 1 and len(history["rounds"]) == 1


# ---- a hospital's training


def test_a_hospital_takes_the_steps_of_a_simulated_client(task):
    import keras
    import tensorflow as tf

    from fedutils.federated import ArrayClients
    from fedutils.flower_client import train_round
    from fedutils.hospital.training import load_cases
    from fedutils.model_file import load_model

    root, places = task
    place = dataclasses.replace(places[1], client=2)
    model, info = load_model(root / "small.keras")
    begun = [v.numpy() for v in model.trainable_variables]
    config = make_config(root, mu=0.5)
    trained = train_round(config, begun, place)
    clients = ArrayClients(
        [load_cases(info, place.data)] * 3, batch_size=4, local_epochs=2, augment=False, seed=5
    )
    losses = []
    for images, labels in clients.batches(2, 3):
        with tf.GradientTape() as tape:
            each = keras.losses.sparse_categorical_crossentropy(labels, model(images), from_logits=True)
            mean = tf.reduce_mean(each)
        losses += each.numpy().tolist()
        gradients = tape.gradient(mean, model.trainable_variables)
        for weight, gradient, anchor in zip(model.trainable_variables, gradients, begun, strict=True):
            weight.assign_sub(0.05 * (gradient + 0.5 * (weight - anchor)))
    for ours, by_hand in zip(trained.weights, model.trainable_variables, strict=True):
        assert np.allclose(ours, by_hand.numpy(), atol=1e-6)
    assert trained.metrics["num-examples"] == 18 and len(losses) == 36
    assert trained.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def make_config(root, mu=None, **changes):
    config = {
        "model": (root / "small.keras").read_bytes(),
        "server-round": 4,
        "optimizer": "sgd",
        "learning-rate": 0.05,
        "batch-size": 4,
        "local-epochs": 2,
        "augment": False,
        "seed": 5,
    }
    return config | ({} if mu is None else {"proximal-mu": mu}) | changes


def test_a_hospital_answers_an_error_that_does_not_name_its_folder(task, tmp_path, capfd):
    root, places = task
    broken = [*places[:2], HospitalPlace("gamma", 2, tmp_path / "secret")]
    with pytest.raises(InputError, match="round 1: expected answers of 3 hospitals, found 2") as error:
        run_locally(make_settings(root, out=str(tmp_path / "run")), broken)
    assert "the hospital's folder" in str(error.value) and "secret" not in str(error.value)
    assert f"error: {tmp_path / 'secret'}: expected the hospital's images" in capfd.readouterr().err
    with pytest.raises(InputError, match="expected finite weights after training, found NaN or infinity"):
        wild = make_settings(root, out=str(tmp_path / "wild"), client_learning_rate=1e30)
        run_locally(wild, places)


def test_the_best_round_on_validation_images_is_saved_as_a_model(task, tmp_path):
    from fedutils.centralized import evaluate
    from fedutils.flower_server import load_validation
    from fedutils.model_file import load_model

    root, places = task
    run = run_locally(make_settings(root, out=str(tmp_path), hospitals=2), places[:2])
    scores = [entry["validation_accuracy"] for entry in run.history]
    assert len(scores) == 3 and run.best == int(np.argmax(scores))
    model, info = load_model(tmp_path / "model.keras")
    measured = evaluate(model, load_validation(root / "validation" / "Training", SIDE))
    assert measured["accuracy"] == pytest.approx(scores[run.best])
    assert info.trained_on["hospitals"] == ["alpha", "beta"] and info.trained_on["images"] == 32
    with pytest.raises(InputError, match="hospitals: expected 3 or more, found 1"):
        run_locally(make_settings(root, out=str(tmp_path / "b")), places[:1])


# ---- settings, keys, project


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "expected a path for model, found none"),
        ({"num-rounds": 0}, "num-rounds: expected 1 to 10,000, found 0"),
        ({"num-rounds": "3"}, "num-rounds: expected a whole number, found '3'"),
        ({"augment": 1}, "augment: expected true or false, found 1"),
        ({"algorithm": "krum"}, "algorithm: expected one of fedavg"),
        ({"client-optimizer": "lion"}, "client-optimizer: expected one of sgd"),
        ({"client-learning-rate": float("nan")}, "client-learning-rate: expected a number above 0"),
        ({"server-momentum": 1.0}, "server-momentum: expected 0 to below 1"),
        ({"seed": 100_000}, "seed: expected 0 to 99,999"),
        ({"num_rounds": 3}, "found 'num_rounds'"),
    ],
)
def test_the_run_config_is_checked_entry_by_entry(change, message):
    assert read_settings(PATHS | {"client-learning-rate": 1}).client_learning_rate == 1.0
    with pytest.raises(InputError, match=re.escape(message)):
        read_settings(PATHS | change)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "expected hospital, as in --node-config"),
        ({"hospital": "alpha", "client": "0", "data": "d"}, "expected client, as in"),
        ({"hospital": "alpha", "client": 0}, "expected data, as in"),
        ({"hospital": "alpha", "client": 1000, "data": "d"}, "client: expected 0 to 999"),
        ({"partition-id": 0, "num-partitions": 2}, "expected hospital"),
    ],
)
def test_a_supernode_must_say_who_it_is(config, message):
    with pytest.raises(InputError, match=message):
        read_hospital(config, {})


def test_simulated_hospitals_are_the_folders_and_never_those_of_a_supernode_with_images(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    run = {"simulated-hospitals": str(tmp_path)}
    assert read_hospital({"partition-id": 1}, run) == HospitalPlace("b", 1, tmp_path / "b")
    with pytest.raises(InputError, match="expected a folder of each of 3 hospitals or more, found 2"):
        read_hospital({"partition-id": 2}, run)
    own = {"hospital": "x", "client": 0, "data": "own", "partition-id": 1}
    assert read_hospital(own, run).data == Path("own")


def test_a_key_is_its_owners_alone_and_never_written_over(tmp_path):
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

    private, public = make_node_key(tmp_path / "keys", "alpha")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    of_private = load_ssh_private_key(private.read_bytes(), None).public_key().public_numbers()
    assert of_private == load_ssh_public_key(public.read_bytes()).public_numbers()
    with pytest.raises(InputError, match="has no such key"):
        make_node_key(tmp_path / "keys", "alpha")
    assert main(["flower", "key", "--out", str(tmp_path), "--hospital", "../x"]) == 2


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flower_takes_the_project_and_gives_the_settings_back(tmp_path, monkeypatch):
    from flwr.cli.build import build_fab_from_disk
    from flwr.cli.config_utils import load_and_validate
    from flwr.cli.flower_config import read_superlink_connection

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    settings = read_settings(PATHS | {"hospitals": 5, "server-learning-rate": 0.5})
    write_project(tmp_path, settings, superlink="fl.example.org:9092", authority=Path("a.pem"))
    config, warnings = load_and_validate(tmp_path / "app" / "pyproject.toml")
    assert not warnings and len(build_fab_from_disk(tmp_path / "app")) < 10_000
    back = read_settings(config["tool"]["flwr"]["app"]["config"])
    absolute = {name: str(tmp_path / value) for name, value in PATHS.items()}
    assert back == dataclasses.replace(settings, **absolute)
    connection = read_superlink_connection("hospitals")
    assert connection.address == "fl.example.org:9092"
    assert connection.root_certificates == str(tmp_path / "a.pem")
    with pytest.raises(InputError, match="--superlink: expected host:port"):
        write_project(tmp_path, settings, superlink="fl.example.org", authority=Path("a.pem"))


# ---- the page


def list_commands(program):
    """Return the words of each command of the page that begins with a program's name."""
    found = re.findall(rf"^(?:\w+=\S+ )*{program} (?:.*\\\n)*.*", PAGE, re.MULTILINE)
    words = [shlex.split(text.replace("\\\n", " ").rstrip("& "), comments=True) for text in found]
    return [part[part.index(program) + 1 :] for part in words]


def test_the_commands_of_the_page_are_commands():
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    ours = list_commands("fedutils")
    assert {tuple(words[:2]) for words in ours} >= {("flower", "app"), ("flower", "key")}
    for words in ours:
        build_parser().parse_args(words)  # exits if it is none
    links, nodes = list_commands("flower-superlink"), list_commands("flower-supernode")
    assert len(links) == 2 and nodes
    for words in links:
        assert _parse_args_run_superlink().parse_args(words).runtime_dependency_install is False
    for words in nodes:
        options = _parse_args_run_supernode().parse_args(words)
        assert not options.insecure and options.auth_supernode_private_key


def test_the_settings_of_the_page_are_settings():
    from flwr.common.config import parse_config_args

    found = re.findall(r"--run-config '([^']*)'", PAGE)
    assert found
    for text in found:
        read_settings(PATHS | parse_config_args([text]))
    table = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert set(table) == {field.name.replace("_", "-") for field in dataclasses.fields(AppSettings)}


def test_the_example_of_the_page_runs(task):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "docs/flower.md", "exec"), {"folder": task[0]})
    assert (task[0] / "run" / "model.md").read_text().count("Not for clinical use") == 1


# ---- processes


def write_app(root, port, hospitals, *options):
    words = ["flower", "app", "--out", root, "--model", root / "small.keras", "--hospitals", hospitals]
    words += ["--validation", root / "validation", "--run", root / "run", *options]
    assert main([str(word) for word in words]) == 0


def read_history(root):
    return json.loads((root / "run" / "history.json").read_text())["rounds"]


def test_two_hospitals_train_over_superlink_and_supernodes_with_tls_and_keys(tmp_path):
    from fedutils.model_file import load_model

    _, places = make_task(tmp_path, ("alpha", "beta"))
    make_certificates(tmp_path / "certificates")
    server = tmp_path / "certificates" / "server"
    port = find_port()
    write_app(tmp_path, port, 2, "--superlink", f"127.0.0.1:{port}", "--authority", server / "authority.pem")
    settings = make_settings(tmp_path, hospitals=2, num_rounds=1)
    asked = f"num-rounds=1 batch-size={settings.batch_size} seed={settings.seed} augment=false "
    asked += 'client-optimizer="sgd" client-learning-rate=0.05'
    with flower_processes(tmp_path) as flower:
        files = {"certfile": "server.pem", "keyfile": "server.key", "ca-certfile": "authority.pem"}
        tls = [word for name, file in files.items() for word in (f"--ssl-{name}", server / file)]
        flower.start_link(port, *tls, "--enable-supernode-auth")
        for place in places:
            private, public = make_node_key(tmp_path, place.name)
            flower.call("flwr", "supernode", "register", public)
            flower.start_node(place, f"127.0.0.1:{port}", server / "authority.pem", private)
        stranger, _ = make_node_key(tmp_path, "stranger")
        place = dataclasses.replace(places[0], name="stranger")
        refused = flower.start_node(place, f"127.0.0.1:{port}", server / "authority.pem", stranger)
        flower.call("flwr", "run", tmp_path / "app", "--stream", "--run-config", asked, timeout=300)
        assert refused.wait(60) != 0, "a SuperNode whose key nobody registered is turned away"
    (entry,) = read_history(tmp_path)
    assert entry["hospitals"] == ["alpha", "beta"] and entry["client_num_examples"] == [14, 18]
    here = run_locally(dataclasses.replace(settings, out=str(tmp_path / "here")), places)
    over_network, _ = load_model(tmp_path / "run" / "model.keras")
    for ours, theirs in zip(here.weights, over_network.trainable_variables, strict=True):
        assert np.allclose(ours, theirs.numpy(), atol=1e-6)


def test_the_simulation_engine_trains_the_folders_as_hospitals(tmp_path):
    make_task(tmp_path, ("alpha", "beta"))
    port = find_port()
    options = ["--simulated-hospitals", tmp_path / "hospitals", "--simulation-port", port]
    write_app(tmp_path, port, 2, *options)
    with flower_processes(tmp_path) as flower, tempfile.TemporaryDirectory(prefix="ray") as sockets:
        flower.environment |= {"RAY_TMPDIR": sockets, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        flower.start_link(port, "--simulation", "--insecure")
        words = ["simulation", "--stream", "--run-config", "num-rounds=1 batch-size=4 augment=false"]
        size = "num-supernodes=2 client-resources-num-cpus=1 init-args-num-cpus=1"
        flower.call("flwr", "run", tmp_path / "app", *words, "--federation-config", size, timeout=300)
    (entry,) = read_history(tmp_path)
    assert entry["hospitals"] == ["alpha", "beta"] and entry["clients"] == [0, 1]
