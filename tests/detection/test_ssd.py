"""SSD against torchvision's with the same random weights: stages, default boxes, detections, losses, keys; it learns."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from learning import detection_f1, fit
from randomise import randomise
from torch import Tensor, nn
from torchvision.models.detection import ssd as oracle
from torchvision.models.detection._utils import SSDMatcher
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from segedu.backbones.vgg import VGG
from segedu.datasets.shapes import draw_shapes
from segedu.detection.ssd import (
    MEAN,
    RATIOS,
    SCALES,
    SSD,
    STD,
    STEPS,
    SSDFeatures,
    default_boxes,
    match_default_boxes,
    postprocess,
    ssd300_vgg16,
    ssd_loss,
)
from segedu.layers.image_batch import resize_boxes
from segedu.layers.normalize import Normalize
from segedu.ops.boxes import box_iou

STAGES = ((4,), (5,), (6,), (8,), (7,))
EXTRAS = ((4, 6, 2), (3, 5, 1))  # of the four maps of the tiny network the last ones are stride 2, and not padded
SHAPES = ((2,), (2, 3), (2, 3), (2,))
PARTS = (0.2, 0.3, 0.5, 0.7, 0.9)
SIZES = [(96, 96), (80, 112), (85, 101)]
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
NOTHING = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0, dtype=torch.int64)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def our_net(steps: tuple[int, ...] | None = None) -> SSD:
    vgg = VGG(STAGES, normalize=Normalize(MEAN, STD))
    return SSD(SSDFeatures(vgg, 10, EXTRAS), 4, PARTS, SHAPES, steps).double().eval()


class TorchvisionFeatures(oracle.SSDFeatureExtractorVGG):
    """torchvision's forward on narrow layers; its constructor knows those of the paper only."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        layers, channels = [], 3
        for stage in STAGES:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=len(layers) == 8))
        self.scale_weight = nn.Parameter(torch.zeros(8))
        self.features = nn.Sequential(*layers[:11])
        fc = [nn.MaxPool2d(3, 1, 1), nn.Conv2d(7, 10, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(10, 10, 1)]
        first = nn.Sequential(*layers[11:14], nn.Sequential(*fc, nn.ReLU()))
        second = nn.Sequential(nn.Conv2d(10, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        third = nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU(), nn.Conv2d(3, 5, 3), nn.ReLU())
        self.extra = nn.ModuleList([first, second, third])
        self.out_channels = [8, 10, 6, 5]


def torchvision_net(size: tuple[int, int], steps: tuple[int, ...] | None = None, **options: object) -> oracle.SSD:
    boxes = DefaultBoxGenerator([list(shapes) for shapes in SHAPES], scales=list(PARTS), steps=steps)
    mean, std = (torch.tensor(numbers).tolist() for numbers in (MEAN, STD))  # as float32 has them
    options = {"image_mean": mean, "image_std": std, **options}
    net = randomise(oracle.SSD(TorchvisionFeatures(), boxes, (size[1], size[0]), 4, **options))
    with torch.no_grad():  # images of 0 to 255 come in
        net.backbone.features[0].weight /= 100
    return net


def both(size: tuple[int, int], **options: object) -> tuple[SSD, oracle.SSD]:
    ours, theirs = our_net(), torchvision_net(size, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


# --- parity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_every_stage_equals_torchvision(size: tuple[int, int]) -> None:
    ours, theirs = both(size)
    images = torch.rand(2, 3, *size, generator=generator(), dtype=torch.float64)
    image_list, _ = theirs.transform(list(images))
    features = list(theirs.backbone(image_list.tensors).values())
    expected = theirs.head(features)
    for got, wanted in zip(ours.backbone(images), features, strict=True):
        assert wanted.std() > 0.01  # the weights are such that an error would show
        torch.testing.assert_close(got, wanted, **CLOSE)
    outputs = ours(images)
    assert list(outputs) == ["logits", "deltas", "anchors", "sizes"]
    torch.testing.assert_close(outputs["logits"], expected["cls_logits"], **CLOSE)
    torch.testing.assert_close(outputs["deltas"], expected["bbox_regression"], **CLOSE)
    anchors = theirs.anchor_generator(image_list, features)[0]
    torch.testing.assert_close(outputs["anchors"], anchors, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "shape"), [((96, 96), (96, 96)), ((80, 112), (47, 131)), ((85, 101), (151, 60))])
@torch.no_grad()
def test_detections_equal_torchvision(size: tuple[int, int], shape: tuple[int, int]) -> None:
    ours, theirs = both(size, score_thresh=0.4, topk_candidates=40, detections_per_img=500)
    image = torch.rand(3, *shape, generator=generator(), dtype=torch.float64)
    squeezed = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)
    options = {"score_threshold": 0.4, "topk_candidates": 40, "max_detections": 500}
    got, wanted = postprocess(ours(squeezed), **options)[0], theirs([image])[0]
    assert 50 < len(wanted["boxes"]) < 100  # some are dropped for their score, some as no candidates
    torch.testing.assert_close(resize_boxes(got["boxes"], size, shape), wanted["boxes"], rtol=0, atol=1e-4)
    torch.testing.assert_close(got["scores"], wanted["scores"], rtol=0, atol=1e-9)
    assert torch.equal(got["labels"], wanted["labels"]) and got["labels"].min() >= 1
    ours.backbone.scale_weight *= 1.01  # a weight that differs is noticed
    moved = postprocess(ours(squeezed), **options)[0]["boxes"]
    assert moved.shape != got["boxes"].shape or (moved - got["boxes"]).abs().max() > 1e-3


@torch.no_grad()
def test_detections_with_the_defaults_equal_torchvision() -> None:
    ours, theirs = both((96, 96))
    image = torch.rand(3, 96, 96, generator=generator(), dtype=torch.float64)
    got, wanted = postprocess(ours(image[None]))[0], theirs([image])[0]
    assert len(wanted["boxes"]) == 200
    torch.testing.assert_close(got["boxes"], wanted["boxes"], rtol=0, atol=1e-4)
    assert torch.equal(got["labels"], wanted["labels"])


@pytest.mark.parametrize(("size", "steps"), [((300, 300), STEPS), ((300, 300), None), ((270, 320), STEPS)])
def test_default_boxes_equal_torchvision(size: tuple[int, int], steps: tuple[int, ...] | None) -> None:
    grids = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    theirs = DefaultBoxGenerator([list(shapes) for shapes in RATIOS], scales=list(SCALES), steps=steps)
    images, maps = torch.zeros(1, 3, *size), [torch.zeros(1, 1, *grid) for grid in grids]
    expected = theirs(ImageList(images, [size]), maps)[0]
    got = default_boxes(grids, size, steps=steps)
    assert len(got) == 8732  # the paper's number
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


# --- loss -------------------------------------------------------------------------------------------------------


def random_outputs(size: tuple[int, int], batch: int = 3, dtype: torch.dtype = torch.float64) -> dict:
    with torch.no_grad():
        outputs = our_net()(torch.rand(batch, 3, *size, generator=generator(), dtype=torch.float64))
    count = len(outputs["anchors"])
    outputs["logits"] = torch.randn(batch, count, 4, generator=generator(1), dtype=torch.float64).to(dtype)
    outputs["deltas"] = torch.randn(batch, count, 4, generator=generator(2), dtype=torch.float64).to(dtype)
    outputs["anchors"] = outputs["anchors"].to(dtype)
    return outputs


def scene(anchors: Tensor, seed: int, objects: int = 5) -> dict[str, Tensor]:
    """Boxes near some default boxes."""
    rows = torch.randint(0, len(anchors), (objects,), generator=generator(seed))
    sides = (anchors[rows, 2:] - anchors[rows, :2]).repeat(1, 2)
    shift = 0.1 * sides * torch.randn(objects, 4, generator=generator(seed + 1), dtype=torch.float64)
    return {"boxes": anchors[rows] + shift, "labels": torch.randint(1, 4, (objects,), generator=generator(seed + 2))}


@pytest.mark.parametrize("size", SIZES)
def test_losses_and_gradients_equal_torchvision(size: tuple[int, int]) -> None:
    outputs, theirs = random_outputs(size), torchvision_net(size)
    anchors = outputs["anchors"]
    targets = [scene(anchors, 0), NOTHING, scene(anchors, 5, 2)]
    matcher, nothing = SSDMatcher(0.5), torch.full((len(anchors),), -1)
    matches = [matcher(torchvision.ops.box_iou(t["boxes"], anchors)) if len(t["boxes"]) else nothing for t in targets]
    leaves = [outputs[key].clone().requires_grad_() for key in ("deltas", "logits")]
    heads = {"bbox_regression": leaves[0], "cls_logits": leaves[1]}
    expected = theirs.compute_loss(targets, heads, [anchors] * 3, matches)
    wanted = torch.autograd.grad(expected["classification"] + expected["bbox_regression"], leaves)
    mine = [outputs[key].clone().requires_grad_() for key in ("deltas", "logits")]
    losses = ssd_loss({**outputs, "deltas": mine[0], "logits": mine[1]}, targets)
    assert list(losses) == ["classification", "boxes", "loss"]
    torch.testing.assert_close(losses["classification"], expected["classification"], **CLOSE)
    torch.testing.assert_close(losses["boxes"], expected["bbox_regression"], **CLOSE)
    assert losses["loss"] == losses["classification"] + losses["boxes"]
    for got, grad in zip(torch.autograd.grad(losses["loss"], mine), wanted, strict=True):
        assert grad.abs().max() > 1e-3
        torch.testing.assert_close(got, grad, **CLOSE)


def test_tiny_objects_have_nearly_tied_default_boxes_and_equal_losses_on_equal_boxes() -> None:
    outputs, theirs = random_outputs((96, 96)), torchvision_net((96, 96))
    anchors = outputs["anchors"]
    corners = 10 + 70 * torch.rand(6, 2, generator=generator(7), dtype=torch.float64)
    boxes = torch.cat([corners, corners + 0.01], dim=1)
    target = {"boxes": boxes, "labels": torch.ones(6, dtype=torch.int64)}
    iou = torchvision.ops.box_iou(boxes, anchors)
    tied = iou > (1 - 1e-4) * iou.amax(dim=1, keepdim=True)
    assert (tied.sum(dim=1) > 1).any()  # rounding decides
    heads = {"bbox_regression": outputs["deltas"][:1], "cls_logits": outputs["logits"][:1]}
    expected = theirs.compute_loss([target], heads, [anchors], [SSDMatcher(0.5)(iou)])
    one = {**outputs, "deltas": outputs["deltas"][:1], "logits": outputs["logits"][:1], "sizes": outputs["sizes"][:1]}
    losses = ssd_loss(one, [target])
    torch.testing.assert_close(losses["classification"], expected["classification"], **CLOSE)
    torch.testing.assert_close(losses["boxes"], expected["bbox_regression"], **CLOSE)


@pytest.mark.parametrize("change", [{"iou_threshold": 0.6}, {"neg_to_pos_ratio": 2.0}])
def test_every_option_of_the_loss_is_seen(change: dict[str, float]) -> None:
    outputs = random_outputs((96, 96), 1)
    targets = [scene(outputs["anchors"], 0)]
    assert abs(ssd_loss(outputs, targets)["loss"] - ssd_loss(outputs, targets, **change)["loss"]) > 1e-3


def test_loss_by_hand() -> None:
    # An object on the first of six default boxes, one pixel to the right: a tenth of its width, times 10.
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]] + [[50.0, 50.0, 60.0, 60.0]] * 5)
    logits = torch.zeros(1, 6, 3)
    logits[0, :, 0] = torch.tensor([0.0, 0.0, -1.0, -2.0, -3.0, 9.0])
    outputs = {"logits": logits, "deltas": torch.zeros(1, 6, 4), "anchors": anchors, "sizes": [(64, 64)]}
    targets = [{"boxes": torch.tensor([[1.0, 0.0, 11.0, 10.0]]), "labels": torch.tensor([2])}]
    losses = ssd_loss(outputs, targets)
    # log 3 of the object's box; of the background the three that are the least sure of it
    hardest = sum(math.log(math.exp(-wrong) + 2) + wrong for wrong in (1, 2, 3))
    assert losses["classification"].item() == pytest.approx(math.log(3) + hardest, rel=1e-6)
    assert losses["boxes"].item() == pytest.approx(0.5, rel=1e-5)
    all_of_them = ssd_loss(outputs, targets, neg_to_pos_ratio=100)["classification"].item()  # and no box twice
    rest = math.log(3) + math.log(math.exp(9) + 2) - 9
    assert all_of_them == pytest.approx(math.log(3) + hardest + rest, rel=1e-5)
    half = {**outputs, "logits": logits.half(), "deltas": outputs["deltas"].half()}
    assert ssd_loss(half, targets)["loss"].item() == pytest.approx(losses["loss"].item(), rel=1e-5)


