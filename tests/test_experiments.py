"""Experiments as files: read strictly, run to the bit, resumable, written after every seed, and shown."""

import argparse
import copy
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import yaml
from experiment_contents import change_content

from fedutils import (
    cli_experiment,
    epochs,
    experiment_prepare,
    experiment_runs,
    experiments,
    federated,
    locks,
    paths,
)
from fedutils.communication import Messages
from fedutils.errors import DivergenceError, InputError
from fedutils.experiment_checks import NAMED
from fedutils.experiment_file import EXPERIMENTS, list_experiments, load_experiment
from fedutils.experiment_rounds import plan_rounds
from fedutils.experiments import run_experiment
from fedutils.plots_study import plot_study, plot_study_curves
from fedutils.runs import Run
from fedutils.study import load_study
from fedutils.study_tables import build_study_table

SMOKE = yaml.safe_load((EXPERIMENTS / "phantom_smoke.yaml").read_text())


def change(path, value):
    """Return the smoke experiment with one value changed, or removed if None."""
    return {"name": "smoke", **change_content(SMOKE, path, value)}


# ---- the file


@pytest.mark.parametrize("file", list_experiments(), ids=lambda f: f.stem)
def test_every_experiment_of_the_thesis_is_well_formed_and_its_algorithms_are_there(file):
    experiment = load_experiment(file)
    assert experiment.name == file.stem == load_experiment(file.stem).name
    for training in experiment.algorithms.values():
        assert training["algorithm"] in NAMED
    if file.stem.startswith("brain_mri"):
        assert {"local", "fedavg", "fedprox", "fedyogi", "scaffold", "central"} <= set(experiment.algorithms)


