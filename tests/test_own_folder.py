"""Folders of one's own images: what is read, and a sentence for everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from segedu.cli import app
from segedu.datasets.folder import SegmentationFolder
from segedu.recipes.inspection import inspect_folder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def random_image(seed: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six images with classes 0 and 1, in two splits."""
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 5:20] = 1
    for i in range(6):
        save(tmp_path / "images" / f"photo_{i}.png", random_image(i))
        save(tmp_path / "masks" / f"photo_{i}.png", mask)
    (tmp_path / "classes.txt").write_text("background\nleaf\n")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("photo_0\nphoto_1.png\nphoto_2\nphoto_3\n")
    (tmp_path / "splits" / "val.txt").write_text("photo_4\nphoto_5\n")
    return tmp_path


def test_reads_classes(root: Path) -> None:
    images = SegmentationFolder(root, "train")
    assert images.classes == ("background", "leaf") and images.names == [f"photo_{i}" for i in range(4)]
    item = images[1]
    assert item["image"].shape == (3, 20, 30)
    assert item["semantic"].dtype == torch.int64 and item["semantic"].sum() == 75
    assert len(item["masks"]) == 0 and len(SegmentationFolder(root)) == 6


def test_reads_label_maps(root: Path) -> None:
    (root / "masks").rename(root / "labels")
    label_map = np.zeros((20, 30), np.uint16)
    label_map[2:6, 3:9], label_map[10:14, 3:9] = 700, 3
    save(root / "labels" / "photo_0.png", label_map)
    item = SegmentationFolder(root)[0]
    assert item["boxes"].tolist() == [[3, 10, 9, 14], [3, 2, 9, 6]]  # label 3 is before label 700
    assert item["label_map"].max() == 2 and item["semantic"].max() == 1


def test_describes_label_maps(root: Path) -> None:
    for path in (root / "masks").iterdir():
        label_map = np.zeros((20, 30), np.uint16)
        label_map[2:6, 3:9], label_map[10:16, 3:9] = 255, 3  # 24 and 36 pixels; 255 is an object like any other
        save(path, label_map)
    save(root / "masks" / "photo_0.png", np.zeros((20, 30), np.uint16))
    (root / "masks").rename(root / "labels")
    report = inspect_folder(root, progress=False)
    text = " ".join(report.facts)
    assert "10 objects, 0 to 2 per image." in text and "1 images contain no object: photo_0." in text
    assert (
        "5 % of the objects are below 6 pixels" in text and "95 % below 7." in text
    )  # 2 sqrt(24 / pi), 2 sqrt(36 / pi)
    drawn = torch.from_numpy(np.asarray(report.figure.axes[1].images[0].get_array()))
    image = SegmentationFolder(root)[1]["image"].permute(1, 2, 0)
    if drawn.dtype == torch.uint8:
        drawn = drawn.float() / 255
    changed = (drawn[..., :3] - image).abs().amax(-1) > 0.02
    assert changed[2:6, 3:9].float().mean() > 0.9 and changed[10:16, 3:9].float().mean() > 0.9
    assert changed[18:].float().mean() < 0.1


def test_a_binary_mask_is_refused_on_reading(root: Path) -> None:
    """With 255 ignored, a network would learn from it that everything is background."""
    break_binary(root)
    with pytest.raises(ValueError, match=r"photo_1.png has only the values 0 and 255.*divide a binary mask by 255"):
        SegmentationFolder(root)[1]


def test_suffixes_in_capitals_are_read(root: Path) -> None:
    (root / "images" / "photo_0.png").rename(root / "images" / "photo_0.PNG")
    (root / "masks" / "photo_0.png").rename(root / "masks" / "photo_0.PNG")
    assert SegmentationFolder(root)[0]["semantic"].sum() == 75
    assert inspect_folder(root, progress=False).problems == []


