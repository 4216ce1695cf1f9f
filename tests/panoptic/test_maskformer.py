"""MaskFormer by hand, its keys, that it learns, and bad input; beside it test_maskformer_transformers.py."""

from __future__ import annotations

import math
import re

import pytest
import torch
from learning import fit, mean_overlap
from panoptic.small_maskformer import CLASSES, QUERIES, batch_of, generator, random_outputs, segments, small
from torch import Tensor

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import CLASSES as SHAPES
from segedu.datasets.shapes import draw_shapes
from segedu.layers.segments import semantic_segments
from segedu.layers.transformer import Transformer
from segedu.panoptic.inference import semantic_inference
from segedu.panoptic.maskformer import (
    MaskFormer,
    PixelDecoder,
    maskformer_loss,
    maskformer_resnet50,
    maskformer_resnet101,
    maskformer_swin_base,
    maskformer_swin_small,
    maskformer_swin_tiny,
    matching_cost,
)

NOTHING = {"labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 2, 4, dtype=torch.bool)}
LEFT = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0]]).bool()
HALVES = {"labels": torch.tensor([0, 1]), "masks": torch.stack([LEFT, ~LEFT])}


def two_halves(sure: float = 20.0) -> dict:
    """Three queries: the right half is class 1, the left class 0, and one that says nothing. At half of the size."""
    left = sure * torch.tensor([[1.0, -1.0]])
    masks = torch.stack([-left, left, -torch.full((1, 2), sure)])[None]
    logits = sure * torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    return {"class_logits": logits, "mask_logits": masks, "aux_outputs": [], "sizes": [(2, 4)], "image_size": (2, 4)}


# --- loss -------------------------------------------------------------------------------------------------------


def test_what_is_right_costs_nothing_but_a_blurred_edge() -> None:
    losses = maskformer_loss(two_halves(), [HALVES])
    assert losses["classification"] < 1e-6
    # enlarged from 2 to 4 columns, logits are 1, 1/2, -1/2, -1 times 20: sure enough at the edge too
    assert losses["focal"] < 1e-6 and losses["dice"] < 1e-3
    wrong = {**HALVES, "labels": torch.tensor([1, 0])}
    assert maskformer_loss(two_halves(), [wrong])["classification"] > 10


def test_loss_by_hand() -> None:
    """Nothing said: p is 1/2 everywhere. Of two segments in 8 pixels each, cut in halves."""
    losses = maskformer_loss(two_halves(0.0), [HALVES])
    assert losses["classification"].item() == pytest.approx(math.log(3))
    # of four pixels 1/4 (1/2)^2 log 2, of four 3/4 (1/2)^2 log 2: a mean of log(2) / 8 of each of two masks, over 2
    assert losses["focal"].item() == pytest.approx(20 * math.log(2) / 8)
    assert losses["dice"].item() == pytest.approx(1 - (2 * 2 + 1) / (4 + 4 + 1))
    assert losses["loss"] == losses["classification"] + losses["focal"] + losses["dice"]


def test_padding_is_no_mask() -> None:
    """A batch of 2 x 6 pixels, of which four columns are the image: the third query is right about the padding."""
    outputs = {**two_halves(0.0), "image_size": (2, 6), "mask_logits": torch.zeros(1, 3, 2, 6)}
    losses = maskformer_loss(outputs, [HALVES])
    assert losses["focal"].item() == pytest.approx(20 * math.log(2) / 4 * (4 / 12 * 1 / 4 + 8 / 12 * 3 / 4))
    assert losses["dice"].item() == pytest.approx(1 - (2 * 2 + 1) / (6 + 4 + 1))


def test_more_segments_than_queries_and_none() -> None:
    twice = {key: torch.cat([value, value]) for key, value in HALVES.items()}
    # the third query says "no object", and is given one of those that are left
    assert maskformer_loss(two_halves(), [twice])["classification"] > 1
    outputs = random_outputs()
    leaves = [outputs[key].requires_grad_() for key in ("class_logits", "mask_logits")]
    targets = [{**NOTHING, "masks": torch.zeros(0, *size, dtype=torch.bool)} for size in outputs["sizes"]]
    losses = maskformer_loss(outputs, targets)
    assert losses["focal"] == 0 and losses["dice"] == 0
    losses["loss"].backward()
    assert (leaves[0].grad[..., -1] < 0).all() and not leaves[1].grad.any()


def test_every_decoder_layer_is_matched_for_itself() -> None:
    outputs = {**two_halves(), "class_logits": torch.randn(1, 3, 3, generator=generator())}
    flipped = {key: outputs[key].flip(1) for key in ("class_logits", "mask_logits")}
    once, thrice = (maskformer_loss({**outputs, "aux_outputs": aux}, [HALVES]) for aux in ([], [flipped, flipped]))
    for key, value in once.items():
        assert thrice[key].item() == pytest.approx(3 * value.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["no_object_weight", "class_weight", "focal_weight", "dice_weight"])
