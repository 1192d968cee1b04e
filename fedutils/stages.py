"""The order in which a computation is evaluated: client by client, not operator by operator.

TFF's compiler emits a flat list of bindings. Evaluated as they stand, each would be computed for
every client before the next, and every client's update be kept until the last one is there.
`plan_stages` orders them in stages instead. In a stage each client goes through all of its
bindings in one go, what it sends is added up, and the rest is forgotten: memory does not grow with
the number of clients, and clients can run side by side. `run_in_order` runs them so.
"""

import concurrent.futures
import dataclasses

from fedutils.tff import tff  # before the imports below, which it prepares

# isort: split
from tensorflow_federated.python.core.impl.compiler import building_blocks as blocks
from tensorflow_federated.python.core.impl.types import type_analysis

AGGREGATE = "federated_aggregate"
_LAST_PER_THREAD = 4  # clients at the end of a round that are started in the order of their sizes
_MERGE = 3  # the place of merge among federated_aggregate's arguments: of use to several servers only


@dataclasses.dataclass(frozen=True)
class Stage:
    """Bindings, pairs of a name and a building block, that are evaluated together.

    Attributes
    ----------
    once : list of (str, ComputationBuildingBlock)
        Evaluated first, in order.
    at_clients : list of (str, ComputationBuildingBlock)
        Evaluated for one client after another, or several at a time.
    aggregates : list of (str, ComputationBuildingBlock)
        Sums over the clients of what `at_clients` gave.
    kept : set of str
        Names of `at_clients` that a later stage or the result needs.
    """

    once: list = dataclasses.field(default_factory=list)
    at_clients: list = dataclasses.field(default_factory=list)
    aggregates: list = dataclasses.field(default_factory=list)
    kept: set = dataclasses.field(default_factory=set)


def plan_stages(block: blocks.Block) -> list[Stage]:
    """Order the bindings of a block in as few stages as possible.

    Parameters
    ----------
    block : building_blocks.Block
        In call-dominant form: every call of an operator is a binding, and no name is bound twice.
    """
    waiting = dict(block.locals)
    needs = {name: find_references(value) & waiting.keys() for name, value in waiting.items()}
    result_needs = find_references(block.result)
    done, stages = set(), []

    def take(ready, into):
        """Move to `into` what is ready, again and again, because it may make more ready."""
        moved = True
        while moved:
            names = [name for name in waiting if ready(name)]
            for name in names:
                into.append((name, waiting.pop(name)))
            done.update(names)
            moved = bool(names)

    while waiting:
        stage = Stage()
        take(lambda n: needs[n] <= done and not _is_of_clients(waiting[n]), stage.once)
        take(lambda n: needs[n] <= done and _is_at_clients(waiting[n]), stage.at_clients)
        # Only now: an aggregate exists after the stage, so nothing in the stage may need it.
        stage.aggregates.extend(
            (n, waiting.pop(n)) for n in list(waiting) if needs[n] <= done and is_aggregate(waiting[n])
        )
        done.update(name for name, _ in stage.aggregates)
        needed_later = result_needs.union(*(needs[n] for n in waiting))
        stage.kept.update({name for name, _ in stage.at_clients} & needed_later)
        if not (stage.once or stage.at_clients or stage.aggregates):
            raise NotImplementedError(f"bindings that need one another: {', '.join(waiting)}")
        stages.append(stage)
    return stages


def run_in_order(work, count, parallel, size):
    """Yield ``work(0)`` to ``work(count - 1)`` in this order, several of them in progress.

    The last ones are started with the largest first, so that no thread is left alone with a large client
    while the others have nothing more to do.

    Parameters
    ----------
    work : callable
        From the number of a client to what is yielded; called in threads, each number once.
    count : int
    parallel : int
        Threads. What they give waits for its turn: 2 of it a thread at most, and 4 at the end.
    size : callable
        From the number of a client to a number that grows with its work.

    References
    ----------
    .. [1] R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969: the
       largest first takes at most 4/3 of the shortest time.
    """
    if min(count, parallel) <= 1:
        yield from map(work, range(count))
        return
    others = max(count - _LAST_PER_THREAD * parallel, 0)
    waiting = [*range(others), *sorted(range(others, count), key=size, reverse=True)][::-1]
    with concurrent.futures.ThreadPoolExecutor(parallel, "client") as pool:
        pending = {}
        try:
            for client in range(count):
                # As many again may be done and wait for an earlier one, so that no thread idles.
                while waiting and (client not in pending or len(pending) < 2 * parallel):
                    started = waiting.pop()
                    pending[started] = pool.submit(work, started)
                yield pending.pop(client).result()
        finally:
            for future in pending.values():
                future.cancel()


def find_references(block) -> set[str]:
    """Return the names to which a building block refers."""
    return {part.name for part in walk(block) if isinstance(part, blocks.Reference)}


def walk(block):
    """Yield a building block and all in it that is evaluated, the parts before the whole."""
    match block:
        case blocks.Lambda():
            parts = [block.result]
        case blocks.Block():
            parts = [*(value for _, value in block.locals), block.result]
        case blocks.Call():
            parts = [block.function, *([] if block.argument is None else [block.argument])]
            if is_aggregate(block) and isinstance(block.argument, blocks.Struct):
                used = (part for i, part in enumerate(block.argument) if i != _MERGE)
                parts = [block.function, *used]
        case blocks.Struct():
            parts = list(block)
        case blocks.Selection():
            parts = [block.source]
        case _:
            parts = []
    for part in parts:
        yield from walk(part)
    yield block


def is_aggregate(block) -> bool:
    """Say whether a building block is a sum over the clients."""
    return (
        isinstance(block, blocks.Call)
        and isinstance(block.function, blocks.Intrinsic)
        and block.function.uri == AGGREGATE
    )


def _is_of_clients(block):
    return is_aggregate(block) or _is_at_clients(block)


def _is_at_clients(block):
    return type_analysis.contains(
        block.type_signature,
        lambda t: isinstance(t, tff.FederatedType) and t.placement is tff.CLIENTS and not t.all_equal,
    )
