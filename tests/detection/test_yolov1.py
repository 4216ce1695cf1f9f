"""YOLO: the grid by numbers worked by hand, its loss term by term, there and back, and one batch learned by heart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from learning import detection_f1, fit
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import Shapes
from segedu.detection.yolov1 import (
    YOLOv1,
    YOLOv1Backbone,
    decode_cells,
    postprocess,
    yolo_depth,
    yolov1,
    yolov1_loss,
    yolov1_targets,
)


def tiny(cells: int = 3, num_classes: int = 4, boxes: int = 2) -> YOLOv1:
    torch.manual_seed(0)
    return YOLOv1(YOLOv1Backbone(((3, 4, 2), (), (1, 3))), num_classes, cells, boxes, hidden=8)


def grid_outputs(targets: dict[str, Tensor], image_size: tuple[int, int], boxes: int = 2) -> dict[str, Any]:
    """What a perfect network says: every box of a cell is the object."""
    return {
        "coordinates": targets["coordinates"][None, :, :, None].repeat(1, 1, 1, boxes, 1),
        "confidences": targets["objects"][None, :, :, None].float().repeat(1, 1, 1, boxes),
        "class_scores": targets["classes"][None].clone(),
        "image_size": image_size,
        "sizes": [image_size],
    }


def target(boxes: list[list[float]], labels: list[int]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}


def test_the_papers_network() -> None:
    with torch.device("meta"):
        model = yolov1()
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 24
    assert sum(p.numel() for p in model.parameters()) == 271_703_550
    assert (model.input_size, model.backbone.channels, model.backbone.strides) == (448, (1024,), (64,))
    assert model.backbone(torch.zeros(1, 3, 448, 448, device="meta"))[0].shape == (1, 1024, 7, 7)
    assert model.head[-1].out_features == 7 * 7 * 30
    assert yolo_depth(2, 20) == 30 and yolo_depth(5, 20) == 45


@pytest.mark.parametrize("size", [(12, 12), (37, 45), (1, 3)])
@pytest.mark.parametrize("batch", [1, 3])
def test_images_of_any_size(size: tuple[int, int], batch: int) -> None:
    outputs = tiny()(torch.rand(batch, 3, *size))
    shapes = {key: tuple(outputs[key].shape) for key in ("coordinates", "confidences", "class_scores")}
    assert shapes == {
        "coordinates": (batch, 3, 3, 2, 4),
        "confidences": (batch, 3, 3, 2),
        "class_scores": (batch, 3, 3, 3),
    }
    assert outputs["image_size"] == size and outputs["sizes"] == [size] * batch


def test_the_centre_decides_the_cell() -> None:
    """A box of 40 x 40 around (30, 50) in 80 x 80: second row, first column of two, at 3/4 and 1/4 of the cell."""
    got = yolov1_targets(torch.tensor([[10.0, 30, 50, 70]]), torch.tensor([2]), 2, (80, 80), 4)
    assert got["objects"].tolist() == [[False, False], [True, False]]
    root = math.sqrt(0.5)
    assert torch.allclose(got["coordinates"][1, 0], torch.tensor([0.75, 0.25, root, root]))
    assert got["classes"][1, 0].tolist() == [0, 1, 0] and got["classes"].sum() == 1
    oblong = yolov1_targets(torch.tensor([[10.0, 30, 50, 70]]), torch.tensor([1]), 2, (80, 160), 4)
    assert torch.allclose(oblong["coordinates"][1, 0], torch.tensor([0.375, 0.25, 0.5, root]))


@pytest.mark.parametrize(
    ("centre", "cell", "offset"),
    [((40, 20), (0, 1), (0.0, 0.5)), ((20, 40), (1, 0), (0.5, 0.0)), ((80, 80), (1, 1), (1.0, 1.0)), ((0, 0),) * 3],
)
def test_an_object_on_a_border(centre: Any, cell: Any, offset: Any) -> None:
    x, y = centre
    box = torch.tensor([[x - 5.0, y - 5, x + 5, y + 5]])
    got = yolov1_targets(box, torch.tensor([1]), 2, (80, 80), 4)
    assert got["objects"].nonzero().tolist() == [list(cell)]
    assert got["coordinates"][cell][:2].tolist() == list(offset)
    assert torch.allclose(decode_cells(got["coordinates"][:, :, None], (80, 80))[cell], box, atol=1e-4)


def test_a_cell_keeps_its_first_object() -> None:
    boxes = [[10.0, 10, 30, 30], [5.0, 5, 35, 35], [50.0, 10, 70, 30]]
    got = yolov1_targets(torch.tensor(boxes), torch.tensor([3, 1, 2]), 2, (80, 80), 4)
    assert got["objects"].tolist() == [[True, True], [False, False]]
    assert got["classes"][0, 0].tolist() == [0, 0, 1]
    assert torch.allclose(got["coordinates"][0, 0], torch.tensor([0.5, 0.5, 0.5, 0.5]))


@pytest.mark.parametrize("image_size", [(80, 80), (60, 100), (37, 45)])
def test_perfect_outputs_give_the_objects_back(image_size: tuple[int, int]) -> None:
    H, W = image_size
    parts = torch.tensor([[0.1, 0.1, 0.4, 0.3], [0.6, 0.2, 0.9, 0.5], [0.3, 0.7, 0.8, 1.0]])
    wanted = parts * torch.tensor([W, H, W, H])
    labels = torch.tensor([1, 3, 3])
    outputs = grid_outputs(yolov1_targets(wanted, labels, 4, image_size, 4), image_size)
    (found,) = postprocess(outputs)
    order = found["boxes"][:, 1].argsort()
    assert torch.allclose(found["boxes"][order], wanted, atol=1e-3) and torch.equal(found["labels"][order], labels)
    assert found["scores"].tolist() == [1, 1, 1] and found["labels"].dtype == torch.int64
    losses = yolov1_loss(outputs, [{"boxes": wanted, "labels": labels}])
    # the box of each cell that is not responsible says 1 as well: three times 0.5
    assert losses["no_object"] == 1.5 and losses["loss"] == pytest.approx(1.5, abs=1e-6)


def outputs_by_hand() -> dict[str, Any]:
    """One image of 80 x 80, 2 x 2 cells. Cell (0, 0) says 0.2 and 0.6 for its boxes: 40 x 40 and 20 x 20 at (20, 20)."""
    outputs = grid_outputs(yolov1_targets(torch.zeros(0, 4), torch.zeros(0).long(), 2, (80, 80), 3), (80, 80))
    outputs["coordinates"][0, 0, 0] = torch.tensor([[0.5, 0.5, math.sqrt(0.5), math.sqrt(0.5)], [0.5, 0.5, 0.5, 0.5]])
    outputs["confidences"][0, 0, 0] = torch.tensor([0.2, 0.6])
    outputs["confidences"][0, 1, 1] = torch.tensor([0.4, 0.0])
    outputs["class_scores"][0, 0, 0] = torch.tensor([0.7, 0.4])
    return outputs


def test_the_loss_by_hand() -> None:
    """The object is 20 x 20 at (24, 20). IoU with the first box 400/1600, with the second 320/480: it is responsible.

    centre 5 * 0.1^2; size 0; object (0.6 - 2/3)^2; no object 0.5 * (0.2^2 + 0.4^2); classes (0.7 - 1)^2 + 0.4^2.
    """
    losses = yolov1_loss(outputs_by_hand(), [target([[14, 10, 34, 30]], [1])])
    wanted = {"centre": 0.05, "size": 0.0, "object": (0.6 - 2 / 3) ** 2, "no_object": 0.1, "classes": 0.25}
    assert {key: float(value) for key, value in losses.items()} == pytest.approx(
        wanted | {"loss": sum(wanted.values())}, abs=1e-6
    )


def test_size_by_its_root() -> None:
    """An object of 45 x 20 at (20, 20): IoU 0.5 with the first box, 4/9 with the second; roots 0.75 and 0.5."""
    losses = yolov1_loss(outputs_by_hand(), [target([[-2.5, 10, 42.5, 30]], [1])])
    root = math.sqrt(0.5)
    assert float(losses["size"]) == pytest.approx(5 * ((0.75 - root) ** 2 + (0.5 - root) ** 2), abs=1e-6)
    iou = 800 / (900 + 1600 - 800)
    assert float(losses["object"]) == pytest.approx((0.2 - iou) ** 2, abs=1e-6)
    assert float(losses["no_object"]) == pytest.approx(0.5 * (0.6**2 + 0.4**2), abs=1e-6)


def test_gradients_by_hand() -> None:
    """Of the loss of `test_the_loss_by_hand`: 2 * weight * error, and none through the IoU."""
    outputs = outputs_by_hand()
    keys = ("coordinates", "confidences", "class_scores")
    leaves = [outputs[key].requires_grad_() for key in keys]
    yolov1_loss(outputs, [target([[14, 10, 34, 30]], [1])])["loss"].backward()
    places, confidences, classes = (leaf.grad[0] for leaf in leaves)
    assert torch.allclose(places[0, 0], torch.tensor([[0.0] * 4, [-1.0, 0, 0, 0]]), atol=1e-6)
    assert not places[1].any() and not places[0, 1].any()
    assert torch.allclose(confidences[0, 0], torch.tensor([0.2, 2 * (0.6 - 2 / 3)]), atol=1e-6)
    assert torch.allclose(confidences[1, 1], torch.tensor([0.4, 0.0])) and not confidences[0, 1].any()
    assert torch.allclose(classes[0, 0], torch.tensor([-0.6, 0.8])) and not classes[1].any()


def test_without_objects_confidences_go_to_zero_and_nothing_else_is_asked() -> None:
    model = tiny().double()
    outputs = model(torch.rand(2, 3, 12, 12).double())
    losses = yolov1_loss(outputs, [target([], []), target([], [])])
    assert losses["loss"].dtype == torch.float64
    assert losses["loss"] == losses["no_object"] == 0.25 * (outputs["confidences"] ** 2).sum()
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    outputs["confidences"] = torch.zeros_like(outputs["confidences"])
    for found in postprocess(outputs):
        assert found["boxes"].shape == (0, 4) and found["labels"].shape == found["scores"].shape == (0,)


def test_half_precision_is_raised_before_sums() -> None:
    torch.manual_seed(0)
    outputs = tiny().eval()(torch.rand(2, 3, 12, 12))
    truth = [target([[1, 1, 7, 8]], [2]), target([], [])]
    half = {key: value.bfloat16() if isinstance(value, Tensor) else value for key, value in outputs.items()}
    raised = {key: value.float() if isinstance(value, Tensor) else value for key, value in half.items()}
    losses = yolov1_loss(half, truth)
    assert losses["loss"].dtype == torch.float32 and torch.equal(losses["loss"], yolov1_loss(raised, truth)["loss"])
    assert all(found["boxes"].dtype == torch.float32 for found in postprocess(half, 0.0))


def test_the_loss_is_the_mean_over_images_and_weights_weigh() -> None:
    torch.manual_seed(0)
    outputs = tiny().eval()(torch.rand(2, 3, 12, 12))
    truth = [target([[1, 1, 7, 8]], [2]), target([], [])]
    both = yolov1_loss(outputs, truth)
    parts = [
        yolov1_loss({k: v if k == "image_size" else v[i : i + 1] for k, v in outputs.items()}, truth[i : i + 1])
        for i in range(2)
    ]
    for key in both:
        assert torch.allclose(both[key], (parts[0][key] + parts[1][key]) / 2)
    weighted = yolov1_loss(outputs, truth, coord_weight=1, no_object_weight=1)
    assert torch.allclose(both["centre"], 5 * weighted["centre"]) and torch.allclose(both["size"], 5 * weighted["size"])
    assert torch.allclose(both["no_object"], weighted["no_object"] / 2)
    assert torch.equal(both["classes"], weighted["classes"]) and both["centre"] > 0


def test_postprocess_scores_cuts_and_keeps_one_box_for_each_class() -> None:
    outputs = outputs_by_hand()
    outputs["sizes"] = [(25, 80)]
    (found,) = postprocess(outputs, score_threshold=0.1, iou_threshold=0.5)
    # boxes of IoU 0.25 do not suppress each other: 0.6 and 0.2 times 0.7 and 0.4
    assert found["scores"].tolist() == pytest.approx([0.42, 0.24, 0.14]) and found["labels"].tolist() == [1, 2, 1]
    assert torch.allclose(found["boxes"][0], torch.tensor([10.0, 10, 30, 25]))
    assert torch.allclose(found["boxes"][2], torch.tensor([0.0, 0, 40, 25]), atol=1e-5)
    assert len(postprocess(outputs, 0.1, iou_threshold=0.2)[0]["boxes"]) == 2
    assert len(postprocess(outputs, 0.1, max_detections=1)[0]["boxes"]) == 1
    outputs["confidences"], outputs["class_scores"] = -outputs["confidences"], -outputs["class_scores"]
    assert not len(postprocess(outputs, 0.1)[0]["boxes"])  # two negative numbers are no good score
    outputs["sizes"] = [(5, 5)]
    assert not len(postprocess(outputs_by_hand() | {"sizes": [(8, 8)]}, 0.3)[0]["boxes"])  # beyond the image


def test_bad_input() -> None:
    model, image = tiny(), torch.rand(1, 3, 12, 12)
    outputs = model(image)
    good = target([[1, 1, 7, 8]], [2])
    for call, error, words in (
        (lambda: model(image[0]), ValueError, r"images has shape \(3, 12, 12\), expected \(B, 3, H, W\)"),
        (lambda: model(image, [(13, 12)]), ValueError, r"sizes\[0\] is \(13, 12\), expected"),
        (
            lambda: yolov1_loss(outputs, [good] * 2),
            ValueError,
            "targets has 2 entries, expected 1, one for each image",
        ),
        (
            lambda: yolov1_loss(outputs, [{"boxes": good["boxes"]}]),
            ValueError,
            r"targets\[0\] has the keys \['boxes'\]",
        ),
        (lambda: yolov1_loss(outputs, [target([[1, 1, 7, 8]], [4])]), ValueError, r"\[4\], expected 1 to 3"),
        (
            lambda: yolov1_loss(outputs, [target([[20, 1, 30, 8]], [1])]),
            ValueError,
            "expected a centre within the image",
        ),
        (lambda: yolov1_loss({}, [good]), ValueError, r"outputs has the keys \[\], expected coordinates"),
        (lambda: postprocess(outputs | {"confidences": outputs["confidences"] * math.nan}), ValueError, "contains NaN"),
        (lambda: postprocess(outputs | {"confidences": outputs["confidences"][0]}), ValueError, "expected "),
        (lambda: tiny(cells=0), ValueError, "cells is 0, expected an integer of at least 1"),
        (lambda: tiny(num_classes=1), ValueError, "num_classes is 1, expected an integer of at least 2"),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.learns
def test_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    model = YOLOv1(ResNet(BasicBlock, (1, 1, 1, 1), (8, 16, 32, 32), output_stride=8), 4, 8, hidden=128, dropout=0.0)
    samples = list(Shapes(3, seed=4, size=(64, 64), count=(1, 3)))
    images = torch.stack([sample["image"] for sample in samples])
    targets = [{key: sample[key] for key in ("boxes", "labels")} for sample in samples]
    first, last = fit(model, lambda: yolov1_loss(model(images), targets)["loss"], steps=150)
    assert last < first / 20
    assert detection_f1(postprocess(model(images)), targets, min_score=0.2) > 0.6
