"""Convert the hippocampus volumes of the Medical Segmentation Decathlon to one npz file per split.

`train.npz`, `val.npz` and `test.npz` have two arrays per volume, `img_<name>` and `lab_<name>`, uint8 (x, y, z): x from
left to right, y from back to front, z upwards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segedu.datasets.files import require
from segedu.datasets.folder_writer import counted, write_names
from segedu.datasets.real_splits import listed_splits

_LAYOUT = "Task04_Hippocampus with imagesTr and labelsTr"


def arrange_hippocampus(source: Path, target: Path, progress: bool) -> list[str]:
    """Convert the folder `Task04_Hippocampus`."""
    images = require(source / "Task04_Hippocampus" / "imagesTr", source, _LAYOUT)
    paths, splits = sorted(images.glob("[!.]*.nii.gz")), listed_splits("hippocampus")
    arrays: dict[str, dict[str, np.ndarray]] = {split: {} for split in ("train", "val", "test")}
    names: dict[str, list[str]] = {split: [] for split in arrays}
    for path in counted(paths, progress, len(paths)):
        name = f"h{path.name.removesuffix('.nii.gz').rpartition('_')[2]}"
        labels = require(images.parent / "labelsTr" / path.name, source, _LAYOUT)
        split = splits.get(name, "train")
        names[split].append(name)
        arrays[split] |= {f"img_{name}": _to_bytes(_read(path)), f"lab_{name}": _read(labels).astype(np.uint8)}
    (target / "splits").mkdir()
    for split, content in arrays.items():
        np.savez_compressed(target / f"{split}.npz", **content)
        write_names(target / "splits" / f"{split}.txt", names[split])
    return []


def _read(path: Path) -> np.ndarray:
    """The voxels (x, y, z) of a NIfTI file, with the axes to the patient's right, front and head."""
    import nibabel

    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Map 0 to 0 and the 99.9th percentile to 255."""
    highest = max(float(np.percentile(values, 99.9)), 1e-9)
    return np.rint((values / highest).clip(0, 1) * 255).astype(np.uint8)
