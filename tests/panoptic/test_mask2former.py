"""Mask2Former by hand, that it learns, and bad input; beside it test_mask2former_transformers.py and _keys.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from learning import fit
from panoptic.small_mask2former import CLASSES, LAYERS, QUERIES, small
from panoptic.small_maskformer import batch_of, generator, random_outputs, segments
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.street import CLASSES as STREET
from segedu.datasets.street import THINGS, draw_street
from segedu.layers.deformable_attention import DeformableAttention, gather, reference_points
from segedu.layers.segments import panoptic_segments
from segedu.metrics.panoptic import panoptic_quality
from segedu.panoptic.inference import panoptic_inference
from segedu.panoptic.mask2former.loss import mask2former_loss, sample_points, uncertain_points
from segedu.panoptic.mask2former.mask2former import Mask2Former, MaskedDecoder, attention_mask
from segedu.panoptic.mask2former.pixel_decoder import PixelDecoder

NOTHING = {"labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 4, 8, dtype=torch.bool)}

# --- attention --------------------------------------------------------------------------------------------------


def test_gather_equals_a_loop() -> None:
    sizes, heads, d, L, P = [(2, 3), (4, 5)], 2, 3, 4, 2
    values = torch.randn(2, 6 + 20, heads, d, generator=generator(), dtype=torch.float64)
    locations = torch.rand(2, L, heads, len(sizes), P, 2, generator=generator(1), dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(2, L, heads, len(sizes), P, generator=generator(2), dtype=torch.float64)
    expected = torch.zeros(2, L, heads, d, dtype=torch.float64)
    for *at, level, point in torch.cartesian_prod(*map(torch.arange, (2, L, heads, len(sizes), P))).tolist():
        b, i, head = at
        h, w = sizes[level]
        x, y = locations[b, i, head, level, point].tolist()
        x, y = x * w - 0.5, y * h - 0.5  # in places, of which the first has its centre at 0
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[b, i, head, level, point]
                if 0 <= row < h and 0 <= column < w:
                    expected[b, i, head] += share * values[b, 6 * level + row * w + column, head]
    torch.testing.assert_close(gather(values, sizes, locations, weights), expected.flatten(2), rtol=0, atol=1e-12)


def test_at_first_each_head_looks_in_a_direction_of_its_own() -> None:
    layer = DeformableAttention(8, num_heads=4, levels=2, points=3)
    offsets = layer.sampling_offsets(torch.rand(1, 8)).unflatten(-1, (4, 2, 3, 2))[0]
    assert offsets[:, 0, 0].round(decimals=5).tolist() == [[1, 0], [0, 1], [-1, 0], [0, -1]]  # right, down, left, up
    assert torch.equal(offsets[:, 1], offsets[:, 0])
    torch.testing.assert_close(offsets[:, :, 2], 3 * offsets[:, :, 0])
    # a field of one number is found again wherever it is looked at, but outside of the image
    nn.init.eye_(layer.value_proj.weight)
    nn.init.eye_(layer.output_proj.weight)
    sizes = [(9, 9), (9, 9)]
    references = reference_points(sizes, torch.zeros(1))
    given = layer(torch.rand(1, 162, 8), references, torch.ones(1, 162, 8), sizes)[0, :81].unflatten(0, (9, 9))
    torch.testing.assert_close(given[3:6, 3:6], torch.ones(3, 3, 8))
    torch.testing.assert_close(given[4, 7, :2], torch.full((2,), 1 / 3))  # of three places to the right, one is inside


def test_attention_mask_by_hand() -> None:
    # bilinear, so that a half of four is the mean of the two in the middle
    logits = torch.tensor([[[[-8.0, 2.0, -1.0, -1.0]], [[-1.0, -1.0, -1.0, 9.0]], [[-1.0, -1.0, -1.0, -1.0]]]])
    expected = torch.tensor([[True, True], [True, False], [False, False]])
    logits[0, 0, 0, 2] = -1.0
    hidden = attention_mask(logits, (1, 2), num_heads=2)
    expected = torch.tensor([[False, False], [True, False], [False, False]])  # means -3, -1; -1, 4; -1, -1: all hidden
    assert hidden.shape == (2, 3, 2) and all(torch.equal(head, expected) for head in hidden)
    assert attention_mask(torch.zeros(1, 1, 2, 2), (2, 2), 1).any().item() is False  # exactly 1/2 is not below it


@torch.no_grad()
def test_a_query_does_not_see_what_its_mask_hides() -> None:
    net, (images, _) = small(), batch_of([(64, 96)])
    mask_features, levels = net.pixel_decoder(net.backbone(images)[-4:])
    layer, (memory, position) = net.decoder.layers[0], ([x.flatten(2).mT for x in levels][i] for i in (0, 0))
    states, queries = (embed.weight[None] for embed in (net.decoder.query_feat, net.decoder.query_embed))
    hidden = torch.zeros(4, QUERIES, memory.shape[1], dtype=torch.bool)
    hidden[:, 2, 1:] = True
    other = memory.clone()
    other[:, 1:] += 1.0
    one, two = (layer.cross_attn(states + queries, m + position, m, attn_mask=hidden)[0] for m in (memory, other))
    assert torch.equal(one[:, 2], two[:, 2]) and (one - two).abs().amax(2)[0, [0, 1, 3, 4, 5]].min() > 1e-3


def test_masking_can_be_left_out() -> None:
    net, (images, _) = small(), batch_of([(64, 96)])
    masked = net(images)["mask_logits"]
    net.decoder.masked = False
    plain = net(images)
    assert (masked - plain["mask_logits"]).abs().max() > 1e-3
    assert len(plain["aux_outputs"]) == LAYERS


# --- points and loss --------------------------------------------------------------------------------------------


def test_points_are_where_the_mask_is_unsure() -> None:
    logits = torch.full((2, 8, 8), 5.0)
    logits[0, :, 4:] = -5.0  # an edge in the middle
    logits[1, 4:] = -5.0
    points = uncertain_points(logits, 100, 3.0, 0.75, generator())
    assert points.shape == (2, 100, 2) and 0 <= points.min() and points.max() <= 1
    across = torch.stack([points[0, :, 0], points[1, :, 1]])
    # outside of a mask its logits count as 0: it is unsure at its border, too
    border = torch.minimum(points, 1 - points).amin(dim=-1) < 1 / 16
    middle = (across - 0.5).abs() < 1 / 16
    assert (middle | border)[:, :75].all() and 0.2 < middle[:, :75].double().mean() < 0.9
    assert not (middle | border)[:, 75:].all(dim=1).any()  # the others are anywhere
    assert sample_points(logits, points).abs()[:, :75].max() < 5.0
    everywhere = uncertain_points(logits, 100, 1.0, 0.0, generator())
    assert 0.1 < (everywhere[0, :, 0] < 0.25).double().mean() < 0.4
    assert uncertain_points(logits[:0], 10, 3.0, 0.75).shape == (0, 10, 2)


def one_segment() -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """The left half of 4 x 8 pixels, which the second of two queries draws at stride 4 and says nothing of classes."""
    masks = torch.tensor([[[[-100.0, 100.0]], [[100.0, -100.0]]]])
    outputs = {"class_logits": torch.zeros(1, 2, 3), "mask_logits": masks, "aux_outputs": []}
    left = torch.zeros(1, 4, 8, dtype=torch.bool)
    left[..., :4] = True
    return outputs | {"sizes": [(4, 8)], "image_size": (4, 8)}, [{"labels": torch.tensor([1]), "masks": left}]


def test_loss_by_hand() -> None:
    outputs, targets = one_segment()
    losses = mask2former_loss(outputs, targets, num_points=5000, importance_sample_ratio=0.0, generator=generator())
    assert losses["classification"].item() == pytest.approx(2 * math.log(3), rel=1e-6)
    assert losses["dice"] < 0.6 and losses["loss"] == losses["classification"] + losses["mask"] + losses["dice"]
    right = [{"labels": torch.tensor([1]), "masks": ~targets[0]["masks"]}]
    again = mask2former_loss(outputs, right, num_points=5000, importance_sample_ratio=0.0, generator=generator())
    assert again["dice"] < 0.6  # the first query's
    # logits of 0: log 2, and Dice 1 - (2 * 1/2 * T + 1) / (P / 2 + T + 1) with T of P points inside: 1/2, about
    outputs["mask_logits"] = torch.zeros(1, 2, 1, 2)
    losses = mask2former_loss(outputs, targets, num_points=5000, importance_sample_ratio=0.0, generator=generator())
    assert losses["mask"].item() == pytest.approx(5 * math.log(2), rel=1e-6)
    assert losses["dice"].item() == pytest.approx(5 / 2, rel=0.05)
    for name, weight in (("class_weight", 1.0), ("mask_weight", 2.5), ("dice_weight", 2.5)):
        key = {"class": "classification"}.get(name[:-7], name[:-7])
        half = mask2former_loss(outputs, targets, num_points=5000, **{name: weight}, generator=generator())
        whole = mask2former_loss(outputs, targets, num_points=5000, generator=generator())
        assert half[key].item() == pytest.approx(whole[key].item() / 2, rel=1e-5)
        with pytest.raises(ValueError, match=f"{name} is -1, expected a finite number of at least 0"):
            mask2former_loss(outputs, targets, **{name: -1})


def test_no_segment_at_all() -> None:
    outputs, _ = one_segment()
    leaves = [outputs[key].requires_grad_() for key in ("class_logits", "mask_logits")]
    losses = mask2former_loss({**outputs, "aux_outputs": [outputs]}, [NOTHING], num_points=50)
    assert losses["mask"] == losses["dice"] == 0 and losses["classification"].item() == pytest.approx(4 * math.log(3))
    losses["loss"].backward()
    assert (leaves[0].grad[..., -1] < 0).all()


def test_padding_is_no_mask() -> None:
    outputs, targets = one_segment()
    outputs["sizes"] = [(4, 4)]
    padded = [{"labels": torch.tensor([1]), "masks": targets[0]["masks"][..., :4]}]
    whole = mask2former_loss({**outputs, "sizes": [(4, 8)]}, targets, num_points=200, generator=generator())
    part = mask2former_loss(outputs, padded, num_points=200, generator=generator())
    assert whole["loss"] == part["loss"]


def test_more_segments_than_queries() -> None:
    outputs, (target,) = one_segment()
    thrice = {key: torch.cat([value] * 3) for key, value in target.items()}
    assert mask2former_loss(outputs, [thrice], num_points=50)["loss"].isfinite()


# --- network ----------------------------------------------------------------------------------------------------


def test_gradient_reaches_all() -> None:
    net, (images, sizes) = small().train(), batch_of([(64, 96), (41, 50)])
    targets = [segments(size, 3, 5) for size in sizes]
    mask2former_loss(net(images, sizes), targets, num_points=300)["loss"].backward()
    # 32 channels in 32 groups: a normalisation takes each channel's mean away, and with it what a bias adds
    idle = {f"pixel_decoder.input_proj.{i}.0.bias" for i in range(3)}
    assert {name for name, parameter in net.named_parameters() if parameter.grad.abs().max() < 1e-12} == idle


def test_float64_and_half_precision() -> None:
    net, (images, sizes) = small(), batch_of([(64, 96), (41, 50)])
    targets = [segments(size, 3, 5) for size in sizes]
    double, single = net(images, sizes), net.float()(images.float(), sizes)
    for key in ("class_logits", "mask_logits"):
        assert double[key].dtype == torch.float64 and single[key].dtype == torch.float32
        torch.testing.assert_close(single[key].double(), double[key], rtol=1e-3, atol=1e-3)
    assert mask2former_loss(double, targets, num_points=50)["loss"].dtype == torch.float64
    half = net.to(torch.bfloat16)(images.to(torch.bfloat16), sizes)
    assert half["mask_logits"].dtype == torch.bfloat16
    assert mask2former_loss(half, targets, num_points=50)["loss"].dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 70)])
def test_any_size(size: tuple[int, int]) -> None:
    pixels = PixelDecoder((8, 8, 12, 16), 64, 4, 1, 24)
    net = Mask2Former(ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 12, 16)), pixels, MaskedDecoder(CLASSES, 5, 64, 4, 3, 20))
    outputs = net.eval()(torch.rand(1, 3, *size))
    assert outputs["mask_logits"].shape == (1, 5, -(-size[0] // 4), -(-size[1] // 4))
    assert outputs["image_size"] == size and outputs["sizes"] == [size]
    assert panoptic_inference(outputs, {1}, score_threshold=0.0)[0][0].shape == size


def test_other_states_to_start_from() -> None:
    net, (images, _) = small(), batch_of([(64, 96), (41, 50)])
    mask_features, levels = net.pixel_decoder(net.backbone(images)[-4:])
    learnt = net.decoder.query_feat.weight.expand(2, -1, -1)
    usual, same, other = (net.decoder(mask_features, levels, states) for states in (None, learnt, learnt + 1))
    assert torch.equal(usual[-1]["mask_logits"], same[-1]["mask_logits"])
    assert (usual[-1]["mask_logits"] - other[-1]["mask_logits"]).abs().max() > 1e-3


@pytest.mark.learns
def test_learns_two_streets() -> None:
    scenes = [draw_street((7, i), (48, 80)) for i in range(2)]
    images = torch.stack([scene["image"].as_subclass(Tensor) for scene in scenes])
    targets = [panoptic_segments(scene["panoptic_seg"].as_subclass(Tensor), scene["segments_info"]) for scene in scenes]
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 24, 32, 32))
    body.maxpool = nn.Identity()  # things are small: strides 2, 4, 8, 16
    pixels = PixelDecoder((16, 24, 32, 32), 32, 4, 1, 64)
    net = Mask2Former(body, pixels, MaskedDecoder(len(STREET), 16, 32, 4, 3, 64))
    fit(net, lambda: mask2former_loss(net(images), targets, num_points=512)["loss"], steps=80, max_norm=1.0)
    net.train()  # with the batch's statistics
    found = panoptic_inference(net(images), THINGS, score_threshold=0.5)
    for (seg, info), scene in zip(found, scenes, strict=True):
        preds = {"panoptic_seg": seg, "segments_info": info}
        assert panoptic_quality(preds, scene, len(STREET))["pq"] > 0.5


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda o: [o], TypeError, "outputs has type list, expected a dict with the keys class_logits"),
        (lambda o: {"mask_logits": o["mask_logits"]}, ValueError, "outputs has the keys ['mask_logits'], expected"),
        (lambda o: {**o, "class_logits": o["class_logits"][0]}, ValueError, "outputs['class_logits'] has shape"),
        (lambda o: {**o, "mask_logits": o["mask_logits"][:, 1:]}, ValueError, "outputs['mask_logits'] has shape"),
        (lambda o: {**o, "mask_logits": o["mask_logits"].int()}, TypeError, "outputs['mask_logits'] has dtype"),
        (lambda o: {**o, "aux_outputs": {}}, TypeError, "outputs['aux_outputs'] has type dict, expected a list"),
        (lambda o: {**o, "aux_outputs": [{}]}, ValueError, "outputs['aux_outputs'][0] has the keys [], expected"),
        (
            lambda o: {**o, "sizes": o["sizes"][1:]},
            ValueError,
            "outputs['sizes'] has 2 entries, expected 3, one for each",
        ),
    ],
)
def test_bad_outputs(change: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    outputs = random_outputs()
    targets = [segments(size, 2, 3) for size in outputs["sizes"]]
    with pytest.raises(error) as caught:
        mask2former_loss(change(outputs), targets)
    assert str(caught.value).startswith(words)


def test_bad_targets_and_numbers() -> None:
    outputs, targets = one_segment()
    for bad, error in (
        ({"labels": torch.tensor([2])}, ValueError),
        ({"masks": targets[0]["masks"].float()}, TypeError),
    ):
        with pytest.raises(error, match=r"targets\[0\]"):
            mask2former_loss(outputs, [targets[0] | bad])
    for name, value in (
        ("num_points", 0),
        ("oversample_ratio", 0.5),
        ("importance_sample_ratio", 1.5),
        ("no_object_weight", math.nan),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            mask2former_loss(outputs, targets, **{name: value})
    with pytest.raises(ValueError, match="cost contains NaN"):
        mask2former_loss({**outputs, "mask_logits": outputs["mask_logits"] * math.nan}, targets, num_points=5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PixelDecoder((8, 8, 8), 32), "channels has 3 entries, expected 4, one for each stride, 4 to 32"),
        (lambda: PixelDecoder((8,) * 4, 48), "embed_dim is 48, expected a multiple of 32"),
        (lambda: PixelDecoder((8,) * 4, 32, layers=-1), "layers is -1, expected an integer of at least 0"),
        (lambda: MaskedDecoder(0), "num_classes is 0, expected an integer of at least 1"),
        (
            lambda: MaskedDecoder(3, embed_dim=36),
            "embed_dim is 36, expected a multiple of num_heads, which is 8",
        ),
        (lambda: DeformableAttention(10, 4, 3), "embed_dim is 10, expected a multiple of num_heads, which is 4"),
        (lambda: DeformableAttention(8, 4, 0), "levels is 0, expected an integer of at least 1"),
        (
            lambda: Mask2Former(nn.Identity(), PixelDecoder((8,) * 4, 32), MaskedDecoder(3)),
            "pixel_decoder.embed_dim is 32, expected 256",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value).startswith(words)
