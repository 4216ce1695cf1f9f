"""The table of official weights, and of our own small ones: where each file is, its hash, licence, and key names.

The hashes: torchvision publishes the first 8 of the 64 hexadecimal digits of the sha256, at the end of the file's
name, and we check these 8. That finds damage; it is no proof against someone who builds a file on purpose.
Facebook publishes none for DINO and DINOv2. Of six of these files we check the digest on which several independent
projects agree (those of DINOv2 are also in finegrain-ai/refiners); of `dino_vits16` and `dino_vits8` we found no two
that agree, so their size in bytes is all that is checked, and a warning says so when they are fetched.
Hugging Face shows the whole digest beside each file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from segedu.transformers_keys import MASK2FORMER, MASKFORMER, ONEFORMER

TORCHVISION, FACEBOOK = "https://download.pytorch.org/models/", "https://dl.fbaipublicfiles.com/"
# Files made before 2018 name the layers of a dense block norm.1, conv.2; a module's name may hold no dot now.
DENSE_LAYERS = (r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2")
# Files made in 2019 and 2020 name the layers of pyramids and heads without the block around them.
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
MOBILE_SAM = (
    (r"^image_encoder\.patch_embed\.seq\.", "image_encoder.backbone.patch_embed."),
    (r"^image_encoder\.layers\.", "image_encoder.backbone.layers."),
    (r"\.c\.weight$", ".conv.weight"),
    (r"\.mlp\.norm\.", ".norm."),
)
STREET_VGG_STAGES = ((16,), (16, 16), (32, 32), (64, 64), (128, 128))  # thin where a laptop spends its time
SCENES_VIT = {"patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 4, "image_size": 32}  # of crops


@dataclass(frozen=True)
class Weights:
    """One file of official weights.

    `build` is "module:function", `options` what the function is given besides a normalisation. `sha256` is the
    digest or its published beginning; where it is empty, none is known, and `mebibytes` is exact. `rename` holds
    pairs of pattern and replacement for the file's keys, where `#0`, `#1` at an end make pieces of one tensor; keys
    that begin with one of `leave_out` are of parts that the model does not have. `inside`: under which key a file of
    a whole training keeps the weights. `notice` is said to whoever loads the file. `normalizes`: the builder
    normalises by itself.
    `non_commercial`: the licence forbids commercial use; only who says `accept_license=True` is given the file.
    """

    build: str
    url: str
    sha256: str
    mebibytes: float
    licence: str
    trained_on: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rename: tuple[tuple[str, str], ...] = ()
    leave_out: tuple[str, ...] = ()
    notice: str = ""
    normalizes: bool = False
    non_commercial: bool = False
    inside: str = ""

    @property
    def file_name(self) -> str:
        """The last part of the url; of Hugging Face's, which are all called alike, behind the repository's."""
        *folders, name = urlsplit(self.url).path.split("/")
        return f"{folders[folders.index('resolve') - 1]}-{name}" if "resolve" in folders else name


def _torchvision(file: str, mebibytes: float, build: str, trained_on: str = "ImageNet-1k", **more: Any) -> Weights:
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Weights(f"segedu.{build}", TORCHVISION + file, sha256, mebibytes, "BSD-3-Clause", trained_on, **more)


def _classifier(file: str, mebibytes: float, build: str, head: str, **more: Any) -> Weights:
    return _torchvision(file, mebibytes, f"backbones.{build}", leave_out=(head,), **more)


def _swin(file: str, mebibytes: float, third: int = 18) -> Weights:
    """`third`: blocks of the third stage."""
    blocks = ((i, j) for i, depth in enumerate((2, 2, third, 2)) for j in range(depth))
    tables = (f"features.{2 * i + 1}.{j}.attn.relative_position_index" for i, j in blocks)  # we compute them
    build, head = f"backbones.swin:{file.split('-')[0]}", ("norm.", "head.", *tables)
    return _torchvision(file, mebibytes, build, rename=SWIN, leave_out=head)


def _segmenter(file: str, mebibytes: float, build: str) -> Weights:
    trained_on = "images of COCO 2017 with the 20 classes of Pascal VOC"
    options = {"num_classes": 21, "aux": True}
    return _torchvision(file, mebibytes, f"semantic.{build}", trained_on, options=options)


def _detector(file: str, mebibytes: float, build: str, **more: Any) -> Weights:
    return _torchvision(file, mebibytes, build, "COCO 2017", normalizes=True, **more)


def _dino(file: str, size: int, build: str, sha256: str = "") -> Weights:
    url = f"{FACEBOOK}dino/{file}/{file}.pth"
    build = f"segedu.backbones.vit:{build}"
    return Weights(build, url, sha256, size / 2**20, "Apache-2.0", "ImageNet-1k without labels")


def _dinov2(file: str, size: int, build: str, sha256: str, **options: Any) -> Weights:
    url = f"{FACEBOOK}dinov2/{file.removesuffix('_reg4')}/{file}_pretrain.pth"
    build, images = f"segedu.backbones.vit:{build}", "142 million images without labels (LVD-142M)"
    # what stood in for hidden patches while it learnt
    return Weights(build, url, sha256, size / 2**20, "Apache-2.0", images, options, leave_out=("mask_token",))


def _detr(file: str, mebibytes: float, depth: int, output_stride: int = 32, panoptic: bool = False) -> Weights:
    sha256, url = file.rsplit("-", 1)[-1], f"{FACEBOOK}detr/{file}.pth"
    more = {"options": {"output_stride": output_stride}, "normalizes": True, "inside": "model"}
    name = f"panoptic.detr_panoptic:detr_resnet{depth}_panoptic" if panoptic else f"detection.detr:detr_resnet{depth}"
    return Weights(f"segedu.{name}", url, sha256, mebibytes, "Apache-2.0", "COCO 2017", **more)


def _oneformer(file: str, sha256: str, mebibytes: float, size: str, depths: Sequence[int], trained_on: str) -> Weights:
    """`depths`: blocks of Swin's stages."""
    blocks = ((i, j) for i, depth in enumerate(depths) for j in range(depth))
    start = "model.pixel_level_module.encoder.encoder.layers."
    tables = (f"{start}{i}.blocks.{j}.attention.self.relative_position_index" for i, j in blocks)  # we compute them
    build, url = f"segedu.panoptic.oneformer:oneformer_swin_{size}", f"https://huggingface.co/shi-labs/{file}"
    more = {"rename": ONEFORMER, "leave_out": (*tables, "criterion."), "normalizes": True}
    return Weights(build, url, sha256, mebibytes, "MIT", trained_on, **more)


