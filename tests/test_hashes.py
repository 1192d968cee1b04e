import io

import numpy as np
import pytest
from PIL import Image

from fedutils.data.hashes import (
    ORIENTATIONS,
    SIDE,
    compute_dhash,
    find_close_hashes,
    find_near_copies,
    hash_pixels,
)
from fedutils.data.image_record import PERCENTILES, record_image


def make_picture(seed, size=(120, 90)):
    """Make a smooth random picture, (width, height): what survives another format or scale."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 8), np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def thumbnail(image):
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def test_the_hash_follows_shape_and_values():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert hash_pixels(pixels) == hash_pixels(np.asfortranarray(pixels)) and len(hash_pixels(pixels)) == 16
    assert hash_pixels(pixels) != hash_pixels(pixels.reshape(4, 3))
    other = pixels.copy()
    other[2, 3] += 1
    assert hash_pixels(pixels) != hash_pixels(other)


def test_dhash_reads_each_step_along_a_row():
    picture = np.zeros((1, SIDE, SIDE), np.uint8)
    picture[0, :9, 8:16] = 200  # first row of cells, second column: one step up, then one down
    assert compute_dhash(picture).tolist() == [1 << 63]
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8), (1, SIDE, SIDE))
    assert compute_dhash(ramp).tolist() == [2**64 - 1]
    assert compute_dhash(ramp[:, :, ::-1]).tolist() == [0]


def test_close_hashes_are_all_pairs_once_and_the_block_does_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 23, np.uint64)
    hashes[17] = hashes[4] ^ np.uint64(0b1011)  # three bits apart
    hashes[9] = hashes[2]
    expected = {(4, 17): 3, (2, 9): 0}
    for block in (256, 5):
        monkeypatch.setattr("fedutils.data.hashes._BLOCK", block)
        pairs, bits = find_close_hashes(hashes, hashes, distance=3)
        assert dict(zip(map(tuple, pairs.tolist()), bits.tolist(), strict=True)) == expected
    assert len(find_close_hashes(hashes, hashes, distance=2)[0]) == 1


def test_the_eight_orientations_are_eight():
    picture = np.arange(9).reshape(1, 3, 3)
    assert len({move(picture).tobytes() for move in ORIENTATIONS.values()}) == 8


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_turned_or_mirrored_copy_is_found_and_named(name):
    first = np.stack([thumbnail(make_picture(seed)) for seed in range(6)])
    moved = ORIENTATIONS[name](first[2:3])
    # The second has to be moved to show the first: a quarter turn the other way round than it was made.
    back = {"turned by 90°": "turned by 270°", "turned by 270°": "turned by 90°"}.get(name, name)
    found = find_near_copies(np.concatenate([first, moved]))
    assert found.pairs.tolist() == [[2, 6]] and found.orientation == (back,)
    assert found.bits.tolist() == [0] and found.correlation[0] == pytest.approx(1, abs=1e-5)
    plain = find_near_copies(np.concatenate([first, moved]), orientations=False)
    assert len(plain) == (1 if name == "as it is" else 0)


def test_a_copy_survives_jpeg_scale_and_contrast():
    image = make_picture(3, (240, 180))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    darker = Image.fromarray((np.asarray(image) * 0.7 + 20).astype(np.uint8))
    copies = [image, Image.open(buffer), image.resize((150, 113)), darker, make_picture(4, (240, 180))]
    found = find_near_copies(np.stack([thumbnail(copy) for copy in copies]))
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(a, b) for b in range(4) for a in range(b)}
    assert found.bits.max() <= 4 and found.correlation.min() > 0.99


def test_equal_hashes_are_not_enough():
    gentle = np.broadcast_to(np.arange(SIDE, dtype=np.uint8), (SIDE, SIDE))
    steep = np.where(gentle < 64, gentle // 8, 255).astype(np.uint8)  # rises too, but elsewhere
    pair = np.stack([gentle, steep])
    assert np.ptp(compute_dhash(pair)) == 0
    assert len(find_near_copies(pair)) == 0
    assert len(find_near_copies(pair, correlation=0.1, orientations=False)) == 1


def test_constant_pictures_are_copies_of_nothing():
    flat = np.full((3, SIDE, SIDE), 7, np.uint8)
    assert len(find_near_copies(flat)) == 0
    assert find_near_copies(flat).pairs.shape == (0, 2)


def test_a_record_describes_an_image(tmp_path):
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:3] = 100  # half of the picture
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    record = record_image(path, Image.open(path))
    assert (record.width, record.height, record.mode) == (8, 6, "RGB")
    assert record.num_bytes == path.stat().st_size
    assert record.mean == 50 and record.deviation == 50 and record.colour == 0
    assert PERCENTILES == (5, 25, 50, 75, 95) and record.percentiles == (0, 0, 0, 100, 100)
    assert record.thumbnail.shape == (SIDE, SIDE)
    pixels[:3, :, 0] = 200
    assert record_image(path, Image.fromarray(pixels)).colour == 0.5


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    pixels = np.linspace(0, 40000, 56).reshape(7, 8).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(pixels).save(path)
    record = record_image(path, Image.open(path))
    assert 120 < record.mean < 135 and record.percentiles[0] < 20
