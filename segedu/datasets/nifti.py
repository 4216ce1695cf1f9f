"""NIfTI, the file format of medical volumes (.nii, .nii.gz), through nibabel: voxels, spacing and orientation.

A file may store a volume in any of 48 orders and directions of axes, given by its affine. Here every volume is
brought to one order, by swapping and flipping axes only: axis 0 (z) goes from the feet to the head, axis 1 (y)
from the front to the back, axis 2 (x) from the patient's right to the left. That is the order of DICOM and of
SimpleITK's arrays (LPS), in which a slice looks as radiologists see it. No voxel is resampled: an oblique volume
stays oblique, with its axes assigned to the nearest of the three directions. Labels are written back in the order of
the file that they belong to. A file without orientation is read as nibabel reads it: x runs from left to right.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.datasets.files import atomic_path

MAX_VOXELS = 2**28  # 1 GiB as float32; the size in a damaged header may be arbitrary
_MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_LAYOUT = "a NIfTI file (.nii or .nii.gz) of one volume"


@dataclass(frozen=True)
class Nifti:
    """A volume in the fixed order of axes, with the data needed to write labels for it.

    `array` (D, H, W); `spacing` in mm in the order of its axes; `affine` (4, 4) from (x, y, z) in voxels of `array`
    to NIfTI's world, mm to the patient's right, front and head (RAS); `stored_affine` and `stored_shape` belong to
    the file, whose axes are in its own order.
    """

    array: Tensor
    spacing: tuple[float, float, float]
    affine: np.ndarray
    stored_affine: np.ndarray
    stored_shape: tuple[int, ...]


def read_nifti(path: str | Path, max_voxels: int = MAX_VOXELS) -> Nifti:
    """Read an image, with the header's scale applied: Hounsfield units for CT.

    Args:
        path: .nii or .nii.gz of one volume; further axes of length 1 are dropped.
        max_voxels: larger volumes are an error, before their voxels are read.

    Returns:
        The volume, `array` float32 (D, H, W).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not NIfTI, damaged, not one volume, too large, in colour, or has a singular affine.
    """
    image, stored = _load(Path(path), max_voxels)
    return _reorient(image, stored.astype(np.float32), Path(path))


def read_nifti_labels(path: str | Path, max_voxels: int = MAX_VOXELS) -> Nifti:
    """Read a map of classes or instances.

    Args:
        path: see `read_nifti`.
        max_voxels: see `read_nifti`.

    Returns:
        The volume, `array` int64 (D, H, W).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as for `read_nifti`, or if a voxel is negative, not an integer or too large for int64.
    """
    path = Path(path)
    image, stored = _load(path, max_voxels)
    # NaN fails every comparison
    is_valid = (stored == np.round(stored)) & (stored >= 0) & (stored < 2.0**63)
    if not is_valid.all():
        invalid = stored[~is_valid][0]
        raise ValueError(f"{path} has a voxel of {invalid}, expected integers of at least 0: is it an image?")
    return _reorient(image, stored.astype(np.int64), path)


def write_nifti_labels(path: str | Path, labels: Tensor, like: Nifti) -> None:
    """Write labels on the voxel grid of `like`: with the shape, axis order and affine of its file.

    Args:
        path: .nii or .nii.gz; the folder must exist, and a file there is replaced.
        labels: (D, H, W) integers of at least 0, in the order of `like.array`.
        like: the volume that they belong to.

    Raises:
        FileNotFoundError: if the folder does not exist.
        TypeError: if `labels` is not a tensor of integers.
        ValueError: if its shape differs from that of `like`, a label is negative or too large, or the name of
            the file does not end in .nii or .nii.gz.
    """
    import nibabel

    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"path is {str(path)!r}, expected a name that ends in .nii or .nii.gz")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path is {str(path)!r}, expected a path in an existing folder")
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels has type {type(labels).__name__}, expected a Tensor")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels has dtype {labels.dtype}, expected integers")
    if labels.shape != like.array.shape:
        raise ValueError(f"labels has shape {tuple(labels.shape)}, expected {tuple(like.array.shape)} as its volume")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > np.iinfo(np.int32).max:
        raise ValueError(f"labels has values from {low} to {high}, expected 0 to {np.iinfo(np.int32).max}")
    dtype = next(dtype for dtype in (np.uint8, np.uint16, np.int32) if high <= np.iinfo(dtype).max)
    stored_orientation = nibabel.io_orientation(like.stored_affine)
    to_stored_order = nibabel.orientations.ornt_transform(_orientation("LPS"), stored_orientation)
    stored = nibabel.apply_orientation(labels.cpu().numpy().transpose(2, 1, 0), to_stored_order)
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored, dtype=dtype), like.stored_affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def read_case(
    image: str | Path, labels: str | Path | None = None, window: tuple[float, float] | None = None
) -> dict[str, Tensor | tuple[float, ...]]:
    """Read an image and its labels as one sample, with the keys of `draw_volume`.

    Args:
        image: file of the image.
        labels: file of the classes on the same grid, or None.
        window: the values that become 0 and 1, such as (-160, 240) for soft tissue in CT; None takes the
            0.5th and the 99.5th percentile of the volume, as for MR, whose values have no unit.

    Returns:
        `image` float32 (1, D, H, W) in [0, 1], `values` float32 (D, H, W) as stored, `spacing` in mm, and `semantic`
        int64 (D, H, W) where there are labels. Voxels that are not a number become 0 in `image`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: as for `read_nifti` and `read_nifti_labels`, if the window is empty, or the grids differ.
    """
    volume = read_nifti(image)
    values = volume.array
    if window is None:
        finite = values[values.isfinite()].numpy()
        window = tuple(np.percentile(finite, (0.5, 99.5))) if len(finite) else (0.0, 1.0)
        window = window if window[0] < window[1] else (window[0], window[0] + max(1.0, abs(window[0])))
    if len(window) != 2 or not np.isfinite(window).all() or not window[0] < window[1]:
        raise ValueError(f"window is {window!r}, expected (lowest, highest) with lowest < highest")
    low, high = map(float, window)
    scaled = ((values - low) / (high - low)).clamp(0, 1).nan_to_num(0).float()
    sample = {"image": scaled[None], "values": values, "spacing": volume.spacing}
    if labels is not None:
        label_volume = read_nifti_labels(labels)
        if label_volume.array.shape != values.shape:
            raise ValueError(
                f"{labels} has shape {tuple(label_volume.array.shape)}, expected {tuple(values.shape)} as its image"
            )
        # at the eight corners, because a small difference in spacing adds up over the volume
        corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in values.shape[::-1]))])
        distance = np.abs(corners @ (label_volume.affine - volume.affine).T).max()
        if distance > 0.1 * min(volume.spacing):
            raise ValueError(f"{labels} is at another position than its image {image}, expected matching affines")
        sample["semantic"] = label_volume.array
    return sample


def _orientation(codes: str) -> np.ndarray:
    import nibabel

    return nibabel.orientations.axcodes2ornt(codes)


def _load(path: Path, max_voxels: int) -> tuple[Any, np.ndarray]:
    """Return nibabel's image and its voxels, with three axes in the order of the file."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}, which is not a file; expected {_LAYOUT}")
    read_errors = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, OverflowError)
    try:
        image = nibabel.load(path)
    except read_errors as error:
        raise ValueError(f"{path} is not a readable file, expected {_LAYOUT}: {error}") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError(f"{path} is a {type(image).__name__}, expected {_LAYOUT}")
    shape = image.shape
    if len(shape) < 3 or any(length != 1 for length in shape[3:]) or 0 in shape:
        raise ValueError(
            f"{path} has shape {shape}, expected one volume (x, y, z): extract one time point or channel first"
        )
    if np.prod(shape, dtype=object) > max_voxels:
        raise ValueError(f"{path} has shape {shape}, expected at most {max_voxels} voxels: give max_voxels for more")
    if image.get_data_dtype().kind not in "iufb":
        raise ValueError(f"{path} has dtype {image.get_data_dtype()}, expected one number per voxel")
    affine = image.affine
    axis_lengths = np.linalg.norm(affine[:3, :3], axis=0)  # in the file's unit, which may be metres
    if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 1e-9 * axis_lengths.prod():
        raise ValueError(f"{path} has the affine {affine.tolist()}, expected three linearly independent directions")
    try:
        if path.name.endswith(".gz"):
            _verify_checksum(path)
        return image, np.asanyarray(image.dataobj).reshape(shape[:3])
    except read_errors as error:
        raise ValueError(f"{path} is damaged or truncated, expected {_LAYOUT}: {error}") from error


