"""Photographs in unusual modes."""

import numpy as np
import pytest
from PIL import Image

from segedu.datasets.files import read_image, read_pixels


@pytest.mark.parametrize(
    ("mode", "name"), [("P", "red.png"), ("CMYK", "red.tif"), ("RGBA", "red.png"), ("RGB", "red.png")]
)
def test_red_is_red(tmp_path, mode, name):
    Image.new("RGB", (3, 2), (255, 0, 0)).convert(mode).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (3, 2, 3)
    np.testing.assert_array_equal(image[:, 0, 0], [1, 0, 0])


def test_truth_keeps_its_indexes(tmp_path):
    truth = Image.fromarray(np.array([[0, 7]], np.uint8), mode="P")
    truth.putpalette([9] * 768)
    truth.save(tmp_path / "truth.png")
    assert read_pixels(tmp_path / "truth.png").tolist() == [[0, 7]]
