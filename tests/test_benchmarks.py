"""What the benchmarks measured is merged, tabulated and drawn, whatever part of it is there."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from fedutils import paths, readme

BENCHMARKS = paths.ROOT / "benchmarks"
SEPARABLE = {
    "machine": {"cores": 2, "device": "CPU"},
    "round_num_clients": 5,
    "round_num_parameters": 1234,
    "round_ratio_in_process": 1.036,
}
SCALING = {
    "clients_scaling_seconds_per_client": {"50": 0.02, "5000": 0.021, "5": 0.022},
    "clients_scaling_memory_mb": {"5": 600, "50": 601, "5000": 1610},
    "aggregation_scaling_seconds": {"10": 0.5, "0.1": 0.0123},
}


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmarks{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(tmp_path):
    def write(**measured):
        (tmp_path / "results.json").write_text(json.dumps(measured))
        return tmp_path / "results.json"

    return write


def test_the_table_has_a_dash_for_what_was_not_measured(results):
    lines = readme.build_costs(results(**SEPARABLE)).splitlines()
    assert lines[2] == "| separable CNN | 1,234 | 1.04 | – | – | – | – | – |"
    assert lines[3] == "", "no row for a network that was not measured"
    assert "2 cores, CPU" in lines[4] and "small clients" not in lines[4]


def test_scaling_is_a_sentence_in_the_order_of_the_numbers(results):
    text = readme.build_costs(results(**SEPARABLE, **SCALING))
    assert "With 5 to 5,000 small clients in a round, a client took 20.0 to 22.0 ms" in text
    assert "600 to 1,610 MB" in text
    assert "in rounds of five" not in text, "it was not measured"
    relative = {"5": 1.0, "50": 0.984, "5000": 1.067}
    over_five = {"clients_scaling_time_over_five": relative, "clients_scaling_cpu_over_five": {"5": 0.99}}
    text = readme.build_costs(results(**SEPARABLE, **SCALING, **over_five))
    assert "of the same round, that is 0.98 to 1.07, and in CPU seconds 0.99 to 0.99." in text
    assert "Models of 0.1, 10 million parameters took 0.012, 0.5 s a round" in text


def test_clients_side_by_side_are_a_sentence_a_network(results):
    seconds = {"cnn": {"1": 1.41, "2": 1.25}, "cnn_one_thread": {"1": 9.0, "2": 8.0}}
    memory = {"cnn": {"1": 254, "2": 1372}, "cnn_one_thread": {"1": 7, "2": 6}}
    text = readme.build_costs(
        results(**SEPARABLE, concurrency_wall_seconds=seconds, concurrency_memory_mb=memory)
    )
    expected = "two-convolution CNN at a time took 1.4 s and 254 MB a round, two took 1.2 s and 1,372 MB."
    assert text.count("at a time took") == 1 and expected in text


def test_the_input_pipeline_is_a_paragraph(results):
    pipeline = {
        "load_case_source": "BraTS 2020",
        "load_case_ratio": 1.404,
        "load_case_nibabel_ratio": 2.81,
        "cached_epoch_ratio": 0.64,
        "prepare_num_cases": 8,
        "prepare_memory_ratio": 1.02,
    }
    lines = readme.build_costs(results(**SEPARABLE, **pipeline)).splitlines()
    (line,) = [line for line in lines if "BraTS 2020" in line]
    assert "1.40 times the seconds" in line and "2.8 times ours" in line and "8 cases took 1.02 times" in line


def test_rounds_and_weights_over_a_network_are_a_paragraph_each(results):
    rounds = {
        "network_round_hospitals": 3,
        "network_round_images": 744,
        "network_round_num_parameters": 184_644,
        "network_round_max_weight_difference": 3.8e-5,
        "round_seconds_tff": 1.07,
        "round_seconds_console": 6.29,
        "round_seconds_flower": 30.35,
    }
    text = readme.build_costs(results(**SEPARABLE, **rounds))
    assert "1.1 s by TFF in one process, 6.3 s over the console and 30.4 s over Flower" in text
    assert "within 4e-05 of TFF's" in text and "over TLS" not in text
    speed = {
        "console_mb": 20.35,
        "console_mb_per_s": 383.5,
        "console_tls_ratio": 0.446,
        "console_disk_tls_ratio": 0.362,
        "console_get_mb_per_s": 557.8,
        "console_get_tls_ratio": 0.648,
        "console_vs_nested_lists": 6.7,
    }
    text = readme.build_costs(results(**SEPARABLE, **speed))
    assert "at 384 MB/s, 0.45 of a bare copy" in text and "6.7 times as long" in text
    assert "On a network" not in text


@pytest.mark.parametrize("extra", [{}, SCALING, {"round_ratio_flower_cnn": 2.0, "memory_ratio_worker": 3.0}])
def test_the_figure_is_drawn_from_what_is_there(extra, results, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["figure", "--results", str(results(**SEPARABLE, **extra)), "--out", str(tmp_path)]
    )
    load("_figure", monkeypatch).main()
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"benchmarks.png", "benchmarks.svg"}


def test_small_rounds_run_within_a_large_one_and_are_timed_apart(monkeypatch):
    script = load("clients_scaling", monkeypatch)
    clock = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(script.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(script.time, "process_time", lambda: clock["cpu"])

    def work(num_clients, seconds):
        for _ in range(num_clients):
            comparison.before_client()
            clock["wall"] += seconds
            clock["cpu"] += 2 * seconds

    comparison = script.Comparison(lambda: work(5, 0.25), every=4)
    for _ in range(2):
        comparison.measure(lambda: work(10, 1.0))
    # 20 clients of 1 s, with a small round before the 2nd, 6th, 10th, 14th and 18th of them.
    assert comparison.many.tolist() == [20, 40]
    assert comparison.num_few == 5
    assert comparison.few.tolist() == [5 * 5 * 0.25, 5 * 5 * 0.5]


def test_the_runtime_calls_before_each_client_as_long_as_it_is_asked_to(monkeypatch):
    script, called = load("clients_scaling", monkeypatch), []
    from fedutils import runtime
    from fedutils.tff import tff

    double = tff.tensorflow.computation(lambda x: 2 * x, np.int32)

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def compute(x):
        return tff.federated_sum(tff.federated_map(double, x))

    runtime.use("in_process", concurrent_clients=1)
    with script.calling_before_each_client(lambda: called.append(None)):
        assert compute([1, 2, 3]) == 12
    assert compute([1, 2]) == 6
    assert len(called) == 3


SCRIPT = """
import json, sys
from pathlib import Path
measured = {measured}
if not measured:
    sys.exit("no such luck")
