"""The federated study from its results: half done or whole, every number is worked out by hand."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
from study_records import ALL, CENTRAL, COUNTS, FEDAVG, STUDY, make_record, make_run, plan

from fedutils import plots_costs, plots_study
from fedutils.communication import Lines
from fedutils.errors import InputError
from fedutils.experiment_file import Experiment
from fedutils.readme_study import build_study
from fedutils.results import to_json
from fedutils.study import compare_with_central, summarise_study
from fedutils.study_costs import compute_costs, find_round, measure_time_to
from fedutils.study_rates import group_rates
from fedutils.study_tables import build_grid, build_time_table, count_done, list_missing, tell_hours

RECORDS = [FEDAVG, CENTRAL]
LOCAL = make_record("skew", "local", [make_run(0, 0.4, [0.4]), make_run(1, 0.6, [0.6])])
IN_SKEW = {"local": "skew", "central": "skew"}


def test_what_is_planned_stays_beside_what_is_done():
    rows = summarise_study(STUDY, RECORDS)
    assert [(row["experiment"], row["algorithm"], row["seeds"]) for row in rows] == [
        ("skew", "local", []),
        ("skew", "fedavg", [0, 1]),
        ("skew", "scaffold", []),
        ("skew", "central", [0]),
        ("even", "fedavg", []),
        ("even", "central", []),
    ]
    assert all(row["seeds_planned"] == [0, 1] for row in rows)
    assert rows[0]["summary"] is None and rows[1]["summary"]["public"]["accuracy"]["mean"] == 0.6
    assert rows[1]["best_round"] == [2, 3] and rows[3]["bytes"] is None


def test_the_grid_says_not_run_how_many_seeds_and_leaves_out_what_was_not_planned():
    lines = build_grid(summarise_study(STUDY, RECORDS)).splitlines()
    assert lines[0] == "| training | skew | even |"
    assert lines[2:] == [
        "| local, mean of hospitals | not run | – |",
        "| FedAvg | 60.0 ± 14.1 | not run |",
        "| SCAFFOLD | not run | – |",
        "| central | 80.0 (1 of 2 seeds) | not run |",
    ]


def test_the_grid_after_a_round_and_of_the_worst_hospital():
    rows = summarise_study(STUDY, RECORDS)
    after = build_grid(rows, after=2)
    assert "| FedAvg | 60.0 ± 14.1 | not run |" in after and "central" not in after
    assert "| FedAvg | 50.0 ± 14.1 | not run |" in build_grid(rows, key="own_mixture")


def test_central_is_compared_seed_by_seed_where_both_were_done():
    told = compare_with_central(FEDAVG, CENTRAL)
    assert told["seeds"] == [0] and told["values"] == [pytest.approx(-0.3)]
    assert compare_with_central(CENTRAL, CENTRAL) is None and compare_with_central(FEDAVG, None) is None
    other = make_record("skew", "central", [make_run(7, 0.8, [0.5])])
    assert compare_with_central(FEDAVG, other) is None
    grid = build_grid(summarise_study(STUDY, RECORDS), key="against_central")
    assert "| FedAvg | -30.0 (1 of 2 seeds) | not run |" in grid and "| central |" not in grid


def test_central_training_of_another_file_is_compared_with(monkeypatch):
    monkeypatch.setattr(Experiment, "bounds", IN_SKEW)
    rows = summarise_study(STUDY, [CENTRAL, {**FEDAVG, "experiment": "even"}])
    told = next(row for row in rows if (row["experiment"], row["algorithm"]) == ("even", "fedavg"))
    assert told["against_central"]["values"] == [pytest.approx(-0.3)]


def test_the_grid_shows_bounds_of_another_file_where_hospitals_count_only_of_the_same_partition(monkeypatch):
    monkeypatch.setattr(Experiment, "bounds", IN_SKEW)
    even = plan("even", fedavg={})
    results = [LOCAL, CENTRAL, {**FEDAVG, "experiment": "even"}]
    rows = summarise_study([STUDY[0], even], results)
    grid, of_hospitals = build_grid(rows), build_grid(rows, key="own_mixture")
    assert "| local, mean of hospitals | 50.0 ± 14.1 | 50.0 ± 14.1 |" in grid
    assert "| central | 80.0 (1 of 2 seeds) | 80.0 (1 of 2 seeds) |" in grid
    assert "| local, mean of hospitals | 40.0 ± 14.1 | 40.0 ± 14.1 |" in of_hospitals
    assert "| central | 70.0 (1 of 2 seeds) | 70.0 (1 of 2 seeds) |" in of_hospitals
    four = {**even, "partition": {"kind": "iid", "num_clients": 4}}
    of_hospitals = build_grid(summarise_study([STUDY[0], four], results), key="own_mixture")
    assert "| central | 70.0 (1 of 2 seeds) | – |" in of_hospitals


def test_what_was_cut_short_is_told():
    rows = summarise_study(STUDY, RECORDS)
    assert count_done(rows) == "3 of 12 planned runs done"
    short = make_record("skew", "scaffold", [make_run(0, 0.5, [0.3, 0.4], participants=ALL[:2])])
    words = count_done(summarise_study(STUDY, [*RECORDS, short]))
    assert words == "4 of 12 planned runs done; cut short: SCAFFOLD under skew (2 of 3 rounds)"


def test_what_is_missing_is_told_experiment_by_experiment():
    missing = list_missing(summarise_study(STUDY, RECORDS))
    assert missing == "Toy, skew (local, mean of hospitals; SCAFFOLD); Toy, even (FedAvg; central)"
    assert list_missing([row for row in summarise_study(STUDY, RECORDS) if row["seeds"]]) == ""


def test_the_hours_of_all_runs_are_added_up():
    # Three runs of three rounds or epochs, of ten minutes each.
    assert tell_hours(RECORDS) == "Their rounds and epochs, with validation, took 1.5 h in all"


def test_the_epochs_of_training_in_one_place_are_rounds_times_passes():
    content = plan("skew") | {"training": plan("skew")["training"] | {"local_epochs": 2}}
    rows = {row["algorithm"]: row["rounds_planned"] for row in summarise_study([content], [])}
    assert rows == {"local": 6, "fedavg": 3, "scaffold": 3, "central": 6}


# ---- costs


def test_bytes_add_up_over_who_took_part():
    first, second = (compute_costs(run) for run in FEDAVG["runs"].values())
    np.testing.assert_allclose(first["megabytes"], [1.5, 3.0, 4.5])  # three hospitals, 0.5 MB each
    np.testing.assert_allclose(second["megabytes"], [1.0, 1.5, 3.0])
    assert first["seconds"] is None and first["rounds"].tolist() == [1, 2, 3]
    assert compute_costs(make_run(0, 0.5, [0.3], participants=[[0]], up=None))["megabytes"] is None


def test_a_round_lasts_as_long_as_its_slowest_hospital():
    # 0.2 MB at 16 and 0.3 MB at 24 Mbit/s: 0.1 s each; two latencies; 10, 30 and 60 images at 10 a second.
    lines = Lines(16, 24, 10, 0.25)
    seconds = compute_costs(FEDAVG["runs"]["1"], lines)["seconds"]
    np.testing.assert_allclose(seconds, np.cumsum([0.7 + 3, 0.7 + 6, 0.7 + 6]))
    own = make_run(0, 0.5, [0.3, 0.4], participants=ALL[:2], simulated={"rounds": [5.0, 7.0]})
    assert compute_costs(own, lines)["seconds"].tolist() == [5, 12]  # the run's own simulation counts


def test_time_to_an_accuracy_is_that_of_the_first_round_that_reaches_it():
    assert find_round(FEDAVG["runs"]["0"], 0.7) == 2 and find_round(FEDAVG["runs"]["0"], 0.71) is None
    (told,) = measure_time_to(RECORDS, 0.6, Lines(16, 24, 10, 0.25))  # central has no rounds
    assert told["rounds"] == [2, None] and told["megabytes"] == [3.0, None] and told["reached"] == 1
    assert told["seconds"] == [pytest.approx(13.4), None]
    table = build_time_table([told])
    assert "| skew | FedAvg | 60 % | 1 of 2 | 2 | 3 | 13 |" in table
    (never,) = measure_time_to([FEDAVG], 0.99)
    assert "| 0 of 2 | – | – | – |" in build_time_table([never])


# ---- rates


def test_a_search_gives_the_best_validation_accuracy_by_value():
    values = {f"fedavg_{v}": {"algorithm": "fedavg", "client_learning_rate": v} for v in (0.1, 0.01)}
    done = make_record("search", "fedavg_0.1", list(FEDAVG["runs"].values()))
    chosen = {"fedavg": {"client_learning_rate": 0.1}}
    found = group_rates(plan("search", **values), [done, CENTRAL], chosen)
    slow, fast = found["fedavg"]
    assert slow["value"] == 0.01 and slow["reached"] is None and not slow["chosen"]
    assert fast["reached"] == pytest.approx((0.7 + 0.5) / 2) and fast["chosen"]
    fig = plots_costs.plot_rates(found)
    (ax,) = fig.axes
    assert [text.get_text() for text in ax.texts] == ["not run"] and ax.get_title() == "FedAvg"
    assert ax.lines[0].get_xdata().tolist() == [0.1]
    assert plots_costs.plot_rates(found, {}).axes[0].get_title() == "fedavg"


def test_a_search_is_of_what_chooses_the_round():
    run = FEDAVG["runs"]["0"] | {"validation": {"dice": [0.2, 0.6, 0.5], "loss": [0.9, 0.4, 0.7]}}
    found = group_rates("tuning_phantom_3d", [make_record("tuning_phantom_3d", "epochs_2", [run])])
    assert [(one["value"], one["reached"], one["quantity"]) for one in found["epochs"]] == [
        (1, None, "dice"),
        (2, 0.6, "dice"),
        (4, None, "dice"),
    ]
    same = {"algorithm": "fedavg", "choose_by": "-loss"}
    values = {f"a_{v}": same | {"client_learning_rate": v} for v in (0.1, 0.2)}
    found = group_rates(plan("search", **values), [make_record("search", "a_0.1", [run])])
    assert found["a"][0]["reached"] == -0.4


@pytest.mark.parametrize(
    "algorithms", [{"fedavg": {}}, {"a_1": {"algorithm": "fedavg"}, "a_2": {"algorithm": "fedavg"}}]
)
def test_a_search_whose_names_have_no_value_or_no_difference_is_refused(algorithms):
    with pytest.raises(InputError, match="expected names <family>_<value> with one setting that differs"):
        group_rates(plan("search", **algorithms), [])


# ---- figures


def test_the_heat_map_has_the_numbers_of_the_partition():
    ax = plots_study.plot_counts(np.asarray(COUNTS), ("a", "b"))
    assert [int(text.get_text()) for text in ax.texts] == [10, 0, 10, 20, 30, 30]
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"hospital {k}" for k in (1, 2, 3)]


def test_results_stand_beside_who_holds_what_and_what_was_not_run_says_so():
    rows = summarise_study(STUDY, RECORDS)
    held = {"counts": COUNTS, "classes": ("a", "b")}
    fig = plots_study.plot_holdings_and_results(rows, {"skew": held, "even": held})
    right = fig.axes[1]
    assert [text.get_text() for text in right.texts] == ["not run", "not run"]
    assert "central (1 of 2 seeds)" in [label.get_text() for label in right.get_yticklabels()]
    ticks = next(line for line in right.lines if line.get_marker() == "|")
    assert list(ticks.get_xdata()) == [0.5, 0.7] and set(ticks.get_ydata()) == {1}
    assert len({ax.get_xlim() for ax in (fig.axes[1], fig.axes[3])}) == 1


def test_curves_show_the_bounds_of_another_experiment():
    records = [LOCAL, *RECORDS, {**FEDAVG, "experiment": "even"}]
    for bounds, shown in ((None, 0), ({"even": IN_SKEW, "skew": IN_SKEW}, 1)):
        panels = plots_study.plot_study(records, bounds=bounds).axes[:2]
        for style, curve in (("--", CENTRAL["runs"]["0"]["validation"]["accuracy"]), (":", [0.5])):
            drawn = [[line for line in ax.lines if line.get_linestyle() == style] for ax in panels]
            assert [len(lines) for lines in drawn] == [1, shown]
            assert all(line.get_ydata().tolist() == curve for lines in drawn for line in lines)


def test_the_dashed_line_is_central_training_here_or_of_another_file(monkeypatch):
    held = {"counts": COUNTS, "classes": ("a", "b")}

    def list_dashed():
        rows = summarise_study(STUDY, RECORDS)
        fig = plots_study.plot_holdings_and_results(rows, {"skew": held, "even": held})
        right = fig.axes[1::2]
        return [[at.get_xdata()[0] for at in ax.lines if at.get_linestyle() == "--"] for ax in right]

    assert list_dashed() == [[0.8], []]
    monkeypatch.setattr(Experiment, "bounds", IN_SKEW)
    assert list_dashed() == [[0.8], [0.8]]


def test_results_stand_between_the_bounds_of_another_file(monkeypatch):
    monkeypatch.setattr(Experiment, "bounds", IN_SKEW)
    even = plan("even", fedavg={})
    rows = summarise_study([STUDY[0], even], [LOCAL, CENTRAL, {**FEDAVG, "experiment": "even"}])
    fig = plots_study.plot_holdings_and_results(rows, {"even": {"counts": COUNTS, "classes": ("a", "b")}})
    names = [label.get_text() for label in fig.axes[1].get_yticklabels()]
    assert names == ["local, mean", "FedAvg", "central (1 of 2 seeds)"]


def test_the_curves_of_cost_never_fall():
    fig = plots_costs.plot_cost_grid([FEDAVG, CENTRAL], lines=Lines(16, 24, 10), target=0.6)
    assert len(fig.axes) == 3
    curve = fig.axes[1].lines[0]
    np.testing.assert_allclose(curve.get_xdata(), [1.5, 3.0, 4.5])
    assert curve.get_ydata().tolist() == [0.3, 0.7, 0.7]


def test_no_curve_of_costs_is_cut_off_by_that_of_a_shorter_experiment():
    longer = copy.deepcopy(FEDAVG) | {"experiment": "longer"}
    for run in longer["runs"].values():
        run["participants"] = run["participants"] * 4
        run["validation"] = {key: values * 4 for key, values in run["validation"].items()}
    fig = plots_costs.plot_cost_grid([FEDAVG, longer])
    drawn = [(ax, line) for ax in fig.axes for line in ax.lines]
    assert max(len(line.get_xdata()) for _, line in drawn) == 4 * min(
        len(line.get_xdata()) for _, line in drawn
    )
    assert all(line.get_xdata()[-1] <= ax.get_xlim()[1] for ax, line in drawn)
    plt.close(fig)


def test_seeds_that_never_reached_the_accuracy_are_counted_in_the_figure():
    told = measure_time_to([FEDAVG], 0.6) + measure_time_to([FEDAVG], 0.99)
    fig = plots_costs.plot_time_grid(told)
    assert [text.get_text() for text in fig.axes[0].texts] == ["1 of 2 not", "not reached"]
    plt.close(fig)


def test_divergence_is_a_dot_a_hospital():
    told = [{"label_distance": 0.2, "cosine": 0.9, "share": 0.5}] * 3
    ax = plots_costs.plot_divergence({"IID": told, "skew": told[:2]})
    assert [len(dots.get_offsets()) for dots in ax.collections] == [3, 2]


# ---- the README


SETTINGS = {"experiments": STUDY, "report_round": 2}


def test_the_readme_of_a_half_done_study_shows_what_is_there(tmp_path):
    for record in (*RECORDS, make_record("other", "fedavg", list(FEDAVG["runs"].values()))):
        (tmp_path / f"{record['name']}.json").write_text(to_json(record))
    text = build_study(tmp_path, SETTINGS)
    assert "| FedAvg | 60.0 ± 14.1 |\n" in text and "| local, mean of hospitals | not run |\n" in text
    assert "| skew | 0.25, 0.25 | 60, 60 | – |" in text
    # A partition that nothing was done under has no column, and is named.
    assert text.count("| training | skew |\n") == 5 and "3 of 12 planned runs done. Their rounds" in text
    assert "took 1.5 h in all. Not begun: even." in text
    assert "What this does not show" in text
    assert "at the best of the first 2 rounds" in text and "other" not in text.split("**")[2]


def test_the_readme_of_a_study_that_was_not_begun_says_so(tmp_path):
    text = build_study(tmp_path, SETTINGS | {"experiments": ["phantom_smoke"]})
    assert text == "0 of 3 planned runs done: `fedutils experiment phantom_smoke` runs them."
