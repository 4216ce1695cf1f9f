"""Fast R-CNN: its head, losses and detections beside torchvision's, what it refuses, and that it learns."""

from __future__ import annotations

import pytest
import torch
from detection.scenes import scenes, small_resnet
from detection.torchvision_twins import draw_targets
from learning import detection_f1, fit
from randomise import randomise
from torch import Tensor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import RoIPool

from segedu.backbones.vgg import VGG, vgg16
from segedu.detection.fast_rcnn import (
    BoxPredictor,
    FastRCNN,
    LastConvolutions,
    TwoLayerHead,
    fast_rcnn_loss,
    fast_rcnn_vgg16,
    postprocess,
)
from segedu.layers.proposals import Sampling, label_proposals, sample_proposals

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
KEYS = {"class_logits", "deltas", "proposals", "sizes"}
NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
SIZES = [(64, 96), (50, 77)]


def small(num_classes: int = 4, backbone: str = "resnet", **options: object) -> FastRCNN:
    torch.manual_seed(0)
    if backbone == "vgg":
        body, level = LastConvolutions(VGG(((8,), (8,), (16,), (16,), (16,)))), -1
    else:
        body, level = small_resnet(), 2
    head = TwoLayerHead(body.channels[level], 5, 32)
    return FastRCNN(body, num_classes, level, head, **options)


def draw_proposals(sizes: list[tuple[int, int]], counts: list[int], seed: int = 0) -> list[Tensor]:
    return [target["boxes"] for target in draw_targets(sizes, counts, seed)]


class AllOf:
    """A sampler that takes everything."""

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [(label > 0).byte() for label in labels], [(label == 0).byte() for label in labels]


class PoolOneLevel:
    """torchvision's RoIPool in the place of RoIAlign on a pyramid."""

    def __init__(self, scale: float) -> None:
        self.pool = RoIPool((5, 5), scale)

    def __call__(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: object) -> Tensor:
        return self.pool(features["0"], boxes)


def heads() -> tuple[RoIHeads, FastRCNN]:
    ours = randomise(small())
    box_head, predictor = TwoMLPHead(16 * 25, 32), FastRCNNPredictor(32, 4)
    theirs = RoIHeads(PoolOneLevel(1 / 8), box_head, predictor, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 100).double()
    theirs.fg_bg_sampler = AllOf()
    with torch.no_grad():
        ours.box_predictor.bbox_pred.weight *= 0.3
    for mine, other in ((ours.box_head, box_head), (ours.box_predictor, predictor)):
        other.load_state_dict(mine.state_dict(), strict=True)
    return theirs, ours


@pytest.mark.parametrize("size", [(64, 96), (67, 101)], ids=str)  # of the batch
@torch.no_grad()
def test_detections_are_torchvisions(size) -> None:
    theirs, ours = heads()
    images, proposals = torch.rand(2, 3, *size, dtype=torch.float64), draw_proposals(SIZES, [30, 20])
    outputs = ours(images, proposals, SIZES)
    assert set(outputs) == KEYS
    features = {"0": ours.backbone(images)[2]}
    expected = theirs.eval()(features, proposals, SIZES)[0]
    for found, other in zip(postprocess(outputs), expected, strict=True):
        assert len(found["scores"]) > 5
        assert torch.equal(found["labels"], other["labels"])
        for key in ("boxes", "scores"):
            torch.testing.assert_close(found[key], other[key], **CLOSE)


@pytest.mark.parametrize(
    ("counts", "size"), [((4, 0), (64, 96)), ((2, 3), (64, 96)), ((0, 0), (64, 96)), ((2, 3), (67, 101))], ids=str
)
def test_losses_and_gradients_are_torchvisions(counts, size) -> None:
    theirs, ours = heads()
    ours.sampling = Sampling(512, 1.0, 0.5)
    images, targets = torch.rand(2, 3, *size, dtype=torch.float64), draw_targets(SIZES, counts, 1)
    # near the objects, and anywhere
    near = [t["boxes"].repeat(5, 1) + 2 * torch.rand(5 * len(t["boxes"]), 4).double() for t in targets]
    proposals = [torch.cat(pair) for pair in zip(near, draw_proposals(SIZES, [30, 20]), strict=True)]
    expected = theirs.train()({"0": ours.backbone(images)[2]}, proposals, SIZES, targets)[1]
    losses = fast_rcnn_loss(ours(images, proposals, SIZES, targets), targets, beta=1 / 9)
    torch.testing.assert_close(losses["classes"], expected["loss_classifier"], **CLOSE)
    torch.testing.assert_close(losses["box"], expected["loss_box_reg"], **CLOSE)
    assert (losses["box"] > 1e-3) == (sum(counts) > 0)
    losses["loss"].backward()
    sum(expected.values()).backward()
    for mine, other in ((ours.box_head, theirs.box_head), (ours.box_predictor, theirs.box_predictor)):
        for name, parameter in mine.named_parameters():
            torch.testing.assert_close(parameter.grad, other.get_parameter(name).grad, **CLOSE)
    with torch.no_grad():
        ours.box_predictor.bbox_pred.bias += 1e-4
    again = fast_rcnn_loss(ours(images, proposals, SIZES, targets), targets, beta=1 / 9)
    assert (again["box"] != losses["box"]) == (sum(counts) > 0)