def test_every_object_has_its_best_default_box() -> None:
    iou = torch.tensor([[0.9, 0.3, 0.0], [0.2, 0.1, 0.0], [0.2, 0.45, 0.4]])
    assert match_default_boxes(iou).tolist() == [1, 2, -1]  # the second takes it from the first, the later wins
    assert match_default_boxes(iou[:1], 0.3).tolist() == [0, 0, -1]
    assert match_default_boxes(iou[:0]).tolist() == [-1, -1, -1]
    for seed in range(20):
        iou = torch.rand(5, 40, generator=generator(seed))
        assert torch.equal(match_default_boxes(iou), SSDMatcher(0.5)(iou.clone()))


def test_no_object_at_all() -> None:
    outputs = random_outputs((96, 96), 2)
    outputs["logits"].requires_grad_()
    losses = ssd_loss(outputs, [NOTHING, NOTHING])
    assert all(value == 0 for value in losses.values())
    losses["loss"].backward()
    assert not outputs["logits"].grad.any()
    outputs["logits"] = torch.tensor([99.0, 0, 0, 0]).expand(2, len(outputs["anchors"]), 4)
    nothing = postprocess(outputs)
    assert [tuple(value.shape) for found in nothing for value in found.values()] == [(0, 4), (0,), (0,)] * 2
    assert nothing[0]["labels"].dtype == torch.int64