def _maskformer(repository: str, sha256: str, megabytes: int, build: str, num_classes: int = 150) -> Weights:
    url = f"https://huggingface.co/facebook/maskformer-{repository}/resolve/main/pytorch_model.bin"
    body, third = "model.pixel_level_module.encoder.model.", 6 if build == "swin_tiny" else 18  # of Swin
    blocks = ((i, j) for i, depth in enumerate((2, 2, third, 2)) for j in range(depth))
    tables = (f"{body}encoder.layers.{i}.blocks.{j}.attention.self.relative_position_index" for i, j in blocks)
    more = {"options": {"num_classes": num_classes}, "rename": MASKFORMER, "normalizes": True, "non_commercial": True}
    more["leave_out"] = (*tables, f"{body}layernorm.", "criterion.")  # the first we compute, the others nothing reads
    build, trained_on = (
        f"segedu.panoptic.maskformer:maskformer_{build}",
        "ADE20K" if num_classes == 150 else "COCO 2017",
    )
    return Weights(build, url, sha256, megabytes * 1e6 / 2**20, "CC BY-NC 4.0", trained_on, **more)


def _mask2former(
    file: str, sha256: str, size: int, swin: str, depths: Sequence[int], num_classes: int, trained_on: str
) -> Weights:
    """`depths`: blocks of Swin's stages; `size` in bytes."""
    blocks = ((i, j) for i, depth in enumerate(depths) for j in range(depth))
    start = "model.pixel_level_module.encoder.encoder.layers."
    tables = (f"{start}{i}.blocks.{j}.attention.self.relative_position_index" for i, j in blocks)  # we compute them
    build, url = f"segedu.panoptic.mask2former:mask2former_swin_{swin}", f"https://huggingface.co/facebook/{file}"
    more = {"rename": MASK2FORMER, "leave_out": (*tables, "criterion."), "normalizes": True, "non_commercial": True}
    options = {"num_classes": num_classes}
    return Weights(build, url, sha256, size / 2**20, "CC BY-NC 4.0", trained_on, options=options, **more)


