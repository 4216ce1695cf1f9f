"""Entries of the catalogue: networks trained on real microscope images, see `segedu.weights.own.microscopes`."""

from __future__ import annotations

from segedu.weights.catalogue_row import Weights

# name -> SHA-256 of the file, its size in MiB, and the images that it was trained on
FILES: dict[str, tuple[str, float, str]] = {}


def _of_microscopes(name: str, sha256: str, mebibytes: float, images: str) -> Weights:
    builder, file = "segedu.weights.own.microscopes:build", f"{name}.safetensors"
    return Weights(builder, file, sha256, mebibytes, "MIT", images, {"name": name}, normalizes=True)


MICROSCOPES = {name: _of_microscopes(name, *values) for name, values in FILES.items()}
