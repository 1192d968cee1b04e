"""Who takes part in a round: selection, failures, deadlines, and hospitals that do part of their work."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from fedutils.errors import InputError
from fedutils.federated import sample_clients
from fedutils.participation import (
    PartialClients,
    choose_at_random,
    choose_by_loss,
    choose_by_size,
    count_batches_in_time,
    draw_speeds,
    find_last_losses,
    replay,
    with_deadline,
    with_dropout,
)
from fedutils.runs import Run

EMPTY = Run(9)


def run_of(*rounds):
    """Make a run from rounds of {client: loss}."""
    return Run(9, history=[{"clients": list(r), "client_loss": list(r.values())} for r in rounds])


def everyone(round_number, run):
    return [0, 1, 2, 3]


@pytest.mark.parametrize(
    "choose",
    [
        choose_at_random(7, 3, seed=4),
        choose_by_size([5, 1, 9, 2, 7, 3, 3], 3, seed=4),
        choose_by_loss([5, 1, 9, 2, 7, 3, 3], 3, num_candidates=5, seed=4),
        with_dropout(choose_at_random(7, 3, seed=4), 0.5, seed=4),
        with_deadline(choose_at_random(7, 3, seed=4), [9, 1, 8, 2, 7, 3, 6], 5),
    ],
    ids=["random", "by size", "by loss", "dropout", "deadline"],
)
def test_a_choice_is_sorted_never_empty_and_follows_from_its_round_and_seed_alone(choose):
    drawn = [choose(r, EMPTY) for r in range(30)]
    tf.random.uniform([2], seed=1)
    np.random.default_rng().random()
    assert drawn == [choose(r, EMPTY) for r in range(30)]
    assert drawn[::-1] == [choose(r, EMPTY) for r in reversed(range(30))]  # in whatever order it is asked
    assert all(1 <= len(set(d)) == len(d) <= 3 and d == sorted(d) for d in drawn)
    assert len({tuple(d) for d in drawn}) > 1
    assert all(type(k) is int for d in drawn for k in d)


def test_the_random_choice_is_that_of_train_federated():
    choose = choose_at_random(9, 4, seed=3)
    assert [choose(r, EMPTY) for r in range(20)] == [sample_clients(9, 4, r, 3) for r in range(20)]
    assert choose_at_random(3, None, seed=0)(5, EMPTY) == [0, 1, 2]


def test_choice_by_size_is_in_proportion_and_leaves_out_the_empty():
    choose = choose_by_size([10, 0, 30, 60], 1, seed=0)
    drawn = np.bincount([choose(r, EMPTY)[0] for r in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(drawn, [0.1, 0, 0.3, 0.6], atol=0.03)  # 3.9 standard deviations of 0.6
    assert choose_by_size([10, 0, 30, 60], 3, seed=0)(0, EMPTY) == [0, 2, 3]


def test_choice_by_loss_takes_the_highest_last_known_losses():
    run = run_of({0: 9.0, 1: 0.1}, {0: 0.2, 2: 0.5}, {1: 0.7, 3: 0.3})
    assert find_last_losses(run) == {0: 0.2, 1: 0.7, 2: 0.5, 3: 0.3}
    assert choose_by_loss([1, 1, 1, 1], 2, seed=0)(3, run) == [1, 2]
    assert choose_by_loss([1, 1, 1, 1], 3, seed=0)(3, run) == [1, 2, 3]


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_choice_by_loss_takes_first_whom_nothing_is_known_of(loss):
    run = run_of({0: 5.0, 1: 4.0, 2: 3.0}, {} if loss is None else {3: loss})
    assert choose_by_loss([1, 1, 1, 1], 1, seed=0)(2, run) == [3]
    assert choose_by_loss([1, 1, 1, 1], 2, seed=0)(2, run) == [0, 3]


def play(asked, sent, num_rounds, loss=lambda r, k: 1.0):
    """Go through rounds of a choice of whom to ask, and of who of them sends; return who was asked."""
    run, told = Run(num_rounds), []
    for r in range(num_rounds):
        told.append(asked(r, run))
        clients = sent(r, run)
        run.history.append({"clients": clients, "client_loss": [loss(r, k) for k in clients]})
    return told


def test_who_is_always_late_is_not_asked_for_ever_because_nothing_is_known_of_it():
    seconds, on_time = [1, 1, 9, 9, 9], [True, True, False, False, False]
    asked = choose_by_loss([1] * 5, 3, on_time=on_time, seed=0)
    told = play(asked, with_deadline(asked, seconds, 5), 30)
    assert all({0, 1} < set(one) for one in told)  # both who can, and a third since three are asked
    few = choose_by_loss([1] * 5, 2, on_time=on_time, seed=0)
    assert play(few, with_deadline(few, seconds, 5), 30) == [[0, 1]] * 30
    alone = choose_by_loss([1] * 5, 3, on_time=[False] * 5, seed=0)  # nobody can: all as before
    assert [alone(r, EMPTY) for r in range(9)] == [
        choose_by_loss([1] * 5, 3, seed=0)(r, EMPTY) for r in range(9)
    ]


def test_where_nobody_is_late_those_of_whom_nothing_is_known_still_come_first():
    losses = lambda r, k: ((3 * r + 5 * k) % 7) / 7  # noqa: E731
    plain = choose_by_loss([4, 1, 3, 2, 5], 2, num_candidates=4, seed=3)
    timed = choose_by_loss([4, 1, 3, 2, 5], 2, num_candidates=4, on_time=[True] * 5, seed=3)
    assert play(plain, plain, 40, losses) == play(timed, with_deadline(timed, [1] * 5, 5), 40, losses)


def test_choice_by_loss_among_as_many_candidates_as_clients_is_a_choice_by_size():
    run = run_of({0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0})
    choose = choose_by_loss([10, 10, 20, 60], 1, num_candidates=1, seed=0)
    drawn = np.bincount([choose(r, run)[0] for r in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(drawn, [0.1, 0.1, 0.2, 0.6], atol=0.03)


def test_every_client_fails_as_often_as_it_is_said_to():
    choose = with_dropout(everyone, 0.3, seed=1)
    there = np.bincount([k for r in range(3000) for k in choose(r, EMPTY)], minlength=4) / 3000
    # 0.7, and with all four failing (0.3 ** 4) one of them at random.
    np.testing.assert_allclose(there, 0.7 + 0.3**4 / 4, atol=0.033)
    assert with_dropout(everyone, 0.0, seed=1)(0, EMPTY) == everyone(0, EMPTY)


def test_a_failure_is_the_clients_own_whoever_else_is_chosen():
    all_of_them = with_dropout(everyone, 0.5, seed=2)
    two = with_dropout(lambda r, run: [1, 3], 0.5, seed=2)
    rounds = [r for r in range(60) if set(all_of_them(r, EMPTY)) & {1, 3}]
    assert len(rounds) > 30
    for r in rounds:
        assert two(r, EMPTY) == [k for k in all_of_them(r, EMPTY) if k in (1, 3)]


def test_if_all_fail_the_one_who_would_be_the_last_to_fail_stays():
    choose, often = with_dropout(everyone, 0.999999, seed=0), with_dropout(everyone, 0.5, seed=0)
    alone = [choose(r, EMPTY) for r in range(40)]
    assert all(len(one) == 1 for one in alone) and len({one[0] for one in alone}) == 4
    assert all(set(one) <= set(often(r, EMPTY)) for r, one in enumerate(alone))


def test_late_clients_are_left_out_and_the_fastest_is_waited_for():
    assert with_deadline(everyone, [5.0, 10.0, 10.1, 2.0], 10)(0, EMPTY) == [0, 1, 3]
    assert with_deadline(everyone, [50.0, 30.0, 40.0, 30.5], 10)(0, EMPTY) == [1]


def test_a_replay_gives_what_was_chosen_with_the_history_of_then():
    choose = choose_by_loss([1, 1, 1], 1, seed=0)
    run = Run(5)
    for r, losses in enumerate(([3.0, 1.0, 2.0], [0.5, 0.6, 0.7], [0.1, 0.9, 0.2], [2.0, 0.1, 0.3])):
        clients = choose(r, run)
        run.history.append({"clients": clients, "client_loss": [losses[k] for k in clients]})
    assert replay(choose, run) == [entry["clients"] for entry in run.history]
    assert sorted(k for entry in run.history[:3] for k in entry["clients"]) == [0, 1, 2]  # the unseen first


def test_speeds_are_log_normal_about_their_median():
    speeds = draw_speeds(4001, median=20.0, spread=0.5, seed=3)
    assert np.median(speeds) == pytest.approx(20, rel=0.05)
    assert np.log(speeds).std() == pytest.approx(0.5, rel=0.05)
    assert np.array_equal(speeds[:5], draw_speeds(5, median=20.0, spread=0.5, seed=3))
    assert draw_speeds(3, median=7.0, spread=0.0, seed=1).tolist() == [7.0] * 3


def test_batches_in_time_by_hand():
    # 10 s less 2 s of transfer at 6, 1 and 0.1 images a second make 48, 8 and 0.8 images: batches of 8.
    assert count_batches_in_time([6, 1, 0.1], [2, 2, 2], 10, 8).tolist() == [6, 1, 1]
    assert count_batches_in_time([6], [20], 10, 8).tolist() == [1]  # no time at all: one batch all the same


def test_partial_clients_do_their_first_batches():
    data = {k: tf.data.Dataset.range(100 * k, 100 * k + 7) for k in range(3)}
    clients = SimpleNamespace(num_clients=3, batches=lambda k, r: data[k].map(lambda x: x + 10 * r))
    partial = PartialClients(clients, [2, 7, 99])
    read = [[int(x) for x in partial.batches(k, 1)] for k in range(3)]
    assert partial.num_clients == 3
    assert read == [[10, 11], list(range(110, 117)), list(range(210, 217))]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: choose_at_random(3, 4, seed=0), "expected 1 to 3"),
        (lambda: choose_by_size([0, 0], 1, seed=0), "some above 0"),
        (lambda: choose_by_size([4, 0, 5], 3, seed=0), "expected 1 to 2"),
        (lambda: choose_by_loss([4, 4, 5], 3, num_candidates=2, seed=0), "expected 1 to 2"),
        (lambda: choose_by_loss([4, 4, 0], 1, num_candidates=3, seed=0), "expected 1 to 2"),
        (lambda: with_dropout(everyone, 1.0, seed=0), "below 1, found 1.0"),
        (lambda: with_deadline(everyone, [1] * 4, 0), "above 0, found 0"),
        (lambda: draw_speeds(2, median=0, spread=1, seed=0), "median above 0"),
        (lambda: PartialClients(SimpleNamespace(num_clients=2), [1, 0]), "at least 1 batch"),
        (lambda: PartialClients(SimpleNamespace(num_clients=2), [1]), "expected 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make, words):
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
