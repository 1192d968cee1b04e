"""The commands of an operator, from certificates to a saved model, and the page that describes them."""

import dataclasses
import json
import re
import shlex
import subprocess

import numpy as np
import pytest
import yaml
from hospital_helpers import COMMAND, ROOT, make_all_certificates, make_arrays, make_state, running
from thriftpy2.thrift import TType

from fedutils.cli import build_parser, main
from fedutils.data.brain_mri import CLASSES
from fedutils.errors import InputError
from fedutils.hospital.client import Received, Refusal
from fedutils.hospital.limits import Limits
from fedutils.hospital.menu import run_menu
from fedutils.hospital.service import DEFAULT_PORT, IDL
from fedutils.hospital.settings import load_settings
from fedutils.hospital.weights import hash_arrays
from fedutils.hospital.workspace import Workspace

PAGE = (ROOT / "docs" / "hospitals.md").read_text()
GOOD = {
    "server": "server.example:9095",
    "certificates": "certificates/alpha",
    "data": "data",
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_all_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """Write a small classifier as ``fedutils`` saves them."""
    from fedutils.model_file import save_model
    from fedutils.model_info import ModelInfo
    from fedutils.models.classification import build_cnn

    info = ModelInfo("Small", "classification", "two convolutions", CLASSES, ("grey",), (16, 16), "grey")
    path = tmp_path_factory.mktemp("model") / "small.keras"
    save_model(path, build_cnn((16, 16, 1), 4, filters=(2, 3), seed=1), info)
    return path


def write_settings(folder, server, name, kaggle, **changes):
    entries = GOOD | {
        "server": f"localhost:{server.port}",
        "certificates": str(server.certificates / name),
        "data": str(kaggle),
        "work": f"work_{name}",
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(entries | changes))
    return path


def test_two_hospitals_train_a_model_and_save_it(tmp_path, certificates, model_path, kaggle, capsys):
    from fedutils.model_file import load_model

    options = ["--model", str(model_path), "--aggregate-when", "2"]
    with running(tmp_path, certificates, *options) as server:
        files = {
            name: write_settings(tmp_path, server, name, kaggle, seed=seed, optimizer=optimizer)
            for name, seed, optimizer in (("alpha", 1, "sgd"), ("beta", 2, "adam"))
        }
        for name, file in files.items():
            words = ["hospital", "client", "--settings", str(file), "--hospital", name, "--do"]
            assert main([*words, "get,train,send,wait" if name == "beta" else "get,train,send"]) == 0
        shown = capsys.readouterr().out
        assert "got version 0: 6 layers" in shown and "trained version 0 on 24 cases" in shown
        assert "the server has version 1" in shown
        words = ["hospital", "client", "--settings", str(files["alpha"]), "--hospital", "alpha"]
        assert main([*words, "--do", "get,evaluate,save"]) == 0
        shown = capsys.readouterr().out
        assert "got version 1" in shown and "accuracy" in shown and "Not for clinical use" in shown
        assert main([*words, "--do", "send"]) == 2  # it was trained from version 0
        assert "error: the server refused (STALE)" in capsys.readouterr().err
    saved, info = load_model(tmp_path / "work_alpha" / "version_1.keras")
    own = [Workspace(tmp_path / f"work_{name}").load_trained().arrays for name in files]
    begun = load_model(model_path)[0].get_weights()
    for mean, one, two, before in zip(saved.get_weights(), *own, begun, strict=True):
        assert np.allclose(mean, (one.astype(np.float64) + two) / 2, rtol=1e-6, atol=0)
        assert not np.array_equal(one, before) and not np.array_equal(one, two)
    assert info.title == "Small" and not list(tmp_path.glob("work_*/*.jpg"))


def test_training_is_plain_gradient_descent_in_the_order_of_a_simulated_client(tmp_path, model_path):
    import keras
    import tensorflow as tf

    from fedutils.federated import ArrayClients
    from fedutils.hospital import training
    from fedutils.model_file import load_model

    rng = np.random.default_rng(0)
    x, y = rng.random((11, 16, 16, 1), np.float32), rng.integers(0, 4, 11).astype(np.int32)
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump(GOOD | {"seed": 5, "client": 2, "batch_size": 4, "epochs": 2})
    )
    settings = load_settings(tmp_path / "s.yaml")
    model, _ = load_model(model_path)
    loss = training.train(model, x, y, 3, settings)
    by_hand, _ = load_model(model_path)
    losses = []
    clients = ArrayClients([(x, y)] * 3, batch_size=4, local_epochs=2, augment=False, seed=5)
    for images, labels in clients.batches(2, 3):
        with tf.GradientTape() as tape:
            each = keras.losses.sparse_categorical_crossentropy(labels, by_hand(images), from_logits=True)
            mean = tf.reduce_mean(each)
        losses += each.numpy().tolist()
        for weight, gradient in zip(
            by_hand.trainable_variables, tape.gradient(mean, by_hand.trainable_variables), strict=True
        ):
            weight.assign_sub(0.01 * gradient)
    assert len(losses) == 22 and loss == pytest.approx(np.mean(losses), rel=1e-5)
    for ours, theirs in zip(model.get_weights(), by_hand.get_weights(), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)