# --- postprocess and network ------------------------------------------------------------------------------------


def test_boxes_end_where_the_image_ends() -> None:
    outputs = random_outputs((96, 96), 2) | {"sizes": [(40, 96), (64, 50)]}
    for found, (h, w) in zip(postprocess(outputs), outputs["sizes"], strict=True):
        boxes, scores = found["boxes"], found["scores"]
        assert boxes.amin() == 0 and boxes[:, 2].amax() == w and boxes[:, 3].amax() == h
        assert torch.equal(scores, scores.sort(descending=True).values)
        iou = box_iou(boxes, boxes).triu(1) * (found["labels"][:, None] == found["labels"])
        assert iou.max() <= 0.45


def test_half_precision() -> None:
    single = random_outputs((96, 96), 1, torch.float32)
    half = {**single, "logits": single["logits"].half(), "deltas": single["deltas"].half()}
    rounded = {**single, "logits": half["logits"].float(), "deltas": half["deltas"].float()}
    for got, wanted in zip(postprocess(half)[0].values(), postprocess(rounded)[0].values(), strict=True):
        assert torch.equal(got, wanted)
    outputs = our_net().to(torch.bfloat16)(torch.rand(1, 3, 96, 96).to(torch.bfloat16))
    assert outputs["logits"].dtype == torch.bfloat16 and outputs["anchors"].dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_devices(device: str) -> None:
    net = our_net().to(device)
    outputs = net(torch.rand(1, 3, 96, 96, generator=generator(), dtype=torch.float64).to(device))
    target = {
        "boxes": torch.tensor([[4.0, 5.0, 20.0, 18.0]], device=device),
        "labels": torch.tensor([2], device=device),
    }
    tensors = [*ssd_loss(outputs, [target]).values(), *postprocess(outputs)[0].values(), outputs["anchors"]]
    assert {tensor.device.type for tensor in tensors} == {device}


