"""A model's weights as one string of bytes, and the checks of such a string before anything is done with it.

The layers lie one after another in C order, little-endian. Nothing here imports TensorFlow.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedutils.errors import InputError
from fedutils.hospital.service import Layer, refuse

DTYPES = ("float16", "float32", "float64")
_MOST_LAYERS = 4000
_BLOCK = 1 << 14  # values compared at a time: in the processor's cache, and too few for threads of BLAS


@dataclass(frozen=True)
class LayerSpec:
    """What one array of weights is.

    Attributes
    ----------
    name : str
        The variable's path in the model.
    dtype : str
        One of `DTYPES`.
    shape : tuple of int
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the array."""
        return math.prod(self.shape) * int(self.dtype[5:]) // 8

    def to_thrift(self):
        """Return the layer as it travels."""
        return Layer(name=self.name, dtype=self.dtype, shape=list(self.shape))


def describe_layers(names: Sequence[str], arrays: Sequence[np.ndarray]) -> tuple[LayerSpec, ...]:
    """Return what the arrays of a model are.

    Raises
    ------
    InputError
        If there is no array, there are too many, or one is not of floats.
    """
    if not 0 < len(arrays) <= _MOST_LAYERS:
        raise InputError(
            f"model: expected 1 to {_MOST_LAYERS} arrays of weights, found {len(arrays)}; use another model"
        )
    for name, array in zip(names, arrays, strict=True):
        if str(array.dtype) not in DTYPES:
            raise InputError(
                f"model: expected weights of {', '.join(DTYPES)}, found {array.dtype} in {name}; a mean of "
                "such numbers means nothing, use another model"
            )
    return tuple(LayerSpec(n, str(a.dtype), a.shape) for n, a in zip(names, arrays, strict=True))


def view_bytes(arrays: Sequence[np.ndarray]) -> Iterator[memoryview]:
    """Yield the bytes of each array; not a copy where it lies in memory as it travels."""
    for array in arrays:
        ordered = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        yield memoryview(ordered.reshape(-1).view(np.uint8))


def pack(arrays: Sequence[np.ndarray]) -> bytes:
    """Return the arrays as one string of bytes."""
    return b"".join(view_bytes(arrays))


def unpack(layers: Sequence[LayerSpec], data) -> list[np.ndarray]:
    """Return the arrays in a string of bytes, as read-only views of it.

    Raises
    ------
    InputError
        If the string has another length than the layers.
    """
    size = sum(layer.num_bytes for layer in layers)
    if len(data) != size:
        raise InputError(f"weights: expected {size:,} bytes, found {len(data):,}; get or train them again")
    arrays, offset = [], 0
    for layer in layers:
        count = math.prod(layer.shape)
        array = np.frombuffer(data, np.dtype(layer.dtype).newbyteorder("<"), count, offset)
        arrays.append(array.reshape(layer.shape))
        arrays[-1].flags.writeable = False
        offset += layer.num_bytes
    return arrays


def hash_bytes(data) -> str:
    """Return the SHA-256 of a string of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_arrays(arrays: Sequence[np.ndarray]) -> str:
    """Return the SHA-256 of arrays as they travel, in hexadecimal digits."""
    digest = hashlib.sha256()
    for view in view_bytes(arrays):
        digest.update(view)
    return digest.hexdigest()


def read_layers(sent, most_bytes: int) -> tuple[LayerSpec, ...]:
    """Return the layers that came over the network.

    Raises
    ------
    Refused
        If they are not layers, or claim more than `most_bytes`.
    """
    if not isinstance(sent, list) or not 0 < len(sent) <= _MOST_LAYERS:
        found = f"{len(sent)}" if isinstance(sent, list) else "none"
        raise refuse("WRONG_LAYERS", f"expected 1 to {_MOST_LAYERS} layers, found {found}")
    layers, total = [], 0
    for number, layer in enumerate(sent):
        if layer.dtype not in DTYPES:
            raise refuse(
                "WRONG_DTYPE", f"layer {number}: expected {', '.join(DTYPES)}, found {layer.dtype!r:.40}"
            )
        shape = layer.shape
        if not isinstance(shape, list) or len(shape) > 32 or any(side < 0 for side in shape):
            raise refuse("WRONG_SHAPE", f"layer {number}: expected sides of 0 or more, found {shape!r:.80}")
        layers.append(LayerSpec(str(layer.name), layer.dtype, tuple(shape)))
        total += layers[-1].num_bytes
        if total > most_bytes:
            raise refuse(
                "TOO_LARGE",
                f"expected at most {most_bytes:,} bytes of weights, found a claim of {total:,} or more",
            )
    return tuple(layers)


