"""Computations compiled for this process, with what was loaded for them."""

import collections
import weakref

from fedutils.fingerprint import fingerprint_computation
from fedutils.graphs import Leaf
from fedutils.interpreter import OPERATORS
from fedutils.loops import LoopOptions
from fedutils.quiet import without_harmless_lines
from fedutils.stages import plan_stages, walk
from fedutils.tff import tff  # noqa: F401  (before the imports below, which it prepares)

# isort: split
from tensorflow_federated.python.core.backends.native import compiler as native_compiler
from tensorflow_federated.python.core.backends.test import compiler as test_compiler
from tensorflow_federated.python.core.impl.compiler import building_blocks as blocks

_LOOPS = LoopOptions()  # the default
_RECENT = 32  # programs that are kept for computations to come; a learning process has four


def compile_computation(computation):
    """Compile to the call-dominant form, with TFF's insecure bodies for secure operators."""
    with without_harmless_lines():
        insecure = test_compiler.replace_secure_intrinsics_with_bodies(computation)
        return native_compiler.desugar_and_transform_to_native(insecure)


class Program:
    """A compiled computation, checked and loaded, so that nothing is left to fail on in a round.

    Attributes
    ----------
    block : building_blocks.ComputationBuildingBlock
        In call-dominant form.
    """

    # By identity first, because a fingerprint reads all of the computation. An entry goes when its
    # computation goes, so this is as large as what the caller keeps.
    _by_identity = {}  # noqa: RUF012
    # A computation built like an earlier one takes over its program, prepared kernels and all.
    _by_fingerprint = collections.OrderedDict()  # noqa: RUF012

    def __init__(self, block, loops=_LOOPS):
        self.block = _bind_calls(block)
        self._loops = loops
        self._leaves = {}  # by id of the building block, which self.block keeps alive
        self._stages = {}
        self._check()

    @classmethod
    def of(cls, computation, loops=_LOOPS):
        """Return the program of a computation, the same one for all that were built alike."""
        key = (id(computation), loops)
        program = cls._by_identity.get(key)
        if program is None:
            proto = type(computation).get_proto(computation)
            program = cls._recall((fingerprint_computation(proto), loops), computation)
            cls._by_identity[key] = program
            weakref.finalize(computation, cls._by_identity.pop, key, None)
        return program

    @classmethod
    def _recall(cls, key, computation):
        recent = cls._by_fingerprint
        if key not in recent:
            compiled = compile_computation(computation)
            recent[key] = cls(compiled.to_building_block(), key[1])
        recent.move_to_end(key)
        if len(recent) > _RECENT:
            recent.popitem(last=False)
        return recent[key]

    def leaf(self, block):
        """Return the callable of a TensorFlow building block."""
        leaf = self._leaves.get(id(block))
        if leaf is None:
            leaf = Leaf(block.proto.tensorflow, block.type_signature, self._loops)
            self._leaves[id(block)] = leaf
        return leaf

    def stages(self, block):
        """Return the stages of a block."""
        if id(block) not in self._stages:
            self._stages[id(block)] = plan_stages(block)
        return self._stages[id(block)]

    def draws(self, stage):
        """Say whether the clients draw from a generator that they share."""
        parts = (part for _, value in stage.at_clients for part in walk(value))
        return any(self.leaf(p).draws for p in parts if isinstance(p, blocks.CompiledComputation))

    def _check(self):
        for part in walk(self.block):
            match part:
                case blocks.CompiledComputation():
                    if part.proto.WhichOneof("computation") != "tensorflow":
                        _refuse("a computation of another kind than TensorFlow")
                    self.leaf(part)
                case blocks.Block():
                    self.stages(part)
                case blocks.Intrinsic():
                    if part.uri not in OPERATORS:
                        _refuse(f"operator {part.uri}")
                case blocks.Data() | blocks.Placement():
                    _refuse(type(part).__name__)


def _refuse(what):
    raise NotImplementedError(f"{what} cannot run in process; try fedutils.runtime.use('worker')")


def _bind_calls(block):
    """Give a computation that is one call the form of all others: calls are bound to names."""
    match block:
        case blocks.Lambda(result=blocks.Call() as call):
            bound = blocks.Block([("_call", call)], blocks.Reference("_call", call.type_signature))
            return blocks.Lambda(block.parameter_name, block.parameter_type, bound)
        case _:
            return block
