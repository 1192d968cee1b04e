"""What a federated run costs in bytes, and how long it would take over given lines.

Bytes are those of the tensors that the compiled process sends: what it broadcasts, and what every client
gives to an aggregate, metrics included. Framing, encryption and retries of a real connection come on top.
Seconds are simulated from stated bandwidths, latencies and speeds; nothing here measures a network.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedutils.errors import InputError
from fedutils.program import Program
from fedutils.stages import is_aggregate, walk
from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
import numpy as np
from tensorflow_federated.python.core.impl.compiler import building_blocks as blocks

_BROADCAST = "federated_broadcast"
_SECURE = "federated_secure"  # how the names of secure operators begin
_BITS_OF_MBIT = 1e6


@dataclass(frozen=True)
class Messages:
    """Bytes between the server and one client in a round.

    Attributes
    ----------
    down : int
        From the server.
    up : int or None
        To the server; None where no honest number can be given: a secure sum, whose protocol this project
        does not have, or a tensor whose size is not known before it is sent.
    """

    down: int
    up: int | None


@dataclass(frozen=True)
class Lines:
    """How hospitals are connected and how fast they train; a number for all, or one each.

    Attributes
    ----------
    down_mbit_s, up_mbit_s : float or (num_clients,)
        10^6 bits a second, towards the hospital and away from it.
    images_per_s : float or (num_clients,)
        Images on which a hospital trains in a second.
    latency_s : float or (num_clients,)
        Seconds before a message begins to arrive; each round has one message each way.
    """

    down_mbit_s: float | Sequence[float]
    up_mbit_s: float | Sequence[float]
    images_per_s: float | Sequence[float]
    latency_s: float | Sequence[float] = 0.0

    def __post_init__(self):
        """Refuse what is not above 0, and latencies below 0."""
        for name in ("down_mbit_s", "up_mbit_s", "images_per_s"):
            if not np.all(np.asarray(getattr(self, name), np.float64) > 0):
                raise InputError(f"{name}: expected numbers above 0, found {getattr(self, name)}")
        if not np.all(np.asarray(self.latency_s, np.float64) >= 0):
            raise InputError(f"latency_s: expected seconds from 0, found {self.latency_s}")


def count_bytes(tensors: Iterable[np.ndarray]) -> int:
    """Return the bytes of some tensors."""
    return sum(int(np.asarray(tensor).nbytes) for tensor in tensors)


def measure_messages(process: tff.learning.templates.LearningProcess) -> Messages:
    """Read from the compiled process what it sends in a round.

    Parameters
    ----------
    process : tff.learning.templates.LearningProcess
        Any whose ``next`` is a federated computation, with states at the clients too. What stays at a client
        is not counted.

    Returns
    -------
    Messages
        Of a process with a compressing aggregator these are the encoded tensors (for
        ``aggregator="compressed"``: of tensors with more than 20,000 elements 8 bits an element, of which
        TFF packs 28 into 4 bytes; the others as they are).
    """
    down, up = 0, 0
    for part in walk(Program.of(process.next).block):
        if not isinstance(part, blocks.Call) or not isinstance(part.function, blocks.Intrinsic):
            continue
        if part.function.uri == _BROADCAST:
            down += _count_type(part.argument.type_signature.member)
        elif is_aggregate(part):
            size = _count_type(part.argument.type_signature[0].member)
            up = None if up is None or size is None else up + size
    return Messages(down, None if _is_secure(process) else up)


def sum_bytes(
    messages: Messages, participants: Sequence[Sequence[int]], asked: Sequence[Sequence[int]] | None = None
) -> dict[str, int | None]:
    """Add up the bytes of a run.

    Parameters
    ----------
    messages : Messages
    participants : sequence of sequence of int
        The clients of each round: they send.
    asked : sequence of sequence of int, optional
        Who received the model, late ones included; the participants by default.

    Returns
    -------
    dict
        ``down_per_client`` and ``up_per_client`` of a round, ``down_total`` and ``up_total`` of all clients
        and rounds, in bytes; None where not known.
    """
    received = sum(map(len, participants if asked is None else asked))
    sent = sum(map(len, participants))
    return {
        "down_per_client": messages.down,
        "up_per_client": messages.up,
        "down_total": messages.down * received,
        "up_total": None if messages.up is None else messages.up * sent,
    }


def compute_transfer_seconds(messages: Messages, num_clients: int, lines: Lines) -> np.ndarray:
    """Return the seconds of a round that each client waits for its messages, float64 (num_clients,).

    Two latencies, and the bits of each direction over its bandwidth.

    Raises
    ------
    InputError
        If the size of what is sent is not known, or a list has not one number a client.
    """
    if messages.up is None:
        raise InputError(
            "messages: expected a known number of bytes up, found none, as of a secure sum; choose another "
            "aggregator or leave the network out"
        )
    down, up, latency = (
        _spread(getattr(lines, name), num_clients, name) for name in ("down_mbit_s", "up_mbit_s", "latency_s")
    )
    return 2 * latency + 8 / _BITS_OF_MBIT * (messages.down / down + messages.up / up)


def compute_client_seconds(messages: Messages, num_images: Sequence[int], lines: Lines) -> np.ndarray:
    """Return the seconds of a round at each client: its messages and its training, float64 (num_clients,).

    Parameters
    ----------
    messages : Messages
    num_images : sequence of int
        On which each client trains in a round, all local epochs together.
    lines : Lines
    """
    speeds = _spread(lines.images_per_s, len(num_images), "images_per_s")
    training = np.asarray(num_images, np.float64) / speeds
    return compute_transfer_seconds(messages, len(num_images), lines) + training


def simulate_rounds(
    seconds: Sequence[float], asked: Sequence[Sequence[int]], deadline: float | None = None
) -> np.ndarray:
    """Return the seconds of each round of a synchronous run, float64 (rounds,).

    A round lasts as long as the slowest hospital that was asked, but no longer than its deadline; where all
    are late, until the first is done.

    Parameters
    ----------
    seconds : sequence of float
        Of a round at each client.
    asked : sequence of sequence of int
        Clients of each round.
    deadline : float, optional
        In seconds.
    """
    lasted = []
    for clients in asked:
        own = [float(seconds[k]) for k in clients]
        limit = np.inf if deadline is None else max(deadline, min(own))
        lasted.append(min(max(own), limit))
    return np.asarray(lasted)


def _spread(value, num_clients, name):
    array = np.asarray(value, np.float64)
    if array.ndim and array.shape != (num_clients,):
        raise InputError(
            f"{name}: expected one number or {num_clients}, one a hospital, found {array.tolist()}"
        )
    return np.broadcast_to(array, (num_clients,))


def _count_type(type_signature) -> int | None:
    """Return the bytes of a value of a TFF type, or None if a side of a tensor is not known."""
    if isinstance(type_signature, tff.TensorType):
        if type_signature.shape is None or None in type_signature.shape:
            return None
        return math.prod(type_signature.shape) * np.dtype(type_signature.dtype).itemsize
    sizes = [_count_type(part) for part in type_signature.children()]
    return None if None in sizes else sum(sizes)


def _is_secure(process) -> bool:
    parts = walk(process.next.to_building_block())
    return any(isinstance(part, blocks.Intrinsic) and part.uri.startswith(_SECURE) for part in parts)
