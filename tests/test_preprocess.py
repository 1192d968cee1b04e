import numpy as np
import pytest
from PIL import Image

from fedutils import preprocess
from fedutils.errors import InputError


def test_grey_is_luminance():
    red = Image.fromarray(np.full((3, 4, 3), (255, 0, 0), np.uint8))
    grey = preprocess.to_grey(red)
    assert grey.shape == (3, 4) and grey.dtype == np.float32
    assert np.allclose(grey, 0.299, atol=0.003)  # ITU-R 601 weight of red


def test_sixteen_bit_images_keep_their_range():
    pixels = np.array([[0, 1000, 40000]], np.uint16)
    assert np.allclose(preprocess.to_grey(Image.fromarray(pixels)), [[0, 0.025, 1.0]])


def test_padding_is_black_and_centred():
    padded = preprocess.pad_to_square(np.ones((2, 5), np.float32))
    assert padded.shape == (5, 5)
    assert padded.sum(axis=1).tolist() == [0, 5, 5, 0, 0]  # the odd row goes below


def test_contrast_maps_percentiles_and_survives_a_constant():
    ramp = np.arange(101, dtype=np.float32).reshape(1, -1)
    stretched = preprocess.stretch_contrast(ramp, 10, 90)
    assert stretched[0, 10] == 0 and stretched[0, 90] == 1 and stretched[0, 50] == pytest.approx(0.5)
    assert not preprocess.stretch_contrast(np.full((3, 3), 7.0, np.float32)).any()
    with pytest.raises(InputError, match="percentiles"):
        preprocess.stretch_contrast(ramp, 90, 10)


def test_resize_shrinks_by_area_and_keeps_the_mean():
    checker = np.indices((64, 64)).sum(axis=0) % 2
    small = preprocess.resize(checker.astype(np.float32), 16)
    assert small.shape == (16, 16) and np.allclose(small[2:-2, 2:-2], 0.5, atol=0.02)


def test_resize_keeps_orientation():
    image = np.zeros((20, 20), np.float32)
    image[2, 17] = 1
    row, column = np.unravel_index(preprocess.resize(image, 10).argmax(), (10, 10))
    assert (row, column) == (1, 8)
