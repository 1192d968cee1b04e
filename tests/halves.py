"""A task that a few steps learn: which half of an image is the brighter one."""

import numpy as np


def make_halves(count, seed, sides):
    """Return images of (height, width), and 0 where the left half is brighter, 1 where the right is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count).astype(np.int32)
    x = rng.uniform(0, 0.4, (count, *sides, 1)).astype(np.float32)
    middle = sides[1] // 2
    x[y == 0, :, :middle] += 0.5
    x[y == 1, :, middle:] += 0.5
    return x, y
