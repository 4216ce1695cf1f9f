"""R-CNN: crops, machines and regressions beside scikit-learn's, detections by hand, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detection.scenes import scenes
from learning import detection_f1, fit
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC
from torch import Tensor

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.detection.rcnn import (
    RCNN,
    CropFeatures,
    fit_heads,
    fit_ridge,
    fit_svm,
    postprocess,
    rcnn_loss,
    svm_labels,
)
from segedu.layers.proposals import Sampling, add_ground_truth
from segedu.ops.boxes import box_iou
from segedu.unsupervised.selective_search import FAST, SINGLE

KEYS = {"features", "class_logits", "svm_scores", "deltas", "proposals", "sizes"}
NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def small(**options: object) -> RCNN:
    torch.manual_seed(0)
    features = CropFeatures(ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), output_stride=8))
    return RCNN(features, 4, **{"crop_size": 32, "context": 4, "strategies": SINGLE, "max_proposals": 40, **options})


def drawn(count: int = 60, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return features, (features[:, 0] + 0.5 * torch.randn(count, generator=generator) > 0.7).long() * 2 - 1


def test_svm_is_scikit_learns_on_hard_negatives() -> None:
    features, labels = drawn()
    weight, bias = fit_svm(features, labels, cost=1.0, passes=50)
    scale = 20 / float(features.norm(dim=1).mean())
    machine = LinearSVC(C=1.0, loss="hinge", class_weight={1: 2.0}, intercept_scaling=10.0, max_iter=200000, tol=1e-6)
    machine.fit(scale * features.numpy(), labels.numpy())  # all at once: points far off change nothing
    theirs = features.numpy() @ machine.coef_[0] * scale + machine.intercept_[0]
    ours = (features @ weight + bias).numpy()
    hinge = [
        0.5 * ((w / scale) ** 2).sum() + (np.where(labels > 0, 2, 1) * np.maximum(0, 1 - labels.numpy() * s)).sum()
        for w, s in ((weight.numpy(), ours), (machine.coef_[0] * scale, theirs))
    ]
    assert hinge[0] == pytest.approx(hinge[1], rel=0.01)
    assert (np.sign(ours) == np.sign(theirs)).mean() > 0.95


def test_svm_without_positives_or_negatives() -> None:
    features, labels = drawn()
    for given, bias in ((-1, -1.0), (1, 1.0), (0, -1.0)):
        weight, got = fit_svm(features, torch.full_like(labels, given))
        assert (weight == 0).all() and got == bias


def test_ridge_is_scikit_learns() -> None:
    features, _ = drawn()
    wanted = torch.randn(60, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 3
    weight, bias = fit_ridge(features, wanted, 7.0)
    theirs = Ridge(alpha=7.0).fit(features.numpy(), wanted.numpy())
    np.testing.assert_allclose(weight.numpy(), theirs.coef_, atol=1e-10)
    np.testing.assert_allclose(bias.numpy(), theirs.intercept_, atol=1e-10)
    weight, bias = fit_ridge(features[:0], wanted[:0])
    assert weight.shape == (4, 5) and not weight.any() and not bias.any()


def test_labels_of_the_machines() -> None:
    truth = {
        "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]]),
        "labels": torch.tensor([1, 3]),
    }
    boxes = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 2.9], [0.0, 0.0, 10.0, 4.9], [20.0, 20.0, 30.0, 30.0]]
    )
    # IoU with the first object 1, 0.29, 0.49, 0; with the second 1/2, 0.58, 0.98, 0
    assert svm_labels(boxes, truth, 4).tolist() == [[1, -1, 0], [-1, -1, 0], [0, -1, 0], [-1, -1, -1]]
    assert (svm_labels(boxes, NONE, 4) == -1).all()


def test_detections_by_hand() -> None:
    proposals = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [4.0, 4.0, 40.0, 40.0]])
    outputs = {
        "features": torch.zeros(4, 1),
        "class_logits": torch.zeros(4, 3),
        "svm_scores": torch.tensor([[0.5, -1.0], [0.9, 0.2], [-0.1, 2.0], [3.0, -1.0]]),
        "deltas": torch.zeros(4, 2, 4),
        "proposals": [proposals, proposals[:1]],
        "sizes": [(20, 30), (8, 8)],
    }
    outputs["deltas"][2, 1, 0] = -0.1  # of 36 pixels
    first, second = postprocess(outputs)
    # the first proposal falls to the second, which is better; the third is moved and cut at the edge
    torch.testing.assert_close(first["boxes"], torch.tensor([[0.4, 4, 30, 20], [0, 0, 10, 9], [0, 0, 10, 9]]))
    assert first["labels"].tolist() == [2, 1, 2]
    torch.testing.assert_close(first["scores"], torch.tensor([2.0, 0.9, 0.2]))
    assert second["boxes"].tolist() == [[0, 0, 8, 8]] and second["labels"].tolist() == [1]
    assert [len(found["boxes"]) for found in postprocess(outputs, max_detections=1)] == [1, 1]
    assert [len(found["boxes"]) for found in postprocess(outputs, score_threshold=9.0)] == [0, 0]
    assert len(postprocess(outputs, iou_threshold=0.95)[0]["boxes"]) == 4


def test_heads_are_set_and_boxes_move_to_their_objects() -> None:
    """Features that say how far off a proposal is: the regression reads them."""
    generator = torch.Generator().manual_seed(0)
    truth = {"boxes": torch.tensor([[10.0, 10.0, 30.0, 30.0]]), "labels": torch.tensor([2])}
    near = truth["boxes"] + 2 * torch.rand(300, 4, generator=generator) - 1
    proposals = torch.cat([near, torch.tensor([[40.0, 40.0, 60.0, 60.0]]).expand(20, 4), truth["boxes"]])
    model = small()
    shift = torch.cat([near - truth["boxes"], torch.zeros(21, 4)])
    here = torch.cat([torch.ones(300), torch.zeros(20), torch.full((1,), 3.0)])
    features = torch.zeros(321, model.svm.in_features)
    features[:, :4], features[:, 4], features[:, 5] = 30 * shift, 10 * here, 5.0
    outputs = {"features": features, "class_logits": torch.zeros(321, 4), "proposals": [proposals], "sizes": [(64, 64)]}
    outputs |= {"svm_scores": torch.zeros(321, 3), "deltas": torch.zeros(321, 3, 4)}
    fit_heads(model, outputs, [truth])
    outputs["svm_scores"] = model.svm(features)
    outputs["deltas"] = model.box(features).reshape(321, 3, 4)
    assert outputs["svm_scores"][-1, 1] > outputs["svm_scores"][300:320, 1].max()
    assert not model.svm.weight[[0, 2]].any() and (model.svm.bias[[0, 2]] == -1).all()  # classes without an object
    found = postprocess(outputs, score_threshold=-torch.inf, iou_threshold=1.0, max_detections=1000)[0]
    own = found["boxes"][found["labels"] == 2]
    assert ((own - truth["boxes"]).abs().amax(1) < 0.2).sum() >= 300


def test_forward_finds_its_proposals_and_targets_sample() -> None:
    model, (images, targets) = small(sampling=Sampling(16)).eval(), scenes(2)
    outputs = model(images)
    assert set(outputs) == KEYS and all(1 < len(boxes) <= 40 for boxes in outputs["proposals"])
    count = sum(map(len, outputs["proposals"]))
    assert [tuple(outputs[key].shape) for key in ("features", "class_logits", "svm_scores", "deltas")] == [
        (count, 64),
        (count, 4),
        (count, 3),
        (count, 3, 4),
    ]
    sampled = model(images, targets=targets, proposals=outputs["proposals"])
    assert set(sampled) == KEYS and all(len(boxes) <= 16 for boxes in sampled["proposals"])
    # a batch that is padded gives the same features as the image alone
    wide = torch.cat([images, torch.rand(2, 3, 64, 20)], dim=3)
    padded = model(wide, [(64, 64)] * 2, proposals=outputs["proposals"])
    torch.testing.assert_close(padded["features"], outputs["features"])


def test_backward_reaches_every_parameter_and_no_object_or_proposal_is_no_trouble() -> None:
    model, (images, targets) = small(), scenes(2)
    proposals = [target["boxes"] + 1 for target in targets]
    outputs = model(images, targets=targets, proposals=proposals)
    sum(outputs[key].square().sum() for key in ("class_logits", "svm_scores", "deltas")).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    losses = rcnn_loss(model(images, targets=[NONE, NONE], proposals=proposals), [NONE, NONE])
    assert losses["loss"].isfinite() and losses["loss"] > 0
    empty = [torch.zeros(0, 4)] * 2
    losses = rcnn_loss(model(images, targets=[NONE, NONE], proposals=empty), [NONE, NONE])
    assert losses["loss"] == 0
    outputs = model.eval()(images, proposals=empty)
    assert [len(found["boxes"]) for found in postprocess(outputs)] == [0, 0]
    fit_heads(model, outputs, [NONE, NONE])
    assert (model.svm.bias == -1).all()


def test_bad_input() -> None:
    model, (images, targets) = small(), scenes(2)
    proposals = [target["boxes"] for target in targets]
    outputs = model(images, proposals=proposals)
    for error, words, call in (
        (ValueError, "images has shape", lambda: model(images[:, :1])),
        (ValueError, "sizes has 1 entries", lambda: model(images, [(64, 64)])),
        (TypeError, "proposals has type dict", lambda: model(images, proposals={})),
        (ValueError, "proposals has 1 entries", lambda: model(images, proposals=proposals[:1])),
        (ValueError, "targets has 1 entries", lambda: model(images, targets=targets[:1], proposals=proposals)),
        (ValueError, "targets has 1 entries", lambda: rcnn_loss(outputs, targets[:1])),
        (ValueError, "outputs has the keys", lambda: fit_heads(model, {}, targets)),
        (ValueError, "NaN", lambda: postprocess(outputs | {"svm_scores": outputs["svm_scores"] * torch.nan})),
        (ValueError, "num_classes is 1", lambda: RCNN(model.features, 1)),
        (ValueError, "crop_size is 32 and context 16", lambda: small(context=16)(images, proposals=proposals)),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.learns
def test_learns_four_scenes() -> None:
    images, targets = scenes(4, (96, 96))
    torch.manual_seed(0)
    model = small(sampling=Sampling(48, 0.5), strategies=FAST, max_proposals=200)
    with torch.no_grad():
        proposals = model.eval()(images)["proposals"]  # selective search, once
    fit(model, lambda: rcnn_loss(model(images, targets=targets, proposals=proposals), targets)["loss"], steps=60)
    with torch.no_grad():
        fit_heads(model, model(images, proposals=add_ground_truth(proposals, targets)), targets, cost=0.1)
        found = postprocess(model(images, proposals=proposals))
    for detections in found:
        detections["scores"] += 0.5  # a support vector machine decides at 0
    pairs = zip(proposals, targets, strict=True)
    proposed = torch.cat([box_iou(target["boxes"], boxes).amax(1) > 0.5 for boxes, target in pairs])
    assert proposed.float().mean() > 0.8 and detection_f1(found, targets) > 0.6