def test_a_good_folder_has_no_problems(root: Path) -> None:
    report = inspect_folder(root, progress=False)
    text = " ".join(report.facts)
    assert (
        report.problems == [] and "6 images, of which 6" in text and "Splits: train 4, val 2; 0 images in none" in text
    )
    assert "Class 1 (leaf): 12.5 % of the pixels, in 6 images" in text  # 75 of 600 pixels
    assert len([axes for axes in report.figure.axes if axes.images]) == 6


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF"])
def test_grey_images_of_16_bits_are_scaled_by_their_percentiles(root: Path, suffix: str) -> None:
    (root / "images" / "photo_1.png").unlink()
    pixels = np.arange(2000, 2600, dtype=np.uint16).reshape(20, 30)  # a camera of 12 bits
    pixels[0, 0] = 60000  # a hot pixel
    Image.fromarray(pixels).save(root / "images" / f"photo_1.{suffix}", "PNG" if suffix == "png" else "TIFF")
    image = SegmentationFolder(root)[1]["image"]
    low, high = np.percentile(pixels, (1, 99.8))
    expected = ((pixels - low) / (high - low)).clip(0, 1)
    assert image.shape == (3, 20, 30) and np.abs(image.numpy() - expected).max() < 1e-6
    assert image.min() == 0 and image.max() == 1 and 0.4 < image.median() < 0.6
    report = inspect_folder(root, progress=False)
    assert report.problems == []
    assert "1 images have 16 bits: photo_1. In each of them, the 1st and 99.8th" in " ".join(report.facts)


def test_a_constant_image_of_16_bits_is_black(root: Path) -> None:
    save(root / "images" / "photo_1.png", np.full((20, 30), 40000, np.uint16))
    assert SegmentationFolder(root)[1]["image"].max() == 0


def break_missing(root: Path) -> None:
    (root / "masks" / "photo_1.png").unlink()


def break_colour(root: Path) -> None:
    save(root / "masks" / "photo_1.png", random_image(1))


def break_size(root: Path) -> None:
    save(root / "masks" / "photo_1.png", np.zeros((30, 20), np.uint8))


def break_floats(root: Path) -> None:
    Image.fromarray(np.full((20, 30), 0.5, np.float32)).save(root / "images" / "photo_1.tif")
    (root / "images" / "photo_1.png").unlink()


def break_16_bit_colours(root: Path) -> None:
    tifffile.imwrite(root / "images" / "photo_1.tif", random_image(1).astype(np.uint16) * 200, photometric="rgb")
    (root / "images" / "photo_1.png").unlink()


def break_alpha(root: Path) -> None:
    pixels = np.dstack([random_image(1), np.full((20, 30), 128, np.uint8)])
    save(root / "images" / "photo_1.png", pixels)


def break_class(root: Path) -> None:
    save(root / "masks" / "photo_1.png", np.full((20, 30), 7, np.uint8))


def break_binary(root: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9] = 255
    save(root / "masks" / "photo_1.png", mask)


def break_text(root: Path) -> None:
    (root / "images" / "photo_1.png").write_text("no image")


def break_one_class(root: Path) -> None:
    for path in (root / "masks").iterdir():
        save(path, np.zeros((20, 30), np.uint8))


def break_copies(root: Path) -> None:
    save(root / "images" / "photo_5.png", random_image(0))


def break_two_splits(root: Path) -> None:
    (root / "splits" / "val.txt").write_text("photo_0\nphoto_4\n")


def break_spelling(root: Path) -> None:
    (root / "masks" / "photo_1.png").rename(root / "masks" / "Photo_1.png")


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        (break_missing, ["1 images have no file of the same name in masks: photo_1"]),
        (break_colour, ["photo_1.png has shape (20, 30, 3)", "expected integers of shape (20, 30)"]),
        (break_size, ["photo_1.png has shape (30, 20)", "expected integers of shape (20, 30)"]),
        (break_floats, ["photo_1.tif has dtype float32", "expected 8-bit grey or colour, or 16-bit grey"]),
        (break_16_bit_colours, ["photo_1.tif has colours of 16 bits", "rescale them to 8 bits"]),
        (break_alpha, ["photo_1.png has transparent pixels", "expected an opaque image"]),
        (break_class, ["photo_1.png has the class 7, expected 0 to 1"]),
        (break_binary, ["photo_1.png has only the values 0 and 255", "divide a binary mask by 255"]),
        (break_text, ["photo_1.png is not a readable image"]),
        (break_one_class, ["All masks contain one class only", "Class 1 (leaf) is in no mask"]),
        (break_copies, ["in different splits are nearly equal: photo_0 and photo_5", "same split"]),
        (break_two_splits, ["1 images are in more than one split: photo_0"]),
        (break_spelling, ["no file of the same name in masks: photo_1", "no image of the same name: Photo_1"]),
    ],
)
def test_each_fault_gets_a_sentence(root: Path, change, sentences: list[str]) -> None:
    change(root)
    problems = " ".join(inspect_folder(root, progress=False).problems)
    for sentence in sentences:
        assert sentence in problems


