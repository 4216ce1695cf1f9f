"""Entries of the catalogue: the networks of the recipes, trained once by `segedu.weights.own.recipes`."""

from __future__ import annotations

from segedu.weights.catalogue_row import Weights

# data set and method -> SHA-256 of the file, its size in MiB
FILES: dict[str, tuple[str, float]] = {
    "street_fcn8": ("eab75d2b48f3bdcec0a5e418c22f7a3fdbf453306a1bb6e1a7f6d5b91337ada3", 0.58),
    "street_segnet": ("775e4a3ccb63a63be9b57ec7302ef9a2ffde4d6857225ae696844ce5c8ff22d6", 0.3),
    "street_deconvnet": ("a9777ab6d9e33aca94536b08e958e1c97cc4bb83c1be1c47167321bff2db48f2", 1.43),
    "street_res_unet": ("d236939ae94e787c1530ab87574c06fde9d02e314c44cd2c9ae73a5f3c911924", 0.57),
    "street_pspnet": ("3bc62e1a162fdc25f8bbe6fda363ee3048e0f390b14acf19a144d05079513957", 0.89),
    "street_deeplabv3plus": ("999c0568b2bb8af61eb1943e9c5210a8b23a0b64d1050c521c29f5ee66b04573", 0.73),
    "street_panoptic_fpn": ("", 0),
    "shapes_faster_rcnn": ("", 0),
    "shapes_yolov1": ("", 0),
    "shapes_ssd": ("", 0),
    "shapes_retinanet": ("", 0),
    "shapes_fcos": ("", 0),
    "shapes_condinst": ("", 0),
    "shapes_solov2": ("", 0),
    "cells_unet": ("", 0),
    "cells_signed_distance": ("", 0),
    "cells_spatial_embedding": ("", 0),
    "volume_unet3d": ("", 0),
    "volume_nnunet": ("", 0),
}


def _of_a_recipe(name: str, sha256: str, mebibytes: float) -> Weights:
    data, method = name.split("_", 1)
    options, scenes = {"method": method, "data": data}, "scenes drawn by segedu.datasets"
    builder, file = "segedu.weights.own.recipes:build", f"{name}.safetensors"
    return Weights(builder, file, sha256, mebibytes, "MIT", scenes, options, normalizes=True)


RECIPES = {name: _of_a_recipe(name, *values) for name, values in FILES.items()}
