"""A model for each hospital: what is held out never trains, and each is measured at its own hospital."""

import json

import numpy as np
import pytest
import yaml
from experiment_contents import change_content

from fedutils import centralized, experiment_personal, personalise, runtime
from fedutils.algorithms import build_process
from fedutils.centralized import get_weights, predict_logits, set_weights
from fedutils.communication import Messages
from fedutils.data.audited import AuditedImages
from fedutils.data.brain_mri import ImageSet
from fedutils.errors import InputError
from fedutils.experiment_checks import check_personal
from fedutils.experiment_file import EXPERIMENTS, list_experiments, load_experiment
from fedutils.experiment_personal_runs import choose_at_home, run_own, run_started
from fedutils.experiment_personal_scores import OWN, ScoredPersonal, compute_interval, score_own
from fedutils.experiment_personal_tables import (
    build_hospital_table,
    build_personal_table,
    compare_hospitals,
    list_hospitals,
    summarise_personal,
)
from fedutils.experiment_runs import Federation, run_central, run_local, run_rounds
from fedutils.fedlc import compute_shift, count_classes
from fedutils.metrics import summarise
from fedutils.plots_personal import (
    HospitalViewer,
    plot_by_size,
    plot_elsewhere,
    plot_forgetting,
    plot_hospitals,
    plot_summary,
)
from fedutils.results import to_json
from fedutils.runs import Run

SMOKE = yaml.safe_load((EXPERIMENTS / "personal_smoke.yaml").read_text())
SMOKE["data"] |= {"image_size": 8}
SMOKE["model"]["filters"] = [2, 2]
SMOKE["partition"]["minimum"] = 14


def change(path, value):
    """Return the smoke experiment with one value changed."""
    return {"name": "personal", **change_content(SMOKE, path, value)}