def test_a_list_with_a_part_of_a_split_is_no_fault(root: Path) -> None:
    before = inspect_folder(root, progress=False).problems
    (root / "splits" / "val_small.txt").write_text("photo_4\n")
    (root / "splits" / "train_small.txt").write_text("photo_0\n")
    assert inspect_folder(root, progress=False).problems == before
    (root / "splits" / "val_small.txt").write_text("photo_0\n")
    problems = inspect_folder(root, progress=False).problems
    assert "1 images are in more than one split: photo_0. Keep each in one." in problems


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda root: (root / "images").rename(root / "pictures"), FileNotFoundError, "has no images; expected"),
        (lambda root: (root / "masks").rename(root / "truth"), FileNotFoundError, "neither masks nor labels"),
        (lambda root: (root / "labels").mkdir(), ValueError, "both masks and labels"),
        (lambda root: [path.unlink() for path in (root / "images").iterdir()], ValueError, "contains no image"),
        (lambda root: (root / "splits/val.txt").write_text("photo_9"), ValueError, "lists 'photo_9'"),
        (lambda root: (root / "splits/val.txt").write_text(""), ValueError, "is empty"),
        (lambda root: (root / "splits/all.txt").write_text("photo_1"), ValueError, "expected another, such as train"),
        (lambda root: (root / "splits/val.txt").write_bytes(b"stra\xdfe"), ValueError, "is not a UTF-8 text"),
        (lambda root: (root / "classes.txt").write_bytes(b"stra\xdfe"), ValueError, "is not a UTF-8 text"),
        (lambda root: (root / "classes.txt").write_text("leaf\nleaf"), ValueError, "'leaf' more than once"),
        (lambda root: save(root / "images/photo_1.jpg", random_image(1)), ValueError, "have the same name"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(root: Path, change, error: type, sentence: str) -> None:
    change(root)
    with pytest.raises(error, match=sentence):
        inspect_folder(root, progress=False)


def test_an_unknown_folder_or_split_is_refused(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        SegmentationFolder(root / "elsewhere")
    with pytest.raises(ValueError, match="split is 'test', expected one of all, train, val"):
        SegmentationFolder(root, "test")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nuclei_grouped", "26417 objects"), ("phase_cells", "3225 objects"), ("aerial", "Class 4: 22.5 % of the pixels")],
)
def test_real_folders_have_the_numbers_of_their_descriptions(name: str, sentence: str, shared_data: Path) -> None:
    report = inspect_folder(shared_data / name, progress=False)
    assert sentence in " ".join(report.facts) and not report.problems


def test_the_command_prints_the_problems_and_draws_a_contact_sheet(root: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    good = CliRunner().invoke(app, ["inspect", str(root), "--out", str(sheet)])
    assert good.exit_code == 0 and "No problem found." in good.output
    with Image.open(sheet) as drawn:
        assert min(drawn.size) > 300
    break_class(root)
    bad = CliRunner().invoke(app, ["inspect", str(root), "--out", str(sheet)])
    assert bad.exit_code == 1 and "Problems (1):" in bad.output and "has the class 7" in bad.output


@pytest.mark.parametrize("out", ["sheet.xyz", "nowhere/sheet.png"])
def test_a_contact_sheet_that_cannot_be_written_is_refused_at_once(root: Path, tmp_path: Path, out: str) -> None:
    result = CliRunner().invoke(app, ["inspect", str(root), "--out", str(tmp_path / out)])
    assert (
        result.exit_code == 2
        and "6 images" not in result.output
        and "existing folder" in " ".join(result.output.split())
    )