def test_loss_by_hand() -> None:
    proposal = torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 40.0, 40.0]])
    target = {"boxes": torch.tensor([[1.0, 0.0, 11.0, 10.0]]), "labels": torch.tensor([2])}  # IoU 9/11
    outputs = {
        "class_logits": torch.zeros(2, 3),
        "deltas": torch.zeros(2, 3, 4),
        "proposals": [proposal],
        "sizes": [(50, 50)],
    }
    losses = fast_rcnn_loss(outputs, [target])
    # -log(1/3) of both; the centre must move by 1/10 of the width, times 10: smooth L1 of 1 is 1/2, of two proposals
    assert losses["classes"].item() == pytest.approx(1.0986123)
    assert losses["box"].item() == pytest.approx(0.25)
    outputs["deltas"][0, 2, 0] = 1.0
    assert fast_rcnn_loss(outputs, [target])["box"] == 0
    outputs["deltas"][0, 1] = 7.0  # other classes may say what they like
    assert fast_rcnn_loss(outputs, [target], box_weight=3.0)["box"] == 0


def test_samples_are_objects_and_hard_background() -> None:
    target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([1])}
    good, hard, easy = [0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 3.0], [30.0, 30.0, 40.0, 40.0]
    boxes = torch.tensor([good] * 5 + [hard] * 5 + [easy] * 5)
    (chosen,) = sample_proposals([boxes], [target], Sampling(8, 0.25, 0.5, 0.1), torch.Generator().manual_seed(0))
    assert chosen.shape == (7, 4)  # two objects of six, true box included, and five hard ones
    assert label_proposals(chosen, target)[0].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert (chosen[2:] == torch.tensor(hard)).all()
    (chosen,) = sample_proposals([boxes[10:]], [target], Sampling(8, 0.25, 0.5, 0.1))  # no hard ones: all will do
    assert label_proposals(chosen, target)[0].tolist() == [1, 0, 0, 0, 0, 0]
    (chosen,) = sample_proposals([boxes], [NONE], Sampling(8, 0.25, 0.5, 0.1))
    assert chosen.shape == (8, 4)


@pytest.mark.parametrize("backbone", ["resnet", "vgg"])
def test_backward_reaches_every_parameter_and_no_object_or_proposal_is_no_trouble(backbone) -> None:
    model, (images, targets) = small(backbone=backbone), scenes(2)
    proposals = [target["boxes"] + 1 for target in targets]
    for given in (targets, [NONE, targets[1]], [NONE, NONE]):
        model.zero_grad()
        losses = fast_rcnn_loss(model(images, proposals, targets=given), given)
        losses["loss"].backward()
        assert losses["loss"].isfinite()
        if given is targets:
            assert all(
                p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "layer3" not in n and "layer4" not in n
            )
    outputs = model(images, [torch.zeros(0, 4)] * 2)
    assert [len(found["boxes"]) for found in postprocess(outputs)] == [0, 0]
    losses = fast_rcnn_loss(model(images, [torch.zeros(0, 4)] * 2, targets=[NONE, NONE]), [NONE, NONE])
    assert losses["loss"] == 0
    losses["loss"].backward()


def test_bad_input() -> None:
    model, (images, targets) = small(), scenes(2)
    proposals = [target["boxes"] for target in targets]
    outputs = model(images, proposals)
    wrong = outputs | {"deltas": outputs["deltas"][:, 1:]}
    for error, words, call in (
        (ValueError, "images has shape", lambda: model(images[0], proposals)),
        (TypeError, "proposals has type Tensor", lambda: model(images, proposals[0])),
        (ValueError, "proposals has 1 entries", lambda: model(images, proposals[:1])),
        (ValueError, r"proposals\[1\] has shape", lambda: model(images, [proposals[0], proposals[1][0]])),
        (ValueError, r"proposals\[0\]\[0\] is", lambda: model(images, [-proposals[0], proposals[1]])),
        (ValueError, "targets has 1 entries", lambda: model(images, proposals, targets=targets[:1])),
        (ValueError, "outputs has the keys", lambda: fast_rcnn_loss({}, targets)),
        (
            ValueError,
            r"outputs\['deltas'\] has shape .*, expected .P, K, 4. with P = ",
            lambda: fast_rcnn_loss(wrong, targets),
        ),
        (ValueError, r"outputs\['deltas'\] has shape", lambda: postprocess(wrong)),
        (ValueError, "num_classes is 1", lambda: BoxPredictor(8, 1)),
    ):
        with pytest.raises(error, match=words):
            call()


def test_the_papers_network_and_imagenets_weights() -> None:
    with torch.device("meta"):
        model, vgg = fast_rcnn_vgg16(), vgg16()
        assert model.box_head.fc6.weight.shape == (4096, 25088) and model.box_predictor.cls_score.weight.shape == (
            21,
            4096,
        )
        model.backbone.load_state_dict(vgg.state_dict(), strict=True)  # the pooling that is gone has no weights
    assert model.backbone.strides == (16,) and model.box_head.size == 7


@pytest.mark.learns
def test_learns_four_scenes() -> None:
    torch.manual_seed(0)
    images, targets = scenes(4)
    generator = torch.Generator().manual_seed(0)
    proposals = []
    for target in targets:  # about where objects are, and anywhere
        near = target["boxes"].repeat(10, 1)
        near = near + 3 * torch.randn(near.shape, generator=generator)
        anywhere = 50 * torch.rand(40, 2, generator=generator)
        anywhere = torch.cat([anywhere, anywhere + 8 + 20 * torch.rand(40, 2, generator=generator)], 1)
        proposals.append(torch.cat([near, anywhere]).clamp(0, 64))
    model = small(sampling=Sampling(64, 0.25, 0.5, 0.1))
    fit(model, lambda: fast_rcnn_loss(model(images, proposals, targets=targets), targets)["loss"], steps=80)
    assert detection_f1(postprocess(model(images, proposals)), targets) > 0.6