def test_every_weight_is_seen(name: str) -> None:
    outputs = random_outputs()
    targets = [segments(size, 3, 7) for size in outputs["sizes"]]
    assert (
        abs(maskformer_loss(outputs, targets)["loss"] - maskformer_loss(outputs, targets, **{name: 0.3})["loss"]) > 1e-3
    )
    with pytest.raises(ValueError, match=f"{name} is -1, expected a finite number of at least 0"):
        maskformer_loss(outputs, targets, **{name: -1})


def test_half_precision_costs_and_losses_are_float32() -> None:
    outputs = two_halves(2.0)
    half = {**outputs, **{key: outputs[key].half() for key in ("class_logits", "mask_logits")}}
    assert maskformer_loss(half, [HALVES])["loss"].item() == pytest.approx(
        maskformer_loss(outputs, [HALVES])["loss"].item(), rel=1e-3
    )
    cost = matching_cost(half["class_logits"][0], half["mask_logits"][0], **HALVES)
    assert cost.dtype == torch.float32 and cost.shape == (3, 2)
    assert cost.argmin(0).tolist() == [1, 0]
    assert matching_cost(half["class_logits"][0], half["mask_logits"][0], **NOTHING).shape == (3, 0)


# --- network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["resnet", "swin"])
def test_one_pixel_more(kind: str) -> None:
    net = small(kind)
    for size in ((33, 65), (5, 36)):
        images, sizes = batch_of([size], 1)
        outputs = net(images)
        h, w = outputs["mask_logits"].shape[2:]
        assert abs(4 * h - size[0]) < 4 and abs(4 * w - size[1]) < 4 and outputs["sizes"] == sizes
        assert semantic_inference(outputs).shape == (1, CLASSES, *size)


def official(key: str, swin: bool) -> str:
    """Our key as in the authors' files: names after transformers' script that converts them."""
    key = re.sub(r"^pixel_decoder\.start\.0\.", "pixel_decoder.layer_4.", key)
    key = re.sub(r"^pixel_decoder\.start\.1\.", "pixel_decoder.layer_4.norm.", key)
    for ours, theirs in (("laterals", "adapter"), ("smooth", "layer")):
        for index, part in ((0, ""), (1, "norm.")):
            pattern = rf"^pixel_decoder\.{ours}\.(\d)\.{index}\."
            key = re.sub(pattern, lambda m, t=theirs, p=part: f"pixel_decoder.{t}_{int(m[1]) + 1}.{p}", key)
    if not key.startswith("backbone."):
        return f"sem_seg_head.{key}" if key.startswith("pixel_decoder") else f"sem_seg_head.predictor.{key}"
    if swin:
        key = re.sub(r"features\.0\.", "patch_embed.", key)
        key = re.sub(r"norms\.(\d)\.", r"norm\1.", key)
        key = re.sub(r"features\.([1357])\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.", key)
        return re.sub(r"features\.([246])\.", lambda m: f"layers.{int(m[1]) // 2 - 1}.downsample.", key)
    key = re.sub(r"^backbone\.conv1\.", "backbone.stem.conv1.", key)
    key = re.sub(r"^backbone\.bn1\.", "backbone.stem.conv1.norm.", key)
    key = re.sub(r"layer(\d)\.", lambda m: f"res{int(m[1]) + 1}.", key)
    key = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", key)
    return re.sub(r"downsample\.1\.", "shortcut.norm.", re.sub(r"downsample\.0\.", "shortcut.", key))


@pytest.mark.parametrize("builder", [maskformer_resnet50, maskformer_swin_tiny])
def test_keys_of_the_authors_files(builder) -> None:
    """Each of their names is one of ours, and some that a reader of their files would look for are among them."""
    with torch.device("meta"):
        ours = builder().state_dict()
    swin = builder is maskformer_swin_tiny
    theirs = {official(key, swin): tuple(tensor.shape) for key, tensor in ours.items() if "num_batches" not in key}
    assert len(theirs) == sum("num_batches" not in key for key in ours)
    for key, shape in {
        "sem_seg_head.pixel_decoder.layer_4.weight": (256, 768 if swin else 2048, 3, 3),
        "sem_seg_head.pixel_decoder.adapter_1.weight": (256, 96 if swin else 256, 1, 1),
        "sem_seg_head.pixel_decoder.adapter_3.norm.bias": (256,),
        "sem_seg_head.pixel_decoder.layer_1.norm.weight": (256,),
        "sem_seg_head.pixel_decoder.mask_features.weight": (256, 256, 3, 3),
        "sem_seg_head.predictor.transformer.decoder.layers.5.multihead_attn.in_proj_weight": (768, 256),
        "sem_seg_head.predictor.transformer.decoder.layers.0.linear1.weight": (2048, 256),
        "sem_seg_head.predictor.transformer.decoder.norm.weight": (256,),
        "sem_seg_head.predictor.query_embed.weight": (100, 256),
        "sem_seg_head.predictor.input_proj.weight": (256, 768 if swin else 2048, 1, 1),
        "sem_seg_head.predictor.class_embed.weight": (151, 256),
        "sem_seg_head.predictor.mask_embed.layers.2.bias": (256,),
        **(
            {
                "backbone.patch_embed.proj.weight": (96, 3, 4, 4),
                "backbone.layers.2.blocks.5.attn.qkv.weight": (1152, 384),
                "backbone.layers.0.downsample.reduction.weight": (192, 384),
                "backbone.layers.3.blocks.1.mlp.fc1.weight": (3072, 768),
                "backbone.norm3.weight": (768,),
            }
            if swin
            else {
                "backbone.stem.conv1.norm.running_var": (64,),
                "backbone.res2.0.shortcut.weight": (256, 64, 1, 1),
                "backbone.res5.2.conv2.norm.weight": (512,),
            }
        ),
    }.items():
        assert theirs[key] == shape, key


