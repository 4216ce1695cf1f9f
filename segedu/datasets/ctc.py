"""Cell Tracking Challenge: cells in time, in 2D or 3D, with ground truth of segmentation and of tracks.

Maška et al. 2023 (Nature Methods 20). A data set holds sequences `01`, `02` of frames `t000.tif`, and for each a
folder `01_GT` with `SEG/man_seg000.tif` (label maps of some frames), `TRA/man_track000.tif` (markers of all
frames) and `TRA/man_track.txt`: one line "label first last parent" per track. In 3D a segmentation may exist for single
slices only: `man_seg_000_003.tif` is slice 3 of frame 0.

`CellTracking` has all frames in time; `CellInstances` has the labelled ones as samples for instance segmentation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image, ImageSequence
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import check_label_map, item_of, require
from segedu.datasets.sample import compact, make_sample

CLASSES = ("background", "cell")
_LAYOUT = "sequence folders such as 01 with t000.tif, and 01_GT with SEG and TRA"
_FRAME = re.compile(r"\D*(\d+)\.tif$")
_LABELLED = re.compile(r"man_(?:seg|track)_?(\d+)(?:_(\d+))?\.tif$")  # number of the frame, number of the slice


def read_tracks(path: str | Path) -> Tensor:
    """Read the table of tracks.

    Args:
        path: man_track.txt or res_track.txt.

    Returns:
        (T, 4) int64: label, first frame, last frame, label of the parent (0: none).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}, expected a table of tracks such as man_track.txt")
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for line_number, row in enumerate(rows, start=1):
        if len(row) != 4 or not all(re.fullmatch(r"-?\d+", value) for value in row):
            raise ValueError(f"{path}, line {line_number} is {' '.join(row)!r}, expected four integers")
    return torch.tensor([[int(value) for value in row] for row in rows], dtype=torch.int64).reshape(-1, 4)


class CellTracking(Dataset):
    """The frames of one sequence.

    Args:
        root: the folder of the data set, such as `Fluo-N2DH-SIM+`.
        sequence: "01" or "02".
        transforms: called with the sample dict.

    Each item has `image` (1, H, W) or, in 3D, (1, D, H, W), float32 in [0, 1] by the range of its dtype; `frame`;
    `markers` int32, the label map of tracks (absent without TRA); `label_map` int32, or None if the frame is not
    segmented. `slices` are the indices of segmented slices, if only some are. The attribute `tracks` is the table of
    `read_tracks`.
    """

    def __init__(self, root: str | Path, sequence: str = "01", transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        folder = require(self.root / sequence, self.root, _LAYOUT)
        self.ground_truth_folder = self.root / f"{sequence}_GT"
        self.frames = sorted(path for path in folder.glob("t*.tif") if _FRAME.match(path.name))
        if not self.frames:
            raise ValueError(f"root is {str(root)!r}, whose {sequence} has no t000.tif; expected {_LAYOUT}")
        self.shape: tuple[int, ...] | None = None  # of all frames, set when the first is read
        table = self.ground_truth_folder / "TRA" / "man_track.txt"
        self.tracks = read_tracks(table) if table.is_file() else torch.zeros(0, 4, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.frames, index, self.transforms, self._read)

    def pixels(self, path: Path) -> np.ndarray:
        """Read a frame (H, W) or (D, H, W) as it is stored."""
        pixels = _read_tiff(path)
        if self.shape is None:
            self.shape = pixels.shape if path == self.frames[0] else _read_tiff(self.frames[0]).shape
        if pixels.shape != self.shape:  # also if a volume is truncated
            raise ValueError(f"{path} has shape {pixels.shape}, expected {self.shape} as {self.frames[0].name}")
        return pixels

    def _read(self, path: Path) -> dict[str, Tensor]:
        pixels = self.pixels(path)
        frame_number = _FRAME.match(path.name)[1]
        sample = {"image": _scaled_to_unit_range(pixels, path)[None], "frame": torch.tensor(int(frame_number))}
        markers = self.ground_truth_folder / "TRA" / f"man_track{frame_number}.tif"
        if markers.is_file():
            sample["markers"] = _read_map(markers, pixels.shape)
        return sample | self._segmentation(frame_number, pixels.shape)

    def _segmentation(self, frame_number: str, shape: tuple[int, ...]) -> dict[str, Tensor | None]:
        full_path = self.ground_truth_folder / "SEG" / f"man_seg{frame_number}.tif"
        if full_path.is_file():
            return {"label_map": _read_map(full_path, shape)}
        slice_paths = sorted((self.ground_truth_folder / "SEG").glob(f"man_seg_{frame_number}_*.tif"))
        if not slice_paths:
            return {"label_map": None}
        label_map = torch.zeros(shape, dtype=torch.int32)
        slices = [int(slice_path.stem.rsplit("_", 1)[1]) for slice_path in slice_paths]
        for slice_index, slice_path in zip(slices, slice_paths, strict=True):
            _check_slice(slice_path, slice_index, shape)
            label_map[slice_index] = _read_map(slice_path, shape[1:])
        return {"label_map": label_map, "slices": torch.tensor(slices)}


class CellInstances(Dataset):
    """The labelled frames of one sequence as the sample dicts of `segedu.datasets.sample`, without time.

    Args:
        root: the folder of the data set.
        sequence: "01" or "02".
        markers: use the markers of TRA, which exist for all frames and may be smaller than the cells, instead of SEG.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Items of images, and of single slices where only these were segmented, have all keys of a sample, `image` with
    three equal channels; items of volumes have `image` (1, D, H, W), `semantic`, `label_map` (D, H, W) and `labels`.
    Labels are 1..N, and `numbers` (N,) int64 are their labels in the files and in the table of tracks; `frame` is the
    index of the frame. `image` is in [0, 1] by the range of its dtype.
    """

    def __init__(
        self, root: str | Path, sequence: str = "01", markers: bool = False, transforms: Callable | None = None
    ):
        self.tracking, self.transforms = CellTracking(root, sequence), transforms
        folder = self.tracking.ground_truth_folder / ("TRA" if markers else "SEG")
        self.paths = sorted(path for path in folder.glob("man_*.tif") if _LABELLED.match(path.name))
        if not self.paths:
            raise ValueError(f"root is {str(root)!r}, whose {folder.parent.name} has no {folder.name}/man_*.tif")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.paths, index, self.transforms, self._read)

    def _read(self, path: Path) -> dict[str, Tensor]:
        frame_number, slice_index = _LABELLED.match(path.name).groups()
        file = self.tracking.frames[0].parent / f"t{frame_number}.tif"
        frame = require(file, self.tracking.root, f"the frame of {path.name}")
        pixels = self.tracking.pixels(frame)
        if slice_index is not None:
            _check_slice(path, int(slice_index), pixels.shape)
            pixels = pixels[int(slice_index)]
        label_map, file_labels = compact(_read_map(path, pixels.shape))
        image, labels = _scaled_to_unit_range(pixels, frame), torch.ones(len(file_labels), dtype=torch.int64)
        if image.ndim == 2:
            sample = make_sample(image.expand(3, -1, -1).numpy(), label_map.numpy(), labels.numpy())
        else:
            semantic = (label_map > 0).long()
            sample = {"image": image[None], "semantic": semantic, "label_map": label_map, "labels": labels}
        return sample | {"numbers": file_labels, "frame": torch.tensor(int(frame_number))}


