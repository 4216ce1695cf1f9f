"""The catalogue of pretrained weights, official files and our own small ones: URL, hash, licence and renamed keys.

`catalogue_row` documents the fields of an entry. Query-based networks, such as DETR and SAM, are in
`catalogue_queries`, the networks of the recipes in `catalogue_recipes`, those of real microscope images in
`catalogue_microscopes`, and those of real medical images in `catalogue_medical`.

How each file is verified depends on what its publisher provides:

- torchvision puts the first 8 of the 64 hexadecimal digits of the SHA-256 hash into the file name. We compare these 8
  digits, which detects a damaged file but not a deliberate forgery.
- Hugging Face shows the complete hash of each file, and we compare it.
- Facebook publishes no hashes for DINO and DINOv2. For six of these files, several independent projects list the same
  hash, which we compare (for DINOv2, one of them is finegrain-ai/refiners). For `dino_vits16` and `dino_vits8` no two
  projects list the same hash. Only the size in bytes is checked, and loading shows a warning.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from segedu.weights.catalogue_medical import MEDICAL
from segedu.weights.catalogue_microscopes import MICROSCOPES
from segedu.weights.catalogue_queries import QUERIES
from segedu.weights.catalogue_recipes import RECIPES
from segedu.weights.catalogue_row import FACEBOOK, TORCHVISION, Weights

# Files from before 2018 name the layers of a dense block norm.1 and conv.2; module names can no longer contain a dot.
DENSE_LAYERS = (r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2")
# In the files of 2019 and 2020, the layers of feature pyramids and heads are not yet wrapped in a Sequential block.
PYRAMID = (r"((?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2")
TWO_STAGES = (
    PYRAMID,
    (r"(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
    *((rf"mask_head\.mask_fcn{i + 1}\.", rf"mask_head.{i}.0.") for i in range(4)),
)
RETINANET = (PYRAMID, *((rf"(_head\.conv)\.{2 * i}\.(weight|bias)$", rf"\1.{i}.0.\2") for i in range(4)))
SWIN = (
    (r"^features\.0\.0\.", "features.0.proj."),
    (r"^features\.0\.2\.", "features.0.norm."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)
CONVNEXT = (
    (r"\.block\.0\.", ".depthwise."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
)
# channels per convolution; few in the early stages, which take most of the time on a CPU
STREET_VGG_STAGES = ((16,), (16, 16), (32, 32), (64, 64), (128, 128))
SCENES_VIT = {"patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 4, "image_size": 32}  # crops of 32 pixels


def _torchvision(file: str, mebibytes: float, builder: str, trained_on: str = "ImageNet-1k", **more: Any) -> Weights:
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Weights(f"segedu.{builder}", TORCHVISION + file, sha256, mebibytes, "BSD-3-Clause", trained_on, **more)


def _classifier(file: str, mebibytes: float, builder: str, head: str, **more: Any) -> Weights:
    return _torchvision(file, mebibytes, f"backbones.{builder}", ignored_keys=(head,), **more)


def _swin(file: str, mebibytes: float, third: int = 18) -> Weights:
    """Make the entry of a Swin transformer; `third` is the number of blocks in its third stage."""
    blocks = ((i, j) for i, depth in enumerate((2, 2, third, 2)) for j in range(depth))
    tables = (f"features.{2 * i + 1}.{j}.attn.relative_position_index" for i, j in blocks)  # our model computes them
    builder, head = f"backbones.swin:{file.split('-')[0]}", ("norm.", "head.", *tables)
    return _torchvision(file, mebibytes, builder, rename=SWIN, ignored_keys=head)


def _segmenter(file: str, mebibytes: float, builder: str) -> Weights:
    trained_on = "images of COCO 2017 with the 20 classes of Pascal VOC"
    options = {"num_classes": 21, "aux": True}
    return _torchvision(file, mebibytes, f"semantic.{builder}", trained_on, options=options)


def _detector(file: str, mebibytes: float, builder: str, **more: Any) -> Weights:
    return _torchvision(file, mebibytes, builder, "COCO 2017", normalizes=True, **more)


def _dino(file: str, size: int, builder: str, sha256: str = "") -> Weights:
    url = f"{FACEBOOK}dino/{file}/{file}.pth"
    builder = f"segedu.backbones.vit:{builder}"
    return Weights(builder, url, sha256, size / 2**20, "Apache-2.0", "ImageNet-1k without labels")


def _dinov2(file: str, size: int, builder: str, sha256: str, **options: Any) -> Weights:
    url = f"{FACEBOOK}dinov2/{file.removesuffix('_reg4')}/{file}_pretrain.pth"
    builder, images = f"segedu.backbones.vit:{builder}", "142 million images without labels (LVD-142M)"
    # the mask token is used only in training, where it replaces masked patches
    return Weights(builder, url, sha256, size / 2**20, "Apache-2.0", images, options, ignored_keys=("mask_token",))


def _cellpose(file: str, size: int, sha256: str, **options: Any) -> Weights:
    url, builder = f"https://www.cellpose.org/models/{file}", "segedu.instance.cellpose.cellpose:official_cellpose"
    images = "images of cells, under CC BY-NC"
    notice = "trained on images under CC BY-NC, so not for commercial use; the code is BSD"
    options = {"normalize": None, **options}  # None: the builder uses percentile normalisation, as the authors do
    return Weights(builder, url, sha256, size / 2**20, "BSD-3-Clause", images, options, notice=notice)


def _stardist(file: str, sha256: str, trained_on: str, **options: Any) -> Weights:
    url = f"https://github.com/stardist/stardist-models/releases/download/v0.1/python_{file}.zip"
    builder, options = "segedu.instance.stardist:official_stardist", {"normalize": None, **options}
    return Weights(builder, url, sha256, 5.4, "BSD-3-Clause", trained_on, options)


def _our_own(
    name: str, sha256: str, mebibytes: float, builder: str = "", normalizes: bool = False, **options: Any
) -> Weights:
    builder = (
        f"segedu.{builder or f'weights.own.{name}:{name}'}"  # by default, the builder is defined in the training script
    )
    if not normalizes:  # None: images in [0, 1] stay as they are, or the builder uses percentiles (cells)
        options["normalize"] = None
    scenes, file = "scenes drawn by segedu.datasets", f"{name}.safetensors"
    return Weights(builder, file, sha256, mebibytes, "MIT", scenes, options, normalizes=normalizes)


WEIGHTS: dict[str, Weights] = {
    "vgg16": _classifier("vgg16-397923af.pth", 527.796, "vgg:vgg16", "classifier."),
    "vgg16_bn": _classifier("vgg16_bn-6c64b313.pth", 527.866, "vgg:vgg16_bn", "classifier."),
    "resnet18": _classifier("resnet18-f37072fd.pth", 44.661, "resnet:resnet18", "fc."),
    "resnet34": _classifier("resnet34-b627a593.pth", 83.275, "resnet:resnet34", "fc."),
    "resnet50": _classifier("resnet50-0676ba61.pth", 97.781, "resnet:resnet50", "fc."),
    "resnet101": _classifier("resnet101-63fe2227.pth", 170.511, "resnet:resnet101", "fc."),
    "densenet121": _classifier(
        "densenet121-a639ec97.pth", 30.845, "densenet:densenet121", "classifier.", rename=(DENSE_LAYERS,)
    ),
    "swin_t": _swin("swin_t-704ceda3.pth", 108.19, third=6),
    "swin_s": _swin("swin_s-5e29d889.pth", 189.786),
    "swin_b": _swin("swin_b-68c6b09e.pth", 335.364),
    "convnext_tiny": _classifier(
        "convnext_tiny-983f1562.pth", 109.119, "convnext:convnext_tiny", "classifier.", rename=CONVNEXT
    ),
    "convnext_small": _classifier(
        "convnext_small-0c510722.pth", 191.703, "convnext:convnext_small", "classifier.", rename=CONVNEXT
    ),
    "convnext_base": _classifier(
        "convnext_base-6075fbad.pth", 338.064, "convnext:convnext_base", "classifier.", rename=CONVNEXT
    ),
    "fcn_resnet50": _segmenter("fcn_resnet50_coco-1167a1af.pth", 135.009, "fcn:fcn_resnet50"),
    "fcn_resnet101": _segmenter("fcn_resnet101_coco-7ecb50ca.pth", 207.711, "fcn:fcn_resnet101"),
    "deeplabv3_resnet50": _segmenter("deeplabv3_resnet50_coco-cd0a2569.pth", 160.515, "deeplabv3:deeplabv3_resnet50"),
    "deeplabv3_resnet101": _segmenter(
        "deeplabv3_resnet101_coco-586e9e4e.pth", 233.217, "deeplabv3:deeplabv3_resnet101"
    ),
    "fasterrcnn_resnet50_fpn": _detector(
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        159.743,
        "detection.faster_rcnn:faster_rcnn_resnet50_fpn",
        rename=TWO_STAGES,
    ),
    "fasterrcnn_resnet50_fpn_v2": _detector(
        "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 167.104, "detection.faster_rcnn:faster_rcnn_resnet50_fpn_v2"
    ),
    "maskrcnn_resnet50_fpn": _detector(
        "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        169.84,
        "instance.mask_rcnn:mask_rcnn_resnet50_fpn",
        rename=TWO_STAGES,
    ),
    "maskrcnn_resnet50_fpn_v2": _detector(
        "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", 177.219, "instance.mask_rcnn:mask_rcnn_resnet50_fpn_v2"
    ),
    "retinanet_resnet50_fpn": _detector(
        "retinanet_resnet50_fpn_coco-eeacb38b.pth",
        130.267,
        "detection.retinanet:retinanet_resnet50_fpn",
        rename=RETINANET,
    ),
    "retinanet_resnet50_fpn_v2": _detector(
        "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth", 146.037, "detection.retinanet:retinanet_resnet50_fpn_v2"
    ),
    "fcos_resnet50_fpn": _detector(
        "fcos_resnet50_fpn_coco-99b0c9b7.pth", 123.608, "detection.fcos:fcos_resnet50_fpn", rename=(PYRAMID,)
    ),
    "ssd300_vgg16": _detector("ssd300_vgg16_coco-b556d3b4.pth", 135.988, "detection.ssd:ssd300_vgg16"),
    **QUERIES,
    **RECIPES,
    **MICROSCOPES,
    **MEDICAL,
    "dino_vits16": _dino("dino_deitsmall16_pretrain", 86_710_517, "vit_small_patch16"),
    "dino_vits8": _dino("dino_deitsmall8_pretrain", 86_728_949, "vit_small_patch8"),
    "dino_vitb16": _dino(
        "dino_vitbase16_pretrain",
        343_242_485,
        "vit_base_patch16",
        "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
    ),
    "dino_vitb8": _dino(
        "dino_vitbase8_pretrain",
        343_279_349,
        "vit_base_patch8",
        "575f0efc4838938314afa09897a62ed2b87919928b5edcd133abb907328995eb",
    ),
    "dinov2_vits14": _dinov2(
        "dinov2_vits14",
        88_283_115,
        "dinov2_small_patch14",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    "dinov2_vits14_reg4": _dinov2(
        "dinov2_vits14_reg4",
        88_291_785,
        "dinov2_small_patch14",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        registers=4,
    ),
    "dinov2_vitb14": _dinov2(
        "dinov2_vitb14",
        346_378_731,
        "dinov2_base_patch14",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    "dinov2_vitb14_reg4": _dinov2(
        "dinov2_vitb14_reg4",
        346_393_545,
        "dinov2_base_patch14",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
        registers=4,
    ),
    "cellpose_cyto3": _cellpose(
        "cyto3", 26_566_255, "2dc3087a8abd7da46d1ab0ddd5824639933cc3ff63b382af3fa1939a392db93c"
    ),
    "cellpose_nuclei": _cellpose(
        "nucleitorch_0", 26_563_614, "89ca45e4a45048d5010d29621466b1274b91b3dcb9714dce9f9e90a9a8671303", diam_mean=17.0
    ),
    "stardist_2d_versatile_fluo": _stardist(
        "2D_versatile_fluo",
        "4ad678d0758eed6e55625f1b5ae30771e59adb79f1239e09b9772eac8846c3dd",
        "nuclei in fluorescence of DSB 2018",
    ),
    "stardist_2d_paper_dsb2018": _stardist(
        "2D_paper_dsb2018",
        "4c11cf68512341d9e8ce3d1278c64ceb8ac400582739f85fcab079a2e82840d2",
        "nuclei in fluorescence of DSB 2018",
    ),
    "stardist_2d_versatile_he": _stardist(
        "2D_versatile_he",
        "f1696ef0631bd7e1c0e5c0d3017e2b4c6a95e284c6aab9c22fc2f08317817b28",
        "nuclei in stained tissue",
        in_channels=3,
    ),
    "street_vgg": _our_own(
        "street_vgg",
        "49b297d447b19099a10463b2d543af1e4bc5b0c14cda513906e3abe026c7e097",
        1.14,
        "backbones.vgg:VGG",
        stages=STREET_VGG_STAGES,
        batch_norm=True,
    ),
    "scenes_vit": _our_own(
        "scenes_vit",
        "288e8c5405bc05fb46d314655a9804966082805829924c64410f02c0e39700cd",
        0.207,
        "backbones.vit:ViT",
        **SCENES_VIT,
    ),
    "cells_stardist": _our_own(
        "cells_stardist", "2280b1d0acd71ed0b85774e7f6a6bb236e52202c0e3a51ff3efd75d25e49399d", 0.186
    ),
    "cells_cellpose": _our_own(
        "cells_cellpose", "8c912d528831927727121a52344724e411be28d63f8c53f68c248bc44b979b24", 0.22
    ),
    "shapes_mask_rcnn": _our_own(
        "shapes_mask_rcnn", "8ef3c38c4624dfd0ab5de704d9b8b7d44a1a12d11c05ac599b0a4f06a759aa6a", 0.64, normalizes=True
    ),
    "shapes_yolact": _our_own(
        "shapes_yolact", "a8b0cb320a0dc23cea989f9f11dbcca592e7988e649575a99e65bd14fb2f407b", 0.59, normalizes=True
    ),
    "street_mask2former": _our_own(
        "street_mask2former", "896794f746154f7a1e41ba4534ad95627759662b843397e606eac925c86c3c0c", 0.71, normalizes=True
    ),
    "street_oneformer": _our_own(
        "street_oneformer", "6884b579a4aa44d3a23adb658c4c8ceec11848319eb374f5374ed20494006d1d", 0.92, normalizes=True
    ),
    "shapes_sam": _our_own(
        "shapes_sam", "c9bc4474363cbd57de3e6a26dcfa9d89735a3ee3ecc6f6a68b658bcc961080b4", 1.61, normalizes=True
    ),
    "photo_sam": replace(
        _our_own(
            "photo_sam", "787287b734fc8308a0cfefc79c1f4b626100c137af91a950fd6be3e8931b7f59", 1.19, normalizes=True
        ),
        licence="CC-BY-SA-4.0",
        trained_on="photographs of Oxford-IIIT Pets and COCO 2017, aerial images, micrographs, and synthetic scenes",
    ),
    "shapes_detr": _our_own(
        "shapes_detr", "e664ce5726244b8733860697efdc24186adaab4efe0631c607b177cb6a2b4137", 0.57, normalizes=True
    ),
}
