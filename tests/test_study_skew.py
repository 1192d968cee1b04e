"""How skewed a study's hospitals are, worked out by hand."""

import copy

import pytest
from study_records import CENTRAL, FEDAVG, make_record, make_run, plan

from fedutils.experiment_file import load_experiment
from fedutils.study import summarise_study
from fedutils.study_skew import describe_mixtures, describe_skew, measure_price_of_skew
from fedutils.study_tables import build_skew_table


def test_skew_is_told_by_seed():
    record = copy.deepcopy(FEDAVG)
    for seed, run in record["runs"].items():
        run["partition"]["label_distance"] = 0.25 + float(seed) / 4
    record["runs"]["1"]["partition"]["counts"] = [[5, 5], [45, 45], [0, 0]]
    assert describe_skew([record]) == {"skew": {"label_distance": [0.25, 0.5], "largest": [0.6, 0.9]}}


def test_mixtures_of_training_and_test_need_not_agree():
    told = describe_mixtures([CENTRAL])  # 50 images of each class, and a confusion of 6 and 2
    assert told == {"classes": ["a", "b"], "training": [0.5, 0.5], "test": [0.75, 0.25], "commonest": "a"}
    alone = copy.deepcopy(CENTRAL)
    for run in alone["runs"].values():
        run["hospitals"] = {"tests": [copy.deepcopy(run["test"])]}
        del run["test"]["deduplicated"]["confusion"]
    assert describe_mixtures([alone]) == told


def test_the_price_of_skew_is_paired_by_seed_with_iid_of_as_many_rounds():
    def fedavg(name, *tested):
        return make_record(name, "fedavg", [make_run(s, v, [v], participants=[[0, 1, 2]]) for s, v in tested])

    dealt = {"kind": "dirichlet", "num_clients": 3, "alpha": 0.3}
    skewed = plan("skewed", fedavg={}) | {"partition": dealt}
    longer = plan("longer", fedavg={"num_rounds": 6}) | {"partition": dealt}
    planned = [plan("even", fedavg={}), skewed, longer]
    records = [
        fedavg("even", (0, 0.7), (1, 0.8)),
        fedavg("skewed", (1, 0.6)),
        fedavg("longer", (0, 0.9), (1, 0.9)),
    ]
    plans = [load_experiment(one) for one in planned]
    told = measure_price_of_skew(plans, records)
    assert list(told) == ["skewed"]  # there is no IID of six rounds
    assert told["skewed"]["seeds"] == [1] and told["skewed"]["values"] == [pytest.approx(-0.2)]
    assert measure_price_of_skew(plans, records[1:]) == {}


def test_the_table_of_skew_has_a_line_a_partition_and_values_by_seed():
    skew = {"skew": {"label_distance": [0.25, 0.5], "largest": [0.6, 0.9]}}
    rows = summarise_study([plan("skew"), plan("even")], [FEDAVG])
    table = build_skew_table(rows, skew, {"skew": {"values": [-0.1, 0.02]}}).splitlines()
    assert table[2:] == ["| skew | 0.25, 0.50 | 60, 90 | -10.0, +2.0 |"]  # nothing was done under the other