def _scaled_to_unit_range(pixels: np.ndarray, path: Path) -> Tensor:
    """Float32 in [0, 1] by the range of the dtype."""
    if not np.issubdtype(pixels.dtype, np.integer):
        if not (pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 1):  # NaN too
            raise ValueError(f"{path} has {pixels.dtype} from {pixels.min()} to {pixels.max()}, expected 0 to 1")
        return torch.from_numpy(pixels.astype(np.float32))
    if pixels.min(initial=0) < 0:
        raise ValueError(f"{path} has the value {pixels.min()}, expected at least 0")
    return torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max)


def _check_slice(path: Path, slice_index: int, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or slice_index >= shape[0]:
        raise ValueError(
            f"{path} is slice {slice_index} of a frame of shape {shape}, expected (D, H, W) with more slices"
        )


def _read_tiff(path: Path) -> np.ndarray:
    try:
        pixels = _decode(path)
    # Its decoders raise RuntimeErrors of their own, and a header that is cut off struct.error.
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, struct.error) as error:
        raise ValueError(f"{path} is not a readable image, expected TIFF: {error}") from error
    if pixels.ndim not in (2, 3):  # a truncated file can be read as an empty array
        raise ValueError(f"{path} is not a readable image, expected TIFF of shape (H, W) or (D, H, W): {pixels.shape}")
    return pixels


def _decode(path: Path) -> np.ndarray:
    """The pixels by tifffile or, where it lacks a package to unpack them (LZW is common), by Pillow."""
    try:
        with tifffile.TiffFile(path) as file:
            # Otherwise the channels of a colour image would be read as slices.
            if file.pages and file.pages[0].samplesperpixel > 1:
                channels = file.pages[0].samplesperpixel
                raise ValueError(f"it has {channels} channels, expected one channel")
        return tifffile.imread(path)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    with Image.open(path) as image:
        pages = [np.array(page) for page in ImageSequence.Iterator(image)]
    return np.stack(pages) if len(pages) > 1 else pages[0]


def _read_map(path: Path, shape: tuple[int, ...]) -> Tensor:
    label_map = _read_tiff(path)
    if label_map.shape != tuple(shape):
        raise ValueError(f"{path} has shape {label_map.shape}, expected {tuple(shape)} as its frame")
    if not np.issubdtype(label_map.dtype, np.integer) or label_map.min(initial=0) < 0:
        raise ValueError(f"{path} has dtype {label_map.dtype}, expected integers of at least 0")
    if label_map.max(initial=0) > np.iinfo(np.int32).max:
        raise ValueError(f"{path} has the value {label_map.max()}, expected at most {np.iinfo(np.int32).max}")
    check_label_map(label_map, path)
    return torch.from_numpy(label_map.astype(np.int32))