Path(sys.argv[sys.argv.index("--out") + 1]).write_text(json.dumps(measured))
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Return the runner, over three scripts: `first` measures a, `second` measures b, `third` fails."""
    runner = load("__main__", monkeypatch)
    for name, measured in {"first": {"a": 1}, "second": {"b": 2}, "third": {}}.items():
        (tmp_path / f"{name}.py").write_text(SCRIPT.format(measured=measured))
    (tmp_path / "_figure.py").touch()
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(runner, "OUTPUT", tmp_path / "bench")
    monkeypatch.setattr(runner, "update_readme", lambda: None)

    def run(*names):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *names])
        return runner.main(), json.loads((tmp_path / "results.json").read_text())

    return run


def test_some_benchmarks_run_alone_and_other_keys_stay(bench, results):
    results(a=0, b=0, c=0, runs={"second": {"minutes": 7}})
    status, merged = bench("first")
    assert status == 0
    assert (merged["a"], merged["b"], merged["c"]) == (1, 0, 0)
    assert merged["runs"]["second"] == {"minutes": 7}
    assert merged["runs"]["first"].keys() == {"commit", "code_changed", "minutes"}


def test_options_go_to_the_one_benchmark_and_are_recorded(bench, results, capsys):
    results(a=0)
    status, merged = bench("first", "--model", "cnn")
    assert status == 0 and merged["a"] == 1
    assert merged["runs"]["first --model cnn"]["options"] == ["--model", "cnn"]
    with pytest.raises(SystemExit):
        bench("first", "second", "--model", "cnn")
    assert "expected one name before the options" in capsys.readouterr().err


def test_a_failure_keeps_what_was_measured_before_it(bench, capsys):
    status, merged = bench()
    assert status == 1
    assert (merged["a"], merged["b"]) == (1, 2)
    assert "no such luck" in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused(bench, results, capsys):
    results()
    with pytest.raises(SystemExit):
        bench("first", "fourth")
    assert "found fourth" in capsys.readouterr().err