def test_the_console_trains_classifiers_of_these_classes_only(tmp_path, model_path):
    from fedutils.hospital import training
    from fedutils.model_file import load_model

    _, info = load_model(model_path)
    with pytest.raises(InputError, match="expected a classifier of glioma"):
        training.load_cases(dataclasses.replace(info, outputs=("a", "b", "c", "d")), tmp_path)
    with pytest.raises(InputError, match="expected the hospital's images, found no folder"):
        training.load_cases(info, tmp_path / "missing")


def test_a_server_begins_with_safe_models_only_and_goes_on_with_its_own(tmp_path, certificates, model_path):
    words = ["server", "--certificates", str(certificates / "server"), "--port", "0"]

    def start(*options):
        command = [*COMMAND, *words, *options]
        return subprocess.run(command, capture_output=True, text=True, input="4\n", cwd=ROOT, timeout=100)

    state = ["--state", str(tmp_path / "state.db")]
    (tmp_path / "bad.keras").write_bytes(b"PK but no archive")
    done = start(*state, "--model", str(tmp_path / "bad.keras"))
    assert done.returncode == 2 and "expected a whole .keras file" in done.stderr
    assert f"error: {tmp_path / 'bad.keras'}: " in done.stderr and not (tmp_path / "state.db").exists()
    done = start(*state)
    assert done.returncode == 2 and "start it with --model FILE" in done.stderr
    make_state(tmp_path / "state.db", file=b"another")
    done = start(*state, "--model", str(model_path))
    assert done.returncode == 2 and "found that of another model" in done.stderr
    done = start(*state, "--limit", "norm=-1")
    assert done.returncode == 2 and "limit norm: expected a number above 0" in done.stderr