def compare_layers(sent: Sequence[LayerSpec], own: Sequence[LayerSpec]) -> None:
    """Refuse layers that are not those of the server's model.

    Raises
    ------
    Refused
        With the first difference.
    """
    if len(sent) != len(own):
        raise refuse("WRONG_LAYERS", f"expected {len(own)} layers, found {len(sent)}; get the model again")
    for number, (theirs, ours) in enumerate(zip(sent, own, strict=True)):
        if theirs.name != ours.name:
            raise refuse("WRONG_LAYERS", f"layer {number}: expected {ours.name}, found {theirs.name!r:.80}")
        if theirs.dtype != ours.dtype:
            raise refuse("WRONG_DTYPE", f"{ours.name}: expected {ours.dtype}, found {theirs.dtype}")
        if theirs.shape != ours.shape:
            raise refuse("WRONG_SHAPE", f"{ours.name}: expected {ours.shape}, found {theirs.shape}")


class Distance:
    """The L2 distance of weights from a model's, measured while they come in.

    Parameters
    ----------
    layers : sequence of LayerSpec
    sent, own : buffer
        As long as the layers; what has not come yet of `sent` may be anything.
    """

    def __init__(self, layers: Sequence[LayerSpec], sent, own):
        self._layers = list(zip(layers, unpack(layers, sent), unpack(layers, own), strict=True))
        self._begin, self._done = 0, 0  # the first byte of the layer that is measured, and its values so far
        self._total = 0.0

    def advance(self, came: int) -> None:
        """Measure up to a byte.

        Raises
        ------
        Refused
            If there is NaN or infinity.
        """
        while self._layers:
            layer, theirs, ours = self._layers[0]
            ready = min((came - self._begin) // theirs.itemsize, theirs.size)
            self._add(
                layer.name, theirs.reshape(-1)[self._done : ready], ours.reshape(-1)[self._done : ready]
            )
            self._done = ready
            if ready < theirs.size:
                return
            self._layers.pop(0)
            self._begin, self._done = self._begin + layer.num_bytes, 0

    @property
    def value(self) -> float:
        """Of what was measured, to a millionth of itself."""
        return math.sqrt(self._total)

    def _add(self, name: str, theirs: np.ndarray, ours: np.ndarray) -> None:
        square = sum(_square(a, b) for a, b in zip(_blocks(theirs), _blocks(ours), strict=True))
        if not math.isfinite(square) and not np.isfinite(theirs).all():
            raise refuse("NOT_FINITE", f"{name}: expected finite weights, found NaN or infinity; train again")
        self._total += square


def _square(a: np.ndarray, b: np.ndarray) -> float:
    """Return the squared distance of two blocks."""
    # In float32 at least; what overflows there does not in float64. What overflows in that is far enough.
    for dtype in (np.promote_types(a.dtype, np.float32), np.float64):
        with np.errstate(over="ignore", invalid="ignore"):
            difference = np.subtract(a, b, dtype=dtype)
            square = float(difference @ difference)
        if math.isfinite(square):
            break
    return square


def _blocks(flat: np.ndarray) -> Iterator[np.ndarray]:
    return (flat[first : first + _BLOCK] for first in range(0, flat.size, _BLOCK))


def average(layers: Sequence[LayerSpec], parts: Iterator[tuple[int, bytes]]) -> bytes:
    """Return the mean of several hospitals' weights, weighted by their numbers of cases [1]_.

    In float64 and in the order given, so that the same submissions give the same bytes.

    Parameters
    ----------
    layers : sequence of LayerSpec
    parts : iterator of (int, bytes)
        Cases and weights of each hospital; one of them is in memory at a time.

    References
    ----------
    .. [1] B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
       AISTATS 2017.
    """
    sums = [np.zeros(layer.shape, np.float64) for layer in layers]
    cases = 0
    for count, data in parts:
        cases += count
        for total, array in zip(sums, unpack(layers, data), strict=True):
            total += np.multiply(array, count, dtype=np.float64)
    return pack([(s / cases).astype(layer.dtype) for s, layer in zip(sums, layers, strict=True)])
