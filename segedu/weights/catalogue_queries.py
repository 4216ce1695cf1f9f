"""Weights of networks with queries or prompts: DETR, MaskFormer, Mask2Former, OneFormer, SAM and MobileSAM."""

from __future__ import annotations

from collections.abc import Sequence

from segedu.weights.catalogue_row import FACEBOOK, Weights
from segedu.weights.transformers_keys import MASK2FORMER, MASKFORMER, ONEFORMER

MOBILE_SAM = (
    (r"^image_encoder\.patch_embed\.seq\.", "image_encoder.backbone.patch_embed."),
    (r"^image_encoder\.layers\.", "image_encoder.backbone.layers."),
    (r"\.c\.weight$", ".conv.weight"),
    (r"\.mlp\.norm\.", ".norm."),
)


def _detr(file: str, mebibytes: float, depth: int, output_stride: int = 32, panoptic: bool = False) -> Weights:
    sha256, url = file.rsplit("-", 1)[-1], f"{FACEBOOK}detr/{file}.pth"
    more = {"options": {"output_stride": output_stride}, "normalizes": True, "checkpoint_key": "model"}
    name = f"panoptic.detr_panoptic:detr_resnet{depth}_panoptic" if panoptic else f"detection.detr:detr_resnet{depth}"
    return Weights(f"segedu.{name}", url, sha256, mebibytes, "Apache-2.0", "COCO 2017", **more)


def _index_tables(encoder: str, depths: Sequence[int]) -> tuple[str, ...]:
    """Keys of the relative position indices in the blocks of a Swin transformer, which our model computes itself."""
    blocks = ((i, j) for i, depth in enumerate(depths) for j in range(depth))
    return tuple(f"{encoder}.layers.{i}.blocks.{j}.attention.self.relative_position_index" for i, j in blocks)


def _oneformer(file: str, sha256: str, mebibytes: float, size: str, depths: Sequence[int], trained_on: str) -> Weights:
    """`depths`: number of blocks per stage of the Swin transformer."""
    tables = _index_tables("model.pixel_level_module.encoder.encoder", depths)
    builder, url = f"segedu.panoptic.oneformer:oneformer_swin_{size}", f"https://huggingface.co/shi-labs/{file}"
    more = {"rename": ONEFORMER, "ignored_keys": (*tables, "criterion."), "normalizes": True}
    return Weights(builder, url, sha256, mebibytes, "MIT", trained_on, **more)


def _maskformer(repository: str, sha256: str, megabytes: int, builder: str, num_classes: int = 150) -> Weights:
    url = f"https://huggingface.co/facebook/maskformer-{repository}/resolve/main/pytorch_model.bin"
    body = "model.pixel_level_module.encoder.model."
    tables = _index_tables(f"{body}encoder", (2, 2, 6 if builder == "swin_tiny" else 18, 2))
    more = {"options": {"num_classes": num_classes}, "rename": MASKFORMER, "normalizes": True, "non_commercial": True}
    more["ignored_keys"] = (*tables, f"{body}layernorm.", "criterion.")
    name, trained_on = (
        f"segedu.panoptic.maskformer:maskformer_{builder}",
        "ADE20K" if num_classes == 150 else "COCO 2017",
    )
    return Weights(name, url, sha256, megabytes * 1e6 / 2**20, "CC BY-NC 4.0", trained_on, **more)


def _mask2former(
    file: str, sha256: str, size: int, swin: str, depths: Sequence[int], num_classes: int, trained_on: str
) -> Weights:
    """`depths`: number of blocks per stage of the Swin transformer; `size` in bytes."""
    tables = _index_tables("model.pixel_level_module.encoder.encoder", depths)
    builder = f"segedu.panoptic.mask2former.mask2former:mask2former_swin_{swin}"
    url = f"https://huggingface.co/facebook/{file}"
    more = {"rename": MASK2FORMER, "ignored_keys": (*tables, "criterion."), "normalizes": True, "non_commercial": True}
    options = {"num_classes": num_classes}
    return Weights(builder, url, sha256, size / 2**20, "CC BY-NC 4.0", trained_on, options=options, **more)


def _sam(file: str, size: int, builder: str, sha256: str) -> Weights:
    url, builder = f"{FACEBOOK}segment_anything/{file}.pth", f"segedu.promptable.sam.sam:{builder}"
    images = "11 million photographs with 1.1 billion masks (SA-1B)"
    return Weights(builder, url, sha256, size / 2**20, "Apache-2.0", images, normalizes=True)


QUERIES: dict[str, Weights] = {
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
        ignored_keys=("image_encoder.norm_head.", "image_encoder.head."),  # the classifier is not used
        normalizes=True,
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
}