def test_the_servers_menu_aggregates_and_says_how_things_stand(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db")
    with running(tmp_path, certificates) as server, server.console("alpha") as alpha:
        alpha.send(0, 3, make_arrays(1), layers)
    command = [
        *COMMAND,
        "server",
        "--state",
        tmp_path / "state.db",
        "--certificates",
        certificates / "server",
    ]
    done = subprocess.run(
        [*map(str, command), "--port", "0"],
        input="3\n1\n2\n1\nseven\n4\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0
    order = [
        "version 0, 1 sets of weights collected (alpha)\n\nServer",
        "> version 0, 1 sets of weights collected (alpha)",
        "> version 1\n",
        "> version 1\n",
        "error: expected weights for version 1, found none",
        "expected a number from 1 to 4, found 'seven'",
        "logged out",
    ]
    place = 0
    for part in order:
        place = done.stdout.index(part, place) + 1


def test_a_menu_shows_errors_and_goes_on_until_the_operator_logs_out():
    answers, shown, done = iter(["1", "", "9", "2", "3", "1"]), [], []

    def fail():
        raise InputError("expected this, found that")

    entries = [("Do", lambda: done.append(1) or "did"), ("Fail", fail)]
    run_menu("Title", entries, read=lambda _: next(answers), write=shown.append)
    assert done == [1], "nothing after the log out"
    assert shown[1] == "did" and "3. Log out" in shown[0]
    assert "expected a number from 1 to 3, found ''" in shown and "error: expected this, found that" in shown
    shown.clear()

    def end(_):
        raise EOFError

    run_menu("Title", entries, read=end, write=shown.append)
    assert len(shown) == 1


def test_a_hospitals_menu_gets_and_sends_what_its_folder_holds(tmp_path, certificates, monkeypatch, capsys):
    layers = make_state(tmp_path / "state.db")
    with running(tmp_path, certificates) as server:
        file = write_settings(tmp_path, server, "alpha", tmp_path)
        workspace = Workspace(tmp_path / "work_alpha")
        answers = iter(["2", "3", "2", "4", "3"])

        def read(_):
            answer = next(answers)
            if answer == "2" and (workspace.folder / "received.npz").exists():
                workspace.keep_trained(0, 7, layers, make_arrays(4))
            return answer

        monkeypatch.setattr("builtins.input", read)
        assert main(["hospital", "client", "--settings", str(file), "--hospital", "alpha"]) == 0
        with server.console("operator") as boss:
            assert boss.count_collected() == 1
    shown = capsys.readouterr().out
    for part in ("train the model first", "got version 0: 3 layers, 62 weights", "7 cases", "Before you go"):
        assert part in shown


def test_a_lost_acknowledgement_is_asked_for_and_nothing_sent_twice(tmp_path, certificates, monkeypatch):
    layers = make_state(tmp_path / "state.db")
    with running(tmp_path, certificates) as server, server.console("alpha") as alpha:
        receive, lost = type(alpha)._receive, []

        def lose(framed, client, method):
            answer = receive(framed, client, method)
            if method == "commit_submission" and not lost:
                lost.append(method)
                from fedutils.hospital.wire import Closed

                raise Closed("cut")
            return answer

        monkeypatch.setattr(alpha, "_receive", lose)
        alpha.send(0, 3, make_arrays(1), layers)
        assert lost and alpha.count_collected() == 1


def test_weights_that_changed_since_they_were_trained_are_refused(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db")
    workspace = Workspace(tmp_path / "work")
    workspace.keep_trained(0, 3, layers, make_arrays(1))
    trained = workspace.load_trained()
    assert trained.sha256 == hash_arrays(make_arrays(1))
    with running(tmp_path, certificates) as server, server.console("alpha") as alpha:
        with pytest.raises(Refusal, match="WRONG_HASH"):
            alpha.send(0, 3, make_arrays(2), layers, trained.sha256)
        assert alpha.send(0, 3, trained.arrays, layers, trained.sha256) == trained.sha256
        with pytest.raises(Refusal, match="came before"):
            alpha.send(0, 3, trained.arrays, layers, trained.sha256)
        assert alpha.count_collected() == 1


def test_a_server_that_is_not_there_is_a_line(certificates):
    from fedutils.hospital.client import Console

    said = []
    console = Console(
        ("localhost", 1), certificates / "alpha", "alpha", waits_s=(0.01, 0.01), say=said.append
    )
    with pytest.raises(InputError, match="localhost:1: expected a server that answers"):
        console.get_version()
    assert len(said) == 2 and "trying again in 0.01 s" in said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "many"}, "epochs: expected a whole number, found 'many'"),
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"epochs": True}, "epochs: expected a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number above 0"),
        ({"learning_rate": 0}, "learning_rate: expected a number above 0"),
        ({"server": "host:0"}, "server: expected host:port"),
        ({"server": ":9095"}, "server: expected host:port"),
        ({"server": 9095}, "server: expected text"),
        ({"optimizer": "magic"}, "optimizer: expected one of sgd, adam, adamw"),
        ({"data": None}, "data: expected a folder, found None"),
        ({"password": "x"}, "found 'password'"),
        ({"seed": -1}, "seed: expected 0 to"),
    ],
)
def test_settings_are_checked_entry_by_entry(tmp_path, change, message):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(InputError, match=re.escape(message)):
        load_settings(path)


