"""Entries of the catalogue: networks of the recipes on real medical images, by `segedu.weights.own.medical_recipes`."""

from __future__ import annotations

from typing import NamedTuple

from segedu.weights.catalogue_row import Weights


class MedicalFile(NamedTuple):
    """A file of a network that was trained on real medical images."""

    sha256: str
    mebibytes: float
    images: str
    licence_of_the_images: str
    licence: str  # of the weights


# data set and method -> the file
MEDICAL_FILES: dict[str, MedicalFile] = {
    "hippocampus_unet3d": MedicalFile(
        "7dd47ba5d1db9ced2133724cc5d6b770c14fc8c67f8e88bf6bb130a744dce8db",
        0.79,
        "95 MR volumes of Medical Segmentation Decathlon, task 4",
        "CC BY-SA 4.0",
        "CC-BY-SA-4.0",
    ),
}


def _of_images(name: str, file: MedicalFile) -> Weights:
    data, method = name.split("_", 1)
    options = {"method": method, "data": data}
    builder, path = "segedu.weights.own.recipes:build", f"{name}.safetensors"
    return Weights(builder, path, file.sha256, file.mebibytes, file.licence, file.images, options, normalizes=True)


MEDICAL = {name: _of_images(name, file) for name, file in MEDICAL_FILES.items()}
