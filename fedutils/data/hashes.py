"""Hashes of pictures, and the pairs that show the same: pixel for pixel, or nearly.

Two stages find near copies. A difference hash (dHash [1]_) of 64 bits proposes pairs; the correlation of
small thumbnails confirms them, because slices of two heads are alike enough to share most bits. Copies that
were mirrored or turned are sought too: public sets hold more of them than plain ones.

References
----------
.. [1] N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

SIDE = 72  # pixels of a thumbnail: 8 x 9 cells of the hash divide it, and so do those of the turned picture
NEAR_BITS = 4  # of 64
NEAR_CORRELATION = 0.97
_CONFIRM = 24  # side at which two thumbnails are correlated
_BLOCK = 256  # rows of the table of distances at a time: about 13 MB for 6,500 images

# How the second picture has to be moved to show the first: the eight symmetries of a square.
ORIENTATIONS = {
    "as it is": lambda x: x,
    "mirrored left to right": lambda x: x[:, :, ::-1],
    "upside down": lambda x: x[:, ::-1],
    "turned by 180°": lambda x: x[:, ::-1, ::-1],
    "turned by 90°": lambda x: np.rot90(x, 1, (1, 2)),
    "turned by 270°": lambda x: np.rot90(x, 3, (1, 2)),
    "mirrored along the diagonal": lambda x: x.transpose(0, 2, 1),
    "mirrored along the other diagonal": lambda x: x[:, ::-1, ::-1].transpose(0, 2, 1),
}


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Pairs of pictures that show nearly the same, each once.

    Attributes
    ----------
    pairs : int64 (M, 2)
        Positions, the smaller first; sorted.
    bits : int64 (M,)
        In how many of 64 bits their hashes differ.
    correlation : float64 (M,)
        Of their thumbnails, -1 to 1.
    orientation : tuple of str
        One of `ORIENTATIONS` a pair.
    """

    pairs: np.ndarray
    bits: np.ndarray
    correlation: np.ndarray
    orientation: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)


def hash_pixels(pixels: np.ndarray) -> str:
    """Return a hash of an array's shape and values: equal for two files only if they show the same.

    Parameters
    ----------
    pixels : any dtype, any shape

    Returns
    -------
    str
        The first 16 hexadecimal digits of SHA-256.
    """
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).reshape(-1))
    return digest.hexdigest()[:16]


def compute_dhash(thumbnails: np.ndarray) -> np.ndarray:
    """Compute the difference hash: which cell of an 8 x 9 grid is brighter than its left neighbour.

    Scale, format and contrast change few bits, because only the sign of each step counts.

    Parameters
    ----------
    thumbnails : uint8 (N, 72, 72)

    Returns
    -------
    uint64 (N,)
    """
    n = len(thumbnails)
    # Sums of whole cells, not interpolation, so that a mirrored picture gives exactly the mirrored grid.
    cells = thumbnails.reshape(n, 8, SIDE // 8, 9, SIDE // 9).sum(axis=4, dtype=np.uint32).sum(axis=2)
    bits = cells[:, :, 1:] > cells[:, :, :-1]  # (N, 8, 8)
    return np.packbits(bits.reshape(n, 64), axis=1).view(">u8").astype(np.uint64).reshape(n)


def find_close_hashes(
    hashes: np.ndarray, others: np.ndarray, *, distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs i < j whose hashes differ in few bits, by counting bits over all pairs, block by block.

    Parameters
    ----------
    hashes, others : uint64 (N,)
        ``hashes[i]`` is compared with ``others[j]``: pass one array twice, or the hashes of the same pictures
        mirrored.
    distance : int
        Largest number of bits, 0 to 64.

    Returns
    -------
    pairs : int64 (M, 2)
    bits : int64 (M,)
    """
    found, apart = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(hashes), _BLOCK):
        bits = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ others[None, start:])
        rows, columns = np.nonzero(bits <= distance)
        later = columns > rows
        rows, columns = rows[later], columns[later]
        found.append(np.stack([rows, columns], axis=1) + start)
        apart.append(bits[rows, columns].astype(np.int64))
    return np.concatenate(found), np.concatenate(apart)


def find_near_copies(
    thumbnails: np.ndarray,
    *,
    distance: int = NEAR_BITS,
    correlation: float = NEAR_CORRELATION,
    orientations: bool = True,
) -> NearPairs:
    """Find the pairs of pictures that show nearly the same.

    Parameters
    ----------
    thumbnails : uint8 (N, 72, 72)
    distance : int
        Largest difference of their hashes, in bits of 64.
    correlation : float
        Smallest correlation of their thumbnails at 24 x 24 pixels. A constant picture has none.
    orientations : bool
        Look for mirrored and turned copies too (the eight symmetries of a square).
    """
    hashes = compute_dhash(thumbnails)
    coarse = _shrink(thumbnails)
    plain = _unit_vectors(coarse)
    best: dict[tuple[int, int], tuple[int, float, str]] = {}
    for name, move in ORIENTATIONS.items():
        if name != "as it is" and not orientations:
            break
        moved = plain if name == "as it is" else _unit_vectors(move(coarse))
        others = hashes if name == "as it is" else compute_dhash(np.ascontiguousarray(move(thumbnails)))
        pairs, bits = find_close_hashes(hashes, others, distance=distance)
        likeness = _correlate(plain, moved, pairs)
        for k in np.flatnonzero(likeness >= correlation):
            # "As it is" comes first and stays: a head is nearly its own mirror image.
            best.setdefault((int(pairs[k, 0]), int(pairs[k, 1])), (int(bits[k]), float(likeness[k]), name))
    order = sorted(best)
    return NearPairs(
        np.asarray(order, np.int64).reshape(-1, 2),
        np.asarray([best[pair][0] for pair in order], np.int64),
        np.asarray([best[pair][1] for pair in order], np.float64),
        tuple(best[pair][2] for pair in order),
    )


def _shrink(thumbnails: np.ndarray) -> np.ndarray:
    """Return float32 (N, 24, 24): means of blocks."""
    n, step = len(thumbnails), SIDE // _CONFIRM
    blocks = thumbnails.reshape(n, _CONFIRM, step, _CONFIRM, step)
    return blocks.sum(axis=4, dtype=np.uint16).sum(axis=2).astype(np.float32) / step**2


def _unit_vectors(coarse: np.ndarray) -> np.ndarray:
    """Return float32 (N, 576) of mean 0 and length 1; a constant picture gives zeros."""
    vectors = coarse.reshape(len(coarse), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-3)


def describe_pictures(thumbnails: np.ndarray) -> np.ndarray:
    """Return float32 (N, 576): the thumbnails as vectors whose dot product is their correlation."""
    return _unit_vectors(_shrink(thumbnails))


def _correlate(first: np.ndarray, second: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    found = np.empty(len(pairs), np.float64)
    for start in range(0, len(pairs), 8192):  # 2 x 19 MB at a time, however many pairs there are
        a, b = pairs[start : start + 8192].T
        found[start : start + 8192] = np.einsum("ij,ij->i", first[a], second[b])
    return found