def test_settings_have_defaults_and_paths_beside_the_file(tmp_path):
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(GOOD | {"server": "host"}))
    settings = load_settings(tmp_path / "settings.yaml")
    assert settings.address == ("host", DEFAULT_PORT) and settings.work == tmp_path / "work"
    assert settings.certificates == tmp_path / "certificates" / "alpha"
    (tmp_path / "settings.yaml").write_text("server: [")
    with pytest.raises(InputError, match="expected YAML"):
        load_settings(tmp_path / "settings.yaml")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"server": "host"}))
    with pytest.raises(InputError, match="found no certificates"):
        load_settings(tmp_path / "settings.yaml")
    with pytest.raises(InputError, match="expected a settings file"):
        load_settings(tmp_path / "missing.yaml")


def test_a_folder_of_work_keeps_weights_bit_for_bit_and_refuses_a_damaged_file(tmp_path):
    workspace = Workspace(tmp_path / "work")
    layers = make_state(tmp_path / "state.db")
    workspace.keep_received(Received(4, layers, make_arrays(1), b"file"))
    back = workspace.load_received()
    assert (back.version, back.layers) == (4, layers) and workspace.model_file.read_bytes() == b"file"
    assert all(np.array_equal(a, b) for a, b in zip(back.arrays, make_arrays(1), strict=True))
    assert workspace.folder.stat().st_mode & 0o077 == 0
    path = workspace.folder / "received.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="found a damaged file; get weights from the server first"):
        workspace.load_received()


def test_the_log_is_printed_a_line_an_entry(tmp_path, capsys):
    make_state(tmp_path / "state.db")
    assert main(["hospital", "log", "--state", str(tmp_path / "state.db")]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "created"
    assert main(["hospital", "log", "--state", str(tmp_path / "missing.db")]) == 2


def test_the_commands_of_the_page_are_commands(tmp_path):
    commands = re.findall(r"^fedutils hospital .*(?:\\\n.*)*", PAGE, re.MULTILINE)
    assert len(commands) >= 6
    kinds = set()
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "), comments=True)[1:]
        build_parser().parse_args(words)  # exits if it is none
        kinds.add(words[1])
    assert kinds == {"certificates", "revoke", "server", "client", "log"}


def test_the_settings_of_the_page_are_settings(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "alpha.yaml").write_text(text)
    settings = load_settings(tmp_path / "alpha.yaml")
    assert settings.address[1] == DEFAULT_PORT


def test_the_page_names_every_limit_with_its_default_and_every_reason():
    for name, value in dataclasses.asdict(Limits()).items():
        assert re.search(rf"^\| `{name}` \| {value:,.10g} \|", PAGE, re.MULTILINE), name
    for reason in IDL.Reason._VALUES_TO_NAMES.values():
        assert f"`{reason}`" in PAGE, reason


def test_the_service_has_what_the_first_consoles_had_and_no_list_of_numbers():
    services = IDL.FLServer.thrift_services
    assert {"number_weights_collected", "version_number", "update_weights"} <= set(services)
    for method in services:  # every method refuses in one way, and weights travel as bytes
        result = getattr(IDL.FLServer, f"{method}_result").thrift_spec
        assert result[1][1:3] == ("refused", IDL.Refused)
    assert IDL.FLServer.send_chunk_args.thrift_spec[2][0] == TType.BINARY
