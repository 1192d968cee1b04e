"""Weights as bytes, their checks, the mean, limits and frames: what the hospitals' server is made of."""

import contextlib
import struct

import numpy as np
import pytest
from hospital_helpers import SHAPES, make_arrays
from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TMessageType
from thriftpy2.transport import TMemoryBuffer

from fedutils.errors import InputError
from fedutils.hospital.limits import Limits, Memory, Rate, read_limits
from fedutils.hospital.service import FLServer, Layer, Refused, name_reason
from fedutils.hospital.weights import (
    Distance,
    LayerSpec,
    average,
    compare_layers,
    describe_layers,
    pack,
    read_layers,
    unpack,
)
from fedutils.hospital.wire import MOST_FRAME, FrameError, check_message

LAYERS = describe_layers(["a", "b", "c"], make_arrays(0))


def test_arrays_survive_the_bytes():
    arrays = [np.float64([[1, -2, 3]]), np.float16(4), np.zeros((0, 3), np.float32)]
    layers = describe_layers("xyz", arrays)
    back = unpack(layers, pack(arrays))
    assert [str(a.dtype) for a in back] == ["float64", "float16", "float32"]
    assert all(np.array_equal(a, b) and a.shape == b.shape for a, b in zip(arrays, back, strict=True))
    assert not back[0].flags.writeable
    with pytest.raises(InputError, match="expected 26 bytes, found 25"):
        unpack(layers, pack(arrays)[:-1])


def test_weights_of_another_kind_than_floats_are_refused():
    with pytest.raises(InputError, match="found int64 in counter"):
        describe_layers(["counter"], [np.arange(3)])


def test_the_mean_is_weighted_by_cases_in_float64():
    layers = describe_layers(["w"], [np.float32([0, 0])])
    parts = [(1, pack([np.float32([1, 16777216])])), (3, pack([np.float32([5, 16777218])]))]
    (mean,) = unpack(layers, average(layers, iter(parts)))
    assert mean.tolist() == [4.0, 16777218.0], (
        "1/4 of 1 and 3/4 of 5; in float32 the sum would have lost the 2"
    )
    (alone,) = unpack(layers, average(layers, iter(parts[:1])))
    assert alone.tolist() == [1.0, 16777216.0]


def measure_distance(layers, sent, own, step=7):
    """Measure while the bytes come in steps that end in the midst of values and layers."""
    distance = Distance(layers, sent, own)
    for came in (*range(0, len(sent), step), len(sent)):
        distance.advance(came)
    return distance.value


def test_the_distance_is_that_of_all_layers_together():
    zero = pack([np.zeros(shape, np.float32) for shape in SHAPES])
    far = pack([np.full(shape, 2, np.float32) for shape in SHAPES])
    assert measure_distance(LAYERS, far, zero) == pytest.approx(2 * np.sqrt(15 + 5 + 42))
    large = (LayerSpec("large", "float32", (3, 40_000)),)  # several blocks
    values = np.zeros((3, 40_000), np.float32)
    values[2, 39_999], values[0, 0] = 3, 4
    assert measure_distance(large, pack([values]), pack([0 * values]), step=99_999) == 5
    halfway = Distance(large, pack([values]), pack([0 * values]))
    halfway.advance(4 * 120_000 - 1)  # the last value has not come
    assert halfway.value == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_wherever_it_is(bad):
    for layer in range(len(SHAPES)):
        arrays = make_arrays(1)
        arrays[layer].flat[-1] = bad
        with pytest.raises(Refused) as caught:
            measure_distance(LAYERS, pack(arrays), pack(make_arrays(0)))
        assert name_reason(caught.value) == "NOT_FINITE" and "abc"[layer] in caught.value.message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sent: sent.pop(), "WRONG_LAYERS"),
        (lambda sent: sent.clear(), "WRONG_LAYERS"),
        (lambda sent: sent.reverse(), "WRONG_LAYERS"),
        (lambda sent: setattr(sent[0], "name", None), "WRONG_LAYERS"),
        (lambda sent: setattr(sent[0], "dtype", "float64"), "WRONG_DTYPE"),
        (lambda sent: setattr(sent[0], "dtype", "object"), "WRONG_DTYPE"),
        (lambda sent: setattr(sent[0], "dtype", None), "WRONG_DTYPE"),
        (lambda sent: setattr(sent[0], "shape", [5, 3]), "WRONG_SHAPE"),
        (lambda sent: setattr(sent[0], "shape", [-1, 3]), "WRONG_SHAPE"),
        (lambda sent: setattr(sent[0], "shape", None), "WRONG_SHAPE"),
        (lambda sent: setattr(sent[0], "shape", [2_500_000_000]), "TOO_LARGE"),
        (lambda sent: setattr(sent[0], "shape", [2**62, 2**62]), "TOO_LARGE"),
    ],
)
def test_layers_that_are_not_the_models_are_refused_with_the_reason(change, reason):
    sent = [layer.to_thrift() for layer in LAYERS]
    change(sent)
    with pytest.raises(Refused) as caught:
        compare_layers(read_layers(sent, 1_000_000), LAYERS)
    assert name_reason(caught.value) == reason