def test_the_partitions_of_the_thesis_differ_in_nothing_but_the_partition():
    files = [load_experiment(f) for f in list_experiments() if f.stem.startswith("brain_mri")]
    assert len(files) == 3
    own = ("name", "title", "partition", "where")  # the last is the file, for messages
    assert len({json.dumps({k: v for k, v in vars(e).items() if k not in own}) for e in files}) == 1
    assert len({json.dumps(e.partition) for e in files}) == 3


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("titel", "x", r"experiment smoke: expected one of title, .* found the key 'titel'; .*'title'\?"),
        ("data.imagesize", 3, r"smoke: data: .* found the key 'imagesize'; did you mean 'image_size'\?"),
        ("algorithms.fedavg", {"rounds": 3}, r"algorithms: fedavg: .*'rounds'; did you mean 'num_rounds'\?"),
        ("training.num_rounds", 2.5, r"training: num_rounds: expected int from 1, found 2.5 \(float\)"),
        ("training.num_rounds", True, r"num_rounds: expected int from 1, found True \(bool\)"),
        ("training.num_rounds", 0, "expected int from 1, found 0"),
        ("training.cosine", "yes", "cosine: expected true or false, found 'yes'"),
        ("training.client_learning_rate", "1e-3", "expected float above 0, found '1e-3'"),
        ("model.filters", [8, "16"], "filters: expected a list of int from 1"),
        ("data.validation_fraction", 1, "expected float above 0 below 1, found 1"),
        ("data.source", "mnist", "one of phantom, brain_mri, kaggle_3m, phantom_cases, found 'mnist'"),
        ("partition", None, "expected the key 'partition', found none"),
        ("partition.num_clients", None, "partition: expected the key 'num_clients', found none"),
        ("participation", [1], r"participation: expected keys and values, found \[1\]"),
        ("participation.strategy", "best", "one of random, by_size, by_loss, found 'best'"),
        ("algorithms", None, "expected training.algorithm or a section algorithms, found neither"),
        ("algorithms", {}, "algorithms: expected at least one"),
        ("algorithms.central", {"cosine": False}, "central: expected client_optimizer adamw and cosine true"),
        ("algorithms.local", {"client_optimizer": "sgd"}, "local: expected client_optimizer adamw"),
        ("seeds", [1, 1], "seeds: expected different numbers"),
        ("seeds", [], "seeds: expected different numbers, at least one"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line_that_says_where(path, value, words):
    with pytest.raises(InputError, match=words) as caught:
        load_experiment(change(path, value))
    assert "\n" not in str(caught.value)


def test_a_deadline_needs_a_network():
    content = change("participation.deadline_s", 3)
    load_experiment(content)
    del content["network"]
    with pytest.raises(InputError, match="expected a section network beside deadline_s"):
        load_experiment(content)


def test_central_training_may_be_that_of_another_file_with_the_same_data_and_as_many_passes():
    content = change("algorithms.central", None) | {"central_from": "phantom_smoke"}
    experiment = load_experiment(content)
    assert experiment.bounds == {"local": "smoke", "central": "phantom_smoke"}
    assert load_experiment(SMOKE | {"name": "x"}).bounds == {"local": "x", "central": "x"}
    by_path = load_experiment(content | {"central_from": str(EXPERIMENTS / "phantom_smoke.yaml")})
    assert by_path.bounds["central"] == "phantom_smoke"
    assert experiment.describe("fedavg") == load_experiment(SMOKE).describe("fedavg")  # the runs are the same
    longer = content | {"algorithms": {"fedavg": {"local_epochs": 2}}}
    with pytest.raises(InputError, match="found passes 3 there and 6 of fedavg here; name another"):
        load_experiment(longer)
    slower = content | {"training": {**content["training"], "client_learning_rate": 0.003}}
    with pytest.raises(InputError, match=r"found client_learning_rate 0\.01 there and 0\.003 of the section"):
        load_experiment(slower)
    own = {name: {"client_learning_rate": 0.3} for name in slower["algorithms"]}
    load_experiment(content | {"algorithms": own})  # of other algorithms: the bound has the section's
    with pytest.raises(InputError, match=r"as here, found seeds \(0,\) there and \(1,\) of local here"):
        load_experiment(content | {"seeds": [1]})
    with pytest.raises(InputError, match="expected the algorithm central in phantom_smoke and not here"):
        load_experiment(SMOKE | {"central_from": "phantom_smoke"})
    with pytest.raises(InputError, match="nowhere: expected an experiment, found: No such file"):
        load_experiment(content | {"central_from": "nowhere"})


def test_hospitals_alone_may_be_those_of_another_file_with_the_same_partition():
    content = change("algorithms.local", None) | {"local_from": "phantom_smoke"}
    experiment = load_experiment(content)
    assert experiment.bounds == {"local": "phantom_smoke", "central": "smoke"}
    with pytest.raises(InputError, match=r"local_from: expected phantom_smoke to train .* partition"):
        load_experiment(content | {"partition": {"kind": "iid", "num_clients": 3}})
    with pytest.raises(InputError, match="local_from: expected the algorithm local in phantom_smoke"):
        load_experiment(SMOKE | {"local_from": "phantom_smoke"})


def test_files_that_name_each_other_for_central_training_end_in_a_message(tmp_path):
    content = {key: value for key, value in change("algorithms.central", None).items() if key != "name"}
    for name, other in (("itself", "itself"), ("first", "second"), ("second", "first")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | {"central_from": str(tmp_path / f"{other}.yaml")}))
    for name, other in (("itself", "itself"), ("first", "second")):
        with pytest.raises(InputError, match=f"expected the algorithm central in {other} and not here"):
            load_experiment(tmp_path / f"{name}.yaml")


