"""How a picture of any size fits a model: what its input takes, padding, and the windows over each axis."""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
from collections.abc import Sequence

import keras
import numpy as np

from fedutils.errors import InputError

_SIGMA = 1 / 8  # of the Gaussian, in sides of the window, as in nnU-Net and MONAI
_MOST_HALVINGS = 10


def find_divisor(model: keras.Model) -> int:
    """Return the number by which the sides of a fully convolutional model's input must be divisible.

    It is the least power of two that the model accepts as a side and gives back: ``2 ** (depth - 1)`` of the
    U-Nets of `fedutils.models`, since one more pooling would leave no pixel; 1 if all sides are fixed.
    """
    sides, channels = model.input_shape[1:-1], model.input_shape[-1]
    for divisor in (2**k for k in range(_MOST_HALVINGS + 1)):
        chosen = tuple(side or divisor for side in sides)
        try:
            outputs = model.compute_output_spec(keras.KerasTensor((1, *chosen, channels)))
        except ValueError:  # a layer would be left without pixels
            continue
        if tuple(keras.tree.flatten(outputs)[0].shape[1:-1]) == chosen:
            return divisor
    raise InputError(
        f"model {model.name!r}: expected an output of the size of the input, found another; "
        "give one of fedutils.models.unet"
    )


def place_windows(side: int, window: int, overlap: float) -> list[tuple[int, np.ndarray]]:
    """Spread windows over an axis of at least their length: (start, float32 (window,) weights) of each.

    The weights of a voxel, over all windows, add up to 1.
    """
    step = max(1, int(window * (1 - overlap)))
    starts = np.linspace(0, side - window, -(-(side - window) // step) + 1).round().astype(int)
    gaussian = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / (_SIGMA * window)) ** 2)
    total = np.zeros(side)
    for start in starts:
        total[start : start + window] += gaussian
    return [(int(s), (gaussian / total[s : s + window]).astype(np.float32)) for s in starts]


def check_input(
    model: keras.Model, x: np.ndarray, flips: Sequence[int], *, batched: bool, exact: bool = False
) -> np.ndarray:
    """Return `x` as float32, (*sides, C) or a stack (N, H, W, C), once it is such as the model can take.

    Raises
    ------
    InputError
        If the rank, the channels, the sides to flip or, if `exact`, the sides do not fit, or a value is not
        finite.
    """
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) not in ((4,) if batched else (4, 5)):
        kind = "images" if batched else "images or volumes"
        raise InputError(f"model {model.name!r}: expected one input of {kind}, found {shape}")
    x = np.asarray(x)
    expected = shape if batched else shape[1:]
    fixed = expected if exact else (*(None for _ in expected[:-1]), shape[-1])
    misfit = any(e not in (None, n) for e, n in zip(fixed, x.shape, strict=False))
    if x.ndim != len(expected) or not x.size or misfit:
        raise InputError(f"x: expected {describe_shape(expected)} for model {model.name!r}, found {x.shape}")
    rank = len(shape) - 2
    if sorted({*flips} & {*range(rank)}) != sorted(flips):
        raise InputError(f"flips: expected different sides from 0 to {rank - 1}, found {tuple(flips)}")
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise InputError("x: expected finite values, found NaN or infinity; leave the case out")
    return x


def describe_shape(shape: Sequence[int | None]) -> str:
    """Return a shape as text, "any" for a side of any size."""
    return "(" + ", ".join("any" if side is None else str(side) for side in shape) + ")"


def choose_window(model: keras.Model, sides: Sequence[int], window: Sequence[int] | None) -> tuple[int, ...]:
    """Return the sides of a window: those asked for, those of the model, or what holds the whole image."""
    fixed, divisor = model.input_shape[1:-1], find_divisor(model)
    whole = tuple(f or -(-side // divisor) * divisor for f, side in zip(fixed, sides, strict=True))
    chosen = whole if window is None else tuple(window)
    if len(chosen) != len(whole) or any(
        w < 1 or (w != f if f else w % divisor) for w, f in zip(chosen, fixed, strict=False)
    ):
        raise InputError(
            f"window: expected {describe_shape(fixed)} for model {model.name!r}, any divisible by {divisor}, "
            f"found {chosen}"
        )
    return chosen


def pad_sides(
    x: np.ndarray, window: Sequence[int], *, batched: bool = False
) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Pad the sides of `x` to at least those of a window; return it and the slices that undo it."""
    first = int(batched)  # the axis of the batch stays
    more = [max(w - side, 0) for side, w in zip(x.shape[first:-1], window, strict=True)]
    before = [n // 2 for n in more]
    inner = tuple(slice(b, b + side) for b, side in zip(before, x.shape[first:-1], strict=True))
    if any(more):
        pads = [(b, n - b) for b, n in zip(before, more, strict=True)]
        x = np.pad(x, [(0, 0)] * first + pads + [(0, 0)])
    return x, (slice(None),) * first + inner