def test_a_rate_lets_a_burst_pass_and_then_as_many_as_come_in_time():
    now = [0.0]
    rate = Rate(2.0, 3, clock=lambda: now[0])
    assert [rate.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [rate.take() for _ in range(2)] == [True, False]


def test_memory_lets_one_claim_in_whatever_its_size_and_no_second_above_the_most():
    memory = Memory(100)
    assert memory.claim(500) and not memory.claim(1)
    memory.release(500)
    assert memory.claim(60) and memory.claim(40) and not memory.claim(1)


def test_limits_are_read_from_words():
    limits = read_limits(["norm=5.5", "connections=3"])
    assert (limits.norm, limits.connections, limits.cases) == (5.5, 3, Limits().cases)
    for word in ("norm", "norm=much", "patience=3", "norm=0", "norm=nan", "connections=1.5"):
        with pytest.raises(InputError, match="expected"):
            read_limits([word])


def make_call(method, **arguments):
    """Return the bytes of a call."""
    buffer = TMemoryBuffer()
    protocol = TBinaryProtocol(buffer)
    protocol.write_message_begin(method, TMessageType.CALL, 0)
    values = getattr(FLServer, f"{method}_args")()
    for name, value in arguments.items():
        setattr(values, name, value)
    protocol.write_struct(values)
    return buffer.getvalue()


def test_every_call_of_the_service_is_a_good_message():
    layers = [Layer(name=f"layer {i}", dtype="float32", shape=[3, 3, 64, 64]) for i in range(4000)]
    begin = make_call("begin_submission", hospital="a", version=1, number_of_cases=3, layers=layers)
    assert len(begin) < MOST_FRAME
    for call in (begin, make_call("get_model"), make_call("send_chunk", offset=0, data=bytes(1 << 20))):
        check_message(call)


# A list whose elements have no bytes keeps thriftpy2 busy for hours; so does a string with such a list in it,
# in the place of a field that is a list.
ENDLESS = struct.pack("!bi", 1, 2**31 - 1)
HEAD = make_call("get_model")[:-1]
BEGIN = make_call("begin_submission")[:-1]
MANY = struct.pack("!bi", 3, 0) * 50_000
BAD = {
    "nothing that is Thrift": b"GET / HTTP/1.1\r\n\r\n",
    "an endless list": HEAD + struct.pack("!bh", 15, 9) + ENDLESS + b"\0",
    "a list of -1 elements": HEAD + struct.pack("!bhbi", 15, 9, 8, -1) + b"\0",
    "an endless map": HEAD + struct.pack("!bhbbi", 13, 9, 1, 1, 2**31 - 1) + b"\0",
    "a string in the place of a list": BEGIN + struct.pack("!bhi", 11, 4, 5) + ENDLESS + b"\0",
    "a list of others": BEGIN + struct.pack("!bhbi", 15, 4, 8, 1) + b"\0\0\0\1\0",
    "a string of 2 GB": HEAD + struct.pack("!bhi", 11, 9, 2**31 - 1) + b"\0",
    "a string of -1 bytes": HEAD + struct.pack("!bhi", 11, 9, -1) + b"\0",
    "an unknown type": HEAD + struct.pack("!bh", 99, 9) + b"\0",
    "structs in structs": HEAD + struct.pack("!bh", 12, 9) * 30 + b"\0" * 31,
    "many small lists": HEAD + struct.pack("!bhbi", 15, 9, 15, 50_000) + MANY + b"\0",
    "the half of a message": make_call("send_chunk", offset=0, data=b"12345678")[:-5],
    "two messages": make_call("get_model") * 2,
    "a name of 1 GB": struct.pack("!Ii", 0x80010001, 2**30) + b"name" * 4,
    "the old form, without version": struct.pack("!i", 9) + b"get_model\1\0\0\0\0\0",
    "a text of 1 MB": make_call("begin_submission", hospital="x" * 10**6),
}


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_is_none_is_refused_before_it_is_read(name):
    with pytest.raises(FrameError, match="expected"):
        check_message(BAD[name])


def test_no_bytes_at_random_break_the_check():
    rng = np.random.default_rng(3)
    good = make_call("begin_submission", hospital="alpha", version=3, layers=[LAYERS[0].to_thrift()])
    passed = 0
    for _ in range(5000):
        frame = bytearray(good)
        for place in rng.integers(4, len(frame), rng.integers(1, 4)):
            frame[place] = rng.integers(256)
        try:
            check_message(frame)
        except FrameError:
            continue
        passed += 1
        buffer = TMemoryBuffer(bytes(frame))
        protocol = TBinaryProtocol(buffer, strict_decode=True)
        method, _, _ = protocol.read_message_begin()
        if method == "begin_submission":  # what passes can be read: nothing hangs, nothing is left over
            with contextlib.suppress(UnicodeDecodeError):
                FLServer.begin_submission_args().read(protocol)
                assert buffer.read(1) == b""
    assert 0 < passed < 5000