def test_a_file_that_is_no_experiment_is_refused(tmp_path):
    for name, text, words in (
        ("none.yaml", None, "none.yaml: expected an experiment, found: No such file"),
        ("torn.yaml", "title: [", "torn.yaml: expected YAML, found"),
        ("list.yaml", "- 1", "list.yaml: expected keys and values"),
        ("empty.yaml", "", "empty.yaml: expected keys and values, found None"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=words):
            load_experiment(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("algorithms.fedavg", {"algorithm": "fedmagic"}, "fedavg: expected an algorithm of fedavg,"),
        ("model.groups", 4, "model: expected what cnn takes"),
        ("partition.exponent", 1.0, "partition: expected what dirichlet takes"),
        ("participation.clients_per_round", 4, "clients_per_round: expected 1 to 3"),
        ("participation.clients_per_round", None, "expected clients_per_round with the strategy by_loss"),
        ("participation", {"num_candidates": 2}, "expected num_candidates with the strategy by_loss"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_before_anything_is_trained(
    path, value, words, monkeypatch
):
    monkeypatch.setattr(experiment_prepare, "build_process", None)  # would fail
    with pytest.raises(InputError, match=words):
        run_experiment(change(path, value), algorithms=["fedavg"])


# ---- the run


TWO = {"name": "phantom_smoke", **SMOKE, "seeds": [0, 1]}


@pytest.fixture(scope="module", autouse=True)
def shared_process():
    """Build the one process of this module once."""
    with pytest.MonkeyPatch.context() as patch:
        built, build = {}, experiment_prepare.build_process

        def build_once(model, **options):
            key = json.dumps(options)
            if key not in built:
                built[key] = build(model, **options)
            return built[key]

        patch.setattr(experiment_prepare, "build_process", build_once)
        yield


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Run the smoke experiment once, two seeds of what they cost little."""
    folder = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDUTILS_OUTPUT", str(folder / "output"))
        run_experiment(TWO, algorithms=["fedavg", "central"], folder=folder)
        run_experiment(TWO, algorithms=["local"], seeds=[0], folder=folder)
    return folder


def read(folder, algorithm):
    return json.loads((folder / f"phantom_smoke-{algorithm}.json").read_text())


def test_a_result_says_what_was_planned_done_and_measured(smoke):
    record = read(smoke, "fedavg")
    assert record["seeds"] == record["seeds_planned"] == [0, 1] and record["rounds_planned"] == 3
    assert record["data"]["source"] == "phantom" and record["versions"]
    assert record["settings"]["training"]["client_learning_rate"] == 0.01
    for seed, run in record["runs"].items():
        assert run["seed"] == int(seed) and run["git"] and run["rounds_done"] == run["rounds_planned"] == 3
        accuracy = run["validation"]["accuracy"]
        assert run["best_round"] == 1 + int(np.argmax(accuracy)) and len(accuracy) == 3
        assert run["after"]["2"]["best_round"] == 1 + int(np.argmax(accuracy[:2]))
        if run["best_round"] <= 2:
            assert run["after"]["2"]["test"] == run["test"]
        for part, n in (("deduplicated", record["data"]["num_deduplicated"]), ("public", 24)):
            low, high = run["test"][part]["intervals"]["accuracy"]
            assert run["test"][part]["n"] == n and low <= run["test"][part]["accuracy"] <= high
        assert 0 < run["partition"]["label_distance"] < 1
    both = [record["runs"][s]["test"]["public"]["f1"] for s in ("0", "1")]
    assert record["summary"]["public"]["f1"]["values"] == both
    assert set(record["summary"]["after"]) == {"2"}


def test_the_costs_of_a_run_are_those_of_who_took_part(smoke):
    for run in read(smoke, "fedavg")["runs"].values():
        taking_part = sum(map(len, run["participants"]))
        assert all(1 <= len(clients) <= 2 for clients in run["participants"])
        assert run["bytes"]["up_total"] == taking_part * run["bytes"]["up_per_client"]
        assert run["bytes"]["down_total"] == taking_part * run["bytes"]["down_per_client"]
        clients = run["simulated_s"]["clients"]
        by_hand = [max(clients[k] for k in chosen) for chosen in run["participants"]]
        assert run["simulated_s"]["rounds"] == pytest.approx(by_hand)
        assert run["simulated_s"]["total"] == pytest.approx(sum(by_hand))


def test_local_is_the_mean_of_the_hospitals_and_names_the_worst(smoke):
    for run in read(smoke, "local")["runs"].values():
        own = [test["deduplicated"]["accuracy"] for test in run["hospitals"]["tests"]]
        assert len(own) == 3
        assert run["test"]["deduplicated"]["accuracy"] == pytest.approx(np.mean(own))
        assert run["worst"]["deduplicated"]["accuracy"] == min(own)
        assert len(run["best_round"]) == 3 and "bytes" not in run


def test_a_hospitals_own_mixture_is_weighed_by_hand(smoke):
    run = read(smoke, "central")["runs"]["0"]
    recalls = [run["test"]["public"]["per_class"][c]["recall"] for c in run["partition"]["classes"]]
    for counts, found in zip(
        run["partition"]["counts"], run["hospitals"]["own_mixture"]["public"], strict=True
    ):
        assert found == pytest.approx(sum(n * r for n, r in zip(counts, recalls, strict=True)) / sum(counts))
    assert run["worst"]["public"]["own_mixture"] == min(run["hospitals"]["own_mixture"]["public"])


def without_clocks(run):
    return {key: value for key, value in run.items() if key != "seconds"}


def test_a_run_is_repeated_to_the_bit_from_its_file_and_a_stopped_one_goes_on(smoke, tmp_path, monkeypatch):
    whole = read(smoke, "fedavg")["runs"]["1"]
    real, calls = experiment_runs.train_federated, []

    def stopped(*args, **options):
        calls.append(options["num_rounds"])
        if len(calls) == 2:  # after the reported round
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(experiment_runs, "train_federated", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(TWO, algorithms=["fedavg"], seeds=[1], folder=tmp_path)
    assert not list(tmp_path.glob("*.json"))  # nothing that looks like a result
    record = run_experiment(TWO, algorithms=["fedavg"], seeds=[1], folder=tmp_path)["fedavg"]
    assert calls == [2, 3, 3]  # the reported round was read, not trained again
    assert without_clocks(record["runs"]["1"]) == without_clocks(whole)
    assert record["seeds"] == [1] and record["seeds_planned"] == [0, 1]


def test_a_seed_alone_keeps_what_others_left_unless_it_is_of_other_settings(smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(smoke / "output"))  # its runs are finished: read, not trained
    path = tmp_path / "phantom_smoke-central.json"
    path.write_bytes((smoke / path.name).read_bytes())
    monkeypatch.setattr(experiments, "prepare", None)  # nothing is trained: the result has it
    run_experiment(TWO, algorithms=["central"], seeds=[0], folder=tmp_path)
    record = json.loads(path.read_text())
    assert record["seeds"] == [0, 1]
    assert record["summary"] == read(smoke, "central")["summary"]
    record["runs"]["1"]["run"] = "of-other-settings"
    path.write_text(json.dumps(record))
    run_experiment(TWO, algorithms=["central"], seeds=[0], folder=tmp_path)
    assert json.loads(path.read_text())["seeds"] == [0]


def test_what_was_scored_otherwise_is_scored_again_without_training_and_never_mixed(
    smoke, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(smoke / "output"))
    monkeypatch.setattr(federated, "advance", None)  # nothing is trained
    monkeypatch.setattr(epochs, "_fit", None)
    for name in ("fedavg", "central", "local"):
        whole, path = read(smoke, name), tmp_path / f"phantom_smoke-{name}.json"
        earlier = copy.deepcopy(whole)
        for run in earlier["runs"].values():
            run["scores"], run["test"] = "otherwise", {}
        path.write_text(json.dumps(earlier))
        assert load_study(tmp_path)  # it is read as it is
        record = run_experiment(TWO, algorithms=[name], seeds=[0], folder=tmp_path)[name]
        assert record["seeds"] == [0]  # the other seed was scored otherwise
        seeds = whole["seeds"]
        record = run_experiment(TWO, algorithms=[name], seeds=seeds, folder=tmp_path)[name]
        assert record["seeds"] == seeds and record["summary"] == whole["summary"]
        for seed, run in record["runs"].items():
            assert without_clocks(run) == without_clocks(whole["runs"][seed])


def test_a_result_of_before_scores_were_told_apart_is_read_but_not_taken_for_one_of_today(
    smoke, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(smoke / "output"))
    earlier = read(smoke, "central")
    for run in earlier["runs"].values():
        del run["scores"]
    (tmp_path / "results" / "experiments").mkdir(parents=True)
    (tmp_path / "results" / "experiments" / "phantom_smoke-central.json").write_text(json.dumps(earlier))
    monkeypatch.setattr(paths, "results_dir", lambda: tmp_path / "results")
    assert experiments.collect(TWO, train_missing=False) == [earlier]
    record = run_experiment(TWO, algorithms=["central"])["central"]
    assert record["summary"] == earlier["summary"] and all(run["scores"] for run in record["runs"].values())


def test_a_seed_that_another_process_finished_meanwhile_stays(smoke, tmp_path, monkeypatch):
    whole, path = read(smoke, "central"), tmp_path / "phantom_smoke-central.json"

    def train(seed, folder, label):
        path.write_text(json.dumps({**whole, "seeds": [1], "runs": {"1": whole["runs"]["1"]}}))
        return whole["runs"][str(seed)]

    monkeypatch.setattr(experiments, "prepare", lambda *_: train)
    record = run_experiment(TWO, algorithms=["central"], seeds=[0], folder=tmp_path)["central"]
    assert record["seeds"] == [0, 1] and record["summary"] == whole["summary"]


def test_what_diverges_leaves_no_result_and_stops_nothing_else(smoke, tmp_path, monkeypatch):
    whole = {name: read(smoke, name)["runs"] for name in ("fedavg", "central")}

    def prepare(experiment, task, training, find_start):
        def train(seed, folder, label):
            if training["algorithm"] == "fedavg" and seed == 0:
                raise DivergenceError("round 2: expected finite weights of the global model, found nan")
            told = copy.deepcopy(whole[training["algorithm"]][str(seed)])
            if training["algorithm"] == "central":
                told["validation"]["loss"][1] = np.inf
            return told

        return train

    monkeypatch.setattr(experiments, "prepare", prepare)
    with pytest.raises(DivergenceError, match="found 3 that did not and left no result") as caught:
        run_experiment(TWO, algorithms=["central", "fedavg"], folder=tmp_path)
    told = str(caught.value)
    assert "\n" not in told
    assert (
        "phantom_smoke-fedavg, seed 0, client_learning_rate 0.01, server_learning_rate 1.0: round 2" in told
    )
    assert "phantom_smoke-central, seed 1, client_learning_rate 0.01: epoch 2: expected a finite v" in told
    assert [file.name for file in tmp_path.glob("*.json")] == ["phantom_smoke-fedavg.json"]
    assert json.loads((tmp_path / "phantom_smoke-fedavg.json").read_text())["seeds"] == [1]


def test_a_run_that_another_process_has_in_hand_is_waited_for_and_read(smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(smoke / "output"))
    whole, path = read(smoke, "central"), tmp_path / "phantom_smoke-central.json"
    run_folder = smoke / "output" / "runs" / whole["runs"]["0"]["run"]
    held, waiting = threading.Event(), threading.Event()

    def train_elsewhere():
        with locks.hold(run_folder):
            held.set()
            waiting.wait(20)
            path.write_text(json.dumps({**whole, "seeds": [0], "runs": {"0": whole["runs"]["0"]}}))

    def train(*_):
        raise AssertionError("it was trained twice")

    monkeypatch.setattr(locks, "_tell", lambda *words: waiting.set())
    monkeypatch.setattr(experiments, "prepare", lambda *_: train)
    other = threading.Thread(target=train_elsewhere)
    other.start()
    assert held.wait(20)
    record = run_experiment(TWO, algorithms=["central"], seeds=[0], folder=tmp_path)["central"]
    other.join()
    assert waiting.is_set() and record["runs"]["0"] == whole["runs"]["0"]


def plan_late(late):
    content = change("participation", {"deadline_s": 3.0, "late": late})
    content["network"] = {"down_mbit_s": 8, "up_mbit_s": 4, "images_per_s": 10}
    experiment = load_experiment(content)
    # 0.5 MB at 8 and 0.25 MB at 4 Mbit/s: 0.5 s each. 10 images a second leave time for 20: two batches of 8.
    return plan_rounds(
        experiment, experiment.algorithms["fedavg"], [10, 50, 20], 0, Messages(500_000, 250_000)
    )


def test_late_hospitals_are_left_out_and_the_round_lasts_until_its_deadline():
    plan = plan_late("left_out")
    run = Run(1, history=[{"clients": plan.participants(0, Run(1))}])
    assert plan.asked(0, run) == [0, 1, 2] and plan.participants(0, run) == [0, 2]
    costs = plan.measure(run)
    assert costs["simulated_s"]["clients"].tolist() == [2, 6, 3]
    assert costs["simulated_s"]["rounds"].tolist() == [3]
    assert costs["bytes"]["down_total"] == 3 * 500_000 and costs["bytes"]["up_total"] == 2 * 250_000
    assert plan.wrap("clients") == "clients"


def test_by_loss_asks_hospitals_that_are_always_late_only_where_there_are_no_others():
    content = change("participation", {"strategy": "by_loss", "clients_per_round": 2, "deadline_s": 3.0})
    content["network"] = {"down_mbit_s": 8, "up_mbit_s": 4, "images_per_s": 10}

    def ask(late):
        content["participation"]["late"] = late
        experiment = load_experiment(content)
        training = experiment.algorithms["fedavg"]
        plan = plan_rounds(experiment, training, [10, 90, 20], 0, Messages(500_000, 250_000))
        run, asked = Run(12), []
        for r in range(12):
            asked.append(plan.asked(r, run))
            clients = plan.participants(r, run)
            run.history.append({"clients": clients, "client_loss": [1.0] * len(clients)})
        return asked

    assert ask("left_out") == [[0, 2]] * 12  # the second hospital needs ten seconds
    assert any(1 in asked for asked in ask("partial"))  # there it is heard: nothing is another


def test_late_hospitals_do_part_of_their_work():
    plan = plan_late("partial")
    run = Run(1, history=[{"clients": [0, 1, 2]}])
    assert plan.participants(0, run) == [0, 1, 2] and plan.limits.tolist() == [2, 2, 2]
    assert plan.measure(run)["simulated_s"]["clients"].tolist() == pytest.approx([2, 2.6, 2.6])
    data = SimpleNamespace(num_clients=3, batches=lambda k, r: tf.data.Dataset.range(9))
    assert len(list(plan.wrap(data).batches(1, 0))) == 2


# ---- table, figure, command


def test_the_table_puts_local_federated_and_central_side_by_side(smoke):
    records = load_study(smoke)
    assert [r["algorithm"] for r in records] == ["local", "fedavg", "central"]
    table = build_study_table(records).splitlines()
    assert [line.split("|")[2].strip() for line in table[2:5]] == [
        "local, mean of hospitals",
        "FedAvg",
        "central",
    ]
    mean, std = (100 * records[1]["summary"]["deduplicated"]["accuracy"][key] for key in ("mean", "std"))
    assert f"{mean:.1f} ± {std:.1f}" in table[3] and "3 of 3 " in table[3] and "2 of 2" in table[3]
    assert "3 of 3 epochs" in table[4] and "no clinical statement" in table[-1]
    after = build_study_table(records, after=2).splitlines()
    assert len(after) == 5 and "| 2 of 3 |" in after[2]
    with pytest.raises(InputError, match="after round 9, found none among 3"):
        build_study_table(records, after=9)


def test_what_is_not_finished_shows_in_the_table(smoke):
    record = read(smoke, "fedavg") | {"seeds": [1]}
    record["runs"]["1"]["rounds_done"] = 2
    assert "| 2 of 3 | 1 of 2 |" in build_study_table([record])


def test_one_seed_has_no_spread(smoke):
    local = read(smoke, "local")
    mean = 100 * local["summary"]["deduplicated"]["accuracy"]["mean"]
    assert f"| local, mean of hospitals | {mean:.1f} | " in build_study_table([local])


def test_the_curves_are_drawn_over_passes_over_the_images(smoke):
    records = load_study(smoke)
    for record in records:
        for run in record["runs"].values():
            run["passes_per_step"] = 2 if record["algorithm"] == "fedavg" else 1
    ax = plot_study_curves(records)
    drawn = {line.get_label(): line for line in ax.lines}
    assert drawn["FedAvg"].get_xdata().tolist() == [2, 4, 6]
    curves = [records[1]["runs"][s]["validation"]["accuracy"] for s in ("0", "1")]
    np.testing.assert_allclose(drawn["FedAvg"].get_ydata(), np.mean(curves, axis=0))
    assert len(ax.collections) == 2  # of local there is one seed
    fig = plot_study([*records, *({**r, "experiment": "other", "title": "Other"} for r in records)])
    assert [ax.get_title() for ax in fig.axes] == [SMOKE["title"], "Other (phantom)"]
    assert len(fig.legends[0].get_texts()) == 3


def test_a_file_that_is_no_result_is_refused_and_an_empty_folder_is_not(tmp_path):
    assert load_study(tmp_path) == []
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"x.json: expected the result of an experiment"):
        load_study(tmp_path)


def command(*words):
    parser = argparse.ArgumentParser()
    cli_experiment.add_commands(parser.add_subparsers())
    options = parser.parse_args(["experiment", *words])
    return options.call(options)


def test_the_command_lists_what_the_files_would_run(capsys):
    assert command("--list") == 0
    out = capsys.readouterr().out
    assert "phantom_smoke: Smoke test on the phantom" in out and "  scaffold: 24 rounds, seeds 0, 1, 2" in out
    with pytest.raises(InputError, match="FILE: expected an experiment, found none"):
        command()


def test_the_command_runs_the_other_files_where_one_diverges(tmp_path, monkeypatch):
    asked = []

    def diverge(file, **options):
        asked.append(file)
        raise DivergenceError(f"{file}: round 2")

    monkeypatch.setattr(experiments, "run_experiment", diverge)
    monkeypatch.setattr("fedutils.notebook.start", lambda *args, **options: None)
    with pytest.raises(DivergenceError, match="phantom_smoke: round 2 / personal_smoke: round 2"):
        command("phantom_smoke", "personal_smoke")
    assert asked == ["phantom_smoke", "personal_smoke"]


def test_a_seed_or_algorithm_that_the_file_lacks_is_refused():
    with pytest.raises(InputError, match="seed: expected one of the file's 0, found 7"):
        run_experiment("phantom_smoke", seeds=[7])
    with pytest.raises(InputError, match="algorithm: expected one of the file's local, fedavg, central"):
        run_experiment(TWO, algorithms=["fedsgd"])
    assert not paths.output_dir().exists()