def test_the_papers_maps_and_the_smallest_image() -> None:
    with torch.device("meta"):
        net = ssd300_vgg16(21)
        grids = [tuple(x.shape[1:]) for x in net.backbone(torch.zeros(1, 3, 300, 300))]
        small = [tuple(x.shape[2:]) for x in net.backbone(torch.zeros(1, 3, 268, 268))]
    channels, sides = (512, 1024, 512, 256, 256, 256), (38, 19, 10, 5, 3, 1)
    assert grids == [(c, side, side) for c, side in zip(channels, sides, strict=True)]
    assert small[-1] == (1, 1)
    assert our_net().backbone.min_size == 76 and net.backbone.min_size == 268
    with torch.device("meta"), pytest.raises(ValueError, match="expected H and W of at least 268"):
        net.backbone(torch.zeros(1, 3, 300, 267))


def test_official_state_dict_loads_strictly() -> None:
    with torch.device("meta"):
        ours, theirs = ssd300_vgg16(), oracle.ssd300_vgg16(weights=None, weights_backbone=None)
    state = theirs.state_dict()
    assert {key: value.shape for key, value in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state, strict=True, assign=True)
    assert sum(p.numel() for p in ours.parameters()) == oracle.SSD300_VGG16_Weights.COCO_V1.meta["num_params"]
    del state["backbone.extra.0.7.1.weight"]
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict(state, strict=True, assign=True)


