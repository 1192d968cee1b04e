"""Who takes part in a round: selection, hospitals that fail, and hospitals that are late.

For the argument ``participants`` of `fedutils.federated.train_federated`. A choice is a pure function of the
round, its own seed and the history of the run, so that a resumed run draws the same hospitals.

References
----------
.. [1] Y. J. Cho, J. Wang and G. Joshi, "Towards Understanding Biased Client Selection in Federated Learning",
   AISTATS 2022 (Power-of-choice; here its variant with the losses that are known from earlier rounds,
   rpow-d).
.. [2] K. Bonawitz et al., "Towards Federated Learning at Scale: System Design", MLSys 2019: dropouts and
   deadlines.
"""

from collections.abc import Callable, Sequence

from fedutils.errors import InputError
from fedutils.federated import Clients, sample_clients
from fedutils.runs import Run

# isort: split
import numpy as np
import tensorflow as tf

# From the round (from 0) and the run so far to its clients, sorted.
Participants = Callable[[int, Run], list[int]]
STRATEGIES = ("random", "by_size", "by_loss")
_BY_SIZE, _BY_LOSS, _FAILURE, _SPEED = 31, 32, 33, 34  # streams of random numbers of one seed


def choose_at_random(num_clients: int, clients_per_round: int | None, *, seed: int) -> Participants:
    """Choose uniformly without replacement, as `fedutils.federated.sample_clients`; all if None.

    Raises
    ------
    InputError
        If more clients are asked for than there are, or none.
    """
    _check_number(clients_per_round, num_clients)
    return lambda round_number, run: sample_clients(num_clients, clients_per_round, round_number, seed)


def choose_by_size(sizes: Sequence[int], clients_per_round: int | None, *, seed: int) -> Participants:
    """Choose without replacement, each draw in proportion to the number of cases.

    A client without cases is never chosen. In a weighted mean size then counts twice: in the choice and in
    the weight.

    Parameters
    ----------
    sizes : sequence of int
        Cases of each client.
    clients_per_round : int, optional
        All by default.
    seed : int

    Raises
    ------
    InputError
        If fewer clients have cases than are asked for.
    """
    shares = _compute_shares(sizes)
    count = len(shares) if clients_per_round is None else clients_per_round
    _check_number(count, int((shares > 0).sum()))

    def choose(round_number, run):
        rng = np.random.default_rng([seed, round_number, _BY_SIZE])
        return sorted(int(k) for k in rng.choice(len(shares), count, replace=False, p=shares))

    return choose


def choose_by_loss(
    sizes: Sequence[int],
    clients_per_round: int,
    *,
    num_candidates: int | None = None,
    on_time: Sequence[bool] | None = None,
    seed: int,
) -> Participants:
    """Choose the clients with the highest last known loss among some candidates: Power-of-choice [1]_.

    The candidates are drawn as by `choose_by_size`. A client's loss is the mean over the batches of the last
    round in which it took part (``client_loss`` in the history). Who has none yet, or one that is not a
    number, comes first; of equal losses, the candidate that was drawn first. Who cannot be on time comes
    after all others: its update, and with it its loss, would be left out in every round, and it would come
    first for ever.

    Parameters
    ----------
    sizes : sequence of int
        Cases of each client.
    clients_per_round : int
    num_candidates : int, optional
        d in [1]_; all clients with cases by default.
    on_time : sequence of bool, optional
        Of each client, whether it can meet the deadline (`with_deadline`); by default all can.
    seed : int

    Raises
    ------
    InputError
        If there are fewer clients with cases than candidates, or fewer candidates than clients of a round.
    """
    shares = _compute_shares(sizes)
    available = int((shares > 0).sum())
    candidates = available if num_candidates is None else num_candidates
    if not 1 <= candidates <= available:
        raise InputError(
            f"candidates: expected 1 to {available}, the number of clients with cases, found {candidates}"
        )
    _check_number(clients_per_round, candidates)
    is_late = [False] * len(shares) if on_time is None else [not soon for soon in on_time]

    def choose(round_number, run):
        rng = np.random.default_rng([seed, round_number, _BY_LOSS])
        drawn = rng.choice(len(shares), candidates, replace=False, p=shares)
        losses = find_last_losses(run)
        order = sorted(drawn, key=lambda k: (is_late[k], -losses.get(int(k), np.inf)))
        return sorted(int(k) for k in order[:clients_per_round])

    return choose


def find_last_losses(run: Run) -> dict[int, float]:
    """Return the last known training loss of each client that took part in `run` and has a finite one."""
    losses = {}
    for entry in run.history:
        for client, loss in zip(entry["clients"], entry["client_loss"], strict=True):
            losses[client] = loss
    return {client: loss for client, loss in losses.items() if np.isfinite(loss)}


