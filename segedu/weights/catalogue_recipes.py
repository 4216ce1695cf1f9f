"""Entries of the catalogue: the networks of the recipes, trained once by `segedu.weights.own.recipes`."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from segedu.weights.catalogue_row import Weights

DATA_SETS = ("street", "shapes", "cells", "noisy_cells", "bacteria", "volume", "pets", "aerial")


class PhotoFile(NamedTuple):
    """A file of a network that was trained on real photographs."""

    sha256: str
    mebibytes: float
    images: str
    licence_of_the_images: str
    licence: str  # of the weights


# data set and method -> SHA-256 of the file, its size in MiB
FILES: dict[str, tuple[str, float]] = {
    "street_fcn8": ("eab75d2b48f3bdcec0a5e418c22f7a3fdbf453306a1bb6e1a7f6d5b91337ada3", 0.58),
    "street_segnet": ("775e4a3ccb63a63be9b57ec7302ef9a2ffde4d6857225ae696844ce5c8ff22d6", 0.3),
    "street_deconvnet": ("a9777ab6d9e33aca94536b08e958e1c97cc4bb83c1be1c47167321bff2db48f2", 1.43),
    "street_res_unet": ("d236939ae94e787c1530ab87574c06fde9d02e314c44cd2c9ae73a5f3c911924", 0.57),
    "street_pspnet": ("3bc62e1a162fdc25f8bbe6fda363ee3048e0f390b14acf19a144d05079513957", 0.89),
    "street_deeplabv3plus": ("999c0568b2bb8af61eb1943e9c5210a8b23a0b64d1050c521c29f5ee66b04573", 0.73),
    "street_panoptic_fpn": ("4b49189539c2795cfcf489ab549fc2d40acb76ea6faadb1d6222c24560c36436", 0.91),
    "shapes_faster_rcnn": ("5dbfc04dacb365d6cc9a452a8a6265ca16cc34cc601fd23f908ae4f07713c163", 0.54),
    "shapes_yolov1": ("aae23a457fe931aed7d2b62d107835e99b2dd0319d44230931248f02c55c664e", 2.53),
    "shapes_ssd": ("a166ca98525057b875770251308043baff8ec869d3e011858c6049a4dbe44b70", 0.49),
    "shapes_retinanet": ("5a6bb333425c98a5b0093fbcc2a37c3fbc092c3f3d4c448a5baa821fddc6488c", 0.55),
    "shapes_fcos": ("726235c61b7bf6086e567d5dcfc6fd33717447ba1e7ae33f67cf8b40ab5e8e96", 0.33),
    "shapes_condinst": ("0c6c9ed354003d7a8d721281d31278f0d7c0c81359a73a3e7781b2aa206e1b25", 0.52),
    "shapes_solov2": ("04dadf53f2692ffcc60f3b1b267918efaad1d8c374a3814af5097c449fef2aad", 0.28),
    "cells_unet": ("4c721131c4356338619346fc3c64421d2a6e02161e404e7c4e54ad06448bac4d", 0.23),
    "cells_signed_distance": ("65c78e8770a90aaf997bca34716e1ad10b45d012bbd6a4dcda7058ce4c905c4a", 0.26),
    "cells_spatial_embedding": ("5382f6fd6ea41a6c11ec60497f0204c8aa975bd4666e022f657b40f81ca65b06", 0.35),
    "cells_discriminative": ("3c8bf90a42a923a8225bac80707dd21713203fdb55fca73e621a7118c598418f", 0.26),
    "cells_affinities": ("e2168896ad293e522f6c4eb4988fe70b343f1043995deb477d156d996d5ece1b", 0.26),
    "bacteria_omnipose": ("c09b7d45bd2aa50caadf6fe6ce3cef683b0cf8d2b2c0bef35a7761d5b522a2ec", 0.83),
    "noisy_cells_denoiseg": ("572a8f8ce475b05f987a87c2f63df80b8a6ba753cab651508983524fe49d4b5a", 0.26),
    "volume_unet3d": ("24703ea51121a87626b0238477af5dc0e76b4cb21d75beb0b91f96955aa2bb1b", 0.79),
    "volume_nnunet": ("470ee138573ac7497a221856aa85c02f4857201fd7c17db6eb2410fdbfcb8516", 0.65),
}
# the same for networks trained on real photographs
PHOTO_FILES: dict[str, PhotoFile] = {
    "pets_encoder_unet": PhotoFile(
        "d1a3fed484cbeaa3a9bee2e751dc2de2c595ef74df997fbcb1a1a16693f1baeb",
        1.05,
        "402 photographs of the Oxford-IIIT Pets",
        "CC BY-SA 4.0",
        "CC-BY-SA-4.0",
    ),
    "pets_deeplabv3plus": PhotoFile(
        "5a349d97d528a3280b161d0996f16f9fda8207dacc5a4929e50f5751f32c958c",
        0.73,
        "402 photographs of the Oxford-IIIT Pets",
        "CC BY-SA 4.0",
        "CC-BY-SA-4.0",
    ),
}


def data_and_method(name: str) -> tuple[str, str]:
    """The two parts of a name, each of which may contain underscores.

    >>> data_and_method("noisy_cells_denoiseg"), data_and_method("cells_signed_distance")
    (('noisy_cells', 'denoiseg'), ('cells', 'signed_distance'))
    """
    for data in DATA_SETS:
        if name.startswith(f"{data}_"):
            return data, name.removeprefix(f"{data}_")
    raise ValueError(f"name is {name!r}, expected the name of a data set ({', '.join(DATA_SETS)}), _ and a method")


def _of_a_recipe(name: str, sha256: str, mebibytes: float) -> Weights:
    data, method = data_and_method(name)
    options, scenes = {"method": method, "data": data}, "scenes drawn by segedu.datasets"
    builder, file = "segedu.weights.own.recipes:build", f"{name}.safetensors"
    return Weights(builder, file, sha256, mebibytes, "MIT", scenes, options, normalizes=True)


def _of_photographs(name: str, file: PhotoFile) -> Weights:
    row = _of_a_recipe(name, file.sha256, file.mebibytes)
    return replace(row, licence=file.licence, trained_on=file.images)


RECIPES = {name: _of_a_recipe(name, *values) for name, values in FILES.items()}
RECIPES |= {name: _of_photographs(name, file) for name, file in PHOTO_FILES.items()}
