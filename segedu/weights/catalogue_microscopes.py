"""Entries of the catalogue: networks trained on real microscope images, see `segedu.weights.own.microscopes`."""

from __future__ import annotations

from segedu.weights.catalogue_row import Weights

# name -> SHA-256 of the file, its size in MiB, and the images that it was trained on
NUCLEI = "nuclei of the 2018 Data Science Bowl"
FILES: dict[str, tuple[str, float, str]] = {
    "nuclei_stardist": ("0db91d87d29d230cc1ceecfc197269e261e9a54e4c0c6d5128e23cd5c9e7e6c5", 1.55, NUCLEI),
    "nuclei_cellpose": ("9ce47db680edc79998369e8240197d40d049b6bb4fe8e3ab20de7cc6f61041f3", 1.97, NUCLEI),
}


def _of_microscopes(name: str, sha256: str, mebibytes: float, images: str) -> Weights:
    builder, file = "segedu.weights.own.microscopes:build", f"{name}.safetensors"
    return Weights(builder, file, sha256, mebibytes, "MIT", images, {"name": name}, normalizes=True)


MICROSCOPES = {name: _of_microscopes(name, *values) for name, values in FILES.items()}