def _cellpose(file: str, size: int, sha256: str, **options: Any) -> Weights:
    url, build = f"https://www.cellpose.org/models/{file}", "segedu.instance.cellpose:official_cellpose"
    images = "images of cells, under CC BY-NC"
    notice = "trained on images under CC BY-NC, so not for commercial use; the code is BSD"
    options = {"normalize": None, **options}  # None: the percentiles of the authors
    return Weights(build, url, sha256, size / 2**20, "BSD-3-Clause", images, options, notice=notice)


def _stardist(file: str, sha256: str, trained_on: str, **options: Any) -> Weights:
    url = f"https://github.com/stardist/stardist-models/releases/download/v0.1/python_{file}.zip"
    build, options = "segedu.instance.stardist:official_stardist", {"normalize": None, **options}
    return Weights(build, url, sha256, 5.4, "BSD-3-Clause", trained_on, options)


def _sam(file: str, size: int, build: str, sha256: str) -> Weights:
    url, build = f"{FACEBOOK}segment_anything/{file}.pth", f"segedu.promptable.sam.sam:{build}"
    images = "11 million photographs with 1.1 billion masks (SA-1B)"
    return Weights(build, url, sha256, size / 2**20, "Apache-2.0", images, normalizes=True)


def _our_own(
    name: str, sha256: str, mebibytes: float, build: str = "", normalizes: bool = False, **options: Any
) -> Weights:
    build = f"segedu.{build or f'weights.{name}:{name}'}"  # some are built by the script that trained them
    if not normalizes:
        options["normalize"] = None  # trained on images in [0, 1]; those of cells bring them to percentiles then
    scenes, file = "scenes drawn by segedu.datasets", f"{name}.safetensors"
    return Weights(build, file, sha256, mebibytes, "MIT", scenes, options, normalizes=normalizes)


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
    "detr_resnet50": _detr("detr-r50-e632da11", 159, 50),
    "detr_resnet50_dc5": _detr("detr-r50-dc5-f0fb7ef5", 159, 50, 16),
    "detr_resnet101": _detr("detr-r101-2c7b67e5", 232, 101),
    "detr_resnet101_dc5": _detr("detr-r101-dc5-a2e86def", 232, 101, 16),
    "detr_resnet50_panoptic": _detr("detr-r50-panoptic-00ce5173", 165, 50, panoptic=True),
    "detr_resnet50_dc5_panoptic": _detr("detr-r50-dc5-panoptic-da08f1b1", 165, 50, 16, panoptic=True),
    "detr_resnet101_panoptic": _detr("detr-r101-panoptic-40021d53", 237, 101, panoptic=True),
    "maskformer_resnet50_ade20k": _maskformer(
        "resnet50-ade", "715296aae42e9dcf138eb3254fedd308df2d24fe5c189797874ca028a461ceff", 166, "resnet50"
    ),
    "maskformer_swin_tiny_ade20k": _maskformer(
        "swin-tiny-ade", "aef0b7f380f24adcbee44a20ff00bacc9728a2143acc05572e0a8658a8a88047", 167, "swin_tiny"
    ),
    "maskformer_swin_small_ade20k": _maskformer(
        "swin-small-ade", "f1ebe6c04b339a124e4ce5c8f5d2360f8397e9a59f1c6cc75dead67235d67c7e", 253, "swin_small"
    ),
    "maskformer_swin_tiny_coco": _maskformer(
        "swin-tiny-coco", "0bb929483bcef6f78cc1ce89842bd9a1b8547a65938d2a1bcf874a77fa8bc976", 167, "swin_tiny", 133
    ),
    "mask2former_swin_tiny_cityscapes": _mask2former(
        "mask2former-swin-tiny-cityscapes-panoptic/resolve/982d597c3d41141538a9864319151d22381498be/pytorch_model.bin",
        "e25f48b0b64f0bc378879e22add77a8c16ee66821db337b5418ee20e92582092",
        190_054_437,
        "tiny",
        (2, 2, 6, 2),
        19,
        "Cityscapes, panoptic",
    ),
    "mask2former_swin_small_ade20k": _mask2former(
        "mask2former-swin-small-ade-semantic/resolve/d6d46cd5688a7ba02915930633cefd7124238867/pytorch_model.bin",
        "18a07418123545ce7a50a981330c8b7d0d3cec2611c9969c186e7f331402398c",
        275_770_565,
        "small",
        (2, 2, 18, 2),
        150,
        "ADE20K, semantic",
    ),
    "mask2former_swin_base_ade20k": _mask2former(
        "mask2former-swin-base-ade-semantic/resolve/97ce1d9c9aa1bbc7478d0b08f5f3a74efd48ff96/pytorch_model.bin",
        "197bab4870fea7287635f62fe52538a4cf053767ddd0f2c9cb7611deca618f1d",
        431_950_789,
        "base",
        (2, 2, 18, 2),
        150,
        "ADE20K, semantic",
    ),
    "oneformer_swin_tiny_ade20k": _oneformer(
        "oneformer_ade20k_swin_tiny/resolve/refs%2Fpr%2F4/pytorch_model.bin",
        "909b07dbf4129c2bbb8df4498e35dcd46f305e3ec45329d3ff6d4f0360de27f3",
        193.6,
        "tiny",
        (2, 2, 6, 2),
        "ADE20K",
    ),
    "mobile_sam": Weights(
        "segedu.promptable.mobile_sam:mobile_sam",
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        40_728_226 / 2**20,
        "Apache-2.0",
        "embeddings of SAM ViT-H, of 1 % of the 11 million images of SA-1B",
        rename=MOBILE_SAM,
        leave_out=("image_encoder.norm_head.", "image_encoder.head."),  # the classifier, which nothing asks
        normalizes=True,
    ),
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
    "sam_vit_b": _sam(
        "sam_vit_b_01ec64",
        375_042_383,
        "sam_vit_b",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "sam_vit_l": _sam(
        "sam_vit_l_0b3195",
        1_249_524_607,
        "sam_vit_l",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "sam_vit_h": _sam(
        "sam_vit_h_4b8939",
        2_564_550_879,
        "sam_vit_h",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
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
        "2a5b173e3ea4a8b13eb4460536db16b2b09be920d4bf2b782fe636b2b9132857",
        0.41,
        "backbones.vit:ViT",
        **SCENES_VIT,
    ),
    "cells_stardist": _our_own(
        "cells_stardist", "e8ceaf57bb805101030eeca14aa74bd438576ba9d9ac96ddf5887af24c68aa16", 0.36
    ),
    "cells_cellpose": _our_own(
        "cells_cellpose", "1062d3495e21acaca418e36b71609b011a2740f32caff4c80831d8ca810eb5a9", 0.42
    ),
    "shapes_mask_rcnn": _our_own(
        "shapes_mask_rcnn", "bfdf850dbf16327d3f63e93555a94cc3266d42cd858d56335b7c24f4d2899152", 1.27, normalizes=True
    ),
    "shapes_yolact": _our_own(
        "shapes_yolact", "c09e254068c80afab2b9bc68ee6fdc027df380a3017a021ebdbeb880218bc285", 1.17, normalizes=True
    ),
    "shapes_detr": _our_own(
        "shapes_detr", "a0ac8a3e8787f764fbb371972ea4edb9c21fbeeb3770d7cb5da0e0d5cf6b2ff4", 1.13, normalizes=True
    ),
}
