"""The format of the Cell Tracking Challenge, in 2D and 3D, on trees made here."""

import numpy as np
import pytest
import tifffile
import torch

from segedu.datasets.ctc import CellTracking, read_tracks


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
    with pytest.raises(ValueError, match="is no readable image"):
        CellTracking(flat)[1]
    with pytest.raises(FileNotFoundError, match="expected a table of tracks"):
        read_tracks(flat / "res_track.txt")
    (flat / "bad.txt").write_text("1 0 4\n")
    with pytest.raises(ValueError, match="line 1 is '1 0 4', expected four whole numbers"):
        read_tracks(flat / "bad.txt")