def with_dropout(participants: Participants, probability: float, *, seed: int) -> Participants:
    """Let each chosen client fail in a round, independently, before it receives the model [2]_.

    Each draws a uniform number from (seed, round, client) and fails if it is below `probability`. If all
    fail, the one with the highest number stays: a round is never empty.

    Parameters
    ----------
    participants : callable
        Who is chosen.
    probability : float
        From 0, below 1.
    seed : int

    Raises
    ------
    InputError
        If the probability is not in its range.
    """
    if not 0 <= probability < 1:
        raise InputError(f"dropout: expected a probability from 0, below 1, found {probability}")

    def choose(round_number, run):
        chosen = participants(round_number, run)
        drawn = {k: np.random.default_rng([seed, round_number, k, _FAILURE]).random() for k in chosen}
        return [k for k in chosen if drawn[k] >= probability] or [max(chosen, key=drawn.get)]

    return choose


def with_deadline(participants: Participants, seconds: Sequence[float], deadline: float) -> Participants:
    """Leave out the clients that would be late [2]_; if all would, the fastest is waited for.

    Parameters
    ----------
    participants : callable
        Who is asked.
    seconds : sequence of float
        Of a round at each client, see `fedutils.communication.compute_client_seconds`.
    deadline : float
        Of a round, in seconds.

    Raises
    ------
    InputError
        If the deadline is not above 0.
    """
    _check_deadline(deadline)

    def choose(round_number, run):
        asked = participants(round_number, run)
        return [k for k in asked if seconds[k] <= deadline] or [min(asked, key=lambda k: seconds[k])]

    return choose


def replay(participants: Participants, run: Run) -> list[list[int]]:
    """Return whom a choice gave in each round of a run that is done, for example who was asked."""
    before = (Run(run.planned, run.choose_by, run.history[:r]) for r in range(len(run.history)))
    return [participants(r, so_far) for r, so_far in enumerate(before)]


def draw_speeds(num_clients: int, *, median: float, spread: float, seed: int) -> np.ndarray:
    """Draw how fast each hospital trains, once for a run: log-normal, float64 (num_clients,).

    Parameters
    ----------
    num_clients : int
    median : float
        Images a second.
    spread : float
        Standard deviation of the natural logarithm: 0 makes all alike; at 0.5 about two thirds lie within a
        factor of 1.65 of the median.
    seed : int

    Raises
    ------
    InputError
        If the median is not above 0 or the spread is below 0.
    """
    if not median > 0 or not spread >= 0:
        raise InputError(
            f"speeds: expected a median above 0 and a spread from 0, found {median} and {spread}"
        )
    return median * np.exp(spread * np.random.default_rng([seed, _SPEED]).standard_normal(num_clients))


def count_batches_in_time(
    speeds: Sequence[float], transfer_seconds: Sequence[float], deadline: float, batch_size: int
) -> np.ndarray:
    """Return how many batches each client trains on before the deadline, at least 1, int64 (num_clients,).

    Parameters
    ----------
    speeds : sequence of float
        Images a second of each client.
    transfer_seconds : sequence of float
        What each needs for its messages alone.
    deadline : float
        Seconds.
    batch_size : int
        Images of a full batch.
    """
    _check_deadline(deadline)
    left = np.maximum(deadline - np.asarray(transfer_seconds, np.float64), 0)
    return np.maximum(np.floor(left * np.asarray(speeds) / batch_size), 1).astype(np.int64)


class PartialClients:
    """Clients that train on their first batches of a round only: stragglers that send what they have.

    A weighted mean weighs what a client really trained on.

    Parameters
    ----------
    clients : Clients
    limits : sequence of int
        Most batches of each client, at least 1; see `count_batches_in_time`.

    Raises
    ------
    InputError
        If there is not one limit a client, or one is below 1.
    """

    def __init__(self, clients: Clients, limits: Sequence[int]):
        if len(limits) != clients.num_clients or min(limits) < 1:
            raise InputError(
                f"limits: expected {clients.num_clients} of at least 1 batch, found {list(limits)}"
            )
        self._clients, self._limits = clients, [int(limit) for limit in limits]

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return self._clients.num_clients

    def batches(self, client: int, round_number: int) -> tf.data.Dataset:
        """Return the first batches of a client in a round."""
        return self._clients.batches(client, round_number).take(self._limits[client])


def _compute_shares(sizes):
    sizes = np.asarray(sizes, np.float64)
    if not len(sizes) or sizes.min() < 0 or not sizes.sum():
        raise InputError(
            f"sizes: expected the number of cases of each client, some above 0, found {sizes.tolist()}"
        )
    return sizes / sizes.sum()


def _check_number(clients_per_round, num_clients):
    if clients_per_round is not None and not 1 <= clients_per_round <= num_clients:
        raise InputError(
            f"clients_per_round: expected 1 to {num_clients}, the number of clients to choose from, found "
            f"{clients_per_round}"
        )


def _check_deadline(deadline):
    if not deadline > 0:
        raise InputError(f"deadline: expected seconds above 0, found {deadline}")
