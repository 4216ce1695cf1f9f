"""Photographs in unusual modes, and files that could be read in two ways: those are refused by name."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segedu.datasets.files import read_image, read_labels, read_pixels


@pytest.mark.parametrize(
    ("mode", "name"),
    [("P", "red.png"), ("CMYK", "red.tif"), ("YCbCr", "red.tif"), ("RGBA", "red.png"), ("RGB", "red.png")],
)
def test_red_is_red(tmp_path, mode, name):
    Image.new("RGB", (3, 2), (255, 0, 0)).convert(mode).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (3, 2, 3)
    np.testing.assert_allclose(image[:, 0, 0], [1, 0, 0], atol=0.005)  # luma and chroma are rounded


def test_truth_keeps_its_indexes(tmp_path):
    truth = Image.fromarray(np.array([[0, 7]], np.uint8), mode="P")
    truth.putpalette([9] * 768)
    truth.save(tmp_path / "truth.png")
    assert read_pixels(tmp_path / "truth.png").tolist() == [[0, 7]]


SIZE = (5, 6)
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def turned(path: Path, orientation: int = 6) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)


def colours_of_16_bits(path: Path) -> None:
    pixels = RNG.integers(0, 65536, (*SIZE, 3), dtype=np.uint16)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb")
    else:
        cv2.imwrite(str(path), pixels)


def frames(path: Path, **options: object) -> None:
    pages = [Image.fromarray(COLOURS).rotate(angle) for angle in (0, 90, 180)]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)


def glass(path: Path, mode: str = "RGBA") -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    image.putalpha(Image.fromarray((255 - np.arange(30).reshape(SIZE)).astype(np.uint8)))
    image.save(path)


REFUSED = {
    "turned by EXIF": (turned, "a.jpg", "the EXIF orientation 6, expected none.*exif_transpose"),
    "mirrored by EXIF, PNG": (lambda path: turned(path, 2), "a.png", "the EXIF orientation 2"),
    "pages of a TIFF": (frames, "a.tif", "3 pages, expected one image"),
    "frames of a GIF": (frames, "a.gif", "3 pages, expected one image"),
    "frames of a PNG": (frames, "a.png", "3 pages, expected one image"),
    "16-bit colours, PNG": (colours_of_16_bits, "a.png", "colours of 16 bits, expected 8-bit"),
    "16-bit colours, TIFF": (colours_of_16_bits, "a.tif", "colours of 16 bits, expected 8-bit"),
    "16-bit grey": (lambda path: Image.fromarray(np.zeros(SIZE, np.uint16)).save(path), "a.png", "expected 8-bit"),
    "floats": (lambda path: tifffile.imwrite(path, np.zeros(SIZE, np.float32)), "a.tif", "float32, expected 8-bit"),
    "signed numbers": (lambda path: tifffile.imwrite(path, np.zeros(SIZE, np.int8)), "a.tif", "signed 8-bit values"),
    "black and white": (lambda path: Image.new("1", SIZE).save(path), "a.png", "dtype bool, expected 8-bit"),
    "alpha": (glass, "a.png", r"has transparent pixels \(smallest alpha 226\), expected an opaque image"),
    "grey with alpha": (lambda path: glass(path, "L"), "a.png", "has transparent pixels"),
    "a transparent colour": (
        lambda path: Image.fromarray(COLOURS).save(path, transparency=tuple(COLOURS[0, 0].tolist())),
        "a.png",
        "has transparent pixels",
    ),
    "a transparent palette": (
        lambda path: Image.fromarray(COLOURS).quantize(4).save(path, transparency=b"\x00\xff\xff\xff"),
        "a.png",
        "has transparent pixels",
    ),
    "Lab": (lambda path: Image.fromarray(COLOURS).convert("LAB").save(path), "a.tif", "the colour mode LAB"),
    "empty": (lambda path: path.write_bytes(b""), "a.png", "not a readable image"),
    "text": (lambda path: path.write_text("Not found"), "a.png", "not a readable image"),
}


@pytest.mark.parametrize(("write", "name", "message"), REFUSED.values(), ids=REFUSED)
def test_what_an_image_may_mean_in_two_ways_is_refused(tmp_path: Path, write, name: str, message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} .*{message}"):
        read_image(tmp_path / name)


def test_upright_opaque_and_single_images_pass(tmp_path: Path) -> None:
    turned(tmp_path / "upright.jpg", 1)
    assert read_image(tmp_path / "upright.jpg").shape == (3, *SIZE)
    Image.fromarray(COLOURS).convert("RGBA").save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), np.moveaxis(COLOURS, 2, 0) / np.float32(255))
    frames(tmp_path / "camera.mpo")  # the first is the photograph, the others are previews
    assert read_image(tmp_path / "camera.mpo").shape == (3, *SIZE)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png is not a readable image.*bomb"):
        read_image(tmp_path / "a.png")


LABELS = {
    "JPEG under another name": (
        lambda path: Image.fromarray(COLOURS[..., 0]).save(path, format="JPEG"), "a.png", "a JPEG, which changes pixel values",
    ),
    "colours": (lambda path: Image.fromarray(COLOURS).save(path), "a.png", r"shape \(5, 6, 3\)"),
    "black and white": (lambda path: Image.new("1", SIZE[::-1]).save(path), "a.png", "dtype bool, expected integers"),
    "floats": (lambda path: tifffile.imwrite(path, np.zeros(SIZE, np.float32)), "a.tif", "expected integers"),
    "negative": (lambda path: tifffile.imwrite(path, np.full(SIZE, -1, np.int16)), "a.tif", "the value -1"),
    "another size": (lambda path: Image.fromarray(COLOURS[:4, :, 0]).save(path), "a.png", r"shape \(4, 6\)"),
    "turned": (turned, "a.png", "the EXIF orientation 6"),
    "pages": (frames, "a.tif", "3 pages"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "name", "message"), LABELS.values(), ids=LABELS)
def test_what_is_no_map_of_labels(tmp_path: Path, write, name: str, message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} .*{message}"):
        read_labels(tmp_path / name, SIZE)