def test_the_numbers_are_torchvisions() -> None:
    with torch.device("meta"):
        theirs = oracle.ssd300_vgg16(weights=None, weights_backbone=None)
    assert (theirs.transform.image_mean, theirs.transform.image_std) == (list(MEAN), list(STD))
    kept = theirs.score_thresh, theirs.nms_thresh, theirs.topk_candidates, theirs.detections_per_img
    assert tuple(postprocess.__wrapped__.__kwdefaults__.values()) == kept
    assert tuple(ssd_loss.__kwdefaults__.values()) == (theirs.proposal_matcher.high_threshold, theirs.neg_to_pos_ratio)


def test_the_vgg_that_is_given_stays_as_it_is() -> None:
    vgg = VGG(STAGES)
    assert (SSDFeatures(vgg, 10, EXTRAS).scale_weight == 20).all()
    assert not any(layer.ceil_mode for layer in vgg.features if isinstance(layer, nn.MaxPool2d))


@pytest.mark.learns
def test_learns_two_scenes() -> None:
    scenes = [draw_shapes((7, i)) for i in range(2)]
    images = torch.stack([sample["image"] for sample in scenes])
    torch.manual_seed(0)
    features = SSDFeatures(VGG(((16,), (24,), (32,), (48,), (48,))), 48, ((24, 48, 2),))
    net = SSD(features, 4, (0.3, 0.45, 0.6, 0.8), ((2,),) * 3, steps=None)
    fit(net, lambda: ssd_loss(net(images), scenes)["loss"], steps=100, lr=2e-3)
    assert detection_f1(postprocess(net(images), score_threshold=0.5), scenes) > 0.6


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda o: [o], TypeError, "outputs has type list, expected a dict with the keys logits, deltas"),
        (lambda o: {"logits": o["logits"]}, ValueError, "outputs has the keys ['logits'], expected"),
        (lambda o: {**o, "logits": o["logits"][0]}, ValueError, "outputs['logits'] has shape"),
        (lambda o: {**o, "deltas": o["deltas"][:, 1:]}, ValueError, "outputs['deltas'] has shape"),
        (lambda o: {**o, "deltas": o["deltas"].long()}, TypeError, "outputs['deltas'] has dtype torch.int64"),
        (lambda o: {**o, "anchors": o["anchors"][1:]}, ValueError, "outputs['anchors'] has "),
        (
            lambda o: {**o, "sizes": o["sizes"][1:]},
            ValueError,
            "outputs['sizes'] has 0 entries, expected 1, one for each",
        ),
    ],
)
def test_bad_outputs(change: object, error: type[Exception], words: str) -> None:
    outputs = change(random_outputs((96, 96), 1))
    for function in (postprocess, lambda bad: ssd_loss(bad, [NOTHING])):
        with pytest.raises(error) as caught:
            function(outputs)
        assert str(caught.value).startswith(words)


def test_bad_input() -> None:
    outputs = random_outputs((96, 96), 1)
    broken = {**outputs, "deltas": outputs["deltas"] * torch.nan}
    with pytest.raises(ValueError, match="contains NaN, expected finite values"):
        postprocess(broken)
    with pytest.raises(ValueError, match="targets has 2 entries, expected 1, one for each image"):
        ssd_loss(outputs, [NOTHING] * 2)
    wrong = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "labels": torch.tensor([0])}
    with pytest.raises(ValueError, match="expected 1 to 3"):
        ssd_loss(outputs, [wrong])
    net = our_net()
    with pytest.raises(ValueError, match=r"images has shape \(1, 3, 96, 75\), expected H and W of at least 76"):
        net(torch.rand(1, 3, 96, 75, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"sizes\[0\] is \(97, 96\), expected"):
        net(torch.rand(1, 3, 96, 96, dtype=torch.float64), [(97, 96)])
    with pytest.raises(ValueError, match="scales has 7 entries, expected 5"):
        SSD(net.backbone, 4)
    with pytest.raises(ValueError, match="num_classes is 1, expected an integer of at least 2"):
        SSD(net.backbone, 1, PARTS, SHAPES, None)
    with pytest.raises(ValueError, match="vgg has 4 stages, expected 5"):
        SSDFeatures(VGG(STAGES[:4]))