def test_builders() -> None:
    wanted = {
        maskformer_resnet50: 41.3, maskformer_resnet101: 60.3, maskformer_swin_tiny: 41.8, maskformer_swin_small: 63.1,
        maskformer_swin_base: 101.8,
    }  # fmt: skip
    for builder, millions in wanted.items():
        with torch.device("meta"):
            net = builder(num_queries=100)
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
        assert len(net.transformer.decoder.layers) == 6 and len(net.transformer.encoder.layers) == 0


@pytest.mark.learns
def test_learns_two_scenes() -> None:
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 16, 24, 32))
    net = MaskFormer(body, PixelDecoder(body.channels[-4:], 32, 16, 8), Transformer(32, 4, 0, 2, 64, 0.0), 4, 8)
    scenes = [draw_shapes(seed, (64, 64)) for seed in (1, 2)]
    images = torch.stack([scene["image"] for scene in scenes])
    targets = [semantic_segments(scene["semantic"]) for scene in scenes]
    first, last = fit(net, lambda: maskformer_loss(net(images), targets)["loss"], steps=80, max_norm=0.1)
    labels = semantic_inference(net.train()(images)).argmax(1)  # with the batch's statistics
    assert len(SHAPES) == 4 and last < first / 3
    assert mean_overlap(labels, torch.stack([scene["semantic"] for scene in scenes])) > 0.6


# --- bad input --------------------------------------------------------------------------------------------------

OUTPUTS = random_outputs(2)


def target_with(**change: object) -> list[dict]:
    good = [segments(size, 2, 3) for size in OUTPUTS["sizes"]]
    return [{**good[0], **change}, *good[1:]]


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "says"),
    [
        ([], target_with(), TypeError, "outputs has type list"),
        ({"class_logits": Tensor()}, target_with(), ValueError, "outputs has the keys"),
        ({**OUTPUTS, "mask_logits": OUTPUTS["mask_logits"][:, 1:]}, target_with(), ValueError, "mask_logits"),
        ({**OUTPUTS, "aux_outputs": {}}, target_with(), TypeError, "aux_outputs"),
        ({**OUTPUTS, "aux_outputs": [{"class_logits": OUTPUTS["class_logits"]}]}, target_with(), ValueError, "aux"),
        ({**OUTPUTS, "sizes": OUTPUTS["sizes"][1:]}, target_with(), ValueError, r"sizes'\] has 2 entries"),
        ({**OUTPUTS, "class_logits": OUTPUTS["class_logits"] * torch.nan}, target_with(), ValueError, "NaN"),
        (OUTPUTS, target_with()[1:], ValueError, "targets has 2 entries"),
        (OUTPUTS, target_with(labels=torch.tensor([0, CLASSES])), ValueError, "expected 0 to 3"),
        (OUTPUTS, target_with(masks=torch.zeros(2, 44, 64).bool()), ValueError, r"expected \(2, 40, 64\)"),
        (OUTPUTS, target_with(masks=torch.zeros(2, 40, 64)), TypeError, "torch.bool"),
    ],
)
def test_bad_losses(outputs, targets, error, says) -> None:
    with pytest.raises(error, match=says):
        maskformer_loss(outputs, targets)


def test_bad_networks_and_images() -> None:
    net = small()
    for change, says in (
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_queries": 0}, "num_queries is 0"),
        ({"transformer": Transformer(6, 2, 0, 1, 8)}, "transformer.embed_dim is 6"),
    ):
        with pytest.raises(ValueError, match=says):
            parts = {"transformer": net.transformer, "num_classes": CLASSES, "num_queries": QUERIES}
            MaskFormer(net.backbone, net.pixel_decoder, **{**parts, **change})
    with pytest.raises(ValueError, match="width is 12, expected a multiple of groups, which is 8"):
        PixelDecoder((4, 4), 12, 4, groups=8)
    for images, error, says in (
        (torch.zeros(1, 4, 32, 32), ValueError, "images has shape"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), TypeError, "images has dtype"),
        ([0], TypeError, "images has type list"),
    ):
        with pytest.raises(error, match=says):
            net(images)
    with pytest.raises(ValueError, match=r"sizes\[0\] is \(33, 32\)"):
        net(torch.zeros(1, 3, 32, 32, dtype=torch.float64), [(33, 32)])
