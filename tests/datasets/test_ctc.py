"""The format of the Cell Tracking Challenge, in 2D and 3D, on trees made here."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segedu.datasets.ctc import CellInstances, CellTracking, read_tracks

from .test_shapes import assert_truth_agrees


@pytest.fixture
def flat(tmp_path):
    """Two frames of 16 bits; only the first is segmented; cell 1 divides into 2 and 3."""
    for folder in ("01", "01_GT/SEG", "01_GT/TRA"):
        (tmp_path / folder).mkdir(parents=True)
    cells = np.zeros((9, 12), np.uint16)
    cells[2:5, 2:6] = 1
    children = np.zeros_like(cells)
    children[2:5, 2:4], children[2:5, 5:7] = 2, 3
    for number, markers in enumerate((cells, children)):
        tifffile.imwrite(tmp_path / "01" / f"t00{number}.tif", markers * 1000 + 7)
        tifffile.imwrite(tmp_path / "01_GT" / "TRA" / f"man_track00{number}.tif", markers)
    tifffile.imwrite(tmp_path / "01_GT" / "SEG" / "man_seg000.tif", cells)
    (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 0 0\n2 1 1 1\n3 1 1 1\n")
    return tmp_path


def test_frames_markers_and_tracks(flat):
    data = CellTracking(flat)
    assert len(data) == 2 and data.tracks.tolist() == [[1, 0, 0, 0], [2, 1, 1, 1], [3, 1, 1, 1]]
    first, second = data
    assert first["image"].shape == (1, 9, 12) and first["image"].dtype == torch.float32
    assert float(first["image"].max()) == pytest.approx(1007 / 65535)
    assert first["label_map"].unique().tolist() == [0, 1] and first["label_map"].dtype == torch.int32
    assert second["label_map"] is None and second["markers"].unique().tolist() == [0, 2, 3]
    assert int(second["frame"]) == 1


def test_slices_of_a_volume(tmp_path):
    for folder in ("02", "02_GT/SEG"):
        (tmp_path / folder).mkdir(parents=True)
    volume = np.random.default_rng(0).integers(0, 255, (5, 8, 7), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "02" / "t003.tif", volume)
    tifffile.imwrite(tmp_path / "02_GT" / "SEG" / "man_seg_003_004.tif", np.full((8, 7), 6, np.uint16))
    sample = CellTracking(tmp_path, "02")[0]
    assert sample["image"].shape == (1, 5, 8, 7) and float(sample["image"].max()) <= 1
    assert sample["slices"].tolist() == [4] and int(sample["frame"]) == 3 and "markers" not in sample
    assert sample["label_map"][4].unique().tolist() == [6] and not sample["label_map"][:4].any()


def test_what_is_missing_or_wrong(flat):
    with pytest.raises(FileNotFoundError, match="has no 02; expected sequence folders"):
        CellTracking(flat, "02")
    (flat / "02").mkdir()
    with pytest.raises(ValueError, match="whose 02 has no t000.tif"):
        CellTracking(flat, "02")
    tifffile.imwrite(flat / "01_GT" / "SEG" / "man_seg000.tif", np.zeros((9, 11), np.uint16))
    with pytest.raises(ValueError, match=r"has shape \(9, 11\), expected \(9, 12\) as its frame"):
        CellTracking(flat)[0]
    (flat / "01" / "t001.tif").write_bytes(b"II*\x00 cut")
    with pytest.raises(ValueError, match="is not a readable image"):
        CellTracking(flat)[1]
    with pytest.raises(FileNotFoundError, match="expected a table of tracks"):
        read_tracks(flat / "res_track.txt")
    (flat / "bad.txt").write_text("1 0 4\n")
    with pytest.raises(ValueError, match="line 1 is '1 0 4', expected four integers"):
        read_tracks(flat / "bad.txt")


def test_labelled_frames_become_samples(flat):
    tifffile.imwrite(flat / "01_GT" / "SEG" / "man_seg001.tif", np.full((9, 12), 700, np.uint16))
    first, second = CellInstances(flat)
    for sample in (first, second):
        assert_truth_agrees(sample, 2)
    assert first["boxes"].tolist() == [[2, 2, 6, 5]] and first["numbers"].tolist() == [1]
    assert second["numbers"].tolist() == [700] and int(second["frame"]) == 1
    markers = CellInstances(flat, markers=True, transforms=lambda sample: sample["numbers"].tolist())
    assert list(markers) == [[1], [2, 3]]


@pytest.fixture
def deep(tmp_path):
    """Frame 0 is segmented whole, of frame 1 only slice 3; cells have the numbers 4 and 9."""
    for folder in ("01", "01_GT/SEG"):
        (tmp_path / folder).mkdir(parents=True)
    cells = np.zeros((5, 8, 7), np.uint16)
    cells[1:3, 2:4, 2:4], cells[3:, 5:, :3] = 9, 4
    volume = np.random.default_rng(0).integers(0, 2**16, cells.shape, dtype=np.uint16)
    for number in (0, 1):
        tifffile.imwrite(tmp_path / "01" / f"t00{number}.tif", volume)
    tifffile.imwrite(tmp_path / "01_GT" / "SEG" / "man_seg000.tif", cells)
    tifffile.imwrite(tmp_path / "01_GT" / "SEG" / "man_seg_001_003.tif", cells[3])
    return tmp_path, volume, cells


def test_volumes_and_slices_become_samples(deep):
    root, volume, cells = deep
    section, whole = sorted(CellInstances(root), key=lambda sample: sample["label_map"].ndim)
    assert_truth_agrees(section, 2)
    assert section["numbers"].tolist() == [4] and int(section["frame"]) == 1
    assert torch.allclose(section["image"][0], torch.from_numpy(volume[3] / 65535).float())
    assert whole["image"].shape == (1, 5, 8, 7) and whole["label_map"].dtype == torch.int32
    assert whole["numbers"].tolist() == [4, 9] and whole["labels"].tolist() == [1, 1]
    expected = torch.from_numpy(np.select([cells == 4, cells == 9], [1, 2]))
    assert torch.equal(whole["label_map"].long(), expected) and torch.equal(whole["semantic"], (expected > 0).long())


@pytest.mark.filterwarnings("ignore")
def test_a_volume_that_is_cut_short_is_refused_wherever_it_ends(deep):
    """Whole pages lost at the end leave a readable file: the other frames tell."""
    root, *_ = deep
    path = root / "01" / "t001.tif"
    content = path.read_bytes()
    for end in range(0, len(content), 23):
        path.write_bytes(content[:end])
        try:
            sample = CellTracking(root)[1]
        except ValueError as error:
            assert "t001.tif is not a readable image" in str(error) or "t001.tif has shape" in str(error)
        else:
            assert torch.equal(sample["image"], CellTracking(root)[0]["image"]), "nothing of the pixels was lost"


@pytest.mark.parametrize("pages", [1, 3])
def test_packed_files_need_no_other_package(tmp_path, monkeypatch, pages):
    (tmp_path / "01").mkdir()
    pixels = np.arange(3 * 9 * 12, dtype=np.uint16).reshape(3, 9, 12)[:pages]
    first, *rest = (Image.fromarray(page) for page in pixels)
    first.save(tmp_path / "01" / "t000.tif", save_all=True, append_images=rest, compression="tiff_lzw")

    def lacking(path):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile, "imread", lacking)
    assert torch.allclose(
        CellTracking(tmp_path)[0]["image"].squeeze(), torch.from_numpy(pixels / 65535).float().squeeze()
    )


def test_labels_that_do_not_fit(deep):
    root, _, cells = deep
    segmented = root / "01_GT" / "SEG"
    (segmented / "man_seg_001_003.tif").rename(segmented / "man_seg_001_005.tif")
    for read in (lambda: CellTracking(root)[1], lambda: list(CellInstances(root))):
        with pytest.raises(ValueError, match=r"is slice 5 of a frame of shape \(5, 8, 7\)"):
            read()
    tifffile.imwrite(segmented / "man_seg000.tif", cells.astype(np.float32))
    with pytest.raises(ValueError, match="has dtype float32, expected integers"):
        CellTracking(root)[0]
    (segmented / "man_seg_001_005.tif").rename(segmented / "man_seg_007_000.tif")
    with pytest.raises(FileNotFoundError, match="has no 01/t007.tif; expected the frame of man_seg_007_000.tif"):
        CellInstances(root)[1]
    with pytest.raises(ValueError, match="whose 01_GT has no TRA/man"):
        CellInstances(root, markers=True)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((9, 12), 4095, np.float32), "t000.tif has float32 from 4095.0 to 4095.0, expected 0 to 1"),
        (np.full((9, 12), np.nan, np.float32), "t000.tif has float32 from nan to nan"),
        (np.full((9, 12), -3, np.int16), "t000.tif has the value -3, expected at least 0"),
        (np.zeros((9, 12, 3), np.uint8), "t000.tif is not a readable image.*has 3 channels, expected one channel"),
    ],
)
def test_frames_whose_brightness_is_unknown(flat, pixels, message):
    """Colours would pass for a volume of nine slices, and brightness would leave [0, 1]."""
    options = {"photometric": "rgb"} if pixels.ndim == 3 else {}
    tifffile.imwrite(flat / "01" / "t000.tif", pixels, **options)
    with pytest.raises(ValueError, match=message):
        CellTracking(flat)[0]


def test_label_maps_that_are_none(flat):
    path = flat / "01_GT" / "SEG" / "man_seg000.tif"
    pixels = np.zeros((9, 12), np.uint8)
    pixels[1:3, 1:3] = pixels[5:8, 6:9] = 255
    tifffile.imwrite(path, pixels)
    with pytest.raises(ValueError, match="man_seg000.tif has only the values 0 and 255, in 2 separate pieces"):
        CellTracking(flat)[0]
    tifffile.imwrite(path, np.full((9, 12), 2**31, np.uint32))
    with pytest.raises(ValueError, match="man_seg000.tif has the value 2147483648, expected at most 2147483647"):
        CellInstances(flat)[0]