def make_images(count, seed):
    """Make images with their number in the first pixel; the class is a bright quarter, pairs are copies."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(count // 2) % 4, 2).astype(np.int32)
    x = rng.uniform(0, 0.4, (count, 8, 8, 1)).astype(np.float32)
    for i, label in enumerate(y):
        x[i, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 0.5
    x[:, 0, 0, 0] = np.arange(count) / 1000
    return ImageSet(x, y, (), tuple(map(str, range(count))), groups=np.arange(count) // 2)


IMAGES = AuditedImages(
    make_images(90, 1), make_images(16, 2), np.arange(16) < 12, "deduplicated", None, {"fingerprint": "made"}
)


def make_task(path="seeds", value=(0,)):
    experiment = load_experiment(change(path, list(value) if isinstance(value, tuple) else value))
    return ScoredPersonal(experiment, IMAGES)


def numbers(x):
    """Return which images these are."""
    return np.rint(np.asarray(x)[:, 0, 0, 0] * 1000).astype(int).tolist()


# ---- who holds what


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hospital_parts_its_images_by_group_and_keeps_its_mixture(seed):
    task = make_task()
    hospitals = task.hold(seed)
    parts = [part for held in hospitals for part in held]
    assert len(hospitals) == 3 and sorted(np.concatenate(parts)) == list(range(90))
    groups = [set(IMAGES.training.groups[part]) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))  # no near copies in two parts, of any hospital
    for held in hospitals:
        total = sum(map(len, held))
        assert len(held.validation) == pytest.approx(0.2 * total, abs=2.5)
        assert len(held.testing) == pytest.approx(0.3 * total, abs=2.5)
    told = task.describe_partition(seed)
    for part in ("", "validation_", "testing_"):
        held = [getattr(h, part.rstrip("_") or "training") for h in hospitals]
        assert np.asarray(told[f"{part}counts"]).sum(axis=1).tolist() == list(map(len, held))


def test_a_class_of_too_few_groups_is_joined_with_the_most_frequent_one():
    labels, groups = np.array([0, 0, 0, 0, 1, 1, 3]), np.array([0, 1, 2, 3, 4, 4, 5])
    assert experiment_personal._join_rare(labels, groups).tolist() == [0] * 7
    labels, groups = np.array([2, 2, 2, 2, 1, 1, 1]), np.arange(7)
    assert experiment_personal._join_rare(labels, groups).tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            "data.own_test_fraction",
            0.8,
            "validation_fraction and own_test_fraction below 1 together, found 1",
        ),
        (
            "partition.minimum",
            2,
            "hospital . of seed .: expected images for training, validation, testing, found",
        ),
    ],
)
def test_hospitals_that_cannot_hold_out_are_refused(path, value, words):
    task = make_task(path, value)
    task._experiment.partition["alpha"] = 0.05
    with pytest.raises(InputError, match=words):
        for seed in range(40):
            task.hold(seed)


# ---- nothing trains on what is held out


@pytest.fixture
def trained(monkeypatch):
    """Record what is trained and validated on in one place, instead of doing it."""
    calls = []

    def record(model, training, validation, **options):
        calls.append((numbers(training[0]), numbers(validation[0])))
        entry = {"epoch": 1, "validation_accuracy": 0.5, "validation_loss": 1.0, "seconds": 1.0}
        run = Run(1)
        run.record(entry, get_weights(model))
        return run

    monkeypatch.setattr(experiment_personal, "train_central", record)
    monkeypatch.setattr(personalise, "train_central", record)
    return calls


def test_what_is_held_out_trains_nobody(trained, tmp_path, monkeypatch):
    task, training = make_task(), load_experiment(change("seeds", [0])).algorithms["local"]
    hospitals = task.hold(0)
    monkeypatch.setattr(task, "test", lambda model, seed: make_test(1, 2, 3))
    clients = task.make_clients(0, training)
    for k, held in enumerate(hospitals):
        seen = [i for x, _ in clients.batches(k, 0) for i in numbers(x)]
        assert sorted(seen) == held.training.tolist()
    run_local(task, training, 0, tmp_path, "local")
    run_central(task, training, 0, tmp_path, "central")
    task.tune(task.build_model(0), 1, 0, training, tmp_path, "tune")
    expected = [(h.training.tolist(), h.validation.tolist()) for h in hospitals]
    everyone = tuple(
        [sorted(np.concatenate(part).tolist()) for part in list(zip(*hospitals, strict=True))[:2]]
    )
    assert trained[:3] == expected and trained[4] == expected[1]
    assert tuple(map(sorted, trained[3])) == everyone
    found = [numbers(x) for x, _ in task.list_validations(0)]
    assert found == [held.validation.tolist() for held in hospitals]


def test_a_model_is_tested_on_the_images_that_each_hospital_holds_out(monkeypatch):
    task = make_task()
    asked = []

    def guess(model, x, batch_size=128):
        asked.append(x)
        return np.eye(4, dtype=np.float32)[np.full(len(x), 2)]  # always the third class

    monkeypatch.setattr(experiment_personal, "predict_logits", guess)
    test = task.test(task.build_model(0), 0)
    assert list(test) == ["deduplicated", "public", "hospital 1", "hospital 2", "hospital 3"]
    for k, (held, x) in enumerate(zip(task.hold(0), asked, strict=True)):
        assert numbers(x) == held.testing.tolist()
        counts = np.bincount(IMAGES.training.y[held.testing], minlength=4)
        told = test[f"hospital {k + 1}"]
        assert told["n"] == len(held.testing) and told["right"] == counts[2]
        assert np.asarray(told["confusion"])[:, 2].tolist() == counts.tolist()


# ---- what is said of it


def make_test(*rights):
    """Make what `test` gives of one model: so many right of 10, 20 and 30 images."""
    pooled = dict.fromkeys(("accuracy", "precision", "recall", "f1", "auc", "ece"), 0.5)
    pooled["per_class"] = {name: {"recall": 0.5} for name in ("glioma", "meningioma", "notumor", "pituitary")}
    own = {
        f"hospital {k + 1}": {"n": 10 * (k + 1), "right": right, "confusion": []}
        for k, right in enumerate(rights)
    }
    return {"deduplicated": pooled, "public": pooled, **own}


def test_each_hospital_is_told_of_the_model_that_it_uses():
    task = make_task()
    shared = task.describe_shared(make_test(5, 18, 30), 0)
    own = task.describe_own([make_test(5, 0, 0), make_test(0, 18, 0), make_test(0, 0, 30)], 0)
    for told in (shared, own):
        assert [one["accuracy"] for one in told["hospitals"]["own"]] == [0.5, 0.9, 1.0]
        assert told["own"] == pytest.approx(
            {
                "mean": 0.8,
                "pooled": 53 / 60,
                "worst": 0.5,
                "best": 1.0,
                "gap": 0.5,
                "spread": np.sqrt((0.09 + 0.01 + 0.04) / 3),
            }
        )
    assert own["hospitals"]["elsewhere"] == [[0.5, 0, 0], [0, 0.9, 0], [0, 0, 1]]
    summary = task.summarise([shared, task.describe_shared(make_test(10, 20, 30), 0)])
    assert summary["own"]["worst"]["values"] == [0.5, 1.0] and summary["own"]["gap"]["mean"] == 0.25
    assert summary["public"]["accuracy"]["mean"] == 0.5


def test_the_interval_of_few_images_is_wide_even_if_all_are_right():
    (low, high), (lower, _) = compute_interval(100, 100), compute_interval(10, 10)
    assert high == 1 and lower < low < 1
    z = 1.959964
    assert lower == pytest.approx(10 / (10 + z**2))  # Wilson, by hand
    assert score_own([{"n": 3, "right": 1, "accuracy": 1 / 3}])["spread"] == 0


# ---- what the file may say


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            "algorithms.fine_tune",
            {},
            "start_from: expected a federated run .* of the file's fedavg, found None",
        ),
        ("algorithms.fine_tune", {"start_from": "fedper"}, "of the file's fedavg, found 'fedper'"),
        (
            "algorithms.fedavg",
            {"start_from": "local"},
            "expected start_from with fine_tune or own_mixture alone, found it with fedavg",
        ),
        (
            "algorithms.own_mixture",
            {"start_from": "fedavg"},
            "start_from: expected a run of fedlc, of the file's none, found 'fedavg'",
        ),
        ("report_rounds", [1], "expected no report_rounds with own_test_fraction"),
        ("data.own_test_fraction", None, "fine_tune: expected data.own_test_fraction, .* found none"),
    ],
)
def test_what_does_not_fit_is_refused(path, value, words):
    experiment = load_experiment(change(path, value))
    with pytest.raises(InputError, match=words):
        for name in experiment.algorithms:
            check_personal(experiment, name)


def test_fine_tuning_is_trained_as_training_alone_is():
    with pytest.raises(InputError, match="fine_tune: expected client_optimizer adamw and cosine true"):
        load_experiment(change("algorithms.fine_tune", {"client_optimizer": "sgd"}))


def test_the_files_of_personal_experiments_fit_and_others_are_described_as_before():
    for file in list_experiments():
        experiment = load_experiment(file)
        for name in experiment.algorithms:
            check_personal(experiment, name)
            told = experiment.describe(name)
            if not experiment.is_personal:  # the names of their finished runs
                keys = {"own_test_fraction", "start_from", "head_layers"}
                assert "start" not in told and not keys & {k for part in told.values() for k in part}
    searched = load_experiment("rates_personal")
    assert not set(searched.seeds) & set(load_experiment("personal_brain_mri").seeds)


def test_a_change_of_the_federation_is_a_change_of_what_starts_from_it():
    before = load_experiment(SMOKE).describe("fine_tune")
    after = load_experiment(change("algorithms.fedavg", {"client_learning_rate": 0.5})).describe("fine_tune")
    assert before["training"] == after["training"] and before != after


# ---- the runs


@pytest.fixture(scope="module")
def federation():
    """Build FedAvg, and FedPer with nothing and with the head at home, once."""
    runtime.use("in_process")
    content = change("training.num_rounds", 2)
    content["algorithms"] |= {
        "fine_tune": {"start_from": "fedavg", "num_rounds": 1, "client_learning_rate": 0.01},
        "nothing": {"algorithm": "fedper", "head_layers": 0},
        "fedlc": {"calibration_strength": 0.5, "local_epochs": 2},
        "own_mixture": {"start_from": "fedlc"},
    }
    experiment = load_experiment(content)
    task = ScoredPersonal(experiment, IMAGES)
    processes = {}

    def find(name):
        training = experiment.algorithms[name]
        if name not in processes:
            model = task.build_model(0)
            processes[name] = build_process(
                model,
                algorithm=training["algorithm"],
                client_learning_rate=training["client_learning_rate"],
                decay_rounds=training["num_rounds"],
                at_home=choose_at_home(model, training),
                calibration_strength=training["calibration_strength"],
            )
        return Federation(experiment, task, training, processes[name], Messages(8, 4))

    return find


def without_clocks(told):
    """Return a result without what differs from run to run."""
    left = {key: value for key, value in told.items() if key not in ("seconds", "start")}
    return json.loads(to_json(left))


@pytest.fixture(scope="module")
def fedavg(federation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fedavg")
    return folder, run_rounds(federation("fedavg"), 0, folder, "FedAvg")


def test_with_nothing_at_home_and_with_no_epoch_of_tuning_each_hospital_has_fedavg(
    federation, fedavg, tmp_path
):
    folder, shared = fedavg
    nothing = run_own(federation("nothing"), 0, tmp_path / "nothing", "nothing")
    assert nothing["validation"]["accuracy"] == pytest.approx(shared["validation"]["accuracy"])
    start = federation("fedavg")
    untouched = start.experiment.algorithms["fine_tune"] | {"num_rounds": 0}
    tuned = run_started(start, untouched, 0, tmp_path / "tuned", "tuned", start_folder=folder)
    for told in (nothing, tuned):
        assert told["hospitals"]["own"] == shared["hospitals"]["own"] and told["own"] == shared["own"]
        assert told["test"]["public"]["accuracy"] == pytest.approx(shared["test"]["public"]["accuracy"])
        assert told["bytes"] == shared["bytes"]
    assert tuned["best_round"] == [0, 0, 0] and tuned["start"]["best_round"] == shared["best_round"]


@pytest.mark.parametrize("local_epochs", [1, 2])
def test_the_mixture_that_is_put_in_is_the_one_that_training_took_out(local_epochs):
    experiment = load_experiment(change("training.local_epochs", local_epochs))
    task = ScoredPersonal(experiment, IMAGES)
    clients = task.make_clients(0, experiment.algorithms["fedavg"])
    for k in range(clients.num_clients):
        model = task.build_model(0)
        before = get_weights(model)[-1]
        task.put_mixture(model, k, 0, 0.5, local_epochs)
        shift = 0.5 * compute_shift(count_classes(clients.batches(k, 0), 4))
        np.testing.assert_allclose(get_weights(model)[-1] - before, shift, rtol=1e-5)


def test_each_hospitals_mixture_is_put_into_the_model_of_fedlc_and_nothing_is_trained(
    federation, tmp_path, monkeypatch
):
    start, put, real = federation("fedlc"), [], experiment_personal.put_mixture
    monkeypatch.setattr(
        experiment_personal, "put_mixture", lambda *given: put.append(given[1].tolist()) or real(*given)
    )
    task, training = start.task, start.experiment.algorithms["own_mixture"]
    shared = run_rounds(start, 0, tmp_path / "fedlc", "FedLC")
    told = run_started(start, training, 0, tmp_path / "own", "own", start_folder=tmp_path / "fedlc")
    assert told["rounds_planned"] == told["rounds_done"] == 0 and told["best_round"] == [0, 0, 0]
    assert told["bytes"] == shared["bytes"] and told["start"]["best_round"] == shared["best_round"]
    network, (rounds, clients) = task.build_model(0), start.open(0)
    options = {"seed": 0, "folder": tmp_path / "fedlc", "label": "read again"}
    start.train(rounds, clients, network, lambda model: task.validate(model, 0), **options)
    for held, own, counted in zip(task.hold(0), told["hospitals"]["own"], put, strict=True):
        counts = 1 + 2 * np.bincount(IMAGES.training.y[held.training], minlength=4)  # two local epochs
        x, y = IMAGES.training.x[held.testing], IMAGES.training.y[held.testing]
        by_hand = predict_logits(network, x) + 0.5 * np.log(counts / counts.sum())
        assert counted == (counts - 1).tolist()
        assert own["right"] == int((by_hand.argmax(axis=1) == y).sum())


def test_fine_tuning_starts_from_fedavg_and_goes_on_where_it_was_stopped(
    federation, fedavg, tmp_path, monkeypatch
):
    start = federation("fedavg")
    task, training = start.task, start.experiment.algorithms["fine_tune"]

    def run(place):
        return run_started(start, training, 0, tmp_path / place, place, start_folder=fedavg[0])

    real, asked = task.tune, []

    def stopped(model, client, *rest):
        asked.append((client, get_weights(model)))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(model, client, *rest)

    monkeypatch.setattr(task, "tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    again = run("stopped")
    assert [client for client, _ in asked] == [0, 1, 0, 1, 2]
    begun = asked[0][1]  # every hospital starts from the same model
    assert all(np.array_equal(a, b) for _, own in asked for a, b in zip(own, begun, strict=True))
    assert without_clocks(again) == without_clocks(run("whole"))
    assert again["rounds_done"] == again["rounds_planned"] == 1
    start = max(fedavg[1]["validation"]["accuracy"])
    assert again["validation"]["accuracy"][0] == pytest.approx(start)  # epoch 0 is FedAvg's best round


def test_models_at_home_are_resumed_to_the_bit_and_tested_where_they_are_at_home(
    federation, tmp_path, monkeypatch
):
    fedper = federation("fedper")
    task = fedper.task

    def run(place, num_rounds):
        changed = fedper._replace(training=fedper.training | {"num_rounds": num_rounds})
        return run_own(changed, 0, tmp_path / place, place)

    run("stopped", 1)
    seen, real = [], task.test
    monkeypatch.setattr(
        task, "test", lambda model, seed: seen.append(get_weights(model)) or real(model, seed)
    )
    again, whole = run("stopped", 2), run("whole", 2)
    assert without_clocks(again) == without_clocks(whole)
    first, second, _ = seen[:3]
    same = [np.array_equal(a, b) for a, b in zip(first, second, strict=True)]
    assert same == [True] * 4 + [False] * 2  # all but the head is common
    network = task.build_model(0)
    for k, weights in enumerate(seen[:3]):
        set_weights(network, weights)
        found = centralized.evaluate(network, task._take(task.hold(0)[k].testing))
        assert again["hospitals"]["own"][k]["accuracy"] == pytest.approx(found["accuracy"])
    assert again["best_round"] == 1 + int(np.argmax(again["validation"]["accuracy"]))
    assert again["rounds_done"] == 2


# ---- compared, told and drawn


def make_record(algorithm, rights, *, pool=(), seeds=(0, 1)):
    """Make the result of an algorithm: so many right of 10 and 20 images at two hospitals, of each seed."""
    runs = {}
    for seed, right in zip(map(str, seeds), rights, strict=True):
        own = [
            {"n": n, "right": r, "accuracy": r / n, "interval": compute_interval(r, n)}
            for n, r in zip((10, 20), right, strict=True)
        ]
        told = {"own": own}
        if pool:
            told["tests"] = [{"deduplicated": {"accuracy": value}} for value in pool]
        runs[seed] = {
            "hospitals": told,
            "own": score_own(own),
            "test": {"deduplicated": {"accuracy": 0.5}},
            "partition": {"counts": [[20, 10], [0, 300]], "testing_counts": [[7, 3], [1, 19]]},
            "seconds": 2.0,
        }
    summary = {
        "own": {key: summarise([run["own"][key] for run in runs.values()]) for key in OWN},
        "deduplicated": {"accuracy": summarise([0.5] * len(runs))},
    }
    return {
        "name": f"made-{algorithm}",
        "algorithm": algorithm,
        "seeds": list(seeds),
        "seeds_planned": [0, 1],
        "runs": runs,
        "summary": summary,
    }


RECORDS = [
    make_record("ditto", [(9, 10), (5, 10)], pool=(0.2, 0.4)),
    make_record("fedavg", [(5, 10), (5, 12)]),
    make_record("local", [(4, 20)], pool=(0.1, 0.3), seeds=(0,)),
]


def test_hospitals_are_compared_within_a_seed():
    hospitals = list_hospitals(RECORDS)
    assert list(dict.fromkeys(one["algorithm"] for one in hospitals)) == ["local", "fedavg", "ditto"]
    assert [one["pool"] for one in hospitals] == [0.1, 0.3, 0.5, 0.5, 0.5, 0.5, 0.2, 0.4, 0.2, 0.4]
    assert {(one["hospital"], one["trains_on"], one["n"]) for one in hospitals} == {(1, 30, 10), (2, 300, 20)}
    assert [one["majority"] for one in hospitals[:2]] == [0.7, 0.95]  # 7 of 10, 19 of 20
    told = compare_hospitals(hospitals, "ditto", "fedavg")
    assert (told["better"], told["equal"], told["worse"]) == (1, 2, 1)
    assert told["gain"]["values"] == pytest.approx([0.2, -0.05])  # (.4 + 0) / 2 and (0 - .1) / 2
    alone = compare_hospitals(hospitals, "ditto", "local")
    assert alone["seeds"] == [0] and (alone["better"], alone["worse"]) == (1, 1)
    assert compare_hospitals(hospitals, "ditto", "ditto") is None
    assert compare_hospitals(hospitals, "ditto", "central") is None


def test_the_tables_say_what_each_hospital_gets():
    rows = summarise_personal(RECORDS)
    table = build_personal_table(rows).splitlines()
    assert [line.split("|")[1].strip() for line in table[2:5]] == [
        "local, alone",
        "FedAvg, one for all",
        "Ditto",
    ]
    assert "| 1 / 0 / 1 | 1 / 2 / 1 | 1 of 4 |" in table[4] and table[4].endswith("| 2 of 2 |")
    assert "| – |" in table[2] and "| 1 of 2 |" in table[2]
    mixed = build_personal_table([*rows, {**rows[1], "algorithm": "own_mixture"}]).splitlines()[-1]
    assert "nothing is trained for it" in mixed and "nothing is trained" not in table[-1]
    own = build_hospital_table(list_hospitals(RECORDS), 0).splitlines()
    assert own[2] == "| 1 | 30 | 10 | 70.0 | 40.0 | 50.0 | 90.0 |" and len(own) == 4
    with pytest.raises(InputError, match="made-x: expected a result with own test images"):
        record = make_record("x", [(1, 1)], seeds=(0,))
        del record["runs"]["0"]["hospitals"]["own"]
        list_hospitals([record])


def test_the_figures_show_every_hospital_at_its_accuracy():
    hospitals, rows = list_hospitals(RECORDS), summarise_personal(RECORDS)
    ax = plot_hospitals(hospitals, 0)
    marks = [line.get_xdata()[0] for line in ax.lines if line.get_marker() not in ("None", None)]
    lines = [list(line.get_xdata()) for line in ax.lines if line.get_linestyle() == ":"]
    assert lines == [[0.7, 0.7], [0.95, 0.95]]
    assert sorted(marks) == sorted(one["accuracy"] for one in hospitals if one["seed"] == 0)
    assert [text.get_text().split("\n")[2] for text in ax.get_yticklabels()] == [
        "tested on 10",
        "tested on 20",
    ]
    assert len(plot_summary(rows).axes) == 4 and len(plot_forgetting(rows).lines) == 6
    by_size = plot_by_size(hospitals).axes[2]  # Ditto's: a line from FedAvg, and a mark, for each hospital
    ends = [line.get_ydata() for line in by_size.lines if len(line.get_xdata()) == 2]
    assert [0.5, 0.9] in [list(end) for end in ends] and len(by_size.lines) == 8
    assert "90" in [text.get_text() for text in plot_elsewhere({"x": [[0.9, 0], [0.1, 1]]}).axes[0].texts]
    viewer = HospitalViewer(hospitals, {0: [[1, 2, 3, 4], [5, 6, 7, 8]], 1: [[1, 1, 1, 1], [2, 2, 2, 2]]})
    before = viewer.picture.value
    viewer.controls["hospital"].value = 2
    assert viewer.picture.value != before and not viewer.message.value
    assert [bar.get_width() for bar in viewer.figure.axes[0].patches] == [5, 6, 7, 8]