def _verify_checksum(path: Path) -> None:
    """Decompress up to gzip's checksum at the end: nibabel stops before it and would miss a damaged voxel."""
    with gzip.open(path) as unpacked:
        for _ in range(8 * MAX_VOXELS >> 20):
            if not unpacked.read(1 << 20):
                return


def _reorient(image: Any, stored: np.ndarray, path: Path) -> Nifti:
    """Reorder and flip the axes of voxels to (z, y, x) in the fixed directions, and adapt the affine."""
    import nibabel

    try:
        unit = image.header.get_xyzt_units()[0]
    except KeyError as error:
        raise ValueError(f"{path} has the unit {error} of a damaged header, expected {_LAYOUT}") from error
    metric = np.diag([*[_MILLIMETRES[unit]] * 3, 1.0])
    affine = metric @ image.affine
    reorientation = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), _orientation("LPS"))
    reoriented_affine = affine @ nibabel.orientations.inv_ornt_aff(reorientation, stored.shape)
    array = nibabel.apply_orientation(stored, reorientation).transpose(2, 1, 0)
    spacing = tuple(float(step) for step in nibabel.affines.voxel_sizes(reoriented_affine)[::-1])
    # Copy: an array with an axis of one voxel may be flagged contiguous despite a negative stride, which torch rejects.
    return Nifti(torch.from_numpy(np.array(array, order="C")), spacing, reoriented_affine, affine, stored.shape)
